//! `hotbed key`: who may use the API.

use std::time::Duration;

use clap::Subcommand;
use domain::{Error, RepoName, Result, Role};

use super::Ctx;
use super::output::ago;
use super::pool::period;
use crate::api::types::{CreateKey, KeyView, List, MadeKey};

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a key, and print it: it is shown once.
    Create {
        /// What to call it.
        name: String,
        /// `read-only`, `client`, `operator` or `admin`.
        #[arg(long)]
        role: Role,
        /// A repo that it may use, once for each; all of them when not given.
        #[arg(long = "repo")]
        repos: Vec<RepoName>,
        /// How long it is good, such as `90d`; until it is revoked when not given.
        #[arg(long, value_parser = period)]
        expires: Option<Duration>,
    },
    /// The keys, with when they were last used.
    Ls {
        /// Those that are revoked, too.
        #[arg(long)]
        all: bool,
    },
    /// Revoke a key by name or id: it opens nothing any more.
    Revoke {
        // `key` is whose key the command itself shows.
        #[arg(value_name = "KEY")]
        which: String,
    },
}

pub async fn run(ctx: &Ctx, command: KeyCommand) -> Result<()> {
    let client = ctx.client()?;
    match command {
        KeyCommand::Create { name, role, repos, expires } => {
            let repos = (!repos.is_empty()).then(|| repos.iter().map(ToString::to_string).collect());
            let expires_seconds = expires.map(|e| e.as_secs());
            let body = CreateKey { name, role: role.to_string(), repos, expires_seconds };
            let made: MadeKey = client.post("/v1/keys", &body).await?;
            if ctx.out.json {
                return ctx.out.print_json(&made);
            }
            eprintln!("{} ({}), shown once:", made.view.name, made.view.id);
            println!("{}", made.key);
            Ok(())
        }
        KeyCommand::Ls { all } => {
            let mut list: List<KeyView> = client.get("/v1/keys").await?;
            list.items.retain(|k| all || k.revoked_at.is_none());
            let headings = ["KEY", "NAME", "ROLE", "REPOS", "AGE", "LAST USED", "EXPIRES", "REVOKED"];
            ctx.out.table(&headings, &list.items, |k| {
                vec![
                    k.id.clone(),
                    k.name.clone(),
                    k.role.clone(),
                    k.repos.as_ref().map_or("all".into(), |repos| repos.join(" ")),
                    ago(k.created_at),
                    k.last_used_at.map_or("never".into(), ago),
                    k.expires_at.map_or("-".into(), |at| at.to_string()),
                    k.revoked_at.map_or("-".into(), ago),
                ]
            })
        }
        KeyCommand::Revoke { which } => {
            let list: List<KeyView> = client.get("/v1/keys").await?;
            let wanted = |k: &&KeyView| k.id == which || (k.name == which && k.revoked_at.is_none());
            let found = list.items.iter().find(wanted);
            let found =
                found.ok_or_else(|| Error::not_found(format!("there is no key `{which}` in force")))?;
            let gone: KeyView = client.delete(&format!("/v1/keys/{}", found.id)).await?;
            println!("{} ({}) is revoked", gone.name, gone.id);
            Ok(())
        }
    }
}

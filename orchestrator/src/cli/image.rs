//! `hotbed image`.

use std::process::ExitCode;

use clap::Subcommand;
use domain::{Error, Result};
use serde_json::json;

use super::Ctx;
use super::difference;
use super::output::{ago, bytes, short};
use crate::api::types::{ImageDiffView, ImageView, List, RemovalView};

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Images, newest first.
    Ls { repo: Option<String> },
    /// Everything that is known of an image.
    Show { id: String },
    /// What changed from one image to another: commits, packages, size, files.
    Diff {
        /// The image to begin at; where it is the only one, the image to end at: what changed since the one before it.
        from: String,
        to: Option<String>,
        /// How many of the changed files to name, the largest first.
        #[arg(long, default_value_t = 20)]
        files: usize,
    },
    /// Make an image that has passed its check current.
    Promote { id: String },
    /// Go back to the image before the current one, and pin it.
    Rollback { repo: String },
    /// Keep an image whatever its age; where it is current, keep it current.
    Pin { id: String },
    /// Take a pin away.
    Unpin { id: String },
    /// What the collector removes: it runs by itself every minute, so this shows and does nothing.
    Gc {
        /// Only show it.
        #[arg(long)]
        dry_run: bool,
    },
}

pub async fn run(ctx: &Ctx, command: ImageCommand) -> Result<ExitCode> {
    let client = ctx.client()?;
    let changed = match command {
        ImageCommand::Ls { repo } => {
            let query = repo.map_or(String::new(), |r| format!("?repo={r}"));
            let list: List<ImageView> = client.get(&format!("/v1/images{query}")).await?;
            let head = ["IMAGE", "REPO", "GEN", "STATE", "PINNED", "COMMIT", "SIZE", "AGE", "VERIFIED"];
            ctx.out.table(&head, &list.items, |i| {
                vec![
                    i.id.clone(),
                    i.repo.clone(),
                    i.generation.to_string(),
                    i.state.clone(),
                    if i.pinned { "yes" } else { "-" }.into(),
                    short(Some(&i.commit)),
                    bytes(i.size),
                    ago(i.created_at),
                    ago(i.verified_at),
                ]
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        ImageCommand::Gc { dry_run: false } => {
            return Err(Error::invalid(
                "the collector runs by itself; `hotbed image gc --dry-run` shows what it will remove",
            ));
        }
        ImageCommand::Gc { dry_run: true } => {
            let list: List<RemovalView> = client.get("/v1/collectable").await?;
            ctx.out.table(&["KIND", "ID", "REPO", "SIZE"], &list.items, |r| {
                vec![r.kind.clone(), r.id.clone(), r.repo.clone(), r.size.map_or("-".into(), bytes)]
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        ImageCommand::Diff { from, to, files } => {
            let path = match to {
                Some(to) => format!("/v1/images/{to}/diff?with={from}&files={files}"),
                None => format!("/v1/images/{from}/diff?files={files}"),
            };
            let found: ImageDiffView = client.get(&path).await?;
            if ctx.out.json {
                ctx.out.print_json(&found)?;
            } else {
                print!("{}", difference::text(&found));
            }
            return Ok(ExitCode::SUCCESS);
        }
        ImageCommand::Show { id } => client.get(&format!("/v1/images/{id}")).await?,
        ImageCommand::Promote { id } => client.post(&format!("/v1/images/{id}/promote"), &json!({})).await?,
        ImageCommand::Rollback { repo } => {
            client.post(&format!("/v1/repos/{repo}/rollback"), &json!({})).await?
        }
        ImageCommand::Pin { id } => client.put(&format!("/v1/images/{id}/pin")).await?,
        ImageCommand::Unpin { id } => client.delete(&format!("/v1/images/{id}/pin")).await?,
    };
    let image: ImageView = changed;
    ctx.out.print_json(&image)?;
    Ok(ExitCode::SUCCESS)
}

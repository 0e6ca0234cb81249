//! `hotbed login`, `hotbed logout`, `hotbed users`.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use domain::{Error, Result};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Ctx;
use crate::api::types::{DeviceSignInPoll, DeviceSignInView, List, UserView};

#[derive(Args)]
pub struct LoginArgs {
    /// Keep a personal access token of this user's, read from standard input, instead of signing in by device.
    #[arg(long, value_name = "LOGIN")]
    token_of: Option<String>,
    /// The one repo that the sign-in is to be for: its token reaches no other.
    #[arg(long, conflicts_with = "token_of")]
    repo: Option<String>,
}

/// Signs in by device: shows the code, and waits until it has been typed in.
pub async fn login(ctx: &Ctx, args: LoginArgs) -> Result<()> {
    let client = ctx.client()?;
    let user = match args.token_of {
        Some(login) => {
            let mut token = Zeroizing::new(String::new());
            std::io::stdin()
                .read_to_string(&mut token)
                .map_err(|e| Error::invalid("read a token from standard input").caused_by(e))?;
            let path = format!("/v1/users/{login}/token");
            client.call(http::Method::PUT, &path, Some(&json!({"token": token.trim()})), &[]).await?
        }
        None => {
            let begun: DeviceSignInView =
                client.post("/v1/sign-ins/device", &json!({"repo": args.repo})).await?;
            eprintln!("Open {} and enter {}", begun.verification_uri, begun.user_code);
            let path = format!("/v1/sign-ins/device/{}", begun.id);
            let mut wait = begun.interval_seconds;
            loop {
                tokio::time::sleep(Duration::from_secs(wait.max(1))).await;
                let poll: DeviceSignInPoll = client.post(&path, &json!({})).await?;
                match (poll.state.as_str(), poll.user) {
                    ("done", Some(user)) => break user,
                    ("pending", _) => wait = poll.again_in_seconds.unwrap_or(begun.interval_seconds),
                    ("refused", _) => return Err(Error::denied("the sign-in was refused")),
                    _ => return Err(Error::gone("the code has expired: run `hotbed login` again")),
                }
            }
        }
    };
    let user: UserView = user;
    if ctx.out.json {
        return ctx.out.print_json(&user);
    }
    println!("{} is signed in", user.login);
    Ok(())
}

pub async fn logout(ctx: &Ctx, login: &str) -> Result<()> {
    let _: Value = ctx.client()?.delete(&format!("/v1/users/{login}")).await?;
    println!("{login} is signed out");
    Ok(())
}

pub async fn users(ctx: &Ctx) -> Result<()> {
    let list: List<UserView> = ctx.client()?.get("/v1/users").await?;
    ctx.out.table(&["LOGIN", "ID", "NAME", "SIGNED IN"], &list.items, |u| {
        let name = u.name.clone().unwrap_or_else(|| "-".into());
        vec![u.login.clone(), u.id.to_string(), name, if u.signed_in { "yes" } else { "no" }.into()]
    })
}

//! The demo against the stand-in for GitHub: a program of its own, started here, spoken to as people and git speak to
//! GitHub, and ended with the demo. It belongs to the tests; `make demo FORGE=github-standin` builds it and says where
//! it lies.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use config::{ForgeSettings, GithubSettings, GithubUsers};
use domain::{Branch, Error, RepoName, Result, SecretSource};
use git::hosting::GitHost;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::project::run;
use crate::api::types::{DeviceSignInPoll, DeviceSignInView};
use crate::client::Client;

/// The demo's user, who has an account there.
pub const USER: &str = "ada";
/// Who pushes to upstream's branches, and who reviews.
const MAINTAINER: &str = "grace";
/// How long the program may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the program says of itself when it serves.
#[derive(Deserialize)]
struct Facts {
    api_url: String,
    web_url: String,
    app_id: u64,
    client_id: String,
    webhook_secret: String,
    private_key: String,
}

/// A running stand-in.
pub struct Standin {
    child: Child,
    /// It serves until this ends.
    input: Option<ChildStdin>,
    facts: Facts,
    repo: RepoName,
    /// With the token of the maintainer.
    maintainer: Client,
    token: String,
}

impl Standin {
    /// Starts the program with the project's repository, and two people who may write to it. Its files lie in `dir`.
    pub async fn start(program: &Path, dir: &Path, repo: &RepoName) -> Result<Self> {
        let failed = || format!("start {}", program.display());
        std::fs::create_dir_all(dir).map_err(|e| Error::permanent(failed()).caused_by(e))?;
        let mut child = Command::new(program)
            .args(["127.0.0.1:0", repo.as_str()])
            .env("TMPDIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C at the terminal is the demo's to act on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::invalid(failed()).caused_by(e))?;
        let input = child.stdin.take();
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            let read = tokio::time::timeout(PATIENCE, output.read_line(&mut line)).await;
            read.map_err(|_| Error::timeout(failed()))?
                .map_err(|e| Error::permanent(failed()).caused_by(e))?;
        }
        let facts: Facts =
            serde_json::from_str(&line).map_err(|e| Error::permanent(failed()).caused_by(e))?;
        let address = facts.web_url.trim_start_matches("http://").to_owned();
        let knobs = Client::new(address.clone(), "nobody");
        for login in [USER, MAINTAINER] {
            let body = json!({"repo": repo, "login": login, "grade": "write"});
            let _: Value = knobs.post("/_standin/collaborators", &body).await?;
        }
        let made: Value = knobs.post("/_standin/personal-tokens", &json!({"login": MAINTAINER})).await?;
        let token = made["token"].as_str().unwrap_or_default().to_owned();
        let maintainer = Client::new(address, token.clone());
        Ok(Self { child, input, facts, repo: repo.clone(), maintainer, token })
    }

    pub fn url(&self) -> &str {
        &self.facts.web_url
    }

    pub fn clone_url(&self) -> String {
        format!("{}/{}.git", self.facts.web_url, self.repo)
    }

    /// `forge.github` of the configuration, with its secrets in files of `dir`.
    pub fn forge(&self, dir: &Path) -> Result<ForgeSettings> {
        let secret = |name: &str, value: &str| {
            let path: PathBuf = dir.join(name);
            std::fs::write(&path, value)
                .map_err(|e| Error::permanent(format!("write {}", path.display())).caused_by(e))?;
            Ok::<_, Error>(SecretSource::File(path))
        };
        let half = || uuid::Uuid::new_v4().simple();
        Ok(ForgeSettings::Github(Box::new(GithubSettings {
            app_id: self.facts.app_id,
            private_key: secret("app.pem", &self.facts.private_key)?,
            webhook_secrets: vec![secret("webhook-secret", &self.facts.webhook_secret)?],
            api_url: self.facts.api_url.clone(),
            web_url: self.facts.web_url.clone(),
            git_url: self.facts.web_url.clone(),
            users: Some(GithubUsers {
                client_id: self.facts.client_id.clone(),
                client_secret: None,
                vault_key: secret("vault-key", &format!("{}{}", half(), half()))?,
            }),
        })))
    }

    /// Pushes a branch of the demo's own host there, as the maintainer: what was there gives way.
    pub async fn publish(&self, host: &GitHost, branch: &Branch) -> Result<()> {
        let mut git = Command::new("git");
        git.arg("-C").arg(host.path(&self.repo)).args(["push", "--quiet", "--force"]);
        git.arg(self.clone_url()).arg(format!("refs/heads/{branch}:refs/heads/{branch}"));
        git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_COUNT", "1");
        git.env("GIT_CONFIG_KEY_0", "http.extraHeader");
        git.env("GIT_CONFIG_VALUE_0", github::git_header(&self.token).as_str());
        run(git, &format!("push the project to {}", self.clone_url())).await.map(drop)
    }

    /// Has webhooks delivered to Hotbed.
    pub async fn tell(&self, hotbed: &str) -> Result<()> {
        let body = json!({"url": format!("{hotbed}/v1/webhooks/github")});
        self.maintainer.post::<_, Value>("/_standin/webhooks", &body).await.map(drop)
    }

    /// Signs the demo's user in by device: what `hotbed login` does, and the code typed in at GitHub. Answers how long
    /// it took, of which GitHub's own pause between two questions is the most.
    pub async fn sign_in(&self, client: &Client) -> Result<Duration> {
        let begun = Instant::now();
        let device: DeviceSignInView = client.post("/v1/sign-ins/device", &json!({})).await?;
        let typed = json!({"user_code": device.user_code, "login": USER});
        let _: Value = self.maintainer.post("/_standin/approve", &typed).await?;
        let mut wait = device.interval_seconds;
        while begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_secs(wait.max(1))).await;
            let path = format!("/v1/sign-ins/device/{}", device.id);
            let poll: DeviceSignInPoll = client.post(&path, &json!({})).await?;
            match (poll.state.as_str(), poll.user) {
                ("done", Some(user)) if user.login == USER => return Ok(begun.elapsed()),
                ("pending", _) => wait = poll.again_in_seconds.unwrap_or(1),
                (state, user) => {
                    return Err(Error::permanent(format!("the sign-in is {state}, of {user:?}")));
                }
            }
        }
        Err(Error::timeout(format!("sign in as {USER}: not within {PATIENCE:?}")))
    }

    /// Somebody else approves and merges.
    pub async fn review_and_merge(&self, number: u64) -> Result<()> {
        let pull = format!("/api/v3/repos/{}/pulls/{number}", self.repo);
        let approve = json!({"event": "APPROVE"});
        let _: Value = self.maintainer.post(&format!("{pull}/reviews"), &approve).await?;
        let merged: Value =
            self.maintainer.call(http::Method::PUT, &format!("{pull}/merge"), Some(&json!({})), &[]).await?;
        if merged["merged"] == true { Ok(()) } else { Err(Error::permanent(format!("merge: {merged}"))) }
    }

    /// Whose pull requests there are, as GitHub shows them.
    pub async fn authors(&self) -> Result<Vec<String>> {
        let all: Vec<Value> =
            self.maintainer.get(&format!("/api/v3/repos/{}/pulls?state=all", self.repo)).await?;
        let author = |p: &Value| p["user"]["login"].as_str().unwrap_or_default().to_owned();
        Ok(all.iter().map(author).collect())
    }

    /// Ends it. An error names where it, or Hotbed, broke GitHub's own description.
    pub async fn end(mut self) -> Result<()> {
        let violations: Result<Vec<String>> = self.maintainer.get("/_standin/violations").await;
        drop(self.input.take());
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        let violations = violations?;
        if violations.is_empty() {
            return Ok(());
        }
        Err(Error::permanent(format!("GitHub's description was not kept: {}", violations.join("; "))))
    }
}

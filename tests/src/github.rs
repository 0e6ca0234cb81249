//! A GitHub to run against: one process, three faces over one truth.
//!
//! REST below `/api/v3`, sign-in below `/login`, git over HTTP at `/{owner}/{repo}.git` from real bare repositories.
//! Whether a pull request can be opened is asked of the real references; a push moves them and is told by webhook.
//! It is kept honest by what was not written here: every request and answer is held against GitHub's own description
//! (`fixtures/github/github-contract.json`), every webhook against octokit's schemas, and octokit and git run against
//! it as clients. What breaks a rule is in [`Standin::violations`].
//!
//! What can go wrong on purpose is in [`Fault`] and in the methods of [`Standin`] that say so.

mod authority;
mod contract;
mod door;
mod faults;
mod git_http;
mod hooks;
mod knobs;
mod login;
mod objects;
mod pulls;
mod rest;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Branch, RepoName, SharedClock};
use git::hosting::BareRepo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use faults::{Fault, Meeting, Mischief};
pub use state::{Exchange, Grade, PullState};

use contract::Contract;
use state::State;

/// Id, client id, client secret and webhook secret of the one App.
pub const APP_ID: u64 = 4242;
pub const CLIENT_ID: &str = "Iv1.standin00000000";
pub const CLIENT_SECRET: &str = "client-secret-of-the-standin";
pub const WEBHOOK_SECRET: &str = "webhook-secret-of-the-standin";

/// A running stand-in; it ends when dropped.
pub struct Standin {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

pub(crate) struct Inner {
    /// `http://127.0.0.1:…`, without a slash at its end.
    pub web: String,
    pub root: tempfile::TempDir,
    pub clock: SharedClock,
    pub contract: Contract,
    state: Mutex<State>,
}

impl std::fmt::Debug for Standin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Standin({})", self.inner.web)
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn api(&self) -> String {
        format!("{}/api/v3", self.web)
    }

    pub fn repo_dir(&self, full_name: &str) -> std::path::PathBuf {
        self.root.path().join(format!("{full_name}.git"))
    }

    pub fn violation(&self, what: String) {
        tracing::warn!(%what, "the stand-in breaks its word");
        self.state().violations.push(what);
    }
}

impl Standin {
    /// On a free port of loopback, with nothing in it but the App. Time is `clock`'s.
    pub async fn start(clock: SharedClock) -> std::io::Result<Self> {
        Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), clock).await
    }

    pub async fn bind(address: SocketAddr, clock: SharedClock) -> std::io::Result<Self> {
        assert!(address.ip().is_loopback(), "the stand-in believes anybody: loopback only");
        let listener = TcpListener::bind(address).await?;
        let inner = Arc::new(Inner {
            web: format!("http://{}", listener.local_addr()?),
            root: tempfile::tempdir()?,
            clock,
            contract: Contract::load(),
            state: Mutex::new(State::new()),
        });
        let task = tokio::spawn(door::accept(listener, inner.clone()));
        Ok(Self { inner, task })
    }

    /// Sign-in, pages and git.
    pub fn web_url(&self) -> String {
        self.inner.web.clone()
    }

    pub fn api_url(&self) -> String {
        self.inner.api()
    }

    /// The App's private key, as GitHub gives it to download.
    pub fn private_key(&self) -> String {
        self.inner.state().app.private_pem.clone()
    }

    pub fn clone_url(&self, repo: &RepoName) -> String {
        format!("{}/{repo}.git", self.inner.web)
    }

    /// The bare repository itself.
    pub fn bare(&self, repo: &RepoName) -> BareRepo {
        BareRepo::at(self.inner.repo_dir(repo.as_str()))
    }

    /// Where the bare repositories lie.
    pub fn root(&self) -> &Path {
        self.inner.root.path()
    }

    /// Makes an account.
    pub fn user(&self, login: &str) {
        self.inner.state().add_user(login);
    }

    /// Makes a private repository whose `main` has one commit, and installs the App on it.
    pub fn repo(&self, repo: &RepoName) -> BareRepo {
        let bare = BareRepo::create(self.inner.repo_dir(repo.as_str())).expect("a bare repository");
        let main: Branch = "main".parse().expect("branch");
        let author = domain::Identity {
            login: "octocat".into(),
            name: "Octo Cat".into(),
            email: "octocat@users.noreply.github.com".into(),
        };
        bare.commit_files(&main, &[("README.md", Some(b"# Hello\n"))], "Begin", &author)
            .expect("a first commit");
        self.inner.state().add_repo(repo.as_str(), self.inner.clock.now());
        bare
    }

    /// Says what a user may do with a repository.
    pub fn collaborator(&self, repo: &RepoName, login: &str, grade: Grade) {
        let mut state = self.inner.state();
        state.add_user(login);
        let repo = state.repo_mut(repo.as_str()).expect("a repository");
        repo.collaborators.insert(login.to_ascii_lowercase(), grade);
    }

    /// What was asked so far, in order.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.inner.state().exchanges.clone()
    }

    /// Where the stand-in, or who spoke to it, broke GitHub's own description. Empty in every test.
    pub fn violations(&self) -> Vec<String> {
        self.inner.state().violations.clone()
    }

    /// The pull requests of a repository, as REST shows them.
    pub fn pulls(&self, repo: &RepoName) -> Vec<Value> {
        let state = self.inner.state();
        let pulls: Vec<_> = state.pulls.iter().filter(|p| p.repo == repo.as_str()).collect();
        pulls.into_iter().map(|p| objects::pull(&self.inner, &state, p, true)).collect()
    }
}

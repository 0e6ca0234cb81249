//! The GitHub adapter against the stand-in, and the stand-in against what others wrote.

mod app;
mod honesty;
mod matrix;
mod pulls;
mod users;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::ports::{Forge, NewPullRequest, OpenedPullRequest, PullRequestOutcome, UserToken};
use domain::redact::Secrets;
use domain::testing::{FakeSealed, ManualClock};
use domain::{Branch, CommitId, Error, Identity, RepoName};
use github::{Addresses, App, Client, ClientSecret, GithubForge, Users, Vault, VaultKey, Wire};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tests::github::{APP_ID, CLIENT_ID, CLIENT_SECRET, Grade, Standin};

/// A stand-in with one repository and one user, and the adapter on it; time stands still until it is moved.
struct Scene {
    hub: Standin,
    clock: Arc<ManualClock>,
    wire: Wire,
    app: App,
    forge: GithubForge,
    users: Users,
    sealed: Arc<FakeSealed>,
    secrets: Secrets,
}

fn repo() -> RepoName {
    "acme/api".parse().expect("name")
}

fn branch(name: &str) -> Branch {
    name.parse().expect("branch")
}

impl Scene {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at("2026-03-01T09:00:00Z".parse().expect("time")));
        let hub = Standin::start(clock.clone()).await.expect("the stand-in");
        hub.repo(&repo());
        hub.collaborator(&repo(), "ada", Grade::Write);
        let addresses = Addresses::new(&hub.api_url(), &hub.web_url(), &hub.web_url()).expect("addresses");
        let wire = Wire::new(addresses, clock.clone()).expect("a wire");
        let app = App::new(wire.clone(), APP_ID, hub.private_key().as_bytes()).expect("a key");
        let (sealed, secrets) = (Arc::new(FakeSealed::default()), Secrets::default());
        let key = VaultKey::new(&[7; 32]).expect("a key");
        let vault = Vault::new(vec![key], sealed.clone()).expect("a vault");
        let client = Client { id: CLIENT_ID.into(), secret: Some(ClientSecret::new(CLIENT_SECRET)) };
        let users = Users::new(wire.clone(), client, vault, secrets.clone());
        Self { forge: GithubForge::new(app.clone()), hub, clock, wire, app, users, sealed, secrets }
    }

    /// The same adapter as after a restart: nothing in memory.
    fn restarted(&self) -> Users {
        let key = VaultKey::new(&[7; 32]).expect("a key");
        let vault = Vault::new(vec![key], self.sealed.clone()).expect("a vault");
        let client = Client { id: CLIENT_ID.into(), secret: Some(ClientSecret::new(CLIENT_SECRET)) };
        Users::new(self.wire.clone(), client, vault, self.secrets.clone())
    }

    /// A branch that is one commit ahead of `main`, as a push leaves it.
    fn ahead(&self, name: &str) -> CommitId {
        let bare = self.hub.bare(&repo());
        let main = bare.tip(&branch("main")).expect("tip").expect("main");
        bare.set_branch(&branch(name), &main).expect("branch");
        let author = Identity { login: "ada".into(), name: "Ada".into(), email: "ada@example.com".into() };
        bare.commit_files(&branch(name), &[(name, Some(b"work"))], "Work", &author).expect("commit")
    }

    /// Ada's token, as a sign-in gives it.
    fn ada(&self) -> UserToken {
        UserToken::new(self.hub.user_token("ada")).of("ada")
    }

    async fn open(&self, token: &UserToken, new: &NewPullRequest) -> Result<OpenedPullRequest, Error> {
        match self.forge.open_pull_request(Some(token), new).await? {
            PullRequestOutcome::Opened(opened) => Ok(opened),
            PullRequestOutcome::ByHand { link } => panic!("by hand: {link}"),
        }
    }

    /// Signs a user in by device.
    async fn sign_in(&self, login: &str) -> github::Account {
        self.hub.user(login);
        let begun = self.users.begin_device(None).await.expect("a code");
        assert!(self.hub.approve(&begun.user_code, Some(login)));
        self.clock.advance(Duration::from_secs(6));
        match self.users.poll_device(&begun.id).await.expect("an answer") {
            github::DevicePoll::Done(account) => account,
            other => panic!("{other:?}"),
        }
    }

    /// How often this was asked.
    fn asked(&self, method: &str, path: &str) -> usize {
        self.hub.exchanges().iter().filter(|e| e.method == method && e.path.contains(path)).count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        held_to_its_word(&self.hub);
    }
}

/// GitHub's own description was kept, and of all that was ever asked for there is no token that writes.
pub fn held_to_its_word(hub: &Standin) {
    assert_eq!(hub.violations(), Vec::<String>::new(), "GitHub's own description was broken");
    for e in hub.exchanges().iter().filter(|e| e.path.ends_with("/access_tokens") && e.authority == "app") {
        let body = e.request.as_ref().expect("a body");
        assert_eq!(body["repositories"].as_array().map(Vec::len), Some(1), "{body}");
        assert!(!body.to_string().contains("write"), "{body}");
    }
}

fn pull(head: &str) -> NewPullRequest {
    NewPullRequest {
        repo: repo(),
        head: branch(head),
        base: branch("main"),
        title: format!("Do {head}"),
        body: "Because.\n\nAnd so.".into(),
        draft: false,
        author: "ada".into(),
        unanswered_since: None,
    }
}

/// A request by hand, where the adapter has no call for it – for good reason, as a rule.
pub async fn by_hand(hub: &Standin, method: &str, path: &str, token: &str, body: Value) -> (u16, Value) {
    let host = hub.web_url().trim_start_matches("http://").to_owned();
    let stream = tokio::net::TcpStream::connect(&host).await.expect("the stand-in");
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(format!("/api/v3{path}"))
        .header("host", host)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
    let answer = client.send_request(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// Waits until it holds; says what it waited for when it never does.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never did"));
}

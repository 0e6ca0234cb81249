//! GitHub's side of the promises, against the stand-in. Webhooks at the door: signed deliveries over HTTP, each kept
//! durably before it is answered. A pull request: from the wish to the row that says it is open, less what a bare client
//! needs for the same two questions. Client, server and stand-in share this process and its cores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use bytes::Bytes;
use domain::ports::UserToken;
use domain::testing::FakeBackend;
use domain::{
    Branch, Clock, Error, Identity, Launch, PullRequestState, RepoName, Result, SecretSource, SessionId,
    SessionRecord, SessionState, SyncState, SystemClock,
};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use orchestrator::app::{App, Engine, Options};
use orchestrator::pulls::PullOrder;
use serde_json::json;
use tests::github::{APP_ID, Grade, Standin, WEBHOOK_SECRET};
use tokio::net::{TcpListener, TcpStream};

use crate::report::{Report, Target, note};
use crate::stage;

const CLIENTS: usize = 16;
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(2);
/// Bytes of a delivery, about those of a push.
const BODY: usize = 7_000;

const PULLS: usize = 30;

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::permanent(what).caused_by(e)
}

/// A server whose forge is a stand-in.
struct Scene {
    hub: Standin,
    app: Arc<App>,
    _dir: tempfile::TempDir,
}

async fn scene() -> Result<Scene> {
    let dir = stage::scratch()?;
    let hub = Standin::start(Arc::new(SystemClock)).await.map_err(failed("start the stand-in"))?;
    let secret = |name: &str, value: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, value).map_err(failed("write a secret"))?;
        Ok::<_, Error>(SecretSource::File(path))
    };
    let settings = config::GithubSettings {
        app_id: APP_ID,
        private_key: secret("app.pem", &hub.private_key())?,
        webhook_secrets: vec![secret("webhook", WEBHOOK_SECRET)?],
        api_url: hub.api_url(),
        web_url: hub.web_url(),
        git_url: hub.web_url(),
        users: None,
    };
    let engine = Engine::Given(Arc::new(FakeBackend::default()));
    let mut options = Options::new(dir.path().join("state"), Vec::new(), engine);
    options.agent = Some(b"no agent".to_vec());
    options.schedules = false;
    options.forge = config::ForgeSettings::Github(Box::new(settings));
    let app = App::start(options).await?;
    Ok(Scene { hub, app, _dir: dir })
}

pub async fn webhooks(report: &mut Report) -> Result<()> {
    let Scene { app, hub: _hub, _dir } = scene().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed("listen"))?;
    let address = listener.local_addr().map_err(failed("listen"))?.to_string();
    let serving = app.clone();
    let served = tokio::spawn(async move { serving.serve(listener).await });

    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(deliver(address.clone(), format!("{round}-{client}"), begun + ROUND));
        }
        let mut taken = 0;
        while let Some(done) = clients.join_next().await {
            let of_one = done.map_err(|e| Error::permanent("deliver").caused_by(e))??;
            taken += of_one.len();
            times.extend(of_one);
        }
        rates.push(taken as f64 / begun.elapsed().as_secs_f64());
    }
    note(format!("{CLIENTS} connections, {BODY} bytes each, {} deliveries", times.len()));
    report.row("webhooks_per_s", "1/s", &rates, Target::at_least(1000.0));
    report.row("webhook_answer", "ms", &times, Target::p99(100.0));
    app.stop.cancel();
    let _ = served.await;
    app.shutdown().await;
    Ok(())
}

pub async fn pull_requests(report: &mut Report) -> Result<()> {
    let Scene { app, hub, _dir } = scene().await?;
    let wrong = |e: domain::NameError| Error::permanent("name something").caused_by(e);
    let repo: RepoName = "bench/pulls".parse().map_err(wrong)?;
    let main: Branch = "main".parse().map_err(wrong)?;
    let bare = hub.repo(&repo);
    let begin = bare.tip(&main)?.ok_or_else(|| Error::permanent("there is no main"))?;
    let github = app.github.as_ref().ok_or_else(|| Error::permanent("there is no GitHub"))?;
    let mut own = Vec::new();
    for n in 0..PULLS {
        let login = format!("user-{n}");
        hub.collaborator(&repo, &login, Grade::Write);
        let user = Identity { login: login.clone(), name: login.clone(), email: "a@example.invalid".into() };
        for side in ["ours", "bare"] {
            let branch: Branch = format!("{side}/{n}").parse().map_err(wrong)?;
            bare.set_branch(&branch, &begin)?;
            bare.commit_files(&branch, &[("work", Some(side.as_bytes()))], "Work", &user)?;
        }
        let token = hub.user_token(&login);
        let plain = bare_client(&hub, &repo, &token, &format!("bare/{n}")).await?;
        let session = record(&repo, &main, &format!("ours/{n}").parse().map_err(wrong)?, user);
        github.people.hand(session.id, UserToken::new(token).of(&login));
        let order =
            PullOrder { title: Some("Do it".into()), body: Some(String::new()), ..PullOrder::default() };
        let begun = Instant::now();
        let opened = app.pulls.open(&session, order, None).await?;
        let whole = begun.elapsed();
        if opened.state != PullRequestState::Open {
            return Err(Error::permanent(format!("it was not opened: {:?}", opened.error)));
        }
        own.push(whole.saturating_sub(plain).as_secs_f64() * 1000.0);
    }
    note(format!("{PULLS} users, one each"));
    report.row("pr_own_time", "ms", &own, Target::p50(50.0));
    app.shutdown().await;
    Ok(())
}

/// The two questions that a pull request takes, by a client that does nothing else.
async fn bare_client(hub: &Standin, repo: &RepoName, token: &str, branch: &str) -> Result<Duration> {
    let lost = || Error::unavailable("reach the stand-in");
    let host = hub.web_url().trim_start_matches("http://").to_owned();
    let stream = TcpStream::connect(&host).await.map_err(|e| lost().caused_by(e))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost().caused_by(e))?;
    tokio::spawn(connection);
    let path = format!("/api/v3/repos/{repo}/pulls");
    let head = branch.replace('/', "%2F");
    let query = format!(
        "?state=all&sort=created&direction=desc&per_page=50&base=main&head={}%3A{head}",
        repo.owner()
    );
    let body = json!({"title": "Do it", "head": branch, "base": "main", "body": "", "draft": false});
    let begun = Instant::now();
    for (method, path, body) in
        [("GET", format!("{path}{query}"), String::new()), ("POST", path.clone(), body.to_string())]
    {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &host)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Error::invalid("ask the stand-in").caused_by(e))?;
        sender.ready().await.map_err(|e| lost().caused_by(e))?;
        let answer = sender.send_request(request).await.map_err(|e| lost().caused_by(e))?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(|e| lost().caused_by(e))?;
        if !status.is_success() {
            return Err(Error::permanent(format!("the stand-in answered {status}")));
        }
    }
    Ok(begun.elapsed())
}

/// As much of a session as a pull request needs.
fn record(repo: &RepoName, base: &Branch, branch: &Branch, user: Identity) -> SessionRecord {
    let now = SystemClock.now();
    SessionRecord {
        id: SessionId::new(),
        repo: repo.clone(),
        state: SessionState::Active,
        launch: Launch::Warm,
        sandbox: None,
        image: None,
        user,
        prompters: Vec::new(),
        env: Default::default(),
        base: base.clone(),
        branch: branch.clone(),
        sync: SyncState::pending(),
        prepared: false,
        token_handed: false,
        snapshot: None,
        parent: None,
        warmup: None,
        created_at: now,
        started_at: None,
        expires_at: now,
        idle_end_seconds: None,
        deadline: now,
        ended_at: None,
        end: None,
        trouble: None,
        trace: None,
    }
}

/// One connection that delivers until `end`; how long each took, in milliseconds.
async fn deliver(address: String, name: String, end: Instant) -> Result<Vec<f64>> {
    let lost = || Error::unavailable(format!("reach {address}"));
    let stream = TcpStream::connect(&address).await.map_err(|e| lost().caused_by(e))?;
    stream.set_nodelay(true).map_err(|e| lost().caused_by(e))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost().caused_by(e))?;
    tokio::spawn(connection);
    let body = Bytes::from(json!({"zen": "x".repeat(BODY)}).to_string());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, WEBHOOK_SECRET.as_bytes()), &body);
    let tag: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let mut times = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        let request = Request::post("/v1/webhooks/github")
            .header(header::HOST, &address)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-github-event", "ping")
            .header("x-github-delivery", format!("{name}-{}", times.len()))
            .header("x-hub-signature-256", format!("sha256={tag}"))
            .body(Full::new(body.clone()))
            .map_err(|e| Error::invalid("make a delivery").caused_by(e))?;
        sender.ready().await.map_err(|e| lost().caused_by(e))?;
        let answer = sender.send_request(request).await.map_err(|e| lost().caused_by(e))?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(|e| lost().caused_by(e))?;
        if status != StatusCode::ACCEPTED {
            return Err(Error::permanent(format!("a delivery was answered {status}")));
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

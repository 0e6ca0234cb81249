//! The stand-in held against what was not written here: octokit's schemas and examples, octokit.js, plain git. (Each
//! exchange of every test is held against GitHub's own description besides: `Scene`'s end.)

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use domain::Life;
use github::webhook::{Event, WebhookSecrets};
use serde_json::{Value, json};
use tests::github::{Grade, WEBHOOK_SECRET};

use super::{Scene, branch, by_hand, pull, repo};

fn node_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("node")
}

/// GitHub's published examples: every one of an event that is read can be read.
#[test]
fn published_webhooks_are_understood() {
    let file = node_dir().join("node_modules/@octokit/webhooks-examples/api.github.com/index.json");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}; `make setup` installs it", file.display()));
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let read = [
        "ping",
        "push",
        "pull_request",
        "pull_request_review",
        "installation",
        "installation_repositories",
        "github_app_authorization",
        "repository",
    ];
    let mut seen = std::collections::BTreeMap::new();
    for event in all.as_array().expect("events") {
        let name = event["name"].as_str().expect("name");
        for example in event["examples"].as_array().expect("examples") {
            let body = example.to_string();
            let event = Event::read(name, body.as_bytes());
            let event = event.unwrap_or_else(|e| panic!("{name}: {e:?}: {}", &body[..body.len().min(400)]));
            if read.contains(&name) {
                *seen.entry(name.to_owned()).or_insert(0) += u32::from(event != Event::Other);
            } else {
                assert_eq!(event, Event::Other, "{name}");
            }
        }
    }
    assert!(read.iter().all(|name| seen.get(*name).is_some_and(|n| *n > 0)), "{seen:?}");
    assert!(seen["pull_request"] >= 10 && seen["push"] >= 1, "{seen:?}");
}

/// What the stand-in tells is what octokit's schemas describe, and what the adapter reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_of_the_stand_in_are_as_octokit_describes_them() {
    let s = Scene::new().await;
    assert!(s.hub.judges_webhooks(), "octokit's schemas are not installed: `make setup` does it");
    s.hub.collaborator(&repo(), "bo", Grade::Write);
    let (ada, bo) = (s.ada(), s.hub.user_token("bo"));
    s.ahead("x");
    // A real push by git, as the user.
    let dir = tempfile::tempdir().unwrap();
    let header = github::git_header(ada.expose());
    let run = async |args: &[&str]| super::app::git(&header, args, dir.path()).await;
    for args in [
        &["clone", "-q", "-b", "x", &s.hub.clone_url(&repo()), "."][..],
        &[
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.com",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "More",
        ],
        &["push", "-q", "origin", "HEAD:refs/heads/y"],
    ] {
        let (ok, words) = run(args).await;
        assert!(ok, "{args:?}: {words}");
    }
    assert_eq!(s.open(&ada, &pull("y")).await.unwrap().number, 1);
    let tell = async |method: &str, below: &str, token: &str, body: Value| {
        let (status, said) =
            by_hand(&s.hub, method, &format!("/repos/acme/api/pulls/1{below}"), token, body).await;
        assert_eq!(status, 200, "{said}");
    };
    tell("PATCH", "", ada.expose(), json!({"title": "Another"})).await;
    tell("PATCH", "", ada.expose(), json!({"state": "closed"})).await;
    s.clock.advance(Duration::from_secs(2));
    tell("PATCH", "", ada.expose(), json!({"state": "open"})).await;
    let more = [
        "-c",
        "user.name=Ada",
        "-c",
        "user.email=ada@example.com",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "Yet",
    ];
    assert!(run(&more).await.0 && run(&["push", "-q", "origin", "HEAD:refs/heads/y"]).await.0);
    tell("POST", "/reviews", &bo, json!({"event": "APPROVE", "body": "Fine."})).await;
    s.clock.advance(Duration::from_secs(2));
    tell("PUT", "/merge", &bo, json!({})).await;
    let deleted = run(&["push", "-q", "origin", ":refs/heads/y"]).await;
    assert!(deleted.0, "{}", deleted.1);
    s.hub.revoke_user("ada");
    s.hub.installed(&repo(), false);
    s.hub.rename(&repo(), "renamed");

    let told = s.hub.webhooks();
    let mut life: Option<Life> = None;
    let mut kinds = Vec::new();
    for (event, _, body) in &told {
        let read = Event::read(event, body.to_string().as_bytes()).unwrap();
        assert_ne!(read, Event::Other, "{event}");
        kinds.push(format!("{event}.{}", body["action"].as_str().unwrap_or("-")));
        if let Event::PullRequest(news) = read {
            match &mut life {
                None => life = Some(Life::begin(news.news())),
                Some(life) => drop(life.absorb(news.news())),
            }
        }
    }
    assert_eq!(
        kinds,
        [
            "push.-",
            "pull_request.opened",
            "pull_request.edited",
            "pull_request.closed",
            "pull_request.reopened",
            "push.-",
            "pull_request.synchronize",
            "pull_request_review.submitted",
            "pull_request.closed",
            "push.-",
            "push.-",
            "github_app_authorization.revoked",
            "installation_repositories.removed",
            "repository.renamed",
        ]
    );
    let life = life.unwrap();
    assert_eq!((life.now().state, life.now().title.as_str()), (domain::PullRequestState::Merged, "Another"));
    assert_eq!(s.hub.bare(&"acme/renamed".parse().unwrap()).tip(&branch("y")).unwrap(), None);
}

/// What is delivered is signed so that it is believed, and believed no longer once a byte differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_signed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let s = Scene::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    s.hub.webhooks_to(Some(&format!("http://{}/v1/webhooks/github", listener.local_addr().unwrap())));
    s.hub.revoke_user("ada");
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut said = Vec::new();
    let (head, mut body) = loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "it ended early");
        said.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&said).into_owned();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize =
            head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let body = said[head.len() + 4..].to_vec();
        if body.len() == length {
            break (head.to_owned(), body);
        }
    };
    stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let field =
        |name: &str| head.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")).map(str::to_owned));
    assert_eq!(field("x-github-event").as_deref(), Some("github_app_authorization"));
    assert!(field("user-agent").is_some_and(|a| a.starts_with("GitHub-Hookshot/")));
    let secrets = WebhookSecrets::new([WEBHOOK_SECRET.as_bytes()]).unwrap();
    let signature = field("x-hub-signature-256");
    assert!(secrets.believe(&body, signature.as_deref()));
    body[10] ^= 1;
    assert!(!secrets.believe(&body, signature.as_deref()));
}

/// octokit.js signs in as the App and as a user, mints, opens, approves, and is refused where GitHub refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn octokit_finds_a_github() {
    let clock = std::sync::Arc::new(domain::SystemClock);
    let hub = tests::github::Standin::start(clock).await.unwrap();
    hub.repo(&repo());
    for login in ["ada", "bo"] {
        hub.collaborator(&repo(), login, Grade::Write);
    }
    let main = hub.bare(&repo()).tip(&branch("main")).unwrap().unwrap();
    hub.bare(&repo()).set_branch(&branch("empty"), &main).unwrap();
    let author =
        domain::Identity { login: "ada".into(), name: "Ada".into(), email: "ada@example.com".into() };
    hub.bare(&repo()).set_branch(&branch("x"), &main).unwrap();
    hub.bare(&repo()).commit_files(&branch("x"), &[("x", Some(b"1"))], "Work", &author).unwrap();
    let facts = json!({
        "api_url": hub.api_url(), "web_url": hub.web_url(), "app_id": tests::github::APP_ID,
        "client_id": tests::github::CLIENT_ID, "client_secret": tests::github::CLIENT_SECRET,
        "private_key": hub.private_key(), "webhook_secret": WEBHOOK_SECRET,
    });
    let child = tokio::process::Command::new("node")
        .arg("octokit.mjs")
        .current_dir(node_dir())
        .env("STANDIN", facts.to_string())
        .stdin(Stdio::null())
        .output();
    let output =
        tokio::time::timeout(Duration::from_secs(120), child).await.expect("in time").expect("node runs");
    let words =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.contains("octokit: all as described"), "{words}");
    assert_eq!(hub.violations(), Vec::<String>::new());
    assert_eq!(hub.pulls(&repo())[0]["user"]["login"], "ada");
}

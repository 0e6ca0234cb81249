//! The App's authority: what its tokens reach, and how long.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use domain::ErrorKind;
use github::{Access, Lease};
use jiff::SignedDuration;
use tests::github::{Fault, Mischief};

use super::{Scene, repo};

/// Runs git with a header of authority, as the mirrors do; its success and its words.
pub(super) async fn git(header: &str, args: &[&str], dir: &Path) -> (bool, String) {
    let output = tokio::process::Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "http.extraHeader")
        .env("GIT_CONFIG_VALUE_0", header)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("git runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_token_reads_one_repository_and_writes_nothing() {
    let s = Scene::new().await;
    let other = "acme/other".parse().unwrap();
    s.hub.repo(&other);
    let token = s.app.mint(&repo(), Access::ReadContents).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let clone = async |repo| {
        git(&token.git_header(), &["clone", "-q", &s.hub.clone_url(repo), "."], dir.path()).await
    };
    assert!(!clone(&other).await.0, "another repository is not there for it");
    let (cloned, words) = clone(&repo()).await;
    assert!(cloned, "{words}");
    let (pushed, words) =
        git(&token.git_header(), &["push", "-q", "origin", "HEAD:refs/heads/x"], dir.path()).await;
    assert!(!pushed && words.contains("403"), "{words}");
    let (fetched, words) = git("Authorization: Basic eDp5", &["fetch"], dir.path()).await;
    assert!(
        !fetched && (words.contains("Authentication failed") || words.contains("could not read")),
        "{words}"
    );
    assert_eq!(format!("{token:?}").find(token.expose()), None);
}

/// The stateless tokens are as long as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_two_thousand_characters_works() {
    let s = Scene::new().await;
    s.hub.token_length(2000);
    let token = s.app.mint(&repo(), Access::ReadContents).await.unwrap();
    assert_eq!(token.expose().len(), 2000);
    assert_eq!(domain::redact::redact(token.expose()), domain::redact::REDACTED, "as long as it is held");
    let secret = token.expose().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let (ok, words) =
        git(&token.git_header(), &["ls-remote", "-q", &s.hub.clone_url(&repo())], dir.path()).await;
    assert!(ok, "{words}");
    s.app.revoke(&token).await.unwrap();
    s.app.revoke(&token).await.unwrap();
    drop(token);
    assert_eq!(domain::redact::redact(&secret), "ghs_[redacted]", "by its shape");
}

/// F50: 74 minutes of work by a simulated clock. Whenever a token is asked for it is good for a quarter of an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_a_74_minute_run_always_has_a_token() {
    let s = Scene::new().await;
    let lease = Lease::new(s.app.clone(), repo(), Access::ReadContents);
    let dir = tempfile::tempdir().unwrap();
    for minute in 0..=74 {
        let (shared, own) =
            (s.app.token(&repo(), Access::ReadContents).await.unwrap(), lease.token().await.unwrap());
        for token in [&shared, &own] {
            assert!(
                token.expires_at().duration_since(domain::Clock::now(&*s.clock))
                    >= SignedDuration::from_mins(15),
                "{minute}"
            );
        }
        if minute % 37 == 0 {
            let (ok, words) =
                git(&own.git_header(), &["ls-remote", "-q", &s.hub.clone_url(&repo())], dir.path()).await;
            assert!(ok, "minute {minute}: {words}");
        }
        s.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(s.asked("POST", "/access_tokens"), 4, "two each: no more than are needed");
    let before = s.hub.live_installation_tokens();
    lease.end().await.unwrap();
    assert_eq!(s.hub.live_installation_tokens(), before - 1, "the one that had not expired is revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_want_a_token_mint_one() {
    let s = Scene::new().await;
    let name = repo();
    let wants = (0..16).map(|_| s.app.token(&name, Access::ReadContents));
    for token in futures_util::future::join_all(wants).await {
        token.unwrap();
    }
    assert_eq!(s.asked("POST", "/access_tokens"), 1);
    let facts = s.app.repository(&repo()).await.unwrap();
    assert_eq!((facts.name, facts.default_branch.as_deref(), facts.private), (repo(), Some("main"), true));
    // One that is believed no longer is replaced without anybody noticing.
    s.hub.expire_tokens();
    s.app.repository(&repo()).await.unwrap();
    assert_eq!(s.asked("POST", "/access_tokens"), 2);
}

/// A lease that is dropped – its build was cancelled – leaves no token behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_lease_is_revoked() {
    let s = Scene::new().await;
    let lease = Lease::new(s.app.clone(), repo(), Access::ReadContents);
    lease.token().await.unwrap();
    assert_eq!(s.hub.live_installation_tokens(), 1);
    drop(lease);
    super::until("the token is revoked", || s.hub.live_installation_tokens() == 0).await;
}

/// Minutes of skew either way: learnt from GitHub's answer, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_is_learnt() {
    for minutes in [-25, 25] {
        let s = Scene::new().await;
        s.hub.skew(SignedDuration::from_mins(minutes));
        s.app.mint(&repo(), Access::ReadContents).await.unwrap();
        let asked = s.hub.exchanges().len();
        s.app.mint(&repo(), Access::ReadContents).await.unwrap();
        assert_eq!(s.hub.exchanges().len(), asked + 1, "the second one knows the time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_app_is_said() {
    let s = Scene::new().await;
    assert_eq!(s.app.probe().await.unwrap(), "Hotbed Stand-in");
    let mint = async || s.app.mint(&repo(), Access::ReadContents).await;
    mint().await.unwrap();

    // Taken off and put back: the next mint finds it.
    s.hub.installed(&repo(), false);
    s.app.forget(&repo());
    let error = mint().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("not installed on acme/api"), "{error}");
    s.hub.installed(&repo(), true);
    mint().await.unwrap();

    s.hub.suspend("acme", true);
    let error = mint().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.chain().contains("suspended"), "{error:?}");
    s.hub.suspend("acme", false);

    s.hub.rename(&repo(), "renamed");
    s.app.forget(&repo());
    let error = mint().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("as it is called now"), "{error}");

    s.hub.rotate_key();
    let error = s.app.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.chain().contains("could not be decoded") && error.chain().contains("private key"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_deliveries_are_found_and_repeated() {
    let s = Scene::new().await;
    // Nobody listens there.
    s.hub.webhooks_to(Some("http://127.0.0.1:1/hooks"));
    s.hub.revoke_user("ada");
    super::until("the delivery has failed", || !s.hub.webhooks().is_empty()).await;
    let missed = s.app.failed_deliveries().await.unwrap();
    assert_eq!(missed.len(), 1);
    assert_eq!(
        (missed[0].event.as_str(), &missed[0].guid),
        ("github_app_authorization", &s.hub.webhooks()[0].1)
    );
    s.app.redeliver(missed[0].id).await.unwrap();
    let again = s.hub.webhooks();
    assert_eq!((again.len(), &again[1].1), (2, &again[0].1), "the same delivery under the same name");
}

/// A wider token than was asked for is not handed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_writes_is_refused() {
    let s = Scene::new().await;
    let wide = serde_json::json!({
        "token": "ghs_wide", "expires_at": "2026-03-01T10:00:00Z", "permissions": {"pull_requests": "write"},
    });
    let answer = Mischief::Answer(201, Vec::new(), wide.to_string());
    s.hub.fault(Fault::once("POST", "/access_tokens", answer));
    let error = s.app.mint(&repo(), Access::ReadContents).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(
        error.to_string().contains("pull_requests: write") && !error.chain().contains("ghs_wide"),
        "{error:?}"
    );
}

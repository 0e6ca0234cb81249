//! The users' own authority: how it comes, how it is renewed, how it ends, and that nobody sees it.

use std::time::Duration;

use domain::ErrorKind;
use domain::ports::UserToken;
use github::{DevicePoll, Standing};
use tests::github::{Fault, Grade, Mischief};

use super::{Scene, branch, by_hand, pull, repo};

fn token(standing: Standing) -> UserToken {
    match standing {
        Standing::SignedIn(token) => token,
        other => panic!("not signed in: {other:?}"),
    }
}

fn why(standing: Standing) -> String {
    match standing {
        Standing::SignInAgain { why } => why,
        other => panic!("not ended: {other:?}"),
    }
}

const EIGHT_HOURS: Duration = Duration::from_secs(8 * 3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_device() {
    let s = Scene::new().await;
    assert!(matches!(s.users.standing("ada").await.unwrap(), Standing::Unknown));
    let begun = s.users.begin_device(None).await.unwrap();
    assert!(begun.verification_uri.ends_with("/login/device") && begun.user_code.len() == 9);
    let poll = async || s.users.poll_device(&begun.id).await.unwrap();
    // Too early: GitHub is not even asked.
    assert_eq!(poll().await, DevicePoll::Pending { again_in: Duration::from_secs(5) });
    assert_eq!(s.asked("POST", "/login/oauth/access_token"), 0);
    s.clock.advance(Duration::from_secs(5));
    assert_eq!(poll().await, DevicePoll::Pending { again_in: Duration::from_secs(5) });
    assert_eq!(s.asked("POST", "/login/oauth/access_token"), 1);
    assert!(s.hub.approve(&begun.user_code, Some("ada")));
    s.clock.advance(Duration::from_secs(5));
    let DevicePoll::Done(account) = poll().await else { panic!("approved") };
    assert_eq!(account.login, "ada");
    let identity = account.identity(s.wire.addresses());
    assert_eq!(identity.email, format!("{}+ada@users.noreply.127.0.0.1", account.id));
    // Whatever the case: GitHub does not tell them apart.
    let token = token(s.users.standing("ADA").await.unwrap());
    assert_eq!(s.users.whoami(&token).await.unwrap(), account);
    assert_eq!(s.users.accounts().await.unwrap(), [(account, true)]);
    assert_eq!(poll().await, DevicePoll::Expired, "a code is good once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_device_and_refused_or_too_late_or_too_often() {
    let s = Scene::new().await;
    let begun = s.users.begin_device(None).await.unwrap();
    assert!(s.hub.approve(&begun.user_code, None));
    s.clock.advance(Duration::from_secs(5));
    assert_eq!(s.users.poll_device(&begun.id).await.unwrap(), DevicePoll::Refused);

    let begun = s.users.begin_device(None).await.unwrap();
    s.clock.advance(Duration::from_secs(901));
    assert_eq!(s.users.poll_device(&begun.id).await.unwrap(), DevicePoll::Expired);

    let begun = s.users.begin_device(None).await.unwrap();
    let slow = r#"{"error":"slow_down","error_description":"slower","interval":10}"#;
    s.hub.fault(Fault::once(
        "POST",
        "/login/oauth/access_token",
        Mischief::Answer(200, Vec::new(), slow.into()),
    ));
    s.clock.advance(Duration::from_secs(5));
    let poll = async || s.users.poll_device(&begun.id).await.unwrap();
    assert_eq!(poll().await, DevicePoll::Pending { again_in: Duration::from_secs(10) });
    s.clock.advance(Duration::from_secs(9));
    assert_eq!(poll().await, DevicePoll::Pending { again_in: Duration::from_secs(1) });

    s.hub.device_flow(false);
    let error = s.users.begin_device(None).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("enable the device flow"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_web_with_state_and_pkce() {
    let s = Scene::new().await;
    let begin = || s.users.begin_web("http://127.0.0.1:7070/v1/sign-in/callback", None).unwrap();
    let sent_back = |address: &str| {
        let to = s.hub.consent(address, "ada").unwrap();
        let field = |name: &str| {
            let at = to.find(&format!("{name}=")).unwrap() + name.len() + 1;
            to[at..].split('&').next().unwrap().to_owned()
        };
        assert!(to.starts_with("http://127.0.0.1:7070/v1/sign-in/callback?"));
        (field("state"), field("code"))
    };
    let begun = begin();
    assert!(begun.url.contains("code_challenge_method=S256"));
    let (state, code) = sent_back(&begun.url);
    assert_eq!(state, begun.state);
    let forged = s.users.finish_web("another", &code).await.unwrap_err();
    assert_eq!(forged.kind(), ErrorKind::Denied);
    assert_eq!(s.users.finish_web(&state, &code).await.unwrap().login, "ada");
    let again = s.users.finish_web(&state, &code).await.unwrap_err();
    assert!(again.to_string().contains("begin again"), "{again}");
    token(s.users.standing("ada").await.unwrap());

    // A code that was given to another sign-in does not fit this one's verifier.
    let (one, two) = (begin(), begin());
    let (_, stolen) = sent_back(&one.url);
    let error = s.users.finish_web(&two.state, &stolen).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Denied && error.to_string().contains("bad_verification_code"),
        "{error:?}"
    );

    let late = begin();
    let (state, code) = sent_back(&late.url);
    s.clock.advance(Duration::from_secs(601));
    assert_eq!(s.users.finish_web(&state, &code).await.unwrap_err().kind(), ErrorKind::Denied);
}

/// One repository, where GitHub allows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_may_be_for_one_repository() {
    let s = Scene::new().await;
    let other = "acme/other".parse().unwrap();
    s.hub.repo(&other);
    s.hub.collaborator(&other, "ada", Grade::Write);
    let id = s.app.repository(&repo()).await.unwrap().id;
    let begun = s.users.begin_device(Some(id)).await.unwrap();
    s.hub.approve(&begun.user_code, Some("ada"));
    s.clock.advance(Duration::from_secs(5));
    assert!(matches!(s.users.poll_device(&begun.id).await.unwrap(), DevicePoll::Done(_)));
    let token = token(s.users.standing("ada").await.unwrap());
    s.ahead("x");
    s.open(&token, &pull("x")).await.unwrap();
    let elsewhere = domain::ports::NewPullRequest { repo: other, ..pull("x") };
    assert_eq!(s.open(&token, &elsewhere).await.unwrap_err().kind(), ErrorKind::Denied);
}

/// F50, F51: refreshed before it ends, once however many ask, and the new one is what everybody gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_refresh_once() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    let old = token(s.users.standing("ada").await.unwrap());
    s.clock.advance(EIGHT_HOURS - Duration::from_secs(300));
    let before = s.asked("POST", "/login/oauth/access_token");
    let all = futures_util::future::join_all((0..16).map(|_| s.users.standing("ada"))).await;
    let new: Vec<_> = all.into_iter().map(|t| token(t.unwrap())).collect();
    assert!(new.iter().all(|t| t.expose() == new[0].expose() && t.expose() != old.expose()));
    assert_eq!(s.asked("POST", "/login/oauth/access_token"), before + 1);
    s.users.whoami(&new[0]).await.unwrap();
    // And again and again: the refresh token is a new one each time.
    for _ in 0..3 {
        s.clock.advance(EIGHT_HOURS);
        s.users.whoami(&token(s.restarted().standing("ada").await.unwrap())).await.unwrap();
    }
}

/// F51: refreshed at GitHub, and the answer lost: both old tokens are dead. The user is told, and why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_a_refresh_that_was_lost_means_sign_in_again() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    s.clock.advance(EIGHT_HOURS);
    s.hub.fault(Fault::once("POST", "/login/oauth/access_token", Mischief::DoneThenSilence));
    let lost = s.users.standing("ada").await.unwrap_err();
    assert!(lost.kind().is_retryable(), "{lost:?}");
    let why = why(s.restarted().standing("ada").await.unwrap());
    assert!(why.contains("bad_refresh_token"), "{why}");
    // It stays said, without asking GitHub again; a new sign-in ends it.
    let asked = s.asked("POST", "/login/oauth/access_token");
    assert!(matches!(s.users.standing("ada").await.unwrap(), Standing::SignInAgain { .. }));
    assert_eq!(s.asked("POST", "/login/oauth/access_token"), asked);
    s.sign_in("ada").await;
    token(s.users.standing("ada").await.unwrap());
}

/// F51: GitHub is down when the token is due. What is still good is used; what is not is asked for again later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_a_refresh_that_fails_for_now_loses_nothing() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    s.clock.advance(EIGHT_HOURS - Duration::from_secs(300));
    let down = Mischief::Answer(502, Vec::new(), "bad gateway".into());
    s.hub.fault(Fault::many(2, "POST", "/login/oauth/access_token", down));
    let still = token(s.users.standing("ada").await.unwrap());
    s.users.whoami(&still).await.unwrap();
    s.clock.advance(Duration::from_secs(600));
    assert_eq!(s.users.standing("ada").await.unwrap_err().kind(), ErrorKind::Unavailable);
    s.users.whoami(&token(s.users.standing("ada").await.unwrap())).await.unwrap();
}

/// F51: what GitHub gave and the disk did not take is not lost while the process lives, and nobody gets it before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_stored_before_use() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    s.clock.advance(EIGHT_HOURS);
    s.sealed.fail(true);
    for _ in 0..2 {
        assert_eq!(s.users.standing("ada").await.unwrap_err().kind(), ErrorKind::Exhausted);
    }
    let asked = s.asked("POST", "/login/oauth/access_token");
    s.sealed.fail(false);
    let saved = token(s.users.standing("ada").await.unwrap());
    assert_eq!(s.asked("POST", "/login/oauth/access_token"), asked, "one refresh, stored late");
    s.users.whoami(&saved).await.unwrap();
    assert_eq!(token(s.restarted().standing("ada").await.unwrap()).expose(), saved.expose());
}

/// A caller that goes away half way does not cut a refresh short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_a_caller_that_gives_up_costs_no_sign_in() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    s.clock.advance(EIGHT_HOURS);
    let slow = Mischief::Delay(Duration::from_millis(300));
    s.hub.fault(Fault::once("POST", "/login/oauth/access_token", slow));
    let impatient = tokio::time::timeout(Duration::from_millis(50), s.users.standing("ada")).await;
    assert!(impatient.is_err(), "it gave up");
    token(s.users.standing("ada").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_at_github() {
    let s = Scene::new().await;
    let account = s.sign_in("ada").await;
    let old = token(s.users.standing("ada").await.unwrap());
    s.hub.revoke_user("ada");
    // Found out by a 401 …
    s.ahead("x");
    let error = s.open(&old, &pull("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.to_string().contains("hotbed login") && error.to_string().contains("/compare/main...x"),
        "{error}"
    );
    assert!(why(s.users.renew("ada", &old).await.unwrap()).contains("refresh token"));
    // … or by the webhook.
    s.sign_in("ada").await;
    s.users.authorization_revoked(account.id).await.unwrap();
    assert!(why(s.users.standing("ada").await.unwrap()).contains("revoked at GitHub"));
    assert_eq!(s.users.accounts().await.unwrap(), [(account, false)]);
}

/// A 401 that another caller has dealt with already costs no second refresh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_once_for_all_who_were_rejected() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    let old = token(s.users.standing("ada").await.unwrap());
    let before = s.asked("POST", "/login/oauth/access_token");
    let all = futures_util::future::join_all((0..8).map(|_| s.users.renew("ada", &old))).await;
    assert!(all.into_iter().all(|t| token(t.unwrap()).expose() != old.expose()));
    assert_eq!(s.asked("POST", "/login/oauth/access_token"), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn personal_tokens_and_tokens_that_do_not_expire() {
    let s = Scene::new().await;
    let personal = UserToken::new(s.hub.personal_token("ada"));
    assert_eq!(s.users.keep_personal(personal.clone()).await.unwrap().login, "ada");
    s.ahead("x");
    s.open(&token(s.users.standing("ada").await.unwrap()), &pull("x")).await.unwrap();
    s.clock.advance(EIGHT_HOURS * 100);
    let still = token(s.users.standing("ada").await.unwrap());
    s.hub.expire_tokens();
    assert!(why(s.users.renew("ada", &still).await.unwrap()).contains("personal access token"));
    let error = s.users.keep_personal(personal).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);

    s.hub.expiring_user_tokens(false);
    s.sign_in("bea").await;
    s.clock.advance(EIGHT_HOURS * 100);
    s.users.whoami(&token(s.users.standing("bea").await.unwrap())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_out_here_and_there() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    let old = token(s.users.standing("ada").await.unwrap());
    s.users.sign_out("ada").await.unwrap();
    assert!(matches!(s.users.standing("ada").await.unwrap(), Standing::Unknown));
    assert_eq!(s.users.whoami(&old).await.unwrap_err().kind(), ErrorKind::Denied);
    s.users.sign_out("ada").await.unwrap();
}

/// Neither `Debug`, nor an error, nor what is stored, nor a text that was redacted shows a token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_shows_a_token() {
    let s = Scene::new().await;
    s.sign_in("ada").await;
    let standing = s.users.standing("ada").await.unwrap();
    let shown = format!("{:?} {:?} {:?} {:?} {:?}", s.users, s.wire, s.app, s.forge, standing);
    let secret = token(standing).expose().to_owned();
    assert!(!shown.contains(&secret), "{shown}");
    let lying = s.sealed.lying("github/user/ada").unwrap();
    assert!(!lying.windows(8).any(|w| secret.as_bytes().starts_with(w)));
    // By value: also where no prefix gives it away.
    let bare = secret.trim_start_matches("ghu_");
    assert_eq!(s.secrets.redact(&format!("say {secret}.")), "say [redacted].");
    assert!(s.hub.exchanges().iter().any(|e| e.authority == "user"));
    assert!(!bare.is_empty());
}

/// The author can't approve it, and the App can't: not with any token that is minted here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_author_nor_app_approves() {
    let s = Scene::new().await;
    s.hub.collaborator(&repo(), "bo", Grade::Write);
    s.ahead("x");
    let (ada, bo) = (s.ada(), UserToken::new(s.hub.user_token("bo")));
    let opened = s.open(&ada, &pull("x")).await.unwrap();
    let path = format!("/repos/acme/api/pulls/{}/reviews", opened.number);
    let approve = async |token: &str| {
        by_hand(&s.hub, "POST", &path, token, serde_json::json!({"event": "APPROVE"})).await
    };
    let (status, body) = approve(ada.expose()).await;
    assert_eq!((status, body["errors"][0].as_str()), (422, Some("Can not approve your own pull request")));
    for access in github::Access::ALL {
        let token = s.app.mint(&repo(), access).await.unwrap();
        let (status, body) = approve(token.expose()).await;
        assert_eq!((status, body["message"].as_str()), (403, Some("Resource not accessible by integration")));
        // Nor does it open one.
        s.ahead("y");
        let new = serde_json::json!({"title": "x", "head": "y", "base": "main"});
        assert_eq!(by_hand(&s.hub, "POST", "/repos/acme/api/pulls", token.expose(), new).await.0, 403);
    }
    assert_eq!(approve(bo.expose()).await.0, 200);
    let merged =
        by_hand(&s.hub, "PUT", "/repos/acme/api/pulls/1/merge", bo.expose(), serde_json::json!({})).await;
    assert_eq!(merged.0, 200, "{merged:?}");
    let main = s.hub.bare(&repo()).tip(&branch("main")).unwrap().unwrap();
    assert_eq!(merged.1["sha"].as_str(), Some(main.as_str()));
}

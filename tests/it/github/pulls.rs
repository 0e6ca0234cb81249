//! Pull requests: exactly one, under the user's name, whatever happens on the way.

use std::time::Duration;

use domain::ports::{Forge, NewPullRequest, PullRequestChange, PullRequestOutcome, UserToken};
use domain::{Clock, ErrorKind, PullRequestState};
use serde_json::json;
use tests::github::{Fault, Grade, Meeting, Mischief};

use super::{Scene, by_hand, pull, repo};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opened_found_changed_and_looked_at() {
    let s = Scene::new().await;
    let (tip, ada) = (s.ahead("hotbed/s1"), s.ada());
    let new = NewPullRequest { draft: true, ..pull("hotbed/s1") };
    let first = s.open(&ada, &new).await.unwrap();
    assert_eq!((first.number, first.created, &first.head_commit), (1, true, &tip));
    let shown = &s.hub.pulls(&repo())[0];
    assert_eq!((shown["user"]["login"].as_str(), shown["draft"].as_bool()), (Some("ada"), Some(true)));
    assert_eq!(shown["body"], "Because.\n\nAnd so.");

    let again = s.open(&ada, &new).await.unwrap();
    assert_eq!((again.number, again.created, &again.url), (1, false, &first.url));
    // One of another head is another one, also of a head that begins the same.
    s.ahead("hotbed/s12");
    assert_eq!(s.open(&ada, &pull("hotbed/s12")).await.unwrap().number, 2);

    let change = PullRequestChange { title: Some("Do it better".into()), body: None };
    let changed = s.forge.update_pull_request(&ada, &repo(), 1, &change).await.unwrap();
    assert_eq!(
        (changed.title.as_str(), changed.author.as_str(), changed.state),
        ("Do it better", "ada", PullRequestState::Open)
    );
    let seen = s.forge.pull_request(&repo(), 1).await.unwrap().unwrap();
    assert_eq!(seen, changed);
    assert!(
        s.hub
            .exchanges()
            .iter()
            .any(|e| e.path == "/repos/acme/api/pulls/1" && e.authority == "installation")
    );
    let closed =
        by_hand(&s.hub, "PATCH", "/repos/acme/api/pulls/1", ada.expose(), json!({"state": "closed"})).await;
    assert_eq!(closed.0, 200);
    assert_eq!(s.forge.pull_request(&repo(), 1).await.unwrap().unwrap().state, PullRequestState::Closed);
    assert_eq!(s.forge.pull_request(&repo(), 99).await.unwrap_err().kind(), ErrorKind::NotFound);
    // What is closed is over: the next wish is another pull request.
    assert_eq!(s.open(&ada, &new).await.unwrap().number, 3);
}

/// F52: two who ask at once, each with an adapter of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f52_at_once_from_two_processes() {
    let s = Scene::new().await;
    s.ahead("x");
    // Both look before either has created.
    s.hub.fault(Fault::many(2, "GET", "/pulls", Mischief::Meet(Meeting::of(2))));
    let token = s.hub.user_token("ada");
    // Accounts that differ have queues of their own, as two processes have.
    let (one, two) = (UserToken::new(token.clone()).of("one"), UserToken::new(token).of("two"));
    let new = pull("x");
    let (a, b) = tokio::join!(s.open(&one, &new), s.open(&two, &new));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.number, b.number, s.hub.pulls(&repo()).len()), (1, 1, 1));
    assert!(a.created != b.created, "{a:?} {b:?}");
    assert_eq!(s.asked("POST", "/pulls"), 2, "GitHub was asked twice and said so once");
}

/// F52: created, and nobody was told: a cut connection, a 502, a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f52_done_and_not_told() {
    for lost in
        [Mischief::DoneThenSilence, Mischief::DoneThen(502), Mischief::DoneThen(504), Mischief::CutAfter(40)]
    {
        let s = Scene::new().await;
        s.ahead("x");
        s.hub.fault(Fault::once("POST", "/pulls", lost.clone()));
        let opened = s.open(&s.ada(), &pull("x")).await.unwrap();
        assert_eq!((opened.number, opened.created, s.hub.pulls(&repo()).len()), (1, true, 1), "{lost:?}");
        assert_eq!(s.asked("POST", "/pulls"), 1, "it was not tried again blindly");
    }
}

/// F52: nothing was done, and nobody was told either: it says so, and the next try opens one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f52_not_done_and_not_told() {
    let s = Scene::new().await;
    s.ahead("x");
    s.hub.fault(Fault::once("POST", "/pulls", Mischief::Answer(502, Vec::new(), String::new())));
    let error = s.open(&s.ada(), &pull("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(s.open(&s.ada(), &pull("x")).await.unwrap().created);
    assert_eq!(s.hub.pulls(&repo()).len(), 1);
}

/// F52: a crash after the deed; by the time of the second try somebody has closed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f52_done_not_told_and_closed_meanwhile() {
    let s = Scene::new().await;
    s.ahead("x");
    let (asked_at, ada) = (s.clock.now(), s.ada());
    s.clock.advance(Duration::from_secs(3));
    assert_eq!(s.open(&ada, &pull("x")).await.unwrap().number, 1);
    by_hand(&s.hub, "PATCH", "/repos/acme/api/pulls/1", ada.expose(), json!({"state": "closed"})).await;
    s.clock.advance(Duration::from_secs(60));
    let again = NewPullRequest { unanswered_since: Some(asked_at), ..pull("x") };
    let found = s.open(&ada, &again).await.unwrap();
    assert_eq!((found.number, found.created, s.hub.pulls(&repo()).len()), (1, false, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_not_seen_yet_is_waited_for() {
    let s = Scene::new().await;
    let refusal = json!({"message": "Validation Failed", "errors": [{"resource": "PullRequest", "field": "head", "code": "invalid"}]});
    s.hub.fault(Fault::once("POST", "/pulls", Mischief::Answer(422, Vec::new(), refusal.to_string())));
    s.ahead("x");
    assert!(s.open(&s.ada(), &pull("x")).await.unwrap().created);
    assert_eq!(s.hub.pulls(&repo()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_commits_there_is_nothing_to_open() {
    let s = Scene::new().await;
    let bare = s.hub.bare(&repo());
    let main = bare.tip(&super::branch("main")).unwrap().unwrap();
    bare.set_branch(&super::branch("empty"), &main).unwrap();
    let error = s.open(&s.ada(), &pull("empty")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().ends_with("No commits between main and empty"), "{error}");
    s.ahead("x");
    let wrong = NewPullRequest { base: super::branch("nowhere"), ..pull("x") };
    let error = s.open(&s.ada(), &wrong).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("`base` is invalid"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_drafts_are_not_to_be_had_it_is_none() {
    let s = Scene::new().await;
    s.hub.drafts(&repo(), false);
    s.ahead("x");
    let opened = s.open(&s.ada(), &NewPullRequest { draft: true, ..pull("x") }).await.unwrap();
    assert!(opened.created);
    assert_eq!(s.hub.pulls(&repo())[0]["draft"], false);
}

/// Without the user's authority nothing is asked of GitHub: the user gets a link, and never the App's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_signed_in_gets_a_link() {
    let s = Scene::new().await;
    s.ahead("x");
    let outcome = s.forge.open_pull_request(None, &pull("hotbed/s1")).await.unwrap();
    let PullRequestOutcome::ByHand { link } = outcome else { panic!("{outcome:?}") };
    let expected =
        "/acme/api/compare/main...hotbed/s1?expand=1&title=Do%20hotbed%2Fs1&body=Because.%0A%0AAnd%20so.";
    assert_eq!(link, format!("{}{expected}", s.hub.web_url()));
    assert!(s.hub.exchanges().is_empty() && s.hub.pulls(&repo()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_obeyed() {
    let s = Scene::new().await;
    s.ahead("x");
    let ada = s.ada();
    s.hub.fault(Fault::once("POST", "/pulls", Mischief::SecondaryLimit { retry_after: Some(30) }));
    let error = s.open(&ada, &pull("x")).await.unwrap_err();
    assert_eq!((error.kind(), error.wait()), (ErrorKind::Exhausted, Some(Duration::from_secs(30))));
    // Until then nothing of hers is asked – neither a read – and others go on.
    let asked = s.hub.exchanges().len();
    let error = s.open(&ada, &pull("x")).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Exhausted && error.wait().is_some_and(|w| w > Duration::from_secs(20)),
        "{error:?}"
    );
    assert_eq!(s.hub.exchanges().len(), asked);
    s.hub.collaborator(&repo(), "bo", Grade::Write);
    let bo = UserToken::new(s.hub.user_token("bo")).of("bo");
    assert!(s.open(&bo, &pull("x")).await.unwrap().created);

    // Without a time: a minute, then two.
    let cy = UserToken::new(s.hub.user_token("ada")).of("cy");
    s.hub.fault(Fault::once("GET", "/pulls", Mischief::SecondaryLimit { retry_after: None }));
    let error = s.open(&cy, &pull("x")).await.unwrap_err();
    assert_eq!(error.wait(), Some(Duration::from_secs(60)));

    // The primary limit is seen before it is run into.
    s.hub.primary_limit(1, Duration::from_secs(1200));
    let di = UserToken::new(s.hub.user_token("ada")).of("di");
    s.users.whoami(&di).await.unwrap();
    let asked = s.hub.exchanges().len();
    let error = s.users.whoami(&di).await.unwrap_err();
    assert!(error.wait().is_some_and(|w| w > Duration::from_secs(1100)), "{error:?}");
    assert_eq!(s.hub.exchanges().len(), asked, "it was told by the last answer");
}

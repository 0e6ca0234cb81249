//! F51, F52: every trouble with every deed. Whatever happens, the branch stays pushed, there is never a second pull
//! request, the error says what helps, and when that was done the same deed succeeds.

use domain::ports::{Forge, PullRequestChange};
use domain::{Error, ErrorKind, Result};
use github::{Access, Standing};
use std::time::Duration;
use tests::github::{Fault, Mischief};

use super::{Scene, pull, repo};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Taken back at GitHub: the user's authorization, the App's installation.
    Revoked,
    /// Its time is over.
    Expired,
    /// Its time is over, and there is no other: a worthless refresh token, a key that was exchanged.
    Unrefreshable,
    RateLimited,
    Down,
    /// Done, and the answer lost.
    Untold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Mint,
    Create,
    Update,
}

const TROUBLES: [Trouble; 6] = [
    Trouble::Revoked,
    Trouble::Expired,
    Trouble::Unrefreshable,
    Trouble::RateLimited,
    Trouble::Down,
    Trouble::Untold,
];

impl Deed {
    fn route(self) -> (&'static str, &'static str) {
        match self {
            Self::Mint => ("POST", "/access_tokens"),
            Self::Create => ("POST", "/pulls"),
            Self::Update => ("PATCH", "/pulls/"),
        }
    }

    /// The deed as the orchestrator does it: the authority is asked for, and renewed once when it is not believed.
    async fn perform(self, s: &Scene) -> Result<()> {
        if self == Self::Mint {
            return s.app.mint(&repo(), Access::ReadContents).await.map(drop);
        }
        let token = match s.users.standing("ada").await? {
            Standing::SignedIn(token) => token,
            Standing::SignInAgain { why } => return Err(Error::denied(format!("ada signs in again: {why}"))),
            Standing::Unknown => panic!("ada has signed in"),
        };
        let act = async |token| match self {
            Self::Create => s.open(token, &pull("x")).await.map(drop),
            _ => {
                let change = PullRequestChange { title: Some("Changed".into()), body: None };
                s.forge.update_pull_request(token, &repo(), 1, &change).await.map(drop)
            }
        };
        match act(&token).await {
            Err(e) if e.kind() == ErrorKind::Denied => match s.users.renew("ada", &token).await? {
                Standing::SignedIn(token) => act(&token).await,
                _ => Err(e),
            },
            outcome => outcome,
        }
    }
}

impl Trouble {
    fn begins(self, s: &Scene, deed: Deed) {
        let (method, path) = deed.route();
        let fault = |what| s.hub.fault(Fault::once(method, path, what));
        match (self, deed) {
            (Self::Revoked, Deed::Mint) => s.hub.suspend("acme", true),
            (Self::Revoked, _) => s.hub.revoke_user("ada"),
            (Self::Expired, Deed::Mint) => s.hub.skew(jiff::SignedDuration::from_mins(30)),
            (Self::Expired, _) => s.hub.expire_tokens(),
            (Self::Unrefreshable, Deed::Mint) => drop(s.hub.rotate_key()),
            (Self::Unrefreshable, _) => {
                s.hub.expire_tokens();
                s.hub.spoil_refresh_tokens();
            }
            (Self::RateLimited, _) => fault(Mischief::SecondaryLimit { retry_after: Some(1) }),
            (Self::Down, _) => fault(Mischief::Answer(503, Vec::new(), "{\"message\":\"down\"}".into())),
            (Self::Untold, _) => fault(Mischief::DoneThenSilence),
        }
    }

    /// What callers branch on; `None` where nobody notices.
    fn expected(self, deed: Deed) -> Option<ErrorKind> {
        match (self, deed) {
            (Self::Revoked | Self::Unrefreshable, _) => Some(ErrorKind::Denied),
            (Self::Expired, _) | (Self::Untold, Deed::Create) => None,
            (Self::RateLimited, _) => Some(ErrorKind::Exhausted),
            (Self::Down | Self::Untold, _) => Some(ErrorKind::Unavailable),
        }
    }

    /// Words of the way forward.
    fn advice(self, deed: Deed) -> &'static str {
        match (self, deed) {
            (Self::Revoked, Deed::Mint) => "the App's permissions",
            (Self::Unrefreshable, Deed::Mint) => "private key",
            (Self::Revoked | Self::Unrefreshable, _) => "signs in again",
            (Self::RateLimited, _) => "again in",
            _ => "GitHub",
        }
    }

    /// What a person or time does about it. Answers the scene's App where it is another one.
    async fn ends(self, s: &mut Scene, deed: Deed) {
        match (self, deed) {
            (Self::Revoked, Deed::Mint) => s.hub.suspend("acme", false),
            (Self::Unrefreshable, Deed::Mint) => {
                let key = s.hub.private_key();
                s.app =
                    github::App::new(s.wire.clone(), tests::github::APP_ID, key.as_bytes()).expect("a key");
            }
            (Self::Revoked | Self::Unrefreshable, _) => drop(s.sign_in("ada").await),
            (Self::RateLimited, _) => tokio::time::sleep(Duration::from_millis(1100)).await,
            _ => {}
        }
    }
}

async fn row(trouble: Trouble, deed: Deed) {
    let mut s = Scene::new().await;
    let tip = s.ahead("x");
    s.sign_in("ada").await;
    if deed == Deed::Update {
        Deed::Create.perform(&s).await.expect("something to change");
    }
    trouble.begins(&s, deed);
    match (deed.perform(&s).await, trouble.expected(deed)) {
        (Ok(()), None) => {}
        (Err(e), Some(kind)) => {
            assert_eq!(e.kind(), kind, "{trouble:?} x {deed:?}: {e:?}");
            assert!(e.chain().contains(trouble.advice(deed)), "{trouble:?} x {deed:?}: {e:?}");
            assert_eq!(e.wait().is_some(), trouble == Trouble::RateLimited, "{trouble:?} x {deed:?}: {e:?}");
        }
        (outcome, wanted) => panic!("{trouble:?} x {deed:?}: {outcome:?}, expected {wanted:?}"),
    }
    assert_eq!(s.hub.bare(&repo()).tip(&super::branch("x")).unwrap(), Some(tip), "the work is where it was");
    trouble.ends(&mut s, deed).await;
    deed.perform(&s).await.unwrap_or_else(|e| panic!("{trouble:?} x {deed:?}, after it was seen to: {e:?}"));
    let pulls = s.hub.pulls(&repo());
    assert_eq!(pulls.len(), usize::from(deed != Deed::Mint), "{trouble:?} x {deed:?}");
    assert!(pulls.iter().all(|p| p["user"]["login"] == "ada"), "{pulls:?}");
    if deed == Deed::Update {
        assert_eq!(pulls[0]["title"], "Changed");
    }
}

async fn column(deed: Deed) {
    futures_util::future::join_all(TROUBLES.map(|trouble| row(trouble, deed))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_every_trouble_while_a_token_is_minted() {
    column(Deed::Mint).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_f52_every_trouble_while_a_pull_request_is_opened() {
    column(Deed::Create).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_every_trouble_while_a_pull_request_is_changed() {
    column(Deed::Update).await;
}

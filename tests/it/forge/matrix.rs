//! Every trouble with every deed, through a whole server: the mirror's refresh, a push, a pull request, its change. Whatever happens,
//! no work is lost (the commit stays, the row waits), what is seen says what helps, and when that was done the same deed
//! succeeds; there is one pull request in the end.

use std::time::Duration;

use domain::ports::Mirrors;
use domain::{Branch, Identity};
use serde_json::{Value, json};
use tests::github::{Fault, Mischief};

use super::{Tree, open, pulls_of, session, setup, sign_in};
use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Taken back at GitHub: the user's authorization, the App's installation.
    Revoked,
    /// Ended before its time, and there is another to be had.
    Expired,
    /// Ended, and there is no other: a worthless refresh token, a key that was exchanged.
    Unrefreshable,
    PrimaryLimit,
    /// With a time to wait.
    SecondaryLimit,
    /// Without one.
    VagueLimit,
    Down,
    /// Done, and the answer lost.
    Untold,
}

use Trouble::{Down, Expired, PrimaryLimit, Revoked, SecondaryLimit, Unrefreshable, Untold, VagueLimit};

const TROUBLES: [Trouble; 8] =
    [Revoked, Expired, Unrefreshable, PrimaryLimit, SecondaryLimit, VagueLimit, Down, Untold];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Refresh,
    Push,
    Create,
    Update,
}

impl Deed {
    /// The question at which GitHub makes trouble.
    fn route(self, trouble: Trouble) -> (&'static str, &'static str) {
        match (self, trouble) {
            (Self::Refresh, _) => ("POST", "/access_tokens"),
            (Self::Push, Down | Untold) => ("POST", "/git-receive-pack"),
            (Self::Push, _) => ("GET", "/api/v3/user"),
            (Self::Create, _) => ("POST", "/pulls"),
            (Self::Update, _) => ("PATCH", "/pulls"),
        }
    }
}

impl Trouble {
    fn begins(self, w: &World, deed: Deed) {
        let (method, path) = deed.route(self);
        let hub = w.hub();
        let fault = |what| hub.fault(Fault::once(method, path, what));
        if deed == Deed::Refresh {
            // What looks share has ended, so that another is asked for.
            hub.expire_tokens();
        }
        match (self, deed) {
            (Revoked, Deed::Refresh) => hub.suspend("acme", true),
            (Revoked, _) => hub.revoke_user("ada"),
            (Expired, Deed::Refresh) => hub.skew(jiff::SignedDuration::from_mins(30)),
            (Expired, _) => hub.expire_tokens(),
            (Unrefreshable, Deed::Refresh) => drop(hub.rotate_key()),
            (Unrefreshable, _) => {
                hub.expire_tokens();
                hub.spoil_refresh_tokens();
            }
            (PrimaryLimit, _) => {
                // By GitHub's clock, which its answers tell.
                let now = domain::Clock::now(&*w.clock);
                let (reset, date) = (now.as_second().to_string(), now.strftime("%a, %d %b %Y %H:%M:%S GMT"));
                let said = [
                    ("x-ratelimit-remaining", "0".into()),
                    ("x-ratelimit-reset", reset),
                    ("date", date.to_string()),
                ];
                let headers = said.map(|(name, value)| (name.to_owned(), value)).into();
                fault(Mischief::Answer(
                    403,
                    headers,
                    json!({"message": "API rate limit exceeded"}).to_string(),
                ));
            }
            (SecondaryLimit, _) => fault(Mischief::SecondaryLimit { retry_after: Some(1) }),
            (VagueLimit, _) => fault(Mischief::SecondaryLimit { retry_after: None }),
            (Down, _) => fault(Mischief::Answer(503, Vec::new(), "{}".into())),
            (Untold, _) => fault(Mischief::DoneThenSilence),
        }
    }

    /// What is seen, with the way forward; `None` where nobody notices.
    fn advice(self, deed: Deed) -> Option<&'static str> {
        match (self, deed) {
            (Expired, _) | (Untold, Deed::Create) => None,
            (Revoked, Deed::Refresh) => Some("the App's permissions"),
            (Unrefreshable, Deed::Refresh) => Some("private key"),
            (Revoked | Unrefreshable, _) => Some("ada has to sign in again (`hotbed login`)"),
            (PrimaryLimit, _) => Some("GitHub's rate limit is reached, again in 1 s"),
            (SecondaryLimit, _) => Some("GitHub's secondary rate limit is reached, again in 1 s"),
            (VagueLimit, _) => Some("GitHub's secondary rate limit is reached, again in 60 s"),
            (Down | Untold, Deed::Push) => Some("the commits are kept where they are, push again"),
            (Down | Untold, _) => Some("GitHub"),
        }
    }

    /// What a person or time does about it.
    async fn ends(self, w: &mut World, deed: Deed) {
        match (self, deed) {
            (Revoked, Deed::Refresh) => w.hub().suspend("acme", false),
            (Expired, Deed::Refresh) => w.hub().skew(jiff::SignedDuration::ZERO),
            (Revoked | Unrefreshable, _) if deed != Deed::Refresh => drop(sign_in(w, "ada").await),
            // The operator's new key. And a minute that need not be waited for: limits are not kept over a restart.
            (Unrefreshable, Deed::Refresh) | (VagueLimit, _) => w.restart().await,
            _ => {}
        }
    }
}

/// What a pull request is to say in the end.
const BETTER: &str = "Do it better";

/// A session with a commit, and what it does.
struct Work {
    deed: Deed,
    view: Value,
    tree: Tree,
}

impl Work {
    async fn begin(w: &mut World, deed: Deed, trouble: Trouble) -> Self {
        sign_in(w, "ada").await;
        let view = session(w).await;
        let tree = Tree::of(w, &view).await;
        tree.commit("Begin").await;
        // What is to end was believed just before.
        let believed = matches!(trouble, Revoked | Expired | Unrefreshable);
        if matches!(deed, Deed::Create | Deed::Update) || (deed == Deed::Push && believed) {
            tree.push().await.fine();
        }
        if deed == Deed::Update {
            assert_eq!(open(w, &view, "Do it").await["state"], "open");
        }
        if deed == Deed::Push {
            tree.commit("Work").await;
        }
        Self { deed, view, tree }
    }

    /// An error is what the client sees.
    async fn perform(&self, w: &World) -> Result<(), String> {
        match self.deed {
            Deed::Refresh => {
                let repo = w.specs[0].name.clone();
                w.on(|app| async move { app.mirrors.refresh(&repo).await.map(drop).map_err(|e| e.chain()) })
                    .await
            }
            Deed::Push => {
                let ran = self.tree.push().await;
                if ran.ok { Ok(()) } else { Err(ran.text) }
            }
            Deed::Create => {
                let waits = pulls_of(w, &self.view).await.into_iter().find(|p| p["state"] == "pending");
                let pull = match waits {
                    // The outbox asks again by itself.
                    Some(row) => {
                        w.on(|app| async move { app.pulls.flush().await }).await;
                        pulls_of(w, &self.view)
                            .await
                            .into_iter()
                            .find(|p| p["id"] == row["id"])
                            .expect("the row")
                    }
                    None => open(w, &self.view, "Do it").await,
                };
                let error = || pull["error"].as_str().unwrap_or_default().to_owned();
                if pull["state"] == "open" { Ok(()) } else { Err(error()) }
            }
            Deed::Update => {
                let pull = open(w, &self.view, BETTER).await;
                assert_eq!(pull["state"], "open", "{pull}");
                pull["error"].as_str().map_or(Ok(()), |e| Err(e.to_owned()))
            }
        }
    }

    /// Where the work is, whatever happened: the commit in the sandbox; pushed, upstream; wished for, in a row.
    async fn is_kept(&self, w: &World, trouble: Trouble) {
        let subject = self.tree.git(&["log", "-1", "--format=%s"]).await.text;
        assert_eq!(subject.trim(), if self.deed == Deed::Push { "Work" } else { "Begin" });
        if self.deed == Deed::Create {
            assert!(self.upstream(w).is_some(), "the branch stays pushed");
            let row = pulls_of(w, &self.view).await.pop().expect("a row");
            let by_hand = matches!(trouble, Revoked | Unrefreshable);
            assert_eq!(row["state"], if by_hand { "refused" } else { "pending" }, "{row}");
            assert_eq!(row["url"].is_string(), by_hand, "a link to open it by hand: {row}");
        }
        if self.deed == Deed::Update {
            let rows = pulls_of(w, &self.view).await;
            assert!(rows.len() == 1 && rows[0]["state"] == "open", "it stays as it was: {rows:?}");
        }
    }

    fn upstream(&self, w: &World) -> Option<String> {
        let branch: Branch = self.tree.branch.parse().expect("a branch");
        w.upstream(&w.specs[0].name).tip(&branch).expect("tip").map(|c| c.to_string())
    }
}

async fn row(w: &mut World, deed: Deed, trouble: Trouble) {
    let what = format!("{trouble:?} x {deed:?}");
    let work = Work::begin(w, deed, trouble).await;
    let (repo, main) = (w.specs[0].name.clone(), "main".parse::<Branch>().expect("main"));
    if deed == Deed::Refresh {
        // Upstream's branch is forced to another history meanwhile (F29).
        let bare = w.upstream(&repo);
        bare.delete_branch(&main).expect("delete");
        let author = Identity { login: "up".into(), name: "Up".into(), email: "up@example.org".into() };
        bare.commit_files(&main, &[("new", Some(what.as_bytes()))], "Begin anew", &author).expect("commit");
    }
    trouble.begins(w, deed);
    match (work.perform(w).await, trouble.advice(deed)) {
        (Ok(()), None) => {}
        (Err(seen), Some(advice)) => {
            assert!(seen.contains(advice), "{what} is to say {advice:?}: {seen}");
            work.is_kept(w, trouble).await;
        }
        (done, advice) => panic!("{what}: {done:?}, expected {advice:?}"),
    }
    trouble.ends(w, deed).await;
    work.tree.reconnect(w, &work.view).await;
    w.wait(&format!("{what}, after it was seen to"), async || work.perform(w).await.ok()).await;
    match deed {
        Deed::Refresh => {
            let here = w.on(|app| async move { app.mirrors.tip(&repo, &main).await }).await.expect("tip");
            let there = w.upstream(&w.specs[0].name).tip(&"main".parse().expect("main")).expect("tip");
            assert!(here == there && here.is_some(), "{what}: {here:?}, upstream {there:?}");
        }
        Deed::Push => {
            let head = work.tree.git(&["rev-parse", "HEAD"]).await.text;
            assert_eq!(work.upstream(w).as_deref(), Some(head.trim()), "{what}");
        }
        Deed::Create | Deed::Update => {
            let pulls = w.hub().pulls(&repo);
            let of_this: Vec<_> = pulls.iter().filter(|p| p["head"]["ref"] == *work.tree.branch).collect();
            assert_eq!(of_this.len(), 1, "{what}: exactly one");
            assert_eq!(of_this[0]["user"]["login"], "ada", "{what}");
            let title = if deed == Deed::Update { BETTER } else { "Do it" };
            assert_eq!(of_this[0]["title"], title, "{what}");
        }
    }
    w.clock.advance(Duration::from_secs(60));
}

fn column(deed: Deed) {
    World::with(setup(1).manual_clock(), async |w| {
        for said in
            ["no authority", "GitHub", "could not", "refresh", "request failed", "authentication refused"]
        {
            w.allow_log(said);
        }
        for trouble in TROUBLES {
            row(w, deed, trouble).await;
        }
    });
}

#[test]
fn f29_f50_every_trouble_while_a_mirror_is_refreshed() {
    column(Deed::Refresh);
}

#[test]
fn f50_f51_every_trouble_while_a_session_pushes() {
    column(Deed::Push);
}

#[test]
fn f51_f52_every_trouble_while_a_session_opens_a_pull_request() {
    column(Deed::Create);
}

#[test]
fn f51_f52_every_trouble_while_a_pull_request_is_changed() {
    column(Deed::Update);
}

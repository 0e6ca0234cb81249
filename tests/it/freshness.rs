//! Idle members: at the tip of their branch, alive, and young enough.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::SandboxId;
use domain::ports::AgentLink;
use serde_json::json;

use crate::world::{Setup, World, sandbox};

/// One run of the task, as if upstream had said that it was pushed to.
async fn freshen(w: &World) {
    let repo = w.specs[0].name.clone();
    w.on(move |app| async move {
        app.repos.note_push(&repo);
        app.freshness.run().await
    })
    .await
    .expect("a run");
}

fn members(w: &World) -> BTreeSet<SandboxId> {
    w.records().iter().filter(|r| r.session.is_none()).map(|r| r.id).collect()
}

fn one(w: &World, metric: &str) -> f64 {
    let all = w.metric(metric);
    assert_eq!(all.len(), 1, "{metric}: {all:?}");
    all[0].1
}

/// An announced push is followed by what waits, in place: no member is replaced, nothing is opened, nobody is bound,
/// and a session that comes then has nothing to fetch.
#[test]
fn idle_members_follow_their_branch() {
    World::with(Setup::pool(3), async |w| {
        w.settled().await;
        let before = members(w);
        let tip = w.commit("newer than the image");
        let (repo, pushed) = (w.specs[0].name.clone(), tip.clone());
        w.on(move |app| async move { app.builds.pushed(&repo, &pushed).await }).await.expect("noted");
        w.wait_for("every member is at the tip", || {
            w.records().iter().all(|r| r.commit.as_ref() == Some(&tip))
        })
        .await;
        for agent in w.agents.all() {
            assert_eq!(agent.tree().0.as_ref(), Some(&tip));
            assert_eq!((agent.bound(), agent.gate_is_open()), (None, false));
            assert_eq!(agent.syncs.load(Ordering::Relaxed), 1);
        }
        assert_eq!(members(w), before);
        // A row says where its member is before the time that it took is counted.
        w.wait_for("each is counted", || one(w, "hotbed_pool_catch_up_seconds_count") >= 3.0).await;
        freshen(w).await;
        assert_eq!(one(w, "hotbed_pool_catch_up_seconds_count"), 3.0, "once");
        assert_eq!(one(w, "hotbed_pool_sandboxes_behind"), 0.0);
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        let sync = w.get(&format!("/v1/sessions/{}/sync", view["id"].as_str().expect("id"))).await.json();
        assert_eq!(sync["lag_commits"], 0);
        // What was read is what is so after a restart, too.
        w.restart().await;
        w.pools_full().await;
        assert!(w.records().iter().filter(|r| r.session.is_none()).any(|r| r.commit.as_ref() == Some(&tip)));
    });
}

/// One that can't be moved stays where it is and can be claimed all the same, but not while another is at the tip. It
/// is not tried again and again.
#[test]
fn a_claim_takes_a_member_at_the_tip() {
    World::with(Setup::pool(3), async |w| {
        w.settled().await;
        let oldest = w.records().into_iter().min_by_key(|r| (r.created_at, r.id)).expect("a member").id;
        w.agents.of(oldest).set(|o| o.sync_fails = Some("no room".into()));
        let tip = w.commit("newer");
        for _ in 0..4 {
            freshen(w).await;
        }
        // Once, and once more where the timer's own run came at the same moment.
        assert!(w.agents.of(oldest).syncs.load(Ordering::Relaxed) <= 2, "no hot loop");
        assert_eq!(one(w, "hotbed_pool_sandboxes_behind"), 1.0);
        assert!(members(w).contains(&oldest), "its agent is well");
        for _ in 0..2 {
            let view = w.session().await;
            assert_ne!(sandbox(&view), oldest);
            assert_eq!(w.synced(&view).await, "synced");
        }
        // The branch moves again: that is worth another try.
        w.agents.of(oldest).set(|o| o.sync_fails = None);
        let newer = w.commit("newer still");
        assert_ne!(newer, tip);
        w.pools_full().await;
        freshen(w).await;
        assert_eq!(w.agents.of(oldest).tree().0, Some(newer));
    });
}

/// A member whose agent answers no more, or answers what it must not, is replaced; the others are left alone, and so
/// is what somebody holds.
#[test]
fn what_is_not_well_is_replaced() {
    World::with(Setup::pool(3), async |w| {
        w.settled().await;
        let held = w.session().await;
        w.pools_full().await;
        w.settled().await;
        let before = members(w);
        let mut sick = before.iter().copied();
        let (mute, open) = (sick.next().expect("a member"), sick.next().expect("another"));
        w.agents.of(mute).set(|o| o.info_fails = true);
        w.agents.of(open).set_gate(true).await.expect("opened");
        w.agents.of(sandbox(&held)).set(|o| o.info_fails = true);
        freshen(w).await;
        freshen(w).await;
        w.wait_for("two others have come", || {
            let now = members(w);
            now.len() == 3 && !now.contains(&mute) && !now.contains(&open)
        })
        .await;
        w.pools_full().await;
        assert_eq!(members(w).intersection(&before).count(), 1);
        assert_eq!(w.read_session(&held).await["state"], "active");
        w.agents.of(sandbox(&held)).set(|o| o.info_fails = false);
    });
}

/// One member of each image sees to the page cache, whatever their number, and nobody's sandbox is asked to.
#[test]
fn one_member_keeps_the_files_of_an_image() {
    World::with(Setup::pool(5), async |w| {
        w.settled().await;
        let held = w.session().await;
        w.pools_full().await;
        for _ in 0..3 {
            freshen(w).await;
        }
        let kept = w.agents.all().iter().map(|a| a.kept_warm.load(Ordering::Relaxed)).sum::<u32>();
        assert_eq!(kept, 1);
        let limits = domain::wire::KeepWarm { max_bytes: 1, max_ms: 1 };
        let again = w.agents.of(sandbox(&held)).keep_warm(&limits).await;
        assert_eq!(again.expect_err("refused").kind(), domain::ErrorKind::Conflict);
    });
}

/// F12: with half a minute to live a member is handed out to nobody, whatever the pool has done about it.
#[test]
fn f12_what_is_about_to_expire_is_not_handed_out() {
    World::with(Setup::pool(2).manual_clock(), async |w| {
        w.settled().await;
        let old = members(w);
        w.clock.advance(w.specs[0].pool.member_max_age - Duration::from_secs(30));
        let views = futures_util::future::join_all((0..3).map(|_| w.session())).await;
        for view in &views {
            assert!(!old.contains(&sandbox(view)), "{view}");
            assert_eq!(w.until(view, "active").await["state"], json!("active"));
        }
        w.wait_for("the old ones are replaced", || members(w).is_disjoint(&old)).await;
        w.pools_full().await;
    });
}

//! Images on trial: canaries, and demotion by what happens in sandboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::testing::FakeCommand;
use domain::{CanaryPolicy, ImageId, ImageRecord, ImageState};
use serde_json::Value;

use crate::world::{Setup, World, id};

const NEXT_TICK: Duration = Duration::from_secs(46 * 60);
const SHORT: Duration = Duration::from_secs(30);
const CANARY: CanaryPolicy = CanaryPolicy { share: 0.4, sessions: 2, longest: Duration::from_secs(20 * 60) };

/// A repo whose sessions are prepared.
fn prepared(pool: u32) -> Setup {
    Setup::pool(pool).manual_clock().change(|spec| spec.image.phases.prepare = vec!["make env".into()])
}

/// What `make env` does in sandboxes from now on.
fn make_env(w: &World, works: bool) {
    let done = match works {
        true => FakeCommand::Ends("done\n".into(), 0),
        false => FakeCommand::Ends("no such table\n".into(), 1),
    };
    w.agents.newcomers(|options| options.commands = vec![("make env".into(), done)]);
}

fn images(w: &World) -> Vec<ImageRecord> {
    w.app().repos.images(&w.specs[0].name)
}

fn of_state(w: &World, state: ImageState) -> Option<ImageId> {
    images(w).iter().find(|i| i.state == state).map(|i| i.id)
}

fn current(w: &World) -> ImageId {
    of_state(w, ImageState::Current).expect("a current image")
}

/// Another commit, and its image.
async fn next_image(w: &World) -> ImageId {
    w.commit("a change");
    w.build(&w.specs[0].name).await;
    images(w).iter().max_by_key(|i| i.generation).expect("an image").id
}

async fn a_tick_later(w: &World) {
    w.clock.advance(NEXT_TICK);
    w.tick().await;
    w.builds_idle(SHORT).await;
}

/// A session, once its gate is open.
async fn used(w: &World) -> Value {
    let view = w.session().await;
    w.until(&view, "active").await;
    assert_eq!(w.synced(&view).await, "synced");
    w.read_session(&view).await
}

/// How many members are of which image, and ready.
fn members(w: &World) -> BTreeMap<Option<ImageId>, usize> {
    let mut of = BTreeMap::new();
    for record in w.records().iter().filter(|r| r.session.is_none()) {
        *of.entry(record.image.filter(|_| record.state == domain::SandboxState::Warm)).or_default() += 1;
    }
    of
}

/// F22: one session that could not be prepared demotes nothing; the third one does. The image before it is current
/// again, its commit is not built again by a tick, the next commit is, and an operator can have it back.
#[test]
fn f22_failures_in_sessions_demote_an_image() {
    World::with(prepared(0), async |w| {
        w.expect_log("an image is demoted");
        let first = current(w);
        make_env(w, false);
        let bad = next_image(w).await;
        for n in 1..=2 {
            let view = used(w).await;
            assert_eq!(view["image"], bad.to_string());
            let image = w.get(&format!("/v1/images/{bad}")).await.expect(200).json();
            let failures = image["failures"].as_array().expect("failures");
            assert_eq!((failures.len(), &image["state"]), (n, &"current".into()), "{image}");
            assert_eq!(failures[n - 1]["session"].as_str(), Some(id(&view)));
            assert!(failures[n - 1]["why"].as_str().expect("why").contains("no such table"), "{image}");
            // It is heard of once more, of the same session.
            w.restart().await;
        }
        used(w).await;
        assert_eq!((current(w), of_state(w, ImageState::Demoted)), (first, Some(bad)));
        let view = used(w).await;
        assert_eq!(view["image"], first.to_string(), "what is demoted is handed out no more");
        let builds = w.builds_of(&w.specs[0].name).await.len();
        a_tick_later(w).await;
        assert_eq!((w.builds_of(&w.specs[0].name).await.len(), current(w)), (builds, first), "built again");
        w.restart().await;
        assert_eq!((current(w), of_state(w, ImageState::Demoted)), (first, Some(bad)));
        let back = w.post(&format!("/v1/images/{bad}/promote"), &Value::Null).await.expect(200).json();
        assert_eq!((&back["state"], back["failures"].as_array().map(Vec::len)), (&"current".into(), Some(0)));
        w.post("/v1/repos/acme/api/rollback", &Value::Null).await.expect(200);
        w.delete(&format!("/v1/images/{first}/pin")).await.expect(200);
        make_env(w, true);
        w.commit("mended");
        a_tick_later(w).await;
        let mended = current(w);
        assert!(![first, bad].contains(&mended), "the next commit is built");
        assert_eq!(used(w).await["image"], mended.to_string());
        let judged: f64 = w.metric("hotbed_image_verdicts_total").iter().map(|(_, n)| n).sum();
        assert_eq!(judged, 0.0, "counted since the restart");
    });
}

/// A share of members and sessions tries a new image, ticks wait for its verdict, and two sessions that begin well
/// make it current.
#[test]
fn a_canary_is_tried_by_its_share() {
    World::with(prepared(5).change(|spec| spec.rollout.canary = Some(CANARY)), async |w| {
        make_env(w, true);
        let first = current(w);
        let canary = next_image(w).await;
        assert_eq!((current(w), of_state(w, ImageState::Canary)), (first, Some(canary)));
        let shared = [(Some(first), 3), (Some(canary), 2)].into();
        w.wait_for("the canary has its share", || members(w) == shared).await;
        let view = w.get("/v1/repos/acme/api").await.expect(200).json();
        assert_eq!(
            (&view["canary"]["state"], &view["image"]["id"]),
            (&"canary".into(), &first.to_string().into())
        );
        w.restart().await;
        w.pools_full().await;
        assert_eq!(of_state(w, ImageState::Canary), Some(canary));
        // Whoever comes gets one of both; nobody waits.
        let mut tried = 0;
        for n in 0.. {
            assert!(n < 200, "no session tries the canary");
            let view = used(w).await;
            assert_eq!(view["launch"], "warm");
            tried += usize::from(view["image"] == canary.to_string());
            w.end(&view).await;
            w.pools_full().await;
            if tried == 2 {
                break;
            }
            w.on(|app| async move { app.rollout.judge().await }).await.expect("judged");
            assert_eq!(current(w), first, "{tried} sessions are not enough");
        }
        w.on(|app| async move { app.rollout.judge().await }).await.expect("judged");
        assert_eq!((current(w), of_state(w, ImageState::Canary)), (canary, None));
        w.wait_for("the pool follows", || members(w) == [(Some(canary), 5)].into()).await;
    });
}

/// While one is tried, ticks build no other; its time passes, and it is current; the next tick builds.
#[test]
fn a_canary_passes_when_its_time_is_over() {
    let wants = |spec: &mut domain::RepoSpec| {
        spec.rollout.canary = Some(CanaryPolicy { longest: NEXT_TICK * 3 / 2, ..CANARY });
    };
    World::with(prepared(0).change(wants), async |w| {
        let first = current(w);
        let canary = next_image(w).await;
        w.commit("one more");
        let builds = w.builds_of(&w.specs[0].name).await.len();
        a_tick_later(w).await;
        assert_eq!(w.builds_of(&w.specs[0].name).await.len(), builds, "one at a time");
        assert_eq!((current(w), of_state(w, ImageState::Canary)), (first, Some(canary)));
        w.clock.advance(NEXT_TICK);
        w.on(|app| async move { app.rollout.judge().await }).await.expect("judged");
        assert_eq!(current(w), canary);
        a_tick_later(w).await;
        assert!(of_state(w, ImageState::Canary).is_some_and(|next| next != canary));
    });
}

/// F22: a canary that does not come up in three members is gone before anybody saw it as the current one.
#[test]
fn f22_a_canary_that_fails_is_demoted() {
    let ready = domain::Ready { port: Some(5432), timeout: Duration::from_secs(60), ..Default::default() };
    let db = domain::Service { name: "db".into(), run: "postgres".into(), ready, ..Default::default() };
    let setup = Setup::pool(4)
        .change(move |spec| {
            spec.image.phases.services = vec![db.clone()];
            spec.rollout = domain::RolloutPolicy { canary: Some(CANARY), demote_after: 1 };
        })
        .agents(|options| {
            options.ports = [5432].into();
            options.commands = vec![("postgres".into(), FakeCommand::Runs("ready\n".into()))];
        });
    World::with(setup, async |w| {
        w.expect_log("an image is demoted");
        w.expect_log("a member did not come up");
        w.allow_log("a member could not be started");
        let first = current(w);
        w.pools_full().await;
        w.commit("a change");
        let repo = w.specs[0].name.clone();
        w.build(&repo).await;
        let bad = of_state(w, ImageState::Canary).expect("a canary");
        // Its check went well; in members it does not.
        let broken = FakeCommand::Ends("disk is read-only\n".into(), 1);
        w.agents.newcomers(|options| options.commands = vec![("postgres".into(), broken)]);
        for id in w.pool_members() {
            if w.records().iter().any(|r| r.id == id && r.image == Some(bad)) {
                w.backend.exit(id);
            }
        }
        w.wait_for("it is demoted", || of_state(w, ImageState::Demoted) == Some(bad)).await;
        assert_eq!(current(w), first);
        w.agents.newcomers(|options| {
            options.commands = vec![("postgres".into(), FakeCommand::Runs("ready\n".into()))];
        });
        let session = w.session().await;
        assert_eq!(session["image"], first.to_string());
    });
}

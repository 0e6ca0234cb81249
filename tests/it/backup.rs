//! The state put back from a copy: sessions that it knows go on, and what was made since is nobody's to remove.

use std::path::Path;

use domain::ports::Backend as _;
use domain::{Clock as _, SystemClock};
use serde_json::json;
use store::backup;

use crate::world::{Setup, World, id, sandbox};

fn take(dir: &Path, to: &Path) {
    let mut out = std::fs::File::create(to).expect("a file");
    backup::take(dir, &mut out, "1.2.3", SystemClock.now()).expect("a copy of what runs");
}

/// F45: what the engine has and no record knows is removed, but not where somebody may have worked in it.
#[test]
fn f45_what_was_made_after_the_copy_is_left_alone() {
    World::with(Setup::pool(1), async |w| {
        let known = w.session().await;
        assert_eq!(w.synced(&known).await, "synced");
        w.pools_full().await;
        w.settled().await;
        let copy = w.state_dir().with_file_name("copy.tar");
        take(&w.state_dir(), &copy);

        // A claim of the member that the copy knows as waiting, and a snapshot.
        let later = w.session().await;
        assert_eq!(w.synced(&later).await, "synced");
        let taken = w.post(&format!("/v1/sessions/{}/snapshots", id(&later)), &json!({})).await.expect(201);
        let taken = taken.json()["id"].as_str().expect("an id").to_owned();
        w.wait("the snapshot", async || {
            let view = w.get(&format!("/v1/snapshots/{taken}")).await.expect(200).json();
            (view["state"] == "ready").then_some(())
        })
        .await;
        w.settled().await;

        w.allow_log("left alone: no record knows it");
        w.allow_log("token");
        w.stopped(|dir| {
            let now = SystemClock.now();
            backup::restore(dir, &copy, true, now).expect("restored");
        })
        .await;
        w.pools_full().await;
        w.reconcile().await;
        w.on(|app| async move { app.captures.collect().await }).await.expect("collected");

        // What the copy knows goes on.
        w.send("PUT", &format!("/v1/sessions/{}/files/x", id(&known)), &[], b"x").await.expect(204);
        // What came later is not known, and is there.
        w.get(&format!("/v1/sessions/{}", id(&later))).await.expect(404);
        let there = async |w: &World| {
            let sandboxes = w.backend.list().await.expect("a list");
            let captures = w.backend.list_captures().await.expect("a list");
            (sandboxes.iter().any(|s| s.id == sandbox(&later)), captures.iter().any(|c| c.name == taken))
        };
        assert_eq!(there(w).await, (true, true));
        assert!(!w.pool_members().contains(&sandbox(&later)), "and is handed out to nobody");
        let spared = w.metric("hotbed_spared");
        assert!(spared.iter().all(|(_, n)| *n >= 1.0), "{spared:?}");

        // Until an operator has looked.
        w.stopped(|dir| {
            backup::release(dir).expect("released");
        })
        .await;
        w.reconcile().await;
        w.on(|app| async move { app.captures.collect().await }).await.expect("collected");
        w.wait("the engine to be tidy", async || (there(w).await == (false, false)).then_some(())).await;
        w.send("PUT", &format!("/v1/sessions/{}/files/y", id(&known)), &[], b"y").await.expect(204);
    });
}

//! What is removed behind Hotbed's back, and what comes and goes in a hurry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator::api::types::SessionView;
use serde_json::json;
use tokio::sync::Semaphore;

use super::api::{Api, until};
use super::{on_docker, shared};

// F19, F45
#[test]
fn a_container_removed_from_outside_ends_its_session_or_is_replaced() {
    const REPO: &str = "acme/lost";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let session = api.session(REPO).await;
        api.synced(&session.id).await;
        api.must(&session.id, "echo work > work.txt").await;
        let pool = api.full(REPO).await;
        assert_eq!(pool.warm, 1);
        let held = session.sandbox.clone().expect("a sandbox");
        let of = |sandbox: &str| world.containers_of(REPO).into_iter().find(|c| c.sandbox == sandbox);

        let begun = Instant::now();
        world.engine.run(&["rm", "-f", &of(&held).expect("its container").id]);
        // Never an empty sandbox in the place of the one that held work.
        let ended = api.reaches(&session.id, &["ended"]).await;
        assert_eq!(ended.end.as_deref(), Some("sandbox_lost"), "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(8), "within seconds: {:?}", begun.elapsed());
        assert!(ended.trouble.is_some(), "{ended:?}");
        let gone =
            api.answer("POST", &format!("/v1/sessions/{}/exec", session.id), r#"{"cmd":"true"}"#).await;
        assert_eq!(gone.status, 410, "{}", gone.text());

        let member = world.containers_of(REPO).into_iter().find(|c| c.sandbox != held).expect("a member");
        world.engine.run(&["rm", "-f", &member.id]);
        until("another member", async || {
            let now = world.containers_of(REPO);
            let pool = api.pool(REPO).await;
            if pool.warm == 1 && now.len() == 1 && !now.contains(&member) {
                Ok(())
            } else {
                Err(format!("{pool:?} {now:?}"))
            }
        })
        .await;
        // And it is a good one.
        let next = api.session(REPO).await;
        assert_eq!(next.launch, "warm");
        api.must(&next.id, "true").await;
        api.discard(&next.id).await;
    });
}

/// How many sessions are made and cancelled. `HOTBED_CHURN=500` is the number that was promised; it takes minutes.
fn churn() -> usize {
    std::env::var("HOTBED_CHURN").map_or(60, |n| n.parse().expect("HOTBED_CHURN is a number"))
}

// F38, F37, F35
#[test]
fn many_created_and_cancelled_leave_nothing() {
    const REPO: &str = "acme/churn";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let volumes = || -> BTreeSet<String> {
            world
                .containers_of(REPO)
                .iter()
                .map(|c| {
                    world.engine.try_run(&["inspect", "-f", "{{range .Mounts}}{{.Type}} {{end}}", &c.id])
                })
                .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
                .filter(|m| !m.is_empty())
                .collect()
        };
        assert_eq!(
            volumes(),
            BTreeSet::from(["bind bind".to_owned()]),
            "a sandbox has no volume to leave behind"
        );

        let turns = Arc::new(Semaphore::new(8));
        let tasks: Vec<_> = (0..churn())
            .map(|n| {
                let (api, turns) = (world.api(), turns.clone());
                tokio::spawn(async move {
                    let _turn = turns.acquire_owned().await.expect("open");
                    let session = api
                        .try_session(&json!({"repo": REPO, "user": Api::user()}))
                        .await
                        .expect("a session");
                    // Right after the answer, while it may still start; some give up what it holds, some don't.
                    let discard = n % 2 == 0;
                    let path = format!("/v1/sessions/{}?discard={discard}", session.id);
                    let ending: SessionView = api.client.delete(&path).await.expect("a cancellation");
                    assert!(["ending", "ended"].contains(&ending.state.as_str()), "{ending:?}");
                    (session.id, session.sandbox.expect("a sandbox"))
                })
            })
            .collect();
        let mut sandboxes = BTreeSet::new();
        let mut ids = Vec::new();
        for task in tasks {
            let (id, sandbox) = task.await.expect("no panic");
            assert!(sandboxes.insert(sandbox), "a sandbox was handed out twice");
            ids.push(id);
        }
        for id in &ids {
            let ended = api.reaches(id, &["ended"]).await;
            assert_eq!(ended.end.as_deref(), Some("requested"), "{ended:?}");
        }
        until("one member and nothing else", async || {
            let containers: BTreeSet<_> = world.containers_of(REPO).into_iter().map(|c| c.sandbox).collect();
            let dirs = world.run_dirs();
            let left: Vec<_> = sandboxes.iter().filter(|s| dirs.contains(*s)).collect();
            if containers.len() == 1 && containers.is_disjoint(&sandboxes) && left.is_empty() {
                Ok(())
            } else {
                Err(format!("{containers:?}, directories {left:?}"))
            }
        })
        .await;
        let label = format!("label=hotbed.instance={}", world.instance());
        let networks = world.engine.run(&["network", "ls", "-q", "--filter", &label]);
        assert!(networks.lines().count() <= 1, "one network for all that want one: {networks}");
        let pool = api.full(REPO).await;
        assert_eq!((pool.target, pool.warm), (1, 1));
    });
}

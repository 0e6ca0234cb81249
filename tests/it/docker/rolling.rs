//! Images that are replaced while sandboxes are handed out and announced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::Error;
use orchestrator::api::types::{BuildView, WarmupView};
use serde_json::json;

use super::api::{Api, until};
use super::{on_docker, shared};

impl Api {
    async fn current(&self, repo: &str) -> String {
        self.repo(repo).await.image.expect("an image").id
    }

    /// Builds the image anew and waits until it is current.
    async fn roll(&self, repo: &str) -> String {
        let before = self.current(repo).await;
        let build: BuildView =
            self.client.post(&format!("/v1/repos/{repo}/builds"), &json!({})).await.expect("a build");
        until(&format!("the build of {repo}"), async || {
            let build: BuildView =
                self.client.get(&format!("/v1/builds/{}", build.id)).await.map_err(|e| Error::chain(&e))?;
            assert_ne!(build.state, "failed", "{build:?}");
            if build.ended_at.is_some() { Ok(()) } else { Err(format!("{build:?}")) }
        })
        .await;
        let now = self.current(repo).await;
        assert_ne!(now, before, "{repo} has a new image");
        now
    }
}

// F2, F4, F8
#[test]
fn an_image_is_rolled_while_claims_run() {
    const REPO: &str = "acme/roll";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let over = Arc::new(AtomicBool::new(false));
        let claimers: Vec<_> = (0..2)
            .map(|_| {
                let (api, over) = (world.api(), over.clone());
                tokio::spawn(async move {
                    let mut used = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let before = api.current(REPO).await;
                        let session = api.session(REPO).await;
                        let allowed = [before, api.current(REPO).await];
                        let image = session.image.clone().expect("an image");
                        assert!(allowed.contains(&image), "{image} is none of {allowed:?}");
                        // It is there, at the commit that sync promised, and stays while somebody holds it.
                        let synced = api.synced(&session.id).await;
                        assert_eq!(Some(api.head(&session.id).await), synced.head);
                        let now = api.read(&session.id).await;
                        assert_eq!(now.state, "active", "{now:?}");
                        used.push(now.sandbox.expect("a sandbox"));
                        api.discard(&session.id).await;
                    }
                    used
                })
            })
            .collect();
        for n in 0..2 {
            world.land(REPO, "rolled.txt", &format!("{n}\n"));
            api.roll(REPO).await;
        }
        over.store(true, Ordering::Relaxed);
        let mut used = BTreeSet::new();
        for claimer in claimers {
            for sandbox in claimer.await.expect("no claimer failed") {
                assert!(used.insert(sandbox), "a sandbox was handed out twice");
            }
        }
        assert!(used.len() >= 4, "claims went on meanwhile: {}", used.len());
        let digest = api.repo(REPO).await.image.expect("an image").digest;
        until("two members of the new image and nothing else", async || {
            let members = world.containers_of(REPO);
            let images: Vec<_> = members.iter().filter_map(|c| world.image_of(&c.id)).collect();
            let warm = api.pool(REPO).await.warm;
            if warm == 2 && images == [digest.as_str(); 2] {
                Ok(())
            } else {
                Err(format!("{warm} {images:?}"))
            }
        })
        .await;
    });
}

// F2, F55, F56
#[test]
fn a_warmup_follows_an_image_that_is_replaced() {
    const REPO: &str = "acme/typed";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let key = || async {
            let body = json!({"repo": REPO, "client": "tab"});
            api.client.post::<_, WarmupView>("/v1/warmups", &body).await.expect("a warm-up")
        };
        let first = key().await;
        let prepared = async || {
            until("a member is held at the tip", async || {
                let now = key().await;
                assert_eq!(now.id, first.id, "one warm-up, however long is typed");
                now.prepared_at.ok_or_else(|| format!("{now:?}"))
            })
            .await
        };
        let before = prepared().await;
        world.land(REPO, "typed.txt", "newer\n");
        let image = api.roll(REPO).await;
        until("the member that is held is another", async || {
            let now = prepared().await;
            if now > before { Ok(()) } else { Err(format!("{now}")) }
        })
        .await;
        let body = json!({"repo": REPO, "user": Api::user(), "warmup": first.id});
        let session = api.try_session(&body).await.expect("a session");
        assert_eq!((session.launch.as_str(), session.image.as_ref()), ("warmup", Some(&image)));
        api.synced(&session.id).await;
        assert_eq!(api.head(&session.id).await, world.tip(REPO));
        assert_eq!(api.must(&session.id, "cat typed.txt").await, "newer\n");
        // Nothing of who typed was in it before.
        let over: WarmupView = api.client.get(&format!("/v1/warmups/{}", first.id)).await.expect("a warm-up");
        assert_eq!(over.state, "hit");
        api.discard(&session.id).await;
        api.full(REPO).await;
    });
}

// F25
#[test]
fn idle_members_are_brought_to_the_tip_in_place() {
    const REPO: &str = "acme/drift";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let image = api.current(REPO).await;
        world.land(REPO, "drift.txt", "newer\n");
        let tip = world.tip(REPO);
        // The first session that meets it makes Hotbed see that the branch has moved; those that wait follow.
        let session = until("a member that was at the tip before it was claimed", async || {
            api.full(REPO).await;
            let session = api.session(REPO).await;
            let sync = api.synced(&session.id).await;
            if sync.lag_commits == Some(0) {
                return Ok(session);
            }
            api.discard(&session.id).await;
            Err(format!("{sync:?}"))
        })
        .await;
        // Its image does not have the commit: it was moved where it was.
        assert_eq!((session.launch.as_str(), session.image.as_ref()), ("warm", Some(&image)));
        assert_eq!(api.head(&session.id).await, tip);
        assert_eq!(api.must(&session.id, "cat drift.txt").await, "newer\n");
        api.discard(&session.id).await;
        api.full(REPO).await;
    });
}

//! Images in a real registry: pushed, brought back, removed; through a door that wants tokens and breaks.

use std::collections::BTreeSet;

use domain::Digest;
use orchestrator::api::types::{ImageView, List};
use registry::{Login, Registry as Asked};
use serde_json::json;
use tests::registry::Registry;

use super::api::{Api, until};
use super::on_docker;
use super::world::{Repo, World};

const REPO: &str = "acme/Pushed";

async fn images(api: &Api) -> Vec<ImageView> {
    let list: List<ImageView> = api.client.get(&format!("/v1/images?repo={REPO}")).await.expect("images");
    list.items
}

/// Waits until the current image is of this commit, and pushed.
async fn pushed(api: &Api, commit: &str) -> ImageView {
    until("the image in the registry", async || {
        let all = images(api).await;
        match all.iter().find(|i| i.state == "current" && i.commit == commit) {
            Some(image) if image.registry.is_some() => Ok(image.clone()),
            _ => Err(format!("{all:#?}")),
        }
    })
    .await
}

// F23, F28
#[test]
fn f23_images_go_to_the_registry_come_back_and_leave_it() {
    let registry = Registry::start();
    registry.require("hotbed", "s3cret-of-the-door");
    // The first push fails at the door, and is tried again; in the second one a layer breaks off.
    registry.refuse(2);
    registry.cut_uploads_after(64 << 10, 1);
    on_docker(async {
        let dir = tempfile::tempdir().expect("temporary directory");
        let password = dir.path().join("password");
        std::fs::write(&password, "s3cret-of-the-door\n").expect("write");
        let push = format!("{}/team/hotbed", registry.host());
        let settings = json!({"registry": {"push": push, "user": "hotbed", "password": {"file": password}}});
        let world = World::start_with("registry", vec![Repo::new(REPO, 0)], settings).await;
        let api = world.api();
        api.image(REPO).await;
        let first = pushed(&api, &world.tip(REPO)).await;
        world.keep_bases();
        let (refused, broken) = registry.troubles();
        assert!(
            refused == 2 && broken == 1,
            "the door was told to break: {refused} refused, {broken} broken"
        );
        let metrics = api.answer("GET", "/metrics", "").await.text();
        for result in ["pushed", "failed"] {
            let series = format!("hotbed_image_pushes_total{{repo=\"{REPO}\",result=\"{result}\"}} ");
            let value = metrics.lines().find_map(|l| l.strip_prefix(&series));
            assert!(value.is_some_and(|v| v != "0"), "{series}: {value:?}");
        }
        let reference = first.registry.clone().expect("a reference");
        let repository = format!("{push}/acme/pushed");
        assert!(reference.starts_with(&format!("{repository}@sha256:")), "{reference}");
        let login = Login { user: "hotbed".into(), password: "s3cret-of-the-door".to_owned().into() };
        let asked = Asked::new(&registry.host(), Some(login)).expect("a client");
        let held = asked.look(&reference).await.expect("asked").expect("it is there");
        let digest: Digest = first.digest.parse().expect("a digest");
        assert_eq!(held.image, digest, "what lies there is what was captured");

        // An incremental image sends its own layer, and none of those below it.
        let before = registry.uploaded();
        world.land(REPO, "src/new.py", "print('a second one')\n");
        api.client
            .post::<_, serde_json::Value>(&format!("/v1/repos/{REPO}/builds"), &json!({}))
            .await
            .expect("a build");
        let second = pushed(&api, &world.tip(REPO)).await;
        assert_eq!(second.parent.as_deref(), Some(first.id.as_str()), "an incremental one");
        let sent = registry.uploaded() - before;
        let held = asked
            .look(second.registry.as_deref().expect("a reference"))
            .await
            .expect("asked")
            .expect("there");
        let layer = *held.layers.last().expect("a layer");
        // Beside the layer: the image's configuration.
        assert!(sent <= layer + layer / 10 + 16_384, "sent {sent} bytes for a layer of {layer}");

        // Somebody tidies up in the engine. What was current there is current again, under the same digest.
        world.kill_server();
        let label = format!("label=hotbed.instance={}", world.instance());
        world.engine.run(&["rmi", "-f", &second.digest]);
        world.engine.run(&["image", "prune", "-f", "--filter", &label]);
        assert!(!world.captures().iter().any(|(_, id)| *id == second.digest), "it is gone");
        world.start_server().await;
        let api = world.api();
        until("the image is back", async || {
            let back = world.captures().iter().any(|(kind, id)| kind == "image" && *id == second.digest);
            if back { Ok(()) } else { Err(world.log().lines().rev().take(3).collect::<Vec<_>>().join("\n")) }
        })
        .await;
        let session = api.session(REPO).await;
        assert_eq!(session.image.as_deref(), Some(second.id.as_str()), "a session starts from it");
        api.synced(&session.id).await;
        api.end(&session.id).await;

        // What is no longer kept leaves the registry with its row.
        let mut commits = vec![first.commit.clone(), second.commit.clone()];
        for n in 0..3 {
            world.land(REPO, "src/new.py", &format!("print({n})\n"));
            api.client
                .post::<_, serde_json::Value>(&format!("/v1/repos/{REPO}/builds"), &json!({}))
                .await
                .expect("a build");
            commits.push(pushed(&api, &world.tip(REPO)).await.commit);
        }
        world.kill_server();
        world.start_server().await;
        let api = world.api();
        until("the first image is gone", async || match asked.look(&reference).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        until("the rows are gone", async || {
            let left: BTreeSet<_> = images(&api).await.into_iter().map(|i| i.id).collect();
            if left.contains(&first.id) { Err(format!("{left:?}")) } else { Ok(()) }
        })
        .await;
        let scopes = registry.scopes();
        assert!(scopes.iter().any(|s| s == "repository:team/hotbed/acme/pushed:delete"), "{scopes:?}");
        assert!(!world.log().contains("s3cret-of-the-door"), "the password stands in the log");
    });
}

/// Without a registry an image that the engine has lost is built anew.
#[test]
fn f28_a_lost_image_is_built_again() {
    on_docker(async {
        let world = World::start("lost-image", Default::default(), vec![Repo::new("acme/lost", 0)]).await;
        let api = world.api();
        let first = api.image("acme/lost").await.image.expect("an image");
        world.kill_server();
        world.engine.run(&["rmi", "-f", &first.digest]);
        world.start_server().await;
        let api = world.api();
        until("another image", async || match api.repo("acme/lost").await.image {
            Some(image) if image.id != first.id => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        until("no row of the lost one", async || {
            let list: List<ImageView> = api.client.get("/v1/images?repo=acme/lost").await.expect("images");
            let left = list.items.iter().any(|i| i.id == first.id);
            if left { Err(format!("{:?}", list.items)) } else { Ok(()) }
        })
        .await;
        let session = api.session("acme/lost").await;
        api.synced(&session.id).await;
        api.end(&session.id).await;
    });
}

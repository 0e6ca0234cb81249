//! Capture, import, list and remove.

use std::collections::{BTreeMap, HashSet};

use bollard::models::ContainerConfig;
use bollard::query_parameters::{CommitContainerOptions, RemoveImageOptions};
use domain::ErrorKind;
use domain::ports::{Backend, CaptureKind, ObservedPhase};
use futures_util::TryStreamExt;

use crate::proxy::{Proxy, Rule};
use crate::world::{TOKEN, World, find, name, spec};

#[tokio::test]
async fn a_capture_holds_the_filesystem_and_no_secret() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let mut wanted = spec(CaptureKind::Image, "img_1");
    wanted.env = BTreeMap::from([("FOO".into(), "a $b \"c\"\nd".into()), ("PATH".into(), "/x".into())]);
    wanted.workdir = Some("/workspace".into());
    let captured = world.backend.capture(id, &wanted).await.unwrap();
    assert_eq!(world.phase(id).await, Some(ObservedPhase::Running), "it runs on");
    assert!(captured.size > 0);
    assert!(world.backend.has(&captured.digest).await.unwrap());

    let image = world.raw.inspect_image(captured.digest.as_str()).await.unwrap();
    assert!(!format!("{image:?}").contains(TOKEN));
    let config = image.config.unwrap();
    assert_eq!(config.entrypoint.unwrap_or_default(), [] as [&str; 0], "our agent is not its entrypoint");
    assert_eq!(config.cmd.unwrap_or_default(), [] as [&str; 0]);
    assert_eq!(config.working_dir.as_deref(), Some("/workspace"));
    let labels = config.labels.unwrap();
    assert_eq!(
        (labels["hotbed.sandbox"].as_str(), labels["hotbed.repo"].as_str()),
        ("", ""),
        "not the sandbox's"
    );
    let env = config.env.unwrap();
    assert!(env.contains(&"FOO=a $b \"c\"\nd".to_owned()) && env.contains(&"PATH=/x".to_owned()), "{env:?}");
    let tags = image.repo_tags.unwrap();
    assert!(tags.len() == 1 && tags[0].ends_with("/image:img_1"), "not dangling: {tags:?}");

    // All of it, layers and configuration, as it would travel.
    let parts: Vec<_> = world.raw.export_image(&tags[0]).try_collect().await.unwrap();
    let all = parts.concat();
    assert!(find(&all, b"was-here"), "the file that the sandbox wrote is in it");
    assert!(!find(&all, TOKEN.as_bytes()), "the token is in the image");
    assert!(!find(&all, b"boot.json"), "the boot file is in the image");

    // It starts, and what it captures in turn is another thing.
    let next = world.started(&captured.digest).await;
    let deeper = world.backend.capture(next, &spec(CaptureKind::Snapshot, "snp_1")).await.unwrap();
    assert_ne!(deeper.digest, captured.digest);
    let mut list = world.backend.list_captures().await.unwrap();
    list.sort_by_key(|c| c.name.clone());
    let list: Vec<_> = list.iter().map(|c| (c.kind, c.name.as_str(), &c.digest)).collect();
    assert_eq!(
        list,
        [
            (CaptureKind::Image, "img_1", &captured.digest),
            (CaptureKind::Snapshot, "snp_1", &deeper.digest),
            (CaptureKind::Base, "tiny", &base),
        ]
    );
    world.end().await;
}

#[tokio::test]
async fn a_paused_sandbox_stays_paused() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    world.backend.pause(id).await.unwrap();
    world.backend.capture(id, &spec(CaptureKind::Snapshot, "snp_1")).await.unwrap();
    assert_eq!(world.phase(id).await, Some(ObservedPhase::Paused));
    world.end().await;
}

// F39, F41
#[tokio::test]
async fn a_failed_capture_keeps_its_source() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let pause = format!("POST /v1.41/containers/{}/pause", name(id));
    let full = "write /x: no space left on device";
    for (n, rule, kind) in [
        (0, Rule::Answer(500, full), ErrorKind::Exhausted),
        (1, Rule::Answer(500, "something broke"), ErrorKind::Permanent),
        // The daemon dies between freezing the sandbox and thawing it.
        (2, Rule::DoAndBreak(pause), ErrorKind::Unavailable),
        (3, Rule::Hang, ErrorKind::Timeout),
    ] {
        let socket = world.path(&format!("proxy-{n}"));
        let _proxy = Proxy::new(&socket, world.socket(), move |line| match line.contains("/commit?") {
            true => rule.clone(),
            false => Rule::Pass,
        });
        let failing = world.another(|c| {
            c.host = Some(format!("unix://{}", socket.display()));
            c.deadlines.capture = std::time::Duration::from_millis(500);
        });
        let error = failing.capture(id, &spec(CaptureKind::Snapshot, "snp_1")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{n}: {error:?}");
        assert_eq!(world.phase(id).await, Some(ObservedPhase::Running), "{n}");
        assert!(world.file(id, "/was-here").await.is_some());
    }
    assert_eq!(world.backend.list_captures().await.unwrap().len(), 1, "the base only");
    world.backend.capture(id, &spec(CaptureKind::Snapshot, "snp_1")).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_capture_that_is_repeated_replaces_the_earlier() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let first = world.backend.capture(id, &spec(CaptureKind::Snapshot, "snp_1")).await.unwrap();
    let second = world.backend.capture(id, &spec(CaptureKind::Snapshot, "snp_1")).await.unwrap();
    assert_ne!(first.digest, second.digest);
    assert!(!world.backend.has(&first.digest).await.unwrap(), "the earlier would dangle for ever");
    assert!(world.backend.has(&second.digest).await.unwrap());
    world.end().await;
}

#[tokio::test]
async fn there_is_nothing_to_capture_of_what_is_not_there() {
    let world = World::new().await;
    let error =
        world.backend.capture(domain::SandboxId::new(), &spec(CaptureKind::Image, "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    world.end().await;
}

#[tokio::test]
async fn what_is_stood_on_is_not_removed() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let child = world.backend.capture(id, &spec(CaptureKind::Image, "img_1")).await.unwrap().digest;
    world.backend.tag(&base, "registry.example/hotbed/base:t").await.unwrap();
    for stage in ["a sandbox and a child", "a child"] {
        let error = world.backend.remove_capture(&base).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{stage}: {error:?}");
        // Nothing has changed: it is listed, and has its tags.
        assert!(world.backend.list_captures().await.unwrap().iter().any(|c| c.digest == base), "{stage}");
        let tags = world.raw.inspect_image(base.as_str()).await.unwrap().repo_tags.unwrap();
        assert_eq!(tags.len(), 2, "{stage}: {tags:?}");
        world.backend.stop(id).await.unwrap();
    }
    for digest in [&child, &base] {
        for _ in 0..2 {
            world.backend.remove_capture(digest).await.unwrap();
            assert!(!world.backend.has(digest).await.unwrap());
        }
    }
    world.end().await;
}

// F31
#[tokio::test]
async fn a_capture_that_lost_its_tag_is_still_listed() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let first = world.backend.capture(id, &spec(CaptureKind::Snapshot, "snp_1")).await.unwrap();
    let second = world.backend.capture(id, &spec(CaptureKind::Snapshot, "snp_2")).await.unwrap();
    // As when two captures of one name overlap, because the client of the first was killed: the tag moves.
    let tags = world.raw.inspect_image(first.digest.as_str()).await.unwrap().repo_tags.unwrap();
    world.backend.tag(&second.digest, &tags[0]).await.unwrap();
    let listed: HashSet<_> =
        world.backend.list_captures().await.unwrap().into_iter().map(|c| c.digest).collect();
    assert_eq!(listed, HashSet::from([base, first.digest.clone(), second.digest.clone()]));
    world.backend.remove_capture(&first.digest).await.unwrap();
    assert!(!world.backend.has(&first.digest).await.unwrap());
    assert!(world.backend.has(&second.digest).await.unwrap());
    world.end().await;
}

// F6
#[tokio::test]
async fn what_others_build_on_a_capture_is_not_ours() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    // A stranger's image with all of the base's labels, mark and all: made on the engine without us.
    let options = CommitContainerOptions {
        container: Some(name(id)),
        repo: Some(format!("stranger-{id}")),
        tag: Some("1".to_owned()),
        ..Default::default()
    };
    let labels = world.raw.inspect_image(base.as_str()).await.unwrap().config.unwrap().labels;
    let config = ContainerConfig { labels, ..Default::default() };
    let stranger = world.raw.commit_container(options, config).await.unwrap().id;
    let listed = world.backend.list_captures().await.unwrap();
    assert_eq!(listed.iter().map(|c| &c.digest).collect::<Vec<_>>(), [&base]);
    let options = RemoveImageOptions { force: true, ..Default::default() };
    world.raw.remove_image(&stranger, Some(options), None).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn an_import_carries_its_configuration() {
    let world = World::new().await;
    let mut wanted = spec(CaptureKind::Base, "sha256:With/Odd Characters");
    wanted.env = BTreeMap::from([("A".into(), r#"$HOME "x" \y 'z' ${B}"#.into())]);
    wanted.workdir = Some("/some dir".into());
    let imported = world.backend.import(world.tiny_tar(), &wanted).await.unwrap();
    let config = world.raw.inspect_image(imported.digest.as_str()).await.unwrap().config.unwrap();
    assert!(config.env.unwrap().contains(&r#"A=$HOME "x" \y 'z' ${B}"#.to_owned()));
    assert_eq!(config.working_dir.as_deref(), Some("/some dir"));
    let listed = world.backend.list_captures().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].kind, listed[0].name.as_str()), (CaptureKind::Base, "sha256:With/Odd Characters"));

    let again = world.backend.import(world.tiny_tar(), &wanted).await.unwrap();
    assert!(!world.backend.has(&imported.digest).await.unwrap(), "replaced");
    assert!(world.backend.has(&again.digest).await.unwrap());

    wanted.env = BTreeMap::from([("A B".into(), "x".into())]);
    assert_eq!(world.backend.import(world.tiny_tar(), &wanted).await.unwrap_err().kind(), ErrorKind::Invalid);
    world.end().await;
}

#[tokio::test]
async fn what_is_no_tar_file_is_no_image() {
    let world = World::new().await;
    let wanted = spec(CaptureKind::Base, "bad");
    let missing = world.backend.import(world.path("missing.tar"), &wanted).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.context().contains("missing.tar"));
    let bad = world.path("bad.tar");
    std::fs::write(&bad, vec![b'x'; 100_000]).unwrap();
    let error = world.backend.import(bad, &wanted).await.unwrap_err();
    assert!(!error.kind().is_retryable(), "{error:?}");
    world.end().await;
}

#[tokio::test]
async fn an_image_that_is_not_ours_is_not_removed() {
    let world = World::new().await;
    let base = world.base().await;
    let other = World::new().await;
    let error = other.backend.remove_capture(&base).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let missing = format!("sha256:{}", "cd".repeat(32)).parse().unwrap();
    other.backend.remove_capture(&missing).await.unwrap();
    assert!(!other.backend.has(&missing).await.unwrap());
    assert!(world.backend.has(&base).await.unwrap());
    other.end().await;
    world.end().await;
}

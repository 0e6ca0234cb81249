//! The files of images, read through a container that never runs.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::ports::{Backend, CaptureKind, TreeEntry};
use domain::{Digest, ErrorKind};
use futures_util::{StreamExt, TryStreamExt};

use crate::proxy::{Proxy, Rule};
use crate::world::{World, spec, wait_for};

async fn files(backend: &dyn Backend, digest: &Digest) -> BTreeMap<String, TreeEntry> {
    let read = backend.read_tree(digest, |path| path == b"/was-here").await.unwrap();
    let read: Vec<_> = read.try_collect().await.unwrap();
    read.into_iter().map(|e| (String::from_utf8(e.path.clone()).unwrap(), e)).collect()
}

async fn containers(world: &World) -> Vec<String> {
    world.left().await.into_iter().filter(|left| left.starts_with("container")).collect()
}

#[tokio::test]
async fn an_image_is_read_and_nothing_is_left_of_it() {
    let world = World::new().await;
    let base = world.base().await;
    let id = world.started(&base).await;
    let captured = world.backend.capture(id, &spec(CaptureKind::Image, "img_1")).await.unwrap();
    world.backend.stop(id).await.unwrap();

    let (before, after) = (files(&world.backend, &base).await, files(&world.backend, &captured.digest).await);
    assert_eq!(containers(&world).await, [""; 0]);
    let world_file = before["/etc/world"].clone();
    assert_eq!(world_file.size, world.config.instance.to_string().len() as u64);
    assert_eq!(after["/etc/world"], world_file);
    assert_eq!(after["/was-here"].content.as_deref(), Some(b"boot read".as_slice()));
    assert!(!before.contains_key("/was-here"));
    assert!(
        after.values().filter(|e| e.content.is_some()).count() == 1,
        "no more content than was asked for"
    );
    let again = files(&world.backend, &captured.digest).await;
    assert_eq!(again, after, "the same twice, whatever stood in the container's own files");

    let nothing: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let Err(error) = world.backend.read_tree(&nothing, |_| false).await else { panic!("it is not there") };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    world.end().await;
}

// F23
#[tokio::test]
async fn a_reading_that_is_given_up_hangs_or_breaks_leaves_nothing() {
    let world = World::new().await;
    let base = world.base().await;
    let mut given_up = world.backend.read_tree(&base, |_| false).await.unwrap();
    assert!(given_up.next().await.is_some());
    drop(given_up);
    wait_for("the container to go", async || containers(&world).await.is_empty()).await;

    let cases = [(Rule::Hang, ErrorKind::Timeout), (Rule::Answer(500, "broken"), ErrorKind::Permanent)];
    for (n, (rule, kind)) in cases.into_iter().enumerate() {
        let socket = world.path(&format!("proxy-{n}"));
        let _proxy = Proxy::new(&socket, world.socket(), move |line| match line.contains("/export") {
            true => rule.clone(),
            false => Rule::Pass,
        });
        let failing = world.another(|c| {
            c.host = Some(format!("unix://{}", socket.display()));
            c.deadlines.read = Duration::from_millis(500);
        });
        let read = failing.read_tree(&base, |_| false).await.unwrap();
        let error = read.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(containers(&world).await, [""; 0]);
    }

    // As after a crash: made, and never removed.
    let socket = world.path("proxy-crash");
    let _proxy = Proxy::new(&socket, world.socket(), |line| {
        match line.contains("/export") || line.starts_with("DELETE") {
            true => Rule::Hang,
            false => Rule::Pass,
        }
    });
    let crash = || {
        world.another(|c| {
            c.host = Some(format!("unix://{}", socket.display()));
            c.deadlines.read = Duration::from_millis(100);
            c.deadlines.stop = Duration::from_millis(100);
        })
    };
    for found_by_a_reading in [true, false] {
        let read = crash().read_tree(&base, |_| false).await.unwrap();
        read.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(containers(&world).await.len(), 1);
        if found_by_a_reading {
            assert!(files(&world.backend, &base).await.contains_key("/etc/world"));
        } else {
            assert_eq!(world.backend.list().await.unwrap(), [], "it is no sandbox");
        }
        assert_eq!(containers(&world).await, [""; 0]);
    }
    world.end().await;
}

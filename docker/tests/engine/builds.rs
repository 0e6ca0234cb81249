//! Dockerfiles, built by the engine: with BuildKit, and where it refuses that, with its classic builder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use docker::DockerBackend;
use domain::ports::{Backend, BuildImage, Captured, Progress};
use domain::{Error, ErrorKind};

use crate::proxy::{Proxy, Rule};
use crate::world::{World, agent};

/// Steps that need no shell: the base has none. The second stage is the one that is asked for.
fn dockerfile(base: &str) -> String {
    format!(
        "FROM {base} AS first\nCOPY prog /prog\nENV STAGE=first\n\
         FROM first AS wanted\nARG WORD\nENV SAID=$WORD\nCOPY --from=first /prog /copied\nRUN [\"/prog\", \"once\"]\n\
         FROM wanted\nRUN [\"/no-such-program\"]\n"
    )
}

fn context(world: &World, dockerfile: &str) -> std::path::PathBuf {
    let path = world.path("context.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(dockerfile.len() as u64);
    tar.append_data(&mut header, "docker/dev.Dockerfile", dockerfile.as_bytes()).unwrap();
    tar.append_path_with_name(agent(), "prog").unwrap();
    tar.finish().unwrap();
    path
}

async fn build(
    backend: &DockerBackend,
    world: &World,
    dockerfile: &str,
    target: &str,
) -> (Result<Captured, Error>, String) {
    let heard = Arc::new(Mutex::new(String::new()));
    let into = heard.clone();
    let progress: Progress = Arc::new(move |line| {
        let mut heard = into.lock().unwrap();
        heard.push_str(line);
        heard.push('\n');
    });
    let order = BuildImage {
        name: "made".into(),
        context: context(world, dockerfile),
        dockerfile: "docker/dev.Dockerfile".into(),
        target: Some(target.into()),
        args: BTreeMap::from([("WORD".into(), "a $b \"c\"".into())]),
    };
    let built = backend.build(&order, &progress).await;
    let heard = heard.lock().unwrap().clone();
    (built, heard)
}

/// An engine without BuildKit, for all that a client sees of it: the real one, which is not asked for BuildKit.
fn front(world: &World) -> (Proxy, DockerBackend) {
    let socket = world.path("classic");
    let proxy = Proxy::new(&socket, world.socket(), |line| match line.contains("version=2") {
        true => Rule::Answer(400, "buildkit not supported by daemon"),
        false => Rule::Pass,
    });
    let backend = world.another(|c| c.host = Some(format!("unix://{}", socket.display())));
    (proxy, backend)
}

// F23: what either builder leaves behind its image goes with it; `World::end` looks.
#[tokio::test]
async fn both_builders_make_the_same_image() {
    let world = World::new().await;
    let base = world.base().await;
    let image = world.raw.inspect_image(base.as_str()).await.unwrap();
    let base = image.repo_tags.unwrap().remove(0);
    let (_proxy, classic) = front(&world);
    let mut made = Vec::new();
    for (backend, says) in [(&world.backend, false), (&classic, true)] {
        let (built, heard) = build(backend, &world, &dockerfile(&base), "wanted").await;
        let built = built.unwrap_or_else(|e| panic!("{}\n{heard}", e.chain()));
        assert_eq!(heard.contains("its classic builder is used"), says, "{heard}");
        assert!(heard.contains("RUN") && heard.contains("said once"), "steps and what they print: {heard}");
        let image = world.raw.inspect_image(built.digest.as_str()).await.unwrap();
        let env = image.config.unwrap().env.unwrap();
        assert!(
            env.contains(&"SAID=a $b \"c\"".to_owned()) && env.contains(&"STAGE=first".to_owned()),
            "{env:?}"
        );
        assert_eq!(built.size, u64::try_from(image.size.unwrap()).unwrap());
        let captures = world.backend.list_captures().await.unwrap();
        assert!(captures.iter().any(|c| c.digest == built.digest && c.name == "made"), "{captures:?}");
        let id = world.started(&built.digest).await;
        assert!(world.file(id, "/copied").await.is_some() && world.file(id, "/ran").await.is_some());
        world.backend.stop(id).await.unwrap();
        world.backend.remove_capture(&built.digest).await.unwrap();
        made.push(built.digest);
    }
    assert_ne!(made[0], made[1]);
    world.end().await;
}

#[tokio::test]
async fn the_classic_builder_says_what_failed_and_leaves_nothing() {
    let world = World::new().await;
    let base = world.base().await;
    let image = world.raw.inspect_image(base.as_str()).await.unwrap();
    let base = image.repo_tags.unwrap().remove(0);
    let (_proxy, classic) = front(&world);
    let broken = format!("FROM {base} AS wanted\nCOPY prog /prog\nRUN [\"/prog\", \"fail\"]\n");
    let (built, heard) = build(&classic, &world, &broken, "wanted").await;
    let error = built.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error:?}");
    assert!(error.chain().contains("returned a non-zero code: 3"), "{}", error.chain());
    assert!(heard.contains("said fail"), "{heard}");
    // A refusal that is not of the builder is not tried again with the other.
    let (built, heard) = build(&classic, &world, "FROM\n", "wanted").await;
    assert_eq!(built.unwrap_err().kind(), ErrorKind::Invalid, "{heard}");
    world.end().await;
}

//! A daemon that is silent, gone or full; a registry that does not answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::ErrorKind;
use domain::ports::{Backend, CaptureKind};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use crate::proxy::{Proxy, Rule};
use crate::world::{World, spec};

// F47
#[tokio::test]
async fn a_silent_daemon_is_a_timeout_and_holds_up_nobody_else() {
    let world = World::new().await;
    let base = world.base().await;
    let socket = world.path("silent");
    let _listener = UnixListener::bind(&socket).unwrap(); // connects, and is never answered
    let silent = world.another(|c| {
        c.host = Some(format!("unix://{}", socket.display()));
        let soon = Duration::from_millis(300);
        c.deadlines = docker::Deadlines {
            query: soon,
            start: soon,
            stop: soon,
            capture: soon,
            import: soon,
            pull: soon,
            build: soon,
            read: soon,
        };
    });
    let wanted = world.wanted(&base);
    let begun = Instant::now();
    let tar = world.tiny_tar();
    let image = spec(CaptureKind::Image, "x");
    let (probe, start, stop, list, captures, capture, import, pull, has, events, other) = tokio::join!(
        silent.probe(),
        silent.start(&wanted),
        silent.stop(wanted.id),
        silent.list(),
        silent.list_captures(),
        silent.capture(wanted.id, &image),
        silent.import(tar, &image),
        silent.pull("x"),
        silent.has(&base),
        silent.events(),
        async {
            world.started(&base).await;
            begun.elapsed()
        }
    );
    let kinds = [
        probe.map(drop).unwrap_err(),
        start.map(drop).unwrap_err(),
        stop.unwrap_err(),
        list.map(drop).unwrap_err(),
        captures.map(drop).unwrap_err(),
        capture.map(drop).unwrap_err(),
        import.map(drop).unwrap_err(),
        pull.map(drop).unwrap_err(),
        has.map(drop).unwrap_err(),
        events.map(drop).unwrap_err(),
    ];
    for error in &kinds {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        assert!(error.context().contains("did not answer within"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20) && other < Duration::from_secs(20));
    world.backend.stop(wanted.id).await.unwrap(); // its boot file
    world.end().await;
}

// F47: on one and the same client.
#[tokio::test]
async fn one_hung_call_blocks_no_other() {
    let world = World::new().await;
    let base = world.base().await;
    let socket = world.path("half");
    let hung = world.wanted(&base);
    let at = format!("name=hotbed-{}", hung.id);
    let _proxy = Proxy::new(&socket, world.socket(), move |line| match line.contains(&at) {
        true => Rule::Hang,
        false => Rule::Pass,
    });
    let backend = world.another(|c| c.host = Some(format!("unix://{}", socket.display())));
    let waiting = tokio::spawn({
        let (backend, hung) = (backend.clone(), hung.clone());
        async move { backend.start(&hung).await }
    });
    for _ in 0..5 {
        let wanted = world.wanted(&base);
        tokio::time::timeout(Duration::from_secs(20), backend.start(&wanted))
            .await
            .expect("blocked")
            .unwrap();
    }
    assert!(!waiting.is_finished());
    waiting.abort();
    let _ = waiting.await;
    world.backend.stop(hung.id).await.unwrap();
    world.end().await;
}

// F46
#[tokio::test]
async fn a_daemon_that_is_gone_is_unavailable_until_it_is_back() {
    let world = World::new().await;
    let socket = world.path("gone");
    let backend = world.another(|c| c.host = Some(format!("unix://{}", socket.display())));
    let missing = backend.probe().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unavailable, "{missing:?}");
    assert!(missing.context().contains("gone"), "it names the socket: {missing}");
    drop(UnixListener::bind(&socket).unwrap()); // the file stays, nobody listens
    let refused = backend.list().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    std::fs::remove_file(&socket).unwrap();
    let proxy = Proxy::new(&socket, world.socket(), |_| Rule::Pass);
    backend.probe().await.unwrap();
    drop(proxy);
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(backend.list().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let _proxy = Proxy::new(&socket, world.socket(), |_| Rule::Pass);
    super::world::wait_for("it to answer again", || async { backend.list().await.is_ok() }).await;
    world.end().await;
}

#[tokio::test]
async fn a_daemon_of_another_version_is_asked_again() {
    let world = World::new().await;
    let socket = world.path("changed");
    let told = Arc::new(Mutex::new(0));
    let asked = Arc::new(Mutex::new(0));
    let (count, versions) = (told.clone(), asked.clone());
    let _proxy = Proxy::new(&socket, world.socket(), move |line| {
        let mut told = count.lock().unwrap();
        *versions.lock().unwrap() += u32::from(line.contains("/version"));
        match line.contains("/containers/json") && *told == 0 {
            true => {
                *told += 1;
                Rule::Answer(400, "client version 1.41 is too old. Minimum supported API version is 1.44")
            }
            false => Rule::Pass,
        }
    });
    let backend = world.another(|c| c.host = Some(format!("unix://{}", socket.display())));
    assert!(backend.list().await.is_err());
    backend.list().await.unwrap();
    backend.list().await.unwrap();
    assert_eq!(*asked.lock().unwrap(), 2, "once at first, once after the refusal, and not each time");
    world.end().await;
}

// F41
#[tokio::test]
async fn a_full_disk_is_said_to_be_one() {
    let world = World::new().await;
    let base = world.base().await;
    let socket = world.path("full");
    let _proxy = Proxy::new(&socket, world.socket(), |line| match line.contains("/containers/create") {
        true => Rule::Answer(500, "mkdir /var/x: no space left on device"),
        false => Rule::Pass,
    });
    let backend = world.another(|c| c.host = Some(format!("unix://{}", socket.display())));
    let error = backend.start(&world.wanted(&base)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    world.end().await;
}

#[tokio::test]
async fn no_free_subnet_is_said_in_words() {
    let world = World::new().await;
    let base = world.base().await;
    let socket = world.path("subnets");
    let _proxy = Proxy::new(&socket, world.socket(), |line| match line.contains("/networks/create") {
        true => Rule::Answer(
            500,
            "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        ),
        false => Rule::Pass,
    });
    let backend = world.another(|c| c.host = Some(format!("unix://{}", socket.display())));
    let mut wanted = world.wanted(&base);
    wanted.network = domain::Network::Bridge;
    let error = backend.start(&wanted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    assert!(error.context().contains("no free subnet"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn a_pull_says_which_registry_did_not_answer() {
    let world = World::new().await;
    // A port that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let reference = format!("{closed}/team/x:1");
    let error = world.backend.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.context().contains(&format!("registry {closed} did not answer")), "{error}");

    // What is here is not asked for elsewhere, by tag or by id.
    let base = world.base().await;
    world.backend.tag(&base, &reference).await.unwrap();
    assert_eq!(world.backend.pull(&reference).await.unwrap().digest, base);
    assert_eq!(world.backend.pull(base.as_str()).await.unwrap().digest, base);
    let pushed = world.backend.push(&reference).await.unwrap_err();
    assert_eq!(pushed.kind(), ErrorKind::Unavailable, "{pushed:?}");
    assert!(pushed.context().contains(&closed.to_string()), "{pushed}");

    let missing = format!("sha256:{}", "ef".repeat(32));
    assert_eq!(world.backend.pull(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.backend.pull("../x").await.unwrap_err().kind(), ErrorKind::Invalid);
    let missing = missing.parse().unwrap();
    assert_eq!(world.backend.tag(&missing, "x.example/y:1").await.unwrap_err().kind(), ErrorKind::NotFound);
    world.end().await;
}

#[tokio::test]
async fn every_call_is_told_to_the_hook() {
    let world = World::new().await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let into = calls.clone();
    let backend = world.another(|c| {
        c.on_call = Some(Arc::new(move |call, took, kind| {
            assert!(took < Duration::from_secs(60));
            into.lock().unwrap().push((call, kind));
        }));
    });
    backend.probe().await.unwrap();
    let id = domain::SandboxId::new();
    backend.pause(id).await.unwrap_err();
    backend.capture(id, &spec(CaptureKind::Image, "x")).await.unwrap_err();
    backend.stop(id).await.unwrap();
    let missing = Some(ErrorKind::NotFound);
    assert_eq!(
        *calls.lock().unwrap(),
        [("probe", None), ("pause", missing), ("capture", missing), ("stop", None)]
    );
    world.end().await;
}

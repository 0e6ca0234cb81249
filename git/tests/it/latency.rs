//! How long the parts take on this machine, printed with `--nocapture`; the bounds only catch what is absurd.

use std::time::{Duration, Instant};

use domain::ports::Mirrors;

use crate::world::*;

async fn median(name: &str, rounds: usize, mut work: impl AsyncFnMut()) -> Duration {
    work().await;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        work().await;
        times.push(began.elapsed());
    }
    times.sort();
    let p50 = times[rounds / 2];
    println!("{name}: p50 {p50:.2?}, max {:.2?}, of {rounds}", times[rounds - 1]);
    p50
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_are_quick() {
    let w = World::new().await;
    for i in 0..200 {
        let from = w.upstream.tip(&branch("main")).unwrap().unwrap();
        w.upstream.set_branch(&branch(&format!("b/{i}")), &from).unwrap();
    }
    w.mirrors.refresh(&repo()).await.unwrap();
    let tree = w.work_tree().await;
    let main = branch("main");
    let tip = median("tip", 500, async || drop(w.mirrors.tip(&repo(), &main).await.unwrap())).await;
    let refresh =
        median("refresh, nothing new", 20, async || assert!(!w.mirrors.refresh(&repo()).await.unwrap()))
            .await;
    let upstream = w.host.url(&repo());
    median("git ls-remote --heads, direct", 20, async || {
        drop(w.done(&tree, &["ls-remote", "-q", "--heads", &upstream]).await)
    })
    .await;
    median("git fetch, nothing new, direct", 20, async || {
        drop(w.done(&tree, &["fetch", "-q", &upstream, "main"]).await)
    })
    .await;
    let fetch = median("git fetch, nothing new, through the relay", 20, async || {
        drop(w.done(&tree, &["fetch", "-q", "origin", "main"]).await);
    })
    .await;
    let caller = w.caller.lock().unwrap().clone();
    median("gateway: info/refs", 30, async || {
        let request = http::Request::get("/acme/api.git/info/refs?service=git-upload-pack")
            .header("git-protocol", "version=2");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = w.gateway.handle(&caller, request).await;
        drop(http_body_util::BodyExt::collect(answer.into_body()).await.unwrap());
    })
    .await;
    median("git --version", 20, async || drop(w.done(&tree, &["--version"]).await)).await;
    assert!(
        tip < Duration::from_millis(50) && refresh < Duration::from_secs(5) && fetch < Duration::from_secs(5)
    );
}

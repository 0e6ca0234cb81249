//! What the agent costs. Times are printed (`--nocapture`) and asserted nowhere: a machine may be busy. What it holds
//! of memory is asserted.

use std::time::Instant;

use domain::wire::SyncMode;

use crate::git_server::Upstream;
use crate::harness::{World, command, poke};

fn percentile(mut all: Vec<f64>, p: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * p) as usize]
}

#[tokio::test(flavor = "multi_thread")]
async fn costs() {
    let world = World::shut().await;
    let poke = poke().display().to_string();
    let far = world.outside.join("f").display().to_string();
    let idle = world.info().await.rss_bytes;
    const N: usize = 200;
    let mut plain = Vec::new();
    for _ in 0..N {
        let started = Instant::now();
        let out = std::process::Command::new("/bin/true").output().unwrap();
        assert!(out.status.success());
        plain.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let mut results = vec![("fork+exec".to_owned(), plain)];
    for gate in [false, true] {
        world.set_gate(gate).await;
        let mut took = Vec::new();
        for _ in 0..N {
            let request = command(&["/bin/true"]);
            let started = Instant::now();
            assert_eq!(world.client.run(&request).await.code(), Some(0));
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
        results.push((format!("exec, gate {}", if gate { "open" } else { "shut" }), took));
    }
    for (name, took) in &results {
        println!(
            "{name}: p50 {:.3} ms, p99 {:.3} ms",
            percentile(took.clone(), 0.5),
            percentile(took.clone(), 0.99)
        );
    }
    for gate in [false, true] {
        world.set_gate(gate).await;
        let done = world.client.run(&command(&[&poke, "bench", &far, "5000"])).await;
        let (p50, p99) = done.stdout.trim().split_once(' ').unwrap();
        println!("open for writing elsewhere, gate {gate}: p50 {p50} ns, p99 {p99} ns");
    }
    println!("resident: idle {idle} bytes, now {} bytes", world.info().await.rss_bytes);
    // A debug build, unless `HOTBED_TEST_AGENT` names the one that goes into sandboxes: that has 6 MB.
    let limit = if std::env::var_os("HOTBED_TEST_AGENT").is_some() { 6 << 20 } else { 16 << 20 };
    assert!(idle < limit, "{idle}");
}

/// What sync costs at a claim, by how far the member was behind.
#[tokio::test(flavor = "multi_thread")]
async fn sync_costs() {
    let upstream = Upstream::new();
    let files: Vec<(String, String)> =
        (0..1000).map(|n| (format!("d{}/{n}.txt", n % 30), format!("{n}\n"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let mut tip = upstream.commit("main", &files);
    let world = crate::sync::world_of(&upstream).await;
    crate::sync::sync(&world, &crate::sync::request(SyncMode::Clone, "main", &tip)).await;
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..10 {
        let at_tip = crate::sync::request(SyncMode::Reset, "main", &tip);
        let branched = crate::sync::request(SyncMode::Reset, &format!("hotbed/s{n}"), &tip);
        tip = upstream.commit("main", &[("d0/0.txt", &format!("changed {n}"))]);
        let behind = crate::sync::request(SyncMode::Reset, "main", &tip);
        for (kind, request) in [at_tip, branched, behind].iter().enumerate() {
            world.set_gate(false).await;
            let started = Instant::now();
            crate::sync::sync(&world, request).await;
            took[kind].push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    for (name, took) in ["at the tip", "at the tip, new branch", "one commit behind"].iter().zip(took) {
        println!("sync of 1000 files, {name}: p50 {:.1} ms", percentile(took, 0.5));
    }
}

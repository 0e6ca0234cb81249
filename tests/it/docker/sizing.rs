//! A pool that follows real requests, on a real engine, by the command line and over a `kill -9`.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{until, until_within};
use super::on_docker;
use super::world::{Engine, Repo, World};

const REPO: &str = "acme/tide";

fn run(world: &World, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = world.hotbed(args).output().expect("run hotbed");
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    let (out, err) = (text(stdout), text(stderr));
    assert!(status.success(), "{args:?}: {out}{err}");
    out
}

fn json_of(world: &World, args: &[&str]) -> Value {
    serde_json::from_str(&run(world, args)).expect("JSON")
}

// F1, F15, F31, F38
#[test]
fn a_pool_follows_requests_orders_and_a_restart() {
    on_docker(async {
        let policy = json!({"target_hit_rate": 0.9999, "idle_after": "30s"});
        let repo = Repo::new(REPO, 0).with(|r| r.policy = policy);
        let world = World::start("sizing", Engine::default(), vec![repo]).await;
        let api = world.api();
        let before = api.pool(REPO).await;
        assert_eq!((before.target, before.warm), (0, 0), "nobody has come yet: {before:?}");

        // Up: requests come, and the pool expects more of them.
        for n in 0..4 {
            let session = api.session(REPO).await;
            assert!(n > 0 || session.launch == "cold", "{session:?}");
            assert_eq!(api.must(&session.id, "cat README.md").await, "hello\n");
            api.discard(&session.id).await;
        }
        let up = until("the pool follows", async || {
            let pool = api.pool(REPO).await;
            if pool.target > 0 && pool.warm == pool.target { Ok(pool) } else { Err(format!("{pool:?}")) }
        })
        .await;
        let expected = up.terms.expected.as_ref().expect("a forecast");
        assert_eq!(expected.claims, 4, "{up:?}");
        let session = api.session(REPO).await;
        assert_eq!(session.launch, "warm");
        api.discard(&session.id).await;
        let explained = run(&world, &["pool", "explain", REPO]);
        assert!(explained.contains("5 claims in the last"), "{explained}");
        assert!(explained.contains("a lead time is"), "{explained}");

        // What another policy would have done with them.
        let text = std::fs::read_to_string(world.config_file()).expect("read the configuration");
        let mut new: Value = serde_json::from_str(&text).expect("JSON");
        new["repos"][0]["pool"] = json!({"min": 0, "max": 0});
        let file = world.path().join("new.yaml");
        std::fs::write(&file, new.to_string()).expect("write a policy");
        let plot = world.path().join("plot.svg");
        let (file, svg) = (file.to_str().expect("UTF-8"), plot.to_str().expect("UTF-8"));
        let rows =
            json_of(&world, &["pool", "replay", "--policy", file, "--last", "1h", "--svg", svg, "--json"]);
        assert_eq!((&rows[0]["claims"], &rows[1]["claims"]), (&json!(5), &json!(5)), "{rows}");
        assert_eq!((&rows[1]["hits"], &rows[1]["idle_hours"]), (&json!(0), &json!(0.0)), "{rows}");
        assert!(std::fs::read_to_string(&plot).expect("a plot").starts_with("<svg "));

        // Down: nobody comes any more.
        until_within(Duration::from_secs(150), "the pool is empty", &mut async || {
            let pool = api.pool(REPO).await;
            let left = world.containers_of(REPO).len();
            if pool.terms.floor.by == "idle" && left == 0 {
                Ok(())
            } else {
                Err(format!("{pool:?}, {left} left"))
            }
        })
        .await;

        // Killed in the middle of a refill: what had begun counts, the rest is made, and no more.
        let args =
            ["pool", "set", REPO, "--min", "4", "--for", "1h", "--why", "the demo", "--by", "ada", "--json"];
        assert_eq!(json_of(&world, &args)["target"], 4);
        until("a refill begins", async || {
            let pool = api.pool(REPO).await;
            if pool.starting + pool.creating + pool.warm > 0 { Ok(()) } else { Err(format!("{pool:?}")) }
        })
        .await;
        world.kill_server();
        world.start_server().await;
        let api = world.api();
        let full = api.full(REPO).await;
        assert_eq!((full.target, full.warm), (4, 4), "{full:?}");
        let order = full.order.expect("the order");
        assert_eq!((order.by.as_str(), order.why.as_str()), ("ada", "the demo"));
        until("containers equal members", async || {
            let n = world.containers_of(REPO).len();
            if n == 4 { Ok(()) } else { Err(format!("{n} containers")) }
        })
        .await;
        run(&world, &["pool", "drain", REPO]);
        until("the pool is empty", async || {
            let n = world.containers_of(REPO).len();
            if n == 0 { Ok(()) } else { Err(format!("{n} containers")) }
        })
        .await;
        assert!(run(&world, &["pool", "resume", REPO]).contains("nobody came since"));
    });
}

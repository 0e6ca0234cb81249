//! What runs beside a user's work: services, `start`, `prepare`, and `update` after a sync.

use std::time::Duration;

use domain::ports::AgentLink;
use domain::testing::FakeCommand;
use domain::{Command, Ready, Service};
use serde_json::Value;

use crate::world::{Setup, World, sandbox};

/// A pool of one, whose members have a database.
fn database() -> Setup {
    let ready = Ready { port: Some(5432), timeout: Duration::from_secs(60), ..Ready::default() };
    let db = Service { name: "db".into(), run: "postgres".into(), ready, ..Service::default() };
    Setup::pool(1).change(move |spec| spec.image.phases.services = vec![db.clone()]).agents(|options| {
        options.ports = [5432].into();
        options.commands = vec![("postgres".into(), FakeCommand::Runs("ready\n".into()))];
    })
}

fn started(w: &World, view: &Value, line: &str) -> usize {
    w.agents.of(sandbox(view)).started().iter().filter(|l| l.contains(line)).count()
}

/// F10: a member whose agent has answered, and whose service takes no connections yet, is handed out to nobody.
#[test]
fn f10_a_member_is_warm_when_its_services_are_ready() {
    World::with(database(), async |w| {
        w.agents.newcomers(|options| options.ports.clear());
        let first = w.session().await;
        assert_eq!((first["launch"].as_str(), started(w, &first, "postgres")), (Some("warm"), 1));
        let repo = w.specs[0].name.clone();
        let booting = w
            .wait("the next member starts its service", async || {
                let member = *w.pool_members().first()?;
                // Its row is there before its agent is.
                let agent = w.agents.all().into_iter().find(|a| a.sandbox() == member)?;
                (!agent.started().is_empty()).then_some(member)
            })
            .await;
        assert_eq!(w.warm(&repo), 0, "its service is not ready");
        let cold = w.session().await;
        assert_eq!(cold["launch"], "cold");
        assert_ne!(sandbox(&cold), booting);
        // A session has its sandbox, and its reads, before its services are there; its gate opens after.
        w.until(&cold, "active").await;
        let agent = w.agents.of(sandbox(&cold));
        w.wait_for("its services are started", || started(w, &cold, "postgres") == 1).await;
        assert_eq!(w.read_session(&cold).await["sync"]["phase"], "running");
        assert!(!agent.gate_is_open());
        for id in [booting, sandbox(&cold)] {
            w.agents.of(id).set(|options| options.ports = [5432].into());
        }
        w.agents.newcomers(|options| options.ports = [5432].into());
        assert_eq!(w.synced(&cold).await, "synced");
        assert!(agent.gate_is_open());
        w.wait_for("the member is warm", || w.warm(&repo) == 1).await;
        assert_eq!(w.session().await["launch"], "warm");
    });
}

/// F18, F17: a restart of Hotbed and a lost connection start no service twice; a sandbox that exited gets its own
/// again.
#[test]
fn f18_services_are_started_once_in_each_incarnation() {
    World::with(database(), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.pools_full().await;
        let member = *w.pool_members().first().expect("a member");
        w.restart().await;
        w.pools_full().await;
        w.agents.redial_all();
        w.pools_full().await;
        assert_eq!(w.pool_members().into_iter().collect::<Vec<_>>(), [member]);
        assert_eq!(w.agents.of(member).started(), ["postgres"]);
        assert_eq!(started(w, &view, "postgres"), 1);
        w.backend.exit(sandbox(&view));
        w.reconcile().await;
        w.wait_for("its service runs again", || started(w, &view, "postgres") == 1).await;
    });
}

/// A member whose service ends is replaced; a session is told.
#[test]
fn the_end_of_a_service_does_not_go_unnoticed() {
    World::with(database(), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.pools_full().await;
        let member = *w.pool_members().first().expect("a member");
        w.agents.of(member).end_commands(1);
        w.wait_for("another member", || !w.pool_members().contains(&member)).await;
        w.pools_full().await;
        w.agents.of(sandbox(&view)).end_commands(137);
        w.wait("the session is told", async || {
            w.events(&view).await.contains(&"service_ended".to_owned()).then_some(())
        })
        .await;
        assert_eq!(w.read_session(&view).await["state"], "active");
    });
}

/// F13, F14: members that don't come up are not made one after the other.
#[test]
fn a_pool_whose_services_fail_backs_off() {
    World::with(database(), async |w| {
        w.expect_log("a member did not come up");
        w.allow_log("a member could not be started");
        let broken = FakeCommand::Ends("disk is read-only\n".into(), 1);
        w.agents.newcomers(|options| options.commands = vec![("postgres".into(), broken)]);
        let before = w.backend.calls("start");
        let view = w.session().await;
        w.wait_for("a member failed", || w.logged("a member did not come up")).await;
        w.wait_for("its place is free", || w.pool_members().is_empty()).await;
        for _ in 0..20 {
            w.app().fleet.pool_poke.notify_one();
            tokio::task::yield_now().await;
        }
        assert!(w.backend.calls("start") - before <= 2, "{} starts", w.backend.calls("start") - before);
        let plan = w.app().pools.plan().to_string();
        assert!(w.logged("disk is read-only"), "{plan}");
        w.agents.newcomers(|options| {
            options.commands = vec![("postgres".into(), FakeCommand::Runs(String::new()))];
        });
        w.end(&view).await;
    });
}

/// `prepare` runs once, after the sync and before the gate opens, whatever happens in between.
#[test]
fn a_session_is_prepared_once_before_its_gate_opens() {
    let setup =
        Setup::pool(1).change(|spec| spec.image.phases.prepare = vec!["make env".into()]).agents(|options| {
            options.commands = vec![("make env".into(), FakeCommand::Runs("writing\n".into()))]
        });
    World::with(setup, async |w| {
        let view = w.session().await;
        let agent = w.agents.of(sandbox(&view));
        w.wait_for("it is being prepared", || started(w, &view, "make env") == 1).await;
        assert_eq!(w.read_session(&view).await["sync"]["phase"], "running");
        assert!(!agent.gate_is_open());
        // F18: the same command is found again.
        w.restart().await;
        w.agents.redial(sandbox(&view));
        w.agents.of(sandbox(&view)).end_commands(0);
        assert_eq!(w.synced(&view).await, "synced");
        assert!(w.agents.of(sandbox(&view)).gate_is_open());
        w.restart().await;
        w.until(&view, "active").await;
        assert_eq!(started(w, &view, "make env"), 1);
        let events = w.events(&view).await;
        assert_eq!(events.iter().filter(|e| *e == "prepared").count(), 1, "{events:?}");
        let of = |kind: &str| events.iter().position(|e| e == kind);
        assert!(of("prepared") < of("synced"), "{events:?}");
        assert_eq!(w.read_session(&view).await["trouble"], Value::Null);
    });
}

/// What fails is said in the session; its gate opens all the same.
#[test]
fn a_session_that_could_not_be_prepared_says_so() {
    let fails = FakeCommand::Ends("no rule to make target\n".into(), 2);
    let setup = Setup::pool(1)
        .change(|spec| spec.image.phases.prepare = vec!["make env".into()])
        .agents(|options| options.commands = vec![("make env".into(), fails)]);
    World::with(setup, async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        assert!(w.agents.of(sandbox(&view)).gate_is_open());
        let trouble = w.read_session(&view).await["trouble"].to_string();
        assert!(
            trouble.contains("`make env` exited with 2; it printed: no rule to make target"),
            "{trouble}"
        );
        w.restart().await;
        w.until(&view, "active").await;
        assert_eq!(started(w, &view, "make env"), 1, "once is once");
    });
}

/// `update` runs in a session whose sync touched its inputs, and in no other.
#[test]
fn a_sync_that_touches_a_lockfile_updates_the_session() {
    let diff = FakeCommand::Ends("file\0package-lock.json\0".into(), 0);
    let setup = Setup::pool(1)
        .change(|spec| {
            let npm = Command { inputs: vec!["package-lock.json".into()], ..Command::new("npm ci") };
            spec.image.phases.update = vec![npm, "make update".into()];
        })
        .agents(|options| options.commands = vec![("git diff".into(), diff)]);
    World::with(setup, async |w| {
        let same = w.session().await;
        assert_eq!(w.synced(&same).await, "synced");
        assert!(w.agents.of(sandbox(&same)).started().is_empty(), "its tree is the image's");
        let tip = w.commit("moved").to_string();
        w.pools_full().await;
        let moved = w.session().await;
        assert_eq!(w.synced(&moved).await, "synced");
        let ran = w.agents.of(sandbox(&moved)).started();
        assert_eq!((ran.len(), ran[1].as_str()), (2, "npm ci"), "{ran:?}");
        assert!(ran[0].starts_with("git diff") && ran[0].contains(&tip), "{ran:?}");
        assert!(w.events(&moved).await.contains(&"updated".to_owned()));
        assert_eq!(w.read_session(&moved).await["trouble"], Value::Null);
    });
}

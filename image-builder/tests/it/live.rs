//! What runs in a sandbox that was started from an image, on the fake agent. The clock is paused.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::ports::AgentLink;
use domain::testing::{FakeAgent, FakeAgentOptions, FakeCommand};
use domain::{Command, ErrorKind, ImageNote, Ready, SandboxId, Service};
use image_builder::{bring_up, due_updates, prepare, read_note, service_ids, update_tree, write_note};

use crate::make::{commit, spec};
use crate::workshop::Log;

fn service(ready: Ready) -> Service {
    Service { name: "db".into(), run: "postgres -D /data".into(), ready, ..Service::default() }
}

fn note(services: Vec<Service>) -> ImageNote {
    let mut spec = spec();
    spec.image.phases.start = vec!["service cron start".into()];
    spec.image.phases.services = services;
    ImageNote::new(&spec, &commit(7))
}

fn agent(commands: &[(&str, FakeCommand)], ports: &[u16]) -> FakeAgent {
    let commands = commands.iter().map(|(part, does)| ((*part).to_owned(), does.clone())).collect();
    let options = FakeAgentOptions { commands, ports: ports.iter().copied().collect(), ..Default::default() };
    FakeAgent::new(SandboxId::from_u128(5), options)
}

fn runs(text: &str) -> FakeCommand {
    FakeCommand::Runs(text.into())
}

// F10
#[tokio::test(start_paused = true)]
async fn a_service_is_ready_when_all_of_it_holds() {
    let ready = Ready {
        command: Some("pg_isready".into()),
        port: Some(5432),
        log: Some("ready to accept".into()),
        timeout: Duration::from_secs(20),
    };
    let note = note(vec![service(ready)]);
    let says = "starting\nsystem is ready to accept connections\n";
    let whole = agent(&[("postgres", runs(says))], &[5432]);
    bring_up(&whole, &note, &Log::default()).await.expect("ready");
    assert_eq!(whole.started(), ["service cron start", "postgres -D /data", "pg_isready"]);
    let cases = [
        (
            agent(&[("postgres", runs("starting\n"))], &[5432]),
            "no line of its output holds `ready to accept`",
        ),
        (agent(&[("postgres", runs(says))], &[]), "nothing takes connections on port 5432"),
        (
            agent(&[("postgres", runs(says)), ("pg_isready", FakeCommand::Ends("no".into(), 2))], &[5432]),
            "`pg_isready` exited with 2",
        ),
    ];
    for (agent, missing) in cases {
        let begun = tokio::time::Instant::now();
        let error = bring_up(&agent, &note, &Log::default()).await.expect_err("not ready");
        assert_eq!(error.kind(), ErrorKind::Permanent);
        let text = error.to_string();
        assert!(text.contains("service `db` was not ready within 20 s") && text.contains(missing), "{text}");
        assert!(text.contains("it printed: starting"), "{text}");
        assert!((20..22).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_is_not_ready() {
    let note = note(vec![service(Ready::default())]);
    let gone = agent(&[("postgres", FakeCommand::Ends("no such directory\n".into(), 1))], &[]);
    let error = bring_up(&gone, &note, &Log::default()).await.expect_err("it ended").to_string();
    assert!(error.contains("service `db` exited with 1; it printed: no such directory"), "{error}");
    let done = agent(&[("postgres", FakeCommand::Ends(String::new(), 0))], &[]);
    let error = bring_up(&done, &note, &Log::default()).await.expect_err("it ended").to_string();
    assert!(error.contains("ended by itself"), "{error}");
    let cron = agent(&[("cron", FakeCommand::Ends("no cron here\n".into(), 127))], &[]);
    let error = bring_up(&cron, &note, &Log::default()).await.expect_err("a start command").to_string();
    assert!(
        error.contains("start: `service cron start` exited with 127; it printed: no cron here"),
        "{error}"
    );
    assert_eq!(cron.started().len(), 1, "nothing comes after it");
}

/// F18: brought up again after a lost connection, nothing is started twice.
#[tokio::test(start_paused = true)]
async fn a_second_time_nothing_is_started() {
    let note = note(vec![service(Ready { port: Some(5432), ..Ready::default() })]);
    let agent = agent(&[("postgres", runs(""))], &[5432]);
    bring_up(&agent, &note, &Log::default()).await.expect("ready");
    let again = agent.redial();
    bring_up(&again, &note, &Log::default()).await.expect("ready again");
    assert_eq!(again.started(), ["service cron start", "postgres -D /data"]);
    let [(id, name)] = &service_ids(agent.sandbox(), &note)[..] else { panic!("one service") };
    assert_eq!(name, "db");
    assert!(again.exec_status(*id).await.expect("it is known").running);
}

#[tokio::test]
async fn a_note_is_read_as_it_was_written() {
    let agent = agent(&[], &[]);
    agent.set_gate(true).await.expect("gate");
    assert_eq!(read_note(&agent).await.expect("no note"), None);
    let note = note(vec![service(Ready::default())]);
    write_note(&agent, &note).await.expect("written");
    assert_eq!(read_note(&agent).await.expect("a note"), Some(note.clone()));
    for text in [&b"{"[..], b"{}", b"[1]"] {
        agent.write_file(domain::IMAGE_NOTE, text.to_vec().into(), None, 0).await.expect("written");
        assert_eq!(read_note(&agent).await.expect_err("no note").kind(), ErrorKind::Permanent);
    }
    let newer = ImageNote { format: ImageNote::FORMAT + 1, ..note };
    write_note(&agent, &newer).await.expect("written");
    assert!(read_note(&agent).await.expect_err("newer").to_string().contains("a newer Hotbed"));
}

fn lockfiles() -> ImageNote {
    let mut spec = spec();
    let with = |run: &str, inputs: &[&str]| Command {
        inputs: inputs.iter().map(|i| (*i).to_owned()).collect(),
        ..Command::new(run)
    };
    let secret = Command { secrets: ["TOKEN".into()].into(), ..with("private", &["**"]) };
    spec.image.phases.update = vec![
        with("npm ci", &["package-lock.json"]),
        with("pip install", &["requirements*.txt", "api/**"]),
        Command::new("builds only"),
        secret,
    ];
    ImageNote::new(&spec, &commit(7))
}

#[tokio::test]
async fn what_a_sync_touched_is_updated_and_noted() {
    let mut note = lockfiles();
    assert_eq!(note.phases.update.len(), 2, "what has no inputs, or a secret, is for builds");
    let diff = |paths: &str| FakeCommand::Ends(paths.into(), 0);
    let changed = agent(&[("git diff", diff("README.md\0api/go.sum\0"))], &[]);
    changed.set_gate(true).await.expect("gate");
    let done = update_tree(&changed, &mut note, &commit(8), &Log::default()).await.expect("updated");
    assert_eq!(done.iter().map(|c| c.run.as_str()).collect::<Vec<_>>(), ["pip install"]);
    assert_eq!(note.commit, commit(8));
    assert_eq!(read_note(&changed).await.expect("a note").expect("written").commit, commit(8));
    // At the same commit nothing is asked; at another that touches nothing, only git is.
    assert!(due_updates(&changed, &note, &commit(8)).await.expect("none").is_empty());
    assert_eq!(changed.started().len(), 2);
    let other = agent(&[("git diff", diff("README.md\0"))], &[]);
    assert!(due_updates(&other, &note, &commit(9)).await.expect("none").is_empty());
    // Where git can't tell, everything is due.
    let unknown = agent(&[("git diff", FakeCommand::Ends("fatal: bad object\n".into(), 128))], &[]);
    assert_eq!(due_updates(&unknown, &note, &commit(9)).await.expect("all").len(), 2);
}

#[tokio::test]
async fn an_update_that_fails_is_due_again() {
    let mut note = lockfiles();
    let diff = FakeCommand::Ends("package-lock.json\0".into(), 0);
    let fails = FakeCommand::Ends("npm ERR! network\n".into(), 1);
    let agent = agent(&[("git diff", diff), ("npm ci", fails)], &[]);
    let error = update_tree(&agent, &mut note, &commit(8), &Log::default()).await.expect_err("it failed");
    assert!(
        error.to_string().contains("update: `npm ci` exited with 1; it printed: npm ERR! network"),
        "{error}"
    );
    assert_eq!(note.commit, commit(7));
    agent.set_gate(true).await.expect("gate");
    agent.set(|options| options.commands.truncate(1));
    update_tree(&agent, &mut note, &commit(8), &Log::default()).await.expect("it is mended");
    assert_eq!(agent.started().iter().filter(|c| *c == "npm ci").count(), 2);
    assert_eq!(note.commit, commit(8));
}

#[tokio::test]
async fn a_session_is_prepared_once_with_its_environment() {
    let mut spec = spec();
    spec.image.phases.prepare = vec!["make env".into(), "make seed".into()];
    let note = ImageNote::new(&spec, &commit(7));
    let agent = agent(&[], &[]);
    for _ in 0..2 {
        prepare(&agent, &note, "ses_1", &BTreeMap::new(), &Log::default()).await.expect("prepared");
    }
    assert_eq!(agent.started(), ["make env", "make seed"]);
}

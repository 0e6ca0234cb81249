//! The executor: the order of the steps, and what is left behind when any of them fails or hangs. The clock is
//! paused and jumps to the next deadline whenever nothing else can happen.

use std::sync::Arc;
use std::time::Duration;

use domain::wire::PROTOCOL;
use domain::{BuildId, ErrorKind, ImageId, ImageState, Phase};
use image_builder::{
    BuildFailure, BuildJob, BuildOutcome, BuildSecret, Built, Limits, fingerprint, image_env, run_build,
};
use tokio::time::Instant;

use crate::make::{at, commit, digest, image, spec};
use crate::workshop::{Act, Fault, Handle, Log, Shop};

const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

fn job() -> BuildJob {
    BuildJob {
        build: BuildId::from_u128(1),
        image: ImageId::from_u128(77),
        spec: spec(),
        current: None,
        failures: 0,
        ca_certificates: vec![PEM.to_vec()],
        secrets: Vec::new(),
        agent_protocol: PROTOCOL,
        now: at(100),
        limits: Limits::default(),
    }
}

/// A job whose current image has everything but the tip.
fn incremental() -> BuildJob {
    let mut job = job();
    let mut current = image(3, 5, ImageState::Current);
    current.fingerprint =
        fingerprint(&job.spec, &digest(1000), &job.ca_certificates, &[], job.agent_protocol);
    job.current = Some(current);
    job
}

struct Ran {
    shop: Arc<Shop>,
    log: String,
    result: Result<BuildOutcome, Box<BuildFailure>>,
    took: Duration,
}

async fn run(job: &BuildJob, shop: Shop) -> Ran {
    let (handle, log, began) = (Handle(Arc::new(shop)), Log::default(), Instant::now());
    let result = run_build(job, &handle, &log).await;
    Ran { shop: handle.0, log: log.text(), result, took: began.elapsed() }
}

impl Ran {
    fn built(self) -> Built {
        match self.result {
            Ok(BuildOutcome::Built(built)) => built,
            other => panic!("not built: {other:?}\n{}", self.log),
        }
    }

    fn failure(&self) -> &BuildFailure {
        self.result.as_ref().expect_err("it was to fail")
    }

    fn leaves_nothing(&self) -> bool {
        self.shop.live.lock().unwrap().is_empty() && self.shop.captures.lock().unwrap().is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_build_goes_through_its_steps() {
    let job = job();
    let ran = run(&job, Shop::default()).await;
    let expected = [
        "resolve main",
        "recipe",
        "base",
        "boot build 3e8",
        "run mkdir -p /usr/local/share/ca-certificates in /",
        "write /usr/local/share/ca-certificates/hotbed-0.crt 59",
        "run set -e in /",
        "sync Clone main main",
        "run make deps in /workspace",
        "run make build in /workspace",
        "run make migrate in /workspace",
        "run make test in /workspace",
        "write /etc/hotbed/image.json 302",
        "quiesce stop=true",
        "capture",
        "release",
        "boot check cafe",
        "info",
        "run make smoke in /workspace",
        "release",
    ];
    assert_eq!(ran.shop.events(), expected);
    assert!(ran.shop.live.lock().unwrap().is_empty());
    assert_eq!(*ran.shop.env.lock().unwrap(), image_env(&job.spec));
    for line in [
        "== setup\n",
        "$ make deps\nok\ndone in 1.5 s\n",
        "pulling\n",
        "a full build: there is no image\n",
        "== check\n",
    ] {
        assert!(ran.log.contains(line), "no {line:?} in:\n{}", ran.log);
    }
    let phases: Vec<_> = ran.shop.reports.lock().unwrap().iter().map(|r| (r.phase, r.exit_code)).collect();
    use Phase as P;
    let code = Some(0);
    assert_eq!(
        phases,
        [
            (P::Resolve, None),
            (P::Recipe, None),
            (P::Base, None),
            (P::Boot, None),
            (P::Trust, code),
            (P::Clone, None),
            (P::Setup, code),
            (P::Update, code),
            (P::Warm, code),
            (P::Capture, None),
            (P::Check, code),
        ]
    );
    let reports = ran.shop.reports.lock().unwrap().clone();
    let built = ran.built();
    assert_eq!(built.phases, reports);
    assert_eq!((built.commit, built.captured.digest, built.parent), (commit(7), digest(0xcafe), None));
    assert_eq!((built.agent_version.as_str(), built.base_digest), ("9.9", digest(1000)));
    assert_eq!(built.fingerprint, fingerprint(&job.spec, &digest(1000), &job.ca_certificates, &[], PROTOCOL));
}

#[tokio::test(start_paused = true)]
async fn an_incremental_build_stands_on_the_current_image() {
    let job = incremental();
    let ran = run(&job, Shop::default()).await;
    let events = ran.shop.events();
    assert_eq!(
        events[3..8],
        [
            "boot build 3",
            "sync Reset main main",
            "run make deps in /workspace",
            "run make migrate in /workspace",
            "run make test in /workspace"
        ]
    );
    assert_eq!(ran.built().parent, job.current.map(|i| i.id));
}

#[tokio::test(start_paused = true)]
async fn what_is_unchanged_is_not_built() {
    let mut job = incremental();
    job.current.as_mut().unwrap().commit = commit(7);
    let ran = run(&job, Shop::default()).await;
    assert_eq!(ran.shop.events(), ["resolve main", "recipe", "base"]);
    assert!(
        matches!(&ran.result, Ok(BuildOutcome::Unchanged { commit: c, phases }) if *c == commit(7) && phases.len() == 3)
    );
    assert!(ran.log.contains("nothing changed"));
}

/// F23, F27, F47: whatever fails or never answers, in whatever phase, the build ends in time, says where, and leaves
/// no sandbox and no capture.
#[tokio::test(start_paused = true)]
async fn a_failure_anywhere_leaves_nothing_behind() {
    let cases = [
        ("resolve", Phase::Resolve),
        ("recipe", Phase::Recipe),
        ("base", Phase::Base),
        ("boot build", Phase::Boot),
        ("write", Phase::Trust),
        ("sync", Phase::Clone),
        ("quiesce", Phase::Capture),
        ("capture", Phase::Capture),
        ("boot check", Phase::Check),
        ("info", Phase::Check),
    ];
    for (call, phase) in cases {
        for fault in [Fault::Fail, Fault::FailAfter, Fault::Hang] {
            if fault == Fault::FailAfter && !matches!(call, "boot build" | "boot check" | "capture") {
                continue;
            }
            let ran = run(&job(), Shop { faults: [(call, fault)].into(), ..Shop::default() }).await;
            let failure = ran.failure();
            assert_eq!(failure.phase, phase, "{call} {fault:?}");
            assert_eq!(
                failure.kind == ErrorKind::Timeout,
                fault == Fault::Hang,
                "{call} {fault:?}: {failure:?}"
            );
            assert!(ran.leaves_nothing(), "{call} {fault:?}: {:?}", ran.shop.events());
            let said = if fault == Fault::Hang { "no answer within" } else { "injected" };
            assert!(failure.report().contains(said), "{}", failure.report());
            assert!(ran.log.trim_end().lines().last().unwrap().starts_with("failed: "), "{}", ran.log);
            assert_eq!(failure.phases.last().unwrap().phase, phase, "the failed phase is reported too");
            assert_eq!(failure.commit.is_some(), call != "resolve");
            assert!(ran.took <= Duration::from_secs(31 * 60), "{call}: {:?}", ran.took);
        }
    }
}

/// F23: commands of every phase; the failure has the command, its code and what it printed last.
#[tokio::test(start_paused = true)]
async fn a_failed_command_is_named_with_its_output() {
    let cases = [
        ("mkdir", Phase::Trust),
        ("update-ca-certificates", Phase::Trust),
        ("make deps", Phase::Setup),
        ("make build", Phase::Setup),
        ("make smoke", Phase::Check),
    ];
    let loud: &'static str =
        Box::leak((0..50).map(|n| format!("line {n}\n")).collect::<String>().into_boxed_str());
    for (command, phase) in cases {
        let shop = Shop { acts: vec![(command, Act::Exit(3, loud))], ..Shop::default() };
        let ran = run(&job(), shop).await;
        let failure = ran.failure();
        assert_eq!((failure.phase, failure.exit_code, failure.kind), (phase, Some(3), ErrorKind::Permanent));
        assert!(failure.command.as_ref().unwrap().contains(command));
        assert_eq!(failure.tail.len(), 20);
        assert_eq!(failure.tail[19], "line 49");
        assert!(failure.to_string().contains("exited with 3"), "{failure}");
        assert!(failure.report().ends_with("\n  line 49"), "{}", failure.report());
        assert_eq!(failure.phases.last().unwrap().exit_code, Some(3));
        assert!(ran.leaves_nothing());
    }
    let ran = run(&incremental(), Shop { acts: vec![("make deps", Act::Killed)], ..Shop::default() }).await;
    assert_eq!(ran.failure().phase, Phase::Update);
    assert!(ran.failure().to_string().contains("signal 9"), "{}", ran.failure());
    assert!(ran.leaves_nothing());
}

#[tokio::test(start_paused = true)]
async fn a_warm_step_that_fails_is_noted_and_not_fatal() {
    for act in [Act::Exit(1, "no\n"), Act::TimedOut, Act::Killed] {
        let ran = run(&job(), Shop { acts: vec![("make test", act)], ..Shop::default() }).await;
        assert!(ran.log.contains("not fatal, going on"), "{}", ran.log);
        let warnings = ran.built().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("warm: `make test`"), "{warnings:?}");
    }
    // That the sandbox is gone is fatal in any step.
    let ran = run(&job(), Shop { acts: vec![("make test", Act::Drop)], ..Shop::default() }).await;
    assert_eq!((ran.failure().phase, ran.failure().kind), (Phase::Warm, ErrorKind::Unavailable));
    assert!(ran.leaves_nothing());
}

/// F27, F36: a step that the agent ends at its limit, and one that even the agent can't end.
#[tokio::test(start_paused = true)]
async fn a_stuck_step_ends() {
    let ran = run(&job(), Shop { acts: vec![("make build", Act::TimedOut)], ..Shop::default() }).await;
    assert_eq!(ran.failure().kind, ErrorKind::Timeout);
    assert_eq!(ran.failure().what, "`make build` took longer than 10 minutes");
    assert!(ran.leaves_nothing());

    let ran = run(&job(), Shop { acts: vec![("make build", Act::Hang)], ..Shop::default() }).await;
    let failure = ran.failure();
    assert_eq!((failure.kind, failure.phase), (ErrorKind::Timeout, Phase::Setup));
    assert_eq!(failure.tail, ["begun"]);
    assert!((610..620).contains(&ran.took.as_secs()), "{:?}", ran.took);
    assert!(ran.shop.events().contains(&"signal KILL".to_owned()));
    assert!(ran.leaves_nothing());
}

/// The whole has a limit too, and it names the phase that it ended.
#[tokio::test(start_paused = true)]
async fn the_whole_build_has_a_deadline() {
    let mut job = job();
    job.limits.total = Duration::from_secs(300);
    let ran = run(&job, Shop { acts: vec![("make build", Act::Hang)], ..Shop::default() }).await;
    assert_eq!((ran.failure().phase, ran.took.as_secs()), (Phase::Setup, 300));
    assert_eq!(ran.failure().to_string(), "setup: the build took longer than 5 minutes");
    assert!(ran.leaves_nothing());
}

/// What cleans up can hang as well; the build ends all the same.
#[tokio::test(start_paused = true)]
async fn cleaning_up_has_deadlines() {
    let faults =
        [("release", Fault::Hang), ("discard", Fault::Hang), ("phase", Fault::Hang), ("info", Fault::Fail)];
    let ran = run(&job(), Shop { faults: faults.into(), ..Shop::default() }).await;
    assert_eq!(ran.failure().phase, Phase::Check);
    assert!(ran.took < Duration::from_secs(1200), "{:?}", ran.took);
    assert!(ran.shop.events().contains(&"discard".to_owned()));
}

/// F25: an image whose HEAD is another commit does not become current.
#[tokio::test(start_paused = true)]
async fn another_head_fails_the_check() {
    let ran = run(&job(), Shop { head_at_check: Some(commit(8)), ..Shop::default() }).await;
    assert_eq!(ran.failure().phase, Phase::Check);
    assert!(ran.failure().what.contains(commit(8).as_str()), "{}", ran.failure());
    assert!(ran.leaves_nothing());
    assert_eq!(ran.shop.events().last().unwrap(), "discard");
}

/// A stream that breaks is taken up where it broke, without a byte lost or doubled.
#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_resumed() {
    let ran =
        run(&job(), Shop { acts: vec![("make build", Act::Flaky("begun and\n"))], ..Shop::default() }).await;
    assert!(ran.log.contains("$ make build\nbegun and\nrest\ndone"), "{}", ran.log);
    let resumes = ran.shop.events().iter().filter(|e| *e == "resume from 10").count();
    assert_eq!(resumes, 2);
    ran.built();
}

const TOKEN: &str = "hunter2/hunter2";

/// A job with a secret that the first command of `setup` gets, and `warm`.
fn with_secret() -> BuildJob {
    let mut job = job();
    job.secrets = vec![BuildSecret::new("TOKEN", TOKEN.into(), &[1; 32]).unwrap()];
    let phases = &mut job.spec.image.phases;
    for command in [&mut phases.setup[0], &mut phases.warm[0]] {
        command.secrets.insert("TOKEN".into());
    }
    job
}

/// Who names a secret gets it; nobody else does, and it is in nothing that is kept.
#[tokio::test(start_paused = true)]
async fn a_secret_goes_to_the_commands_that_name_it() {
    let job = with_secret();
    let acts = vec![
        (
            "make deps",
            Act::Says(0, &["first hun", "ter2/hun", "ter2\nBasic aHVudGVyMi9odW50", "ZXIy\n", "hunt"]),
        ),
        ("make test", Act::Exit(1, "curl -H hunter2/hunter2\n")),
    ];
    let ran = run(&job, Shop { acts, ..Shop::default() }).await;
    let given = ran.shop.given.lock().unwrap().clone();
    let given: Vec<_> =
        given.iter().map(|(c, env)| (c.as_str(), env.get("TOKEN").map(String::as_str))).collect();
    // `update` does the same as `setup`, but without the secret: that is another deed.
    let wanted = [
        ("make deps", Some(TOKEN)),
        ("make build", None),
        ("make deps", None),
        ("make migrate", None),
        ("make test", Some(TOKEN)),
        ("make smoke", None),
    ];
    assert_eq!(given[2..], wanted);
    assert!(!ran.shop.env.lock().unwrap().contains_key("TOKEN"), "the image's own environment");
    assert!(ran.log.contains("first [secret TOKEN]\nBasic [secret TOKEN]\nhunt"), "{}", ran.log);
    assert!(ran.log.contains("curl -H [secret TOKEN]\n"), "{}", ran.log);
    assert!(!ran.log.contains("hunter2"), "{}", ran.log);
    ran.built();

    let acts = vec![("make deps", Act::Says(3, &["no hunter2/", "hunter2 here"]))];
    let ran = run(&job, Shop { acts, ..Shop::default() }).await;
    assert_eq!(ran.failure().tail, ["no [secret TOKEN] here"]);
    assert!(!ran.failure().report().contains("hunter2") && !ran.log.contains("hunter2"), "{}", ran.log);
    assert!(ran.leaves_nothing());
}

#[tokio::test(start_paused = true)]
async fn a_command_without_its_secret_does_not_run() {
    let mut job = with_secret();
    job.secrets.clear();
    let ran = run(&job, Shop::default()).await;
    assert_eq!((ran.failure().phase, ran.failure().kind), (Phase::Setup, ErrorKind::Invalid));
    assert!(ran.failure().what.contains("the secret `TOKEN`"), "{}", ran.failure());
    assert!(!ran.shop.events().iter().any(|e| e.starts_with("run make")), "{:?}", ran.shop.events());
    assert!(ran.leaves_nothing());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_certificate_is_refused() {
    let mut job = job();
    job.ca_certificates = vec![b"\x30\x82".to_vec()];
    let ran = run(&job, Shop::default()).await;
    assert_eq!((ran.failure().phase, ran.failure().kind), (Phase::Trust, ErrorKind::Invalid));
    assert!(ran.failure().what.contains("certificate 0"), "{}", ran.failure());
    assert!(ran.leaves_nothing());
}

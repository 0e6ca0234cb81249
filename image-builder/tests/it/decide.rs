//! What to build: the decision, the fingerprint, the steps.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::wire::PROTOCOL;
use domain::{Base, ImageState, RepoSpec, Service};
use image_builder::{
    BuildSecret, Decision, FullReason, MAX_CHAIN, decide, fingerprint, image_env, steps, trust_env,
};
use proptest::prelude::*;

use crate::make::{at, commit, digest, image, spec};

fn print(spec: &RepoSpec) -> String {
    fingerprint(spec, &digest(1), &[b"pem".to_vec()], &[], PROTOCOL)
}

#[test]
fn what_to_build() {
    let spec = spec();
    let current = image(1, 1, ImageState::Current);
    let max_age = spec.image.max_age.as_secs() as i64;
    let same = |now, tip, print: &str, failures| {
        decide(at(now), &spec, &commit(tip), print, Some(&current), failures)
    };
    let full = |why| Decision::Full { why };

    assert_eq!(decide(at(0), &spec, &commit(1), "f", None, 0), full(FullReason::NoImage));
    assert_eq!(same(0, 1, "f", 0), Decision::Unchanged);
    assert_eq!(same(0, 1, "g", 0), full(FullReason::FingerprintChanged));
    assert_eq!(same(max_age - 1, 1, "f", 0), Decision::Unchanged);
    assert_eq!(same(max_age, 1, "f", 0), full(FullReason::TooOld));
    assert_eq!(same(max_age, 2, "f", 0), full(FullReason::TooOld));
    assert_eq!(same(-10 * max_age, 1, "f", 0), Decision::Unchanged, "the clock went back");
    assert_eq!(same(0, 2, "f", 0), Decision::Incremental { from: current.id });
    assert_eq!(same(0, 2, "f", 1), Decision::Incremental { from: current.id });
    assert_eq!(same(0, 2, "f", 2), full(FullReason::BuildsFailed));
    assert_eq!(same(0, 1, "f", 9), Decision::Unchanged, "the branch went back to what is built");

    let deep = image(1, MAX_CHAIN - 1, ImageState::Current);
    assert_eq!(decide(at(0), &spec, &commit(2), "f", Some(&deep), 0), full(FullReason::ChainTooLong));
    let mut elsewhere = current.clone();
    elsewhere.branch = "other".parse().unwrap();
    assert_eq!(
        decide(at(0), &spec, &commit(1), "f", Some(&elsewhere), 0),
        full(FullReason::FingerprintChanged)
    );
}

/// F26: the same in every process and release; a change of this value rebuilds every image there is, and wants
/// `FORMAT` raised instead.
#[test]
fn the_fingerprint_is_stable() {
    assert_eq!(print(&spec()), "9c50d4c35436106c1048f248aa6f93ad4855c4ded5f0cb3b01bc652424c79c5a");
}

/// F30
fn with_secret(name: &str, value: &str) -> String {
    let secret = BuildSecret::new(name, value.into(), &[7; 32]).expect("a secret");
    fingerprint(&spec(), &digest(1), &[b"pem".to_vec()], &[secret], PROTOCOL)
}

type Change = (&'static str, fn(&mut RepoSpec));

const CHANGES: [Change; 31] = [
    ("name", |s| s.name = "acme/other".parse().unwrap()),
    ("url", |s| s.url.push('x')),
    ("branch", |s| s.branch = "next".parse().unwrap()),
    ("workspace", |s| s.workspace.push('x')),
    ("base", |s| s.image.base = Base::Reference("debian:trixie".into())),
    ("base kind", |s| s.image.base = Base::Packages { suite: "debian:bookworm".into(), include: vec![] }),
    ("base packages", |s| {
        s.image.base = Base::Packages { suite: "debian:bookworm".into(), include: vec!["git".into()] }
    }),
    ("schedule", |s| s.image.schedule = "0 * * * *".into()),
    ("timezone", |s| s.image.timezone = "Europe/Berlin".into()),
    ("setup", |s| s.image.phases.setup.push("true".into())),
    ("setup order", |s| s.image.phases.setup.reverse()),
    ("update", |s| s.image.phases.update.clear()),
    ("warm", |s| s.image.phases.warm[0].run.push(' ')),
    ("verify", |s| s.image.phases.verify.clear()),
    ("prepare", |s| s.image.phases.prepare.push("true".into())),
    ("start", |s| s.image.phases.start.push("true".into())),
    ("service", |s| s.image.phases.services.push(service())),
    ("service ready", |s| {
        s.image.phases.services.push(service());
        s.image.phases.services[0].ready.port = Some(5432);
    }),
    ("timeout", |s| s.image.phases.setup[0].timeout = Some(Duration::from_secs(1))),
    ("command env", |s| {
        s.image.phases.setup[0].env.insert("MODE".into(), "prod".into());
    }),
    ("command secrets", |s| {
        s.image.phases.setup[0].secrets.insert("TOKEN".into());
    }),
    ("user", |s| s.image.phases.setup[0].user = Some("app".into())),
    ("workdir", |s| s.image.phases.setup[0].workdir = Some("app".into())),
    ("inputs", |s| s.image.phases.update[0].inputs.push("app".into())),
    ("required", |s| s.image.phases.warm[0].required = true),
    ("another phase", |s| {
        let moved = s.image.phases.setup.pop().unwrap();
        s.image.phases.update.insert(0, moved);
    }),
    ("max_age", |s| s.image.max_age += Duration::from_nanos(1)),
    ("keep", |s| s.image.keep += 1),
    ("env", |s| {
        s.image.env.insert("MODE".into(), "prod".into());
    }),
    ("ca paths", |s| s.image.ca_certificates.push("/x.pem".into())),
    ("step_timeout", |s| s.image.step_timeout *= 2),
];

fn service() -> Service {
    Service { name: "db".into(), run: "postgres".into(), ..Service::default() }
}

/// F26: every field counts, and no two changes read the same.
#[test]
fn every_field_changes_the_fingerprint() {
    let mut seen = BTreeMap::from([(print(&spec()), "nothing")]);
    for (name, change) in CHANGES {
        let mut spec = spec();
        change(&mut spec);
        if let Some(other) = seen.insert(print(&spec), name) {
            panic!("{name} reads like {other}");
        }
    }
    let others = [
        ("base digest", fingerprint(&spec(), &digest(2), &[b"pem".to_vec()], &[], PROTOCOL)),
        ("certificate", fingerprint(&spec(), &digest(1), &[b"pex".to_vec()], &[], PROTOCOL)),
        ("certificates", fingerprint(&spec(), &digest(1), &[b"pe".to_vec(), b"m".to_vec()], &[], PROTOCOL)),
        ("protocol", fingerprint(&spec(), &digest(1), &[b"pem".to_vec()], &[], PROTOCOL + 1)),
        ("secret", with_secret("TOKEN", "hunter2hunter2")),
        ("secret's value", with_secret("TOKEN", "hunter3hunter3")),
        ("secret's name", with_secret("OTHER", "hunter2hunter2")),
    ];
    for (name, print) in others {
        assert!(seen.insert(print, name).is_none(), "{name}");
    }
    // What is done with an image does not make it another.
    let mut pool = spec();
    pool.pool.min = 7;
    pool.resources.memory *= 2;
    assert_eq!(print(&pool), print(&spec()));
}

proptest! {
    /// Text that moves between neighbouring fields, commands or names and values is another fingerprint.
    #[test]
    fn no_two_recipes_read_the_same(
        a in prop::collection::vec("[ab]{0,3}", 0..4), b in prop::collection::vec("[ab]{0,3}", 0..4),
        c in prop::collection::vec("[ab]{0,3}", 0..4), d in prop::collection::vec("[ab]{0,3}", 0..4),
        x in prop::collection::btree_map("[ab]{1,3}", "[ab]{0,3}", 0..3),
        y in prop::collection::btree_map("[ab]{1,3}", "[ab]{0,3}", 0..3),
    ) {
        let make = |setup: &Vec<String>, update: &Vec<String>, env: &BTreeMap<String, String>| {
            let mut spec = spec();
            spec.image.phases.setup = setup.iter().map(|c| c.as_str().into()).collect();
            spec.image.phases.update = update.iter().map(|c| c.as_str().into()).collect();
            spec.image.env = env.clone();
            spec
        };
        let (one, two) = (make(&a, &b, &x), make(&c, &d, &y));
        prop_assert_eq!(one == two, print(&one) == print(&two));
    }
}

#[test]
fn the_steps_of_a_full_build() {
    let text: Vec<_> =
        steps(&spec(), &Decision::Full { why: FullReason::NoImage }).iter().map(|s| s.to_string()).collect();
    assert_eq!(
        text,
        [
            "resolve: resolve the branch",
            "recipe: read the repository's own recipe",
            "base: make or pull the base",
            "boot: start a sandbox from the base",
            "trust: put the certificates into the trust store",
            "clone: clone",
            "setup: run `make deps`",
            "setup: run `make build`",
            "update: run `make migrate`",
            "warm: run `make test`, not fatal",
            "capture: note in the image what runs in its sandboxes",
            "capture: end what runs and flush",
            "capture: capture",
            "capture: release the sandbox",
            "check: start a sandbox from the capture",
            "check: compare HEAD",
            "check: run `make smoke`",
            "check: release the sandbox",
        ]
    );
}

/// F10: an image whose services don't come up does not become current.
#[test]
fn services_are_ready_before_the_image_is_verified() {
    let mut spec = spec();
    spec.image.phases.services.push(service());
    spec.image.phases.warm[0].required = true;
    spec.image.phases.warm[0].user = Some("app".into());
    let text: Vec<_> =
        steps(&spec, &Decision::Full { why: FullReason::NoImage }).iter().map(|s| s.to_string()).collect();
    let check = text.iter().position(|s| s == "check: compare HEAD").expect("a check");
    assert_eq!(
        text[check + 1..],
        [
            "check: run `start`, wait for the services",
            "check: run `make smoke`",
            "check: release the sandbox"
        ]
    );
    assert!(text.contains(&"warm: run `make test` as app".to_owned()), "{text:?}");
}

#[test]
fn the_steps_of_an_incremental_build_and_of_none() {
    let current = image(1, 1, ImageState::Current);
    let text: Vec<_> =
        steps(&spec(), &Decision::Incremental { from: current.id }).iter().map(|s| s.to_string()).collect();
    assert_eq!(text[3], format!("boot: start a sandbox from {}", current.id));
    assert_eq!(
        text[4..8],
        [
            "clone: sync the tree",
            "update: run `make deps`",
            "update: run `make migrate`",
            "warm: run `make test`, not fatal"
        ]
    );
    assert_eq!(steps(&spec(), &Decision::Unchanged).len(), 3);
}

#[test]
fn the_environment_trusts_the_bundle_only_where_there_are_certificates() {
    let mut spec = spec();
    let env = image_env(&spec);
    assert_eq!(env["SSL_CERT_FILE"], image_builder::BUNDLE);
    assert_eq!(env["PIP_CERT"], image_builder::BUNDLE);
    assert_eq!(env["UV_NATIVE_TLS"], "true");
    assert_eq!(env["MODE"], "dev");
    assert_eq!(env.len(), trust_env().len() + 1);
    // The recipe has the last word.
    spec.image.env.insert("PIP_CERT".into(), "/mine".into());
    assert_eq!(image_env(&spec)["PIP_CERT"], "/mine");
    spec.image.ca_certificates.clear();
    assert_eq!(image_env(&spec).len(), 2);
}

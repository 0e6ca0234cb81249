//! The table of who may know whom, held against what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Room, and the rooms it may depend on (dev-dependencies aside).
const EDGES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("agent", &["domain"]),
    ("config", &["domain"]),
    ("docker", &["domain"]),
    ("git", &["domain"]),
    ("github", &["domain"]),
    ("registry", &["domain"]),
    ("image-builder", &["domain"]),
    ("pool", &["domain"]),
    ("snapshots", &["domain"]),
    ("store", &["domain"]),
    (
        "orchestrator",
        &[
            "config",
            "docker",
            "domain",
            "git",
            "github",
            "image-builder",
            "pool",
            "registry",
            "snapshots",
            "store",
        ],
    ),
    ("fuzz", &["config", "domain", "git", "github", "image-builder"]),
    // The stand-in for GitHub; its tests know everything.
    ("tests", &["domain", "git"]),
];

/// A library of the outside world, and the one room that may name it.
const OWNED: &[(&str, &str)] = &[
    ("bollard", "docker"),
    ("rusqlite", "store"),
    ("rusqlite_migration", "store"),
    ("git2", "git"),
    ("octocrab", "github"),
    ("oci-client", "registry"),
    ("axum", "orchestrator"),
    ("granit-parser", "config"),
    ("serde-saphyr", "config"),
];

fn packages() -> BTreeMap<String, Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let all: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let name = |p: &Value| p["name"].as_str().expect("name").to_owned();
    all["packages"].as_array().expect("packages").iter().map(|p| (name(p), p.clone())).collect()
}

struct Dependency {
    name: String,
    /// `normal`, `dev` or `build`.
    kind: String,
    features: Vec<String>,
}

fn dependencies(package: &Value) -> Vec<Dependency> {
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    package["dependencies"]
        .as_array()
        .expect("dependencies")
        .iter()
        .map(|d| Dependency {
            name: text(&d["name"]),
            kind: d["kind"].as_str().unwrap_or("normal").to_owned(),
            features: d["features"].as_array().expect("features").iter().map(text).collect(),
        })
        .collect()
}

#[test]
fn every_room_knows_only_whom_it_may() {
    let packages = packages();
    let known: BTreeSet<_> = EDGES.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(packages.keys().cloned().collect::<BTreeSet<_>>(), known, "rooms, and rooms in the table");
    for (room, allowed) in EDGES {
        for d in dependencies(&packages[*room]) {
            if d.kind != "dev" && known.contains(&d.name) {
                assert!(allowed.contains(&d.name.as_str()), "{room} may not depend on {}", d.name);
            }
        }
    }
}

#[test]
fn each_library_of_the_outside_world_has_one_room() {
    for (room, package) in packages() {
        for d in dependencies(&package) {
            if let Some((_, owner)) = OWNED.iter().find(|(library, _)| *library == d.name)
                && d.kind != "dev"
            {
                assert_eq!(room, *owner, "{} is {owner}'s to name", d.name);
            }
        }
    }
}

/// Test doubles are in no shipped binary.
#[test]
fn testing_features_are_for_tests() {
    for (room, package) in packages() {
        for d in dependencies(&package) {
            if d.features.iter().any(|f| f == "testing") {
                assert_eq!(d.kind, "dev", "{room} enables `testing` of {} outside its tests", d.name);
            }
        }
        let features = package["features"].as_object().expect("features");
        for (name, enables) in features {
            let on = enables
                .as_array()
                .expect("list")
                .iter()
                .any(|e| e.as_str().is_some_and(|e| e.ends_with("/testing")));
            assert!(!on || name == "testing", "feature {name} of {room} enables a testing feature");
            assert!(
                name != "default" || !enables.to_string().contains("testing"),
                "{room} has testing on by default"
            );
        }
    }
}

//! The clients in `clients/`: generated from the description that the server gives, checked by their languages' own
//! tools, packed as they would be published, and led through a session on a live server on a bad day.

mod proxy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;

use domain::testing::FakeCommand;
use serde_json::Value;
use tokio::process::Command;

use crate::contract::{printed, python};
use crate::world::{Setup, World};

fn clients() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../clients")
}

fn typescript() -> PathBuf {
    clients().join("typescript")
}

/// A program of those that `scripts/ensure-node-parts` installs.
fn node(program: &str) -> Command {
    let path = typescript().join("node_modules/.bin").join(program);
    assert!(path.exists(), "{} is not there; `make setup` installs it", path.display());
    let mut command = Command::new(path);
    command.current_dir(typescript()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The files below a directory, by their paths in it.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                // What Python and its tools keep beside what they read is no part of it.
                if !path.ends_with("__pycache__") && !path.ends_with(".ruff_cache") {
                    todo.push(path);
                }
            } else {
                let name = path.strip_prefix(dir).expect("below").to_owned();
                found.insert(name, std::fs::read(&path).expect("read"));
            }
        }
    }
    found
}

/// Holds what is kept against what is made now; with `UPDATE` in the environment what is made is kept.
fn keep(made: &Path, kept: &Path) {
    if std::env::var_os("UPDATE").is_some() {
        let _ = std::fs::remove_dir_all(kept);
        for (name, bytes) in files(made) {
            let to = kept.join(name);
            std::fs::create_dir_all(to.parent().expect("a directory")).expect("make a directory");
            std::fs::write(to, bytes).expect("write");
        }
    }
    let (made, there) = (files(made), files(kept));
    assert!(
        made.len() == there.len(),
        "{}: {} files, not {}; {AGAIN}",
        kept.display(),
        there.len(),
        made.len()
    );
    for (name, bytes) in made {
        assert!(there.get(&name) == Some(&bytes), "{}: {} is old; {AGAIN}", kept.display(), name.display());
    }
}

const AGAIN: &str = "`UPDATE=1 cargo test -p tests --test it clients::generated` makes it anew";

fn description(dir: &Path) -> PathBuf {
    let file = dir.join("openapi.json");
    let text = orchestrator::api::openapi().to_pretty_json().expect("OpenAPI");
    std::fs::write(&file, text).expect("write the description");
    file
}

#[tokio::test]
async fn generated_typescript_is_that_of_the_description() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let made = dir.path().join("generated");
    let mut generator = node("openapi-typescript");
    generator.arg(description(dir.path())).arg("--output").arg(made.join("schema.ts"));
    printed(generator).await;
    keep(&made, &typescript().join("src/generated"));
}

#[tokio::test]
async fn generated_python_is_that_of_the_description() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let made = dir.path().join("rest");
    let mut generator = python("openapi-python-client");
    generator.arg("generate").arg("--path").arg(description(dir.path()));
    generator.arg("--config").arg(clients().join("python/generator.yaml"));
    generator.args(["--meta", "none", "--fail-on-warning", "--output-path"]).arg(&made);
    printed(generator).await;
    keep(&made, &clients().join("python/hotbed_client/rest"));
}

/// Both are of the version of what they talk to.
#[test]
fn clients_have_the_servers_version() {
    let version = env!("CARGO_PKG_VERSION");
    let package = std::fs::read_to_string(typescript().join("package.json")).expect("package.json");
    let package: Value = serde_json::from_str(&package).expect("JSON");
    assert_eq!(package["version"], version);
    let project = std::fs::read_to_string(clients().join("python/pyproject.toml")).expect("pyproject.toml");
    assert!(project.contains(&format!("\nversion = \"{version}\"\n")), "pyproject.toml is not of {version}");
}

#[tokio::test]
async fn python_passes_mypy() {
    let mut mypy = python("mypy");
    mypy.current_dir(clients().join("python")).args(["--cache-dir", "../../target/python/mypy"]);
    printed(mypy).await;
}

/// The POSTs that take an `Idempotency-Key`, and some that don't, as `METHOD path want`.
fn posts() -> String {
    let doc = serde_json::to_value(orchestrator::api::openapi()).expect("OpenAPI");
    let mut all = serde_json::Map::new();
    for (path, methods) in doc["paths"].as_object().expect("paths") {
        let Some(post) = methods.get("post") else { continue };
        let parameters = post["parameters"].as_array().cloned().unwrap_or_default();
        let takes_key = parameters.iter().any(|p| p["name"] == "Idempotency-Key");
        all.insert(path.replace(['{', '}'], ""), takes_key.into());
    }
    assert!(all.values().filter(|takes| **takes == Value::Bool(true)).count() >= 6, "{all:?}");
    Value::Object(all).to_string()
}

/// Leads a client through its story, with trouble on the way, and holds what it tells against what has happened.
fn story(command: impl AsyncFnOnce(&Path) -> Command) {
    let output: String = (0..200).map(|n| format!("line {n} of what the tests print\n")).collect();
    let setup =
        Setup::pool(2).agents(|o| o.commands = vec![("make story".into(), FakeCommand::Ends(output, 3))]);
    World::with(setup, async |w| {
        let hotbed = w.client().address.parse().expect("address");
        let (address, troubles) = proxy::start(hotbed).await;
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut command = command(dir.path()).await;
        command
            .env("HOTBED_ADDRESS", format!("http://{address}"))
            .env("HOTBED_KEY", &w.app().api_key)
            .env("HOTBED_POSTS", posts());
        let said = printed(command).await;
        let told = said.lines().find_map(|l| l.strip_prefix("told: ")).unwrap_or_else(|| panic!("{said}"));
        let told: Value = serde_json::from_str(told).expect("JSON");

        let session = told["session"].as_str().expect("a session");
        let view = w.get(&format!("/v1/sessions/{session}")).await.expect(200).json();
        assert_eq!(view["state"], "ended", "{view}");
        assert_eq!(view["launch"], "warmup", "{view}");
        // What the client has followed is the log as it is, each event once.
        let log = w.get(&format!("/v1/sessions/{session}/events?tail=true")).await.expect(200).text();
        let kinds: Vec<_> =
            log.lines().filter_map(|l| l.strip_prefix("event:")).map(|l| Value::from(l.trim())).collect();
        assert_eq!(told["events"].as_array(), Some(&kinds));
        // And so is what has happened in the installation.
        let ring = w.get("/v1/events?tail=true").await.expect(200).text();
        let seqs: Vec<_> =
            ring.lines().filter_map(|l| l.strip_prefix("id:")?.trim().parse::<u64>().ok()).collect();
        let told_seqs: Vec<_> =
            told["happenings"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        assert!(told_seqs.len() > 6 && seqs.starts_with(&told_seqs), "{told_seqs:?} of {seqs:?}");
        // The answer that was lost: asked again, the command has run once.
        let execs = kinds.iter().filter(|k| **k == "exec").count();
        assert_eq!(told["execs"], execs, "{kinds:?}");
        assert!(troubles.lost_answers.load(Ordering::Relaxed) > execs, "{troubles:?}");
        // Busy: asked again, one snapshot; the other is that of the end.
        let snapshots = w.get(&format!("/v1/snapshots?session={session}")).await.expect(200).json();
        assert_eq!(snapshots["items"].as_array().map(Vec::len), Some(2), "{snapshots}");
        assert_eq!(troubles.busy.load(Ordering::Relaxed), 2);
        assert!(troubles.broken_streams.load(Ordering::Relaxed) > 4, "{troubles:?}");
    });
}

/// The story from `clients/typescript/test`, type-checked, against what would be published.
#[test]
fn typescript_on_a_bad_day() {
    story(async |dir| {
        let mut build = node("tsc");
        build.args(["--project", "tsconfig.test.json"]);
        printed(build).await;
        let mut pack = Command::new("npm");
        pack.current_dir(typescript()).args(["pack", "--json", "--pack-destination"]).arg(dir);
        let packed = printed(pack).await;
        for file in ["dist/index.js", "dist/index.d.ts", "dist/generated/schema.d.ts", "README.md"] {
            assert!(packed.contains(&format!("\"{file}\"")), "{file} is not packed: {packed}");
        }
        assert!(!packed.contains("node_modules") && !packed.contains("test/"), "{packed}");
        let mut story = Command::new("node");
        story.current_dir(typescript()).arg("build/test/story.js").stdin(Stdio::null()).kill_on_drop(true);
        story
    });
}

/// The story from `clients/python/tests`, with the wheel that would be published, made of what is published beside it.
#[test]
fn python_on_a_bad_day() {
    story(async |dir| {
        let mut build = python("python");
        build.args(["-m", "build", "--no-isolation", "--outdir"]).arg(dir);
        build.arg(clients().join("python"));
        printed(build).await;
        let version = env!("CARGO_PKG_VERSION");
        let installed = dir.join("installed");
        let mut install = python("pip");
        install.args(["install", "--quiet", "--no-deps", "--no-index", "--target"]).arg(&installed);
        install.arg(dir.join(format!("hotbed_client-{version}-py3-none-any.whl")));
        printed(install).await;
        let mut story = python("python");
        story.current_dir(dir).env("PYTHONPATH", installed).arg(clients().join("python/tests/story.py"));
        story
    });
}

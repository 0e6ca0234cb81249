//! The API against its own description, as others read it: an independent validator, and schemathesis, which asks
//! whatever the description allows and much that it forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{Setup, World, id};

/// The longest that one of the programs may take.
const PATIENCE: Duration = Duration::from_secs(300);

fn tests_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A program of those that `scripts/ensure-python-parts` installs.
pub fn python(program: &str) -> Command {
    let programs = tests_dir().join("../target/python/bin");
    let path = programs.join(program);
    assert!(path.exists(), "{} is not there; `make setup` installs it", path.display());
    let mut command = Command::new(path);
    // Some call others of them.
    let all = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).kill_on_drop(true).env("PATH", all).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// What a program that must end well has printed.
#[track_caller]
pub fn printed(mut command: Command) -> impl Future<Output = String> {
    let at = std::panic::Location::caller();
    async move {
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{at}: {command:?}: not done within {PATIENCE:?}"));
        let output = output.unwrap_or_else(|e| panic!("{at}: {command:?}: {e}"));
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{at}: {command:?}: {}\n{}\n{}", output.status, said[0], said[1]);
        said.concat()
    }
}

/// What a live server says of itself, in a file.
async fn described(w: &World, dir: &Path) -> PathBuf {
    let served = w.get("/v1/openapi.json").await.expect(200);
    assert_eq!(served.text(), orchestrator::api::openapi().to_json().expect("OpenAPI"));
    let file = dir.join("openapi.json");
    std::fs::write(&file, &served.body).expect("write the description");
    file
}

fn operations() -> Vec<(String, Value)> {
    let doc = serde_json::to_value(orchestrator::api::openapi()).expect("OpenAPI");
    let mut all = Vec::new();
    for (path, methods) in doc["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            all.push((format!("{} {path}", method.to_uppercase()), operation.clone()));
        }
    }
    all
}

#[test]
fn the_description_is_openapi() {
    World::with(Setup::pool(0), async |w| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut validator = python("openapi-spec-validator");
        validator.arg("--schema").arg("3.1").arg(described(w, dir.path()).await);
        let said = printed(validator).await;
        assert!(said.contains("OK"), "{said}");
    });
}

/// What programs that are made of the description need: names of their own, words, the body of every refusal, whose key.
#[test]
fn every_route_is_described_whole() {
    let mut names = BTreeSet::new();
    for (route, operation) in operations() {
        let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{route} has no operationId"));
        assert!(names.insert(name.to_owned()), "{route}: `{name}` stands twice");
        assert!(operation["summary"].as_str().is_some_and(|s| s.len() > 8), "{route} has no summary");
        let anonymous = operation["security"] == json!([{}]);
        assert_eq!(anonymous, route.contains("/webhooks/"), "{route}: {}", operation["security"]);
        let responses = operation["responses"].as_object().expect("responses");
        assert_eq!(responses["default"], json!({"$ref": "#/components/responses/Problem"}), "{route}");
        for (status, response) in responses {
            let is_refusal = status.starts_with('4') && response.get("$ref").is_none();
            let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert!(!is_refusal || problem == "#/components/schemas/Problem", "{route} {status}: {response}");
            assert!(
                response.get("$ref").is_some() || response["description"].is_string(),
                "{route} {status}"
            );
        }
        let placeholders = route.matches('{').count();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|p| p["in"] == "path").count();
        assert_eq!(in_path, placeholders, "{route}: {parameters:?}");
    }
    assert!(names.len() > 60);
}

/// Something of every kind, so that requests get behind the door.
async fn furnish(w: &World) -> Value {
    let session = w.session().await;
    w.synced(&session).await;
    let at = format!("/v1/sessions/{}", id(&session));
    let exec = w.post(&format!("{at}/exec"), &json!({"cmd": ["true"], "wait": true})).await.expect(201);
    w.send("PUT", &format!("{at}/files/notes.md"), &[], b"notes").await.expect(204);
    let snapshot = w.post(&format!("{at}/snapshots"), &json!({})).await.expect(201);
    let warmup = w.post("/v1/warmups", &json!({"repo": "acme/api", "client": "tab"})).await.expect(202);
    let key = w.post("/v1/keys", &json!({"name": "spare", "role": "client"})).await.expect(201);
    let first = |answer: Value| answer["items"][0]["id"].clone();
    let build = first(w.get("/v1/repos/acme/api/builds").await.expect(200).json());
    let image = first(w.get("/v1/images").await.expect(200).json());
    json!({
        "owner": ["acme"], "name": ["api"],
        "ses": [id(&session)], "exe": [exec.field("id")], "snp": [snapshot.field("id")],
        "wrm": [warmup.field("id")], "key": [key.field("id")], "bld": [build], "img": [image],
    })
}

/// Nothing that anybody may send makes the server fail, and every answer is one that is described.
#[test]
fn schemathesis_finds_no_fault() {
    World::with(Setup::pool(2).github(), async |w| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = described(w, dir.path()).await;
        let there = furnish(w).await;
        let (here, seen) = (tests_dir().join("python"), dir.path().join("seen.json"));
        let mut schemathesis = python("schemathesis");
        schemathesis
            .current_dir(dir.path())
            .env("PYTHONPATH", &here)
            .env("HOTBED_THERE", there.to_string())
            .env("HOTBED_SEEN", &seen)
            .arg("--config-file")
            .arg(here.join("schemathesis.toml"))
            .arg("run")
            .arg(&file)
            .args(["--url", &format!("http://{}", w.client().address)])
            .args(["--header", &format!("Authorization: Bearer {}", w.app().api_key)])
            .args(["--phases", "examples,coverage,fuzzing,stateful"])
            .args(["--suppress-health-check", "all", "--warnings", "off"]);
        printed(schemathesis).await;
        let seen = std::fs::read_to_string(seen).expect("what was seen");
        let seen: BTreeMap<String, Vec<u16>> = serde_json::from_str(&seen).expect("JSON");
        // It got to every route, and behind the door of most: what it can't know is a code, a signature, a token.
        assert_eq!(seen.len(), operations().len(), "{seen:?}");
        let inside = seen.values().filter(|all| all.iter().any(|status| (200..300).contains(status))).count();
        assert!(inside * 4 >= seen.len() * 3, "{inside} of {} were answered well: {seen:?}", seen.len());
    });
}

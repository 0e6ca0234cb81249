//! Schema and parser agree about structure. The schema is judged by a small validator of just the words it uses; a
//! word that is not known here fails the test.

use config::Config;
use serde_json::{Value, json};

use crate::parse;

fn valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let Some(words) = schema.as_object() else { panic!("not a schema: {schema}") };
    words.iter().all(|(word, given)| match word.as_str() {
        "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
        "$ref" => {
            let name = given.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            valid(value, &root["$defs"][name], root)
        }
        "type" => match given.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            other => panic!("unknown type {other}"),
        },
        "properties" => given
            .as_object()
            .unwrap()
            .iter()
            .all(|(key, sub)| value.get(key).is_none_or(|v| valid(v, sub, root))),
        "additionalProperties" => {
            let known = |key: &String| schema["properties"].get(key).is_some();
            value.as_object().is_none_or(|map| {
                map.iter().filter(|(k, _)| !known(k)).all(|(_, v)| match given {
                    Value::Bool(allowed) => *allowed,
                    sub => valid(v, sub, root),
                })
            })
        }
        "required" => value.as_object().is_none_or(|map| {
            given.as_array().unwrap().iter().all(|k| map.contains_key(k.as_str().unwrap()))
        }),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|v| valid(v, given, root))),
        "const" => value == given,
        "enum" => given.as_array().unwrap().contains(value),
        "oneOf" => given.as_array().unwrap().iter().filter(|s| valid(value, s, root)).count() == 1,
        "anyOf" => given.as_array().unwrap().iter().any(|s| valid(value, s, root)),
        "minimum" => value.as_f64().is_none_or(|n| n >= given.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|n| n <= given.as_f64().unwrap()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|n| n > given.as_f64().unwrap()),
        "exclusiveMaximum" => value.as_f64().is_none_or(|n| n < given.as_f64().unwrap()),
        other => panic!("the schema uses `{other}`, which this test does not know"),
    })
}

fn repo() -> Value {
    json!({ "name": "a/b", "url": "/srv/b.git", "image": { "base": "debian" } })
}

/// A document with a repo that is changed at a pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut doc = json!({ "repos": [repo()] });
    let (parents, last) = pointer.rsplit_once('/').unwrap();
    let mut at = &mut doc;
    for part in parents.split('/').skip(1) {
        at = match part.parse::<usize>() {
            Ok(i) => &mut at[i],
            Err(_) => {
                if at.get(part).is_none() {
                    at[part] = json!({});
                }
                &mut at[part]
            }
        };
    }
    at[last] = value;
    doc
}

#[test]
fn good_documents_are_good_to_both() {
    let schema = Config::schema();
    let r = "/repos/0";
    for doc in [
        json!({ "repos": [] }),
        json!({ "repos": [repo()] }),
        with("/backend", json!({ "docker": {} })),
        with("/backend/docker", json!({ "host": "unix:///x", "runtime": "runc", "network": "n" })),
        with("/forge", json!("local")),
        json!({
            "forge": { "github": {
                "app_id": 1, "private_key": { "file": "/a.pem" }, "webhook_secret": { "env": "X" },
                "previous_webhook_secret": { "env": "Y" }, "api_url": "https://git.acme.example/api/v3",
                "web_url": "https://git.acme.example", "git_url": "https://git.acme.example",
            } },
            "repos": [{
                "name": "acme/api", "url": "https://git.acme.example/Acme/api", "image": { "base": "debian" },
            }],
        }),
        with("/budget", json!({ "memory": "900GiB", "cpus": 24 })),
        with("/budget", json!({ "cpus": 2.5 })),
        with("/budget", json!({ "sandboxes": 40 })),
        with("/builds", json!({ "at_once": 3 })),
        with("/retention", json!({ "build_log_age": "7d", "build_logs": 0, "removed_repos": "1h" })),
        with(&format!("{r}/image/timezone"), json!("Europe/Berlin")),
        with("/defaults", json!({ "pool": { "min": 0 }, "branch": "x" })),
        with(&format!("{r}/network"), json!("none")),
        with(&format!("{r}/network"), json!({ "use": "n" })),
        with(&format!("{r}/image/base"), json!({ "packages": { "suite": "bookworm", "include": ["git"] } })),
        with(&format!("{r}/image/env"), json!({ "A": "1" })),
        with(&format!("{r}/image/base"), json!({ "dockerfile": "docker/Dockerfile" })),
        with(
            &format!("{r}/image/base"),
            json!({ "dockerfile": { "path": "a", "context": "b", "args": { "A": "1" } } }),
        ),
        with(&format!("{r}/image/base"), json!({ "devcontainer": ".devcontainer.json" })),
        with(&format!("{r}/image/base"), json!({ "gitpod": ".gitpod.yml" })),
        with(&format!("{r}/image/repository_file"), json!({ "read": false })),
        with(
            &format!("{r}/image/repository_file"),
            json!({ "wins": "repository", "may_set": ["base", "secrets"] }),
        ),
        with(&format!("{r}/image/services"), json!([{ "name": "a", "run": "b", "required": false }])),
        with(&format!("{r}/image/secrets"), json!({ "A": { "env": "A" }, "B": { "file": "/b" } })),
        with(&format!("{r}/pool/target_hit_rate"), json!(0.99)),
        with(&format!("{r}/pool/schedule"), json!([{ "hours": "08:00-19:00", "min": 1 }])),
        with(&format!("{r}/session"), json!({ "timeout": "4h", "idle": { "end": "1h" } })),
        with(&format!("{r}/image/verify"), json!("make smoke")),
        with(
            &format!("{r}/image/setup"),
            json!(["a", { "run": "b", "timeout": "5m", "env": { "A": "1" }, "user": "x", "workdir": "/y" }]),
        ),
        with(&format!("{r}/resources"), json!({ "cpus": 0.5, "memory": "1GiB", "pids": 64 })),
    ] {
        assert!(valid(&doc, &schema, &schema), "the schema refuses {doc}");
        // JSON is YAML.
        assert!(parse(&doc.to_string()).is_ok(), "{}", parse(&doc.to_string()).unwrap_err());
    }
}

#[test]
fn bad_documents_are_bad_to_both() {
    let schema = Config::schema();
    let r = "/repos/0";
    for doc in [
        json!({}),
        json!([]),
        json!("x"),
        json!({ "repos": {} }),
        json!({ "repos": null }),
        json!({ "repos": [{ "url": "/srv/b.git", "image": { "base": "debian" } }] }),
        json!({ "repos": [{ "name": "a/b", "image": { "base": "debian" } }] }),
        with("/unknown", json!(1)),
        with("/listen", json!(7070)),
        with("/listen", json!(null)),
        with("/backend", json!("docker")),
        with("/backend", json!({})),
        with("/backend", json!({ "podman": {} })),
        with("/backend", json!({ "docker": {}, "kubernetes": { "namespace": "x" } })),
        with("/backend", json!({ "docker": null })),
        with("/backend", json!({ "kubernetes": {} })),
        with("/forge", json!("github")),
        with("/forge", json!({ "local": {} })),
        with(
            "/forge",
            json!({ "github": { "app_id": 1, "private_key": "x", "webhook_secret": { "env": "X" } } }),
        ),
        with("/forge", json!({ "github": { "app_id": 1, "private_key": { "env": "X" } } })),
        with("/budget", json!({ "memory": 48 })),
        with("/budget", json!({ "cpus": "24" })),
        with("/budget", json!({ "cpus": 0 })),
        with("/budget", json!({ "sandboxes": 0 })),
        with("/builds", json!({ "at_once": 0 })),
        with("/retention", json!({ "build_log_age": 7 })),
        with("/retention", json!({ "session_logs": -1 })),
        with("/builds", json!({ "at_once": 65 })),
        with(&format!("{r}/image/timezone"), json!(1)),
        with("/ca_certificates", json!("x.pem")),
        with("/ca_certificates", json!([1])),
        with("/defaults", json!({ "name": "a/b" })),
        with("/defaults", json!({ "pool": 1 })),
        with(&format!("{r}/image"), json!("debian")),
        with(&format!("{r}/image/base"), json!(12)),
        with(&format!("{r}/image/base"), json!({ "packages": {} })),
        with(&format!("{r}/image/base"), json!({ "packages": { "suite": "x" }, "dockerfile": "y" })),
        with(&format!("{r}/image/setup"), json!({ "run": "make" })),
        with(&format!("{r}/image/setup"), json!([{ "timeout": "5m" }])),
        with(&format!("{r}/image/setup"), json!([{ "run": "make", "when": "always" }])),
        with(&format!("{r}/image/setup"), json!([true])),
        with(&format!("{r}/image/keep"), json!(0)),
        with(&format!("{r}/image/keep"), json!(1.5)),
        with(&format!("{r}/image/env"), json!({ "A": 1 })),
        with(&format!("{r}/image/env"), json!([])),
        with(&format!("{r}/image/base"), json!({ "dockerfile": {} })),
        with(&format!("{r}/image/base"), json!({ "dockerfile": { "path": "a", "file": "b" } })),
        with(&format!("{r}/image/base"), json!({ "devcontainer": { "path": "a" } })),
        with(&format!("{r}/image/base"), json!({ "dockerfile": "a", "gitpod": "b" })),
        with(&format!("{r}/image/repository_file"), json!({ "wins": "nobody" })),
        with(&format!("{r}/image/repository_file"), json!({ "may_set": "base" })),
        with(&format!("{r}/image/repository_file"), json!(false)),
        with(&format!("{r}/image/secrets"), json!({ "A": "x" })),
        with(&format!("{r}/image/secrets"), json!({ "A": {} })),
        with(&format!("{r}/image/secrets"), json!(["A"])),
        with(&format!("{r}/image/setup"), json!([{ "run": "make", "secrets": { "A": "x" } }])),
        with(&format!("{r}/image/verify"), json!(null)),
        with(&format!("{r}/pool/min"), json!(-1)),
        with(&format!("{r}/pool/max"), json!(10001)),
        with(&format!("{r}/pool/target_hit_rate"), json!(1)),
        with(&format!("{r}/pool/schedule"), json!([{ "min": 1 }])),
        with(&format!("{r}/pool/schedule"), json!({ "min": 1 })),
        with(&format!("{r}/session/idle"), json!("10m")),
        with(&format!("{r}/session/timeout"), json!(4)),
        with(&format!("{r}/resources/pids"), json!(1)),
        with(&format!("{r}/resources/pids"), json!("64")),
        with(&format!("{r}/network"), json!("host")),
        with(&format!("{r}/network"), json!({ "none": {} })),
        with(&format!("{r}/network"), json!({ "use": "x", "egress": [] })),
        with(&format!("{r}/network"), json!([])),
    ] {
        assert!(!valid(&doc, &schema, &schema), "the schema accepts {doc}");
        assert!(parse(&doc.to_string()).is_err(), "the parser accepts {doc}");
    }
}

#[test]
fn it_says_which_schema_it_is() {
    let schema = Config::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(!schema.to_string().contains("null"), "no key takes null");
}

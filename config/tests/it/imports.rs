//! Imports: what comes of each file, word for word (`imports/`), and that no file makes anything but a recipe or
//! errors. `UPDATE=1` rewrites the golden files.

use std::collections::BTreeMap;
use std::path::Path;

use config::{import, recipe_json, recipe_yaml, repository_file};
use domain::{
    Base, Command, Dockerfile, Import, ImportKind, Phases, Ready, RecipePart, RepositoryFile, Service,
    TreePath,
};
use proptest::prelude::*;

use crate::{here, hold};

fn kind_of(name: &str) -> (ImportKind, TreePath) {
    let kind = ImportKind::ALL.into_iter().find(|k| name.starts_with(k.as_str())).unwrap();
    (kind, kind.places()[0].parse().unwrap())
}

fn shown(name: &str, bytes: &[u8]) -> String {
    let (kind, path) = kind_of(name);
    match import(kind, &path, bytes, "/workspace") {
        Ok(imported) => {
            let mut out = recipe_yaml(&imported.part, 0);
            for line in imported.unsupported {
                out += &format!("# {line}\n");
            }
            out
        }
        Err(errors) => errors.lines().join("\n") + "\n",
    }
}

#[test]
fn each_file_gives_what_is_written_down() {
    let mut seen = 0;
    for entry in std::fs::read_dir(here("tests/imports")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "txt") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        hold(&path.with_extension("txt"), &shown(name, &std::fs::read(&path).unwrap()));
        seen += 1;
    }
    assert!(seen >= 9, "{seen}");
}

/// What `hotbed recipe import` prints can be put into a configuration, and means the same there.
#[test]
fn an_import_can_be_written_down() {
    for name in ["devcontainer-full.json", "devcontainer-image.json", "cursor-full.json", "gitpod-full.yml"] {
        let bytes = std::fs::read(here(&format!("tests/imports/{name}"))).unwrap();
        let (kind, path) = kind_of(name);
        let imported = import(kind, &path, &bytes, "/workspace").unwrap().part;
        assert_eq!(written(&imported), imported, "{name}");
    }
}

/// A part of a recipe, written as a repository's own file and read again.
fn written(part: &RecipePart) -> RecipePart {
    let policy = RepositoryFile { may_set: domain::RecipeKey::ALL.into(), ..RepositoryFile::default() };
    let secrets = BTreeMap::from([("TOKEN".to_owned(), domain::SecretSource::Env("X".into()))]);
    let text = recipe_yaml(part, 0);
    repository_file(text.as_bytes(), ".hotbed.yaml", &policy, &secrets)
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn every_part_of_a_recipe_can_be_written_down() {
    let command = Command {
        run: "make \"a b\"\n: '#' ü".into(),
        timeout: Some(std::time::Duration::from_secs(5400)),
        env: [("A".into(), "*1".into())].into(),
        secrets: ["TOKEN".into()].into(),
        user: Some("app:staff".into()),
        workdir: Some("/opt/x".into()),
        inputs: Vec::new(),
        required: false,
    };
    let ready = Ready {
        command: Some("pg_isready".into()),
        port: Some(5432),
        log: Some("ready: yes".into()),
        timeout: std::time::Duration::from_secs(30),
    };
    let service = Service { ready, required: false, user: Some("pg".into()), ..service("db") };
    let part = RecipePart {
        base: Some(Base::Packages { suite: "bookworm".into(), include: vec!["git".into()] }),
        env: [("LANG".into(), "C.UTF-8".into())].into(),
        phases: Phases {
            setup: vec![command.clone(), "true".into()],
            update: vec![Command { inputs: vec!["a/*".into()], secrets: [].into(), ..command }],
            warm: vec![Command { required: true, ..Command::new("make test") }],
            verify: vec!["make check".into()],
            prepare: vec!["make env".into()],
            start: vec!["cron".into()],
            services: vec![service, self::service("web")],
        },
    };
    assert_eq!(written(&part), part);
    for base in [
        Base::Reference("debian:bookworm".into()),
        Base::Import(Import { kind: ImportKind::Cursor, path: ".cursor/environment.json".parse().unwrap() }),
        Base::Dockerfile(Dockerfile {
            path: "docker/Dockerfile".parse().unwrap(),
            context: TreePath::root(),
            target: Some("dev".into()),
            args: [("A".into(), "1".into())].into(),
        }),
    ] {
        let part = RecipePart { base: Some(base), ..RecipePart::default() };
        assert_eq!(written(&part), part);
    }
    assert_eq!(recipe_json(&RecipePart::default()), serde_json::json!({}));
}

fn service(name: &str) -> Service {
    Service { name: name.into(), run: "run it".into(), ..Service::default() }
}

/// Bytes that are no file of these kinds: a recipe or errors, and what is shown has nothing that a terminal obeys.
fn survives(name: &str, bytes: &[u8]) {
    let text = shown(name, bytes);
    assert!(!text.is_empty() || import(kind_of(name).0, &kind_of(name).1, bytes, "/workspace").is_ok());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

const NAMES: [&str; 3] = ["devcontainer", "cursor", "gitpod"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(which in 0..3usize, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survives(NAMES[which], &bytes);
    }

    #[test]
    fn any_json(which in 0..3usize, text in "[\\[\\]{}:,\"/*\\\\ \n\ta-z0-9$ud]{0,200}") {
        survives(NAMES[which], text.as_bytes());
    }

    /// Any value under any key that has a meaning.
    #[test]
    fn any_value_of_any_key(which in 0..3usize, keys in proptest::collection::vec((0..KEYS.len(), value()), 0..6)) {
        let map: serde_json::Map<_, _> = keys.into_iter().map(|(k, v)| (KEYS[k].to_owned(), v)).collect();
        survives(NAMES[which], serde_json::Value::Object(map).to_string().as_bytes());
    }

    /// A good file with some bytes changed.
    #[test]
    fn a_damaged_file(which in 0..4usize, hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let name = ["devcontainer-full.json", "devcontainer-image.json", "cursor-full.json", "gitpod-full.yml"][which];
        let mut bytes = std::fs::read(here(&format!("tests/imports/{name}"))).unwrap();
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(name, &bytes);
    }
}

const KEYS: [&str; 24] = [
    "image",
    "build",
    "dockerFile",
    "context",
    "dockerfile",
    "file",
    "containerEnv",
    "remoteEnv",
    "onCreateCommand",
    "updateContentCommand",
    "postCreateCommand",
    "postStartCommand",
    "features",
    "workspaceFolder",
    "install",
    "start",
    "terminals",
    "name",
    "command",
    "tasks",
    "before",
    "init",
    "env",
    "args",
];

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        Just("../..".into()),
        Just("${localEnv:X}".into()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((0..KEYS.len(), inner), 0..4).prop_map(|pairs| {
                let pairs = pairs.into_iter().map(|(k, v)| (KEYS[k].to_owned(), v));
                serde_json::Value::Object(pairs.collect())
            }),
        ]
    })
}

/// Work is bounded, whatever the file is.
#[test]
fn a_large_file_is_refused_soon() {
    let begun = std::time::Instant::now();
    for text in [
        "[".repeat(200_000),
        "{\"a\":".repeat(50_000),
        "/*".repeat(100_000),
        "\"\\ud83d".repeat(30_000),
        "a: 1\n".repeat(50_000),
    ] {
        for name in NAMES {
            survives(name, text.as_bytes());
        }
    }
    survives("gitpod", &vec![b'#'; 300 << 10]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).is_absolute());
}

//! What is refused, and in which words.

use std::collections::BTreeMap;

use config::Config;

use crate::{here, hold, parse};

/// Every `.yaml` in `refused/`, and what is too large to be kept as a file.
fn cases() -> BTreeMap<String, Vec<u8>> {
    let mut cases = BTreeMap::new();
    for entry in std::fs::read_dir(here("tests/refused")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            cases.insert(name, std::fs::read(&path).unwrap());
        }
    }
    cases.insert("two-mebibytes".into(), format!("repos: []\n#{}\n", "x".repeat(2 << 20)).into());
    cases.insert("deep-flow".into(), format!("repos: {}{}\n", "[".repeat(100), "]".repeat(100)).into());
    cases.insert("deep-flow-very".into(), "[".repeat(100_000).into());
    let block: String = (0..100).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    cases.insert("deep-block".into(), block.into());
    let many: String = (0..200).map(|i| format!("  key{i}: 1\n")).collect();
    cases.insert("too-many-errors".into(), format!("repos: []\nbudget:\n{many}").into());
    cases
}

// F6: `duplicate-repo` (a name identifies a repo, so none may be there twice).
#[test]
fn each_refusal_reads_as_written_down() {
    let mut expected: Vec<String> = Vec::new();
    for (name, bytes) in cases() {
        let errors = match Config::parse_bytes(&bytes, "hotbed.yaml", &here("tests")) {
            Ok(_) => panic!("{name} was accepted"),
            Err(errors) => errors,
        };
        let text = errors.to_string();
        assert!(!text.contains("hunter"), "{name} shows a secret:\n{text}");
        assert!(!errors.to_json().to_string().contains("hunter"), "{name} shows a secret");
        for problem in &errors.problems {
            assert!(!problem.message.contains('\n'), "{name}: {problem:?}");
            assert!(problem.place.is_some() || name == "two-mebibytes", "{name}: {problem:?}");
        }
        hold(&here(&format!("tests/refused/{name}.txt")), &format!("{text}\n"));
        expected.push(format!("{name}.txt"));
    }
    for entry in std::fs::read_dir(here("tests/refused")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".txt") || expected.contains(&name), "{name} belongs to no case");
    }
}

#[test]
fn json_names_the_same_things() {
    let errors = parse(
        "repos:\n  - name: a/b\n    url: /srv/b.git\n    image: { base: debian }\n    pool: { min: x }\n",
    )
    .unwrap_err();
    let json = errors.to_json();
    assert_eq!(json["file"], "hotbed.yaml");
    assert_eq!(json["more"], 0);
    let error = &json["errors"][0];
    assert_eq!(error["path"], "repos[0].pool.min");
    assert_eq!((error["line"].as_u64(), error["column"].as_u64()), (Some(5), Some(18)));
    assert_eq!(error["value"], "x");
    assert_eq!(error["expected"], "a whole number, not less than 0");
    assert_eq!(error["snippet"], "    pool: { min: x }");
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let text = |path: &std::path::Path| Config::load(path).unwrap_err().to_string();
    assert!(text(&here("tests/no-such-file.yaml")).contains("can't be read: it does not exist"));
    assert!(text(&here("tests")).contains("can't be read: it is not a file"));
    assert!(text(std::path::Path::new("/dev/zero")).contains("it is not a file"));
}

/// A configuration refused on reload must leave nothing half read: the old one is a value of its own.
#[test]
fn a_refused_file_changes_nothing() {
    let good = "repos:\n  - name: a/b\n    url: /srv/b.git\n    image: { base: debian }\n";
    let before = parse(good).unwrap();
    assert!(parse(&good.replace("debian", "De bian")).is_err());
    assert!(parse(good).unwrap().diff(&before).is_empty());
}

//! No input panics, loops or takes long; whatever it is, it is a configuration or errors that can be shown.

use std::path::Path;
use std::time::{Duration, Instant};

use config::Config;
use proptest::prelude::*;

use crate::here;

fn survives(bytes: &[u8]) {
    match Config::parse_bytes(bytes, "x.yaml", Path::new("/nonexistent")) {
        Ok(config) => drop(config.diff(&config).to_string()),
        Err(errors) => {
            assert!(!errors.problems.is_empty());
            let text = errors.to_string();
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            drop(errors.to_json());
        }
    }
}

fn full() -> Vec<u8> {
    std::fs::read(here("../examples/full.yaml")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        survives(&bytes);
    }

    #[test]
    fn any_text_of_yaml_signs(text in "[a-z0-9 :\\-\\[\\]{},&*!|>'\"#?%@`~\n\t.ä\u{0}]{0,300}") {
        survives(text.as_bytes());
    }

    /// A good file with some bytes changed reaches the later stages.
    #[test]
    fn a_damaged_file(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = full();
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes);
    }

    /// A good file with a line gone or doubled.
    #[test]
    fn a_reshuffled_file(at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), double in any::<bool>()) {
        let text = String::from_utf8(full()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        let line = lines[at.index(lines.len())];
        if !double {
            lines.remove(at.index(lines.len()));
        }
        lines.insert(to.index(lines.len()), line);
        survives(lines.join("\n").as_bytes());
    }
}

/// Work is bounded: the largest file with the most errors is refused in seconds even without optimisation.
#[test]
fn a_large_bad_file_is_refused_soon() {
    let one = "  - { name: a, url: b, pool: { min: x, max: y }, image: { base: 1 } }\n";
    let repos = one.repeat(3000);
    let keys: String = (0..40_000).map(|i| format!("k{i}: 1\n")).collect();
    let list = format!("repos: [{}]", "a,".repeat(49_000));
    for text in [format!("repos:\n{repos}"), keys, list, "a: ".repeat(300_000), "- ".repeat(300_000)] {
        let start = Instant::now();
        survives(text.as_bytes());
        assert!(start.elapsed() < Duration::from_secs(20), "{:?} for {}", start.elapsed(), &text[..40]);
    }
}

//! The pages that show how it is done, done: every `sh` block of docs/api.md and docs/tutorial.md, in order, in one
//! shell, on a real engine. Each curl must get the status that the text says behind it, and a good one where it says none.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::on_docker;
use super::world::{self, Engine, Repo, World, agent_binary};

/// The longest that one page may take.
const PATIENCE: Duration = Duration::from_secs(420);

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The `sh` blocks of a page, each line where it stands in the page, so that the shell's line numbers are the page's.
fn script(page: &str) -> String {
    let mut inside = false;
    let line = |line: &str| {
        let fence = line.starts_with("```");
        let was = inside;
        inside = if fence { line == "```sh" } else { inside };
        if was && !fence { format!("{line}\n") } else { "\n".to_owned() }
    };
    page.lines().map(line).collect()
}

/// The status that a line's comment begins with, as in `# 202, a build`.
fn expected(line: &str) -> Option<u16> {
    let (_, comment) = line.rsplit_once("# ")?;
    comment.get(..3)?.parse().ok().filter(|status| (100..600).contains(status))
}

/// Says of each curl which line it stands in and what status it got, and fails what fails.
const PRELUDE: &str = r#"
curl() {
  local at=${BASH_LINENO[0]} head status; head=$(mktemp)
  command curl -D "$head" "$@"; status=$?
  printf '%s %s\n' "$at" "$(sed -n 's/^HTTP[^ ]* \([0-9]*\).*/\1/p' "$head" | tail -n 1)" >> "$ASKED"
  rm -f "$head"; return $status
}
set -Eeuo pipefail
trap 'echo "line $LINENO failed: $BASH_COMMAND" >&2' ERR
trap 'status=$?; kill $(jobs -p) 2> /dev/null || true; wait; exit $status' EXIT
"#;

/// Runs a page; `change` puts this World's addresses and places where the page has those of an installation.
async fn run(name: &str, dir: &Path, change: impl Fn(String) -> String, path: &str) -> Output {
    let text = page(name);
    let file = dir.join("page.sh");
    std::fs::write(&file, change(script(&text))).expect("write the script");
    let (prelude, asked) = (dir.join("prelude.sh"), dir.join("asked"));
    std::fs::write(&prelude, PRELUDE).expect("write the prelude");
    let mut bash = Command::new("bash");
    for name in ["HOTBED_ADDRESS", "HOTBED_KEY", "HOTBED_CONFIG"] {
        bash.env_remove(name);
    }
    bash.current_dir(dir).stdin(Stdio::null()).kill_on_drop(true);
    bash.env("BASH_ENV", &prelude).env("ASKED", &asked).env("PATH", path).env("HOME", dir).arg(&file);
    if let Some(agent) = agent_binary() {
        bash.env("HOTBED_AGENT", agent);
    }
    let output = tokio::time::timeout(PATIENCE, bash.output()).await;
    let output = output.unwrap_or_else(|_| panic!("docs/{name}: not done within {PATIENCE:?}"));
    let output = output.expect("bash runs");
    let said =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "docs/{name}: {}\n{said}", output.status);

    let lines: Vec<_> = text.lines().collect();
    let asked = std::fs::read_to_string(asked).expect("what was asked");
    let written = script(&text).matches("curl -").count();
    assert!(asked.lines().count() >= written, "{written} curls are written, and these ran:\n{asked}");
    let asked: Vec<(usize, &str)> = asked
        .lines()
        .map(|line| line.split_once(' ').expect("a line and a status"))
        .map(|(at, status)| (at.parse().expect("a line"), status))
        .collect();
    for (n, &(at, status)) in asked.iter().enumerate() {
        // What is asked until it is so has its last answer; before that there may have been none at all.
        if lines[at - 1].starts_with("until ") && asked[n + 1..].iter().any(|(other, _)| *other == at) {
            continue;
        }
        let status: u16 =
            status.parse().unwrap_or_else(|e| panic!("docs/{name}:{at}: no status: {e}\n{said}"));
        // A command that goes on in the next line has its comment at its end.
        let end = (at - 1..lines.len()).find(|n| !lines[*n].trim_end().ends_with('\\')).expect("an end");
        let good = match expected(lines[end]) {
            Some(expected) => status == expected,
            None => (200..300).contains(&status),
        };
        assert!(good, "docs/{name}:{at}: `{}` got {status}\n{said}", lines[at - 1]);
    }
    output
}

/// A `PATH` in which `hotbed` is the one under test.
fn path_with(hotbed: &Path) -> String {
    let dir = hotbed.parent().expect("a directory");
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn the_api_guide_does_what_it_says() {
    on_docker(async {
        let repo = Repo::new("acme/api", 1).with(|r| {
            r.files = vec![("ci/test", "#!/bin/sh\nfor n in 1 2 3; do echo \"$n passed\"; done\n".into())];
        });
        let world = World::start("guide", Engine::default(), vec![repo]).await;
        world.api().ready("acme/api").await;
        let dir = tempfile::tempdir().expect("temporary directory");
        let (address, state) = (world.address().to_string(), world.state_dir().display().to_string());
        let change = |s: String| s.replace("127.0.0.1:7070", &address).replace("/var/lib/hotbed", &state);
        let done = run("api.md", dir.path(), change, &path_with(&world.path().join("hotbed"))).await;
        let said = String::from_utf8_lossy(&done.stdout);
        for part in [
            "3 passed",
            "\"phase\":\"synced\"",
            "event: ended",
            "event: session_ended",
            "What was found",
            "\"state\": \"open\"",
        ] {
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
        world.finish().expect("nothing is left behind");
    });
}

/// What a page leaves in the engine when it fails half way.
struct Left<'a>(&'a Path);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        // A page that came to its end has removed its directory with everything else.
        if self.0.join("hotbed.db").exists() {
            world::remove_instance(&Engine::default(), self.0);
        }
    }
}

#[test]
fn the_tutorial_goes_from_nothing_to_a_follow_up() {
    on_docker(async {
        let dir = tempfile::Builder::new().prefix("hbt").tempdir().expect("temporary directory");
        let state = dir.path().join("hotbed-tutorial/state");
        // What a second run would find: the base of the first.
        world::seed_bases(&state);
        let left = Left(&state);
        let (hotbed, address) = (world::hotbed_in(dir.path()), world::free_address().to_string());
        let change = |s: String| s.replace("127.0.0.1:7070", &address);
        let done = run("tutorial.md", dir.path(), change, &path_with(&hotbed)).await;
        let said = String::from_utf8_lossy(&done.stdout);
        for part in [
            "A project to learn by.",
            "Fresh.",
            "all good",
            "\"launch\": \"warm\"",
            "Ada Lovelace: Add mine",
            "half done",
        ] {
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
        assert!(!dir.path().join("hotbed-tutorial").exists());
        drop(left);
    });
}

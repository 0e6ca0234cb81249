//! The command line, as a person uses it.

use std::process::Output;

use super::world::World;
use super::{on_docker, shared};

fn run(world: &World, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = world.hotbed(args).output().expect("run hotbed");
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

#[test]
fn sessions_are_started_used_and_ended() {
    on_docker(async {
        let world = shared().await;
        world.api().ready("acme/tree").await;
        let (code, out, err) = run(world, &["session", "new", "acme/tree", "--user", "ada"]);
        assert_eq!(code, 0, "{out}{err}");
        let id = out.trim();
        assert!(id.starts_with("ses_") && !id.contains('\n'), "only the id is on stdout: {out}");

        let (code, out, err) =
            run(world, &["session", "exec", id, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((code, out.as_str(), err.as_str()), (7, "out\n", "err\n"));
        assert_eq!(run(world, &["session", "exec", id, "sh", "-c", "kill -9 $$"]).0, 137);
        let (code, out, _) = run(world, &["session", "exec", id, "cat", "README.md"]);
        assert_eq!((code, out.as_str()), (0, "hello\n"));
        let (code, out, _) = run(world, &["session", "ls"]);
        assert!(code == 0 && out.contains(id), "{out}");

        let (code, out, err) = run(world, &["session", "end", id, "--discard"]);
        assert_eq!((code, out.trim()), (0, format!("{id} ended").as_str()), "{err}");
        let (code, out, err) = run(world, &["session", "exec", id, "true"]);
        assert!(code == 1 && out.is_empty() && err.contains("ended"), "{code} {out}{err}");
        let (code, _, err) = run(world, &["session", "new", "acme/none", "--user", "ada"]);
        assert!(code == 1 && err.contains("acme/none"), "{code} {err}");
        assert_eq!(run(world, &["session", "frobnicate"]).0, 2, "a usage error");
    });
}

#[test]
fn lists_are_json_for_programs() {
    on_docker(async {
        let world = shared().await;
        world.api().image("acme/tree").await;
        let (code, out, err) = run(world, &["repo", "ls", "--json"]);
        assert_eq!(code, 0, "{err}");
        let repos: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let tree = repos.as_array().and_then(|all| all.iter().find(|r| r["name"] == "acme/tree"));
        assert!(tree.is_some_and(|r| r["image"]["commit"].as_str().is_some_and(|c| c.len() == 40)), "{out}");
        let (code, out, _) = run(world, &["pool", "explain", "acme/tree"]);
        assert!(code == 0 && out.contains("target 2"), "{out}");
    });
}

#[test]
fn a_bad_configuration_is_refused_with_its_place() {
    on_docker(async {
        let world = shared().await;
        let (code, out, err) = run(world, &["config", "check"]);
        assert!(code == 0 && out.contains("11 repos"), "{out}{err}");
        let bad = world.path().join("bad.yaml");
        std::fs::write(&bad, "listen: 127.0.0.1:0\nrepos:\n  - name: acme\n    url: nowhere\n    pool: { min: many }\n    colour: red\n").expect("write");
        let bad = bad.to_string_lossy().into_owned();
        for args in [["config", "check"], ["serve", "--json"]] {
            let (code, out, err) = run(world, &[args[0], args[1], "--config", &bad]);
            assert_eq!(code, 1, "{out}{err}");
            for part in ["bad.yaml:3", "bad.yaml:5", "bad.yaml:6", "colour"] {
                assert!(err.contains(part), "no `{part}` in: {err}");
            }
        }
        let (code, _, err) = run(world, &["config", "check", "--config", "/nonexistent/hotbed.yaml"]);
        assert!(code == 1 && err.contains("/nonexistent/hotbed.yaml"), "{err}");
    });
}

#[test]
fn the_doctor_looks_at_everything() {
    on_docker(async {
        let world = shared().await;
        let (code, out, err) = run(world, &["doctor", "--json"]);
        assert_eq!(code, 0, "{out}{err}");
        let findings: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let checks: Vec<_> =
            findings.as_array().expect("findings").iter().filter_map(|f| f["check"].as_str()).collect();
        assert_eq!(
            checks,
            ["configuration", "docker engine", "agent", "git", "mmdebstrap", "state directory", "server"]
        );
        let dead = world.path().join("dead.yaml");
        let state = world.path().join("dead");
        let text = format!(
            "listen: 127.0.0.1:1\nstate_dir: {}\nbackend: {{docker: {{host: 'unix:///nonexistent.sock'}}}}\nrepos: []\n",
            state.display()
        );
        std::fs::write(&dead, text).expect("write");
        let (code, out, _) = run(world, &["doctor", "--config", &dead.to_string_lossy()]);
        assert!(
            code == 1 && out.contains("MISS docker engine") && out.contains("/nonexistent.sock"),
            "{out}"
        );
    });
}

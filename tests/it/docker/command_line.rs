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
        let findings: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let findings = findings.as_array().expect("findings");
        let checks: Vec<_> = findings.iter().filter_map(|f| f["check"].as_str()).collect();
        let (here, there) = checks.split_at(7);
        assert_eq!(
            here,
            ["configuration", "docker engine", "agent", "git", "mmdebstrap", "state directory", "server"]
        );
        assert!(findings[..7].iter().all(|f| f["good"] == true), "{out}{err}");
        // What the server says of itself. Other tests do to it what they do, so some of it may be missing just now.
        for check in ["images", "tasks", "disks", "outbox", "pools"] {
            assert!(there.contains(&check), "{there:?}");
        }
        for missing in findings.iter().filter(|f| f["good"] == false) {
            assert!(missing["mend"].as_str().is_some_and(|m| m.len() > 20), "{missing}");
        }
        assert_eq!(code == 0, findings.iter().all(|f| f["good"] == true), "{out}{err}");
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

/// What is sent to somebody who helps: everything that he needs, and nothing that he may not have.
#[test]
fn a_support_bundle_has_no_secret() {
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        let printed = format!("ghp_{}", "a1B2".repeat(9));
        api.ready("acme/tree").await;
        let session = api.session("acme/tree").await.id;
        api.must(&session, &format!("echo {printed} >&2; echo {printed}")).await;
        let key = std::fs::read_to_string(world.state_dir().join("api.key")).expect("a key");

        let file = world.path().join("bundle.tar.gz");
        let path = file.to_string_lossy().into_owned();
        let (code, out, err) = run(world, &["support-bundle", &path, "--audit"]);
        assert_eq!(code, 0, "{out}{err}");
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().expect("the bundle"));
        assert_eq!(mode & 0o777, 0o600, "its owner's alone");
        let unpacked = world.path().join("bundle");
        std::fs::create_dir_all(&unpacked).expect("make a directory");
        let done = std::process::Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(&unpacked).status();
        assert!(done.is_ok_and(|s| s.success()), "no archive");
        let read = |name: &str| {
            let piece = unpacked.join("hotbed-support").join(name);
            std::fs::read_to_string(&piece).unwrap_or_else(|e| panic!("{name}: {e}; {out}"))
        };
        let about: serde_json::Value = serde_json::from_str(&read("about.json")).expect("JSON");
        assert_eq!(about["hotbed"], env!("CARGO_PKG_VERSION"));
        assert!(read("doctor.json").contains("docker engine"));
        assert!(read("configuration.json").contains("acme/tree"));
        assert!(read("sessions.json").contains(&session));
        assert!(read("metrics.txt").contains("hotbed_sessions"));
        assert!(read("audit.json").contains("session"));
        for entry in std::fs::read_dir(unpacked.join("hotbed-support")).expect("pieces").flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
            for secret in [key.trim(), printed.as_str()] {
                assert!(!text.contains(secret), "{} holds a secret", entry.path().display());
            }
        }
        // What is there is somebody's.
        let (code, _, err) = run(world, &["support-bundle", &path]);
        assert!(code == 1 && err.contains("bundle.tar.gz"), "{err}");
        api.discard(&session).await;
    });
}

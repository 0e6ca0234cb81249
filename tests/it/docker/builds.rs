//! Builds that can't succeed: one clear error each, and nothing of them stays.

use orchestrator::api::types::{BuildView, List};
use serde_json::json;

use super::api::until;
use super::on_docker;
use super::world::{Engine, Repo, World};

// F23, F27, F21
#[test]
fn builds_that_fail_say_why_and_leave_nothing() {
    on_docker(async {
        let repos = vec![
            Repo::new("bad/setup", 1).with(|r| {
                r.setup = vec!["echo begun", "echo on-the-way; echo famous last words >&2; exit 7"]
            }),
            Repo::new("bad/verify", 1).with(|r| r.verify = Some("echo not as it should be; false")),
            Repo::new("bad/clone", 1).with(|r| r.hosted = false),
            Repo::new("bad/base", 1).with(|r| r.base = json!("127.0.0.1:1/x")),
        ];
        let world = World::start_unbuilt("builds", Engine::default(), repos).await;
        let api = world.api();
        let expected = [
            ("bad/setup", "setup", ["famous last words", "exited with 7"]),
            ("bad/verify", "check", ["not as it should be", "exited with 1"]),
            ("bad/clone", "resolve", ["127.0.0.1:1", "bad/clone"]),
            ("bad/base", "base", ["127.0.0.1:1/x", "127.0.0.1:1"]),
        ];
        for (repo, phase, parts) in expected {
            let build = until(&format!("the end of the build of {repo}"), async || {
                let all: List<BuildView> =
                    api.client.get(&format!("/v1/repos/{repo}/builds")).await.map_err(|e| e.chain())?;
                match all.items.into_iter().last() {
                    Some(build) if build.ended_at.is_some() => Ok(build),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            let error = build.error.clone().unwrap_or_default();
            assert_eq!(
                (build.state.as_str(), build.phase.as_deref()),
                ("failed", Some(phase)),
                "{repo}: {error}"
            );
            for part in parts {
                assert!(error.contains(part), "{repo}: no `{part}` in: {error}");
            }
            assert!(api.repo(repo).await.image.is_none());
            let log = api.answer("GET", &format!("/v1/builds/{}/log", build.id), "").await.text();
            assert!(log.contains(parts[0]), "{repo}: {log}");
            // No image: no session, and it is said.
            let body = json!({"repo": repo, "user": {"login": "ada"}}).to_string();
            let refused = api.answer("POST", "/v1/sessions", &body).await;
            assert_eq!(refused.status, 503, "{}", refused.text());
            assert!(refused.header("retry-after").is_some(), "{refused:?}");
        }
        until("no container", async || {
            let left = world.containers();
            if left.is_empty() && world.run_dirs().is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        let captures = world.captures();
        assert!(captures.iter().all(|(kind, _)| kind == "base"), "{captures:?}");
        assert_eq!(captures.len(), 1, "one base for all: {captures:?}");
    });
}

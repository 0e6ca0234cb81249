//! The human's commits, the human's pull request, and no token in the sandbox: from the sign-in to the merge, on a real
//! engine, with the stand-in for GitHub upstream and no network in the sandbox.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use domain::{RepoName, SystemClock};
use orchestrator::api::types::{List, PullRequestView};
use serde_json::{Value, json};
use tests::github::{APP_ID, CLIENT_ID, Grade, Standin, WEBHOOK_SECRET};

use super::api::until;
use super::on_docker_within;
use super::world::{Repo, World, wait_within};

const REPO: &str = "acme/hub";
/// It makes its base and its image alone, beside the Worlds of others.
const PATIENT: Duration = Duration::from_secs(600);

fn forge(hub: &Standin, dir: &std::path::Path) -> Value {
    let secret = |name: &str, value: &str| {
        let path = dir.join(name);
        std::fs::write(&path, value).expect("write a secret");
        json!({"file": path})
    };
    json!({"forge": {"github": {
        "app_id": APP_ID,
        "private_key": secret("app.pem", &hub.private_key()),
        "webhook_secret": secret("webhook", WEBHOOK_SECRET),
        "api_url": hub.api_url(), "web_url": hub.web_url(),
        "users": {"client_id": CLIENT_ID, "vault_key": secret("vault", &"0a".repeat(32))},
    }}})
}

/// `hotbed login`, as a person runs it: the code is typed in at GitHub, and the command ends well.
fn login(world: &World, hub: &Standin) {
    let mut child =
        world.hotbed(&["login"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("hotbed");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("stderr")).read_line(&mut line).expect("a line");
    assert!(line.contains("/login/device"), "{line}");
    let code = line.split_whitespace().last().expect("a code");
    assert!(hub.approve(code, Some("ada")), "{line}");
    let status = wait_within(child, Duration::from_secs(60)).expect("it ends");
    assert!(status.success(), "{status}");
}

/// F42, F50, F52
#[test]
fn the_human_commits_and_opens_and_no_token_is_in_the_sandbox() {
    on_docker_within(PATIENT, async {
        let hub = Standin::start(Arc::new(SystemClock)).await.expect("the stand-in");
        let repo: RepoName = REPO.parse().expect("name");
        hub.repo(&repo);
        hub.collaborator(&repo, "ada", Grade::Write);
        hub.collaborator(&repo, "bea", Grade::Write);
        let dir = tempfile::tempdir().expect("directory");
        let url = hub.clone_url(&repo);
        let of = Repo::new(REPO, 1).with(|r| (r.hosted, r.elsewhere) = (false, Some(url)));
        let world = World::start_with("github", vec![of], forge(&hub, dir.path())).await;
        hub.webhooks_to(Some(&format!("http://{}/v1/webhooks/github", world.address())));
        let api = world.api();
        login(&world, &hub);
        api.ready(REPO).await;
        world.keep_bases();

        let user = json!({"login": "ada"});
        let session = api.try_session(&json!({"repo": REPO, "user": user})).await.expect("a session");
        let id = session.id.as_str();
        assert_eq!(session.launch, "warm");
        api.synced(id).await;
        let interfaces =
            api.must(id, "sed -n 's/^ *\\([^:]*\\):.*/\\1/p' /proc/net/dev | tr '\\n' ' '").await;
        assert_eq!(interfaces, "lo ", "no network");
        let commit = "echo mine > mine.txt && git add -A && git commit -q -m 'Add mine' && git log -1 --format='%an <%ae> %cn <%ce>'";
        let who = api.must(id, commit).await;
        let address = "+ada@users.noreply.127.0.0.1>";
        assert_eq!(who.matches(address).count(), 2, "author and committer: {who}");
        api.must(id, "git push -q origin HEAD").await;
        let refused = api.exec(id, "git push origin HEAD:main").await.stderr.unwrap_or_default();
        assert!(refused.contains("remote rejected") && refused.contains("own branch"), "{refused}");
        nothing_of(&hub.secrets(), &world, &api, id).await;

        let path = format!("/v1/sessions/{id}/pull-requests");
        for title in ["Add mine", "Add mine again"] {
            let pull: PullRequestView =
                api.client.post(&path, &json!({"title": title})).await.expect("a pull request");
            assert_eq!((pull.state.as_str(), pull.number), ("open", Some(1)), "{pull:?}");
        }
        let there = hub.pulls(&repo);
        assert_eq!(there.len(), 1, "exactly one");
        assert_eq!((&there[0]["user"]["login"], &there[0]["title"]), (&json!("ada"), &json!("Add mine")));
        let bea = hub.personal_token("bea");
        let say = async |method: &str, path: &str, body: Value| {
            crate::github::by_hand(&hub, method, &format!("/repos/{REPO}/pulls/1{path}"), &bea, body).await
        };
        assert_eq!(say("POST", "/reviews", json!({"event": "APPROVE"})).await.0, 200);
        assert_eq!(say("PUT", "/merge", json!({})).await.0, 200);
        until("the session knows of review and merge", async || {
            let all: List<PullRequestView> = api.client.get(&path).await.expect("pull requests");
            let done = all.items.iter().all(|p| p.state == "merged" && p.approvals == 1);
            if done { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
        until("the statistics know", async || {
            let stats: Value = api.client.get("/v1/stats").await.expect("statistics");
            let of = |what: &str| stats["outcomes"]["by_user"]["ada"][what].clone();
            let done = of("with_merged") == 1 && of("merged") == 1 && of("approval_rate") == 1.0;
            if done { Ok(()) } else { Err(stats.to_string()) }
        })
        .await;
        api.discard(id).await;
        crate::github::held_to_its_word(&hub);
        world.finish().expect("nothing is left behind");
    });
}

/// Searches the sandbox from inside and from outside: environment and command line of every process, what lies in
/// memory-backed mounts, every file, what the engine knows of it, and Hotbed's log beside it.
async fn nothing_of(secrets: &[String], world: &World, api: &super::api::Api, session: &str) {
    assert!(secrets.len() >= 4, "an App's token, a user's, its refresh token, a device's code");
    let processes = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'";
    let memory = "awk '$3 ~ /tmpfs|ramfs|mqueue|shm/ {print $2}' /proc/mounts | while read -r m; do \
         find \"$m\" -xdev -type f -size -1024k -exec cat {} + 2>/dev/null; done; true";
    let mut seen = Vec::new();
    for look in [processes, memory] {
        let done = api.exec(session, look).await;
        seen.push((look.to_owned(), done.stdout.unwrap_or_default().into_bytes()));
    }
    let containers: Vec<_> = world.containers_of(REPO).into_iter().collect();
    assert!(!containers.is_empty());
    for container in containers {
        seen.push(("inspect".into(), world.engine.run(&["inspect", &container.id]).into_bytes()));
        seen.push(("top".into(), world.engine.run(&["top", &container.id, "-eo", "pid,args"]).into_bytes()));
        seen.push(("files".into(), world.engine.try_run(&["export", &container.id]).stdout));
    }
    seen.push(("the server's log".into(), world.log().into_bytes()));
    assert!(
        seen.iter().all(|(what, bytes)| !bytes.is_empty() || what.contains("mounts")),
        "nothing was looked at"
    );
    for secret in secrets {
        let finder = |bytes: &[u8]| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        for (what, bytes) in &seen {
            assert!(!finder(bytes), "a token is in: {what}");
        }
    }
}

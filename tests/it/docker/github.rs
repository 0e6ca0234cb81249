//! The human's commits, the human's pull request, and no token in the sandbox: from the sign-in to the merge, on a real
//! engine, with the stand-in for GitHub upstream and no network in the sandbox.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use domain::testing::ManualClock;
use domain::{Clock, RepoName, SystemClock};
use orchestrator::api::types::{List, PullRequestView};
use orchestrator::app::{App, Engine, Options};
use serde_json::{Value, json};
use tests::github::{APP_ID, CLIENT_ID, Grade, Standin, WEBHOOK_SECRET};

use super::api::{Api, until};
use super::on_docker_within;
use super::world::{Repo, World, agent_binary, base_cache, wait_within};

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

        // From inside, with what the session has: no network, no token of the user's.
        for title in ["Add mine", "Add mine again"] {
            let said = api.must(id, &format!("hotbed-agent pr create --title '{title}'")).await;
            assert!(said.starts_with("open\thttp") && said.trim().ends_with("/pull/1"), "{said}");
        }
        let stolen = api.exec(id, "HOTBED_TOKEN=hbs_00 hotbed-agent pr list").await;
        assert!(stolen.stderr.unwrap_or_default().contains("HOTBED_TOKEN"));
        let there = hub.pulls(&repo);
        assert_eq!(there.len(), 1, "exactly one");
        let says = (&there[0]["user"]["login"], &there[0]["title"]);
        assert_eq!(says, (&json!("ada"), &json!("Add mine again")));

        // Somebody else takes over: he commits, she is named, and it is pushed and told with her authority.
        let cy = json!({"user": {"login": "cy", "name": "Cy"}});
        let view: Value =
            api.client.post(&format!("/v1/sessions/{id}/prompts"), &cy).await.expect("a prompt");
        assert_eq!((&view["committer"], &view["co_authors"]), (&json!("cy"), &json!(["ada"])));
        let commit = "echo his > his.txt && git add -A && git commit -q -m 'Add his' && git log -1 --format='%an|%cn|%(trailers)'";
        let who = api.must(id, commit).await;
        assert!(who.starts_with("Cy|Cy|Co-authored-by: ada") && who.contains(address), "{who}");
        api.must(id, "git push -q origin HEAD").await;
        until("the pull request says what is on the branch", async || {
            let there = hub.pulls(&repo);
            let body = there[0]["body"].as_str().unwrap_or_default();
            if body == "- Add mine\n- Add his" { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
        nothing_of(&hub.secrets(), &world, &api, id).await;
        let path = format!("/v1/sessions/{id}/pull-requests");
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

/// A Hotbed in this process, whose clock is the stand-in's: an hour passes when it is told to.
struct Timed {
    clock: Arc<ManualClock>,
    hub: Standin,
    app: Arc<App>,
    served: tokio::task::JoinHandle<domain::Result<()>>,
    api: Api,
    _dir: tempfile::TempDir,
}

impl Timed {
    async fn start(repo: &RepoName) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let hub = Standin::start(clock.clone()).await.expect("the stand-in");
        hub.repo(repo);
        hub.collaborator(repo, "ada", Grade::Write);
        // No longer than an installation's: an hour, by GitHub's own limit.
        hub.user_tokens_last(Duration::from_secs(3600));
        // Short: a socket's path has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("hbd").tempdir().expect("directory");
        let mut text = forge(&hub, dir.path());
        text["repos"] = json!([{
            "name": repo, "url": hub.clone_url(repo), "network": "none",
            "image": {"base": {"packages": {"suite": "bookworm", "include": ["git"]}}, "schedule": "0 0 1 1 *"},
            "pool": {"min": 0, "max": 1},
            "session": {"timeout": "4h"},
            "resources": {"cpus": 2, "memory": "512MiB", "pids": 256},
        }]);
        let file = dir.path().join("hotbed.yaml");
        std::fs::write(&file, text.to_string()).expect("write the configuration");
        let config = config::Config::load(&file).expect("a configuration");
        let engine = Engine::Docker(config.settings().docker.clone());
        let mut options = Options::new(dir.path().join("state"), config.repos().to_vec(), engine);
        options.agent = agent_binary().map(|path| std::fs::read(path).expect("the agent"));
        options.clock = clock.clone();
        options.cache_dir = Some(base_cache());
        options.schedules = false;
        options.forge = config.settings().forge.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let app = App::start(options).await.expect("a server");
        let serving = app.clone();
        let served = tokio::spawn(async move { serving.serve(listener).await });
        let api = Api::new(address, &app.api_key);
        Self { clock, hub, app, served, api, _dir: dir }
    }

    async fn sign_in(&self) {
        let begun: Value = self.api.client.post("/v1/sign-ins/device", &json!({})).await.expect("a sign-in");
        assert!(self.hub.approve(begun["user_code"].as_str().expect("a code"), Some("ada")));
        self.clock.advance(Duration::from_secs(6));
        let path = format!("/v1/sign-ins/device/{}", begun["id"].as_str().expect("an id"));
        let done: Value = self.api.client.post(&path, &json!({})).await.expect("an answer");
        assert_eq!(done["state"], "done", "{done}");
    }

    /// How often a token was refreshed.
    fn refreshes(&self) -> usize {
        let all = self.hub.exchanges();
        let refreshes = |e: &&tests::github::Exchange| {
            e.path == "/login/oauth/access_token"
                && e.request.as_ref().is_some_and(|r| r["grant_type"] == "refresh_token")
        };
        all.iter().filter(refreshes).count()
    }

    async fn end(self) {
        crate::github::held_to_its_word(&self.hub);
        self.app.tear_down(false).await.expect("nothing is left behind");
        let _ = self.served.await;
    }
}

/// A sandbox works for 74 minutes, by a clock that server and GitHub share. What it began with is dead then: the App's
/// token of the image and of its sync, and the user's. The push goes out, by refresh; and so does one whose token GitHub
/// ended before its time, minutes after it was believed. F50
#[test]
fn f50_after_74_minutes_the_sandbox_still_pushes() {
    on_docker_within(PATIENT, async {
        let repo: RepoName = "acme/long".parse().expect("name");
        let timed = Timed::start(&repo).await;
        let api = &timed.api;
        timed.sign_in().await;
        let _: Value =
            api.client.post(&format!("/v1/repos/{repo}/builds"), &json!({})).await.expect("a build");
        api.image(repo.as_str()).await;
        let order = json!({"repo": repo, "user": {"login": "ada"}});
        let session = api.try_session(&order).await.expect("a session");
        let id = session.id.as_str();
        api.synced(id).await;
        let branch = session.branch.parse().expect("a branch");
        let commit =
            "git commit -q --allow-empty -m Work && git push -q origin HEAD 2>&1 && git rev-parse HEAD";
        let upstream = || timed.hub.bare(&repo).tip(&branch).expect("tip").map(|c| c.to_string());
        let first = api.must(id, commit).await;
        assert_eq!((upstream().as_deref(), timed.refreshes()), (Some(first.trim()), 0));

        for _ in 0..74 {
            timed.clock.advance(Duration::from_secs(60));
            tokio::task::yield_now().await;
        }
        let later = api.must(id, commit).await;
        assert_eq!((upstream().as_deref(), timed.refreshes()), (Some(later.trim()), 1));

        timed.hub.expire_tokens();
        let last = api.must(id, commit).await;
        assert_eq!((upstream().as_deref(), timed.refreshes()), (Some(last.trim()), 2));
        // The App's all died with what they were made for, but the one that looks share: one more look, and it is there.
        let _: Value =
            api.client.post(&format!("/v1/repos/{repo}/builds"), &json!({})).await.expect("a look");
        until("one token of the App's is left", async || match timed.hub.live_installation_tokens() {
            1 => Ok(()),
            n => Err(format!("{n} are")),
        })
        .await;
        api.discard(id).await;
        timed.end().await;
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

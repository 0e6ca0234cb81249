//! The whole job once: image, pool, claim, gate, work, push, pull request, end, follow-up.

use std::time::Duration;

use orchestrator::api::types::{List, PullRequestView, SnapshotView};
use serde_json::{Value, json};

use super::api::Api;
use super::{on_docker, shared};

const REPO: &str = "acme/walk";

// F25, F10, F16
#[test]
fn a_session_walks_from_the_image_to_its_follow_up() {
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        // F25, at build: the image's commit is upstream's tip, and the recipe has run in it.
        let first = world.tip(REPO);
        let image = api.ready(REPO).await.image.expect("an image");
        assert_eq!(image.commit, first);

        // Upstream moves and goes silent: what follows is what a claimed sandbox can do before its sync.
        let landed = world.land(REPO, "UPSTREAM.md", "news\n").to_string();
        let upstream = world.faults(REPO);
        upstream.hang(true);
        let session = api.session(REPO).await;
        let id = session.id.as_str();
        assert_eq!((session.launch.as_str(), session.state.as_str()), ("warm", "active"));
        assert_eq!(session.image.as_deref(), Some(image.id.as_str()));
        // F25, at claim.
        assert_eq!(api.head(id).await, first);
        assert_eq!(api.must(id, "cat /opt/built README.md").await, "built\nhello\n");
        let write = api.try_exec(id, "echo mine > mine.txt && git rev-parse HEAD");
        tokio::pin!(write);
        let early = tokio::time::timeout(Duration::from_millis(800), &mut write).await;
        assert!(early.is_err(), "a write passed the gate before sync had ended: {early:?}");
        upstream.hang(false);
        // F25, after sync; the write saw it, too.
        let written = write.await.expect("the write goes through").stdout.unwrap_or_default();
        assert_eq!(written.trim(), landed);
        let sync = api.synced(id).await;
        assert_eq!((sync.head.as_deref(), sync.lag_commits), (Some(landed.as_str()), Some(1)));
        assert_eq!(api.head(id).await, landed);

        // The session's own branch takes pushes; nothing else does.
        let author = "git add mine.txt && git commit -q -m 'Add mine' && git log -1 --format='%an <%ae>'";
        assert_eq!(api.must(id, author).await.trim(), "Ada Lovelace <ada@example.invalid>");
        let before: Vec<_> = world.upstream(REPO).references().expect("references");
        for refused in
            ["HEAD:main", "HEAD:refs/heads/other", "HEAD:refs/tags/v1", ":main", "--force HEAD:main"]
        {
            let push = api.exec(id, &format!("git push origin {refused}")).await;
            assert_ne!(push.exit.expect("an exit").code, Some(0), "a push of {refused} went through");
            let why = push.stderr.unwrap_or_default();
            let stated = ["pushes only to its own branch", "pushes no tags"];
            assert!(stated.iter().any(|s| why.contains(s)), "{refused}: {why}");
        }
        assert_eq!(world.upstream(REPO).references().expect("references"), before);
        api.must(id, "git push -q origin HEAD").await;
        let pushed = world.upstream(REPO).tip(&session.branch.parse().expect("branch")).expect("read");
        assert_eq!(pushed.map(|c| c.to_string()), Some(api.head(id).await));

        let path = format!("/v1/sessions/{id}/pull-requests");
        let order = json!({"title": "Add mine"});
        let pull: PullRequestView = api.client.post(&path, &order).await.expect("a pull request");
        assert_eq!(
            (pull.state.as_str(), pull.head.as_str(), pull.base.as_str()),
            ("open", session.branch.as_str(), "main")
        );
        assert_eq!(pull.author, "ada");

        // What is not committed goes through the end, too.
        api.must(id, "echo left > left-over.txt").await;
        let ended = api.end(id).await;
        assert_eq!(ended.end.as_deref(), Some("requested"));
        let taken: List<SnapshotView> =
            api.client.get(&format!("/v1/snapshots?session={id}")).await.expect("snapshots");
        assert_eq!(taken.items.iter().map(|s| s.state.as_str()).collect::<Vec<_>>(), ["ready"]);
        let gone = api.answer("POST", &format!("/v1/sessions/{id}/exec"), r#"{"cmd":"true"}"#).await;
        assert_eq!(gone.status, 410, "{}", gone.text());

        let follow = api.try_session(&json!({"parent": id, "user": Api::user()})).await.expect("a follow-up");
        assert_eq!((follow.launch.as_str(), follow.branch.as_str()), ("restore", session.branch.as_str()));
        let seen = api
            .must(&follow.id, "cat mine.txt left-over.txt && git log -1 --format=%s && git status --short")
            .await;
        assert_eq!(seen, "mine\nleft\nAdd mine\n?? left-over.txt\n");
        api.synced(&follow.id).await;
        api.must(&follow.id, "git add -A && git commit -q -m Rest && git push -q origin HEAD").await;
        let stats: Value = api.client.get("/v1/stats").await.expect("stats");
        assert!(stats["sessions_by_launch"]["restore"].as_u64() >= Some(1), "{stats}");
        api.discard(&follow.id).await;
    });
}

/// A sandbox on the bridge has an interface and a way out; one on `none` has neither. Late starts are cold.
#[test]
fn only_a_bridge_gives_a_sandbox_a_network() {
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.image("acme/open").await;
        let open = api.session("acme/open").await;
        assert_eq!(open.launch, "cold");
        let interfaces =
            "sed -n 's/^ *\\([^:]*\\):.*/\\1/p' /proc/net/dev | sort | tr '\\n' ' '; wc -l < /proc/net/route";
        assert_eq!(api.must(&open.id, interfaces).await, "eth0 lo 3\n", "interfaces and routes");
        api.synced(&open.id).await;
        let closed = {
            api.ready("acme/walk").await;
            api.session("acme/walk").await
        };
        assert_eq!(api.must(&closed.id, interfaces).await, "lo 1\n");
        let container = world.containers_of("acme/open").into_iter().next().expect("a container");
        let networks = world.engine.run(&[
            "inspect",
            "-f",
            "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}",
            &container.id,
        ]);
        assert!(networks.starts_with("hotbed-"), "never the engine's default bridge: {networks}");
        api.discard(&open.id).await;
        api.discard(&closed.id).await;
    });
}

//! Filesystems: what a snapshot keeps, and what never leaves a session.

use orchestrator::api::types::{BuildView, SessionView, SnapshotView};
use serde_json::json;

use super::api::{Api, until};
use super::{on_docker, shared};

const REPO: &str = "acme/tree";

/// Files with and without git, modes, links, empty directories, odd names, owners, and some outside the workspace.
const GROW: &str = r#"
set -e
printf 'committed\n' > committed.txt; git add committed.txt; git commit -q -m 'A commit'
printf 'staged\n' > staged.txt; git add staged.txt
printf 'stashed\n' >> README.md; git stash -q
printf 'changed\n' >> README.md
mkdir -p deep/empty/er 'a b' .hidden
printf 'x' > 'a b/ü "quoted" $name'; printf 'line\nbreak' > "$(printf 'new\nline')"
head -c 3000000 /dev/urandom > big.bin
truncate -s 20M sparse.bin
printf '#!/bin/sh\n' > run.sh; chmod 755 run.sh
printf 's' > secret; chmod 400 secret; printf 's' > setgid; chmod 2750 setgid
ln -s README.md link; ln -s /nowhere dangling; ln README.md hard
mkfifo pipe
chown 1000:1000 'a b'; chmod 1777 .hidden
rm src/app.py
mkdir -p /opt/state /root/.cache/tool; printf 'o' > /opt/state/outside; printf 'c' > /root/.cache/tool/entry
printf 'ignored\n' > debug.log
"#;

/// One hash over names, kinds, modes, owners, link targets, contents, and what git says of them.
const HASH: &str = r#"
set -e
list() {
  find "$@" \( -type d -printf '%p %y %m %U:%G\0' -o -printf '%p %y %m %U:%G %s %n %l\0' \) | sort -z
  find "$@" -type f -print0 | sort -z | xargs -0 sha256sum -z
}
{ list . -path ./.git -prune -o ; list /opt/state /root/.cache
  git rev-parse HEAD; git status --porcelain; git stash list --format=%H; git ls-files -s; } | sha256sum
"#;

async fn hash(api: &Api, id: &str) -> String {
    let done = api.exec(id, HASH).await;
    let text = done.stdout.unwrap_or_default();
    assert_eq!(done.exit.and_then(|e| e.code), Some(0), "{text}{}", done.stderr.unwrap_or_default());
    assert_eq!(done.stderr.as_deref(), Some(""), "the hash left something out");
    text
}

// F40
#[test]
fn five_restores_in_a_row_keep_every_file() {
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let mut session = api.session(REPO).await;
        api.synced(&session.id).await;
        api.must(&session.id, GROW).await;
        let grown = hash(&api, &session.id).await;
        api.must(&session.id, "printf 'x' >> sparse.bin").await;
        assert_ne!(hash(&api, &session.id).await, grown, "the hash sees one byte");
        let grown = hash(&api, &session.id).await;
        let mut ended = Vec::new();
        for round in ["end", "snapshot", "fork", "end", "snapshot"] {
            let id = session.id.clone();
            let next: SessionView = match round {
                "end" => {
                    api.end(&id).await;
                    api.try_session(&json!({"parent": id, "user": Api::user()})).await.expect("a follow-up")
                }
                "snapshot" => {
                    let path = format!("/v1/sessions/{id}/snapshots");
                    let taken: SnapshotView = api.client.post(&path, &json!({})).await.expect("a snapshot");
                    assert_eq!(taken.state, "ready", "{taken:?}");
                    // It goes on as it was.
                    assert_eq!(hash(&api, &id).await, grown);
                    ended.push(id);
                    api.try_session(&json!({"snapshot": taken.id, "user": Api::user()}))
                        .await
                        .expect("a restore")
                }
                _ => {
                    ended.push(id.clone());
                    api.client.post(&format!("/v1/sessions/{id}/fork"), &json!({})).await.expect("a fork")
                }
            };
            assert_eq!(next.launch, "restore");
            api.synced(&next.id).await;
            assert_eq!(hash(&api, &next.id).await, grown, "after {round}");
            session = next;
        }
        ended.push(session.id);
        for id in ended {
            api.discard(&id).await;
        }
    });
}

// F28, F16
#[test]
fn a_pool_is_fed_by_the_current_image_alone() {
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let session = api.session(REPO).await;
        api.synced(&session.id).await;
        api.must(&session.id, "echo private > /opt/private; echo private > private.txt").await;
        let taken: SnapshotView = api
            .client
            .post(&format!("/v1/sessions/{}/snapshots", session.id), &json!({}))
            .await
            .expect("a snapshot");
        api.end(&session.id).await;

        // A new image: every member is of it, soon, by its digest, whatever tags there are.
        world.land(REPO, "NEW.md", "new\n");
        let build: BuildView =
            api.client.post(&format!("/v1/repos/{REPO}/builds"), &json!({})).await.expect("a build");
        let build = until("the rebuild", async || {
            let build: BuildView =
                api.client.get(&format!("/v1/builds/{}", build.id)).await.expect("a build");
            if build.ended_at.is_some() { Ok(build) } else { Err(format!("{build:?}")) }
        })
        .await;
        assert_eq!(build.state, "succeeded", "{build:?}");
        let image = api.repo(REPO).await.image.expect("an image");
        assert_eq!(Some(&image.id), build.image.as_ref());
        assert_ne!(Some(&image.digest), taken.digest.as_ref());
        until("a pool of the new image", async || {
            let held: Vec<_> = {
                let path = format!("/v1/sessions?repo={REPO}&limit=200");
                let all: orchestrator::api::types::List<SessionView> =
                    api.client.get(&path).await.expect("sessions");
                all.items.into_iter().filter_map(|s| s.sandbox).collect()
            };
            let members: Vec<_> =
                world.containers_of(REPO).into_iter().filter(|c| !held.contains(&c.sandbox)).collect();
            let of: Vec<_> = members.iter().filter_map(|c| world.image_of(&c.id)).collect();
            if of.len() == 2 && of.iter().all(|d| *d == image.digest) {
                Ok(())
            } else {
                Err(format!("{of:?} and not twice {}", image.digest))
            }
        })
        .await;
        let next = api.session(REPO).await;
        let found = api.exec(&next.id, "ls /opt/private private.txt").await;
        assert_ne!(
            found.exit.as_ref().expect("an exit").code,
            Some(0),
            "a member holds what a session wrote: {found:?}"
        );
        assert_eq!(next.image.as_deref(), Some(image.id.as_str()));
        api.discard(&next.id).await;
    });
}

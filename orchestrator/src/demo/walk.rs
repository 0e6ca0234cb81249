//! The walk itself: every step is a request of the public API, checked and timed.

use std::time::{Duration, Instant};

use domain::{Branch, Error, Identity, Result};
use futures_util::StreamExt;
use git::hosting::GitHost;
use http::Method;
use serde_json::{Value, json};

use super::project::Project;
use super::standin::{Standin, USER};
use crate::api::types::{
    BuildView, ExecView, List, PoolView, PullRequestView, RepoView, SessionView, SnapshotView, SyncView,
    WarmupView,
};
use crate::client::Client;

/// The longest any single wait of the demo may take.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Times {
    build: Duration,
    pool: Duration,
}

fn step(name: &str, detail: impl std::fmt::Display) {
    println!("{name:<8} {detail}");
}

fn ms(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 10_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}

fn expect(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::permanent(what())) }
}

/// Asks until `good` holds.
async fn until<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    what: &str,
    good: impl Fn(&T) -> bool,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let answer: T = client.get(path).await?;
        if good(&answer) {
            return Ok(answer);
        }
        expect(begun.elapsed() < PATIENCE, || format!("{what}: not within {PATIENCE:?}"))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Builds the image with its progress shown, and waits for the pool.
pub async fn prepare(client: &Client, project: &Project) -> Result<Times> {
    let begun = Instant::now();
    let name = &project.spec.name;
    let build: BuildView = client.post(&format!("/v1/repos/{name}/builds"), &json!({})).await?;
    step("build", &build.id);
    let mut lines = client.lines(&format!("/v1/builds/{}/log?follow=true", build.id)).await?;
    while let Some(line) = lines.next().await {
        println!("         | {}", line?);
    }
    let build: BuildView =
        until(client, &format!("/v1/builds/{}", build.id), "the build's end", |b: &BuildView| {
            b.ended_at.is_some()
        })
        .await?;
    expect(build.state == "succeeded", || {
        format!("the build {}: {}", build.state, build.error.clone().unwrap_or_default())
    })?;
    let built = begun.elapsed();
    for phase in &build.phases {
        step("", format!("{:<8} {:>8}", phase.phase, ms(Duration::from_secs_f64(phase.seconds))));
    }
    step("image", format!("{} after {}", build.image.as_deref().unwrap_or("-"), ms(built)));
    let begun = Instant::now();
    let pool: PoolView =
        until(client, &format!("/v1/pools/{name}"), "a full pool", |p: &PoolView| p.warm >= p.target.max(1))
            .await?;
    step("pool", format!("{} of {} warm after {}", pool.warm, pool.target, ms(begun.elapsed())));
    Ok(Times { build: built, pool: begun.elapsed() })
}

async fn exec(client: &Client, session: &str, cmd: &str) -> Result<ExecView> {
    client.post(&format!("/v1/sessions/{session}/exec"), &json!({"cmd": cmd, "wait": true})).await
}

/// Runs a command that must succeed.
async fn must(client: &Client, session: &str, cmd: &str) -> Result<String> {
    let done = exec(client, session, cmd).await?;
    let code = done.exit.as_ref().and_then(|e| e.code);
    let text = done.stdout.unwrap_or_default();
    expect(code == Some(0), || {
        format!("`{cmd}` ended with {code:?}: {text}{}", done.stderr.unwrap_or_default())
    })?;
    Ok(text)
}

pub async fn walk(
    client: &Client,
    host: &GitHost,
    standin: Option<&Standin>,
    project: &Project,
    times: Times,
) -> Result<()> {
    let name = &project.spec.name;
    let (user, signed_in) = match standin {
        Some(standin) => {
            let took = standin.sign_in(client).await?;
            step("login", format!("{USER} by device, as `hotbed login` does it, in {}", ms(took)));
            (json!({"login": USER}), Some(took))
        }
        None => (json!({"login": USER, "name": "Ada Lovelace", "email": "ada@example.invalid"}), None),
    };

    // The user types: a member is reserved and brought to the branch meanwhile.
    let begun = Instant::now();
    let announce = json!({"repo": name, "client": "demo-tab"});
    let warmup: WarmupView = client.post("/v1/warmups", &announce).await?;
    let keystroke = begun.elapsed();
    for _ in 0..50 {
        let again: WarmupView = client.post("/v1/warmups", &announce).await?;
        expect(again.id == warmup.id, || "a keystroke made a second warm-up".into())?;
    }
    until(client, &format!("/v1/warmups/{}", warmup.id), "a reserved member", |w: &WarmupView| w.reserved)
        .await?;
    step("keys", format!("51 keystrokes, one warm-up {}; the first took {}", warmup.id, ms(keystroke)));

    // Meanwhile somebody pushes.
    let upstream = host.repo(name);
    let branch: Branch = project.spec.branch.clone();
    let landed = upstream.commit_files(
        &branch,
        &[("UPSTREAM.md", Some(&b"A commit that landed while the user typed.\n"[..]))],
        "Land something upstream",
        &Identity {
            login: "upstream".into(),
            name: "Upstream Author".into(),
            email: "upstream@example.invalid".into(),
        },
    )?;
    if let Some(standin) = standin {
        standin.publish(host, &branch).await?;
    }
    step("upstream", format!("{} lands on {branch}", landed.short()));

    // Submit.
    let begun = Instant::now();
    let session: SessionView =
        client.post("/v1/sessions", &json!({"repo": name, "user": user, "warmup": warmup.id})).await?;
    let claim = begun.elapsed();
    let id = session.id.clone();
    expect(session.launch == "warmup", || format!("the launch was {}", session.launch))?;
    // Write before anything else is asked: the gate is what makes it wait.
    let write =
        exec(client, &id, "printf 'written by a shell\\n' > hotbed-demo.txt && git log -1 --format=%H");
    let read = async {
        match &project.first_file {
            Some(file) => {
                let bytes = client
                    .stream(&format!("/v1/sessions/{id}/files/{file}"))
                    .await?
                    .collect::<Vec<_>>()
                    .await;
                let n: usize = bytes.into_iter().map(|b| b.map_or(0, |b| b.len())).sum();
                expect(n > 0, || format!("{file} is empty"))?;
                Ok(format!("{file}, {n} bytes"))
            }
            None => {
                let list: Value = client.get(&format!("/v1/sessions/{id}/files")).await?;
                Ok(format!("{} entries", list["items"].as_array().map_or(0, Vec::len)))
            }
        }
    };
    let read = async {
        let what: Result<String> = read.await;
        (what, begun.elapsed())
    };
    let write = async {
        let done = write.await;
        (done, begun.elapsed())
    };
    let ((seen, first_read), (written, first_write)) = tokio::join!(read, write);
    let (seen, written) = (seen?, written?);
    step("session", format!("{id} claimed in {} ({})", ms(claim), session.launch));
    step("read", format!("{seen} at {}", ms(first_read)));
    let head = written.stdout.unwrap_or_default().trim().to_owned();
    expect(head == landed.as_str(), || format!("the write passed at {head}, before sync reached {landed}"))?;
    step("write", format!("waited at the gate, went through at {} on {}", ms(first_write), landed.short()));
    let sync: SyncView = client.get(&format!("/v1/sessions/{id}/sync?wait_seconds=30")).await?;
    expect(sync.phase == "synced" && sync.head.as_deref() == Some(landed.as_str()), || {
        format!("sync: {sync:?}")
    })?;
    step(
        "sync",
        format!(
            "HEAD {} is upstream's tip, {} commits behind at the claim",
            landed.short(),
            sync.lag_commits.unwrap_or(0)
        ),
    );

    // Work.
    let begun = Instant::now();
    let tests = exec(client, &id, &project.tests).await?;
    let suite = begun.elapsed();
    let text = tests.stdout.unwrap_or_default();
    let code = tests.exit.as_ref().and_then(|e| e.code);
    expect(code == Some(0), || format!("the test suite ended with {code:?}: {text}"))?;
    step("tests", format!("{} in {}", text.lines().last().unwrap_or("-").trim_matches('='), ms(suite)));
    let commit = "git add hotbed-demo.txt && git commit -q -m 'Say where it was written' && git log -1 --format='%an <%ae>'";
    let author = must(client, &id, commit).await?;
    let hers = match standin {
        Some(_) => author.trim().ends_with("+ada@users.noreply.127.0.0.1>"),
        None => author.trim() == "Ada Lovelace <ada@example.invalid>",
    };
    expect(hers, || format!("the author is {author}"))?;
    step("commit", format!("as {}", author.trim()));
    let begun = Instant::now();
    must(client, &id, "git push -q origin HEAD").await?;
    let push = begun.elapsed();
    step("push", format!("{} in {}", session.branch, ms(push)));
    let refused = exec(client, &id, &format!("git push origin HEAD:{branch}")).await?;
    let why = refused.stderr.unwrap_or_default();
    expect(refused.exit.is_some_and(|e| e.code != Some(0)), || format!("a push to {branch} went through"))?;
    step(
        "refused",
        why.lines().find(|l| l.contains("rejected")).unwrap_or("a push to the base branch").trim(),
    );
    let path = format!("/v1/sessions/{id}/pull-requests");
    let order = json!({"title": "Say where it was written", "body": "From the demo."});
    let begun = Instant::now();
    let pull: PullRequestView =
        client.call(Method::POST, &path, Some(&order), &[("idempotency-key", "demo-pr")]).await?;
    let opened = begun.elapsed();
    let twice: PullRequestView =
        client.call(Method::POST, &path, Some(&order), &[("idempotency-key", "demo-pr")]).await?;
    expect(pull.state == "open" && twice.number == pull.number, || format!("{pull:?}"))?;
    step(
        "pull",
        format!("#{} by {}: {} into {}", pull.number.unwrap_or(0), pull.author, pull.head, pull.base),
    );
    let mut at_github = Vec::new();
    if let (Some(standin), Some(signed_in)) = (standin, signed_in) {
        let known = merge(client, standin, &path, &pull).await?;
        at_github = vec![
            ("sign-in by device, GitHub's pause included", ms(signed_in)),
            ("push, through Hotbed to GitHub", ms(push)),
            ("pull request, asked for to open", ms(opened)),
            ("merged there to known here", ms(known)),
        ];
    }

    // End, and go on from the capture.
    must(client, &id, "printf 'not committed\\n' > left-over.txt").await?;
    let begun = Instant::now();
    let ended: SessionView = client.delete(&format!("/v1/sessions/{id}?wait=true")).await?;
    let end = begun.elapsed();
    expect(ended.state == "ended", || format!("{ended:?}"))?;
    let snapshots: List<SnapshotView> = client.get(&format!("/v1/snapshots?session={id}")).await?;
    expect(snapshots.items.iter().any(|s| s.state == "ready"), || format!("no snapshot: {snapshots:?}"))?;
    step("end", format!("captured and released in {}", ms(end)));
    let begun = Instant::now();
    let follow: SessionView = client.post("/v1/sessions", &json!({"parent": id, "user": user})).await?;
    let seen = must(client, &follow.id, "cat hotbed-demo.txt left-over.txt && git status --short").await?;
    let restore = begun.elapsed();
    expect(seen.contains("written by a shell") && seen.contains("not committed"), || {
        format!("the follow-up sees {seen}")
    })?;
    step("follow", format!("{} sees the commit and what was not committed, {}", follow.id, ms(restore)));
    let _: SessionView = client.delete(&format!("/v1/sessions/{}?wait=true&discard=true", follow.id)).await?;

    let cold = cold_start(client, project, &user).await?;
    let repo: RepoView = client.get(&format!("/v1/repos/{name}")).await?;
    println!();
    let rows = vec![
        ("build of the image", ms(times.build)),
        ("pool filled after", ms(times.pool)),
        ("keystroke, API answer", ms(keystroke)),
        ("claim", ms(claim)),
        ("claim to first read", ms(first_read)),
        ("claim to first write (after sync)", ms(first_write)),
        ("cold start to first read, for comparison", ms(cold)),
        ("follow-up from the snapshot, first read", ms(restore)),
        ("end: quiesce, capture, release", ms(end)),
        ("image age", format!("{} s", repo.image_age_seconds.unwrap_or(0))),
    ];
    for (what, value) in rows.into_iter().chain(at_github) {
        println!("  {what:<42} {value:>12}");
    }
    Ok(())
}

/// What becomes of the pull request at GitHub: there is one, the user's; it is reviewed and merged there, and the
/// session says so. Answers how long it took to be known.
async fn merge(client: &Client, standin: &Standin, path: &str, pull: &PullRequestView) -> Result<Duration> {
    let authors = standin.authors().await?;
    expect(authors == [USER], || format!("GitHub has pull requests of {authors:?}"))?;
    standin.review_and_merge(pull.number.unwrap_or(0)).await?;
    let begun = Instant::now();
    let merged = |l: &List<PullRequestView>| l.items.iter().all(|p| p.state == "merged" && p.approvals == 1);
    let all = until(client, path, "the session knows of the merge", merged).await?;
    let known = begun.elapsed();
    step(
        "merged",
        format!(
            "#{} at GitHub, by review of another; the session says: {}, {} approval",
            pull.number.unwrap_or(0),
            all.items[0].state,
            all.items[0].approvals
        ),
    );
    Ok(known)
}

/// Takes sessions until one found no warm member.
async fn cold_start(client: &Client, project: &Project, user: &Value) -> Result<Duration> {
    let mut taken = Vec::new();
    let mut cold = None;
    for _ in 0..8 {
        let begun = Instant::now();
        let session: SessionView =
            client.post("/v1/sessions", &json!({"repo": project.spec.name, "user": user})).await?;
        let list: Value = client.get(&format!("/v1/sessions/{}/files", session.id)).await?;
        expect(list["items"].is_array(), || "no files".into())?;
        taken.push(session.id);
        if session.launch == "cold" {
            cold = Some(begun.elapsed());
            break;
        }
    }
    for id in taken {
        let _: SessionView = client.delete(&format!("/v1/sessions/{id}?wait=true&discard=true")).await?;
    }
    let cold = cold.ok_or_else(|| Error::permanent("eight sessions in a row were warm"))?;
    step("cold", format!("a session without a warm member: first read at {}", ms(cold)));
    Ok(cold)
}

//! `kill -9` of the server at moments that nobody chose, while sessions come, work and go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::SessionId;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http::Method;
use orchestrator::api::types::{ExecView, ImageView, List, OutputLine, PoolView, SessionView, SnapshotView};
use serde_json::json;

use super::api::{Api, until};
use super::on_docker;
use super::world::{Engine, PATIENCE, Repo, World};

const REPO: &str = "acme/crash";
const KILLS: usize = 14;
/// Lines that the long command prints, one every 20 ms.
const LINES: usize = 1500;

/// Small random numbers; `IT_SEED` repeats a run as far as the machine allows.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = std::env::var("IT_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let id = SessionId::new().to_string();
            u64::from_str_radix(&id[id.len() - 12..], 16).unwrap_or(1)
        });
        eprintln!("IT_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Repeats a request while nobody answers: what any client does when a server goes away. What is answered, is.
async fn insist<T>(what: &str, mut call: impl AsyncFnMut() -> domain::Result<T>) -> domain::Result<T> {
    let begun = Instant::now();
    loop {
        match call().await {
            Err(e) if e.kind() == domain::ErrorKind::Unavailable => {
                assert!(begun.elapsed() < PATIENCE, "{what}: {e:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answered => return answered,
        }
    }
}

/// What one user was told.
#[derive(Debug)]
struct Told {
    id: String,
    /// A write was acknowledged.
    wrote: bool,
    /// The end was asked for, and this was answered.
    ended: bool,
}

/// Users who start sessions, write, and end about two of three.
async fn user(api: Api, mut dice: Dice, number: u64, stop: &AtomicBool) -> Vec<Told> {
    let mut told = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("user-{number}-{n}");
        let order = json!({"repo": REPO, "user": Api::user()});
        let created = insist("a session", async || {
            api.client
                .call::<_, SessionView>(
                    Method::POST,
                    "/v1/sessions",
                    Some(&order),
                    &[("idempotency-key", &key)],
                )
                .await
        });
        let session = created.await.unwrap_or_else(|e| panic!("{key}: {e:?}"));
        // The same key again, as after a lost answer: the same session (F7).
        let again: SessionView = insist("the same session", async || {
            api.client.call(Method::POST, "/v1/sessions", Some(&order), &[("idempotency-key", &key)]).await
        })
        .await
        .unwrap_or_else(|e| panic!("{key}: {e:?}"));
        assert_eq!(again.id, session.id, "{key}");
        let mut this = Told { id: session.id.clone(), wrote: false, ended: false };
        let write = format!("echo {} > mark.txt && sync mark.txt", session.id);
        let written = insist("a write", async || api.try_exec(&session.id, &write).await).await;
        let written = written.unwrap_or_else(|e| panic!("{}: {e:?}", session.id));
        assert_eq!(written.exit.as_ref().and_then(|e| e.code), Some(0), "{}: {written:?}", session.id);
        this.wrote = true;
        // The first one always lives on, so that there is something to find alive.
        if n > 0 && (told.len() >= 3 || dice.below(3) > 0) {
            let path = format!("/v1/sessions/{}?discard={}", session.id, dice.below(2) == 0);
            let asked = insist("an end", async || api.client.delete::<SessionView>(&path).await).await;
            match asked {
                Ok(_) => this.ended = true,
                // It was decided before the answer was lost.
                Err(e) if matches!(e.kind(), domain::ErrorKind::Conflict | domain::ErrorKind::Gone) => {
                    this.ended = true
                }
                Err(e) => panic!("{}: {e:?}", session.id),
            }
        }
        told.push(this);
    }
    told
}

/// Reads a command's output from its offset, again after every break, until its exit.
async fn follow(api: &Api, session: &str, exec: &str) -> (String, u32) {
    let (mut text, mut breaks) = (String::new(), 0);
    loop {
        let path = format!("/v1/sessions/{session}/exec/{exec}/output?from={}&follow=true", text.len());
        let stream = insist("the output", async || api.client.lines(&path).await).await;
        let mut lines = stream.unwrap_or_else(|e| panic!("the output of {exec}: {e:?}"));
        while let Some(Ok(line)) = lines.next().await {
            let Ok(line) = serde_json::from_str::<OutputLine>(&line) else { break };
            if let Some(exit) = line.exit {
                assert_eq!(exit.code, Some(0), "{exit:?}");
                return (text, breaks);
            }
            assert_eq!(line.offset, Some(text.len() as u64), "an offset that does not follow");
            text.push_str(&line.text.unwrap_or_default());
        }
        breaks += 1;
    }
}

// F31, F5, F17, F32, F18, F7, F23, F36, F37
#[test]
fn fourteen_kills_lose_nothing_and_leave_nothing() {
    on_docker(async {
        let world = World::start("crashes", Engine::default(), vec![Repo::new(REPO, 2)]).await;
        let api = world.api();
        api.ready(REPO).await;
        let bystander = api.session(REPO).await;
        api.synced(&bystander.id).await;
        let counting =
            format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.02; done");
        let exec: ExecView = api
            .client
            .post(&format!("/v1/sessions/{}/exec", bystander.id), &json!({"cmd": counting}))
            .await
            .expect("a command");
        let boot_id = "cat /proc/1/stat | cut -d' ' -f22";
        let booted = api.must(&bystander.id, boot_id).await;
        let reader_api = world.api();
        let reader = follow(&reader_api, &bystander.id, &exec.id);

        let mut dice = Dice::new();
        let stop = AtomicBool::new(false);
        let users = join_all(
            (0..3).map(|n| user(world.api(), Dice(dice.below(u64::MAX) | 1), n, &stop)).collect::<Vec<_>>(),
        );
        let killer = async {
            for _ in 0..KILLS {
                let pause = Duration::from_millis(30 + dice.below(1500));
                tokio::time::sleep(pause).await; // the moment is what is drawn
                world.kill_server();
                world.start_server().await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        // On one task: a panic of any of them is the test's.
        let (told, (text, breaks), ()) = tokio::join!(users, reader, killer);
        let told: Vec<_> = told.into_iter().flatten().collect();

        // A command that was started before the first kill went on; its output is whole, each byte once.
        let expected: String = (0..LINES).map(|n| format!("line {n}\n")).collect();
        assert_eq!(text.len(), expected.len());
        assert!(text == expected, "lost or repeated output");
        assert!(breaks >= 3, "the output was read over several lives of the server: {breaks}");
        // F17, F18: the same sandbox, the same first process.
        let after = api.read(&bystander.id).await;
        assert_eq!((after.state.as_str(), &after.sandbox), ("active", &bystander.sandbox));
        assert_eq!(api.must(&bystander.id, boot_id).await, booted);

        // Every session that was answered is there: usable with what was written, or ended as asked.
        let (mut active, mut ended) = (0, 0);
        for one in &told {
            if one.ended {
                let session = api.reaches(&one.id, &["ended"]).await;
                assert_eq!(session.end.as_deref(), Some("requested"), "{session:?}");
                ended += 1;
            } else {
                assert!(one.wrote);
                let session = api.read(&one.id).await;
                assert_eq!(session.state, "active", "{session:?}");
                assert_eq!(api.must(&one.id, "cat mark.txt").await.trim(), one.id);
                active += 1;
            }
        }
        eprintln!(
            "{KILLS} kills: {active} sessions live, {ended} ended, output read over {} lives",
            breaks + 1
        );
        assert!(active > 0 && ended > 0);

        // F32, F31: the pool is as configured, and there is no container besides.
        let all: List<SessionView> = api.client.get("/v1/sessions?limit=200").await.expect("sessions");
        assert!(all.next.is_none());
        let held: BTreeSet<_> =
            all.items.iter().filter(|s| s.state == "active").filter_map(|s| s.sandbox.clone()).collect();
        assert_eq!(held.len(), active + 1, "sessions that nobody was told of: {:?}", all.items);
        until("containers equal records", async || {
            let pool: PoolView = api.pool(REPO).await;
            let there: BTreeSet<_> = world.containers().into_iter().map(|c| c.sandbox).collect();
            let members = there.difference(&held).count();
            if pool.warm == 2 && members == 2 && held.is_subset(&there) && world.run_dirs() == there {
                Ok(())
            } else {
                Err(format!("{pool:?}, {members} members, held {held:?} of {there:?}"))
            }
        })
        .await;
        for session in all.items.iter().filter(|s| s.state == "active") {
            api.discard(&session.id).await;
        }

        // What interrupted captures left goes when the collector comes, which a start does.
        assert_eq!(world.stop_server(), Some(0));
        world.start_server().await;
        let api = world.api();
        until("captures equal records", async || {
            let there: BTreeSet<_> =
                world.captures().into_iter().filter(|(kind, _)| kind != "base").map(|(_, id)| id).collect();
            let taken: List<SnapshotView> =
                api.client.get("/v1/snapshots?limit=200").await.map_err(|e| e.chain())?;
            let images: List<ImageView> = api.client.get("/v1/images").await.map_err(|e| e.chain())?;
            let recorded: BTreeSet<_> = taken
                .items
                .iter()
                .filter_map(|s| s.digest.clone())
                .chain(images.items.iter().map(|i| i.digest.clone()))
                .collect();
            if there == recorded {
                Ok(())
            } else {
                Err(format!("{} there, {} recorded", there.len(), recorded.len()))
            }
        })
        .await;
    });
}

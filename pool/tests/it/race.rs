//! Claims and retirements from many threads at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use domain::{ImageId, RepoName, SandboxId, SandboxRecord, SandboxState};
use pool::{Action, Demand, PoolInput, RepoInput, Shelf, Want, plan};

use crate::make::{MAX_AGE, SIZE, at, image, member, policy, repo};

const MEMBERS: u128 = 10_000;

fn want<'a>(repo: &'a RepoName, allowed: &'a [ImageId]) -> Want<'a> {
    let min_remaining_life = Duration::from_secs(60);
    Want { repo, allowed, warmup: None, tip: None, now: at(1), min_remaining_life, member_max_age: MAX_AGE }
}

/// F35, F6: eight threads claim 10,000 members of two repos of one name: each is got once, by its own repo, and
/// nobody misses while there is one.
#[test]
fn ten_thousand_claims_get_ten_thousand_members() {
    let repos = [repo("acme/api"), repo("evil/api")];
    let shelf = Shelf::new();
    for id in 0..MEMBERS {
        let r = &repos[(id % 2) as usize];
        assert!(shelf.insert(&member(id + 1, r, 1, SandboxState::Warm, 0)));
    }
    let allowed = [ImageId::from_u128(1)];
    let got: Vec<(usize, SandboxId)> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..8)
            .map(|t| {
                let (shelf, repos, allowed) = (&shelf, &repos, &allowed);
                s.spawn(move || {
                    let want = want(&repos[t % 2], allowed);
                    let claims =
                        (0..MEMBERS as usize / 8).map(|_| (t % 2, shelf.claim(&want).unwrap().sandbox));
                    claims.collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(got.len(), MEMBERS as usize);
    assert_eq!(got.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), MEMBERS as usize);
    for (r, id) in got {
        let n: u128 = u128::from_str_radix(id.to_string().strip_prefix("sbx_").unwrap(), 16).unwrap() - 1;
        assert_eq!((n % 2) as usize, r, "{id} is of the other repo");
    }
    assert!(repos.iter().all(|r| shelf.claim(&want(r, &allowed)).is_err()));
}

/// Claims from a shelf of 10,000 stay cheap: the lock is held for a few lookups.
#[test]
fn a_claim_is_a_few_lookups() {
    let r = repo("acme/api");
    let shelf = Shelf::new();
    for id in 0..MEMBERS {
        shelf.insert(&member(id, &r, 1, SandboxState::Warm, (id % 977) as i64));
    }
    let allowed = [ImageId::from_u128(1)];
    let begin = Instant::now();
    for _ in 0..1000 {
        shelf.claim(&want(&r, &allowed)).unwrap();
    }
    let each = begin.elapsed() / 1000;
    println!("one claim out of 10,000: {each:?}");
    assert!(each < Duration::from_micros(500), "{each:?}");
}

/// The rows, as a store would keep them: a claim and a retirement each commit only from the state they expect.
struct Rows(Mutex<BTreeMap<SandboxId, SandboxRecord>>);

impl Rows {
    fn commit(&self, id: SandboxId, from: &[SandboxState], to: SandboxState) -> bool {
        let mut rows = self.0.lock().unwrap();
        let Some(row) = rows.get_mut(&id).filter(|r| from.contains(&r.state)) else { return false };
        row.state = to;
        true
    }
}

/// F4: images roll and sessions claim at the same time, 10,000 claims: no claimed member is removed, every claimed
/// member is of the image that was current when it was claimed (F2), and no commit of either side meets a row that
/// the other had taken.
#[test]
fn rolling_never_removes_what_was_claimed() {
    const CLAIMS: u32 = 10_000;
    let r = repo("acme/api");
    let rows = Rows(Mutex::default());
    let shelf = Shelf::new();
    let claimed = Mutex::new(HashMap::new());
    let retired = Mutex::new(HashSet::new());
    let (claims, done) = (AtomicU32::new(0), AtomicBool::new(false));
    // The claimers hold it for reading as they would read the current image; the roller swaps it.
    let current = std::sync::RwLock::new(image(&r, 1));
    let policy = policy(40, 40);
    let began = Instant::now();

    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                while claims.load(Ordering::Relaxed) < CLAIMS && began.elapsed() < Duration::from_secs(120) {
                    let now_current = current.read().unwrap();
                    let allowed = [now_current.id];
                    let Ok(pick) = shelf.claim(&want(&r, &allowed)) else {
                        drop(now_current);
                        std::thread::yield_now();
                        continue;
                    };
                    let ok = rows.commit(pick.sandbox, &[SandboxState::Warm], SandboxState::Claimed);
                    assert!(ok, "what the shelf gave was not warm");
                    assert_eq!(rows.0.lock().unwrap()[&pick.sandbox].image, Some(now_current.id));
                    assert!(
                        claimed.lock().unwrap().insert(pick.sandbox, now_current.id).is_none(),
                        "given twice"
                    );
                    claims.fetch_add(1, Ordering::Relaxed);
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        s.spawn(|| {
            let mut serial = 0u128;
            let mut round = 1u128;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                if round.is_multiple_of(3) {
                    *current.write().unwrap() = image(&r, round);
                }
                let now_current = current.read().unwrap().clone();
                // What the plan sees is older than what it is done to, as it is in life.
                let seen: Vec<_> = rows.0.lock().unwrap().values().cloned().collect();
                let input = RepoInput {
                    repo: r.clone(),
                    spec: &policy,
                    current: Some(&now_current),
                    canary: None,
                    members: seen.iter().collect(),
                    unhealthy: seen
                        .iter()
                        .filter(|m| m.state == SandboxState::Warm)
                        .map(|m| m.id)
                        .take(1)
                        .collect(),
                    reserved: 0,
                    backoff_until: None,
                    size: SIZE,
                    demand: Demand::default(),
                    order: None,
                };
                std::thread::yield_now();
                let plan = plan(
                    at(1),
                    &PoolInput { repos: vec![input], starting_limit: 100, ..PoolInput::default() },
                );
                for action in plan.actions() {
                    match action {
                        Action::CreateMember { repo, image } => {
                            serial += 1;
                            let mut row = member(serial, repo, 0, SandboxState::Warm, 0);
                            row.image = Some(*image);
                            rows.0.lock().unwrap().insert(row.id, row.clone());
                            shelf.insert(&row);
                        }
                        Action::RetireMember { sandbox, why } => {
                            if shelf.withdraw(*sandbox, *why) {
                                let ok = rows.commit(*sandbox, &[SandboxState::Warm], SandboxState::Stopping);
                                assert!(ok, "withdrawn and yet not warm");
                                retired.lock().unwrap().insert(*sandbox);
                            }
                        }
                    }
                }
                // A reconciler that re-reads old rows must not bring anything back.
                for row in &seen {
                    shelf.insert(row);
                }
                rows.0.lock().unwrap().retain(|_, m| m.state != SandboxState::Stopping);
            }
        });
    });

    let (claimed, retired) = (claimed.into_inner().unwrap(), retired.into_inner().unwrap());
    assert!(claimed.len() >= CLAIMS as usize, "only {} claims", claimed.len());
    assert!(!retired.is_empty(), "nothing was rolled");
    assert_eq!(claimed.keys().filter(|id| retired.contains(id)).count(), 0);
    let rows = rows.0.into_inner().unwrap();
    assert!(claimed.keys().all(|id| rows[id].state == SandboxState::Claimed));
    println!("{} claims, {} retirements in {:?}", claimed.len(), retired.len(), began.elapsed());
}

//! The ranking and the shelf: the order, the reasons of misses, and the shelf held against the plain rule.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{
    ImageId, Launch, Purpose, RepoName, SandboxId, SandboxRecord, SandboxState, SessionId, WarmupId,
};
use pool::{Counts, MissReason, Pick, RetireReason, Shelf, Want, rank};
use proptest::prelude::*;

use crate::make::{MAX_AGE, at, commit, member, repo};

const MIN_LIFE: Duration = Duration::from_secs(60);

fn want<'a>(repo: &'a RepoName, allowed: &'a [ImageId], now: i64) -> Want<'a> {
    Want {
        repo,
        allowed,
        warmup: None,
        tip: None,
        now: at(now),
        min_remaining_life: MIN_LIFE,
        member_max_age: MAX_AGE,
    }
}

fn images(ns: &[u128]) -> Vec<ImageId> {
    ns.iter().map(|n| ImageId::from_u128(*n)).collect()
}

fn warm(id: u128, repo: &RepoName, image: u128, created: i64) -> SandboxRecord {
    member(id, repo, image, SandboxState::Warm, created)
}

fn shelf(records: &[SandboxRecord]) -> Shelf {
    let shelf = Shelf::new();
    for r in records {
        shelf.insert(r);
    }
    shelf
}

/// The shelf and the plain rule agree, and take what is expected, in this order.
fn takes(records: &[SandboxRecord], want: &Want<'_>, order: &[u128]) {
    let shelf = shelf(records);
    let mut left: Vec<_> = records.to_vec();
    for id in order {
        let expected = SandboxId::from_u128(*id);
        assert_eq!(rank(&left, want).map(|p| p.sandbox), Ok(expected));
        assert_eq!(shelf.claim(want).map(|p| p.sandbox), Ok(expected));
        left.retain(|r| r.id != expected);
    }
    assert_eq!(shelf.claim(want), rank(&left, want));
    assert!(shelf.claim(want).is_err());
}

#[test]
fn reserved_then_tip_then_newest_image_then_oldest() {
    let r = repo("acme/api");
    let allowed = images(&[2, 1]);
    let (mine, other) = (WarmupId::from_u128(1), WarmupId::from_u128(2));
    let mut records =
        [warm(1, &r, 1, 50), warm(2, &r, 2, 40), warm(3, &r, 2, 30), warm(4, &r, 1, 20), warm(5, &r, 1, 60)];
    records[4].reserved = Some(mine);
    records[0].commit = Some(commit(7));
    let tip = commit(7);
    takes(
        &records,
        &Want { warmup: Some(mine), tip: Some(&tip), ..want(&r, &allowed, 100) },
        &[5, 1, 3, 2, 4],
    );
    takes(&records, &Want { warmup: Some(other), ..want(&r, &allowed, 100) }, &[3, 2, 4, 1]);
    takes(&records, &Want { tip: Some(&tip), ..want(&r, &images(&[1]), 100) }, &[1, 4]);
    let shelf = shelf(&records);
    let pick = shelf.claim(&Want { warmup: Some(mine), ..want(&r, &allowed, 100) }).unwrap();
    assert_eq!(pick.launch(), Launch::Warmup);
}

/// F8: each miss has its reason.
#[test]
fn misses_are_told_apart() {
    let r = repo("acme/api");
    let allowed = images(&[2]);
    let age = MAX_AGE.as_secs() as i64;
    let mut held = warm(4, &r, 2, age);
    held.reserved = Some(WarmupId::from_u128(9));
    let mut session = warm(5, &r, 2, age);
    session.purpose = Purpose::Session(SessionId::from_u128(1));
    let steps = [
        (session, MissReason::Empty),
        (warm(6, &repo("evil/api"), 2, age), MissReason::Empty),
        (member(7, &r, 2, SandboxState::Claimed, age), MissReason::Empty),
        (member(1, &r, 2, SandboxState::Creating, age), MissReason::AllStarting),
        (warm(2, &r, 1, age), MissReason::WrongImage),
        (warm(3, &r, 2, 0), MissReason::AllTooOld),
        (held, MissReason::AllReserved),
    ];
    let mut records = Vec::new();
    for (record, reason) in steps {
        records.push(record);
        let want = want(&r, &allowed, age + 10);
        assert_eq!(rank(&records, &want), Err(reason));
        assert_eq!(shelf(&records).claim(&want), Err(reason));
        let none = Want { allowed: &[], ..want };
        assert_eq!(rank(&records, &none), Err(MissReason::NoImage));
        assert_eq!(shelf(&records).claim(&none), Err(MissReason::NoImage));
    }
    let words: std::collections::BTreeSet<_> = MissReason::ALL.iter().map(|m| m.as_str()).collect();
    assert_eq!(words.len(), MissReason::ALL.len());
}

/// F12: one second too little is too little.
#[test]
fn a_minimum_of_life_remains() {
    let r = repo("acme/api");
    let allowed = images(&[1]);
    let last = MAX_AGE.as_secs() as i64 - 60;
    let records = [warm(1, &r, 1, 0)];
    assert_eq!(rank(&records, &want(&r, &allowed, last + 1)), Err(MissReason::AllTooOld));
    assert!(rank(&records, &want(&r, &allowed, last)).is_ok());
    // A minimum that is longer than the whole life must not make the pool useless without a word (F8).
    let absurd = Want { min_remaining_life: MAX_AGE * 2, ..want(&r, &allowed, 10) };
    assert!(shelf(&records).claim(&absurd).is_ok());
}

/// F10: what still boots is not handed out, and is once it is warm.
#[test]
fn only_the_warm_are_handed_out() {
    let r = repo("acme/api");
    let allowed = images(&[1]);
    let shelf = Shelf::new();
    assert!(!shelf.insert(&member(1, &r, 1, SandboxState::Starting, 0)));
    assert_eq!(shelf.counts(&r), Counts { starting: 1, ..Counts::default() });
    assert_eq!(shelf.claim(&want(&r, &allowed, 1)), Err(MissReason::AllStarting));
    assert!(shelf.insert(&warm(1, &r, 1, 0)));
    assert!(!shelf.insert(&warm(1, &r, 1, 0)), "known already");
    assert!(!shelf.insert(&member(1, &r, 1, SandboxState::Starting, 0)), "an older reading changes nothing");
    assert_eq!(shelf.counts(&r), Counts { free: 1, ..Counts::default() });
    assert!(shelf.claim(&want(&r, &allowed, 1)).is_ok());
}

/// F35, F3: a stale record brings nothing back; a failed commit does, once, and only while the row is warm.
#[test]
fn what_left_stays_away() {
    let r = repo("acme/api");
    let allowed = images(&[1]);
    let record = warm(1, &r, 1, 0);
    let shelf = shelf(std::slice::from_ref(&record));
    let want = want(&r, &allowed, 1);
    assert!(shelf.claim(&want).is_ok());
    assert!(!shelf.insert(&record));
    assert_eq!(shelf.claim(&want), Err(MissReason::Empty));
    assert!(!shelf.put_back(&member(1, &r, 1, SandboxState::Claimed, 0)));
    assert_eq!(shelf.claim(&want), Err(MissReason::Empty));
    assert!(shelf.put_back(&record));
    assert!(shelf.claim(&want).is_ok());
    shelf.forget(record.id);
    assert_eq!(shelf.counts(&r), Counts::default());
}

/// F55: a warm-up holds one member, the same one however often it asks; its end frees it.
#[test]
fn a_reservation_holds_one_member() {
    let r = repo("acme/api");
    let allowed = images(&[1]);
    let shelf = shelf(&[warm(1, &r, 1, 0), warm(2, &r, 1, 1)]);
    let w = want(&r, &allowed, 2);
    let (a, b, c) = (WarmupId::from_u128(1), WarmupId::from_u128(2), WarmupId::from_u128(3));
    let first = shelf.reserve(a, &w).unwrap();
    for _ in 0..1000 {
        assert_eq!(shelf.reserve(a, &w), Ok(first));
    }
    let second = shelf.reserve(b, &w).unwrap();
    assert_ne!(first, second);
    assert_eq!(shelf.reserve(c, &w), Err(MissReason::AllReserved));
    assert_eq!(shelf.claim(&w), Err(MissReason::AllReserved));
    assert_eq!(shelf.counts(&r), Counts { reserved: 2, ..Counts::default() });
    assert_eq!(shelf.release(a), [first]);
    assert_eq!(shelf.release(a), []);
    assert_eq!(shelf.claim(&w), Ok(Pick { sandbox: first, reserved: false }));
    assert_eq!(shelf.claim(&Want { warmup: Some(b), ..w }), Ok(Pick { sandbox: second, reserved: true }));
}

/// F4: the handshake between claim and retirement.
#[test]
fn a_retirement_asks_first() {
    let r = repo("acme/api");
    let allowed = images(&[1]);
    let shelf = shelf(&[warm(1, &r, 1, 0), warm(2, &r, 1, 1), warm(3, &r, 1, 2)]);
    let w = want(&r, &allowed, 2);
    let claimed = shelf.claim(&w).unwrap().sandbox;
    let held = shelf.reserve(WarmupId::from_u128(1), &w).unwrap();
    let free = SandboxId::from_u128(3);
    for why in RetireReason::ALL {
        assert!(!shelf.withdraw(claimed, why));
    }
    assert!(!shelf.withdraw(held, RetireReason::SupersededImage));
    assert!(shelf.withdraw(held, RetireReason::Unhealthy));
    assert!(shelf.withdraw(free, RetireReason::AboveTarget));
    assert!(shelf.withdraw(free, RetireReason::AboveTarget), "asked again after a crash in between");
    assert_eq!(shelf.claim(&Want { warmup: Some(WarmupId::from_u128(1)), ..w }), Err(MissReason::Empty));
    assert!(!shelf.insert(&warm(3, &r, 1, 2)), "a stale record does not bring it back");
}

#[derive(Debug, Clone)]
enum Op {
    Insert { id: u128, repo: usize, image: u128, created: i64, warm: bool, reserved: Option<u128> },
    Claim { repo: usize, warmup: Option<u128>, tip: Option<u64>, previous: bool, now: i64 },
    Reserve { repo: usize, warmup: u128, now: i64 },
    Release { warmup: u128 },
    Withdraw { id: u128, force: bool },
    Commit { id: u128, commit: u64 },
    Forget { id: u128 },
    PutBack { id: u128 },
}

fn ops() -> impl Strategy<Value = Op> {
    let id = || 1u128..25;
    prop_oneof![
        5 => (id(), 0usize..2, 1u128..4, 0i64..30_000, prop::bool::weighted(0.8), prop::option::weighted(0.2, 1u128..4))
            .prop_map(|(id, repo, image, created, warm, reserved)| Op::Insert { id, repo, image, created, warm, reserved }),
        4 => (0usize..2, prop::option::of(1u128..4), prop::option::of(1u64..5), any::<bool>(), 20_000i64..40_000)
            .prop_map(|(repo, warmup, tip, previous, now)| Op::Claim { repo, warmup, tip, previous, now }),
        2 => (0usize..2, 1u128..4, 20_000i64..40_000).prop_map(|(repo, warmup, now)| Op::Reserve { repo, warmup, now }),
        1 => (1u128..4).prop_map(|warmup| Op::Release { warmup }),
        1 => (id(), any::<bool>()).prop_map(|(id, force)| Op::Withdraw { id, force }),
        1 => (id(), 1u64..5).prop_map(|(id, commit)| Op::Commit { id, commit }),
        1 => id().prop_map(|id| Op::Forget { id }),
        1 => id().prop_map(|id| Op::PutBack { id }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// F2, F6, F8, F35: after any operations the shelf answers what the plain rule answers over a plain list of
    /// rows. Both repos use the same ids for warm-ups and images, and never cross.
    #[test]
    fn the_shelf_is_the_plain_rule(ops in prop::collection::vec(ops(), 1..80)) {
        let repos = [repo("acme/api"), repo("evil/api")];
        let shelf = Shelf::new();
        let mut rows: BTreeMap<SandboxId, SandboxRecord> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Insert { id, repo, image, created, warm, reserved } => {
                    let state = if warm { SandboxState::Warm } else { SandboxState::Starting };
                    let mut row = member(id, &repos[repo], image, state, created);
                    row.reserved = reserved.map(WarmupId::from_u128);
                    let known = rows.get(&row.id).map(|r| r.state);
                    let ready = shelf.insert(&row);
                    let enters = match known {
                        None => true,
                        Some(SandboxState::Starting) if warm => {
                            // The same sandbox has become ready: what it is stays what it was.
                            row = rows[&row.id].clone();
                            // The shelf was told the new values; tell it again what the row is.
                            shelf.forget(row.id);
                            row.state = SandboxState::Warm;
                            shelf.insert(&row);
                            true
                        }
                        Some(_) => false,
                    };
                    prop_assert_eq!(ready, enters && warm);
                    if enters { rows.insert(row.id, row); }
                }
                Op::Claim { repo, warmup, tip, previous, now } => {
                    let (allowed, tip) = (images(if previous { &[3, 2] } else { &[3] }), tip.map(commit));
                    let want = Want {
                        warmup: warmup.map(WarmupId::from_u128),
                        tip: tip.as_ref(),
                        ..want(&repos[repo], &allowed, now)
                    };
                    let expected = rank(rows.values(), &want);
                    prop_assert_eq!(shelf.claim(&want), expected);
                    if let Ok(pick) = expected {
                        let row = rows.get_mut(&pick.sandbox).unwrap();
                        prop_assert_eq!(&row.repo, &repos[repo]);
                        row.state = SandboxState::Claimed;
                        row.reserved = None;
                    }
                }
                Op::Reserve { repo, warmup, now } => {
                    let (allowed, warmup) = (images(&[3, 2]), WarmupId::from_u128(warmup));
                    let want = Want { warmup: Some(warmup), ..want(&repos[repo], &allowed, now) };
                    let expected = rank(rows.values(), &want);
                    prop_assert_eq!(shelf.reserve(warmup, &want), expected.map(|p| p.sandbox));
                    if let Ok(Pick { sandbox, reserved: false }) = expected {
                        for row in rows.values_mut().filter(|r| r.repo == repos[repo] && r.reserved == Some(warmup)) {
                            if row.state == SandboxState::Warm { row.reserved = None; }
                        }
                        rows.get_mut(&sandbox).unwrap().reserved = Some(warmup);
                    }
                }
                Op::Release { warmup } => {
                    shelf.release(WarmupId::from_u128(warmup));
                    for row in rows.values_mut().filter(|r| r.state == SandboxState::Warm) {
                        if row.reserved == Some(WarmupId::from_u128(warmup)) { row.reserved = None; }
                    }
                }
                Op::Withdraw { id, force } => {
                    let id = SandboxId::from_u128(id);
                    let why = if force { RetireReason::Unhealthy } else { RetireReason::AboveTarget };
                    let row = rows.get_mut(&id);
                    let held = row.as_ref().is_some_and(|r| r.state == SandboxState::Warm && r.reserved.is_some());
                    let claimed = row.as_ref().is_some_and(|r| r.state == SandboxState::Claimed);
                    let expected = !claimed && (!held || force);
                    prop_assert_eq!(shelf.withdraw(id, why), expected);
                    if let (true, Some(row)) = (expected, row) { row.state = SandboxState::Stopping; }
                }
                Op::Commit { id, commit: n } => {
                    let id = SandboxId::from_u128(id);
                    let done = shelf.set_commit(id, commit(n));
                    let row = rows.get_mut(&id).filter(|r| r.state == SandboxState::Warm);
                    prop_assert_eq!(done, row.is_some());
                    if let Some(row) = row { row.commit = Some(commit(n)); }
                }
                Op::Forget { id } => {
                    shelf.forget(SandboxId::from_u128(id));
                    rows.remove(&SandboxId::from_u128(id));
                }
                Op::PutBack { id } => {
                    if let Some(row) = rows.get_mut(&SandboxId::from_u128(id)).filter(|r| r.state == SandboxState::Claimed) {
                        row.state = SandboxState::Warm;
                        prop_assert!(shelf.put_back(row));
                    }
                }
            }
            for r in &repos {
                let of = |state, reserved: Option<bool>| rows.values().filter(|m| {
                    m.repo == *r && m.state == state && reserved.is_none_or(|yes| m.reserved.is_some() == yes)
                }).count();
                let expected = Counts {
                    free: of(SandboxState::Warm, Some(false)),
                    reserved: of(SandboxState::Warm, Some(true)),
                    starting: of(SandboxState::Starting, None),
                };
                prop_assert_eq!(shelf.counts(r), expected);
            }
        }
    }
}

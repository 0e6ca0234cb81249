//! Whose turn it is.

use domain::{BuildId, RepoName, Trigger};
use image_builder::{Waiting, next};
use proptest::prelude::*;

use crate::make::at;

fn repo(n: usize) -> RepoName {
    format!("acme/r{n}").parse().unwrap()
}

fn waiting(n: usize, trigger: Trigger, since: i64) -> Waiting {
    Waiting { build: BuildId::from_u128(n as u128), repo: repo(n), trigger, since: at(since) }
}

#[test]
fn first_come_first_served_but_those_whom_somebody_waits_for() {
    let line = [
        waiting(1, Trigger::Schedule, 0),
        waiting(2, Trigger::Schedule, 10),
        waiting(3, Trigger::Api, 600),
        waiting(4, Trigger::Push, 500),
    ];
    let order = |busy: &[usize]| {
        let mut left: Vec<_> = line.to_vec();
        let mut order = Vec::new();
        while let Some(turn) = next(&left, |r| busy.iter().any(|b| repo(*b) == *r)).cloned() {
            left.retain(|w| w.build != turn.build);
            order.push(turn.build);
        }
        order
    };
    assert_eq!(order(&[]), [3, 4, 1, 2].map(BuildId::from_u128));
    // One build of a repo at a time.
    assert_eq!(order(&[3, 1]), [4, 2].map(BuildId::from_u128));
    // What waits for a schedule is overtaken for a while, not for ever.
    let late = [waiting(1, Trigger::Schedule, 0), waiting(2, Trigger::Api, 1801)];
    assert_eq!(next(&late, |_| false).unwrap().build, BuildId::from_u128(1));
}

proptest! {
    /// Whatever is asked for while others wait: a repo that waits is begun before any other repo has begun twice
    /// more, once its own head start and theirs are over.
    #[test]
    fn nobody_waits_while_others_have_many_turns(repos in 2usize..12, busy_ones in 1usize..6) {
        let mut line: Vec<Waiting> = (0..repos).map(|n| waiting(n, Trigger::Schedule, 0)).collect();
        let mut turns = vec![0u32; repos];
        // Some repos ask again at once whenever they had their turn, and are always asked for by a person.
        for now in 0..(repos as i64 * 3) {
            let Some(turn) = next(&line, |_| false).cloned() else { break };
            let n: usize = turn.repo.name()[1..].parse().unwrap();
            turns[n] += 1;
            line.retain(|w| w.build != turn.build);
            if n < busy_ones {
                line.push(waiting(n, Trigger::Api, 1801 + now * 60));
            }
            let waits: Vec<_> = line.iter().filter(|w| w.trigger == Trigger::Schedule).collect();
            if !waits.is_empty() {
                prop_assert!(turns.iter().all(|t| *t <= 1), "a second turn before everybody's first: {turns:?}");
            }
        }
        prop_assert!(turns.iter().all(|t| *t >= 1), "{turns:?}");
    }
}

//! What comes of sessions: which led to merged pull requests, how long that took, how it went. Counted from the
//! records, by repo and by user; pure but for where they come from.

use std::collections::{BTreeMap, BTreeSet};

use domain::{PullRequestRecord, PullRequestState, RepoName, SessionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{SessionCount, SessionPull};
use utoipa::ToSchema;

/// What came of the sessions of somebody, or of some repo. Each pull request counts once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = OutcomeView)]
pub struct Outcome {
    /// Sessions that were started.
    pub sessions: u64,
    /// Of those, the ones with a pull request.
    pub with_pull_request: u64,
    /// Of those, the ones that led to a merged pull request: the first measure of all this.
    pub with_merged: u64,
    pub pull_requests: u64,
    pub open: u64,
    pub merged: u64,
    pub closed: u64,
    /// Of the pull requests that have ended, the share that somebody had approved.
    pub approval_rate: Option<f64>,
    /// How often the commits of one changed after it was opened, on average.
    pub revisions: Option<f64>,
    /// From the beginning of a session to its pull request, the median.
    pub seconds_to_pull_request: Option<f64>,
    /// From there to the merge, the median.
    pub seconds_to_merge: Option<f64>,
}

/// All of it, by whom and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcomes {
    pub total: Outcome,
    pub by_repo: BTreeMap<String, Outcome>,
    pub by_user: BTreeMap<String, Outcome>,
}

/// What there is of one group while it is counted.
#[derive(Default)]
struct Tally<'a> {
    sessions: u64,
    asked: BTreeSet<SessionId>,
    merged: BTreeSet<SessionId>,
    /// The first record of each pull request.
    pulls: BTreeMap<(&'a RepoName, u64), &'a SessionPull>,
}

pub fn outcomes(sessions: &[SessionCount], pulls: &[SessionPull]) -> Outcomes {
    let mut total = Tally::default();
    let (mut by_repo, mut by_user): (BTreeMap<_, Tally<'_>>, BTreeMap<_, Tally<'_>>) = Default::default();
    for SessionCount { repo, login, count } in sessions {
        let (repo, user) =
            (by_repo.entry(repo.to_string()).or_default(), by_user.entry(login.clone()).or_default());
        for tally in [&mut total, repo, user] {
            tally.sessions += count;
        }
    }
    for pull in pulls {
        let repo = by_repo.entry(pull.record.repo.to_string()).or_default();
        let user = by_user.entry(pull.login.clone()).or_default();
        for tally in [&mut total, repo, user] {
            tally.take(pull);
        }
    }
    let done = |all: BTreeMap<String, Tally<'_>>| all.into_iter().map(|(k, t)| (k, t.outcome())).collect();
    Outcomes { total: total.outcome(), by_repo: done(by_repo), by_user: done(by_user) }
}

impl<'a> Tally<'a> {
    fn take(&mut self, pull: &'a SessionPull) {
        let record = &pull.record;
        let Some(number) = record.number else { return };
        self.asked.insert(record.session);
        if record.state == PullRequestState::Merged {
            self.merged.insert(record.session);
        }
        self.pulls.entry((&record.repo, number)).or_insert(pull);
    }

    fn outcome(&self) -> Outcome {
        let all: Vec<&SessionPull> = self.pulls.values().copied().collect();
        let in_state = |state| all.iter().filter(|p| p.record.state == state).count() as u64;
        let (merged, closed) = (in_state(PullRequestState::Merged), in_state(PullRequestState::Closed));
        let ended = || {
            all.iter()
                .filter(|p| matches!(p.record.state, PullRequestState::Merged | PullRequestState::Closed))
        };
        let approved = ended().filter(|p| p.record.reviews.approvals() > 0).count();
        let share = |part: f64, of: u64| (of > 0).then(|| part / of as f64);
        let revisions: u32 = all.iter().map(|p| p.record.revisions).sum();
        Outcome {
            sessions: self.sessions,
            with_pull_request: self.asked.len() as u64,
            with_merged: self.merged.len() as u64,
            pull_requests: all.len() as u64,
            open: in_state(PullRequestState::Open),
            merged,
            closed,
            approval_rate: share(approved as f64, merged + closed),
            revisions: share(f64::from(revisions), all.len() as u64),
            seconds_to_pull_request: median(
                all.iter().filter_map(|p| between(Some(p.began), opened(&p.record))),
            ),
            seconds_to_merge: median(
                all.iter().filter_map(|p| between(opened(&p.record), p.record.merged_at)),
            ),
        }
    }
}

fn opened(record: &PullRequestRecord) -> Option<Timestamp> {
    record.opened_at
}

/// Seconds; those of two clocks may be a little off.
fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<f64> {
    Some(to?.duration_since(from?).as_secs_f64().max(0.0))
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => None,
        n if n % 2 == 1 => Some(all[middle]),
        _ => Some(f64::midpoint(all[middle - 1], all[middle])),
    }
}

#[cfg(test)]
mod tests {
    use domain::{PullRequestId, Review, Reviews, Verdict};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pull(session: u128, login: &str, number: u64, state: PullRequestState) -> SessionPull {
        let mut reviews = Reviews::default();
        if state == PullRequestState::Merged {
            let bea =
                Review { reviewer: "bea".into(), verdict: Verdict::Approved, submitted_at: at(1), id: 1 };
            assert!(reviews.absorb(&bea));
        }
        let record = PullRequestRecord {
            id: PullRequestId::new(),
            session: SessionId::from_u128(session),
            repo: "acme/api".parse().unwrap(),
            state,
            number: Some(number),
            url: None,
            head: "x".parse().unwrap(),
            head_commit: None,
            base: "main".parse().unwrap(),
            title: String::new(),
            body: String::new(),
            draft: false,
            author: login.into(),
            created_at: at(100),
            error: None,
            opened_at: Some(at(100 + number.cast_signed())),
            merged_at: (state == PullRequestState::Merged).then(|| at(1100 + number.cast_signed())),
            life: None,
            reviews,
            asked: Default::default(),
            said: None,
            rewording: None,
            trace: None,
            revisions: 1,
        };
        SessionPull { record, login: login.into(), began: at(40) }
    }

    #[test]
    fn what_came_of_sessions() {
        use PullRequestState::{Closed, Merged, Open};
        let count = |login: &str, count| SessionCount {
            repo: "acme/api".parse().unwrap(),
            login: login.into(),
            count,
        };
        let pulls = [
            pull(1, "ada", 1, Merged),
            // Asked for twice: one pull request.
            pull(1, "ada", 1, Merged),
            pull(2, "ada", 2, Closed),
            pull(3, "bob", 3, Open),
        ];
        let all = outcomes(&[count("ada", 4), count("bob", 1)], &pulls);
        let Outcome { sessions, with_pull_request, with_merged, pull_requests, merged, closed, open, .. } =
            all.total;
        assert_eq!((sessions, with_pull_request, with_merged), (5, 3, 1));
        assert_eq!((pull_requests, merged, closed, open), (3, 1, 1, 1));
        assert_eq!(all.total.approval_rate, Some(0.5));
        assert_eq!(
            (all.total.seconds_to_pull_request, all.total.seconds_to_merge),
            (Some(62.0), Some(1000.0))
        );
        assert_eq!(all.by_user["bob"].approval_rate, None);
        assert_eq!((all.by_user["ada"].with_merged, all.by_user["ada"].revisions), (1, Some(1.0)));
        assert_eq!(all.by_repo["acme/api"], all.total);
        assert_eq!(outcomes(&[], &[]), Outcomes::default());
    }
}

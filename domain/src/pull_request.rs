//! The life of a pull request, from reports that come late, twice and in the wrong order.
//!
//! Reports are ordered by the forge's own `updated_at`, never by arrival. What is closed stays closed until the forge says
//! `reopened`; what is merged stays merged. A report of something open that comes while the pull request is closed
//! is kept aside: should `reopened` follow, it may be the newer one of the two. However deliveries of different seconds are
//! repeated and shuffled, the end is the same; a property test holds that.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::PullRequestState;
use crate::ports::PullRequestView;

/// What a reviewer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approved,
    ChangesRequested,
    Commented,
    /// Taken back by a maintainer.
    Dismissed,
}

/// One review, as the forge reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    pub reviewer: String,
    pub verdict: Verdict,
    pub submitted_at: Timestamp,
    /// The forge's number for it.
    pub id: u64,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    pub state: PullRequestState,
    pub draft: bool,
    pub title: String,
    pub head_commit: String,
    pub updated_at: Timestamp,
    pub merged_at: Option<Timestamp>,
    pub how: How,
}

/// How a report came. Only the last two may open what is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Told,
    /// The forge told `reopened`.
    Reopened,
    /// The forge was asked: the truth of that moment.
    Asked,
}

impl News {
    /// From the forge's view of it.
    pub fn of(view: &PullRequestView, how: How) -> Self {
        Self {
            state: view.state,
            draft: view.draft,
            title: view.title.clone(),
            head_commit: view.head_commit.to_string(),
            updated_at: view.updated_at,
            merged_at: view.merged_at,
            how,
        }
    }

    /// What orders reports. Forges stamp whole seconds: within one, what is further on in life is the later one.
    fn rank(&self) -> (Timestamp, u8) {
        let further = match (self.state, self.how) {
            (PullRequestState::Merged, _) => 3,
            (PullRequestState::Closed, _) => 1,
            (_, How::Reopened) => 2,
            _ => 0,
        };
        (self.updated_at, further)
    }
}

/// What is known of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    now: News,
    /// The newest open report that came while it was closed.
    #[serde(default)]
    aside: Option<News>,
}

/// What a report did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absorbed {
    /// It is what is known now.
    Taken,
    /// It is older than what is known, or known, or waits for a `reopened`.
    Stale,
}

impl Life {
    pub fn begin(first: News) -> Self {
        Self { now: first, aside: None }
    }

    /// What is believed now.
    pub fn now(&self) -> &News {
        &self.now
    }

    #[must_use]
    pub fn absorb(&mut self, news: News) -> Absorbed {
        use PullRequestState::{Merged, Open};
        let same = News { how: self.now.how, ..news.clone() } == self.now;
        if same || (self.now.state == Merged && news.state != Merged) {
            return Absorbed::Stale;
        }
        if self.now.state != Open && news.state == Open && news.how == How::Told {
            if news.rank() > self.now.rank() && self.aside.as_ref().is_none_or(|a| news.rank() >= a.rank()) {
                self.aside = Some(news);
            }
            return Absorbed::Stale;
        }
        // A merge is the end, whatever its time. Of two that are equally late the one that comes later counts.
        let merges = news.state == Merged && self.now.state != Merged;
        if !merges && news.rank() < self.now.rank() {
            return Absorbed::Stale;
        }
        self.now = news;
        self.settle();
        Absorbed::Taken
    }

    /// Takes what lay aside, now that it may be newer.
    fn settle(&mut self) {
        match &self.aside {
            Some(aside) if self.now.state == PullRequestState::Open && aside.rank() > self.now.rank() => {
                if let Some(aside) = self.aside.take() {
                    self.now = aside;
                }
            }
            Some(aside) if aside.rank() > self.now.rank() && self.now.state != PullRequestState::Merged => {}
            _ => self.aside = None,
        }
    }
}

/// The last word of each reviewer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviews(BTreeMap<String, (Timestamp, u64, String)>);

impl Reviews {
    /// Takes a review in; a comment is no verdict and does not replace one. Says whether anything changed.
    pub fn absorb(&mut self, review: &Review) -> bool {
        let word = match review.verdict {
            Verdict::Approved => "approved",
            Verdict::ChangesRequested => "changes_requested",
            Verdict::Dismissed => "dismissed",
            Verdict::Commented => return false,
        };
        // A dismissal carries the time of the review that it dismisses.
        let new = (review.submitted_at, review.id, word.to_owned());
        let dismissed = |word: &str| word == "dismissed";
        match self.0.get(&review.reviewer) {
            Some((at, id, old)) if (*at, *id, dismissed(old)) >= (new.0, new.1, dismissed(&new.2)) => false,
            _ => {
                self.0.insert(review.reviewer.clone(), new);
                true
            }
        }
    }

    pub fn approvals(&self) -> usize {
        self.0.values().filter(|(.., word)| word == "approved").count()
    }

    pub fn changes_requested(&self) -> usize {
        self.0.values().filter(|(.., word)| word == "changes_requested").count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn news(second: i64, state: PullRequestState, reopened: bool) -> News {
        News {
            state,
            draft: false,
            title: format!("t{second}"),
            head_commit: "a".repeat(40),
            updated_at: Timestamp::from_second(second).unwrap(),
            merged_at: None,
            how: if reopened { How::Reopened } else { How::Told },
        }
    }

    use PullRequestState::{Closed, Merged, Open};

    #[test]
    fn closed_is_terminal_until_reopened() {
        let mut life = Life::begin(news(1, Open, false));
        assert_eq!(life.absorb(news(5, Closed, false)), Absorbed::Taken);
        assert_eq!(life.absorb(news(5, Closed, false)), Absorbed::Stale, "repeated");
        assert_eq!(life.absorb(news(3, Open, false)), Absorbed::Stale, "late");
        assert_eq!(life.absorb(news(7, Open, false)), Absorbed::Stale, "an edit does not open it");
        assert_eq!(life.now().state, Closed);
        assert_eq!(life.absorb(news(6, Open, true)), Absorbed::Taken);
        assert_eq!((life.now().state, life.now().title.as_str()), (Open, "t7"), "the edit was the later one");
        assert_eq!(life.absorb(news(9, Merged, false)), Absorbed::Taken);
        assert_eq!(life.absorb(news(10, Open, true)), Absorbed::Stale, "merged is for good");
    }

    #[test]
    fn within_one_second_what_is_further_on_counts() {
        for order in [[Open, Closed], [Closed, Open]] {
            let mut life = Life::begin(news(4, order[0], false));
            let _ = life.absorb(news(4, order[1], false));
            assert_eq!(life.now().state, Closed);
        }
    }

    /// Asking is what repairs deliveries that were missed – and does not undo a closing of the same second.
    #[test]
    fn asking_repairs_what_was_missed() {
        let asked = |second, state| News { how: How::Asked, ..news(second, state, false) };
        let mut life = Life::begin(news(4, Closed, false));
        assert_eq!(life.absorb(asked(4, Open)), Absorbed::Stale);
        assert_eq!(life.absorb(asked(9, Open)), Absorbed::Taken);
        assert_eq!(life.absorb(news(9, Closed, false)), Absorbed::Taken);
        assert_eq!(life.absorb(asked(9, Closed)), Absorbed::Stale, "known");
        assert_eq!(life.absorb(asked(11, Merged)), Absorbed::Taken);
        assert_eq!(life.now().state, Merged);
    }

    /// Two changes within one second, in order: the second one counts.
    #[test]
    fn within_one_second_the_later_arrival_counts() {
        let mut life = Life::begin(news(4, Open, false));
        let second = News { title: "second".into(), ..news(4, Open, false) };
        assert_eq!(life.absorb(second.clone()), Absorbed::Taken);
        assert_eq!(life.absorb(second), Absorbed::Stale);
        assert_eq!(life.now().title, "second");
    }

    #[test]
    fn the_last_word_of_each_reviewer_counts() {
        let review = |reviewer: &str, verdict, second, id| Review {
            reviewer: reviewer.into(),
            verdict,
            submitted_at: Timestamp::from_second(second).unwrap(),
            id,
        };
        let mut reviews = Reviews::default();
        assert!(reviews.absorb(&review("bo", Verdict::Approved, 5, 2)));
        assert!(!reviews.absorb(&review("bo", Verdict::ChangesRequested, 3, 1)), "older");
        assert!(!reviews.absorb(&review("bo", Verdict::Commented, 9, 3)), "no verdict");
        assert!(!reviews.absorb(&review("bo", Verdict::Approved, 5, 2)), "repeated");
        assert_eq!((reviews.approvals(), reviews.changes_requested()), (1, 0));
        assert!(reviews.absorb(&review("bo", Verdict::Dismissed, 5, 2)));
        assert!(!reviews.absorb(&review("bo", Verdict::Approved, 5, 2)), "dismissed stays so");
        assert_eq!(reviews.approvals(), 0);
    }

    /// A life as a forge would tell it: times never go back, what is closed opens by `reopened` alone.
    fn lives() -> impl Strategy<Value = Vec<News>> {
        prop::collection::vec((0..6u8, 1..3i64), 1..12).prop_map(|steps| {
            let (mut at, mut state, mut told) = (10, Open, vec![news(10, Open, false)]);
            for (step, pause) in steps {
                at += pause;
                let reopens = state == Closed && step == 0;
                state = match (state, step) {
                    (Merged, _) => Merged,
                    (Closed, 0) => Open,
                    (Open, 1) => Closed,
                    (Open, 2) => Merged,
                    (same, _) => same,
                };
                told.push(news(at, state, reopens));
            }
            told
        })
    }

    proptest! {
        /// Shuffled and repeated as you like: the end is the same as in order.
        #[test]
        fn the_order_of_arrival_decides_nothing(
            (told, order) in lives().prop_flat_map(|told| {
                let twice: Vec<usize> = (0..told.len()).chain(0..told.len()).collect();
                (Just(told), Just(twice).prop_shuffle())
            })
        ) {
            let mut life = Life::begin(told[order[0]].clone());
            for at in &order[1..] {
                let _ = life.absorb(told[*at].clone());
            }
            let last = told.last().unwrap();
            prop_assert_eq!(life.now().state, last.state);
            prop_assert_eq!(life.now().updated_at, last.updated_at);
        }
    }
}

//! Who says how many: the planner, or one of the simple rules that it is measured against. All of them are carried out
//! by the same plan.

use std::collections::VecDeque;

use domain::{PoolPolicy, Window};
use jiff::{SignedDuration, Timestamp};

use crate::forecast::Lead;
use crate::history::{History, minute_of};

/// See the file's own words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The policy as it is given.
    Plan,
    /// Always this many.
    Fixed(u32),
    /// As a horizontal autoscaler does it: sessions and warm members together, of which this part shall be in use.
    /// Rises at once, falls to the highest wish of the last five minutes.
    Utilisation(f64),
    /// As many as an exponentially weighted rate (half-life ten minutes) brings in one lead time, times this.
    Ewma(f64),
    /// This many on working days from 8 to 19 o'clock by the zone of the policy's first window, one otherwise.
    Cron(u32),
}

/// What a rule may look at.
pub struct Seen<'a> {
    pub history: &'a History,
    pub lead: Lead,
    pub sessions: u32,
    pub now: Timestamp,
}

/// What a rule remembers of a repo.
#[derive(Debug, Default)]
pub struct State {
    wishes: VecDeque<(Timestamp, u32)>,
}

impl Rule {
    pub(super) fn policy(self, given: &PoolPolicy, seen: &Seen<'_>, state: &mut State) -> PoolPolicy {
        let members = match self {
            Self::Plan => return given.clone(),
            Self::Cron(n) => return cron(given, n),
            Self::Fixed(n) => n,
            Self::Utilisation(part) => {
                let total = (f64::from(seen.sessions) / part).ceil() as u32;
                state.highest(seen.now, total.saturating_sub(seen.sessions).max(1))
            }
            Self::Ewma(factor) => (ewma(seen) * seen.lead.seconds / 60.0 * factor).ceil() as u32,
        };
        exactly(given, members)
    }
}

fn exactly(given: &PoolPolicy, members: u32) -> PoolPolicy {
    let (min, max) = (members, members);
    PoolPolicy { min, max, target_hit_rate: None, windows: Vec::new(), idle_after: None, ..given.clone() }
}

fn cron(given: &PoolPolicy, members: u32) -> PoolPolicy {
    let zone = given.windows.first().map_or_else(|| "UTC".to_owned(), |w| w.zone.clone());
    let days = [true, true, true, true, true, false, false];
    let window = Window { days, from: 8 * 60, to: 19 * 60, zone, min: members };
    PoolPolicy { windows: vec![window], max: members.max(1), ..exactly(given, 1) }
}

impl State {
    fn highest(&mut self, now: Timestamp, wish: u32) -> u32 {
        self.wishes.push_back((now, wish));
        while self
            .wishes
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > SignedDuration::from_mins(5))
        {
            self.wishes.pop_front();
        }
        self.wishes.iter().map(|(_, n)| *n).max().unwrap_or(wish)
    }
}

/// Claims a minute.
fn ewma(seen: &Seen<'_>) -> f64 {
    const MINUTES: usize = 90;
    let keep = 0.5f64.powf(1.0 / 10.0);
    let minutes: [u32; MINUTES] = seen.history.last_minutes(minute_of(seen.now) + 1);
    minutes.iter().fold(0.0, |rate, n| rate * keep + f64::from(*n) * (1.0 - keep))
}

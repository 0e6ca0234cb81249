//! When to look at a repo's branch.
//!
//! Promises: a tick is named by its moment in the schedule and is answered once, whatever the clock does within a
//! day; ticks that passed while nobody looked are answered by one, which says how many it stands for. Repos with
//! the same schedule are spread over the time to its next tick, the same way each time. A schedule is meant in its
//! time zone: where the clocks go forward over a fixed time it comes at the first moment after the gap, where they go
//! back a fixed time comes once and an interval goes on.
//! Left to others: storing [`Tick::at`] as the next call's `last_tick`, before the build begins.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use domain::{CadenceRecord, Error, ImageRecord, PushNote, RepoName, RepoSpec, Result, Trigger};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};
use sha2::{Digest as _, Sha256};

/// A tick is put off by at most this much, so that `0 3 * * *` still means early in the fourth hour.
const MAX_SPREAD: SignedDuration = SignedDuration::from_mins(15);
/// A clock that went back by more than this, and by more than two ticks, was wrong before: the ticks it had
/// answered don't count any more.
const MAX_STEP_BACK: SignedDuration = SignedDuration::from_hours(24);
/// Missed ticks are counted up to this.
const MAX_MISSED: u32 = 1000;
/// A push is looked at when no other has come for this long, so that a burst is one look.
const PUSH_QUIET: SignedDuration = SignedDuration::from_secs(5);
/// And at the latest this long after the first of a burst.
const PUSH_AT_MOST: SignedDuration = SignedDuration::from_secs(60);

/// A cron expression of five fields in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// In UTC; see [`Schedule::of`].
impl FromStr for Schedule {
    type Err = Error;

    /// `Invalid` for anything but five fields (or a nickname such as `@hourly`), and for a schedule that never
    /// comes, such as the 30th of February.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("schedule `{text}`: {why}"));
        let fields: Vec<_> = text.split_whitespace().collect();
        let nickname = fields.len() == 1 && fields[0].starts_with('@');
        if fields.len() != 5 && !nickname {
            return Err(wrong("expected five fields: minute, hour, day of month, month, day of week"));
        }
        if fields.iter().any(|f| f.split(',').any(str::is_empty)) {
            return Err(wrong("a list has an empty entry"));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|e| wrong("it is not a cron expression").caused_by(e))?;
        let years = [2024, 2026].map(|y| jiff::civil::date(y, 1, 1).at(0, 0, 0, 0));
        if years.iter().all(|from| cron.find_next_occurrence(from, true).is_err()) {
            return Err(wrong("it never comes"));
        }
        Ok(Self { cron, zone: TimeZone::UTC })
    }
}

impl Schedule {
    /// The schedule of a repo, in its own time zone. `Invalid` where either can't be read.
    pub fn of(spec: &RepoSpec) -> Result<Self> {
        Self::in_zone(&spec.image.schedule, &spec.image.timezone)
    }

    pub fn in_zone(text: &str, zone: &str) -> Result<Self> {
        let schedule: Self = text.parse()?;
        // The database is built in: a minimal host has none.
        let zone = TimeZoneDatabase::bundled()
            .get(zone)
            .map_err(|e| Error::invalid(format!("time zone `{zone}`: not a known one")).caused_by(e))?;
        Ok(Self { zone, ..schedule })
    }

    /// The first tick after `at`. This defines the ticks; all else here is derived from it.
    pub fn after(&self, at: Timestamp) -> Option<Timestamp> {
        self.cron.find_next_occurrence(&self.local(at), false).ok().map(|z| z.timestamp())
    }

    /// The last tick that is not after `at`.
    pub fn until(&self, at: Timestamp) -> Option<Timestamp> {
        // Backwards the parser sees the changes of the clock otherwise than forwards: it may name a moment that is no
        // tick, or pass over one. What it names is only where the search begins.
        let mut guess = self.local(at);
        let mut tick = loop {
            let found = self.cron.find_previous_occurrence(&guess, true).ok()?.timestamp();
            let before = found.checked_sub(SignedDuration::from_secs(1)).ok()?;
            if self.after(before) == Some(found) {
                break found;
            }
            guess = self.local(before);
        };
        while let Some(next) = self.after(tick).filter(|next| *next <= at) {
            tick = next;
        }
        Some(tick)
    }

    fn before(&self, at: Timestamp) -> Option<Timestamp> {
        self.until(at.checked_sub(SignedDuration::from_secs(1)).ok()?)
    }

    /// `at` in the schedule's zone, whole seconds.
    fn local(&self, at: Timestamp) -> Zoned {
        let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
        whole.to_zoned(self.zone.clone())
    }

    /// From one tick to the next.
    fn gap(&self, tick: Timestamp) -> SignedDuration {
        self.after(tick).map_or(MAX_STEP_BACK, |next| next.duration_since(tick))
    }

    /// When a repo answers a tick: at the tick or later, and before the next one.
    pub fn answered_at(&self, tick: Timestamp, repo: &RepoName) -> Timestamp {
        let room = self.gap(tick).min(MAX_SPREAD).as_millis();
        let put_off = room * i128::from(part_of_65536(repo)) / 65536;
        let put_off = i64::try_from(put_off).map_or(SignedDuration::ZERO, SignedDuration::from_millis);
        tick.checked_add(put_off).unwrap_or(tick)
    }

    /// The last tick that `repo` answers at or before `now`.
    fn last_answered(&self, now: Timestamp, repo: &RepoName) -> Option<Timestamp> {
        let tick = self.until(now)?;
        if self.answered_at(tick, repo) <= now { Some(tick) } else { self.before(tick) }
    }

    /// Ticks between two ticks, without either.
    fn between(&self, from: Timestamp, to: Timestamp) -> u32 {
        let ticks = std::iter::successors(self.after(from), |t| self.after(*t));
        ticks.take_while(|t| *t < to).take(MAX_MISSED as usize).count() as u32
    }
}

/// A repo's fixed place among all repos.
fn part_of_65536(repo: &RepoName) -> u16 {
    let hash = Sha256::digest(repo.as_str().as_bytes());
    u16::from_be_bytes([hash[0], hash[1]])
}

/// How the builds of a repo stand.
#[derive(Debug, Clone, Copy, Default)]
pub struct RepoBuildState<'a> {
    /// [`Tick::at`] of the last answer that was acted upon.
    pub last_tick: Option<Timestamp>,
    /// Builds that failed in a row, and when the last of them ended.
    pub failures: u32,
    pub last_failure: Option<Timestamp>,
    pub current: Option<&'a ImageRecord>,
    /// A build of it is queued or runs.
    pub running: bool,
}

impl<'a> RepoBuildState<'a> {
    /// As it is stored. A repo whose row says nothing of ticks was last looked at when its image was verified.
    pub fn of(cadence: &CadenceRecord, current: Option<&'a ImageRecord>, running: bool) -> Self {
        Self {
            last_tick: cadence.last_tick.or(current.map(|i| i.verified_at)),
            failures: cadence.failures,
            last_failure: cadence.last_failure,
            current,
            running,
        }
    }
}

/// A reason to look at the branch now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    pub trigger: Trigger,
    /// The tick that this answers: the `last_tick` of the next call.
    pub at: Timestamp,
    /// Ticks before it that nobody answered (counted up to 1000).
    pub missed: u32,
    /// In words.
    pub why: String,
}

/// Whether a repo is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    Now(Tick),
    Later {
        at: Timestamp,
        why: String,
    },
    /// It is being built; one build of a repo at a time.
    Running,
}

/// How long to wait after so many builds failed in a row: 1, 2, 4, … minutes, at most 30.
pub fn retry_after(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => Duration::from_secs(60 << (n - 1).min(5)).min(Duration::from_secs(30 * 60)),
    }
}

/// Whether a push that was heard of is to be looked at now. A burst of pushes is one look.
pub fn push_due(now: Timestamp, push: &PushNote) -> bool {
    let since = |at: Timestamp| now.duration_since(at);
    // One from the future was noted by a clock that was wrong.
    since(push.last) >= PUSH_QUIET || since(push.first) >= PUSH_AT_MOST || since(push.last).is_negative()
}

/// Whether to look at a repo's branch now. `schedule` is [`Schedule::of`] its spec.
pub fn due(now: Timestamp, spec: &RepoSpec, schedule: &Schedule, state: &RepoBuildState<'_>) -> Result<Due> {
    if state.running {
        return Ok(Due::Running);
    }
    let Some(latest) = schedule.last_answered(now, &spec.name) else {
        return Err(Error::invalid(format!("schedule `{}`: it has never come", spec.image.schedule)));
    };
    let went_back = state.last_tick.filter(|last| {
        let back = last.duration_since(now);
        back > MAX_STEP_BACK && back > schedule.gap(latest) * 2
    });
    let last = state.last_tick.filter(|_| went_back.is_none());
    let tick = last.map_or(latest, |last| last.max(latest));
    let missed = last.map_or(0, |last| schedule.between(last, tick));
    let now_because = |trigger, why: String| Ok(Due::Now(Tick { trigger, at: tick, missed, why }));

    if state.failures > 0 {
        let wait = SignedDuration::try_from(retry_after(state.failures)).unwrap_or(SignedDuration::ZERO);
        // A failure that lies further ahead than the wait is long was noted by a clock that was wrong.
        let since = state.last_failure.filter(|f| f.duration_since(now) <= wait);
        if let Some(at) = since.and_then(|f| f.checked_add(wait).ok()).filter(|at| now < *at) {
            return Ok(Due::Later { at, why: format!("{} builds failed in a row", state.failures) });
        }
        let trigger = if state.current.is_some() { Trigger::Schedule } else { Trigger::Missing };
        return now_because(trigger, format!("again after {} failed", state.failures));
    }
    if state.current.is_none() {
        return now_because(Trigger::Missing, "there is no image".into());
    }
    match (last, went_back) {
        (_, Some(from)) => {
            now_because(Trigger::Schedule, format!("the clock went back: the last tick was at {from}"))
        }
        (None, None) => now_because(Trigger::Schedule, "the first look".into()),
        (Some(last), None) if tick > last => match missed {
            0 => now_because(Trigger::Schedule, "its time has come".into()),
            n => now_because(Trigger::Schedule, format!("its time has come; {n} earlier ticks were missed")),
        },
        (Some(last), None) => {
            let next =
                schedule.after(last).map_or(Timestamp::MAX, |next| schedule.answered_at(next, &spec.name));
            Ok(Due::Later { at: next, why: "its next tick".into() })
        }
    }
}

//! The line of builds, in memory: for each repo what runs and what waits, and which of those that wait begins next.
//!
//! Nothing here writes or starts anything. Whoever changes a lane writes its row under the same lock.

use std::collections::HashMap;

use domain::{BuildId, BuildRecord, BuildState, CadenceRecord, ImageRecord, RepoName, RepoSpec, Result};
use image_builder::{Due, RepoBuildState, Schedule, Tick, Waiting};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

/// The builds of one repo: one runs, one may wait.
pub(super) struct Lane {
    pub running: Option<Running>,
    pub waiting: Option<Place>,
    pub cadence: CadenceRecord,
    /// Its branch is being looked at.
    pub looking: bool,
    /// The schedule and what it was read from.
    schedule: Option<(String, String, Schedule)>,
    /// When it was found not to be due, and until when that holds for the same state.
    quiet: Option<(Timestamp, Timestamp, Standing)>,
}

/// What decides, beside the schedule, whether a repo is due.
type Standing = (Option<Timestamp>, u32, Option<Timestamp>, bool);

pub(super) struct Running {
    pub record: BuildRecord,
    /// Ends it before its time.
    pub stop: CancellationToken,
}

/// A place in the line.
pub(super) struct Place {
    pub record: BuildRecord,
    /// Since when the repo stands in the line.
    pub since: Timestamp,
    /// Its row is written; only then may it begin.
    pub written: bool,
}

impl Lane {
    pub fn new(cadence: CadenceRecord) -> Self {
        Self { running: None, waiting: None, cadence, looking: false, schedule: None, quiet: None }
    }

    /// Something of it is queued or runs.
    pub fn is_busy(&self) -> bool {
        self.looking || self.waiting.is_some() || self.running.is_some()
    }

    /// Queues a request. The newest wins: what waited before is answered, as superseded, and its place is kept.
    pub fn queue(&mut self, record: BuildRecord, now: Timestamp) -> Option<BuildRecord> {
        let (new, created_at) = (record.id, record.created_at);
        let old = self.waiting.take();
        let since = old.as_ref().map_or(created_at, |p| p.since);
        self.waiting = Some(Place { record, since, written: false });
        old.map(|place| BuildRecord {
            state: BuildState::Superseded,
            superseded_by: Some(new),
            ended_at: Some(now),
            ..place.record
        })
    }

    /// The record of a build of this lane that has not ended.
    pub fn find(&mut self, id: BuildId) -> Option<&mut BuildRecord> {
        let running = self.running.as_mut().map(|r| &mut r.record);
        let waiting = self.waiting.as_mut().map(|p| &mut p.record);
        running.into_iter().chain(waiting).find(|r| r.id == id)
    }

    /// The schedule of its repo, read anew only where it was changed.
    pub fn schedule(&mut self, spec: &RepoSpec) -> Result<&Schedule> {
        let (text, zone) = (&spec.image.schedule, &spec.image.timezone);
        if !self.schedule.as_ref().is_some_and(|(t, z, _)| t == text && z == zone) {
            (self.schedule, self.quiet) = (None, None);
        }
        let read = match self.schedule.take() {
            Some(read) => read,
            None => (text.clone(), zone.clone(), Schedule::of(spec)?),
        };
        Ok(&self.schedule.insert(read).2)
    }

    /// The tick that is to be answered now, if any. Asked every few seconds, and seldom worth a look at the schedule.
    ///
    /// Errors: `Invalid` where the schedule can't be read.
    pub fn due(
        &mut self,
        now: Timestamp,
        spec: &RepoSpec,
        current: Option<&ImageRecord>,
    ) -> Result<Option<Tick>> {
        // What was found by another schedule is forgotten here.
        self.schedule(spec)?;
        let state = RepoBuildState::of(&self.cadence, current, self.is_busy());
        let standing = (state.last_tick, state.failures, state.last_failure, current.is_some());
        if let Some((from, until, then)) = &self.quiet
            && (*from..*until).contains(&now)
            && *then == standing
        {
            return Ok(None);
        }
        match image_builder::due(now, spec, self.schedule(spec)?, &state)? {
            Due::Now(tick) => Ok(Some(tick)),
            Due::Running => Ok(None),
            Due::Later { at, .. } => {
                // A tick of the future was noted by a clock that was wrong, and when that shows is another question.
                let sound = state.last_tick.is_none_or(|tick| tick <= now);
                self.quiet = sound.then_some((now, at, standing));
                Ok(None)
            }
        }
    }
}

/// All lanes.
pub(super) struct Lanes {
    all: HashMap<RepoName, Lane>,
    /// Builds that may run at once.
    at_once: usize,
    /// The most that ever did.
    most: usize,
}

impl Lanes {
    pub fn new(cadences: Vec<CadenceRecord>, at_once: usize) -> Self {
        let all = cadences.into_iter().map(|c| (c.repo.clone(), Lane::new(c))).collect();
        Self { all, at_once, most: 0 }
    }

    pub fn get(&self, repo: &RepoName) -> Option<&Lane> {
        self.all.get(repo)
    }

    pub fn get_mut(&mut self, repo: &RepoName) -> Option<&mut Lane> {
        self.all.get_mut(repo)
    }

    pub fn of(&mut self, repo: &RepoName, now: Timestamp) -> &mut Lane {
        self.all.entry(repo.clone()).or_insert_with(|| Lane::new(CadenceRecord::new(repo.clone(), now)))
    }

    pub fn set_at_once(&mut self, at_once: usize) {
        self.at_once = at_once;
    }

    pub fn most(&self) -> usize {
        self.most
    }

    pub fn waiting(&self) -> usize {
        self.all.values().filter(|l| l.waiting.is_some()).count()
    }

    pub fn running(&self) -> usize {
        self.all.values().filter(|l| l.running.is_some()).count()
    }

    /// Moves the build whose turn it is from waiting to running, where there is room for one.
    pub fn start_next(&mut self, parent: &CancellationToken) -> Option<(BuildRecord, CancellationToken)> {
        if self.running() >= self.at_once {
            return None;
        }
        let line: Vec<Waiting> = self
            .all
            .values()
            .filter(|l| l.running.is_none())
            .filter_map(|l| l.waiting.as_ref().filter(|p| p.written))
            .map(|p| Waiting {
                build: p.record.id,
                repo: p.record.repo.clone(),
                trigger: p.record.trigger,
                since: p.since,
            })
            .collect();
        let turn = image_builder::next(&line, |_| false)?;
        let lane = self.all.get_mut(&turn.repo)?;
        let record = lane.waiting.take()?.record;
        let stop = parent.child_token();
        lane.running = Some(Running { record: record.clone(), stop: stop.clone() });
        self.most = self.most.max(self.running());
        Some((record, stop))
    }

    /// Takes what has waited past its deadline out of the line, and tells what runs past its own to stop.
    pub fn overdue(&mut self, now: Timestamp) -> Vec<BuildRecord> {
        let mut given_up = Vec::new();
        for lane in self.all.values_mut() {
            if let Some(running) = lane.running.as_ref().filter(|r| r.record.deadline < now) {
                running.stop.cancel();
            }
            if let Some(place) = lane.waiting.take_if(|p| p.written && p.record.deadline < now) {
                given_up.push(place.record);
            }
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Trigger;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn ask(lanes: &mut Lanes, repo: &str, now: i64) -> Option<BuildRecord> {
        let repo: RepoName = repo.parse().expect("name");
        let record = BuildRecord::queued(repo.clone(), Trigger::Schedule, None, at(now), at(now + 100));
        let lane = lanes.of(&repo, at(now));
        let old = lane.queue(record, at(now));
        lane.waiting.as_mut().expect("it waits").written = true;
        old
    }

    /// F24, F36: what waits past its deadline leaves the line, what runs past its own is told to stop.
    #[test]
    fn nothing_waits_or_runs_for_ever() {
        let stop = CancellationToken::new();
        let mut lanes = Lanes::new(Vec::new(), 1);
        ask(&mut lanes, "acme/a", 0);
        ask(&mut lanes, "acme/b", 50);
        let (running, token) = lanes.start_next(&stop).expect("the first");
        assert!(lanes.start_next(&stop).is_none(), "one at once");
        assert!(lanes.overdue(at(100)).is_empty() && !token.is_cancelled());
        assert!(lanes.overdue(at(101)).is_empty());
        assert!(token.is_cancelled(), "what runs is told; its lane is freed when it has ended");
        assert_eq!(lanes.running(), 1);
        let gone = lanes.overdue(at(151));
        assert_eq!(gone.iter().map(|r| r.repo.as_str()).collect::<Vec<_>>(), ["acme/b"]);
        assert_ne!(gone[0].id, running.id);
        assert!(lanes.get(&gone[0].repo).is_some_and(|l| !l.is_busy()));
    }

    /// The newest request takes the place of the older one, and a repo does not lose its turn by asking again.
    #[test]
    fn the_newest_wins_and_keeps_the_place() {
        let stop = CancellationToken::new();
        let mut lanes = Lanes::new(Vec::new(), 2);
        ask(&mut lanes, "acme/a", 0);
        ask(&mut lanes, "acme/b", 1);
        let old = ask(&mut lanes, "acme/a", 2).expect("superseded");
        assert_eq!((old.state, old.ended_at), (BuildState::Superseded, Some(at(2))));
        let first = lanes.start_next(&stop).expect("one").0;
        assert_eq!((first.repo.as_str(), Some(first.id)), ("acme/a", old.superseded_by));
        // One of a repo at a time: its next request waits, others go on.
        ask(&mut lanes, "acme/a", 3);
        assert_eq!(lanes.start_next(&stop).expect("two").0.repo.as_str(), "acme/b");
        assert!(lanes.start_next(&stop).is_none());
    }

    #[test]
    fn what_is_not_written_does_not_begin() {
        let stop = CancellationToken::new();
        let mut lanes = Lanes::new(Vec::new(), 2);
        let repo: RepoName = "acme/a".parse().expect("name");
        let record = BuildRecord::queued(repo.clone(), Trigger::Api, None, at(0), at(100));
        lanes.of(&repo, at(0)).queue(record, at(0));
        assert!(lanes.start_next(&stop).is_none());
        assert!(lanes.overdue(at(1000)).is_empty(), "its request answers for it");
    }

    fn spec(schedule: &str) -> RepoSpec {
        let text = format!(
            "{{state_dir: /s, repos: [{{name: acme/a, url: /a.git, image: {{base: b, schedule: '{schedule}'}}}}]}}"
        );
        let config =
            config::Config::parse(&text, "hotbed.yaml", std::path::Path::new("/")).expect("a configuration");
        config.repos()[0].clone()
    }

    /// What a build of the repo left behind.
    fn current(spec: &RepoSpec) -> ImageRecord {
        let digest: domain::Digest = format!("sha256:{:064x}", 1).parse().expect("a digest");
        let built = image_builder::Built {
            image: domain::ImageId::from_u128(1),
            commit: format!("{:040x}", 1).parse().expect("a commit"),
            captured: domain::ports::Captured { digest: digest.clone(), size: 1 },
            fingerprint: "f".into(),
            base_digest: digest,
            parent: None,
            decision: "first".into(),
            agent_version: "1".into(),
            phases: Vec::new(),
            warnings: Vec::new(),
        };
        image_builder::promote(at(0), &built, BuildId::from_u128(1), spec, &[]).remove(0)
    }

    /// What is remembered changes no answer: through a day of ticks, failures, a clock that goes back, and a schedule that
    /// is changed, a lane answers as one does that remembers nothing.
    #[test]
    fn what_is_remembered_changes_no_answer() {
        let (mut spec_now, other) = (spec("*/30 * * * *"), spec("0 3 * * 1-5"));
        let image = current(&spec_now);
        let mut lane = Lane::new(CadenceRecord::new(spec_now.name.clone(), at(0)));
        let (mut now, mut answered) = (1_700_000_000, 0);
        for step in 0..30_000 {
            now += match step {
                5_000 => -3 * 24 * 3600,
                7_000 => -600,
                // Of one workday in the week the ticks are three days apart, of the others one.
                16_000.. if step % 4_000 == 0 => -(5 * 24 + 15) * 3600,
                16_000.. => 300,
                _ => 1 + i64::from(step % 13 == 0) * 20,
            };
            match step % 997 {
                100 => (lane.cadence.failures, lane.cadence.last_failure) = (1, Some(at(now))),
                300 => (lane.cadence.failures, lane.cadence.last_failure) = (0, None),
                _ => {}
            }
            if step == 12_000 {
                spec_now = other.clone();
            }
            let current = (step % 3001 > 50).then_some(&image);
            let mut forgetful = Lane::new(lane.cadence.clone());
            let due = lane.due(at(now), &spec_now, current).expect("readable");
            assert_eq!(due, forgetful.due(at(now), &spec_now, current).expect("readable"), "step {step}");
            if let Some(tick) = due {
                answered += 1;
                lane.cadence.last_tick = Some(tick.at);
            }
        }
        assert!(answered > 20, "{answered}");
    }
}

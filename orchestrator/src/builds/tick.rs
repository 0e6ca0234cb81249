//! What causes builds: schedules, pushes, and the look at the branch that both begin with. A look that finds nothing
//! changed asks the engine nothing and leaves a `verified_at`; the rest is asked for as a build.

use std::sync::Arc;
use std::time::Duration;

use domain::ports::Mirrors;
use domain::{
    BuildRecord, BuildState, CommitId, Error, ImageRecord, ImageState, PushNote, RepoName, RepoSpec, Result,
    Trigger, wire,
};
use image_builder::{Decision, Limits};
use jiff::Timestamp;
use store::Tx;
use tracing::{debug, info, warn};

use super::{Builds, recipes};

/// A branch to look at.
struct Look {
    spec: Arc<RepoSpec>,
    trigger: Trigger,
    why: String,
}

/// What a look found.
enum Found {
    /// This image is what a build would make.
    Unchanged(Box<ImageRecord>),
    /// The image that there is stays for now; why, in words.
    Held(String),
    /// In words, what there is to do.
    Work(String),
}

impl Builds {
    /// The `image_tick` task: gives up what is overdue, looks at the branches whose time has come.
    pub async fn tick(self: &Arc<Self>) -> Result<()> {
        let now = self.clock.now();
        self.expire(now).await;
        for look in self.due(now).await? {
            let me = self.clone();
            self.tasks.spawn(async move { me.look(look).await });
        }
        Ok(())
    }

    /// Upstream was pushed to. Several pushes in a row are one look, which is taken soon after the last of them.
    ///
    /// Errors: `NotFound` for a repo that is not configured; those of the store.
    pub async fn pushed(&self, repo: &RepoName, commit: &CommitId) -> Result<()> {
        self.repos.spec(repo)?;
        let now = self.clock.now();
        let receipt = {
            let mut lanes = self.lanes();
            let cadence = &mut lanes.of(repo, now).cadence;
            let first = cadence.push.as_ref().map_or(now, |p| p.first);
            cadence.push = Some(PushNote { commit: commit.clone(), first, last: now });
            self.store.submit(Tx::new().cadence(cadence))
        };
        self.repos.note_push(repo);
        self.repos.push_poke.notify_one();
        receipt.await
    }

    /// Every state has a deadline and a way out (F24, F36).
    async fn expire(self: &Arc<Self>, now: Timestamp) {
        let given_up = self.lanes().overdue(now);
        for record in given_up {
            let why = format!("it waited for its turn until {} and did not get it", record.deadline);
            let _ = self.logs.append_line(record.id, &format!("failed: {why}")).await;
            let _ = self.logs.finish(record.id).await;
            let ended = BuildRecord {
                state: BuildState::Failed,
                error: Some(why.clone()),
                ended_at: Some(now),
                ..record
            };
            warn!(repo = %ended.repo, build = %ended.id, why, "build failed");
            self.metrics.build_ended(&ended.repo, ended.state);
            if let Err(e) = self.store.commit(Tx::new().build(&ended)).await {
                warn!(build = %ended.id, error = %e.chain(), "could not record the end of a build");
            }
        }
    }

    /// The looks that are due. Which ticks and pushes they answer is written before they begin.
    async fn due(&self, now: Timestamp) -> Result<Vec<Look>> {
        let mut looks = Vec::new();
        let mut before = Vec::new();
        let mut tx = Tx::new();
        let receipt = {
            let mut lanes = self.lanes();
            for spec in self.repos.all() {
                let current = self.repos.current_image(&spec.name);
                let lane = lanes.of(&spec.name, now);
                let cadence = lane.cadence.clone();
                let look = match pushed(now, lane) {
                    Some(why) => Some((Trigger::Push, why)),
                    None => scheduled(now, lane, &spec, current.as_ref(), &self.metrics),
                };
                let Some((trigger, why)) = look else { continue };
                lane.looking = true;
                tx = tx.cadence(&lane.cadence);
                before.push(cadence);
                looks.push(Look { spec, trigger, why });
            }
            self.store.submit(tx)
        };
        if let Err(e) = receipt.await {
            // Nothing is answered that is not written: all of it is due again.
            let mut lanes = self.lanes();
            for cadence in before {
                let lane = lanes.of(&cadence.repo.clone(), now);
                lane.looking = false;
                // A push that came in between is newer than what is put back.
                let push = lane.cadence.push.take().or(cadence.push.clone());
                lane.cadence = domain::CadenceRecord { push, ..cadence };
            }
            return Err(e);
        }
        Ok(looks)
    }

    /// Looks at a branch and asks for a build where there is something to do.
    async fn look(self: Arc<Self>, look: Look) {
        let Look { spec, trigger, why } = look;
        let _over = Looked(&self, spec.name.clone());
        let _turn = tokio::select! {
            turn = self.looks.clone().acquire_owned() => turn,
            () = self.stop.cancelled() => return,
        };
        let found = tokio::select! {
            found = self.examine(&spec) => found,
            () = self.stop.cancelled() => return,
        };
        let work = match found {
            Ok(Found::Unchanged(image)) => {
                debug!(repo = %spec.name, why, "looked at the branch: nothing changed");
                self.metrics.build_ended(&spec.name, BuildState::Unchanged);
                if let Err(e) = self.verified(&image).await {
                    warn!(repo = %spec.name, error = %e.chain(), "could not record that an image was verified");
                }
                return;
            }
            Ok(Found::Held(by)) => {
                return debug!(repo = %spec.name, why, by, "looked at the branch: nothing is to be built");
            }
            Ok(Found::Work(what)) => what,
            // The build meets the same trouble, says so in its record and counts it.
            Err(e) => e.chain(),
        };
        info!(repo = %spec.name, trigger = trigger.as_str(), why, work, "build due");
        if let Err(e) = self.request(&spec, trigger).await {
            warn!(repo = %spec.name, error = %e.chain(), "could not ask for a build");
        }
    }

    /// Compares the branch with the current image. Asks upstream for the tip, and the engine nothing: the base is
    /// taken to be the one that the image was made from, which a full build resolves anew after `max_age`.
    async fn examine(&self, spec: &RepoSpec) -> Result<Found> {
        let Some(current) = self.repos.current_image(&spec.name) else {
            return Ok(Found::Work("there is no image".into()));
        };
        let failures = self.lanes().get(&spec.name).map_or(0, |l| l.cadence.failures);
        let canary = self.repos.handed_out(&spec.name).canary;
        if failures > 0 && !current.pinned && canary.is_none() {
            return Ok(Found::Work(format!("{failures} builds failed in a row")));
        }
        let limit = Limits::default().resolve;
        let tip = tokio::time::timeout(limit, resolve(&*self.mirrors, spec));
        let tip = tip.await.unwrap_or_else(|_| Err(late(spec, limit)))?;
        if current.pinned {
            return Ok(Found::Held("the image is pinned".into()));
        }
        // One at a time, so that each gets its trial.
        if let Some(canary) = canary {
            return Ok(Found::Held(format!("{} is being tried", canary.id)));
        }
        let certificates = super::read_certificates(spec).await?;
        let secrets = self.secrets(spec).await?;
        let recipe = recipes::of_commit(&*self.mirrors, spec, &tip).await?.recipe;
        let spec = &RepoSpec { image: recipe, ..spec.clone() };
        let fingerprint =
            image_builder::fingerprint(spec, &current.base_digest, &certificates, &secrets, wire::PROTOCOL);
        let images = self.repos.images(&spec.name);
        let made_of = |i: &ImageRecord| {
            image_builder::fingerprint(spec, &i.base_digest, &certificates, &secrets, wire::PROTOCOL)
        };
        let now = self.clock.now();
        let demoted = image_builder::was_demoted(&images, &tip, made_of);
        if let Some(demoted) = demoted.filter(|_| !image_builder::is_too_old(now, spec, &current)) {
            return Ok(Found::Held(format!("{}, of the same commit, failed in sessions", demoted.id)));
        }
        match image_builder::decide(now, spec, &tip, &fingerprint, Some(&current), 0) {
            Decision::Unchanged => Ok(Found::Unchanged(Box::new(current))),
            decision => Ok(Found::Work(decision.to_string())),
        }
    }

    /// Notes that an image was found to be what a build would make, if it is still current.
    pub(super) async fn verified(&self, image: &ImageRecord) -> Result<()> {
        let now = self.clock.now();
        let plan = |images: &[ImageRecord]| {
            let still = images.iter().filter(|i| i.id == image.id && i.state == ImageState::Current);
            Ok(still.map(|i| image_builder::verified(now, i)).collect())
        };
        self.images.change(&image.repo, plan).await.map(drop)
    }
}

/// The look is over, however it ended.
struct Looked<'a>(&'a Builds, RepoName);

impl Drop for Looked<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.0.lanes().get_mut(&self.1) {
            lane.looking = false;
        }
    }
}

/// Takes a push that was heard of, if it is time to look.
fn pushed(now: Timestamp, lane: &mut super::Lane) -> Option<String> {
    if lane.looking {
        return None;
    }
    let push = lane.cadence.push.take_if(|p| image_builder::push_due(now, p))?;
    let running = lane.running.as_ref().and_then(|r| r.record.commit.as_ref());
    if running == Some(&push.commit) {
        // It is being built already.
        return None;
    }
    Some(format!("{} was pushed", push.commit.short()))
}

/// Takes the tick of a repo's schedule, if its time has come.
fn scheduled(
    now: Timestamp,
    lane: &mut super::Lane,
    spec: &RepoSpec,
    current: Option<&ImageRecord>,
    metrics: &crate::metrics::Metrics,
) -> Option<(Trigger, String)> {
    match lane.due(now, spec, current) {
        Ok(Some(tick)) => {
            lane.cadence.last_tick = Some(tick.at);
            if tick.missed > 0 {
                metrics.ticks_missed(&spec.name, tick.missed);
            }
            Some((tick.trigger, tick.why))
        }
        Ok(None) => None,
        Err(e) => {
            warn!(repo = %spec.name, error = %e.chain(), "a schedule can't be read");
            None
        }
    }
}

/// Brings the mirror up to date and answers the tip of the repo's branch.
pub(super) async fn resolve(mirrors: &dyn Mirrors, spec: &RepoSpec) -> Result<CommitId> {
    mirrors.refresh(&spec.name).await?;
    let tip = mirrors.tip(&spec.name, &spec.branch).await?;
    tip.ok_or_else(|| Error::not_found(format!("branch `{}` does not exist in {}", spec.branch, spec.name)))
}

fn late(spec: &RepoSpec, limit: Duration) -> Error {
    Error::timeout(format!("resolve the tip of {}: no answer within {limit:?}", spec.branch))
}

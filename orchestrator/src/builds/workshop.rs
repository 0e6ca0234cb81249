//! What the image builder needs of the world, over fleet, mirrors and engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ports::{AgentLink, CaptureKind, CaptureSpec, Captured, Progress};
use domain::{
    Base, Branch, BuildId, CommitId, Digest, Dockerfile, Error, ErrorKind, ImageId, Network, Phase,
    PhaseReport, Purpose, RepoName, RepoSpec, Result, SandboxId,
};
use image_builder::{BuildLog, CommitRecipe, Workshop};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::warn;

use super::{Builds, recipes};
use crate::fleet::{Order, START_DEADLINE};

pub(super) struct Shop {
    pub builds: Arc<Builds>,
    pub repo: RepoName,
}

impl Shop {
    /// What the engine has of an earlier build of the same inputs.
    async fn known_base(&self, name: &str) -> Result<Option<Captured>> {
        let there = self.builds.fleet.backend().list_captures().await?;
        let known = there.into_iter().find(|c| c.kind == CaptureKind::Base && c.name == name);
        Ok(known.map(|c| Captured { digest: c.digest, size: c.size }))
    }

    async fn dockerfile(
        &self,
        repo: &RepoName,
        commit: &CommitId,
        dockerfile: &Dockerfile,
        log: &dyn BuildLog,
    ) -> Result<Captured> {
        let backend = self.builds.fleet.backend();
        let plan = recipes::plan_dockerfile(&*self.builds.mirrors, repo, commit, dockerfile).await?;
        log.write(format!("base: {} (inputs {})\n", dockerfile.path, &plan.key[..12]).as_bytes());
        let _turn = turn(&self.builds.dockerfiles).await?;
        if let Some(known) = self.known_base(&plan.key).await? {
            log.write(b"  it is built already\n");
            return Ok(known);
        }
        if let Some(user) = &plan.user {
            let line = format!("  its USER is {user}: commands run as root, unless they name a `user`\n");
            log.write(line.as_bytes());
        }
        for image in &plan.images {
            log.write(format!("  from {image}\n").as_bytes());
            backend.pull(image).await?;
        }
        // Whoever ends this call early ends the directory, too.
        let dir = tempfile::Builder::new().prefix("hotbed-context-").tempdir();
        let dir = dir
            .map_err(|e| Error::new(storage_kind(&e), "make a directory for a build context").caused_by(e))?;
        let context = dir.path().join("context.tar");
        let order = plan.context(&*self.builds.mirrors, repo, commit, dockerfile, context).await?;
        told(log, |progress| async move { backend.build(&order, &progress).await }).await
    }
}

async fn turn(of: &Semaphore) -> Result<SemaphorePermit<'_>> {
    of.acquire().await.map_err(|e| Error::unavailable("wait for the turn to make a base").caused_by(e))
}

/// Runs what tells of its progress, with the log as its listener.
async fn told<T, F: Future<Output = Result<T>>>(
    log: &dyn BuildLog,
    work: impl FnOnce(Progress) -> F,
) -> Result<T> {
    let (lines, mut rx) = tokio::sync::mpsc::unbounded_channel::<String>();
    let progress: Progress = Arc::new(move |line: &str| {
        let _ = lines.send(line.to_owned());
    });
    let working = work(progress);
    tokio::pin!(working);
    let done = loop {
        tokio::select! {
            done = &mut working => break done,
            Some(line) = rx.recv() => log.write(format!("  {line}\n").as_bytes()),
        }
    };
    while let Ok(line) = rx.try_recv() {
        log.write(format!("  {line}\n").as_bytes());
    }
    done
}

pub(super) fn storage_kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Permanent,
    }
}

#[async_trait]
impl Workshop for Shop {
    async fn resolve(&self, repo: &RepoName, branch: &Branch) -> Result<CommitId> {
        self.builds.mirrors.refresh(repo).await?;
        let tip = self.builds.mirrors.tip(repo, branch).await?;
        tip.ok_or_else(|| Error::not_found(format!("branch `{branch}` does not exist in {repo}")))
    }

    async fn recipe(&self, spec: &RepoSpec, commit: &CommitId) -> Result<CommitRecipe> {
        recipes::of_commit(&*self.builds.mirrors, spec, commit).await
    }

    async fn base(&self, spec: &RepoSpec, commit: &CommitId, log: &dyn BuildLog) -> Result<Captured> {
        let base = &spec.image.base;
        match base {
            Base::Reference(reference) => {
                log.write(format!("base: {reference}\n").as_bytes());
                self.builds.fleet.backend().pull(reference).await
            }
            Base::Packages { suite, include } => {
                log.write(format!("base: {suite} with {}\n", include.join(", ")).as_bytes());
                let rootfs =
                    told(log, |progress| async move { self.builds.rootfs.build(base, progress).await })
                        .await?;
                let _turn = turn(&self.builds.importing).await?;
                if let Some(known) = self.known_base(&rootfs.fingerprint).await? {
                    return Ok(known);
                }
                log.write(b"  importing it into the engine\n");
                let spec = CaptureSpec {
                    kind: CaptureKind::Base,
                    name: rootfs.fingerprint.clone(),
                    env: BTreeMap::new(),
                    workdir: None,
                    pause: false,
                };
                self.builds.fleet.backend().import(rootfs.tar, &spec).await
            }
            Base::Dockerfile(dockerfile) => self.dockerfile(&spec.name, commit, dockerfile, log).await,
            Base::Import(import) => Err(Error::permanent(format!(
                "{} was not imported before its base was asked for",
                import.path
            ))),
        }
    }

    async fn boot(
        &self,
        sandbox: SandboxId,
        source: &Digest,
        purpose: Purpose,
        spec: &RepoSpec,
    ) -> Result<Arc<dyn AgentLink>> {
        let fleet = &self.builds.fleet;
        let order = Order {
            id: Some(sandbox),
            source: source.clone(),
            image: None,
            commit: None,
            purpose,
            gate_open: true,
            // What is installed comes from somewhere, also where sessions are to reach nothing.
            network: match (&spec.network, purpose) {
                (Network::None, Purpose::Build(_)) => Some(Network::Bridge),
                _ => None,
            },
            env: image_builder::image_env(spec),
        };
        let entry = fleet.create(spec, order).await?;
        let link = entry.wait_link(START_DEADLINE).await?;
        fleet.claim_own(&entry).await?;
        Ok(link)
    }

    async fn capture(
        &self,
        sandbox: SandboxId,
        image: ImageId,
        spec: &RepoSpec,
        env: &BTreeMap<String, String>,
    ) -> Result<Captured> {
        let how = CaptureSpec {
            kind: CaptureKind::Image,
            name: image.to_string(),
            env: env.clone(),
            workdir: Some(spec.workspace.clone()),
            pause: true,
        };
        self.builds.fleet.backend().capture(sandbox, &how).await
    }

    async fn release(&self, sandbox: SandboxId) {
        if let Err(e) = self.builds.fleet.stop_now(sandbox, "its build has no more use for it").await {
            warn!(%sandbox, error = %e.chain(), "could not release a build's sandbox");
        }
    }

    async fn discard(&self, image: ImageId, captured: Option<&Captured>) {
        let backend = self.builds.fleet.backend();
        let digest = match captured {
            Some(captured) => Some(captured.digest.clone()),
            None => match backend.list_captures().await {
                Ok(all) => all.into_iter().find(|c| c.name == image.to_string()).map(|c| c.digest),
                Err(_) => None,
            },
        };
        if let Some(digest) = digest
            && let Err(e) = backend.remove_capture(&digest).await
        {
            warn!(%image, error = %e.chain(), "could not discard a capture; the collector will");
        }
    }

    async fn phase(&self, build: &BuildId, phase: Phase, report: Option<PhaseReport>) {
        let now = self.builds.clock.now();
        let record = {
            let mut lanes = self.builds.lanes();
            let Some(running) = lanes.get_mut(&self.repo).and_then(|l| l.find(*build)) else { return };
            if report.is_none() {
                running.phase = Some(phase);
                running.phase_since = Some(now);
            }
            running.phases.extend(report);
            running.clone()
        };
        self.builds.note(&record).await;
    }
}

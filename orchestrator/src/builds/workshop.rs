//! What the image builder needs of the world, over fleet, mirrors and engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ports::{AgentLink, CaptureKind, CaptureSpec, Captured};
use domain::{
    Base, Branch, BuildId, CommitId, Digest, Error, ImageId, Network, Phase, PhaseReport, Purpose, RepoName,
    RepoSpec, Result, SandboxId,
};
use image_builder::{BuildLog, Workshop};
use tracing::warn;

use super::Builds;
use crate::fleet::{Order, START_DEADLINE};

pub(super) struct Shop {
    pub builds: Arc<Builds>,
    pub repo: RepoName,
}

#[async_trait]
impl Workshop for Shop {
    async fn resolve(&self, repo: &RepoName, branch: &Branch) -> Result<CommitId> {
        self.builds.mirrors.refresh(repo).await?;
        let tip = self.builds.mirrors.tip(repo, branch).await?;
        tip.ok_or_else(|| Error::not_found(format!("branch `{branch}` does not exist in {repo}")))
    }

    async fn base(&self, base: &Base, log: &dyn BuildLog) -> Result<Captured> {
        let backend = self.builds.fleet.backend();
        match base {
            Base::Reference(reference) => {
                log.write(format!("base: {reference}\n").as_bytes());
                backend.pull(reference).await
            }
            Base::Packages { suite, include } => {
                log.write(format!("base: {suite} with {}\n", include.join(", ")).as_bytes());
                let (lines, mut rx) = tokio::sync::mpsc::unbounded_channel::<String>();
                let progress: docker::rootfs::Progress = Arc::new(move |line: &str| {
                    let _ = lines.send(line.to_owned());
                });
                let making = self.builds.rootfs.build(base, progress);
                tokio::pin!(making);
                let rootfs = loop {
                    tokio::select! {
                        done = &mut making => break done?,
                        Some(line) = rx.recv() => log.write(format!("  {line}\n").as_bytes()),
                    }
                };
                let turn = self.builds.importing.acquire().await;
                let _turn = turn.map_err(|e| Error::unavailable("import a base").caused_by(e))?;
                // Known to the engine already, from an earlier build of the same fingerprint.
                let there = backend.list_captures().await?;
                let known =
                    there.into_iter().find(|c| c.kind == CaptureKind::Base && c.name == rootfs.fingerprint);
                if let Some(known) = known {
                    return Ok(Captured { digest: known.digest, size: known.size });
                }
                log.write(b"  importing it into the engine\n");
                let spec = CaptureSpec {
                    kind: CaptureKind::Base,
                    name: rootfs.fingerprint.clone(),
                    env: BTreeMap::new(),
                    workdir: None,
                    pause: false,
                };
                backend.import(rootfs.tar, &spec).await
            }
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

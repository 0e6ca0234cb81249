//! What is done to a member that nobody has claimed: its tree is moved, with the gate shut and nobody bound.

use std::sync::Arc;
use std::time::Duration;

use domain::wire::{SyncMode, SyncReport, SyncRequest};
use domain::{Branch, CommitId, Result};

use super::{Entry, Fleet, Silent};

impl Fleet {
    /// Brings an unclaimed member to `tip` of `branch`. A session that takes it meanwhile is refused nothing: the
    /// agent does one sync at a time, and refuses this one once the member is somebody's.
    pub async fn sync_idle(
        &self,
        entry: &Arc<Entry>,
        branch: &Branch,
        tip: CommitId,
        limit: Duration,
    ) -> Result<SyncReport> {
        let link = entry.wait_link(Duration::ZERO).await?;
        let request = SyncRequest {
            mode: SyncMode::Reset,
            repo: entry.repo.to_string(),
            base: branch.clone(),
            branch: branch.clone(),
            commit: tip,
            timeout_ms: limit.as_millis() as u64,
            open_gate: false,
            session: None,
        };
        let report = link.sync(&request).await?;
        // Now, and not at the claim: what the tree's inputs ask for.
        if let Some(note) = entry.note() {
            let mut note = (*note).clone();
            image_builder::update_tree(&*link, &mut note, &report.head, &Silent).await?;
            entry.set_note(Some(note));
        }
        self.set_commit(entry, report.head.clone()).await?;
        Ok(report)
    }
}

//! The local forge's record of pull requests, over the store.

use async_trait::async_trait;
use domain::ports::OpenedPullRequest;
use domain::{Branch, PullRequestState, RepoName, Result};
use git::Ledger;
use store::{Page, Store};

#[derive(Clone)]
pub struct StoreLedger(pub Store);

impl std::fmt::Debug for StoreLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreLedger")
    }
}

#[async_trait]
impl Ledger for StoreLedger {
    async fn find_open(
        &self,
        repo: &RepoName,
        head: &Branch,
        base: &Branch,
    ) -> Result<Option<OpenedPullRequest>> {
        let mut page = Page { after: None, limit: 200 };
        loop {
            let found = self.0.pull_requests(Some(repo), None, page).await?;
            for r in found.items {
                if r.state == PullRequestState::Open
                    && r.head == *head
                    && r.base == *base
                    && let (Some(number), Some(url), Some(head_commit)) = (r.number, r.url, r.head_commit)
                {
                    return Ok(Some(OpenedPullRequest {
                        number,
                        url,
                        head_commit,
                        created: false,
                        opened_at: r.created_at,
                    }));
                }
            }
            match found.next {
                Some(next) => page = Page { after: Some(next), limit: 200 },
                None => return Ok(None),
            }
        }
    }

    async fn next_number(&self, repo: &RepoName) -> Result<u64> {
        self.0.next_number(&format!("pull_request:{repo}")).await
    }
}

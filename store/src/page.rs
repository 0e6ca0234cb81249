//! Lists by page, newest first. A cursor is a place between two rows, so rows that come or go meanwhile neither
//! shift a page nor show twice.

use domain::{Error, RepoName, Result, SessionId, SessionState};

use crate::rows::Row;

/// The longest page.
const MOST: u32 = 500;

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// [`Paged::next`] of the page before; opaque.
    pub after: Option<String>,
    /// How many items, 1 to 500; more is cut to 500.
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: 50 }
    }
}

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Paged<T> {
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

/// Which sessions; an empty filter is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Of one of these.
    pub repos: Option<Vec<RepoName>>,
    pub state: Option<SessionState>,
    /// Only those that have not ended.
    pub live_only: bool,
    /// The login of the user they work for.
    pub user: Option<String>,
}

/// Which snapshots; an empty filter is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    pub session: Option<SessionId>,
    /// Of one of these.
    pub repos: Option<Vec<RepoName>>,
}

impl Page {
    /// The id of the last row before this page. Ids are time-ordered, so the cursor is one.
    pub(crate) fn cursor<R: Row>(&self) -> Result<Option<R::Id>> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                let shown: String = text.chars().take(80).collect();
                Error::invalid(format!(
                    "`{shown}` is not a cursor of this list: expected the `next` of an earlier page"
                ))
            })
        };
        self.after.as_ref().map(parse).transpose()
    }

    pub(crate) fn take(&self) -> Result<usize> {
        match self.limit {
            0 => Err(Error::invalid("`limit` is 0: expected 1 to 500")),
            n => Ok(n.min(MOST) as usize),
        }
    }
}

//! Questions about references and objects that are in a mirror already, asked through git2.
//!
//! Opening a repository costs more than most questions, so open handles are kept, per mirror, and lent to one
//! question at a time on the blocking pool.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::ports::CommitLine;
use domain::{Branch, CommitId, Error, Result};
use git2::{ErrorCode, Oid, Repository};
use jiff::Timestamp;

use crate::ls_refs::Listing;

/// Handles that are kept open when nobody uses them.
const IDLE: usize = 4;
/// Where fetched branches lie before they are published under `refs/heads`; never shown to clients.
pub(crate) const FETCHED: &str = "refs/hotbed/upstream/";
pub(crate) const HEADS: &str = "refs/heads/";
pub(crate) const TAGS: &str = "refs/tags/";
/// Characters of a commit's first line, and of its author's name, that a log shows.
const MAX_SUBJECT: usize = 200;

/// How a branch got from one commit to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    Unchanged,
    /// The old commit is an ancestor of the new one, this many commits back.
    Advanced(u32),
    /// The old commit is not part of the new history: a force-push, or a branch made anew.
    Rewritten,
}

#[derive(Debug, Clone)]
pub(crate) struct Objects(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    idle: Mutex<Handles>,
}

#[derive(Default)]
struct Handles(Vec<Repository>);

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} handles", self.0.len())
    }
}

impl Objects {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self(Arc::new(Shared { dir, idle: Mutex::default() }))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Asks a question. `doing` says it in words, for the error.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        doing: String,
        question: impl FnOnce(&Repository) -> Result<T, git2::Error> + Send + 'static,
    ) -> Result<T> {
        let shared = self.0.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let idle = || shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = idle().0.pop();
            let repository = match kept {
                Some(repository) => repository,
                None => Repository::open_bare(&shared.dir)?,
            };
            let answer = question(&repository);
            // A handle that failed is not kept: what it holds in memory may be what was wrong.
            if answer.is_ok() {
                let mut idle = idle();
                if idle.0.len() < IDLE {
                    idle.0.push(repository);
                }
            }
            answer
        });
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(Error::permanent(doing).caused_by(e)),
            Err(e) => Err(Error::permanent(doing).caused_by(e)),
        }
    }

    /// Forgets the open handles; called after the directory has been replaced.
    pub(crate) fn forget(&self) {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
    }
}

fn absent<T>(answer: Result<T, git2::Error>) -> Result<Option<T>, git2::Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => Ok(None),
        Err(e) => Err(e),
    }
}

fn commit_id(oid: Oid) -> Result<CommitId, git2::Error> {
    oid.to_string().parse().map_err(|_| git2::Error::from_str("an object id of unknown form"))
}

/// `None` for an id that this repository can't have (another hash).
fn oid(id: &CommitId) -> Option<Oid> {
    Oid::from_str(id.as_str()).ok().filter(|o| o.to_string() == id.as_str())
}

fn known(repository: &Repository, id: &CommitId) -> Result<Option<Oid>, git2::Error> {
    let Some(oid) = oid(id) else { return Ok(None) };
    Ok(absent(repository.find_commit(oid))?.map(|c| c.id()))
}

pub(crate) fn tip(repository: &Repository, branch: &Branch) -> Result<Option<CommitId>, git2::Error> {
    match absent(repository.find_reference(&format!("{HEADS}{branch}")))? {
        Some(reference) => commit_id(reference.peel_to_commit()?.id()).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn distance(
    repository: &Repository,
    from: &CommitId,
    to: &CommitId,
) -> Result<Option<u32>, git2::Error> {
    let (Some(from), Some(to)) = (known(repository, from)?, known(repository, to)?) else { return Ok(None) };
    if from == to {
        return Ok(Some(0));
    }
    if absent(repository.merge_base(from, to))?.is_none() {
        return Ok(None);
    }
    let (ahead, _) = repository.graph_ahead_behind(to, from)?;
    Ok(Some(u32::try_from(ahead).unwrap_or(u32::MAX)))
}

/// Commits that `to` has and `from` has not, newest first; none where [`distance`] knows no number.
pub(crate) fn log(
    repository: &Repository,
    from: &CommitId,
    to: &CommitId,
    limit: usize,
) -> Result<Vec<CommitLine>, git2::Error> {
    if distance(repository, from, to)?.unwrap_or(0) == 0 {
        return Ok(Vec::new());
    }
    let (Some(from), Some(to)) = (known(repository, from)?, known(repository, to)?) else {
        return Ok(Vec::new());
    };
    let mut walk = repository.revwalk()?;
    walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::TIME)?;
    walk.push(to)?;
    walk.hide(from)?;
    walk.take(limit).map(|oid| line(&repository.find_commit(oid?)?)).collect()
}

fn line(commit: &git2::Commit<'_>) -> Result<CommitLine, git2::Error> {
    let message = String::from_utf8_lossy(commit.message_bytes());
    let subject = message.lines().next().unwrap_or_default().trim_end();
    let author = commit.author();
    Ok(CommitLine {
        id: commit_id(commit.id())?,
        subject: subject.chars().take(MAX_SUBJECT).collect(),
        author: String::from_utf8_lossy(author.name_bytes()).chars().take(MAX_SUBJECT).collect(),
        committed_at: Timestamp::from_second(commit.time().seconds()).unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

/// `None` when the new commit is not here.
pub(crate) fn changes(
    repository: &Repository,
    old: &CommitId,
    new: &CommitId,
) -> Result<Option<Moved>, git2::Error> {
    let Some(new_oid) = known(repository, new)? else { return Ok(None) };
    if old == new {
        return Ok(Some(Moved::Unchanged));
    }
    // The whole history of `new` is here, so an old commit that is not here is not part of it.
    let Some(old_oid) = known(repository, old)? else { return Ok(Some(Moved::Rewritten)) };
    if !repository.graph_descendant_of(new_oid, old_oid)? {
        return Ok(Some(Moved::Rewritten));
    }
    let (ahead, _) = repository.graph_ahead_behind(new_oid, old_oid)?;
    Ok(Some(Moved::Advanced(u32::try_from(ahead).unwrap_or(u32::MAX))))
}

pub(crate) fn branches_at(repository: &Repository, commit: &CommitId) -> Result<Vec<Branch>, git2::Error> {
    let wanted = oid(commit);
    let mut found: Vec<Branch> = branches(repository, HEADS)?
        .into_iter()
        .filter(|(_, target)| Some(*target) == wanted)
        .filter_map(|(name, _)| name.parse().ok())
        .collect();
    found.sort();
    Ok(found)
}

/// All references under a prefix, with the prefix taken off. Names that are not text are left out: git2 and the
/// API could not name them anyway.
pub(crate) fn branches(repository: &Repository, prefix: &str) -> Result<Vec<(String, Oid)>, git2::Error> {
    let mut found = Vec::new();
    for reference in repository.references_glob(&format!("{prefix}*"))? {
        let reference = reference?;
        let (Ok(name), Some(target)) = (reference.name(), reference.target()) else { continue };
        if let Some(short) = name.strip_prefix(prefix) {
            found.push((short.to_owned(), target));
        }
    }
    Ok(found)
}

/// Whether what was fetched last, branches and tags, is what upstream lists.
pub(crate) fn has_fetched(repository: &Repository, listing: &Listing) -> Result<bool, git2::Error> {
    for (upstream, here) in [(HEADS, FETCHED), (TAGS, TAGS)] {
        let mut fetched = branches(repository, here)?;
        fetched.sort();
        if !listing.under(upstream).eq(fetched.iter().map(|(name, id)| (name.as_str(), *id))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes `refs/heads` equal to what was fetched, except for the branches in `busy`. Answers how many moved.
///
/// Deletions come first: a branch `a` that is gone makes room for a new branch `a/b`, and the other way round.
pub(crate) fn publish(repository: &Repository, busy: &dyn Fn(&str) -> bool) -> Result<usize, git2::Error> {
    let mut here = branches(repository, HEADS)?;
    let mut fetched = branches(repository, FETCHED)?;
    here.sort();
    fetched.sort();
    let find = |list: &[(String, Oid)], name: &str| {
        list.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok().map(|at| list[at].1)
    };
    let gone: Vec<&String> =
        here.iter().map(|(n, _)| n).filter(|n| find(&fetched, n).is_none() && !busy(n)).collect();
    let moved: Vec<&(String, Oid)> =
        fetched.iter().filter(|(n, to)| find(&here, n) != Some(*to) && !busy(n)).collect();
    for name in &gone {
        if let Some(mut reference) = absent(repository.find_reference(&format!("{HEADS}{name}")))? {
            reference.delete()?;
        }
    }
    for (name, to) in &moved {
        repository.reference(&format!("{HEADS}{name}"), *to, true, "upstream")?;
    }
    Ok(gone.len() + moved.len())
}

/// Whether the default branch of the mirror is there; a mirror without branches counts as in order.
pub(crate) fn head_is_in_order(repository: &Repository) -> Result<bool, git2::Error> {
    let head = repository.find_reference("HEAD")?;
    let exists = match head.symbolic_target() {
        Ok(Some(target)) => absent(repository.find_reference(target))?.is_some(),
        _ => true,
    };
    Ok(exists || branches(repository, HEADS)?.is_empty())
}

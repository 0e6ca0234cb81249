//! A look at what a session pushes, before upstream sees it: files that are too large, what looks like a secret, workflow
//! files that the user's authority does not reach. GitHub would say the same later and with fewer words.
//!
//! The objects lie in quarantine then: git's `pre-receive` hook waits until [`answer`] has looked, and pushes on or gives up.
//! Looked at is what each new commit changes; what upstream has already is nobody's fault.

mod secrets;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::{CommitId, Error, OnSecret, PushPolicy, Result, glob_matches};
use git2::{Delta, DiffOptions, ObjectType, Oid, Repository, Sort, Tree};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;

/// How long a look may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// What the hook says is a path.
const MAX_LINE: u64 = 8192;
/// A push of more commits, or of more text, is looked at as far as this goes, and that is said.
const MAX_COMMITS: usize = 5_000;
const MAX_READ: u64 = 256 << 20;
/// Larger files are not read for secrets.
const MAX_TEXT: usize = 4 << 20;
/// Lines about one push.
const MAX_LINES: usize = 20;
const WORKFLOWS: &str = ".github/workflows/";

/// What there is to look at.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub mirror: PathBuf,
    pub new: CommitId,
    pub policy: PushPolicy,
    /// Whether the authority of the push covers workflow files; `None` where that is not known.
    pub workflows: Option<bool>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    TooLarge { path: String, bytes: u64, limit: u64, commit: String },
    Workflow { path: String, commit: String },
    Secret { path: String, line: usize, what: &'static str, commit: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { path, bytes, limit, commit } => {
                write!(f, "{path} in {commit} has {bytes} bytes, more than the {limit} that may be pushed")
            }
            Self::Workflow { path, commit } => write!(
                f,
                "{path} in {commit} is a workflow, and the App may not change workflows for its users: ask for its permission `workflows: write`, or leave the file out"
            ),
            Self::Secret { path, line, what, commit } => {
                write!(f, "{path}:{line} in {commit} looks like {what}")
            }
        }
    }
}

/// What came of a look.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub findings: BTreeSet<Finding>,
    /// Not everything was looked at.
    pub partly: bool,
}

/// The verdict, as the hook reads it: a word, and lines for whoever pushed.
pub(crate) struct Verdict {
    pub good: bool,
    pub lines: Vec<String>,
}

/// Waits for the hook, looks, and answers. Without a hook that asks it ends when git does.
pub(crate) async fn answer(look: Look, asked: pipe::Receiver, mut answer: pipe::Sender) {
    let mut line = String::new();
    let read = BufReader::new(asked.take(MAX_LINE)).read_line(&mut line).await;
    if read.is_err() || !line.ends_with('\n') {
        return;
    }
    let quarantine = PathBuf::from(line.trim_end_matches('\n'));
    let policy = look.policy.clone();
    let looking = tokio::task::spawn_blocking(move || look.look(&quarantine));
    let verdict = match tokio::time::timeout(DEADLINE, looking).await {
        Ok(Ok(Ok(seen))) => judge(&seen, &policy),
        Ok(Ok(Err(e))) => cannot(&e.chain()),
        Ok(Err(e)) => cannot(&e.to_string()),
        Err(_) => cannot("it took too long"),
    };
    let mut text = String::from(if verdict.good { "good\n" } else { "no\n" });
    for line in verdict.lines {
        text += &line;
        text.push('\n');
    }
    // A hook that has gone needs none.
    let _ = answer.write_all(text.as_bytes()).await;
}

fn cannot(why: &str) -> Verdict {
    tracing::warn!(why, "could not look at a push");
    let line = format!(
        "Hotbed could not look at what is pushed: {why}. The commits stay where they are; push again."
    );
    Verdict { good: false, lines: vec![line] }
}

/// What becomes of the push, in words.
pub(crate) fn judge(seen: &Seen, policy: &PushPolicy) -> Verdict {
    let is_secret = |f: &&Finding| matches!(f, Finding::Secret { .. });
    let stops = |f: &&Finding| !is_secret(f) || policy.secrets == OnSecret::Refuse;
    let good = !seen.findings.iter().any(|f| stops(&f));
    let mut lines: Vec<String> = seen.findings.iter().take(MAX_LINES).map(ToString::to_string).collect();
    let more = seen.findings.len().saturating_sub(MAX_LINES);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if seen.findings.iter().any(|f| is_secret(&f)) {
        lines.push(
            "A secret that was written down is to be withdrawn where it was issued; take it out of the commits, or have the operator expect such things there (`pushes.expected_in`)."
                .into(),
        );
    }
    if !good {
        lines.push("Nothing was pushed; the commits stay where they are.".into());
    }
    if seen.partly {
        lines.push("The push is large: not all of it was looked at.".into());
    }
    Verdict { good, lines }
}

impl Look {
    /// Looks at every new commit, with what lies in `quarantine`.
    fn look(&self, quarantine: &Path) -> Result<Seen> {
        let doing = |e: git2::Error| Error::permanent("look at what is pushed").caused_by(e);
        let real = |path: &Path| {
            let failed = || format!("look at what is pushed in {}", path.display());
            path.canonicalize().map_err(|e| Error::permanent(failed()).caused_by(e))
        };
        if !real(quarantine)?.starts_with(real(&self.mirror)?) {
            return Err(Error::permanent(format!("{} is no quarantine", quarantine.display())));
        }
        let repository = Repository::open_bare(&self.mirror).map_err(doing)?;
        let odb = repository.odb().map_err(doing)?;
        odb.add_disk_alternate(&quarantine.to_string_lossy()).map_err(doing)?;
        let mut looker = Looker { repository: &repository, look: self, seen: Seen::default(), read: 0 };
        looker.all().map_err(doing)?;
        Ok(looker.seen)
    }
}

struct Looker<'a> {
    repository: &'a Repository,
    look: &'a Look,
    seen: Seen,
    /// Bytes that were read for secrets.
    read: u64,
}

/// A file as a commit leaves it: what it is now, and what it was.
type Changed = HashMap<String, (Oid, Oid)>;

impl Looker<'_> {
    fn all(&mut self) -> Result<(), git2::Error> {
        let mut walk = self.repository.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL)?;
        walk.push(Oid::from_str(self.look.new.as_str())?)?;
        walk.hide_glob("refs/*")?;
        for (n, id) in walk.enumerate() {
            if n >= MAX_COMMITS {
                self.seen.partly = true;
                break;
            }
            self.commit(id?)?;
        }
        Ok(())
    }

    fn commit(&mut self, id: Oid) -> Result<(), git2::Error> {
        let commit = self.repository.find_commit(id)?;
        let tree = commit.tree()?;
        let mut changed: Option<Changed> = None;
        for parent in commit.parents() {
            let against = self.changed(Some(&parent.tree()?), &tree)?;
            // What a merge takes from one side as it is was that side's.
            changed = Some(match changed {
                None => against,
                Some(mut so_far) => {
                    so_far.retain(|path, _| against.contains_key(path));
                    so_far
                }
            });
        }
        let changed = match changed {
            Some(changed) => changed,
            None => self.changed(None, &tree)?,
        };
        let short: String = id.to_string().chars().take(10).collect();
        for (path, (new, old)) in changed {
            self.file(&short, path, new, old)?;
        }
        Ok(())
    }

    fn changed(&self, from: Option<&Tree<'_>>, to: &Tree<'_>) -> Result<Changed, git2::Error> {
        let mut options = DiffOptions::new();
        options.include_typechange(true).skip_binary_check(true);
        let diff = self.repository.diff_tree_to_tree(from, Some(to), Some(&mut options))?;
        let kept = diff.deltas().filter(|d| d.status() != Delta::Deleted);
        Ok(kept
            .map(|d| {
                let path = d.new_file().path_bytes().unwrap_or_default();
                (String::from_utf8_lossy(path).into_owned(), (d.new_file().id(), d.old_file().id()))
            })
            .collect())
    }

    fn file(&mut self, commit: &str, path: String, new: Oid, old: Oid) -> Result<(), git2::Error> {
        let policy = &self.look.policy;
        let shown = || path.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        if self.look.workflows == Some(false) && path.starts_with(WORKFLOWS) {
            self.seen.findings.insert(Finding::Workflow { path: shown(), commit: commit.to_owned() });
        }
        // A submodule's commit is not here.
        let Ok((size, ObjectType::Blob)) = self.repository.odb()?.read_header(new) else { return Ok(()) };
        if size as u64 > policy.max_file {
            self.seen.findings.insert(Finding::TooLarge {
                path: shown(),
                bytes: size as u64,
                limit: policy.max_file,
                commit: commit.to_owned(),
            });
        }
        let expected = policy.expected_in.iter().any(|pattern| glob_matches(pattern, &path));
        if policy.secrets == OnSecret::Allow || expected || size > MAX_TEXT {
            return Ok(());
        }
        if self.read >= MAX_READ {
            self.seen.partly = true;
            return Ok(());
        }
        self.read += size as u64;
        let blob = self.repository.find_blob(new)?;
        let before = if old.is_zero() { None } else { self.repository.find_blob(old).ok() };
        let before = before.as_ref().map_or(&b""[..], |blob| blob.content());
        for (line, secret) in secrets::added(blob.content(), before) {
            let (path, commit) = (shown(), commit.to_owned());
            self.seen.findings.insert(Finding::Secret { path, line, what: secret.what, commit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(line: usize) -> Finding {
        Finding::Secret { path: "a".into(), line, what: "a GitHub token", commit: "1".into() }
    }

    #[test]
    fn what_stops_a_push() {
        let large = Finding::TooLarge { path: "b".into(), bytes: 2, limit: 1, commit: "1".into() };
        let of = |findings: &[Finding], secrets| {
            let seen = Seen { findings: findings.iter().cloned().collect(), partly: false };
            judge(&seen, &PushPolicy { secrets, ..PushPolicy::default() })
        };
        assert!(of(&[], OnSecret::Refuse).good);
        assert!(!of(&[secret(1)], OnSecret::Refuse).good);
        let warned = of(&[secret(1)], OnSecret::Warn);
        assert!(warned.good && warned.lines[0].contains("looks like a GitHub token"), "{:?}", warned.lines);
        assert!(!of(&[large, secret(1)], OnSecret::Warn).good);
        let many: Vec<_> = (0..50).map(secret).collect();
        let lines = of(&many, OnSecret::Refuse).lines;
        assert!(lines.len() == MAX_LINES + 3 && lines.contains(&"and 30 more".to_owned()), "{lines:?}");
    }
}

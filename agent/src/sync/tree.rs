//! Reads a git directory without git: HEAD, refs, the configuration of origin and of a branch.
//!
//! A git process costs milliseconds, and sync at claim is mostly the question whether anything is to be done at
//! all. What is unusual (reftable, a linked work tree, symbolic refs of refs) is not understood here, and
//! answered with `None`: the caller then asks git.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use domain::{Branch, CommitId};

/// The git directory of a work tree.
pub struct Tree {
    git_dir: PathBuf,
}

/// What HEAD says.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The branch it is on, `None` when detached.
    pub branch: Option<String>,
    /// `None` on a branch without a commit.
    pub commit: Option<CommitId>,
}

impl Tree {
    /// The tree at `workspace`, if it is an ordinary one: `.git` is a directory with a HEAD.
    pub fn open(workspace: &Path) -> Option<Self> {
        let git_dir = workspace.join(".git");
        (git_dir.join("HEAD").is_file() && !git_dir.join("reftable").exists()).then_some(Self { git_dir })
    }

    pub fn head(&self) -> Option<Head> {
        let text = fs::read_to_string(self.git_dir.join("HEAD")).ok()?;
        let text = text.trim_end();
        match text.strip_prefix("ref: ") {
            Some(name) => {
                let branch = name.strip_prefix("refs/heads/")?.to_owned();
                Some(Head { commit: self.resolve(name), branch: Some(branch) })
            }
            None => Some(Head { branch: None, commit: Some(text.parse().ok()?) }),
        }
    }

    /// The commit of a full ref name.
    pub fn resolve(&self, name: &str) -> Option<CommitId> {
        if let Ok(text) = fs::read_to_string(self.git_dir.join(name)) {
            return text.trim_end().parse().ok();
        }
        let packed = fs::read_to_string(self.git_dir.join("packed-refs")).ok()?;
        packed.lines().find_map(|line| {
            let (commit, found) = line.split_once(' ')?;
            (found == name).then(|| commit.parse().ok()).flatten()
        })
    }

    pub fn remote_branch(&self, base: &Branch) -> Option<CommitId> {
        self.resolve(&format!("refs/remotes/origin/{base}"))
    }

    /// Whether the configuration has `origin` at `url` already, with nothing else in the section but its fetch
    /// line.
    pub fn has_origin(&self, url: &str) -> bool {
        fs::read_to_string(self.git_dir.join("config")).is_ok_and(|text| origin_is(&text, url))
    }

    /// Makes `branch` follow `base` of origin, where it does not yet. Git takes the last value of several, so
    /// that a section at the end is enough.
    pub fn set_upstream(&self, branch: &Branch, base: &Branch) -> io::Result<()> {
        let path = self.git_dir.join("config");
        let mut text = fs::read_to_string(&path)?;
        let quoted = branch.as_str().replace('\\', "\\\\").replace('"', "\\\"");
        let section = format!("[branch \"{quoted}\"]\n\tremote = origin\n\tmerge = refs/heads/{base}\n");
        if text.contains(&section) {
            return Ok(());
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&section);
        let new = self.git_dir.join("config.hotbed");
        fs::write(&new, text)?;
        fs::rename(new, path)
    }

    /// Removes what a git that was killed left behind, so that the next one does not refuse to work.
    pub fn remove_stale_locks(&self, branches: &[&Branch], base: &Branch) {
        let refs = branches.iter().map(|b| format!("refs/heads/{b}.lock"));
        let fixed =
            ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock", "FETCH_HEAD.lock"];
        let all = refs.chain([format!("refs/remotes/origin/{base}.lock")]).chain(fixed.map(str::to_owned));
        for name in all {
            let _ = fs::remove_file(self.git_dir.join(name));
        }
    }
}

fn origin_is(config: &str, url: &str) -> bool {
    let (mut inside, mut found, mut other) = (false, false, false);
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[remote \"origin\"]";
        } else if inside && let Some((key, value)) = line.split_once('=') {
            match key.trim() {
                "url" if value.trim() == url => found = true,
                "url" | "pushurl" => other = true,
                _ => {}
            }
        }
    }
    found && !other
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".git/refs/heads")).unwrap();
        fs::write(dir.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(dir.path().join(".git/packed-refs"), format!("# pack-refs\n{A} refs/heads/main\n^{B}\n"))
            .unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn a_loose_ref_wins_over_a_packed_one() {
        let (dir, tree) = tree();
        assert_eq!(tree.head().unwrap().commit.unwrap().as_str(), A);
        fs::write(dir.path().join(".git/refs/heads/main"), format!("{B}\n")).unwrap();
        assert_eq!(tree.head(), Some(Head { branch: Some("main".into()), commit: Some(B.parse().unwrap()) }));
        fs::write(dir.path().join(".git/HEAD"), format!("{A}\n")).unwrap();
        assert_eq!(tree.head(), Some(Head { branch: None, commit: Some(A.parse().unwrap()) }));
        fs::write(dir.path().join(".git/HEAD"), "ref: refs/heads/none\n").unwrap();
        assert_eq!(tree.head().unwrap().commit, None);
    }

    #[test]
    fn origin_and_upstream() {
        let (dir, tree) = tree();
        let config = dir.path().join(".git/config");
        fs::write(&config, "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = u\n\tfetch = f").unwrap();
        assert!(tree.has_origin("u"));
        assert!(!tree.has_origin("v"));
        let (branch, base) = ("s\"x".parse().unwrap(), "main".parse().unwrap());
        tree.set_upstream(&branch, &base).unwrap();
        tree.set_upstream(&branch, &base).unwrap();
        let text = fs::read_to_string(&config).unwrap();
        assert_eq!(text.matches("[branch \"s\\\"x\"]").count(), 1, "{text}");
        assert!(tree.has_origin("u"));
        fs::write(&config, "[remote \"origin\"]\n\turl = u\n\turl = v\n").unwrap();
        assert!(!tree.has_origin("u"));
    }
}

//! Writes commits and branches straight into a bare repository, without a working tree.

use std::path::{Path, PathBuf};

use domain::{Branch, CommitId, Error, Identity, Result};
use git2::build::TreeUpdateBuilder;
use git2::{FileMode, Oid, Repository, RepositoryInitOptions, Signature};

use crate::objects;

/// A bare repository on this machine. Calls block on the disk.
#[derive(Debug, Clone)]
pub struct BareRepo {
    dir: PathBuf,
}

impl BareRepo {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes an empty repository whose default branch is `main`; one that is there stays as it is.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self> {
        let repo = Self::at(dir);
        let mut options = RepositoryInitOptions::new();
        options.bare(true).mkpath(true).external_template(false).initial_head("main");
        repo.with("make repository", |dir| Repository::init_opts(dir, &options).map(drop))?;
        Ok(repo)
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Adds a commit to a branch: the tree of its tip with these files put in. A branch that does not exist
    /// begins with this commit. Paths are relative, with `/`; a content of `None` removes the file.
    pub fn commit_files(
        &self,
        branch: &Branch,
        files: &[(&str, Option<&[u8]>)],
        message: &str,
        author: &Identity,
    ) -> Result<CommitId> {
        self.with("commit to", |dir| {
            let repository = Repository::open_bare(dir)?;
            let parent = match objects::tip(&repository, branch)? {
                Some(tip) => Some(repository.find_commit(Oid::from_str(tip.as_str())?)?),
                None => None,
            };
            let mut update = TreeUpdateBuilder::new();
            for (path, content) in files {
                match content {
                    Some(content) => update.upsert(*path, repository.blob(content)?, FileMode::Blob),
                    None => update.remove(*path),
                };
            }
            let base = match &parent {
                Some(parent) => parent.tree()?,
                None => repository.find_tree(repository.treebuilder(None)?.write()?)?,
            };
            let tree = repository.find_tree(update.create_updated(&repository, &base)?)?;
            let who = Signature::now(&author.name, &author.email)?;
            let parents: Vec<_> = parent.iter().collect();
            let name = format!("{}{branch}", objects::HEADS);
            repository.commit(Some(&name), &who, &who, message, &tree, &parents)
        })
        .and_then(|oid| {
            oid.to_string().parse().map_err(|e| Error::permanent("read back a commit").caused_by(e))
        })
    }

    pub fn tip(&self, branch: &Branch) -> Result<Option<CommitId>> {
        self.with("read branch of", |dir| objects::tip(&Repository::open_bare(dir)?, branch))
    }

    /// Points a branch at a commit, wherever it was before.
    pub fn set_branch(&self, branch: &Branch, to: &CommitId) -> Result<()> {
        self.with("move branch of", |dir| {
            let name = format!("{}{branch}", objects::HEADS);
            Repository::open_bare(dir)?.reference(&name, Oid::from_str(to.as_str())?, true, "set").map(drop)
        })
    }

    pub fn delete_branch(&self, branch: &Branch) -> Result<()> {
        self.with("delete branch of", |dir| {
            Repository::open_bare(dir)?.find_reference(&format!("{}{branch}", objects::HEADS))?.delete()
        })
    }

    pub fn set_default_branch(&self, branch: &Branch) -> Result<()> {
        self.with("set default branch of", |dir| {
            Repository::open_bare(dir)?.set_head(&format!("{}{branch}", objects::HEADS))
        })
    }

    /// All references, by full name.
    pub fn references(&self) -> Result<Vec<(String, CommitId)>> {
        let all = self.with("list", |dir| objects::branches(&Repository::open_bare(dir)?, "refs/"))?;
        Ok(all
            .into_iter()
            .filter_map(|(n, id)| Some((format!("refs/{n}"), id.to_string().parse().ok()?)))
            .collect())
    }

    fn with<T>(&self, doing: &str, work: impl FnOnce(&Path) -> Result<T, git2::Error>) -> Result<T> {
        work(&self.dir).map_err(|e| Error::permanent(format!("{doing} {}", self.dir.display())).caused_by(e))
    }
}

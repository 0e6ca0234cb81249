//! What the repository itself says of its image, read from the mirror at the commit that is built.

use std::path::PathBuf;

use domain::ports::{BuildImage, Mirrors};
use domain::{Base, CommitId, Dockerfile, Error, RepoName, RepoSpec, RepositoryFile, Result, TreePath};
use image_builder::CommitRecipe;
use image_builder::dockerfile::{self, Ignore, Inputs};
use sha2::{Digest as _, Sha256};

use crate::fleet::hex;

/// Larger Dockerfiles and ignore files are none.
const MAX_DOCKERFILE: usize = 1 << 20;
/// Where a Dockerfile is put that does not lie in its context.
const ASIDE: &str = ".hotbed-dockerfile";
/// Grows when the same inputs would be built to something else.
const FORMAT: u32 = 1;

/// The recipe of a commit, read from the mirror: nothing else is asked.
pub(super) async fn of_commit(
    mirrors: &dyn Mirrors,
    spec: &RepoSpec,
    commit: &CommitId,
) -> Result<CommitRecipe> {
    let mut made = CommitRecipe::new(&spec.image);
    if spec.image.repository_file.read {
        let path = tree_path(RepositoryFile::PATH)?;
        if let Some(bytes) = mirrors.read(&spec.name, commit, &path, config::MAX_REPOSITORY_FILE).await? {
            let policy = &spec.image.repository_file;
            let part = config::repository_file(&bytes, RepositoryFile::PATH, policy, &spec.image.secrets);
            made = made.with_repository_file(&part.map_err(refused)?);
        }
    }
    if let Base::Import(import) = made.recipe.base.clone() {
        let read = mirrors.read(&spec.name, commit, &import.path, config::MAX_REPOSITORY_FILE).await?;
        let bytes = read.ok_or_else(|| {
            Error::not_found(format!("{} has no `{}` at {}", spec.name, import.path, commit.short()))
        })?;
        let imported = config::import(import.kind, &import.path, &bytes, &spec.workspace);
        made = made.with_import(&import, &imported.map_err(refused)?);
    }
    Ok(made)
}

/// Each problem on a line of its own, with its place.
fn refused(errors: config::ConfigErrors) -> Error {
    Error::invalid(errors.lines().join("\n"))
}

fn tree_path(text: &str) -> Result<TreePath> {
    text.parse().map_err(|e| Error::invalid("name a path of the repository").caused_by(e))
}

/// A Dockerfile at a commit, with what it depends on.
pub(super) struct DockerfilePlan {
    /// Equal where a build would give the same: it names the base.
    pub key: String,
    /// What it stands on, to be there before the build.
    pub images: Vec<String>,
    /// The account that it ends as.
    pub user: Option<String>,
    text: Vec<u8>,
    inputs: Inputs,
    ignore: Ignore,
}

/// Looks what a Dockerfile depends on, without building it: its text, what it copies, its arguments (F26).
pub(super) async fn plan_dockerfile(
    mirrors: &dyn Mirrors,
    repo: &RepoName,
    commit: &CommitId,
    of: &Dockerfile,
) -> Result<DockerfilePlan> {
    let Dockerfile { path, context, target, args } = of;
    let bytes = mirrors.read(repo, commit, path, MAX_DOCKERFILE).await?;
    let bytes =
        bytes.ok_or_else(|| Error::not_found(format!("{repo} has no `{path}` at {}", commit.short())))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| Error::invalid(format!("`{path}` is not text in UTF-8")).caused_by(e))?;
    let inputs = dockerfile::inputs(text);

    let mut hash = Sha256::new();
    let mut add = |name: &str, value: &str| {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
    };
    add("dockerfile", &FORMAT.to_string());
    add("text", text);
    add("target", target.as_deref().unwrap_or_default());
    add("arch", std::env::consts::ARCH);
    args.iter().for_each(|(name, value)| add(name, value));
    let paths = match &inputs {
        Inputs::Everything => vec![TreePath::root()],
        Inputs::Paths(paths) => paths.clone(),
    };
    let mut ignore = Ignore::default();
    if !paths.is_empty() {
        add("context", context.as_str());
        for path in &paths {
            let full =
                context.join(path.as_str()).map_err(|e| Error::invalid("a build context").caused_by(e))?;
            let found = mirrors.identify(repo, commit, &full).await?;
            add(path.as_str(), found.as_deref().unwrap_or("nothing"));
        }
        let ignored = read_ignore(mirrors, repo, commit, of).await?;
        add("ignore", &ignored);
        ignore = Ignore::parse(&ignored);
    }
    Ok(DockerfilePlan {
        key: hex(&hash.finalize()),
        images: dockerfile::images(text, args),
        user: dockerfile::user(text).filter(|user| user != "root" && user != "0"),
        text: bytes.to_vec(),
        inputs,
        ignore,
    })
}

/// The ignore file of the Dockerfile itself, else that of its context; empty where there is none.
async fn read_ignore(
    mirrors: &dyn Mirrors,
    repo: &RepoName,
    commit: &CommitId,
    of: &Dockerfile,
) -> Result<String> {
    let places = [format!("{}.dockerignore", of.path), format!("{}/.dockerignore", of.context)];
    for place in places {
        if let Some(bytes) = mirrors.read(repo, commit, &tree_path(&place)?, MAX_DOCKERFILE).await? {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(String::new())
}

impl DockerfilePlan {
    /// Writes the context to `to`, and says what is to be built of it.
    pub async fn context(
        self,
        mirrors: &dyn Mirrors,
        repo: &RepoName,
        commit: &CommitId,
        of: &Dockerfile,
        to: PathBuf,
    ) -> Result<BuildImage> {
        let below = format!("{}/", of.context.as_str());
        let inside = if of.context.is_root() {
            Some(of.path.as_str().to_owned())
        } else {
            of.path.as_str().strip_prefix(&below).map(str::to_owned)
        };
        let ignore = self.ignore;
        let name = inside.filter(|path| self.inputs != Inputs::Paths(Vec::new()) && !ignore.excludes(path));
        if self.inputs != Inputs::Paths(Vec::new()) {
            let wanted = Box::new(move |path: &str| !ignore.excludes(path));
            mirrors.archive(repo, commit, &of.context, wanted, to.clone()).await?;
        }
        let (text, place) = (self.text, to.clone());
        if name.is_none() {
            let put = tokio::task::spawn_blocking(move || put_aside(&place, &text)).await;
            let put = put.map_err(|e| Error::permanent("write a build context").caused_by(e))?;
            put.map_err(|e| {
                Error::new(super::workshop::storage_kind(&e), "write a build context").caused_by(e)
            })?;
        }
        Ok(BuildImage {
            name: self.key,
            context: to,
            dockerfile: name.unwrap_or_else(|| ASIDE.to_owned()),
            target: of.target.clone(),
            args: of.args.clone(),
        })
    }
}

/// Adds the Dockerfile to the archive, or makes one with nothing else.
fn put_aside(archive: &std::path::Path, text: &[u8]) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(archive)?;
    // Two blocks of zeros end an archive; what is added begins there.
    let end = file.metadata()?.len().saturating_sub(1024);
    file.seek(SeekFrom::Start(end))?;
    let mut tar = tar::Builder::new(file);
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, ASIDE, text)?;
    tar.finish()
}

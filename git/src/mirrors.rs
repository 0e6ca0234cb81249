//! Bare mirrors of the upstream repositories, `<dir>/<owner>/<name>.git`: each is a full copy of upstream's
//! branches and tags as of the last refresh, and the place through which sandboxes push.
//!
//! A fetch writes to references of its own (`refs/hotbed/upstream/`) and is then published to `refs/heads`. The
//! step between is what lets a fetch and a push run at the same time: a branch that was pushed while the fetch
//! was under way is left as the push made it, because what the fetch saw of it may be older.
//!
//! When to refresh is the caller's decision. Old objects are not collected here yet.

mod authority;
mod claims;
mod second_try;
mod store_dir;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::ports::{CommitLine, PathFilter};
use domain::{Branch, CommitId, Error, PushPolicy, RepoName, Result, SessionId, TreePath};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::failure;
use crate::flight::Flights;
use crate::glance::{Acquaintance, CERTIFICATES, Glances};
use crate::look::{self, Look};
use crate::objects::{self, FETCHED, Moved, Objects};
use crate::process::{Git, Output};
use crate::tree;

pub use authority::{Authority, Credentials, Operation};
use claims::Claims;
pub(crate) use claims::PushClaim;
use second_try::SecondTry;

/// How long local git commands and answers of `Credentials` may take.
const LOCAL_DEADLINE: Duration = Duration::from_secs(60);
const CREDENTIALS_DEADLINE: Duration = Duration::from_secs(30);
/// Tags are nobody's to push, so they need no step between: they are as upstream has them, moved and removed ones too.
const TAGS: &str = "+refs/tags/*:refs/tags/*";
/// The name under which upstream is configured for the one command that talks to it.
const UPSTREAM: &str = "upstream";

/// What a push goes on with: to be kept until git has ended.
#[derive(Debug)]
pub(crate) struct PushAuthority {
    _first: Authority,
    _second: SecondTry,
}

/// A configured repository: where it lives, and what may be pushed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub repo: RepoName,
    /// `https://…`, `http://…`, `ssh://…`, `file://…` or a path.
    pub url: String,
    pub pushes: PushPolicy,
}

impl Remote {
    /// With the usual bounds for pushes.
    pub fn new(repo: RepoName, url: impl Into<String>) -> Self {
        Self { repo, url: url.into(), pushes: PushPolicy::default() }
    }
}

#[derive(Clone)]
pub struct MirrorOptions {
    /// How long a refresh may take.
    pub fetch_deadline: Duration,
    /// How long making a mirror may take.
    pub clone_deadline: Duration,
    /// The largest pack that a push may bring, in bytes.
    pub max_push: u64,
    /// The git program.
    pub program: PathBuf,
    /// Certificates, as PEM, that upstreams are held to instead of the system's; `GIT_SSL_CAINFO` of the environment.
    pub certificates: Option<PathBuf>,
    pub credentials: Option<Arc<dyn Credentials>>,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            fetch_deadline: Duration::from_secs(60),
            clone_deadline: Duration::from_secs(30 * 60),
            max_push: 512 * 1024 * 1024,
            program: "git".into(),
            certificates: std::env::var_os(CERTIFICATES).map(PathBuf::from),
            credentials: None,
        }
    }
}

impl fmt::Debug for MirrorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MirrorOptions(fetch within {:?}, push up to {} bytes)", self.fetch_deadline, self.max_push)
    }
}

/// All mirrors of this instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MirrorSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    hooks: PathBuf,
    options: MirrorOptions,
    remotes: RwLock<HashMap<RepoName, Remote>>,
    mirrors: Mutex<HashMap<RepoName, Arc<Mirror>>>,
    glances: Glances,
    /// Where the next mirror's generations begin, so that one that is forgotten and made anew has others.
    generations: AtomicU64,
    fetches: AtomicU64,
    spared: AtomicU64,
}

#[derive(Debug)]
struct Mirror {
    objects: Objects,
    flights: Arc<Flights<bool>>,
    claims: Arc<Mutex<Claims>>,
    upstream: Acquaintance,
    /// Refreshes and pushes that have ended, whether or not they moved anything.
    moves: Arc<AtomicU64>,
    /// When the last refresh that succeeded began.
    fresh: Mutex<Option<Instant>>,
    /// Seen on disk once; saves a look at each question.
    made: AtomicBool,
}

impl MirrorSet {
    /// Opens the directory, makes it when it is missing, and clears what a crash left half done. Nothing else may
    /// use the directory. `Unavailable` when there is no git program, `Permanent` when it is too old.
    pub async fn open(dir: impl Into<PathBuf>, remotes: Vec<Remote>, options: MirrorOptions) -> Result<Self> {
        let dir = std::path::absolute(dir.into())
            .map_err(|e| Error::invalid("the mirrors' directory").caused_by(e))?;
        check_version(&options.program).await?;
        let prepared = dir.clone();
        let hooks = tokio::task::spawn_blocking(move || store_dir::prepare(&prepared))
            .await
            .map_err(|e| Error::permanent("prepare the mirrors' directory").caused_by(e))?
            .map_err(|e| {
                Error::permanent(format!("prepare the mirrors' directory {}", dir.display())).caused_by(e)
            })?;
        let glances =
            Glances::new(&options.program, options.certificates.clone(), &dir.join("none"), LOCAL_DEADLINE)
                .await;
        let set = Self(Arc::new(Inner {
            dir,
            hooks,
            options,
            remotes: RwLock::default(),
            mirrors: Mutex::default(),
            glances,
            generations: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        }));
        set.set_remotes(remotes);
        Ok(set)
    }

    /// Replaces the configured repositories. Running operations go on with the address they began with; the
    /// mirror of a repository that is no longer configured stays on disk.
    pub fn set_remotes(&self, remotes: Vec<Remote>) {
        let remotes = remotes.into_iter().map(|r| (r.repo.clone(), r)).collect();
        *self.0.remotes.write().unwrap_or_else(PoisonError::into_inner) = remotes;
    }

    /// The repositories that have a mirror on disk and are not configured.
    pub async fn unconfigured(&self) -> Result<Vec<RepoName>> {
        let dir = self.0.dir.clone();
        let listed = tokio::task::spawn_blocking(move || store_dir::mirrors(&dir)).await;
        let listed = listed.map_err(|e| Error::permanent("list the mirrors").caused_by(e))?;
        let mut all = listed.map_err(|e| Error::permanent("list the mirrors").caused_by(e))?;
        all.retain(|repo| self.url(repo).is_err());
        Ok(all)
    }

    /// Removes the mirror of a repository that is not configured. `Conflict` where it is.
    pub async fn forget(&self, repo: &RepoName) -> Result<()> {
        let (set, repo) = (self.clone(), repo.clone());
        let doing = format!("remove the mirror of {repo}");
        let failed = doing.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let aside = {
                // Held until it has lost its place: nobody configures it meanwhile.
                let remotes = set.0.remotes.read().unwrap_or_else(PoisonError::into_inner);
                if remotes.contains_key(&repo) {
                    return Err(Error::conflict(format!("{doing}: it is configured")));
                }
                set.0.mirrors.lock().unwrap_or_else(PoisonError::into_inner).remove(&repo);
                store_dir::put_aside(&set.path(&repo))
            };
            aside
                .and_then(|aside| aside.map_or(Ok(()), std::fs::remove_dir_all))
                .map_err(|e| Error::permanent(doing).caused_by(e))
        });
        removed.await.map_err(|e| Error::permanent(failed).caused_by(e))?
    }

    /// Where the mirror of a repository lies, whether or not it has been made.
    pub fn path(&self, repo: &RepoName) -> PathBuf {
        self.0.dir.join(repo.owner()).join(format!("{}.git", repo.name()))
    }

    /// How a branch got from one commit to another. `NotFound` when the new one is not in the mirror.
    pub async fn changes(&self, repo: &RepoName, old: &CommitId, new: &CommitId) -> Result<Moved> {
        let mirror = self.made(repo).await?;
        let (old, wanted) = (old.clone(), new.clone());
        mirror
            .objects
            .ask(format!("compare commits of {repo}"), move |r| objects::changes(r, &old, &wanted))
            .await?
            .ok_or_else(|| Error::not_found(format!("commit {} of {repo} is not in the mirror", new.short())))
    }

    /// The branches whose tip is this commit, sorted. For a branch that is gone it says what it may be called now.
    pub async fn branches_at(&self, repo: &RepoName, commit: &CommitId) -> Result<Vec<Branch>> {
        let mirror = self.made(repo).await?;
        let commit = commit.clone();
        mirror
            .objects
            .ask(format!("look for branches of {repo}"), move |r| objects::branches_at(r, &commit))
            .await
    }

    /// Whether the mirror shows upstream as it was at most `age` ago.
    pub fn is_fresh(&self, repo: &RepoName, age: Duration) -> bool {
        let Ok(mirror) = self.mirror(repo) else { return false };
        let fresh = *mirror.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.is_some_and(|at| at.elapsed() <= age)
    }

    /// Fetches from upstream since the start, over all repositories.
    pub fn fetches(&self) -> u64 {
        self.0.fetches.load(Ordering::Relaxed)
    }

    /// Refreshes since the start that needed no fetch, because a look at upstream showed that nothing had moved.
    pub fn fetches_spared(&self) -> u64 {
        self.0.spared.load(Ordering::Relaxed)
    }

    /// Refreshes without waiting for it; a failure is logged.
    pub(crate) fn refresh_soon(&self, repo: &RepoName) {
        let (set, repo) = (self.clone(), repo.clone());
        tokio::spawn(async move {
            if let Err(e) = domain::ports::Mirrors::refresh(&set, &repo).await {
                tracing::warn!(%repo, error = %e.chain(), "refresh of the mirror failed");
            }
        });
    }

    /// `git upload-pack` over the mirror.
    pub(crate) fn upload_pack(&self, repo: &RepoName) -> Git {
        let path = self.path(repo);
        self.serving(&path)
            .config("uploadpack.allowAnySHA1InWant", "true")
            .config("uploadpack.allowFilter", "true")
            .arg("upload-pack")
            .arg("--stateless-rpc")
    }

    /// `git receive-pack --advertise-refs`: it changes nothing and needs no authority.
    pub(crate) fn receive_pack_refs(&self, repo: &RepoName) -> Git {
        let path = self.path(repo);
        self.serving(&path).args(["receive-pack", "--stateless-rpc", "--advertise-refs"]).arg(path)
    }

    /// `git receive-pack` with the hook that pushes on to upstream before the mirror's own reference moves, and the
    /// authority that it does so with. Where upstream does not believe it, the hook gets another one, once. What is
    /// pushed is looked at when the hook asks.
    pub(crate) async fn receive_pack(
        &self,
        repo: &RepoName,
        session: SessionId,
        new: CommitId,
    ) -> Result<(Git, Option<PushAuthority>)> {
        let remote = self.remote(repo)?;
        let authority = self.authority(repo, Operation::Push, Some(session)).await?;
        let path = self.path(repo);
        let workflows = authority.as_ref().and_then(|a| a.workflows);
        let look = Look { mirror: path.clone(), new, policy: remote.pushes, workflows };
        let git = self
            .with_upstream(self.serving(&path), &remote.url, header(authority.as_ref()))
            .config("core.hooksPath", self.0.hooks.to_string_lossy())
            .config("receive.maxInputSize", self.0.options.max_push.to_string())
            .config("receive.denyDeletes", "true")
            .config("receive.denyCurrentBranch", "ignore")
            .config("receive.unpackLimit", "100")
            .config("push.followTags", "false")
            .config("push.gpgSign", "false")
            .args(["receive-pack", "--stateless-rpc"])
            .arg(path);
        let git = look_when_asked(git, look)?;
        let Some(first) = authority else { return Ok((git, None)) };
        let (set, of) = (self.clone(), repo.clone());
        let renew = async move {
            set.doubt(session);
            set.authority(&of, Operation::Push, Some(session)).await
        };
        let second = SecondTry::offer(&self.0.hooks, renew).await?;
        let git = git.env("HOTBED_SECOND_TRY", second.dir());
        Ok((git, Some(PushAuthority { _first: first, _second: second })))
    }

    /// Says that upstream did not take what this session pushed.
    pub(crate) fn doubt(&self, session: SessionId) {
        if let Some(credentials) = &self.0.options.credentials {
            credentials.doubt(session);
        }
    }

    /// Says that a push to the branch is under way. Until the claim is dropped no refresh touches the branch.
    pub(crate) async fn claim(&self, repo: &RepoName, branch: &Branch) -> Result<PushClaim> {
        let mirror = self.mirror(repo)?;
        let (claims, branch, moves) = (mirror.claims.clone(), branch.clone(), mirror.moves.clone());
        // A publication may hold the lock for some milliseconds of disk work.
        tokio::task::spawn_blocking(move || PushClaim::new(claims, branch.as_str(), moves))
            .await
            .map_err(|e| Error::permanent(format!("claim a branch of {repo}")).caused_by(e))
    }

    pub(crate) fn max_push(&self) -> u64 {
        self.0.options.max_push
    }

    fn with_upstream(&self, mut git: Git, url: &str, header: Option<&str>) -> Git {
        if let Some(certificates) = &self.0.options.certificates {
            git = git.env(CERTIFICATES, certificates);
        }
        if let Some(header) = header {
            // Where the header is refused, git would ask the operator's helpers, and have them erase what they know,
            // although it was never tried.
            git = git.config("http.extraHeader", header).config("credential.helper", "");
        }
        git.config(&format!("remote.{UPSTREAM}.url"), url)
    }

    fn serving(&self, path: &Path) -> Git {
        Git::new(&self.0.options.program)
            .config("safe.directory", path.to_string_lossy())
            .config("transfer.hideRefs", FETCHED.trim_end_matches('/'))
            .config("receive.advertisePushOptions", "false")
    }

    fn url(&self, repo: &RepoName) -> Result<String> {
        self.remote(repo).map(|remote| remote.url)
    }

    fn remote(&self, repo: &RepoName) -> Result<Remote> {
        let remotes = self.0.remotes.read().unwrap_or_else(PoisonError::into_inner);
        remotes
            .get(repo)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("repository {repo} is not configured")))
    }

    fn mirror(&self, repo: &RepoName) -> Result<Arc<Mirror>> {
        self.url(repo)?;
        let mut mirrors = self.0.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        let mirror = mirrors.entry(repo.clone()).or_insert_with(|| {
            Arc::new(Mirror {
                objects: Objects::new(self.path(repo)),
                flights: Arc::default(),
                claims: Arc::default(),
                upstream: Acquaintance::default(),
                moves: Arc::new(AtomicU64::new(self.0.generations.fetch_add(1 << 32, Ordering::Relaxed))),
                fresh: Mutex::default(),
                made: AtomicBool::new(false),
            })
        });
        Ok(mirror.clone())
    }

    /// The mirror, if it has been made.
    async fn made(&self, repo: &RepoName) -> Result<Arc<Mirror>> {
        let mirror = self.mirror(repo)?;
        if mirror.made.load(Ordering::Relaxed) || is_made(mirror.objects.dir()).await {
            mirror.made.store(true, Ordering::Relaxed);
            Ok(mirror)
        } else {
            Err(Error::unavailable(format!("the mirror of {repo} has not been made yet")))
        }
    }

    /// Whether it has been made.
    pub(crate) async fn is_made(&self, repo: &RepoName) -> bool {
        is_made(&self.path(repo)).await
    }

    async fn authority(
        &self,
        repo: &RepoName,
        operation: Operation,
        session: Option<SessionId>,
    ) -> Result<Option<Authority>> {
        let Some(credentials) = &self.0.options.credentials else { return Ok(None) };
        match tokio::time::timeout(CREDENTIALS_DEADLINE, credentials.authority(repo, operation, session))
            .await
        {
            Ok(Ok(Some(authority))) if authority.header.contains(['\n', '\r', '\0']) => {
                Err(Error::permanent(format!("the authority for {repo} is not one header line")))
            }
            Ok(answer) => answer,
            Err(_) => Err(Error::timeout(format!("get authority for {repo}"))),
        }
    }

    async fn fly(&self, repo: &RepoName) -> Result<bool> {
        let mirror = self.mirror(repo)?;
        let url = self.url(repo)?;
        let there = is_made(mirror.objects.dir()).await;
        let operation = if there { Operation::Fetch } else { Operation::Clone };
        let authority = self.authority(repo, operation, None).await?;
        let began = Instant::now();
        let (mut moved, refused) = self.bring(repo, &mirror, operation, &url, authority.as_ref()).await;
        if let (true, Some(credentials)) = (refused, &self.0.options.credentials)
            && let Some(shared) = authority.filter(|a| a.shared)
        {
            let told = tokio::time::timeout(CREDENTIALS_DEADLINE, credentials.refused(repo, &shared));
            told.await.map_err(|_| Error::timeout(format!("get another authority for {repo}")))?;
            let another = self.authority(repo, operation, None).await?;
            (moved, _) = self.bring(repo, &mirror, operation, &url, another.as_ref()).await;
        }
        let moved = moved?;
        *mirror.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        tracing::debug!(%repo, moved, ms = began.elapsed().as_millis() as u64, "mirror refreshed");
        Ok(moved)
    }

    /// Clones or fetches; whether it was the authority that failed.
    async fn bring(
        &self,
        repo: &RepoName,
        mirror: &Arc<Mirror>,
        operation: Operation,
        url: &str,
        authority: Option<&Authority>,
    ) -> (Result<bool>, bool) {
        let refused = AtomicBool::new(false);
        let upstream = Upstream { set: self, repo, url, header: header(authority), refused };
        let moved = if operation == Operation::Clone {
            upstream.make(mirror).await
        } else {
            upstream.update(mirror).await
        };
        mirror.moves.fetch_add(1, Ordering::Release);
        (moved, upstream.refused.into_inner())
    }
}

/// Gives git's hook somebody to ask. Whoever looks ends with git at the latest: his end of the pipe closes then.
fn look_when_asked(git: Git, look: Look) -> Result<Git> {
    let doing = |e: std::io::Error| Error::unavailable("make pipes for git").caused_by(e);
    let pair = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| doing(e.into()));
    let ((asked, ask), (answer, answers)) = (pair()?, pair()?);
    let asked = pipe::Receiver::from_owned_fd(asked).map_err(doing)?;
    let answers = pipe::Sender::from_owned_fd(answers).map_err(doing)?;
    let git = git.asking(ask, answer)?;
    tokio::spawn(look::answer(look, asked, answers));
    Ok(git)
}

async fn is_made(dir: &Path) -> bool {
    // It gets its name only after its first fetch is complete.
    tokio::fs::try_exists(dir.join("HEAD")).await.unwrap_or(false)
}

fn header(authority: Option<&Authority>) -> Option<&str> {
    authority.map(|a| a.header.as_str())
}

/// One operation at upstream, with the address and the authority it began with.
struct Upstream<'a> {
    set: &'a MirrorSet,
    repo: &'a RepoName,
    url: &'a str,
    header: Option<&'a str>,
    /// Set where upstream did not take the authority, or says that what is hidden from it is not there.
    refused: AtomicBool,
}

impl Upstream<'_> {
    /// Fetches into a mirror that is there, if there may be something to fetch, and publishes what came.
    async fn update(&self, mirror: &Arc<Mirror>) -> Result<bool> {
        mirror.claims.lock().unwrap_or_else(PoisonError::into_inner).fetch_begins();
        if self.is_unchanged(mirror).await {
            self.set.0.spared.fetch_add(1, Ordering::Relaxed);
        } else {
            self.fetch(mirror.objects.dir(), self.set.0.options.fetch_deadline).await?;
        }
        let claims = mirror.claims.clone();
        let (moved, in_order) = mirror
            .objects
            .ask(format!("publish what was fetched of {}", self.repo), move |r| {
                let claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
                let moved = objects::publish(r, &|branch| claims.is_busy(branch))?;
                Ok((moved, objects::head_is_in_order(r)?))
            })
            .await?;
        if !in_order {
            self.find_head(&mirror.objects).await?;
        }
        Ok(moved > 0)
    }

    /// Whether upstream certainly has the branches and tags that were fetched last. What a push brought meanwhile does
    /// not count as fetched, so after one there is a fetch.
    async fn is_unchanged(&self, mirror: &Arc<Mirror>) -> bool {
        let Some(listing) = self.set.0.glances.at(&mirror.upstream, self.url, self.header).await else {
            return false;
        };
        let compare = move |r: &_| objects::has_fetched(r, &listing);
        mirror.objects.ask(format!("compare {} with upstream", self.repo), compare).await.unwrap_or(false)
    }

    /// Makes the mirror beside its place and moves it there when it is complete.
    async fn make(&self, mirror: &Arc<Mirror>) -> Result<bool> {
        let dir = mirror.objects.dir();
        let making = store_dir::making(dir);
        let made = self.make_in(&making).await;
        let made = match made {
            Ok(()) => tokio::fs::rename(&making, dir).await.map_err(|e| {
                Error::permanent(format!("put the mirror of {} in its place", self.repo)).caused_by(e)
            }),
            Err(e) => Err(e),
        };
        if made.is_err() {
            let _ = tokio::fs::remove_dir_all(&making).await;
        }
        mirror.objects.forget();
        made.map(|()| true)
    }

    async fn make_in(&self, making: &Path) -> Result<()> {
        let doing = format!("make the mirror of {}", self.repo);
        let io = |e: std::io::Error| Error::permanent(doing.clone()).caused_by(e);
        if tokio::fs::try_exists(making).await.map_err(io)? {
            tokio::fs::remove_dir_all(making).await.map_err(io)?;
        }
        tokio::fs::create_dir_all(making).await.map_err(io)?;
        // libgit2 reads neither reftable nor SHA-256 repositories, whatever the operator's defaults are.
        let init = Git::new(&self.set.0.options.program)
            .config("init.defaultRefFormat", "files")
            .args(["init", "--quiet", "--bare", "--template=", "--object-format=sha1"])
            .arg(making);
        self.local(init, &doing).await?;
        self.fetch(making, self.set.0.options.clone_deadline).await?;
        let objects = Objects::new(making.to_owned());
        objects.ask(doing.clone(), |r| objects::publish(r, &|_| false)).await?;
        self.find_head(&objects).await?;
        let pack = Git::new(&self.set.0.options.program).repository(making).args(["pack-refs", "--all"]);
        self.local(pack, &doing).await
    }

    async fn fetch(&self, dir: &Path, deadline: Duration) -> Result<()> {
        self.set.0.fetches.fetch_add(1, Ordering::Relaxed);
        let refspec = format!("+refs/heads/*:{FETCHED}*");
        let git = self.git().repository(dir).args([
            "fetch",
            "--quiet",
            "--no-progress",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--recurse-submodules=no",
            UPSTREAM,
            &refspec,
            TAGS,
        ]);
        self.run(git, deadline, "fetch").await.map(drop)
    }

    /// Points HEAD of the mirror at upstream's default branch, so that a plain `git clone` checks it out.
    async fn find_head(&self, objects: &Objects) -> Result<()> {
        let git = self.git().args(["ls-remote", "--symref", UPSTREAM, "HEAD"]);
        let output = self.run(git, self.set.0.options.fetch_deadline, "look for the default branch").await?;
        let head = output
            .stdout
            .lines()
            .find_map(|l| l.strip_prefix("ref: ")?.strip_suffix("\tHEAD").map(str::to_owned));
        let Some(head) = head.filter(|h| h.starts_with(objects::HEADS)) else { return Ok(()) };
        objects.ask(format!("set HEAD of {}", self.repo), move |r| r.set_head(&head)).await
    }

    fn git(&self) -> Git {
        self.set.with_upstream(Git::new(&self.set.0.options.program), self.url, self.header)
    }

    async fn run(&self, git: Git, deadline: Duration, what: &str) -> Result<Output> {
        let doing = format!("{what} {} from upstream", self.repo);
        let output = git.output(deadline, &doing).await?;
        if output.status.success() {
            Ok(output)
        } else {
            self.refused.fetch_or(failure::is_refusal(&output.stderr), Ordering::Relaxed);
            Err(failure::from_stderr(&doing, &output.stderr, self.header))
        }
    }

    async fn local(&self, git: Git, doing: &str) -> Result<()> {
        let output = git.output(LOCAL_DEADLINE, doing).await?;
        if output.status.success() {
            Ok(())
        } else {
            Err(Error::permanent(doing.to_owned()).caused_by(failure::last_words(&output.stderr, None)))
        }
    }
}

#[async_trait]
impl domain::ports::Mirrors for MirrorSet {
    async fn refresh(&self, repo: &RepoName) -> Result<bool> {
        let flights = self.mirror(repo)?.flights.clone();
        let (set, repo) = (self.clone(), repo.clone());
        flights
            .board(move || {
                let (set, repo) = (set.clone(), repo.clone());
                async move { set.fly(&repo).await }
            })
            .await
    }

    async fn tip(&self, repo: &RepoName, branch: &Branch) -> Result<Option<CommitId>> {
        let mirror = self.made(repo).await?;
        let wanted = branch.clone();
        mirror.objects.ask(format!("read branch {branch} of {repo}"), move |r| objects::tip(r, &wanted)).await
    }

    fn generation(&self, repo: &RepoName) -> Option<u64> {
        self.mirror(repo).ok().map(|mirror| mirror.moves.load(Ordering::Acquire))
    }

    async fn read(
        &self,
        repo: &RepoName,
        commit: &CommitId,
        path: &TreePath,
        limit: usize,
    ) -> Result<Option<Bytes>> {
        let mirror = self.made(repo).await?;
        let (at, file) = (commit.clone(), path.clone());
        let doing = format!("read {path} of {repo} at {}", commit.short());
        let found = mirror.objects.ask(doing, move |r| tree::read(r, &at, &file, limit)).await?;
        tree::as_file(found, path, limit).map(|bytes| bytes.map(Bytes::from))
    }

    async fn identify(&self, repo: &RepoName, commit: &CommitId, path: &TreePath) -> Result<Option<String>> {
        let mirror = self.made(repo).await?;
        let (at, path) = (commit.clone(), path.clone());
        let doing = format!("look for {path} of {repo} at {}", commit.short());
        mirror.objects.ask(doing, move |r| tree::identify(r, &at, &path)).await
    }

    async fn archive(
        &self,
        repo: &RepoName,
        commit: &CommitId,
        dir: &TreePath,
        wanted: PathFilter,
        to: PathBuf,
    ) -> Result<()> {
        let mirror = self.made(repo).await?;
        let doing = format!("archive {dir} of {repo} at {}", commit.short());
        let (at, below) = (commit.clone(), dir.clone());
        let written = mirror
            .objects
            .ask(doing.clone(), move |r| Ok(tree::archive_to(r, &at, &below, &*wanted, &to)))
            .await?;
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::not_found(format!("{doing}: there is no such directory"))),
            Err(e) => Err(Error::new(e.kind(), doing).caused_by(e)),
        }
    }

    async fn distance(&self, repo: &RepoName, from: &CommitId, to: &CommitId) -> Result<Option<u32>> {
        let mirror = self.made(repo).await?;
        let (from, to) = (from.clone(), to.clone());
        mirror
            .objects
            .ask(format!("count commits of {repo}"), move |r| objects::distance(r, &from, &to))
            .await
    }

    async fn log(
        &self,
        repo: &RepoName,
        from: &CommitId,
        to: &CommitId,
        limit: usize,
    ) -> Result<Vec<CommitLine>> {
        let mirror = self.made(repo).await?;
        let (from, to) = (from.clone(), to.clone());
        mirror
            .objects
            .ask(format!("list commits of {repo}"), move |r| objects::log(r, &from, &to, limit))
            .await
    }
}

/// 2.31 is the first git that takes configuration from `GIT_CONFIG_COUNT`.
async fn check_version(program: &Path) -> Result<()> {
    let output = Git::new(program).arg("version").output(LOCAL_DEADLINE, "ask git for its version").await?;
    let mut numbers =
        output.stdout.trim().trim_start_matches("git version ").split('.').map(|n| n.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (2, 31) => Ok(()),
        _ => Err(Error::permanent(format!("git 2.31 or newer is needed, found `{}`", output.stdout.trim()))),
    }
}

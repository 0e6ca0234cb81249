//! The git side of a relay connection: smart HTTP over the mirrors, for a caller who is known already.
//!
//! A fetch is served from the mirror. A push is read up to its commands and refused as a whole unless it does
//! nothing but move the session's own branch; what is allowed goes through git's own receive-pack, whose hook
//! pushes it on to upstream first. No header of the sandbox but `Git-Protocol` goes anywhere.
//!
//! Who the caller is and what he may do is decided before, for each request.

mod admission;
mod inbound;
mod outbound;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::ports::Mirrors;
use domain::{Branch, CommitId, Error, ErrorKind, RepoName, SandboxId, SessionId};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};

use crate::mirrors::MirrorSet;
use crate::pktline::{self, Command, MAX_HEAD, PushRequest, parse_commands};
use crate::process::Git;
use crate::pump::{self, Deadlines, Ended, Plain, Source};
use crate::relay::{Body, RelayBody, answer, full, text};
use admission::{Admission, Place};
use inbound::Inbound;
use outbound::Outbound;

/// The longest request of a fetch, in bytes after unpacking: wants and haves, no data.
const MAX_FETCH_REQUEST: u64 = 64 * 1024 * 1024;
/// What may follow a pack that git has already found too large, before the connection is cut.
const OVERRUN: u64 = 64 * 1024 * 1024;
const DUMB: &str = "the dumb protocol is not served; use a git that speaks smart HTTP";

/// Who is at the other end of a relay connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub sandbox: SandboxId,
    /// The one repository it may see.
    pub repo: RepoName,
    pub access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    /// It may push to this branch, and to no other reference.
    Push {
        session: SessionId,
        branch: Branch,
    },
}

/// A session's branch moved, upstream and in the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushEvent {
    pub repo: RepoName,
    pub session: SessionId,
    pub branch: Branch,
    /// `None` when the branch is new.
    pub old: Option<CommitId>,
    pub new: CommitId,
}

#[derive(Clone)]
pub struct GatewayOptions {
    /// How long one fetch or push may take.
    pub deadline: Duration,
    /// How long either side may be silent while the other waits for it.
    pub idle: Duration,
    /// A session that lists branches gets the mirror refreshed when it is older than this.
    pub fresh_for: Duration,
    /// How long such a refresh may hold the session up; after that it is served what is there.
    pub refresh_patience: Duration,
    /// Git children at once, in all.
    pub concurrent: usize,
    /// Git children at once, for one sandbox.
    pub concurrent_each: u32,
    /// How long a request waits for a place before it gets 503.
    pub patience: Duration,
    /// Called after a push, before the client is told of its success. It must not block.
    pub on_push: Option<Arc<dyn Fn(PushEvent) + Send + Sync>>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15 * 60),
            idle: Duration::from_secs(120),
            fresh_for: Duration::from_secs(15),
            refresh_patience: Duration::from_secs(10),
            concurrent: 64,
            concurrent_each: 8,
            patience: Duration::from_secs(10),
            on_push: None,
        }
    }
}

impl fmt::Debug for GatewayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayOptions(within {:?}, {} at once)", self.deadline, self.concurrent)
    }
}

/// What went through since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes of requests' bodies, as they came.
    pub received: u64,
    /// Bytes of answers' bodies that git made.
    pub sent: u64,
    /// Requests answered by upload-pack, listing included.
    pub fetches: u64,
    /// Pushes that moved a branch.
    pub pushes: u64,
    /// Pushes refused by policy.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    fetches: AtomicU64,
    pushes: Arc<AtomicU64>,
    refused: AtomicU64,
}

/// Serves git to sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mirrors: MirrorSet,
    options: GatewayOptions,
    admission: Admission,
    counters: Counters,
}

type Answer = Response<RelayBody>;
/// Boxed, because an answer is large and a refusal is rare.
type Refusal = Box<Answer>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    UploadPack,
    ReceivePack,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }
}

impl Gateway {
    pub fn new(mirrors: MirrorSet, options: GatewayOptions) -> Self {
        let admission = Admission::new(options.concurrent, options.concurrent_each, options.patience);
        Self(Arc::new(Inner { mirrors, options, admission, counters: Counters::default() }))
    }

    /// Whether a path is one of git's: `/owner/name.git/…`. Other paths of a relay connection are not for here.
    pub fn is_git_path(path: &str) -> bool {
        split(path).is_some()
    }

    pub fn traffic(&self) -> Traffic {
        let c = &self.0.counters;
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Traffic {
            received: read(&c.received),
            sent: read(&c.sent),
            fetches: read(&c.fetches),
            pushes: read(&c.pushes),
            refused: read(&c.refused),
        }
    }

    /// Answers one request. Dropping the answer, or the call itself, ends the git child behind it.
    pub async fn handle<B: Body>(&self, caller: &Caller, request: Request<B>) -> Answer {
        let path = request.uri().path().to_owned();
        let Some((repo, rest)) = split(&path) else {
            return text(StatusCode::NOT_FOUND, "there is no git repository at this address");
        };
        if repo != caller.repo.as_str() {
            let sentence = format!("this sandbox works on {}; {repo} is not served to it", caller.repo);
            return text(StatusCode::FORBIDDEN, sentence);
        }
        let result = match (request.method(), rest) {
            (_, lfs) if lfs.starts_with("info/lfs") => {
                Err(refuse(StatusCode::NOT_IMPLEMENTED, "Git LFS is not served by Hotbed's relay"))
            }
            (&Method::GET, "info/refs") => self.info_refs(caller, &request).await,
            (&Method::POST, "git-upload-pack") => self.upload_pack(caller, request).await,
            (&Method::POST, "git-receive-pack") => self.receive_pack(caller, request).await,
            (_, "info/refs" | "git-upload-pack" | "git-receive-pack") => {
                Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "this address takes another method"))
            }
            (_, dumb) if dumb == "HEAD" || dumb.starts_with("objects/") || dumb.starts_with("info/") => {
                Err(refuse(StatusCode::FORBIDDEN, DUMB))
            }
            _ => Err(refuse(StatusCode::NOT_FOUND, "git has no such address")),
        };
        result.unwrap_or_else(|refusal| *refusal)
    }

    async fn info_refs<B>(&self, caller: &Caller, request: &Request<B>) -> Result<Answer, Refusal> {
        let query = request.uri().query().unwrap_or_default();
        let service = query.split('&').find_map(|pair| pair.strip_prefix("service="));
        let service = match service {
            Some("git-upload-pack") => Service::UploadPack,
            Some("git-receive-pack") => Service::ReceivePack,
            Some(_) => return Err(refuse(StatusCode::FORBIDDEN, "this service is not served")),
            None => return Err(refuse(StatusCode::FORBIDDEN, DUMB)),
        };
        if service == Service::ReceivePack {
            may_push(caller)?;
        }
        let place = self.enter(caller).await?;
        self.freshen(caller, service).await?;
        let mirrors = &self.0.mirrors;
        let (git, version) = match service {
            Service::UploadPack => {
                self.0.counters.fetches.fetch_add(1, Ordering::Relaxed);
                let version = protocol(request.headers());
                let git =
                    mirrors.upload_pack(&caller.repo).arg("--advertise-refs").arg(mirrors.path(&caller.repo));
                (with_protocol(git, version), version)
            }
            Service::ReceivePack => (mirrors.receive_pack_refs(&caller.repo), 0),
        };
        let mut preface = Vec::new();
        if version < 2 {
            pktline::line(&mut preface, &[b"# service=", service.name().as_bytes(), b"\n"]);
            preface.extend_from_slice(b"0000");
        }
        let content_type = match service {
            Service::UploadPack => "application/x-git-upload-pack-advertisement",
            Service::ReceivePack => "application/x-git-receive-pack-advertisement",
        };
        let nothing = Plain(Empty::<Bytes>::new());
        self.run(git, Bytes::new(), nothing, content_type, preface, move |_| async move { drop(place) }).await
    }

    async fn upload_pack<B: Body>(&self, caller: &Caller, request: Request<B>) -> Result<Answer, Refusal> {
        let inbound = self.inbound(request.headers(), Service::UploadPack, MAX_FETCH_REQUEST)?;
        let place = self.enter(caller).await?;
        self.make_ready(caller).await?;
        self.0.counters.fetches.fetch_add(1, Ordering::Relaxed);
        let mirrors = &self.0.mirrors;
        let git = mirrors.upload_pack(&caller.repo).arg(mirrors.path(&caller.repo));
        let git = with_protocol(git, protocol(request.headers()));
        let source = inbound(request.into_body());
        let content_type = "application/x-git-upload-pack-result";
        self.run(git, Bytes::new(), source, content_type, Vec::new(), move |_| async move { drop(place) })
            .await
    }

    async fn receive_pack<B: Body>(&self, caller: &Caller, request: Request<B>) -> Result<Answer, Refusal> {
        const CONTENT_TYPE: &str = "application/x-git-receive-pack-result";
        let (session, branch) = may_push(caller)?;
        let limit = self.0.mirrors.max_push().saturating_add(MAX_HEAD as u64).saturating_add(OVERRUN);
        let inbound = self.inbound(request.headers(), Service::ReceivePack, limit)?;
        // Before anything is read: an early refusal is seen at once, one in the middle of a pack is not.
        let place = self.enter(caller).await?;
        self.make_ready(caller).await?;
        let mut source = inbound(request.into_body());
        let deadlines = self.deadlines();
        let push = match tokio::time::timeout(deadlines.idle, read_head(&mut source)).await {
            Ok(Ok(Some(push))) => push,
            Ok(Ok(None)) => {
                return Err(refuse(StatusCode::BAD_REQUEST, "the push broke off before its commands ended"));
            }
            Ok(Err(sentence)) => {
                self.hear_out(&mut source).await;
                return Err(refuse(StatusCode::BAD_REQUEST, sentence));
            }
            Err(_) => return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the push did not arrive")),
        };
        // Git probes with an empty push before it sends a large one in chunks.
        if push.commands.is_empty() && !push.certificate {
            return Ok(answer(StatusCode::OK, CONTENT_TYPE, full(Bytes::new())));
        }
        if push.certificate || push.wants("push-options") {
            self.0.counters.refused.fetch_add(1, Ordering::Relaxed);
            self.hear_out(&mut source).await;
            let sentence = "signed pushes and push options are not served by Hotbed's relay";
            return Err(refuse(StatusCode::BAD_REQUEST, sentence));
        }
        let command = match judge(&push.commands, branch) {
            Ok(command) => command,
            Err(reasons) => return Ok(self.refuse(&push, &reasons, &mut source, CONTENT_TYPE, caller).await),
        };
        let new: CommitId =
            command.new.parse().map_err(|_| refuse(StatusCode::BAD_REQUEST, "the push names no commit"))?;
        let received = self.0.mirrors.receive_pack(&caller.repo, session, new.clone());
        let (git, authority) = match received.await {
            Ok(both) => both,
            Err(e) => {
                tracing::warn!(repo = %caller.repo, %session, error = %e.chain(), "no authority to push");
                let reasons = vec![crate::redact(&e.chain(), None).into_owned()];
                return Ok(self.refuse(&push, &reasons, &mut source, CONTENT_TYPE, caller).await);
            }
        };
        let claim = self.0.mirrors.claim(&caller.repo, branch).await.map_err(failed)?;
        let event = PushEvent {
            repo: caller.repo.clone(),
            session,
            branch: branch.clone(),
            old: if command.creates() { None } else { command.old.parse().ok() },
            new,
        };
        let gateway = self.clone();
        let finish = move |succeeded| async move {
            drop(authority);
            gateway.after_push(event, succeeded, claim).await;
            drop(place);
        };
        let head = Bytes::from(push.encode());
        let answer = self.run(git, head, source, CONTENT_TYPE, Vec::new(), finish).await?;
        Ok(answer.map(without_secrets))
    }

    /// Tells of a push that moved the branch; looks at upstream again after one that did not.
    async fn after_push(&self, event: PushEvent, succeeded: bool, claim: crate::mirrors::PushClaim) {
        let mirrors = &self.0.mirrors;
        // Git exits with 0 after a refusal too; what counts is where the branch is.
        let moved = succeeded
            && matches!(mirrors.tip(&event.repo, &event.branch).await, Ok(Some(tip)) if tip == event.new);
        drop(claim);
        if moved {
            tracing::info!(repo = %event.repo, session = %event.session, branch = %event.branch, new = %event.new, "pushed");
            self.0.counters.pushes.fetch_add(1, Ordering::Relaxed);
            if let Some(tell) = &self.0.options.on_push {
                tell(event);
            }
        } else {
            // Upstream may have moved under the mirror, or have taken what the mirror has not: after a refresh
            // the next push starts from what is true.
            tracing::info!(repo = %event.repo, session = %event.session, branch = %event.branch, "push not taken");
            mirrors.doubt(event.session);
            mirrors.refresh_soon(&event.repo);
        }
    }

    async fn refuse<S: Source>(
        &self,
        push: &PushRequest,
        reasons: &[String],
        source: &mut S,
        content_type: &'static str,
        caller: &Caller,
    ) -> Answer {
        self.0.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::info!(repo = %caller.repo, sandbox = %caller.sandbox, reason = reasons.first(), "push refused");
        self.hear_out(source).await;
        answer(StatusCode::OK, content_type, full(pktline::refusal(push, reasons)))
    }

    /// Reads the rest of a request that is going to be refused: git reads no answer before it has sent everything.
    async fn hear_out<S: Source>(&self, source: &mut S) {
        let deadlines = self.deadlines();
        let all = async {
            while let Ok(Ok(Some(_))) = tokio::time::timeout(deadlines.idle, source.next()).await {}
        };
        let _ = tokio::time::timeout(deadlines.whole, all).await;
    }

    async fn run<S, F, Fut>(
        &self,
        git: Git,
        head: Bytes,
        source: S,
        content_type: &'static str,
        preface: Vec<u8>,
        finish: F,
    ) -> Result<Answer, Refusal>
    where
        S: Source,
        F: FnOnce(bool) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let sent = self.0.counters.sent.clone();
        let mut said = pump::run(git, head, source, self.deadlines(), sent, finish).map_err(failed)?;
        // Waiting for the first piece gives a child that can't even start an honest status.
        match said.next().await {
            Some(first) if preface.is_empty() => {
                Ok(answer(StatusCode::OK, content_type, said.into_body(Some(first))))
            }
            Some(first) => {
                let mut both = BytesMut::from(&preface[..]);
                both.extend_from_slice(&first);
                Ok(answer(StatusCode::OK, content_type, said.into_body(Some(both.freeze()))))
            }
            None => match said.ended().await {
                Ended::Exited { status, .. } if status.success() => {
                    Ok(answer(StatusCode::OK, content_type, full(preface)))
                }
                Ended::Exited { status, stderr } => {
                    let words = crate::failure::last_words(&stderr, None);
                    tracing::warn!(%status, stderr = words, "git failed without an answer");
                    Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "git failed in Hotbed's relay"))
                }
                Ended::Stopped(why) => {
                    Err(refuse(StatusCode::GATEWAY_TIMEOUT, format!("the relay gave up: {why}")))
                }
            },
        }
    }

    /// Before branches are listed to a session, the mirror is brought up to date if it has not been lately. Other
    /// sandboxes (pool, builds) sync to commits that Hotbed itself has just looked up.
    async fn freshen(&self, caller: &Caller, service: Service) -> Result<(), Refusal> {
        self.make_ready(caller).await?;
        let Inner { mirrors, options, .. } = &*self.0;
        let wanted = service == Service::UploadPack && matches!(caller.access, Access::Push { .. });
        if !wanted || mirrors.is_fresh(&caller.repo, options.fresh_for) {
            return Ok(());
        }
        match tokio::time::timeout(options.refresh_patience, mirrors.refresh(&caller.repo)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => {
                tracing::warn!(repo = %caller.repo, error = %e.chain(), "served from a mirror that may be old")
            }
            Err(_) => {
                tracing::warn!(repo = %caller.repo, "served from a mirror that may be old: upstream is slow")
            }
        }
        Ok(())
    }

    async fn make_ready(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.0.mirrors.is_made(&caller.repo).await {
            return Ok(());
        }
        self.0.mirrors.refresh(&caller.repo).await.map(drop).map_err(failed)
    }

    async fn enter(&self, caller: &Caller) -> Result<Place, Refusal> {
        self.0.admission.enter(caller.sandbox).await.map_err(|sentence| {
            tracing::warn!(sandbox = %caller.sandbox, sentence, "git request refused");
            retry_later(text(StatusCode::SERVICE_UNAVAILABLE, format!("{sentence}; try again")))
        })
    }

    fn inbound<B: Body>(
        &self,
        headers: &HeaderMap,
        service: Service,
        limit: u64,
    ) -> Result<impl FnOnce(B) -> Inbound<B> + use<B>, Refusal> {
        let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if content_type != format!("application/x-{}-request", service.name()).as_bytes() {
            return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type is not git's"));
        }
        let gzip = match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"x-gzip") => true,
            Some(_) => {
                return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content encoding is not known"));
            }
        };
        let received = self.0.counters.received.clone();
        Ok(move |body| Inbound::new(body, gzip, limit, received))
    }

    fn deadlines(&self) -> Deadlines {
        Deadlines { whole: self.0.options.deadline, idle: self.0.options.idle }
    }
}

/// Reads up to the flush that ends the commands. `Ok(None)` when the request ends before.
async fn read_head<B: Body>(source: &mut Inbound<B>) -> Result<Option<PushRequest>, String> {
    let mut head = BytesMut::new();
    loop {
        let Some(bytes) = source.next().await.map_err(|_| "the push can't be read".to_owned())? else {
            return Ok(None);
        };
        head.extend_from_slice(&bytes);
        if let Some(push) = parse_commands(&head).map_err(|e| e.to_string())? {
            let pack = head.split_off(push.length);
            source.put_back(pack.freeze());
            return Ok(Some(push));
        }
    }
}

/// The one command of an allowed push, or a reason for each command of a refused one.
fn judge<'a>(commands: &'a [Command], own: &Branch) -> Result<&'a Command, Vec<String>> {
    let reasons: Vec<Option<String>> = commands.iter().map(|c| objection(c, own)).collect();
    match (commands, &reasons[..]) {
        ([command], [None]) => Ok(command),
        _ => {
            let refused = reasons.iter().any(Option::is_some);
            let others =
                if refused { "another reference of this push is refused" } else { "the same branch twice" };
            Err(reasons.into_iter().map(|r| r.unwrap_or_else(|| others.to_owned())).collect())
        }
    }
}

fn objection(command: &Command, own: &Branch) -> Option<String> {
    if command.name.starts_with(b"refs/tags/") {
        return Some("a session pushes no tags".into());
    }
    if command.name.strip_prefix(b"refs/heads/") != Some(own.as_str().as_bytes()) {
        return Some(format!("this session pushes only to its own branch {own}"));
    }
    command.deletes().then(|| "a session deletes no branch".into())
}

fn may_push(caller: &Caller) -> Result<(SessionId, &Branch), Refusal> {
    match &caller.access {
        Access::Push { session, branch } => Ok((*session, branch)),
        Access::ReadOnly => {
            Err(refuse(StatusCode::FORBIDDEN, "this sandbox has no session: nothing to push as"))
        }
    }
}

/// `/owner/name.git/rest` as (`owner/name`, `rest`). An escaped path is not taken apart: no name needs escapes.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let (repo, rest) = path.split_once(".git/")?;
    repo.parse::<RepoName>().ok()?;
    Some((repo, rest))
}

/// The protocol version that the client asks for; whatever else the header says stays here.
fn protocol(headers: &HeaderMap) -> u8 {
    let words = headers.get("git-protocol").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let versions = words.split(':').filter_map(|word| match word {
        "version=1" => Some(1),
        "version=2" => Some(2),
        _ => None,
    });
    versions.max().unwrap_or(0)
}

fn with_protocol(git: Git, version: u8) -> Git {
    if version == 0 { git } else { git.env("GIT_PROTOCOL", format!("version={version}")) }
}

/// What upstream said to a push goes on to the sandbox, without what is secret here.
fn without_secrets(body: RelayBody) -> RelayBody {
    let mut outbound = Outbound::default();
    body.map_frame(move |frame| frame.map_data(|data| outbound.pass(&data))).boxed()
}

fn refuse(status: StatusCode, sentence: impl Into<String>) -> Refusal {
    Box::new(text(status, sentence))
}

fn failed(error: Error) -> Refusal {
    tracing::warn!(error = %error.chain(), "git request failed");
    let sentence = crate::redact(&error.chain(), None).into_owned();
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Exhausted => {
            retry_later(text(StatusCode::SERVICE_UNAVAILABLE, sentence))
        }
        ErrorKind::Timeout => refuse(StatusCode::GATEWAY_TIMEOUT, sentence),
        ErrorKind::NotFound => refuse(StatusCode::NOT_FOUND, sentence),
        _ => refuse(StatusCode::BAD_GATEWAY, sentence),
    }
}

fn retry_later(mut answer: Answer) -> Refusal {
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    Box::new(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(split("/acme/api.git/info/refs"), Some(("acme/api", "info/refs")));
        for other in
            ["/", "/v1/pull-requests", "/acme/api/info/refs", "/a/b/c.git/x", "/../x.git/y", "/a%2fb/c.git/x"]
        {
            assert_eq!(split(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_version_is_taken_from_the_header() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("git-protocol", HeaderValue::from_static(value));
            protocol(&headers)
        };
        assert_eq!(of("version=2"), 2);
        assert_eq!(of("object-format=x:version=1"), 1);
        assert_eq!(of("version=3"), 0);
        assert_eq!(of("version=2;rm -rf"), 0);
        assert_eq!(protocol(&HeaderMap::new()), 0);
    }

    #[test]
    fn only_the_own_branch_alone_is_allowed() {
        let own: Branch = "hotbed/s1".parse().unwrap();
        let (zero, one) = ("0".repeat(40), "1".repeat(40));
        let command =
            |new: &str, name: &str| Command { old: zero.clone(), new: new.into(), name: name.into() };
        let good = command(&one, "refs/heads/hotbed/s1");
        assert!(judge(std::slice::from_ref(&good), &own).is_ok());
        let bad = [
            command(&zero, "refs/heads/hotbed/s1"),
            command(&one, "refs/heads/main"),
            command(&one, "refs/heads/hotbed/s1/x"),
            command(&one, "refs/tags/hotbed/s1"),
            command(&one, "hotbed/s1"),
            command(&one, "refs/hotbed/upstream/main"),
            command(&one, "HEAD"),
        ];
        for b in bad {
            assert_eq!(judge(std::slice::from_ref(&b), &own).unwrap_err().len(), 1, "{b:?}");
            let mixed = [good.clone(), b];
            let reasons = judge(&mixed, &own).unwrap_err();
            assert_eq!(reasons[0], "another reference of this push is refused");
        }
        assert!(judge(&[good.clone(), good], &own).is_err());
    }
}

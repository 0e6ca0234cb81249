//! A glance at upstream before a fetch: its branches and tags, asked without starting git and over a connection that
//! stays open. Most of the time nothing has moved, and then there is nothing to fetch.
//!
//! A glance never fails: whatever it can't tell for certain is left to `git fetch`, which knows proxies, certificates,
//! helpers and redirects as the operator has set them up.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Error, Result};
use git2::{Repository, RepositoryOpenFlags};
use http::{HeaderName, HeaderValue, header};
use reqwest::{RequestBuilder, Url};
use tokio::time::Instant;

use crate::ls_refs::{self, Listing};
use crate::process::Git;

/// How long a glance may hold up the fetch that comes after it.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long an upstream that could not be glanced at is left to git.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// A connection is kept from one look of the pool to the next (`pool.fresh_within`).
const KEPT: Duration = Duration::from_secs(90);
/// For how long certificates are believed before they are read again.
const TRUSTED_FOR: Duration = Duration::from_secs(60 * 60);
/// A longer listing is not read on a thread that answers requests.
const LONG: usize = 64 << 10;
/// The most that an upstream may list, in bytes: some 400,000 branches and tags.
const MAX_LISTING: usize = 32 << 20;
/// Some servers know git by its name.
const AGENT: &str = concat!("git/2.0 (hotbed/", env!("CARGO_PKG_VERSION"), ")");
/// What git calls the certificates that it trusts instead of the system's.
pub(crate) const CERTIFICATES: &str = "GIT_SSL_CAINFO";
/// What an operator may have told git about its way to upstream.
const OPERATORS: &str =
    r"^(http\.|url\.|protocol\.allow$|protocol\..*\.allow$|remote\.upstream\.|includeif\.)";
/// Proxies are read otherwise by each library, so whoever is told of one is asked by git.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];
/// Certificates that this process would trust, and git would not.
const OTHER_CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Glances at upstreams.
#[derive(Debug)]
pub(crate) struct Glances {
    client: tokio::sync::Mutex<Option<(Instant, reqwest::Client)>>,
    /// Whom to trust instead of those whom the system trusts.
    certificates: Option<PathBuf>,
    /// Nobody told git of a way to upstream that only git knows.
    http: bool,
    /// Nor of how to speak TLS.
    https: bool,
}

/// What was learnt about one upstream.
#[derive(Debug, Default)]
pub(crate) struct Acquaintance {
    known: Mutex<Option<(String, Manner)>>,
    /// A directory is being read; one that hangs is not read twice.
    reading: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
enum Manner {
    /// It understands the question.
    Answers,
    LeftToGit {
        until: Instant,
    },
}

impl Acquaintance {
    fn of(&self, url: &str) -> Option<Manner> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(of, _)| of == url).map(|(_, manner)| *manner)
    }

    fn set(&self, url: &str, manner: Option<Manner>) {
        let known = manner.map(|manner| (url.to_owned(), manner));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Where an upstream is, as far as it can be glanced at.
#[derive(Debug, PartialEq)]
enum Place {
    Here(PathBuf),
    Http(Url),
}

impl Glances {
    /// `nowhere` is a path at which there is no repository.
    pub(crate) async fn new(
        program: &Path,
        certificates: Option<PathBuf>,
        nowhere: &Path,
        deadline: Duration,
    ) -> Self {
        let names: Vec<_> = std::env::vars_os()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(|(name, _)| name.into_string().ok())
            .collect();
        let told = names.iter().any(|name| {
            let other = certificates.is_none() && OTHER_CERTIFICATES.contains(&name.as_str());
            let gits = name.starts_with("GIT_SSL_") || name.starts_with("GIT_PROXY_SSL_");
            other || (gits && name != CERTIFICATES)
        });
        let proxied = names.iter().any(|name| PROXIES.contains(&name.to_ascii_lowercase().as_str()));
        let git = Git::new(program).env("GIT_DIR", nowhere).args([
            "config",
            "--name-only",
            "--get-regexp",
            OPERATORS,
        ]);
        // It ends with 1 when nothing is set.
        let asked = git.output(deadline, "read git's configuration").await;
        let plain = asked.is_ok_and(|o| o.status.code() == Some(1) && o.stdout.is_empty());
        let http = plain && !proxied;
        Self { client: Default::default(), certificates, http, https: http && !told }
    }

    /// The branches and tags of an upstream as they are now. `None` where it takes git to tell.
    pub(crate) async fn at(
        &self,
        known: &Acquaintance,
        url: &str,
        authority: Option<&str>,
    ) -> Option<Listing> {
        let place = place(url)?;
        let manner = match (known.of(url), &place) {
            (Some(Manner::LeftToGit { until }), _) if Instant::now() < until => return None,
            (_, Place::Http(url)) if !self.may_ask(url) => return None,
            (manner, _) => manner,
        };
        let answers = matches!(manner, Some(Manner::Answers));
        let listed = tokio::time::timeout(PATIENCE, async {
            match place {
                Place::Here(path) => here(path, known.reading.clone()).await,
                Place::Http(url) => self.over_http(&url, authority, answers).await,
            }
        });
        let (listed, late) = match listed.await {
            Ok(listed) => (listed, false),
            Err(_) => (Err(Error::timeout(format!("no answer within {PATIENCE:?}"))), true),
        };
        match listed {
            Ok(listing) => {
                if !answers {
                    known.set(url, Some(Manner::Answers));
                }
                Some(listing)
            }
            Err(e) => {
                tracing::debug!(error = %e.chain(), "a glance at upstream told nothing, git will");
                // One that has answered before is asked again from the beginning, in case it only had a bad moment.
                let pause = !answers || late;
                known.set(url, pause.then(|| Manner::LeftToGit { until: Instant::now() + PAUSE }));
                None
            }
        }
    }

    fn may_ask(&self, url: &Url) -> bool {
        if url.scheme() == "https" { self.https } else { self.http }
    }

    async fn over_http(&self, url: &Url, authority: Option<&str>, answers: bool) -> Result<Listing> {
        let client = self.client().await?;
        if !answers {
            let list = below(url, "info/refs", Some("service=git-upload-pack"));
            let announced =
                ask(client.get(list), authority, "application/x-git-upload-pack-advertisement").await?;
            if !ls_refs::is_understood(&announced) {
                return Err(Error::permanent("upstream does not speak version 2 of git's protocol"));
            }
        }
        let question = client
            .post(below(url, "git-upload-pack", None))
            .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
            .body(ls_refs::question());
        let answer = ask(question, authority, "application/x-git-upload-pack-result").await?;
        let strange = || Error::permanent("upstream's list is not understood");
        if answer.len() <= LONG {
            return ls_refs::parse_listing(&answer).ok_or_else(strange);
        }
        let parsed = tokio::task::spawn_blocking(move || ls_refs::parse_listing(&answer)).await;
        parsed.map_err(|e| strange().caused_by(e))?.ok_or_else(strange)
    }

    async fn client(&self) -> Result<reqwest::Client> {
        let mut kept = self.client.lock().await;
        if let Some((made, client)) = &*kept
            && made.elapsed() < TRUSTED_FOR
        {
            return Ok(client.clone());
        }
        let made = client(self.certificates.clone()).await?;
        Ok(kept.insert((Instant::now(), made)).1.clone())
    }
}

/// Reading the certificates that the system trusts takes its time.
async fn client(certificates: Option<PathBuf>) -> Result<reqwest::Client> {
    let failed = || Error::permanent("make an HTTP client");
    let make = move || {
        let mut builder = reqwest::Client::builder()
            // Git decides whom it follows, and with which authority.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(4)
            .user_agent(AGENT);
        if let Some(file) = certificates {
            let read = std::fs::read(&file).map_err(|e| failed().caused_by(e))?;
            let trusted = reqwest::Certificate::from_pem_bundle(&read).map_err(|e| failed().caused_by(e))?;
            builder = builder.tls_certs_only(trusted);
        }
        builder.build().map_err(|e| failed().caused_by(e))
    };
    tokio::task::spawn_blocking(make).await.map_err(|e| failed().caused_by(e))?
}

/// A path below that of a repository.
fn below(url: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = url.clone();
    let whole = format!("{}/{path}", url.path().trim_end_matches('/'));
    url.set_path(&whole);
    url.set_query(query);
    url
}

/// The whole of an answer that is what git would take.
async fn ask(request: RequestBuilder, authority: Option<&str>, kind: &str) -> Result<Vec<u8>> {
    let broken = |e: reqwest::Error| Error::unavailable("ask upstream").caused_by(e);
    let mut request = request.header("git-protocol", "version=2").header(header::ACCEPT, kind);
    if let Some(authority) = authority {
        let (name, mut value) = split(authority)?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let mut answer = request.send().await.map_err(broken)?;
    let is_kind = answer.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes() == kind.as_bytes());
    if answer.status() != http::StatusCode::OK || !is_kind {
        return Err(Error::unavailable(format!("upstream answered {}", answer.status())));
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(broken)? {
        if body.len() + piece.len() > MAX_LISTING {
            return Err(Error::exhausted("upstream lists more than a glance takes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn split(header: &str) -> Result<(HeaderName, HeaderValue)> {
    let parts = header.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    parts.ok_or_else(|| Error::permanent("the authority is not a header"))
}

/// `None` for what only git understands.
fn place(url: &str) -> Option<Place> {
    if let Some(path) = url.strip_prefix("file://").or_else(|| url.starts_with('/').then_some(url)) {
        let plain = path.starts_with('/') && !(path.contains('%') && url != path);
        return plain.then(|| Place::Here(path.into()));
    }
    let parsed = Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https"))?;
    let plain = parsed.username().is_empty()
        && parsed.password().is_none()
        && parsed.query().is_none()
        && parsed.fragment().is_none();
    plain.then_some(Place::Http(parsed))
}

/// Lists a repository on this machine. Twice: references that are being packed may show an old value, once.
async fn here(path: PathBuf, reading: Arc<AtomicBool>) -> Result<Listing> {
    let failed = |path: &Path| Error::permanent(format!("list the branches at {}", path.display()));
    if reading.swap(true, Ordering::AcqRel) {
        return Err(failed(&path).caused_by("the last look at it has not ended"));
    }
    let at = path.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let listed = list(&at).and_then(|first| Ok((list(&at)? == first).then_some(first)));
        reading.store(false, Ordering::Release);
        listed
    });
    let listed = listed.await.map_err(|e| failed(&path).caused_by(e))?;
    let listed = listed.map_err(|e| failed(&path).caused_by(e))?;
    listed.ok_or_else(|| failed(&path).caused_by("they move"))
}

fn list(path: &Path) -> Result<Listing, git2::Error> {
    let none = std::iter::empty::<&std::ffi::OsStr>();
    let repository = Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, none)?;
    let mut listing = Listing::default();
    for reference in repository.references()? {
        let reference = reference?;
        // One that leads nowhere is not shown by git either.
        let Ok(resolved) = reference.resolve() else { continue };
        let (name, Some(id)) = (reference.name()?, resolved.target()) else { continue };
        let twice = || git2::Error::from_str("a reference is there twice");
        listing.add(name, id).ok_or_else(twice)?;
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_git_understands_is_left_to_it() {
        let here = |path: &str| Some(Place::Here(path.into()));
        assert_eq!(place("/srv/a.git"), here("/srv/a.git"));
        assert_eq!(place("/srv/100%25.git"), here("/srv/100%25.git"));
        assert_eq!(place("file:///srv/a.git"), here("/srv/a.git"));
        assert!(matches!(place("https://github.com/a/b.git"), Some(Place::Http(_))));
        assert!(matches!(place("http://127.0.0.1:1/a/b"), Some(Place::Http(_))));
        for git in [
            "ssh://git@example.com/a.git",
            "git@example.com:a.git",
            "../a.git",
            "file://host/a.git",
            "file:///srv/a%20b.git",
            "https://joe@example.com/a.git",
            "https://joe:secret@example.com/a.git",
            "https://example.com/a.git?x",
            "ext::sh -c true",
            "",
        ] {
            assert_eq!(place(git), None, "{git}");
        }
    }

    #[test]
    fn paths_are_put_below_the_repository() {
        for url in ["https://example.com/a/b.git", "https://example.com/a/b.git/"] {
            let url = Url::parse(url).unwrap();
            let asked = below(&url, "info/refs", Some("service=git-upload-pack"));
            assert_eq!(asked.as_str(), "https://example.com/a/b.git/info/refs?service=git-upload-pack");
            assert_eq!(
                below(&url, "git-upload-pack", None).as_str(),
                "https://example.com/a/b.git/git-upload-pack"
            );
        }
    }

    #[test]
    fn an_upstream_that_moved_is_met_anew() {
        let known = Acquaintance::default();
        known.set("a", Some(Manner::Answers));
        assert!(matches!(known.of("a"), Some(Manner::Answers)));
        assert!(known.of("b").is_none());
        known.set("a", None);
        assert!(known.of("a").is_none());
    }
}

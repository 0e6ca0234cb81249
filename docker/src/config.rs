//! What the engine adapter is told, checked once: where the daemon is, who we are, how long a call may take.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::{Error, ErrorKind, InstanceId, Result};

/// The key in [`DockerConfig::credentials`] of the registry that the engine asks for a reference without a host.
pub const DEFAULT_REGISTRY: &str = "default";

/// Told of every call that has ended: the port's verb, how long it took, and the kind of its error. For metrics.
pub type OnCall = Arc<dyn Fn(&'static str, Duration, Option<ErrorKind>) + Send + Sync>;

/// A user and secret for one registry.
#[derive(Clone)]
pub struct Credential {
    pub user: String,
    pub secret: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, …)", self.user)
    }
}

/// The longest each call may take; past it the answer is `Timeout` and whether the deed was done is not known.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// `probe`, `list`, `list_captures`, `has`, subscribing to events, pause and resume, tags.
    pub query: Duration,
    pub start: Duration,
    /// `stop`, `remove_capture`, `dispose`.
    pub stop: Duration,
    pub capture: Duration,
    pub import: Duration,
    /// `pull` and `push`.
    pub pull: Duration,
    /// Building a Dockerfile.
    pub build: Duration,
    /// Reading all files of an image.
    pub read: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            query: Duration::from_secs(10),
            start: Duration::from_secs(60),
            stop: Duration::from_secs(60),
            capture: Duration::from_secs(600),
            import: Duration::from_secs(600),
            pull: Duration::from_secs(1800),
            build: Duration::from_secs(1800),
            read: Duration::from_secs(600),
        }
    }
}

/// Everything [`crate::DockerBackend::connect`] needs.
#[derive(Clone)]
pub struct DockerConfig {
    /// Labels everything that is made here.
    pub instance: InstanceId,
    /// Signs what is made here, so that a label which somebody else wrote is not believed (F6).
    pub secret: [u8; 32],
    /// An absolute directory on the daemon's host that Hotbed owns; see [`DockerConfig::shared_dir`].
    pub run_dir: PathBuf,
    /// The OCI runtime by the engine's name for it (`runsc`); the engine's default when not given.
    pub runtime: Option<String>,
    /// `unix:///path` or `tcp://host:port`. When not given: `DOCKER_HOST`, `/var/run/docker.sock`, then the
    /// rootless daemon's `$XDG_RUNTIME_DIR/docker.sock`.
    pub host: Option<String>,
    /// By registry host as it stands in references (`registry.example:5000`), or [`DEFAULT_REGISTRY`].
    pub credentials: HashMap<String, Credential>,
    pub deadlines: Deadlines,
    pub on_call: Option<OnCall>,
}

impl DockerConfig {
    pub fn new(instance: InstanceId, secret: [u8; 32], run_dir: impl Into<PathBuf>) -> Self {
        Self {
            instance,
            secret,
            run_dir: run_dir.into(),
            runtime: None,
            host: None,
            credentials: HashMap::new(),
            deadlines: Deadlines::default(),
            on_call: None,
        }
    }

    /// What every sandbox sees, read-only, at `/run/hotbed`: Hotbed's socket and the agent's binary belong here.
    pub fn shared_dir(&self) -> PathBuf {
        self.run_dir.join("shared")
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("instance", &self.instance)
            .field("run_dir", &self.run_dir)
            .field("runtime", &self.runtime)
            .field("host", &self.host)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

/// Where the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Unix(String),
    Tcp(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl Host {
    /// `env` and `exists` are the machine's; tests give their own.
    pub(crate) fn resolve(
        given: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self> {
        const SYSTEM: &str = "/var/run/docker.sock";
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let Some(host) = given.map(str::to_owned).or_else(|| set("DOCKER_HOST")) else {
            let rootless = set("XDG_RUNTIME_DIR").map(|dir| format!("{dir}/docker.sock"));
            let path = match rootless {
                Some(path) if !exists(Path::new(SYSTEM)) && exists(Path::new(&path)) => path,
                _ => SYSTEM.to_owned(),
            };
            return Ok(Self::Unix(path));
        };
        if let Some(path) = host.strip_prefix("unix://").filter(|p| p.starts_with('/')) {
            return Ok(Self::Unix(path.to_owned()));
        }
        match host.strip_prefix("tcp://").map(|a| a.trim_end_matches('/')) {
            Some(address) if !address.is_empty() && !address.contains('/') => {
                if set("DOCKER_TLS_VERIFY").is_some() || set("DOCKER_TLS").is_some() {
                    return Err(Error::invalid(format!(
                        "docker host `{host}`: DOCKER_TLS_VERIFY or DOCKER_TLS asks for TLS, which Hotbed does not \
                         speak to the engine; use a unix socket, or an SSH tunnel to one, and unset them"
                    )));
                }
                Ok(Self::Tcp(address.to_owned()))
            }
            _ => Err(Error::invalid(format!(
                "docker host `{host}`: expected `unix:///path/to/docker.sock` or `tcp://host:port`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(given: Option<&str>, env: &[(&str, &str)], there: &[&str]) -> Result<Host> {
        let env: HashMap<_, _> = env.iter().copied().collect();
        Host::resolve(
            given,
            |n| env.get(n).map(|v| (*v).to_owned()),
            |p| there.iter().any(|t| p == Path::new(t)),
        )
    }

    #[test]
    fn the_daemon_is_looked_for_in_order() {
        let unix = |p: &str| Host::Unix(p.to_owned());
        assert_eq!(resolve(None, &[], &[]).unwrap(), unix("/var/run/docker.sock"));
        let xdg = [("XDG_RUNTIME_DIR", "/run/user/7")];
        assert_eq!(
            resolve(None, &xdg, &["/run/user/7/docker.sock"]).unwrap(),
            unix("/run/user/7/docker.sock")
        );
        let both = ["/run/user/7/docker.sock", "/var/run/docker.sock"];
        assert_eq!(resolve(None, &xdg, &both).unwrap(), unix("/var/run/docker.sock"));
        assert_eq!(resolve(None, &[("DOCKER_HOST", "unix:///a")], &both).unwrap(), unix("/a"));
        assert_eq!(resolve(None, &[("DOCKER_HOST", "")], &both).unwrap(), unix("/var/run/docker.sock"));
        assert_eq!(resolve(Some("unix:///b"), &[("DOCKER_HOST", "unix:///a")], &[]).unwrap(), unix("/b"));
        assert_eq!(resolve(Some("tcp://h:2375/"), &[], &[]).unwrap(), Host::Tcp("h:2375".into()));
    }

    #[test]
    fn what_can_not_be_spoken_is_one_clear_error() {
        for bad in ["ssh://me@host", "tcp://", "unix://relative", "/var/run/docker.sock", "https://h:1"] {
            let error = resolve(Some(bad), &[], &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(
                error.context().contains("expected `unix:///") && error.context().contains(bad),
                "{error}"
            );
        }
        let error = resolve(Some("tcp://h:2376"), &[("DOCKER_TLS_VERIFY", "1")], &[]).unwrap_err();
        assert!(error.context().contains("TLS"), "{error}");
        // Over a unix socket the variables mean nothing, as for the engine's own client.
        assert!(resolve(Some("unix:///a"), &[("DOCKER_TLS_VERIFY", "1")], &[]).is_ok());
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut config = DockerConfig::new(InstanceId::from_u128(1), [0xab; 32], "/r");
        config.credentials.insert("h".into(), Credential { user: "u".into(), secret: "hush".into() });
        let text = format!("{config:?} {:?}", config.credentials);
        assert!(!text.contains("hush") && !text.contains("171"), "{text}");
    }
}

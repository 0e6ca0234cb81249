//! Addresses: where Hotbed listens, where repositories and services are, which hosts a sandbox may reach.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::de::Reason;
use crate::values::{Text, not, text_values};

/// Where Hotbed listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The kernel's limit for the path of a unix socket, without the final NUL.
const MAX_SOCKET_PATH: usize = 107;

impl Text for ListenAddress {
    const EXPECTED: &'static str =
        "an address and port such as `127.0.0.1:7070` or `[::1]:7070`, or `unix:/path`";

    fn parse(text: &str) -> Result<Self, Reason> {
        let wrong = || not(text, "an address to listen on");
        if let Some(path) = text.strip_prefix("unix:") {
            let path = if let Some(rest) = path.strip_prefix("//") { rest } else { path };
            if !Path::new(path).is_absolute() || path.ends_with('/') {
                return Err(wrong().help("the path of the socket must be absolute"));
            }
            if path.len() > MAX_SOCKET_PATH {
                return Err(wrong()
                    .help(format!("the path is {} bytes long; {MAX_SOCKET_PATH} are possible", path.len())));
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            return Err(wrong().help(format!("write the address: `127.0.0.1:{port}`")));
        }
        if let Some(port) = text.strip_prefix(':') {
            return Err(
                wrong().help(format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all interfaces"))
            );
        }
        match text.parse() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) if text.parse::<std::net::IpAddr>().is_ok() => Err(wrong().help("the port is missing")),
            Err(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where git clones from and pushes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitUrl(pub String);

impl Text for GitUrl {
    const EXPECTED: &'static str =
        "`https://…`, `http://…`, `ssh://…`, `user@host:path`, `file:///path` or an absolute path";

    fn parse(text: &str) -> Result<Self, Reason> {
        if holds_credentials(text) {
            return Err(credentials(Self::EXPECTED));
        }
        let wrong = || not(text, "an address git can clone from");
        if text.is_empty()
            || text.starts_with('-')
            || text.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(wrong());
        }
        let good = || Ok(Self(text.to_owned()));
        if text.starts_with('/') {
            return good();
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "file" if rest.starts_with('/') => good(),
                "file" => Err(wrong().help("after `file://` comes an absolute path: three slashes")),
                "http" | "https" => {
                    check_web(rest).map_err(|why| wrong().help(why))?;
                    if rest.split_once('/').is_none_or(|(_, path)| path.trim_matches('/').is_empty()) {
                        return Err(wrong().help("the path of the repository is missing"));
                    }
                    good()
                }
                "ssh" => {
                    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                    let (user, host) = authority.split_once('@').unwrap_or(("git", authority));
                    if !is_user(user) {
                        return Err(wrong());
                    }
                    check_host_port(host).map_err(|why| wrong().help(why))?;
                    if path.is_empty() {
                        return Err(wrong().help("the path of the repository is missing"));
                    }
                    good()
                }
                _ => Err(wrong()),
            };
        }
        // `user@host:path`, which has no slash before its colon. `ext::…` would run a program.
        match text.split_once(':') {
            Some((place, path)) if !place.contains('/') && !path.is_empty() && !path.starts_with(':') => {
                match place.split_once('@') {
                    Some((user, host)) if is_user(user) && check_host(host).is_ok() => good(),
                    _ => Err(wrong()),
                }
            }
            _ if text.starts_with("./") || text.starts_with("../") => {
                Err(wrong().help("a path must be absolute"))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The base address of a web service, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpUrl(pub String);

impl Text for HttpUrl {
    const EXPECTED: &'static str = "`https://host` or `http://host`, with a port and a path where needed";

    fn parse(text: &str) -> Result<Self, Reason> {
        if holds_credentials(text) {
            return Err(credentials(Self::EXPECTED));
        }
        let wrong = || not(text, "the address of a web service");
        let rest =
            text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(wrong)?;
        check_web(rest).map_err(|why| wrong().help(why))?;
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who issues tokens, exactly as they say it: a slash at its end counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuerUrl(pub String);

impl Text for IssuerUrl {
    const EXPECTED: &'static str = "`https://host`, with a port and a path where needed";

    fn parse(text: &str) -> Result<Self, Reason> {
        if holds_credentials(text) {
            return Err(credentials(Self::EXPECTED));
        }
        let wrong = || not(text, "the address of an issuer");
        HttpUrl::parse(text).map_err(|_| wrong())?;
        if text.starts_with("http://") && !is_loopback(text) {
            return Err(
                wrong().help("who can change what is read there can be anybody: only `https` will do")
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an address with `http://` or `https://` is this machine's own.
pub fn is_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where web pages come from, exactly as a browser says it in its `Origin` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin(pub String);

impl Text for Origin {
    const EXPECTED: &'static str = "an origin such as `https://ui.example.com`, with a port where it has one";

    fn parse(text: &str) -> Result<Self, Reason> {
        let HttpUrl(url) = HttpUrl::parse(text).map_err(|_| not(text, "an origin"))?;
        let (_, host) = url.split_once("://").ok_or_else(|| not(text, "an origin"))?;
        if host.contains('/') {
            return Err(not(text, "an origin").help("an origin has no path"));
        }
        Ok(Self(url.to_ascii_lowercase()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether something in an address may be a password or a token. Looked at before anything else, since every other
/// refusal shows the address.
fn holds_credentials(text: &str) -> bool {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if matches!(scheme, "http" | "https" | "tcp") {
        return rest.contains(['@', '?', '#']);
    }
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// What comes after `https://`.
fn check_web(rest: &str) -> Result<(), &'static str> {
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it must not hold blanks");
    }
    check_host_port(rest.split('/').next().unwrap_or_default())
}

fn credentials(expected: &str) -> Reason {
    Reason::new(
        "the address holds a user, a password, a query or a fragment: credentials are never in this file",
    )
    .expected(expected)
    .help("write the address alone; if that was a token, replace it: it was exposed")
    .sensitive()
}

fn is_user(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A host name or address, and perhaps a port.
pub(super) fn check_host_port(text: &str) -> Result<(), &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|p| !p.parse::<u16>().is_ok_and(|n| n > 0)) {
        return Err("the port must be a number from 1 to 65535");
    }
    check_host(host)
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().map(drop).map_err(|_| "the address in brackets is none");
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if host.len() <= 253 && host.split('.').all(label) {
        Ok(())
    } else {
        Err("the host is missing or is no host name")
    }
}

/// The engine's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DockerHost(pub String);

impl Text for DockerHost {
    const EXPECTED: &'static str = "`unix:///path/to/docker.sock`, or `tcp://host:port`";

    fn parse(text: &str) -> Result<Self, Reason> {
        if holds_credentials(text) {
            return Err(credentials(Self::EXPECTED));
        }
        let wrong = || not(text, "the address of an engine");
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') && path.len() <= MAX_SOCKET_PATH {
                Ok(Self(text.to_owned()))
            } else {
                Err(wrong().help(format!("its path must be absolute, and at most {MAX_SOCKET_PATH} bytes")))
            };
        }
        if text.starts_with('/') {
            return Err(wrong().help(format!("write `unix://{text}`")));
        }
        match text.strip_prefix("tcp://") {
            Some(rest) if !rest.contains(':') => Err(wrong().help("the port is missing")),
            Some(rest) => {
                check_host_port(rest).map(|()| Self(text.to_owned())).map_err(|why| wrong().help(why))
            }
            None => Err(wrong()),
        }
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host, or all hosts below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPattern(pub String);

impl Text for HostPattern {
    const EXPECTED: &'static str = "a host such as `example.com`, or `*.example.com`";

    fn parse(text: &str) -> Result<Self, Reason> {
        let wrong = || not(text, "a host pattern");
        if text.contains('/') {
            return Err(wrong().help("write the host alone, without scheme and path"));
        }
        let host = text.strip_prefix("*.").unwrap_or(text);
        if host.contains('*') {
            return Err(wrong().help("a star stands alone, at the beginning: `*.example.com`"));
        }
        check_host_port(host).map(|()| Self(text.to_owned())).map_err(|why| wrong().help(why))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_values! {
    ListenAddress, "address", "string";
    GitUrl, "git-url", "string";
    HttpUrl, "http-url", "string";
    IssuerUrl, "issuer-url", "string";
    Origin, "origin", "string";
    DockerHost, "engine-address", "string";
    HostPattern, "host-pattern", "string";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers() {
        for good in [
            "https://login.example.com",
            "https://a.example/tenant/",
            "http://127.0.0.1:9",
            "http://[::1]:9/x",
        ] {
            assert_eq!(IssuerUrl::parse(good).unwrap().0, good);
        }
        for wrong in [
            "http://login.example.com",
            "http://127.0.0.1.example.com",
            "https://a@b.example",
            "login.example.com",
            "",
        ] {
            assert!(IssuerUrl::parse(wrong).is_err(), "{wrong}");
        }
        assert!(is_loopback("http://localhost:1/x") && !is_loopback("http://localhost.example/"));
    }

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(ListenAddress::parse("127.0.0.1:7070").unwrap().to_string(), "127.0.0.1:7070");
        assert_eq!(
            ListenAddress::parse("unix:/run/h.sock").unwrap(),
            ListenAddress::Unix("/run/h.sock".into())
        );
        assert_eq!(
            ListenAddress::parse("unix:///run/h.sock").unwrap(),
            ListenAddress::Unix("/run/h.sock".into())
        );
        assert!(ListenAddress::parse("[::1]:7070").is_ok());
        let long = format!("unix:/{}", "a".repeat(120));
        for bad in [
            "",
            "7070",
            ":7070",
            "localhost:7070",
            "127.0.0.1",
            "::1",
            "unix:x",
            "unix:",
            "host:70000",
            &long,
        ] {
            assert!(ListenAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_repositories() {
        for good in [
            "https://github.com/acme/api.git",
            "http://127.0.0.1:3000/a/b",
            "ssh://git@host.example:22/a/b.git",
            "git@host.example:a/b.git",
            "file:///srv/git/a.git",
            "/srv/git/a.git",
        ] {
            assert!(GitUrl::parse(good).is_ok(), "{good}: {}", GitUrl::parse(good).err().unwrap());
        }
        for bad in [
            "",
            "github.com/acme/api",
            "acme/api",
            "ext::sh -c id",
            "ext::sh",
            "--upload-pack=x",
            "ftp://h/x",
            "git://h/x",
            "https://",
            "https://host",
            "https://host/",
            "file://x",
            "../x",
            "https://h:0/x",
            "ssh://-oProxyCommand=x/y",
            "-x@host:y",
            "user@-host:y",
            "https://ho st/x",
            "git@host:",
        ] {
            assert!(GitUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_shown() {
        for bad in [
            "https://ghp_hunter2@github.com/a/b",
            "https://u:hunter2@h/a",
            "ssh://u:hunter2@h/a",
            "https://h/a?token=hunter2",
            "https://h/a#hunter2",
            "https://hunter2@h",
            "https://u:hunter2@ho st/a",
            "https://u:hun/ter2@host/a",
            "u:hunter2@host:a/b",
            "ftp://u:hunter2@h/a",
        ] {
            let Err(reason) = GitUrl::parse(bad) else { panic!("{bad}") };
            assert!(reason.sensitive && !reason.to_string().contains("hunter2"), "{bad}: {reason}");
        }
        assert!(HttpUrl::parse("https://u:p@api.example").err().unwrap().sensitive);
    }

    #[test]
    fn services_engines_hosts() {
        assert_eq!(HttpUrl::parse("https://ghe.example/api/v3/").unwrap().0, "https://ghe.example/api/v3");
        assert!(HttpUrl::parse("ghe.example").is_err());
        assert_eq!(Origin::parse("https://UI.example:8443/").unwrap().0, "https://ui.example:8443");
        assert!(Origin::parse("https://ui.example/app").is_err());
        assert!(Origin::parse("*").is_err());
        assert!(
            DockerHost::parse("unix:///var/run/docker.sock").is_ok()
                && DockerHost::parse("tcp://10.0.0.1:2375").is_ok()
        );
        for bad in ["", "/var/run/docker.sock", "tcp://h", "ssh://h", "unix://x"] {
            assert!(DockerHost::parse(bad).is_err(), "{bad}");
        }
        assert!(HostPattern::parse("*.github.com").is_ok() && HostPattern::parse("a.example:8443").is_ok());
        for bad in ["", "*", "a.*.b", "https://a.b", "a/b", "a..b", "*.*.a"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }
}

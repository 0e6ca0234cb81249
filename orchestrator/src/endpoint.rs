//! Where the API is: an address and port, with TLS or without, or a unix socket. Both ends of it; everything else sees a
//! stream.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::ListenAddress;
use domain::{Error, Result};
use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsStream;
use tokio_util::either::Either;
use tracing::warn;

use crate::tls::{Certificate, TlsListener, Trust};

/// A connection of any kind.
pub type Stream = Either<Either<TcpStream, UnixStream>, Box<TlsStream<TcpStream>>>;

/// What accepts clients.
#[derive(Debug)]
pub enum Endpoint {
    Tcp(TcpListener),
    Unix(UnixListener),
    Tls(TlsListener),
}

impl From<TcpListener> for Endpoint {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Endpoint {
    /// Errors: `Permanent` when the address is taken or may not be used.
    pub async fn bind(address: &ListenAddress) -> Result<Self> {
        Self::bind_with(address, None).await
    }

    /// As [`Endpoint::bind`]; on an address and port with TLS, where there is a certificate.
    pub async fn bind_with(address: &ListenAddress, certificate: Option<Arc<Certificate>>) -> Result<Self> {
        let context = || format!("listen on {address}");
        match (Self::bind_plain(address).await?, certificate) {
            (Self::Tcp(listener), Some(certificate)) => TlsListener::new(listener, certificate)
                .map(Self::Tls)
                .map_err(|e| Error::permanent(context()).caused_by(e)),
            (plain, _) => Ok(plain),
        }
    }

    /// The socket that systemd has opened and hands over (`hotbed.socket`); nothing where it hands over none. It counts
    /// instead of `listen`.
    ///
    /// Errors: `Invalid` where it is more than one, or neither a stream of the internet nor one of unix.
    pub fn handed_over(certificate: Option<Arc<Certificate>>) -> Result<Option<Self>> {
        let mut sockets = ListenFd::from_env();
        if sockets.len() == 0 {
            return Ok(None);
        }
        if sockets.len() > 1 {
            let count = sockets.len();
            return Err(Error::invalid(format!("{count} sockets were handed over: expected one, the API's")));
        }
        let failed = |e: io::Error| Error::invalid("take the socket that was handed over").caused_by(e);
        if let Ok(Some(listener)) = sockets.take_unix_listener(0) {
            listener.set_nonblocking(true).map_err(failed)?;
            return UnixListener::from_std(listener).map(|l| Some(Self::Unix(l))).map_err(failed);
        }
        let listener = sockets.take_tcp_listener(0).map_err(failed)?;
        let listener = listener.ok_or_else(|| Error::invalid("the socket that was handed over is gone"))?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        match certificate {
            Some(certificate) => {
                TlsListener::new(listener, certificate).map(Self::Tls).map(Some).map_err(failed)
            }
            None => Ok(Some(Self::Tcp(listener))),
        }
    }

    async fn bind_plain(address: &ListenAddress) -> Result<Self> {
        match address {
            ListenAddress::Tcp(to) => TcpListener::bind(to)
                .await
                .map(Self::Tcp)
                .map_err(|e| Error::permanent(format!("listen on {to}")).caused_by(e)),
            // Owner and group; the API key is asked for all the same.
            ListenAddress::Unix(path) => bind_unix(path, 0o660).map(Self::Unix),
        }
    }
}

impl axum::serve::Listener for Endpoint {
    type Io = Stream;
    type Addr = String;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => TcpListener::accept(listener).await.map(|(stream, from)| {
                    // Answers are small and wanted at once: Nagle's algorithm would hold them back.
                    let _ = stream.set_nodelay(true);
                    (Either::Left(Either::Left(stream)), from.to_string())
                }),
                Self::Unix(listener) => UnixListener::accept(listener)
                    .await
                    .map(|(stream, _)| (Either::Left(Either::Right(stream)), "unix".to_owned())),
                Self::Tls(listener) => {
                    listener.accept().await.map(|(stream, from)| (Either::Right(Box::new(stream)), from))
                }
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(e) => {
                    warn!(error = %e, "accepting a client failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|a| a.to_string()),
            Self::Unix(listener) => listener.local_addr().map(|a| format!("{a:?}")),
            Self::Tls(listener) => Ok(listener.local_addr().to_string()),
        }
    }
}

/// Binds a unix socket with this mode, in the place of one that an earlier run left: nobody sees it half made.
///
/// Errors: `Permanent`.
pub fn bind_unix(path: &Path, mode: u32) -> Result<UnixListener> {
    let context = |what: &str| format!("{what} {}", path.display());
    let staging = PathBuf::from(format!("{}.new", path.display()));
    let _ = std::fs::remove_file(&staging);
    let listener = UnixListener::bind(&staging)
        .map_err(|e| Error::permanent(context("listen at the socket")).caused_by(e))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&staging, mode)
        .and_then(|()| std::fs::rename(&staging, path))
        .map_err(|e| Error::permanent(context("publish the socket")).caused_by(e))?;
    Ok(listener)
}

/// Reaches an API at `host:port`, `https://host:port` or `unix:/path`.
pub async fn connect(address: &str, trust: Option<&Trust>) -> io::Result<Stream> {
    if let Some(path) = address.strip_prefix("unix:") {
        return UnixStream::connect(path).await.map(Either::Right).map(Either::Left);
    }
    let secure = address.strip_prefix("https://");
    let to = secure.unwrap_or(address);
    let stream = TcpStream::connect(to).await?;
    let _ = stream.set_nodelay(true);
    match (secure, trust) {
        (None, _) => Ok(Either::Left(Either::Left(stream))),
        (Some(_), Some(trust)) => Ok(Either::Right(Box::new(trust.greet(stream, to).await?))),
        (Some(_), None) => Err(io::Error::other("nobody has said whom to believe: no certificate authority")),
    }
}

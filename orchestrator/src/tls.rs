//! TLS for the API: a certificate and a key in files, read again when they change; and the client's end of it. One
//! provider, aws-lc-rs, named each time, so that nothing depends on what another part of the program has installed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use config::TlsSettings;
use domain::{Error, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tracing::{debug, info, warn};

/// How long a client may take to say who it talks to. Nobody else waits meanwhile.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait to be accepted.
const HANDSHAKES: usize = 256;

type Stamp = [Option<(SystemTime, u64)>; 2];

/// The server's certificate, as its files are.
pub struct Certificate {
    settings: TlsSettings,
    present: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Stamp>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({})", self.settings.certificate.display())
    }
}

impl Certificate {
    /// Errors: `Invalid`, naming the file.
    pub fn open(settings: &TlsSettings) -> Result<Arc<Self>> {
        let seen = stamp(settings);
        let present = RwLock::new(Arc::new(read(settings)?));
        Ok(Arc::new(Self { settings: settings.clone(), present, seen: Mutex::new(seen) }))
    }

    /// Reads the files again, if they have changed or somebody insists. What can't be used changes nothing.
    pub fn refresh(&self, insist: bool) {
        let now = stamp(&self.settings);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now && !insist {
                return;
            }
            *seen = now;
        }
        match read(&self.settings) {
            Ok(new) => {
                *self.present.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                info!(certificate = %self.settings.certificate.display(), "the certificate was read again");
            }
            Err(e) => warn!(error = %e.chain(), "the new certificate is refused, the old one stays in force"),
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

/// When the files were changed, and how long they are.
fn stamp(settings: &TlsSettings) -> Stamp {
    [&settings.certificate, &settings.key].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let context = || format!("read the certificates in {}", path.display());
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|e| Error::invalid(context()).caused_by(e))?;
    if all.is_empty() {
        return Err(Error::invalid(format!("{}: it holds no PEM certificate", context())));
    }
    Ok(all)
}

fn read(settings: &TlsSettings) -> Result<ServerConfig> {
    let chain = certificates(&settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .map_err(|e| Error::invalid(format!("read the key in {}", settings.key.display())).caused_by(e))?;
    let unusable = |e| {
        let what =
            format!("use {} with the key in {}", settings.certificate.display(), settings.key.display());
        Error::invalid(what).caused_by(e)
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts clients. A handshake is done on the side: one that is slow holds up nobody.
#[derive(Debug)]
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, String)>,
    address: std::net::SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl TlsListener {
    pub fn new(listener: TcpListener, certificate: Arc<Certificate>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(HANDSHAKES);
        let accepting = tokio::spawn(accept(listener, certificate, sender));
        Ok(Self { ready, address, accepting })
    }

    pub async fn accept(&mut self) -> io::Result<(TlsStream<TcpStream>, String)> {
        self.ready.recv().await.ok_or_else(|| io::Error::other("the listener has ended"))
    }

    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.address
    }
}

async fn accept(
    listener: TcpListener,
    certificate: Arc<Certificate>,
    ready: mpsc::Sender<(TlsStream<TcpStream>, String)>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.to_string()),
            Err(e) => {
                warn!(error = %e, "accepting a client failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, ready) = (certificate.acceptor(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(ready.send((stream.into(), from)).await),
                Ok(Err(e)) => debug!(from, error = %e, "a client did not get through the handshake"),
                Err(_) => debug!(from, "a client did not end the handshake in time"),
            }
            drop(place);
        });
    }
}

/// Whom a client believes.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// The certificate authorities of this file; those of the machine when none is named.
    ///
    /// Errors: `Invalid`.
    pub fn new(ca: Option<&Path>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|e| {
                        Error::invalid(format!("believe the certificates in {}", path.display())).caused_by(e)
                    })?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::permanent("set up TLS").caused_by(e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The handshake with who is at `host:port`.
    pub async fn greet(&self, stream: TcpStream, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let greeting = self.0.connect(name, stream);
        let greeted = tokio::time::timeout(HANDSHAKE, greeting).await;
        Ok(greeted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.into())
    }
}

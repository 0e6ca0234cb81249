//! The API over TLS: who is believed, what a new certificate changes, and that nobody waits for somebody's handshake.
//! And upstreams over TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use config::{ListenAddress, TlsSettings};
use domain::RepoName;
use domain::ports::Mirrors;
use git::hosting::GitHost;
use git::{MirrorOptions, MirrorSet, Remote};
use orchestrator::client::Client;
use orchestrator::endpoint::Endpoint;
use orchestrator::tls::{Certificate, Trust};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::world::{Setup, World, ada};

fn openssl(args: &[&str]) {
    let done = Command::new("openssl").args(args).output().expect("openssl");
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority of this name, and a certificate of the loopback address that it has signed: its file, the
/// certificate's and the key's.
fn authority(dir: &Path, name: &str) -> [PathBuf; 3] {
    let file = |what: &str| dir.join(format!("{name}.{what}"));
    let [ca, ca_key, request, key, leaf, names] = ["ca", "ca-key", "csr", "key", "pem", "names"].map(file);
    let text = |path: &Path| path.display().to_string();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch"];
    let subject = format!("/CN={name}");
    let mut args = vec!["req", "-x509", "-days", "2", "-subj", &subject];
    args.extend(curve);
    let (to, key_to) = (text(&ca), text(&ca_key));
    args.extend(["-out", &to, "-keyout", &key_to]);
    openssl(&args);
    let mut args = vec!["req", "-subj", "/CN=hotbed"];
    args.extend(curve);
    let (to, leaf_key) = (text(&request), text(&key));
    args.extend(["-out", &to, "-keyout", &leaf_key]);
    openssl(&args);
    std::fs::write(&names, "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .expect("write");
    let (from, by, with, out, names) = (text(&request), text(&ca), text(&ca_key), text(&leaf), text(&names));
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &from,
        "-CA",
        &by,
        "-CAkey",
        &with,
        "-CAcreateserial",
        "-extfile",
        &names,
        "-out",
        &out,
    ]);
    [ca, leaf, key]
}

/// A client that has never talked to the server, and believes this authority.
fn client(address: &str, key: &str, ca: &Path) -> Client {
    Client::new(address, key).trusting(Trust::new(Some(ca)).expect("trust"))
}

#[test]
fn the_api_over_tls() {
    let dir = tempfile::tempdir().expect("directory");
    let [ca, leaf, key] = authority(dir.path(), "first");
    let [other_ca, other_leaf, other_key] = authority(dir.path(), "second");
    let settings = TlsSettings { certificate: dir.path().join("tls.pem"), key: dir.path().join("tls.key") };
    std::fs::copy(&leaf, &settings.certificate).expect("copy");
    std::fs::copy(&key, &settings.key).expect("copy");
    let certificate = Certificate::open(&settings).expect("certificate");

    World::with(Setup::pool(1), async |w| {
        let served: Arc<Certificate> = certificate.clone();
        let port = w
            .on(|app| async move {
                let listen = ListenAddress::Tcp("127.0.0.1:0".parse().expect("address"));
                let endpoint = Endpoint::bind_with(&listen, Some(served)).await.expect("listen");
                let port = axum_local(&endpoint);
                tokio::spawn(async move { app.serve(endpoint).await });
                port
            })
            .await;
        let address = format!("https://{port}");
        let api_key = w.app().api_key.clone();

        // Somebody who says nothing holds up nobody.
        let silent = TcpStream::connect(&port).await.expect("connect");
        let view: Value = client(&address, &api_key, &ca)
            .post("/v1/sessions", &json!({"repo": "acme/api", "user": {"login": "ada"}}))
            .await
            .expect("a session");
        assert!(view["id"].as_str().is_some_and(|id| id.starts_with("ses_")), "{view}");
        drop(silent);

        // Another authority is not believed, none at all neither, and without TLS there is no answer.
        for refused in
            [client(&address, &api_key, &other_ca), Client::new(address.as_str(), api_key.as_str())]
        {
            let error = refused.get::<Value>("/v1/repos").await.expect_err("refused");
            assert_eq!(error.kind(), domain::ErrorKind::Unavailable, "{error:?}");
        }
        let mut plain = TcpStream::connect(&port).await.expect("connect");
        plain.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.expect("write");
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

        // A certificate that can't be used changes nothing, a good one counts from the next connection on.
        w.expect_log("the new certificate is refused");
        std::fs::write(&settings.certificate, "no certificate").expect("write");
        certificate.refresh(false);
        client(&address, &api_key, &ca).get::<Value>("/v1/repos").await.expect("the old one stays");
        std::fs::copy(&other_leaf, &settings.certificate).expect("copy");
        std::fs::copy(&other_key, &settings.key).expect("copy");
        certificate.refresh(true);
        client(&address, &api_key, &other_ca).get::<Value>("/v1/repos").await.expect("the new one");
        client(&address, &api_key, &ca).get::<Value>("/v1/repos").await.expect_err("the old one has gone");

        // The audit log knows where requests came from all the same.
        let lines: Value = w.get("/v1/audit").await.expect(200).json();
        assert!(lines["items"][0]["from"].as_str().is_some_and(|f| f.starts_with("127.0.0.1:")), "{lines}");
    });
}

fn axum_local(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tls(listener) => listener.local_addr().to_string(),
        other => panic!("no TLS: {other:?}"),
    }
}

#[test]
fn what_is_no_certificate_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("directory");
    let [_, leaf, _] = authority(dir.path(), "a");
    let [_, _, other_key] = authority(dir.path(), "b");
    let nowhere = dir.path().join("nowhere");
    for (certificate, key, names) in [
        (&nowhere, &other_key, "nowhere"),
        (&leaf, &nowhere, "nowhere"),
        (&other_key, &other_key, "no PEM certificate"),
        // Its key is another one.
        (&leaf, &other_key, "a.pem"),
    ] {
        let settings = TlsSettings { certificate: certificate.clone(), key: key.clone() };
        let error = Certificate::open(&settings).expect_err("refused");
        assert!(error.chain().contains(names), "{}", error.chain());
    }
}

/// Answers over TLS with what a server on this machine says.
async fn in_front_of(server: SocketAddr, leaf: &Path, key: &Path) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(leaf).expect("certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("TLS")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut TcpStream::connect(server).await?).await
            });
        }
    });
    address
}

/// Looks at an upstream and fetches hold it to the same certificates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_over_tls() {
    let dir = tempfile::tempdir().expect("directory");
    let [ca, leaf, key] = authority(dir.path(), "first");
    let [other_ca, ..] = authority(dir.path(), "second");
    let repo: RepoName = "acme/api".parse().expect("name");
    let host = GitHost::start(dir.path().join("upstream")).await.expect("a git host");
    let upstream = host.create_repo(&repo).expect("a repository");
    let write = |text: &str| {
        let file = [("README", Some(text.as_bytes()))];
        upstream.commit_files(&"main".parse().expect("branch"), &file, "write", &ada()).expect("commit")
    };
    write("one");
    let address = in_front_of(host.address(), &leaf, &key).await;
    let open = async |place: &str, certificates: &Path| {
        let remotes = vec![Remote::new(repo.clone(), format!("https://{address}/{repo}.git"))];
        let options = MirrorOptions { certificates: Some(certificates.into()), ..MirrorOptions::default() };
        MirrorSet::open(dir.path().join(place), remotes, options).await.expect("mirrors")
    };

    let mirrors = open("trusted", &ca).await;
    for expected in [(1, 0), (1, 1), (1, 2)] {
        mirrors.refresh(&repo).await.expect("refreshed");
        assert_eq!((mirrors.fetches(), mirrors.fetches_spared()), expected);
    }
    let next = write("two");
    assert!(mirrors.refresh(&repo).await.expect("refreshed"));
    assert_eq!(mirrors.tip(&repo, &"main".parse().expect("branch")).await.expect("tip"), Some(next));

    // The same mirror, by somebody who believes another authority: neither way tells him anything.
    drop(mirrors);
    let mirrors = open("trusted", &other_ca).await;
    let error = mirrors.refresh(&repo).await.expect_err("refused");
    assert!(error.chain().contains("certificate"), "{}", error.chain());
    assert_eq!(mirrors.fetches_spared(), 0);
}

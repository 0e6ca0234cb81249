//! An identity provider to run against: discovery, keys and tokens, with real RSA, EC and Ed25519 keys. It says what it
//! is told to, wrong things included, and counts what it is asked.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One pair of keys.
pub struct Pair {
    pub id: String,
    pub algorithm: Algorithm,
    secret: EncodingKey,
    /// The public one, as a JWKS has it.
    pub public: Value,
}

impl Pair {
    /// Makes one for RS256, ES256 or EdDSA.
    pub fn new(algorithm: Algorithm, id: &str) -> Self {
        let (secret, mut public) = match algorithm {
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("an EC key");
                let der = pair.to_pkcs8v1().expect("PKCS 8");
                let secret = EncodingKey::from_ec_der(der.as_ref());
                let public = Jwk::from_encoding_key(&secret, algorithm).expect("its public key");
                (secret, json!(public))
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().expect("an Ed25519 key");
                let der = pair.to_pkcs8v1().expect("PKCS 8");
                let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                let public = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA"});
                (EncodingKey::from_ed_der(der.as_ref()), public)
            }
            _ => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("PKCS 8");
                let lines = BASE64_STANDARD.encode(der.as_ref());
                let pem = format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n");
                let secret = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a private key");
                let public = Jwk::from_encoding_key(&secret, algorithm).expect("its public key");
                (secret, json!(public))
            }
        };
        public["kid"] = json!(id);
        public["use"] = json!("sig");
        Self { id: id.to_owned(), algorithm, secret, public }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        self.sign_as(&header, claims)
    }

    pub fn sign_as(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.secret).expect("a token")
    }
}

#[derive(Default)]
struct Said {
    /// What `/jwks` answers.
    keys: Vec<Value>,
    down: bool,
    /// In the place of what discovery says.
    discovery: Option<String>,
}

/// A running provider.
pub struct Issuer {
    url: String,
    said: Arc<Mutex<Said>>,
    asked: Arc<AtomicU32>,
}

impl Issuer {
    /// On a free port of loopback, with these keys. It serves while the runtime does: a server that is being ended may
    /// still ask it.
    pub async fn start(keys: &[&Pair]) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (said, asked) = (Arc::<Mutex<Said>>::default(), Arc::<AtomicU32>::default());
        tokio::spawn(serve(listener, url.clone(), said.clone(), asked.clone()));
        let issuer = Self { url, said, asked };
        issuer.publish(keys);
        Ok(issuer)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// These keys and no other from now on.
    pub fn publish(&self, keys: &[&Pair]) {
        self.said().keys = keys.iter().map(|pair| pair.public.clone()).collect();
    }

    /// Whether it answers with nothing but 503.
    pub fn down(&self, down: bool) {
        self.said().down = down;
    }

    /// Says this of itself.
    pub fn discovery(&self, text: Option<String>) {
        self.said().discovery = text;
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, url: String, said: Arc<Mutex<Said>>, asked: Arc<AtomicU32>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // One at a time is enough: who asks is one Hotbed.
        let _ = answer(stream, &url, &said, &asked).await;
    }
}

async fn answer(
    mut stream: TcpStream,
    url: &str,
    said: &Mutex<Said>,
    asked: &AtomicU32,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, body) = {
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            _ if said.down => (503, "away".to_owned()),
            "/.well-known/openid-configuration" => {
                let usual = || json!({"issuer": url, "jwks_uri": format!("{url}/jwks")}).to_string();
                (200, said.discovery.clone().unwrap_or_else(usual))
            }
            "/jwks" => {
                asked.fetch_add(1, Ordering::Relaxed);
                (200, json!({"keys": said.keys}).to_string())
            }
            "/long" => (200, "x".repeat(2 << 20)),
            _ => (404, String::new()),
        }
    };
    let head =
        format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

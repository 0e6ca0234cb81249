//! What the stand-in knows: one value behind one lock.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::faults::Fault;

/// What somebody may do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Read,
    Write,
    Admin,
}

impl Grade {
    pub fn of(word: &str) -> Self {
        match word {
            "admin" => Self::Admin,
            "write" => Self::Write,
            _ => Self::Read,
        }
    }
}

pub(crate) struct AppRecord {
    pub slug: String,
    pub name: String,
    pub private_pem: String,
    pub public_pem: String,
    /// What the App was given at registration; installations have the same.
    pub permissions: BTreeMap<String, String>,
    pub webhook_url: Option<String>,
    pub webhook_secret: String,
    /// Whether tokens of users expire: a setting of the App at GitHub.
    pub expiring: bool,
    /// For how long they are good then: eight hours at GitHub.
    pub token_life: SignedDuration,
    pub device_flow: bool,
    pub callbacks: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct User {
    pub id: u64,
    pub login: String,
    pub name: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Repo {
    pub id: u64,
    pub full_name: String,
    pub private: bool,
    pub collaborators: BTreeMap<String, Grade>,
    pub drafts: bool,
    pub created_at: Timestamp,
    pub installation: Option<u64>,
}

impl Repo {
    pub fn owner(&self) -> &str {
        self.full_name.split('/').next().unwrap_or_default()
    }
    pub fn name(&self) -> &str {
        self.full_name.split('/').nth(1).unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub id: u64,
    pub account: String,
    pub suspended: bool,
    pub created_at: Timestamp,
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bearer {
    Installation {
        id: u64,
        repos: Option<Vec<u64>>,
        permissions: BTreeMap<String, String>,
    },
    /// By the App for a user, perhaps for one repository alone.
    User {
        login: String,
        only: Option<u64>,
    },
    /// A personal access token.
    Personal {
        login: String,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub bearer: Bearer,
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(crate) struct RefreshToken {
    pub login: String,
    pub access: String,
    pub only: Option<u64>,
    pub by_device: bool,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct WebCode {
    pub login: String,
    pub redirect_uri: String,
    pub challenge: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Approval {
    Pending,
    Approved(String),
    Denied,
}

#[derive(Debug, Clone)]
pub(crate) struct DeviceCode {
    pub user_code: String,
    pub approval: Approval,
    pub interval: u64,
    pub last_poll: Option<Timestamp>,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullState {
    Open,
    Closed,
    Merged,
}

#[derive(Debug, Clone)]
pub(crate) struct Pull {
    pub id: u64,
    pub number: u64,
    pub repo: String,
    pub title: String,
    pub body: Option<String>,
    pub head: String,
    pub base: String,
    pub head_sha: String,
    pub base_sha: String,
    pub draft: bool,
    pub state: PullState,
    /// Who opened it: a login, or the App's bot.
    pub author: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub merged_by: Option<String>,
    pub merge_sha: Option<String>,
    pub commits: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub id: u64,
    pub guid: String,
    pub event: String,
    pub action: Option<String>,
    pub body: Value,
    pub delivered_at: Timestamp,
    pub status: u16,
    pub redelivery: bool,
    pub repository: Option<u64>,
}

/// One question and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: String,
    /// With the query.
    pub path: String,
    /// `app`, `installation`, `user`, `personal`, `client` or `nobody`.
    pub authority: &'static str,
    pub request: Option<Value>,
    pub status: u16,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub left: i64,
    pub reset: Timestamp,
}

pub(crate) struct State {
    pub app: AppRecord,
    pub users: BTreeMap<String, User>,
    pub repos: BTreeMap<String, Repo>,
    /// Old names of what was renamed.
    pub moved: BTreeMap<String, u64>,
    pub installations: BTreeMap<u64, Installation>,
    pub tokens: HashMap<String, Token>,
    pub refresh: HashMap<String, RefreshToken>,
    pub codes: HashMap<String, WebCode>,
    pub devices: HashMap<String, DeviceCode>,
    pub pulls: Vec<Pull>,
    pub deliveries: Vec<Delivery>,
    pub exchanges: Vec<Exchange>,
    pub violations: Vec<String>,
    pub faults: Vec<Fault>,
    /// By how much GitHub's clock is ahead.
    pub skew: SignedDuration,
    /// Where set, requests of users and installations use it up.
    pub limit: Option<Limit>,
    /// Makes minted tokens this long; they have the stateless form then.
    pub token_length: Option<usize>,
    /// Tokens have no shape by which they could be known.
    pub odd_tokens: bool,
    /// Every token and code that was ever given out.
    pub given: Vec<String>,
    next: u64,
}

impl State {
    pub fn new() -> Self {
        let (private_pem, public_pem) = key_pair();
        let permissions = [("contents", "write"), ("metadata", "read"), ("pull_requests", "write")];
        Self {
            app: AppRecord {
                slug: "hotbed-standin".into(),
                name: "Hotbed Stand-in".into(),
                private_pem,
                public_pem,
                permissions: permissions.map(|(n, g)| (n.to_owned(), g.to_owned())).into(),
                webhook_url: None,
                webhook_secret: super::WEBHOOK_SECRET.into(),
                expiring: true,
                token_life: SignedDuration::from_hours(8),
                device_flow: true,
                callbacks: vec!["http://127.0.0.1".into(), "http://localhost".into()],
            },
            users: BTreeMap::new(),
            repos: BTreeMap::new(),
            moved: BTreeMap::new(),
            installations: BTreeMap::new(),
            tokens: HashMap::new(),
            refresh: HashMap::new(),
            codes: HashMap::new(),
            devices: HashMap::new(),
            pulls: Vec::new(),
            deliveries: Vec::new(),
            exchanges: Vec::new(),
            violations: Vec::new(),
            faults: Vec::new(),
            skew: SignedDuration::ZERO,
            limit: None,
            token_length: None,
            odd_tokens: false,
            given: Vec::new(),
            next: 1000,
        }
    }

    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn add_user(&mut self, login: &str) -> u64 {
        let key = login.to_ascii_lowercase();
        if let Some(user) = self.users.get(&key) {
            return user.id;
        }
        let id = self.number();
        self.users.insert(
            key,
            User { id, login: login.to_owned(), name: Some(format!("{login} of the stand-in")) },
        );
        id
    }

    pub fn user(&self, login: &str) -> Option<&User> {
        self.users.get(&login.to_ascii_lowercase())
    }

    pub fn add_repo(&mut self, full_name: &str, now: Timestamp) {
        let owner = full_name.split('/').next().unwrap_or_default();
        self.add_user(owner);
        let known = self.installations.values().find(|i| i.account == owner).map(|i| i.id);
        let installation = known.unwrap_or_else(|| {
            let id = self.number();
            let made = Installation { id, account: owner.to_owned(), suspended: false, created_at: now };
            self.installations.insert(id, made);
            id
        });
        let id = self.number();
        let repo = Repo {
            id,
            full_name: full_name.to_owned(),
            private: true,
            collaborators: [(owner.to_ascii_lowercase(), Grade::Admin)].into(),
            drafts: true,
            created_at: now,
            installation: Some(installation),
        };
        self.repos.insert(full_name.to_ascii_lowercase(), repo);
    }

    pub fn repo(&self, full_name: &str) -> Option<&Repo> {
        self.repos.get(&full_name.to_ascii_lowercase())
    }

    pub fn repo_mut(&mut self, full_name: &str) -> Option<&mut Repo> {
        self.repos.get_mut(&full_name.to_ascii_lowercase())
    }

    /// A secret with this prefix, of the length that GitHub's have, or of the length that was asked for.
    pub fn secret(&mut self, prefix: &str) -> String {
        let mut bytes = [0; 27];
        aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
        let word: String =
            BASE64_STANDARD.encode(bytes).chars().filter(char::is_ascii_alphanumeric).collect();
        let mut word = format!("{prefix}{word:0<36}").chars().take(prefix.len() + 36).collect::<String>();
        if self.odd_tokens {
            word = format!("odd~{}", &word[prefix.len()..]);
        }
        if let Some(length) = self.token_length.filter(|_| prefix == "ghs_") {
            word = format!("{prefix}{}_eyJhbGciOiJFUzI1NiJ9.", super::APP_ID) + &word[prefix.len()..];
            word.push('.');
            while word.len() < length {
                word.push('x');
            }
        }
        self.given.push(word.clone());
        word
    }
}

/// An RSA pair as PEM, private (PKCS#8) and public.
pub(crate) fn key_pair() -> (String, String) {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key pair");
    let private = pair.as_der().expect("PKCS#8");
    let public = pair.public_key().as_der().expect("SPKI");
    (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", public.as_ref()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

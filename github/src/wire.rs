//! One call to GitHub: the authority it goes under, its turn in the queue, its deadline, and what became of it.
//!
//! octocrab carries the request: TLS, the base address, the API version, and that an authority is sent to the base
//! address only. Nothing else of it is used; its models are strict, its retries blind, its installation tokens
//! unscoped (`docs/adr`). Bodies are sent exactly as this crate's own types say and read leniently.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::ports::UserToken;
use domain::redact::redact;
use domain::{Error, Result, SharedClock};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use octocrab::Octocrab;
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::address::Addresses;
use crate::failure::{Answer, Failure};
use crate::pace::{LaneKey, Lanes, NotNow, Signal};

/// From the first byte sent to the last received.
const DEADLINE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
const USER_AGENT: &str = concat!("hotbed/", env!("CARGO_PKG_VERSION"));

/// Under whose authority a call goes. There is no default: each call names it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Authority<'a> {
    /// The App itself, by a JSON web token.
    App(&'a Zeroizing<String>),
    /// An installation, by one of its tokens.
    Installation(u64, &'a Zeroizing<String>),
    User(&'a UserToken),
    /// The App as an OAuth client: id and secret.
    Client(&'a str, &'a Zeroizing<String>),
    /// Sign-in: what authority there is stands in the body.
    Nobody,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub method: Method,
    /// Path and query below the base address.
    pub path: String,
    pub authority: Authority<'a>,
}

impl<'a> Call<'a> {
    pub fn get(path: impl Into<String>, authority: Authority<'a>) -> Self {
        Self { method: Method::GET, path: path.into(), authority }
    }
    pub fn post(path: impl Into<String>, authority: Authority<'a>) -> Self {
        Self { method: Method::POST, path: path.into(), authority }
    }
    pub fn patch(path: impl Into<String>, authority: Authority<'a>) -> Self {
        Self { method: Method::PATCH, path: path.into(), authority }
    }
    pub fn delete(path: impl Into<String>, authority: Authority<'a>) -> Self {
        Self { method: Method::DELETE, path: path.into(), authority }
    }
}

/// One GitHub, as calls reach it. Cheap to clone. Made inside a runtime: octocrab's queue is a task of it.
#[derive(Clone)]
pub struct Wire(Arc<Inner>);

struct Inner {
    addresses: Addresses,
    api: Octocrab,
    web: Octocrab,
    lanes: Lanes,
    clock: SharedClock,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.0.addresses.api)
    }
}

impl Wire {
    /// # Errors
    /// `Invalid` when the addresses can't be used, `Permanent` when the system's certificates can't be read.
    pub fn new(addresses: Addresses, clock: SharedClock) -> Result<Self> {
        let api = carrier(&addresses.api, "application/vnd.github+json")?;
        let web = carrier(&addresses.web, "application/json")?;
        Ok(Self(Arc::new(Inner { addresses, api, web, lanes: Lanes::default(), clock })))
    }

    pub fn addresses(&self) -> &Addresses {
        &self.0.addresses
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.0.clock
    }

    /// A call to the REST API whose answer is read as `T`.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Failure> {
        read(&self.send(&self.0.api, call, body).await?)
    }

    /// A call to the REST API of which only success matters.
    pub(crate) async fn tell(
        &self,
        call: Call<'_>,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<(), Failure> {
        self.send(&self.0.api, call, body).await.map(drop)
    }

    /// A call to the web address: sign-in.
    pub(crate) async fn sign_in<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        read(&self.send(&self.0.web, Call::post(path, Authority::Nobody), Some(body)).await?)
    }

    async fn send(
        &self,
        carrier: &Octocrab,
        call: Call<'_>,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Answer, Failure> {
        let (lane, writes) = (self.lane(&call.authority), call.method != Method::GET);
        let spaced = writes && !matches!(lane, LaneKey::SignIn | LaneKey::App);
        let turn = self.0.lanes.turn(lane, spaced).await.map_err(|not_now| match not_now {
            NotNow::Closed(wait) => {
                Failure::Limited { wait: Some(wait), secondary: false, message: "told so before".into() }
            }
            NotNow::Crowded => Failure::Crowded,
        })?;
        let answer = exchange(carrier, call, body).await?;
        let now = self.0.clock.now();
        if answer.status.is_success() || answer.status == StatusCode::NOT_MODIFIED {
            turn.heard(Signal::Fine { spent: answer.spent(now) });
            return Ok(answer);
        }
        let mut failure = answer.failure(now);
        if let Failure::Limited { wait, .. } = &mut failure {
            *wait = turn.heard(Signal::Limited { wait: *wait });
        }
        Err(failure)
    }

    fn lane(&self, authority: &Authority<'_>) -> LaneKey {
        match authority {
            Authority::App(_) => LaneKey::App,
            Authority::Installation(id, _) => LaneKey::Installation(*id),
            Authority::User(token) => self.0.lanes.user(token),
            Authority::Client(..) | Authority::Nobody => LaneKey::SignIn,
        }
    }
}

fn carrier(base: &str, accept: &str) -> Result<Octocrab> {
    let wrong = |e: octocrab::Error| {
        Error::permanent(format!("set up the connection to {base}")).caused_by(words(&e))
    };
    Octocrab::builder()
        .base_uri(base)
        .map_err(wrong)?
        .add_header(header::ACCEPT, accept.to_owned())
        // Later headers of one name win over octocrab's own.
        .add_header(header::USER_AGENT, USER_AGENT.to_owned())
        .set_connect_timeout(Some(CONNECT))
        .build()
        .map_err(wrong)
}

async fn exchange(
    carrier: &Octocrab,
    call: Call<'_>,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<Answer, Failure> {
    let odd = |e: octocrab::Error| Failure::Odd { status: StatusCode::BAD_REQUEST, message: words(&e) };
    let mut request = Request::builder().method(call.method).uri(&call.path);
    let carrier = match call.authority {
        Authority::App(token) | Authority::Installation(_, token) => bearer(carrier, token).map_err(odd)?,
        Authority::User(token) => bearer(carrier, token.expose()).map_err(odd)?,
        Authority::Client(id, secret) => {
            let pair = Zeroizing::new(format!("{id}:{}", secret.as_str()));
            let basic = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
            if let Ok(mut value) = HeaderValue::from_str(&basic) {
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
            }
            carrier.clone()
        }
        Authority::Nobody => carrier.clone(),
    };
    let request = carrier.build_request(request, body).map_err(odd)?;
    let whole = async {
        let response = carrier.execute(request).await.map_err(|e| lost(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|e| Failure::Unknown { cause: redact(&chain(&*e)).into_owned(), timeout: false })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    tokio::time::timeout(DEADLINE, whole).await.unwrap_or_else(|_| {
        Err(Failure::Unknown { cause: format!("nothing for {} s", DEADLINE.as_secs()), timeout: true })
    })
}

fn bearer(carrier: &Octocrab, token: &str) -> octocrab::Result<Octocrab> {
    carrier.user_access_token(SecretString::from(token.to_owned()))
}

/// A request without an answer: told apart are those that were never sent.
fn lost(error: &octocrab::Error) -> Failure {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = next {
        if let Some(e) = e.downcast_ref::<hyper_util::client::legacy::Error>()
            && e.is_connect()
        {
            return Failure::Unreachable { cause: chain(e) };
        }
        next = e.source();
    }
    Failure::Unknown { cause: words(error), timeout: false }
}

/// What an error of octocrab says, without the stack trace that its own words may carry.
fn words(error: &octocrab::Error) -> String {
    let text = match error.source() {
        Some(source) => chain(source),
        None => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    redact(&text).into_owned()
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let text = e.to_string();
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        next = e.source();
    }
    out
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    // The position alone: what stands there may be a token.
    serde_json::from_slice(&answer.body).map_err(|e| Failure::Odd {
        status: answer.status,
        message: format!("line {}, column {} is not what was expected", e.line(), e.column()),
    })
}

/// A piece of a path, with everything escaped that could end it.
pub(crate) fn piece(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_nothing() {
        assert_eq!(piece("hotbed/s1"), "hotbed%2Fs1");
        assert_eq!(piece("a?b&c#d ü"), "a%3Fb%26c%23d%20%C3%BC");
    }
}

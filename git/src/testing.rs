//! What tests may do to a [`GitHost`](crate::hosting::GitHost): make it fail, and read what it was asked.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::watch;

use crate::relay::{RelayBody, text};

/// A request as the host saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: Method,
    /// With the query.
    pub path: String,
    pub authorization: Option<String>,
}

/// Everything off by default; changes hold for requests that come later, `hang` for those that wait too.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
    hanging: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<Asked>,
    status: Option<StatusCode>,
    token: Option<String>,
    cut: Option<u64>,
    version_0: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self { state: Mutex::default(), hanging: watch::Sender::new(false) }
    }
}

impl Faults {
    /// Answers everything with this status.
    pub fn fail_with(&self, status: Option<StatusCode>) {
        self.state().status = status;
    }

    /// Holds every request until it is called with false.
    pub fn hang(&self, on: bool) {
        self.hanging.send_replace(on);
    }

    /// Wants basic authentication as `x-access-token` with this token.
    pub fn require_token(&self, token: Option<&str>) {
        self.state().token = token.map(str::to_owned);
    }

    /// Breaks every answer off after so many bytes of its body.
    pub fn cut_after(&self, bytes: Option<u64>) {
        self.state().cut = bytes;
    }

    /// Does as a server that knows nothing of newer versions of the protocol.
    pub fn speak_version_0(&self, on: bool) {
        self.state().version_0 = on;
    }

    /// What was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// How many fetches began, or first looks before one: each begins with one listing.
    pub fn fetches(&self) -> usize {
        self.state().asked.iter().filter(|a| a.path.ends_with("info/refs?service=git-upload-pack")).count()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn intercept<B>(&self, request: &Request<B>) -> Option<Response<RelayBody>> {
        let authorization =
            request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let path = request.uri().path_and_query().map_or_else(String::new, |p| p.to_string());
        let (status, token) = {
            let mut state = self.state();
            state.asked.push(Asked {
                method: request.method().clone(),
                path,
                authorization: authorization.clone(),
            });
            (state.status, state.token.clone())
        };
        // Fails only when the sender is gone, and it is ours.
        let _ = self.hanging.subscribe().wait_for(|on| !on).await;
        if let Some(token) = token
            && authorization != Some(basic(&token))
        {
            let mut answer = text(StatusCode::UNAUTHORIZED, "Invalid username or token.");
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"git\""));
            return Some(answer);
        }
        status.map(|status| text(status, "told to fail"))
    }

    pub(crate) fn change<B>(&self, mut request: Request<B>) -> Request<B> {
        if self.state().version_0 {
            request.headers_mut().remove("git-protocol");
        }
        request
    }

    pub(crate) fn cut(&self, answer: Response<RelayBody>) -> Response<RelayBody> {
        match self.state().cut {
            Some(left) => answer.map(|body| Cut { body, left }.boxed()),
            None => answer,
        }
    }
}

/// The value of an `Authorization` header that [`Faults::require_token`] accepts.
pub fn basic(token: &str) -> String {
    format!("Basic {}", base64(format!("x-access-token:{token}").as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |n: u32| DIGITS[(n & 63) as usize] as char;
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let n = three.iter().fold(0, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        let four = [digit(n >> 18), digit(n >> 12), digit(n >> 6), digit(n)];
        out.extend(&four[..=three.len()]);
        out.extend(std::iter::repeat_n('=', 3 - three.len()));
    }
    out
}

/// A body that breaks off when its bytes are used up.
struct Cut {
    body: RelayBody,
    left: u64,
}

impl hyper::body::Body for Cut {
    type Data = bytes::Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<bytes::Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(io::Error::other("cut on purpose"))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) => {
                data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= data.len() as u64;
                Frame::data(data)
            }
            Err(trailers) => trailers,
        })))
    }
}

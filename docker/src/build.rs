//! Images from Dockerfiles: the engine builds them, with BuildKit where it has it, else with its classic builder.
//!
//! One request of our own instead of bollard's: bollard takes BuildKit only with a session over gRPC, which is for
//! secrets and credentials that a build here never gets, and brings a second HTTP stack.

mod classic;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::{Buf, Bytes, BytesMut};
use domain::ports::{BuildImage, CaptureKind, Captured, Progress};
use domain::{Error, ErrorKind, Result};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::ReaderStream;

use crate::backend::Shared;
use crate::capture::{parse_digest, size};
use crate::config::Host;
use crate::reference::capture_tag;
use classic::Steps;
use trace::Trace;

/// Bytes of the context that are read at once.
const CHUNK: usize = 256 * 1024;
/// Longest line of the engine's answer.
const MAX_LINE: usize = 16 << 20;
/// How much of an answer that is an error is read.
const MAX_ERROR: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Builder {
    BuildKit,
    Classic,
}

impl Shared {
    pub(crate) async fn build(&self, order: &BuildImage, progress: &Progress) -> Result<Captured> {
        let (repo, tag) = capture_tag(self.marker.short(), CaptureKind::Base, &order.name);
        let reference = format!("{repo}:{tag}");
        match self.build_with(Builder::BuildKit, order, &reference, progress, &mut Steps::default()).await {
            Err(e) if lacks_buildkit(&e) => {
                progress("  the engine has no BuildKit: its classic builder is used");
                let mut steps = Steps::default();
                let built = self.build_with(Builder::Classic, order, &reference, progress, &mut steps).await;
                self.drop_steps(&steps).await;
                built?;
            }
            built => built?,
        }
        let what = || format!("build {} of {}", order.dockerfile, order.name);
        let image = self.image(&reference).await?.ok_or_else(|| {
            Error::permanent(format!("{}: the engine says it is done and has no image", what()))
        })?;
        let labels = image.config.as_ref().and_then(|c| c.labels.clone()).unwrap_or_default();
        if self.marker.capture(&labels) != Some((CaptureKind::Base, order.name.clone())) {
            return Err(Error::permanent(format!("{}: the image does not carry our labels", what())));
        }
        Ok(Captured { digest: parse_digest(image.id.as_deref().unwrap_or_default())?, size: size(&image) })
    }

    async fn build_with(
        &self,
        builder: Builder,
        order: &BuildImage,
        reference: &str,
        progress: &Progress,
        steps: &mut Steps,
    ) -> Result<()> {
        let what = || format!("build {}", order.dockerfile);
        let version = self.docker().await?.client_version();
        let path = format!("/v{version}/build?{}", self.query(builder, order, reference).await?);
        let response = match &self.host {
            Host::Unix(socket) => {
                let stream = tokio::net::UnixStream::connect(socket).await;
                post(
                    stream.map_err(|e| away(what(), e))?,
                    "localhost",
                    &path,
                    self.credentials_header(),
                    &order.context,
                )
                .await?
            }
            Host::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(address).await;
                post(
                    stream.map_err(|e| away(what(), e))?,
                    address,
                    &path,
                    self.credentials_header(),
                    &order.context,
                )
                .await?
            }
        };
        let status = response.status();
        if !status.is_success() {
            let message = message_of(response.into_body()).await;
            let error =
                bollard::errors::Error::DockerResponseServerError { status_code: status.as_u16(), message };
            return Err(self.fail(what(), error));
        }
        self.follow(response.into_body(), progress, steps, &what()).await
    }

    /// Removes what the classic builder has made on its way and the image does not stand on: stages that were copied
    /// from, and all of a build that failed.
    async fn drop_steps(&self, steps: &Steps) {
        for id in steps.made() {
            // What has a name is somebody's, or what was to be made.
            let unnamed = match self.image(id).await {
                Ok(Some(image)) => image.repo_tags.unwrap_or_default().is_empty(),
                Ok(None) => false,
                Err(e) => {
                    return tracing::warn!(error = e.chain(), "steps of a build may be left in the engine");
                }
            };
            if unnamed
                && let Err(e) = self.remove_with_parents(id).await
                && e.kind() != ErrorKind::Conflict
            {
                tracing::warn!(error = e.chain(), "a step of a build is left in the engine");
            }
        }
    }

    async fn query(&self, builder: Builder, order: &BuildImage, reference: &str) -> Result<String> {
        let labels: BTreeMap<_, _> =
            self.marker.capture_labels(CaptureKind::Base, &order.name).into_iter().collect();
        let mut pairs = vec![
            ("t", reference.to_owned()),
            ("dockerfile", order.dockerfile.clone()),
            ("labels", json!(labels).to_string()),
            ("buildargs", json!(order.args).to_string()),
            ("rm", "1".into()),
            ("forcerm", "1".into()),
        ];
        if let Some(target) = &order.target {
            pairs.push(("target", target.clone()));
        }
        match builder {
            // It knows no networks but its own and none.
            Builder::BuildKit => pairs.push(("version", "2".into())),
            Builder::Classic => {
                pairs.push(("version", "1".into()));
                pairs.push(("networkmode", self.own_network().await?));
            }
        }
        Ok(pairs.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect::<Vec<_>>().join("&"))
    }

    /// For the images that it stands on, where they have not been pulled before.
    fn credentials_header(&self) -> String {
        let all: BTreeMap<&str, Value> = self
            .config
            .credentials
            .iter()
            .map(|(host, c)| (host.as_str(), json!({"username": c.user, "password": c.secret})))
            .collect();
        URL_SAFE.encode(json!(all).to_string())
    }

    /// Reads the answer to its end, line by line.
    async fn follow(
        &self,
        mut body: Incoming,
        progress: &Progress,
        steps: &mut Steps,
        what: &str,
    ) -> Result<()> {
        let mut rest = BytesMut::new();
        let mut trace = Trace::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| away(what.to_owned(), e))?;
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line = rest.split_to(end);
                rest.advance(1);
                self.take_line(&line, &mut trace, steps, progress, what)?;
            }
            if rest.len() > MAX_LINE {
                return Err(Error::permanent(format!("{what}: a line of the engine's answer has no end")));
            }
        }
        self.take_line(&rest, &mut trace, steps, progress, what)
    }

    fn take_line(
        &self,
        line: &[u8],
        trace: &mut Trace,
        steps: &mut Steps,
        progress: &Progress,
        what: &str,
    ) -> Result<()> {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
        if let Some(message) = line["error"].as_str() {
            let error = bollard::errors::Error::DockerStreamError { error: message.to_owned() };
            return Err(self.fail(what.to_owned(), error));
        }
        if line["id"] == "moby.buildkit.trace" {
            let bytes = line["aux"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
            trace.lines(&bytes).iter().for_each(|line| progress(&format!("  {line}")));
            return Ok(());
        }
        if let Some(text) = line["stream"].as_str() {
            steps.hear(text);
            for line in text.lines().filter(|l| !l.trim().is_empty()) {
                progress(&format!("  {line}"));
            }
        }
        Ok(())
    }
}

/// Sends the context; the head of the answer comes when the builder has begun.
async fn post(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: &str,
    path: &str,
    credentials: String,
    context: &Path,
) -> Result<Response<Incoming>> {
    let what = || format!("send {} to the engine", context.display());
    let file = tokio::fs::File::open(context).await.map_err(|e| Error::permanent(what()).caused_by(e))?;
    let body = StreamBody::new(ReaderStream::with_capacity(file, CHUNK).map_ok(Frame::<Bytes>::data));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| away(what(), e))?;
    // It ends when the answer has been read, or with whoever reads it.
    tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", host)
        .header("content-type", "application/x-tar")
        .header("x-registry-config", credentials)
        .body(body)
        .map_err(|e| Error::permanent(what()).caused_by(e))?;
    sender.send_request(request).await.map_err(|e| away(what(), e))
}

fn away(what: String, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, what).caused_by(e)
}

async fn message_of(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && bytes.len() < MAX_ERROR
        {
            bytes.extend_from_slice(&data);
        }
    }
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    json["message"].as_str().map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned)
}

/// Whether the refusal is of the builder and not of what was to be built.
fn lacks_buildkit(error: &Error) -> bool {
    let text = error.chain().to_ascii_lowercase();
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Permanent | ErrorKind::NotFound)
        && [
            "buildkit not supported",
            "buildkit is not",
            "invalid version",
            "no active session",
            "unsupported builder",
        ]
        .iter()
        .any(|words| text.contains(words))
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

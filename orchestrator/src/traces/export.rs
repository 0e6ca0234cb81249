//! The way out of spans: a bounded queue and one task that sends what is in it, in batches, to the collector. A collector
//! that is slow or away costs spans, which are counted, and nothing else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::redact::{KeptSecret, in_use, redact};
use domain::{Error, Result};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::secrets;

/// Spans that wait, at most: a few MiB.
const QUEUE: usize = 4096;
/// Spans in one request, at most.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How often it is looked meanwhile what has come. In between the queue has to hold it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One request to the collector.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where spans wait.
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    /// What a collector says back may hold the headers that it was sent.
    _kept: Vec<KeptSecret>,
}

/// Sets the export going.
///
/// Errors: `Invalid` (a header's secret is not to be had, or is no header).
pub(super) fn start(settings: &config::TracingSettings, metrics: &Arc<Metrics>) -> Result<Queue> {
    let (exporter, kept) = exporter(settings)?;
    let (spans, waiting) = mpsc::channel(QUEUE);
    let closing = CancellationToken::new();
    let export = Export { exporter, metrics: metrics.clone(), closing: closing.clone(), failing: false };
    let task = Mutex::new(Some(tokio::spawn(export.run(waiting))));
    Ok(Queue { spans, metrics: metrics.clone(), closing, task, _kept: kept })
}

fn exporter(settings: &config::TracingSettings) -> Result<(SpanExporter, Vec<KeptSecret>)> {
    let (mut headers, mut kept) = (HashMap::new(), Vec::new());
    for (name, source) in &settings.headers {
        let field = format!("tracing.headers.{name}");
        let value = String::from_utf8(secrets::value(&field, source)?).ok();
        let value = value.filter(|v| http::HeaderValue::from_str(v).is_ok());
        let value = value.ok_or_else(|| {
            Error::invalid(format!(
                "`{field}`: the secret can't be sent in a header: expected one line of text"
            ))
        })?;
        kept.push(in_use().keep(&value));
        headers.insert(name.clone(), value);
    }
    let failed =
        |what: &str| Error::invalid(format!("`tracing.endpoint` is `{}`: {what}", settings.endpoint));
    let client = reqwest::Client::builder()
        .timeout(DEADLINE)
        // A collector that leads elsewhere would be given the headers there.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("hotbed")
        .build()
        .map_err(|e| failed("no client for it").caused_by(e))?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(&settings.endpoint)
        .with_timeout(DEADLINE)
        .with_headers(headers)
        .build()
        .map_err(|e| failed("no exporter for it").caused_by(e))?;
    let resource = Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    exporter.set_resource(&resource);
    Ok((exporter, kept))
}

impl Queue {
    /// Never waits.
    pub(super) fn push(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.metrics.spans_left("dropped", 1);
        }
    }

    /// Sends what waits; what does not leave in time is dropped.
    pub(super) async fn finish(&self, deadline: Duration) {
        self.closing.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            task.abort();
            warn!("the last spans did not leave in time");
        }
    }
}

struct Export {
    exporter: SpanExporter,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
    /// The last batch did not leave: that is said once, not for each.
    failing: bool,
}

impl Export {
    async fn run(mut self, mut waiting: mpsc::Receiver<SpanData>) {
        let closing = self.closing.clone();
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                n = waiting.recv_many(&mut batch, BATCH) => if n == 0 { return },
                () = closing.cancelled() => {
                    waiting.close();
                    if waiting.recv_many(&mut batch, BATCH).await == 0 {
                        return;
                    }
                }
            }
            // Between two looks nobody is woken, however many spans come.
            let fill = async {
                while batch.len() < BATCH {
                    tokio::time::sleep(LOOK_EVERY).await;
                    while batch.len() < BATCH
                        && let Ok(span) = waiting.try_recv()
                    {
                        batch.push(span);
                    }
                }
            };
            tokio::select! {
                () = fill => {}
                () = tokio::time::sleep(LINGER) => {}
                () = closing.cancelled() => {}
            }
            self.send(batch).await;
        }
    }

    async fn send(&mut self, mut batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        batch.iter_mut().for_each(without_secrets);
        let sent = match tokio::time::timeout(DEADLINE, self.exporter.export(batch)).await {
            Ok(sent) => sent.map_err(|e| Error::unavailable("send spans").caused_by(e)),
            Err(_) => Err(Error::timeout("send spans")),
        };
        self.metrics.spans_left(if sent.is_ok() { "exported" } else { "failed" }, spans);
        let failed_before = std::mem::replace(&mut self.failing, sent.is_err());
        match sent {
            Err(e) if !failed_before => {
                warn!(error = %e.chain(), "the collector takes no spans; they are counted and dropped until it does");
            }
            Ok(()) if failed_before => info!("the collector takes spans again"),
            _ => {}
        }
    }
}

/// The last place before they leave, as the log's writer is for lines.
fn without_secrets(span: &mut SpanData) {
    if let Cow::Owned(clean) = redact(&span.name) {
        span.name = clean.into();
    }
    for attribute in &mut span.attributes {
        if let Value::String(text) = &attribute.value
            && let Cow::Owned(clean) = redact(text.as_str())
        {
            attribute.value = clean.into();
        }
    }
}

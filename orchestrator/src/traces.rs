//! Traces: what was done for one request, from the keystroke to the pull request, as spans that leave over OTLP.
//!
//! A span is written when it ends, from plain data, and nothing waits for it: it goes into a bounded queue, and where that
//! is full it is dropped and counted ([`export`]). The place of a session in its trace is in its record, so that what is
//! done for it later, after a restart too, stands in the same trace (ADR 0038). Spans hold ids, names, states and
//! durations; never what users type or programs print.

mod agent;
mod export;
pub mod kinds;

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use domain::{ErrorKind, Result, SharedClock, TraceContext};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use opentelemetry::trace::{Link, SpanContext, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceId, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

use crate::metrics::Metrics;
pub use kinds::Kind;
use kinds::Scope;

/// Makes spans and sees them off.
pub struct Tracer {
    clock: SharedClock,
    /// `None` where nothing is traced.
    out: Option<Out>,
}

struct Out {
    queue: export::Queue,
    /// The share of new traces that is kept.
    sample: f64,
    /// How many traces are kept in a second, whoever began them.
    pace: DefaultDirectRateLimiter,
    hotbed: InstrumentationScope,
    agent: InstrumentationScope,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracer({})", if self.out.is_some() { "on" } else { "off" })
    }
}

impl Tracer {
    /// Where the configuration says; nowhere without one.
    ///
    /// Errors: `Invalid` (a header's secret is not to be had).
    pub fn open(
        settings: Option<&config::TracingSettings>,
        clock: SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let Some(settings) = settings else { return Ok(Self::off(clock)) };
        let per_second = NonZeroU32::new(settings.per_second).unwrap_or(NonZeroU32::MIN);
        let scope = |scope: Scope| {
            InstrumentationScope::builder(scope.as_str()).with_version(env!("CARGO_PKG_VERSION")).build()
        };
        let out = Out {
            queue: export::start(settings, metrics)?,
            sample: settings.sample,
            pace: RateLimiter::direct(Quota::per_second(per_second)),
            hotbed: scope(Scope::Hotbed),
            agent: scope(Scope::Agent),
        };
        Ok(Arc::new(Self { clock, out: Some(out) }))
    }

    pub fn off(clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { clock, out: None })
    }

    pub fn is_on(&self) -> bool {
        self.out.is_some()
    }

    /// Sees off what waits, within `deadline`. What is written afterwards is dropped.
    pub async fn finish(&self, deadline: Duration) {
        if let Some(out) = &self.out {
            out.queue.finish(deadline).await;
        }
    }

    /// A span that begins now, below another one or as the first of its trace. Where it stands is decided when that is
    /// first asked, so that it can still [`Span::join`] a trace.
    pub fn begin(self: &Arc<Self>, kind: &'static Kind, parent: Option<TraceContext>) -> Span {
        match parent {
            Some(parent) => self.child(kind, Some(&parent)),
            None if self.is_on() => self.open_at(kind, Place::Open, self.clock.now()),
            None => Span::Off,
        }
    }

    /// A span that begins now below `parent`; nothing where there is no trace.
    pub fn child(self: &Arc<Self>, kind: &'static Kind, parent: Option<&TraceContext>) -> Span {
        match (&self.out, parent) {
            (Some(_), Some(parent)) if parent.is_sampled() => {
                self.open_at(kind, self.below(parent), self.clock.now())
            }
            (Some(_), Some(parent)) => Span::Unsampled(parent.clone()),
            _ => Span::Off,
        }
    }

    /// A span of the past.
    pub fn past(
        self: &Arc<Self>,
        kind: &'static Kind,
        parent: Option<&TraceContext>,
        from: Timestamp,
        to: Timestamp,
    ) -> Span {
        self.child(kind, parent).lasted(from, to)
    }

    /// A span below what a client has sent: it decides whether its trace is kept, up to as many as are kept at all.
    pub fn accept(self: &Arc<Self>, kind: &'static Kind, sent: TraceContext) -> Span {
        let Some(out) = &self.out else { return Span::Off };
        let sampled = sent.is_sampled() && out.pace.check().is_ok();
        let parent = if sampled { sent } else { sent.unsampled() };
        let mut span = self.open_at(kind, self.below(&parent), self.clock.now());
        if let Span::Recorded(open) = &mut span {
            open.remote = true;
        }
        span
    }

    fn open_at(self: &Arc<Self>, kind: &'static Kind, place: Place, begun_at: Timestamp) -> Span {
        Span::Recorded(Box::new(Recorded {
            tracer: self.clone(),
            place,
            remote: false,
            kind,
            name: kind.name.into(),
            begun_at,
            begun: Instant::now(),
            ended_at: None,
            attributes: Vec::new(),
            links: Vec::new(),
            failed: None,
        }))
    }

    fn below(&self, parent: &TraceContext) -> Place {
        Place::At { here: parent.at(new_span_id()), parent: parent.span_id() }
    }

    /// The beginning of a trace.
    fn root(&self) -> Place {
        let ids = RandomIdGenerator::default();
        let trace = u128::from_be_bytes(ids.new_trace_id().to_bytes());
        let sampled = self.out.as_ref().is_some_and(|out| {
            // As other OpenTelemetry libraries judge: by the last bytes of the id.
            let low = (trace as u64) >> 1;
            let share = (low as f64) / (1u64 << 63) as f64;
            share < out.sample && out.pace.check().is_ok()
        });
        match TraceContext::new(trace, new_span_id(), sampled) {
            Some(here) => Place::At { here, parent: 0 },
            // The generator gives no zeros.
            None => Place::Open,
        }
    }

    fn write(&self, span: &mut Recorded) {
        let Some(out) = &self.out else { return };
        let Place::At { here, parent } = &span.place else { return };
        let end = span
            .ended_at
            .map_or_else(|| SystemTime::from(span.begun_at) + span.begun.elapsed(), SystemTime::from);
        let mut links = SpanLinks::default();
        links.links = std::mem::take(&mut span.links);
        out.queue.push(SpanData {
            span_context: context_of(here, false),
            parent_span_id: SpanId::from(*parent),
            parent_span_is_remote: span.remote,
            span_kind: span.kind.span_kind(),
            name: std::mem::take(&mut span.name),
            start_time: span.begun_at.into(),
            end_time: end,
            attributes: std::mem::take(&mut span.attributes),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: match span.failed {
                Some(kind) => Status::error(kind.as_str()),
                None => Status::Unset,
            },
            instrumentation_scope: match span.kind.scope {
                Scope::Hotbed => out.hotbed.clone(),
                Scope::Agent => out.agent.clone(),
            },
        });
    }
}

fn new_span_id() -> u64 {
    u64::from_be_bytes(RandomIdGenerator::default().new_span_id().to_bytes())
}

fn context_of(at: &TraceContext, remote: bool) -> SpanContext {
    let flags = if at.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let state: TraceState = at.state().and_then(|s| s.parse().ok()).unwrap_or_default();
    SpanContext::new(TraceId::from(at.trace_id()), SpanId::from(at.span_id()), flags, remote, state)
}

/// A piece of work, from its beginning until it is dropped.
#[must_use = "a span ends when it is dropped"]
#[derive(Default)]
pub enum Span {
    /// Nothing is traced.
    #[default]
    Off,
    /// Its trace is not kept; what is done for it elsewhere is told so.
    Unsampled(TraceContext),
    Recorded(Box<Recorded>),
}

/// A span while it is open.
pub struct Recorded {
    tracer: Arc<Tracer>,
    place: Place,
    /// Its parent is a span of the client's.
    remote: bool,
    kind: &'static Kind,
    name: Cow<'static, str>,
    begun_at: Timestamp,
    begun: Instant,
    /// Of the past.
    ended_at: Option<Timestamp>,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    failed: Option<ErrorKind>,
}

enum Place {
    /// Not decided: it may become the first of a trace or join one.
    Open,
    /// It won't be written.
    Nowhere,
    At {
        here: TraceContext,
        /// 0 where there is none.
        parent: u64,
    },
}

impl Span {
    /// Its place, for what stands below it. `None` where nothing is traced.
    pub fn context(&mut self) -> Option<TraceContext> {
        match self {
            Self::Off => None,
            Self::Unsampled(parent) => Some(parent.clone()),
            Self::Recorded(span) => span.context(),
        }
    }

    /// Goes into a trace that is under way, if this span has no place yet; else the two are linked.
    pub fn join(&mut self, other: Option<&TraceContext>) {
        let (Self::Recorded(span), Some(other)) = (self, other) else { return };
        match &span.place {
            Place::Open => span.place = span.tracer.below(other),
            Place::At { here, .. } if here.trace_id() != other.trace_id() => {
                span.links.push(Link::with_context(context_of(other, true)));
            }
            Place::At { .. } | Place::Nowhere => {}
        }
    }

    /// One of the attributes that its kind is documented with.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.set_with(key, || value.into());
    }

    /// [`Span::set`] to what something is written as, where that may ever be read.
    pub fn show(&mut self, key: &'static str, what: impl std::fmt::Display) {
        self.set_with(key, || what.to_string().into());
    }

    fn set_with(&mut self, key: &'static str, value: impl FnOnce() -> Value) {
        if let Self::Recorded(span) = self {
            debug_assert!(span.kind.attributes.contains(&key), "{} has no {key}", span.kind.name);
            if span.may_be_written() {
                span.attributes.push(KeyValue::new(key, value()));
            }
        }
    }

    /// Whether it will be written. Decides where it stands, if nothing has: nothing can be joined any more.
    pub fn is_kept(&mut self) -> bool {
        self.context().is_some_and(|here| here.is_sampled())
    }

    /// It was then, and is told now.
    pub fn lasted(mut self, from: Timestamp, to: Timestamp) -> Self {
        if let Self::Recorded(span) = &mut self {
            span.begun_at = from;
            span.ended_at = Some(to.max(from));
        }
        self
    }

    /// When it began, by the clock.
    pub fn begun_at(&self) -> Option<Timestamp> {
        match self {
            Self::Recorded(span) => Some(span.begun_at),
            _ => None,
        }
    }

    pub fn rename(&mut self, name: String) {
        if let Self::Recorded(span) = self {
            span.name = name.into();
        }
    }

    pub fn fail(&mut self, kind: ErrorKind) {
        if let Self::Recorded(span) = self {
            span.failed = Some(kind);
        }
    }

    /// It is not written, unless somebody knows of it already.
    pub fn forget(&mut self) {
        if let Self::Recorded(span) = self
            && matches!(span.place, Place::Open)
        {
            span.place = Place::Nowhere;
        }
    }

    /// Notes how it ended.
    pub fn ended<T>(mut self, how: Result<T>) -> Result<T> {
        if let Err(e) = &how {
            self.fail(e.kind());
        }
        how
    }

    /// Lasts as long as `work`.
    pub async fn around<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let how = work.await;
        self.ended(how)
    }
}

impl Recorded {
    fn may_be_written(&self) -> bool {
        match &self.place {
            Place::Open => true,
            Place::At { here, .. } => here.is_sampled(),
            Place::Nowhere => false,
        }
    }

    fn context(&mut self) -> Option<TraceContext> {
        if matches!(self.place, Place::Open) {
            self.place = self.tracer.root();
        }
        match &self.place {
            Place::At { here, .. } => Some(here.clone()),
            Place::Open | Place::Nowhere => None,
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // One that nobody asked for its place stands alone, and is decided on now.
        if self.context().is_some_and(|here| here.is_sampled()) {
            self.tracer.clone().write(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_traced_nothing_is_made() {
        let tracer = Tracer::off(Arc::new(domain::SystemClock));
        let mut span = tracer.begin(&kinds::REQUEST, None);
        assert!(matches!(span, Span::Off) && span.context().is_none());
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        assert!(tracer.child(&kinds::SYNC, Some(&parent)).context().is_none());
    }
}

//! What there is to know of every metric before it has a series: name, kind, labels, and the words that may stand in
//! them. `docs/metrics.md` is made of it, and a test holds the queries of dashboards and alerts against it.

use std::fmt::Write as _;
use std::hash::Hash;

use domain::TraceContext;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder, text};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::by_repo::{ByRepo, Shown};

/// What every name begins with, but for those of the process.
pub const PREFIX: &str = "hotbed";

/// A set of labels that knows their names.
pub trait Labels: EncodeLabelSet + Clone + Hash + Eq + Send + Sync + std::fmt::Debug + 'static {
    const NAMES: &'static [&'static str];

    /// `name="value",…`, as lines of metrics have it.
    fn text(&self) -> String;
}

/// One more label, behind those that are there.
pub fn label(out: &mut String, name: &str, value: &dyn std::fmt::Display) {
    if !out.is_empty() {
        out.push(',');
    }
    let _ = write!(out, "{name}=\"");
    for c in value.to_string().chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '"' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Declares sets of labels: fixed words, numbers, or the name of a configured repo; never an id.
macro_rules! labels {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelSet)]
        pub struct $name { $(pub $field: $type),* }

        impl $crate::metrics::catalogue::Labels for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            fn text(&self) -> String {
                let mut out = String::new();
                $($crate::metrics::catalogue::label(&mut out, stringify!($field), &self.$field);)*
                out
            }
        }
    )*};
}
pub(super) use labels;

/// What may stand in a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    Words(Vec<&'static str>),
    /// What this says; every one of a fixed set.
    Others(&'static str),
}

impl Values {
    /// The name of a configured repo.
    pub const REPO: Self = Self::Others("a configured repo");

    pub fn words<T>(all: impl IntoIterator<Item = T>, word: impl Fn(T) -> &'static str) -> Self {
        Self::Words(all.into_iter().map(word).collect())
    }

    pub fn allows(&self, word: &str) -> bool {
        match self {
            Self::Words(words) => words.contains(&word),
            Self::Others(_) => true,
        }
    }
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// As queries write it, without the suffixes of a histogram's series.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub help: &'static str,
    pub labels: Vec<(&'static str, Values)>,
}

impl Described {
    /// `name{label, …}` as the design writes it.
    pub fn signature(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|(name, _)| *name).collect();
        if labels.is_empty() { self.name.clone() } else { format!("{}{{{}}}", self.name, labels.join(",")) }
    }

    /// The names of its series.
    pub fn series(&self) -> Vec<String> {
        match self.kind {
            "histogram" => ["_bucket", "_sum", "_count"].map(|s| format!("{}{s}", self.name)).to_vec(),
            _ => vec![self.name.clone()],
        }
    }
}

fn kind_of<M: TypedMetric>() -> &'static str {
    use prometheus_client::metrics::MetricType as T;
    match M::TYPE {
        T::Counter => "counter",
        T::Gauge => "gauge",
        T::Histogram => "histogram",
        T::Info => "info",
        T::Unknown => "unknown",
    }
}

/// A part of what a scrape gets.
pub trait Section: Send + Sync {
    fn write(&self, out: &mut Pages<'_>) -> std::fmt::Result;
}

impl Section for Registry {
    fn write(&self, out: &mut Pages<'_>) -> std::fmt::Result {
        text::encode_registry(out.page(), self)
    }
}

/// Text that is handed on while the rest is still being written.
pub struct Pages<'a> {
    page: String,
    /// Gets a page; must not wait, because whoever writes may hold a lock.
    hand_on: &'a mut dyn FnMut(String),
}

impl<'a> Pages<'a> {
    /// Bytes after which a page is full; a line or two may be more.
    const FULL: usize = 256 << 10;

    pub fn to(hand_on: &'a mut dyn FnMut(String)) -> Self {
        Self { page: String::new(), hand_on }
    }

    /// Where the next line goes.
    pub fn page(&mut self) -> &mut String {
        if self.page.len() >= Self::FULL {
            let next = String::with_capacity(Self::FULL + (Self::FULL >> 3));
            (self.hand_on)(std::mem::replace(&mut self.page, next));
        }
        &mut self.page
    }

    pub fn end(self) {
        (self.hand_on)(self.page);
    }
}

/// Makes metrics, registers them and writes down what they are.
#[derive(Default)]
pub struct Book {
    pub sections: Vec<Box<dyn Section>>,
    pub described: Vec<Described>,
}

impl Book {
    pub fn new() -> Self {
        Self::default()
    }

    /// A metric without labels.
    pub fn one<M>(&mut self, name: &str, help: &'static str) -> M
    where
        M: Metric + TypedMetric + Clone + Default,
    {
        self.keep(name, help, Vec::new(), M::default())
    }

    /// A histogram without labels.
    pub fn histogram(&mut self, name: &str, help: &'static str, buckets: &[f64]) -> Histogram {
        self.keep(name, help, Vec::new(), Histogram::new(buckets.iter().copied()))
    }

    /// A metric with labels. `values` are those of the labels but `repo`, in their order.
    pub fn family<L: Labels, M>(
        &mut self,
        name: &str,
        help: &'static str,
        values: impl IntoIterator<Item = Values>,
    ) -> Family<L, M>
    where
        M: Default + TypedMetric,
        Family<L, M>: Metric + TypedMetric + Clone,
    {
        self.keep(name, help, labelled::<L>(values), Family::default())
    }

    /// Histograms with labels.
    pub fn histograms<L: Labels>(
        &mut self,
        name: &str,
        help: &'static str,
        buckets: &'static [f64],
        values: impl IntoIterator<Item = Values>,
    ) -> Histograms<L> {
        let family = Family::new_with_constructor(Buckets(buckets));
        self.keep(name, help, labelled::<L>(values), family)
    }

    /// A metric of each repo, and of what stands in the other labels.
    pub fn by_repo<L: Labels, M: Shown>(
        &mut self,
        name: &str,
        help: &'static str,
        values: impl IntoIterator<Item = Values>,
    ) -> ByRepo<L, M> {
        self.histograms_by_repo(name, help, &[], values)
    }

    /// Histograms of each repo.
    pub fn histograms_by_repo<L: Labels, M: Shown>(
        &mut self,
        name: &str,
        help: &'static str,
        buckets: &'static [f64],
        values: impl IntoIterator<Item = Values>,
    ) -> ByRepo<L, M> {
        self.describe::<M>(name, help, labelled::<L>(values));
        let family = ByRepo::new(&format!("{PREFIX}_{name}"), help, buckets);
        self.sections.push(Box::new(family.clone()));
        family
    }

    /// A histogram without labels whose observations may name their trace.
    pub fn traced_histogram(&mut self, name: &str, help: &'static str, buckets: &'static [f64]) -> Traced {
        self.keep(name, help, Vec::new(), Buckets(buckets).new_metric())
    }

    /// Histograms with labels whose observations may name their trace.
    pub fn traced_histograms<L: Labels>(
        &mut self,
        name: &str,
        help: &'static str,
        buckets: &'static [f64],
        values: impl IntoIterator<Item = Values>,
    ) -> TracedHistograms<L> {
        let family = Family::new_with_constructor(Buckets(buckets));
        self.keep(name, help, labelled::<L>(values), family)
    }

    fn keep<M>(&mut self, name: &str, help: &'static str, labels: Vec<(&'static str, Values)>, metric: M) -> M
    where
        M: Metric + TypedMetric + Clone,
    {
        self.describe::<M>(name, help, labels);
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register(name, help, metric.clone());
        self.sections.push(Box::new(registry));
        metric
    }

    fn describe<M: TypedMetric>(
        &mut self,
        name: &str,
        help: &'static str,
        labels: Vec<(&'static str, Values)>,
    ) {
        let kind = kind_of::<M>();
        let suffix = if kind == "counter" { "_total" } else { "" };
        self.described.push(Described { name: format!("{PREFIX}_{name}{suffix}"), kind, help, labels });
    }
}

fn labelled<L: Labels>(values: impl IntoIterator<Item = Values>) -> Vec<(&'static str, Values)> {
    let mut values = values.into_iter();
    let mut of = |label| match label {
        "repo" => Values::REPO,
        _ => values.next().unwrap_or(Values::Words(Vec::new())),
    };
    L::NAMES.iter().map(|label| (*label, of(label))).collect()
}

/// Makes histograms that have these borders.
#[derive(Debug, Clone)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl MetricConstructor<Traced> for Buckets {
    fn new_metric(&self) -> Traced {
        HistogramWithExemplars::new(self.0.iter().copied())
    }
}

pub type Histograms<L> = Family<L, Histogram, Buckets>;
/// Keeps for each bucket the trace of the last observation that had one.
pub type Traced = HistogramWithExemplars<Example>;
pub type TracedHistograms<L> = Family<L, Traced, Buckets>;

/// The trace that an observation is an example of: what a panel of a dashboard leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example(u128);

impl Example {
    /// `None` where the trace is not kept: nobody could look at it.
    pub fn of(trace: Option<&TraceContext>) -> Option<Self> {
        trace.filter(|t| t.is_sampled()).map(|t| Self(t.trace_id()))
    }
}

impl EncodeLabelSet for Example {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        ("trace_id", format!("{:032x}", self.0)).encode(encoder.encode_label())
    }
}

/// `docs/metrics.md`.
pub fn reference(all: &[Described]) -> String {
    let mut out = String::from(HEAD);
    for metric in all {
        let _ = writeln!(out, "| `{}` | {} | {} |", metric.signature(), metric.kind, metric.help);
    }
    out.push_str(WORDS);
    for metric in all {
        for (label, values) in metric.labels.iter().filter(|(_, values)| *values != Values::REPO) {
            let words = match values {
                Values::Words(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
                Values::Others(what) => (*what).to_owned(),
            };
            let _ = writeln!(out, "| `{}` | `{label}` | {words} |", metric.name);
        }
    }
    out
}

const HEAD: &str = "\
# Metrics

Made of the code (`orchestrator/src/metrics.rs`); `UPDATE=1 cargo test -p tests --test it observe::catalogue` writes this
page anew. `GET /metrics` answers them as OpenMetrics text to whoever shows an API key. What they are good for is in
[slo.md](slo.md) and [runbook.md](runbook.md); dashboards and alerts are in [`dashboards/`](../dashboards/README.md).

`repo` takes the names of configured repos and no others; no label ever holds an id. A cold start is
`hotbed_session_starts_total{launch=\"cold\"}`.

| metric | kind | what it is |
|---|---|---|
";

const WORDS: &str = "
## What stands in the labels

| metric | label | one of |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_the_design_writes() {
        let metric = Described {
            name: "hotbed_x".into(),
            kind: "histogram",
            help: "X",
            labels: vec![("repo", Values::REPO), ("kind", Values::Words(vec!["a"]))],
        };
        assert_eq!(metric.signature(), "hotbed_x{repo,kind}");
        assert_eq!(metric.series(), ["hotbed_x_bucket", "hotbed_x_sum", "hotbed_x_count"]);
        assert!(metric.labels[1].1.allows("a") && !metric.labels[1].1.allows("b"));
    }
}

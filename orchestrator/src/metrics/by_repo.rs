//! Families with series for each repo. A thousand repos make a hundred thousand lines of a scrape, and what the library
//! puts together anew for each line, name and labels, is most of its time: here each series keeps its labels as text,
//! each family what its lines begin with, and a line is three pieces copied and a number. What comes out is what the
//! library writes.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::catalogue::{Labels, Pages, Section};

/// A metric that can be shown in few pieces. Clones are the same metric.
pub trait Shown: TypedMetric + Clone + Send + Sync + 'static {
    fn new(borders: &'static [f64]) -> Self;

    /// What the lines of a series begin with, up to its own labels.
    fn heads(name: &str, borders: &[f64]) -> Vec<String>;

    fn show(&self, heads: &[String], labels: &str, out: &mut String);
}

fn line(out: &mut String, head: &str, labels: &str, value: &str) {
    out.push_str(head);
    out.push_str(labels);
    out.push_str("} ");
    out.push_str(value);
    out.push('\n');
}

macro_rules! shown {
    ($($metric:ty, $suffix:literal, $number:ident;)*) => {$(
        impl Shown for $metric {
            fn new(_: &'static [f64]) -> Self {
                Self::default()
            }

            fn heads(name: &str, _: &[f64]) -> Vec<String> {
                vec![format!(concat!("{}", $suffix, "{{"), name)]
            }

            fn show(&self, heads: &[String], labels: &str, out: &mut String) {
                for head in heads {
                    line(out, head, labels, $number::Buffer::new().format(self.get()));
                }
            }
        }
    )*};
}

shown! {
    Counter, "_total", itoa;
    Counter<f64, AtomicU64>, "_total", dtoa;
    Gauge, "", itoa;
    Gauge<f64, AtomicU64>, "", dtoa;
}

/// A histogram; the library's own doesn't say what is in its buckets.
#[derive(Debug, Clone)]
pub struct Tally(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    borders: &'static [f64],
    /// How often by bucket, the last one without a border, and the sum of all.
    seen: Mutex<(Box<[u64]>, f64)>,
}

impl Tally {
    pub fn observe(&self, value: f64) {
        let bucket = self.0.borders.partition_point(|border| *border < value);
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = seen.0.get_mut(bucket) {
            *count += 1;
        }
        seen.1 += value;
    }
}

impl TypedMetric for Tally {
    const TYPE: MetricType = MetricType::Histogram;
}

impl Shown for Tally {
    fn new(borders: &'static [f64]) -> Self {
        let seen = Mutex::new((vec![0; borders.len() + 1].into(), 0.0));
        Self(Arc::new(Counts { borders, seen }))
    }

    fn heads(name: &str, borders: &[f64]) -> Vec<String> {
        let bucket = |border: &str| format!("{name}_bucket{{le=\"{border}\",");
        let buckets = borders.iter().map(|b| bucket(dtoa::Buffer::new().format(*b)));
        let first = [format!("{name}_sum{{"), format!("{name}_count{{")];
        first.into_iter().chain(buckets).chain([bucket("+Inf")]).collect()
    }

    fn show(&self, heads: &[String], labels: &str, out: &mut String) {
        let [sum_head, count_head, buckets @ ..] = heads else { return };
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        line(out, sum_head, labels, dtoa::Buffer::new().format(seen.1));
        line(out, count_head, labels, itoa::Buffer::new().format(seen.0.iter().sum::<u64>()));
        let mut below = 0;
        for (head, count) in buckets.iter().zip(&seen.0) {
            below += count;
            line(out, head, labels, itoa::Buffer::new().format(below));
        }
    }
}

/// A family of metrics, by labels one of which is a repo. Clones are the same family.
#[derive(Debug)]
pub struct ByRepo<L, M>(Arc<Kept<L, M>>);

#[derive(Debug)]
struct Kept<L, M> {
    /// `# HELP` and `# TYPE`.
    about: String,
    heads: Vec<String>,
    borders: &'static [f64],
    series: RwLock<Series<L, M>>,
}

#[derive(Debug)]
struct Series<L, M> {
    places: HashMap<L, usize>,
    /// In one piece, because a scrape goes through all of them: the labels as text, and the metric.
    all: Vec<(Box<str>, M)>,
}

impl<L, M> Clone for ByRepo<L, M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L: Labels, M: Shown> ByRepo<L, M> {
    /// `name` is the whole name, without the suffix of a counter.
    pub fn new(name: &str, help: &str, borders: &'static [f64]) -> Self {
        let kind = M::TYPE.as_str();
        Self(Arc::new(Kept {
            about: format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n"),
            heads: M::heads(name, borders),
            borders,
            series: RwLock::new(Series { places: HashMap::new(), all: Vec::new() }),
        }))
    }

    pub fn get_or_create(&self, labels: &L) -> M {
        if let Some(metric) = self.0.series.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
            return metric;
        }
        let mut series = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = series.get(labels) {
            return metric;
        }
        let metric = M::new(self.0.borders);
        let place = series.all.len();
        series.all.push((labels.text().into(), metric.clone()));
        series.places.insert(labels.clone(), place);
        metric
    }

    pub fn remove(&self, labels: &L) {
        let known = self.0.series.read().unwrap_or_else(PoisonError::into_inner).places.contains_key(labels);
        if !known {
            return;
        }
        let mut series = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = series.places.remove(labels) else { return };
        series.all.swap_remove(place);
        let last = series.all.len();
        if let Some(moved) = series.places.values_mut().find(|p| **p == last) {
            *moved = place;
        }
    }
}

impl<L: Labels, M: Clone> Series<L, M> {
    fn get(&self, labels: &L) -> Option<M> {
        let (_, metric) = self.all.get(*self.places.get(labels)?)?;
        Some(metric.clone())
    }
}

impl<L: Labels, M: Shown> Section for ByRepo<L, M> {
    fn write(&self, out: &mut Pages<'_>) -> std::fmt::Result {
        let series = self.0.series.read().unwrap_or_else(PoisonError::into_inner);
        if !series.all.is_empty() {
            out.page().push_str(&self.0.about);
        }
        for (labels, metric) in &series.all {
            metric.show(&self.0.heads, labels, out.page());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode_registry;
    use prometheus_client::metrics::family::{Family, MetricConstructor};
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::{Metric, Registry};

    use super::*;

    const BORDERS: [f64; 3] = [0.05, 1.0, 1800.0];

    super::super::catalogue::labels! {
        Both { repo: String, kind: &'static str }
    }

    fn both(repo: &str, kind: &'static str) -> Both {
        Both { repo: repo.to_owned(), kind }
    }

    fn shown(section: &dyn Section) -> Vec<String> {
        let mut text = String::new();
        let mut hand_on = |page: String| text.push_str(&page);
        let mut pages = Pages::to(&mut hand_on);
        section.write(&mut pages).unwrap();
        pages.end();
        sorted(&text)
    }

    fn sorted(text: &str) -> Vec<String> {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn as_the_library_writes(name: &str, family: impl Metric) -> Vec<String> {
        let mut registry = Registry::with_prefix("hotbed");
        registry.register(name, "What it is", family);
        let mut text = String::new();
        encode_registry(&mut text, &registry).unwrap();
        sorted(&text)
    }

    #[derive(Clone)]
    struct Borders;

    impl MetricConstructor<Histogram> for Borders {
        fn new_metric(&self) -> Histogram {
            Histogram::new(BORDERS)
        }
    }

    #[test]
    fn what_is_written_is_what_the_library_writes() {
        let ours = ByRepo::<Both, Counter>::new("hotbed_n", "What it is", &[]);
        let theirs = Family::<Both, Counter>::default();
        let gauge = ByRepo::<Both, Gauge>::new("hotbed_g", "What it is", &[]);
        let real = Family::<Both, Gauge>::default();
        let float = ByRepo::<Both, Gauge<f64, AtomicU64>>::new("hotbed_f", "What it is", &[]);
        let floating = Family::<Both, Gauge<f64, AtomicU64>>::default();
        let seconds = ByRepo::<Both, Counter<f64, AtomicU64>>::new("hotbed_s", "What it is", &[]);
        let lasting = Family::<Both, Counter<f64, AtomicU64>>::default();
        let tally = ByRepo::<Both, Tally>::new("hotbed_h", "What it is", &BORDERS);
        let histogram = Family::<Both, Histogram, _>::new_with_constructor(Borders);
        for (i, of) in
            [both("acme/api", "a"), both("acme/api", "b"), both("o\"dd\\/\n", "a")].iter().enumerate()
        {
            let n = i as f64;
            ours.get_or_create(of).inc_by(7 * i as u64);
            theirs.get_or_create(of).inc_by(7 * i as u64);
            gauge.get_or_create(of).set(i as i64 - 1);
            real.get_or_create(of).set(i as i64 - 1);
            float.get_or_create(of).set(1_763_800_000.123 * n);
            floating.get_or_create(of).set(1_763_800_000.123 * n);
            seconds.get_or_create(of).inc_by(0.1 + n);
            lasting.get_or_create(of).inc_by(0.1 + n);
            for value in [0.01, 0.05, 0.7, 1800.0, 1e9 * n] {
                tally.get_or_create(of).observe(value);
                histogram.get_or_create(of).observe(value);
            }
        }
        assert_eq!(shown(&ours), as_the_library_writes("n", theirs));
        assert_eq!(shown(&gauge), as_the_library_writes("g", real));
        assert_eq!(shown(&float), as_the_library_writes("f", floating));
        assert_eq!(shown(&seconds), as_the_library_writes("s", lasting));
        assert_eq!(shown(&tally), as_the_library_writes("h", histogram));
        assert_eq!(shown(&tally).len(), 2 + 3 * 6);
    }

    #[test]
    fn many_series_come_in_pages_and_all_of_them_come() {
        let family = ByRepo::<Both, Counter>::new("hotbed_n", "What it is", &[]);
        for i in 0..20_000 {
            family.get_or_create(&both(&format!("acme/repo-{i}"), "a")).inc();
        }
        let mut all = Vec::new();
        let mut hand_on = |page: String| all.push(page);
        let mut pages = Pages::to(&mut hand_on);
        family.write(&mut pages).unwrap();
        pages.end();
        assert!(all.len() > 2 && all.iter().all(|page| page.ends_with('\n')), "{} pages", all.len());
        assert_eq!(all.concat().lines().count(), 20_002);
    }

    #[test]
    fn what_is_removed_is_gone_and_the_others_stay() {
        let family = ByRepo::<Both, Gauge>::new("hotbed_g", "What it is", &[]);
        let all = [both("acme/a", "x"), both("acme/b", "x"), both("acme/c", "x")];
        for (of, n) in all.iter().zip(1..) {
            family.get_or_create(of).set(n);
        }
        for _ in 0..2 {
            family.remove(&all[0]);
        }
        family.get_or_create(&all[2]).set(30);
        assert_eq!(
            shown(&family)[2..],
            [r#"hotbed_g{repo="acme/b",kind="x"} 2"#, r#"hotbed_g{repo="acme/c",kind="x"} 30"#]
        );
        family.get_or_create(&all[0]).set(4);
        assert_eq!(shown(&family).len(), 5);
        for of in &all {
            family.remove(of);
        }
        assert!(shown(&family).is_empty(), "a family without series says nothing");
    }
}

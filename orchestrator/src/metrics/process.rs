//! The process itself, under the names that every Prometheus client uses for it. Read off `/proc` when asked.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalogue::Described;

/// Name without the counter's suffix, kind, help.
const METRICS: [(&str, MetricType, &str); 4] = [
    ("process_cpu_seconds", MetricType::Counter, "Processor time that this process has used"),
    ("process_resident_memory_bytes", MetricType::Gauge, "Memory of this process"),
    ("process_open_fds", MetricType::Gauge, "File descriptors that this process has open"),
    ("process_start_time_seconds", MetricType::Gauge, "When this process was started"),
];

pub fn described() -> Vec<Described> {
    METRICS
        .iter()
        .map(|(name, kind, help)| match kind {
            MetricType::Counter => (format!("{name}_total"), "counter", *help),
            _ => ((*name).to_owned(), "gauge", *help),
        })
        .map(|(name, kind, help)| Described { name, kind, help, labels: Vec::new() })
        .collect()
}

/// The unit of times in `/proc`: a hundredth of a second on every Linux that Hotbed is built for.
const USER_HZ: f64 = 100.0;

#[derive(Debug)]
pub struct Process {
    started: f64,
}

impl Process {
    /// `now` is when the process began to measure itself, which is when it was started.
    pub fn new(now: jiff::Timestamp) -> Self {
        Self { started: now.as_millisecond() as f64 / 1000.0 }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let values = [processor_seconds(), resident_bytes(), open_files(), Some(self.started)];
        for ((name, kind, help), value) in METRICS.into_iter().zip(values) {
            let Some(value) = value else { continue };
            let into = encoder.encode_descriptor(name, help, None, kind)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(into)?,
                _ => ConstGauge::new(value).encode(into)?,
            }
        }
        Ok(())
    }
}

fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / USER_HZ)
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

fn open_files() -> Option<f64> {
    // The one that the look itself opens is not counted.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_seen() {
        assert!(resident_bytes().is_some_and(|n| n > 1e6), "{:?}", resident_bytes());
        assert!(open_files().is_some_and(|n| n >= 3.0), "{:?}", open_files());
        assert!(processor_seconds().is_some_and(|s| s >= 0.0), "{:?}", processor_seconds());
    }
}

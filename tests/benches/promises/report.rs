//! What was measured: rows with percentiles, as a table for people and as `target/bench.json` for programs.

use std::path::{Path, PathBuf};

use domain::{Error, Result};
use serde::{Deserialize, Serialize};

/// One line of `bench.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub p50: f64,
    #[serde(default)]
    pub p90: f64,
    pub p99: f64,
    pub n: usize,
    pub unit: String,
}

/// What was promised of a figure. A figure for comparison has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    /// The least that the middle may be: for rates.
    pub least: Option<f64>,
}

impl Target {
    pub const NONE: Self = Self { p50: None, p90: None, p99: None, least: None };

    pub fn p50(limit: f64) -> Self {
        Self { p50: Some(limit), ..Self::NONE }
    }

    pub fn p90(limit: f64) -> Self {
        Self { p90: Some(limit), ..Self::NONE }
    }

    pub fn p99(limit: f64) -> Self {
        Self { p99: Some(limit), ..Self::NONE }
    }

    pub fn both(p50: f64, p99: f64) -> Self {
        Self { p50: Some(p50), p99: Some(p99), ..Self::NONE }
    }

    pub fn at_least(rate: f64) -> Self {
        Self { least: Some(rate), ..Self::NONE }
    }

    fn words(self) -> String {
        let limits = [("p50 <", self.p50), ("p90 <", self.p90), ("p99 <", self.p99), ("p50 >=", self.least)];
        let words: Vec<_> =
            limits.into_iter().filter_map(|(word, limit)| Some(format!("{word} {}", limit?))).collect();
        if words.is_empty() { "-".into() } else { words.join(", ") }
    }

    fn verdict(self, figure: &Figure) -> &'static str {
        let limits = [(self.p50, figure.p50), (self.p90, figure.p90), (self.p99, figure.p99)];
        if limits.iter().all(|(limit, _)| limit.is_none()) && self.least.is_none() {
            return "";
        }
        let held = limits.iter().all(|(limit, value)| limit.is_none_or(|l| *value < l))
            && self.least.is_none_or(|least| figure.p50 >= least);
        if held { "held" } else { "MISSED" }
    }
}

struct Row {
    figure: Figure,
    target: Target,
    load: String,
}

/// Collects rows and remarks of one run.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    load_before: f64,
    /// Rows of the present section wait for its end, when the load after it is known.
    pending: usize,
}

impl Report {
    pub fn begin(&mut self, section: &str) {
        self.load_before = load();
        self.pending = self.rows.len();
        println!("\n== {section} (load {:.2})", self.load_before);
    }

    pub fn end(&mut self) {
        let load = format!("{:.1} to {:.1}", self.load_before, load());
        for row in &mut self.rows[self.pending..] {
            row.load = load.clone();
        }
    }

    /// A figure from its samples; says it at once, too.
    pub fn row(&mut self, name: &str, unit: &str, samples: &[f64], target: Target) {
        let figure = Figure {
            name: name.into(),
            p50: percentile(samples, 0.50),
            p90: percentile(samples, 0.90),
            p99: percentile(samples, 0.99),
            n: samples.len(),
            unit: unit.into(),
        };
        let Figure { p50, p90, p99, n, .. } = figure;
        let verdict = target.verdict(&figure);
        println!(
            "   {name}: p50 {p50:.3} {unit}, p90 {p90:.3}, p99 {p99:.3}, n {n}; {} {verdict}",
            target.words()
        );
        self.rows.push(Row { figure, target, load: String::new() });
    }

    pub fn table(&self) {
        println!(
            "\n{:<34}{:>10}{:>10}{:>10}{:>7}  {:<6}{:<22}{:<8}load",
            "name", "p50", "p90", "p99", "n", "unit", "target", ""
        );
        for Row { figure: f, target, load } in &self.rows {
            let verdict = target.verdict(f);
            let words = target.words();
            println!(
                "{:<34}{:>10.3}{:>10.3}{:>10.3}{:>7}  {:<6}{words:<22}{verdict:<8}{load}",
                f.name, f.p50, f.p90, f.p99, f.n, f.unit
            );
        }
    }

    /// Writes the figures. A run of some sections replaces theirs and keeps the rest of the file.
    pub fn write(&self, path: &Path, whole: bool) -> Result<()> {
        let what = || format!("write {}", path.display());
        let mut all: Vec<Figure> = match std::fs::read(path) {
            Ok(bytes) if !whole => serde_json::from_slice(&bytes).unwrap_or_default(),
            _ => Vec::new(),
        };
        for row in &self.rows {
            match all.iter_mut().find(|f| f.name == row.figure.name) {
                Some(old) => *old = row.figure.clone(),
                None => all.push(row.figure.clone()),
            }
        }
        let text = serde_json::to_string_pretty(&all).map_err(|e| Error::permanent(what()).caused_by(e))?;
        std::fs::write(path, text + "\n").map_err(|e| Error::permanent(what()).caused_by(e))
    }
}

/// Nearest rank.
pub fn percentile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}

/// A remark under the present section.
pub fn note(text: impl std::fmt::Display) {
    println!("   {text}");
}

/// The load average of the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|w| w.parse().ok()).unwrap_or(f64::NAN)
}

/// Cargo's target directory, which this program lies in.
pub fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().map_err(|e| Error::permanent("find this program").caused_by(e))?;
    // <target>/<profile>/deps/<program>
    let dir = exe.ancestors().nth(3).map(Path::to_owned);
    dir.ok_or_else(|| Error::permanent("find cargo's target directory"))
}

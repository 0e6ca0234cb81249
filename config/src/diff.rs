//! What changed between two configurations, and what of it needs a restart. Pure.

use std::fmt;

use domain::{RepoName, RepoSpec};
use serde::Serialize;
use serde_json::Value;

use crate::Config;

/// One key that has another value now. Values are as JSON; `null` is "not set".
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// `budget.memory`, or `image.setup[0]` within a repo.
    pub key: String,
    pub from: Value,
    pub to: Value,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.from, self.to)
    }
}

/// The changes of a repo that is in both configurations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RepoChange {
    pub repo: RepoName,
    pub changes: Vec<Change>,
}

/// What a reload means.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ConfigDiff {
    /// Take effect only after a restart: `listen`, `tls`, `state_dir`, `backend`, `forge`, `tracing`.
    pub restart: Vec<Change>,
    /// Settings that take effect at once.
    pub hot: Vec<Change>,
    pub added: Vec<RepoName>,
    pub removed: Vec<RepoName>,
    pub changed: Vec<RepoChange>,
}

impl ConfigDiff {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn needs_restart(&self) -> bool {
        !self.restart.is_empty()
    }
}

/// One line for each change.
impl fmt::Display for ConfigDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        lines.extend(self.restart.iter().map(|c| format!("{c} (needs a restart)")));
        lines.extend(self.hot.iter().map(ToString::to_string));
        lines.extend(self.added.iter().map(|r| format!("{r}: added")));
        lines.extend(self.removed.iter().map(|r| format!("{r}: removed")));
        for repo in &self.changed {
            lines.extend(repo.changes.iter().map(|c| format!("{}: {c}", repo.repo)));
        }
        f.write_str(&if lines.is_empty() { "no changes".to_owned() } else { lines.join("\n") })
    }
}

const RESTART: [&str; 6] = ["listen", "tls", "state_dir", "backend", "forge", "tracing"];

pub(crate) fn diff(old: &Config, new: &Config) -> ConfigDiff {
    let mut settings = changes(&json(&old.settings), &json(&new.settings));
    for change in settings.iter_mut().filter(|c| c.key.starts_with("docker")) {
        // As it is written in the file.
        change.key.insert_str(0, "backend.");
    }
    let (restart, hot) =
        settings.into_iter().partition(|c| RESTART.contains(&c.key.split('.').next().unwrap_or_default()));
    let find = |all: &[RepoSpec], name: &RepoName| all.iter().find(|r| r.name == *name).cloned();
    let mut out = ConfigDiff { restart, hot, ..ConfigDiff::default() };
    for repo in &new.repos {
        match find(&old.repos, &repo.name) {
            None => out.added.push(repo.name.clone()),
            Some(before) if before != *repo => out
                .changed
                .push(RepoChange { repo: repo.name.clone(), changes: changes(&json(&before), &json(repo)) }),
            Some(_) => {}
        }
    }
    out.removed =
        old.repos.iter().filter(|r| find(&new.repos, &r.name).is_none()).map(|r| r.name.clone()).collect();
    out
}

fn json(value: &impl Serialize) -> Value {
    // These types have string keys and no foreign serializers: they always serialize.
    serde_json::to_value(value).unwrap_or_default()
}

fn changes(from: &Value, to: &Value) -> Vec<Change> {
    let mut out = Vec::new();
    walk("", from, to, &mut out);
    out
}

fn walk(key: &str, from: &Value, to: &Value, out: &mut Vec<Change>) {
    if from == to {
        return;
    }
    // A duration is one value, though it serializes as two.
    let is_map = |v: &Value| v.is_object() && v.get("secs").is_none();
    match (from, to) {
        (Value::Object(a), Value::Object(b)) if is_map(from) && is_map(to) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            keys.sort();
            for k in keys {
                let child = if key.is_empty() { k.clone() } else { format!("{key}.{k}") };
                walk(&child, a.get(k).unwrap_or(&Value::Null), b.get(k).unwrap_or(&Value::Null), out);
            }
        }
        _ => out.push(Change { key: key.to_owned(), from: plain(from), to: plain(to) }),
    }
}

/// Seconds for a duration; everything else as it is.
fn plain(value: &Value) -> Value {
    match value.get("secs") {
        Some(seconds) => Value::String(format!("{seconds}s")),
        None => value.clone(),
    }
}

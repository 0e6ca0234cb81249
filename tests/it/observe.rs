//! What a platform team sees of Hotbed: the metrics, the dashboards and alerts that stand on them, and the runbook
//! behind these.

mod catalogue;
mod files;
mod live;
mod load;
mod prometheus;
mod promql;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of this repository.
fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[track_caller]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A query of a dashboard or a rule, and where it stands.
#[derive(Debug, Clone)]
struct Asked {
    place: String,
    query: String,
}

/// The dashboards as Grafana gets them.
fn boards() -> Vec<Value> {
    let dir = std::fs::read_dir(here("dashboards/grafana")).expect("dashboards");
    let mut paths: Vec<_> = dir.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| serde_json::from_str(&read(path)).expect("JSON")).collect()
}

/// The panels of a dashboard that ask something.
fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    board["panels"].as_array().expect("panels").iter().filter(|p| p["type"] != "row")
}

/// Every query of every panel.
fn panel_queries() -> Vec<Asked> {
    let mut all = Vec::new();
    for board in boards() {
        for panel in panels(&board) {
            for target in panel["targets"].as_array().expect("targets") {
                let place = format!("{} / {}", board["title"], panel["title"]);
                all.push(Asked { place, query: target["expr"].as_str().expect("expr").to_owned() });
            }
        }
    }
    all
}

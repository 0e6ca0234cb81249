//! What the design promises, what the code registers, what docs/metrics.md says and what dashboards and alerts ask:
//! compared in all directions, labels and their words included.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator::metrics::Metrics;
use orchestrator::metrics::catalogue::{Described, reference};

use super::prometheus::Prometheus;
use super::promql::named;
use super::{Asked, here, panel_queries, read};

/// The contract that others build on.
const CONTRACT: &str = "
    hotbed_image_age_seconds{repo} hotbed_image_commits_behind{repo} hotbed_image_builds_total{repo,result}
    hotbed_image_build_seconds{repo,phase} hotbed_image_last_success_timestamp_seconds{repo}
    hotbed_pool_sandboxes{repo,state} hotbed_pool_target{repo} hotbed_pool_refill_seconds{repo}
    hotbed_pool_misses_total{repo,reason} hotbed_pool_idle_sandbox_seconds_total{repo}
    hotbed_warmups_total{repo,outcome}
    hotbed_session_starts_total{repo,launch} hotbed_session_claim_seconds{launch} hotbed_session_ready_seconds{launch}
    hotbed_sessions{state}
    hotbed_sync_seconds{result} hotbed_sync_lag_commits hotbed_gate_wait_seconds hotbed_exec_seconds
    hotbed_snapshot_seconds{kind} hotbed_snapshot_bytes{kind}
    hotbed_pull_requests_total{result} hotbed_outbox_pending{kind}
    hotbed_backend_call_seconds{backend,call} hotbed_backend_errors_total{backend,kind}
    hotbed_task_last_success_timestamp_seconds{task}
";

/// Labels that Prometheus and histograms add, and that of the recorded service levels.
const ADDED: [&str; 6] = ["job", "instance", "le", "slo", "alertname", "alertstate"];

fn described() -> Vec<Described> {
    Metrics::new("given", jiff::Timestamp::UNIX_EPOCH).described()
}

#[test]
fn the_code_keeps_the_contract() {
    let code: BTreeSet<_> = described().iter().map(Described::signature).collect();
    let missing: Vec<_> = CONTRACT.split_whitespace().filter(|m| !code.contains(*m)).collect();
    assert!(missing.is_empty(), "promised and not registered: {missing:?}");
}

#[test]
fn no_two_metrics_share_a_name_and_every_label_has_its_words() {
    let mut seen = BTreeSet::new();
    for metric in described() {
        assert!(seen.insert(metric.name.clone()), "{} is registered twice", metric.name);
        for (label, values) in &metric.labels {
            assert_ne!(
                *values,
                orchestrator::metrics::catalogue::Values::Words(vec![]),
                "{} {label}",
                metric.name
            );
        }
    }
}

#[test]
fn the_page_of_metrics_is_the_one_of_the_code() {
    let (path, wanted) = (here("docs/metrics.md"), reference(&described()));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).expect("write");
        return;
    }
    assert_eq!(read(&path), wanted, "UPDATE=1 rewrites {}", path.display());
}

/// Every query names only what there is, and everything there is gets asked for.
#[tokio::test]
async fn queries_and_metrics_are_the_same() {
    let prometheus = Prometheus::start(([127, 0, 0, 1], 9).into(), "none").await;
    let rules = prometheus.rules().await;
    let recorded: BTreeSet<_> = rules.iter().filter(|r| !r.alert).map(|r| r.name.clone()).collect();
    let metrics = described();
    let by_series: BTreeMap<String, &Described> =
        metrics.iter().flat_map(|m| m.series().into_iter().map(move |s| (s, m))).collect();
    let queries: Vec<Asked> = panel_queries().into_iter().chain(rules.iter().map(|r| r.asked())).collect();
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for Asked { place, query } in &queries {
        let named = named(query);
        let mut labels: BTreeSet<&str> = ADDED.into();
        for selector in &named.selectors {
            let metric = by_series.get(&selector.name);
            used.insert(metric.map_or(selector.name.clone(), |m| m.name.clone()));
            let known =
                recorded.contains(&selector.name) || ["up", "ALERTS"].contains(&selector.name.as_str());
            if metric.is_none() && !known {
                wrong.push(format!("{place}: there is no series {}", selector.name));
            }
            let own = metric.map(|m| m.labels.as_slice()).unwrap_or_default();
            labels.extend(own.iter().map(|(label, _)| *label));
            for (label, operator, value) in &selector.matchers {
                let words = own.iter().find(|(name, _)| name == label).map(|(_, values)| values);
                if words.is_none() && !ADDED.contains(&label.as_str()) {
                    wrong.push(format!("{place}: {} has no label {label}", selector.name));
                }
                let asked =
                    if operator.ends_with('~') { value.split('|').collect() } else { vec![value.as_str()] };
                // Of patterns only lists of words can be looked up.
                let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                for word in asked.into_iter().filter(plain) {
                    if words.is_some_and(|w| !w.allows(word)) {
                        wrong.push(format!("{place}: {label} of {} is never `{word}`", selector.name));
                    }
                }
            }
        }
        for label in &named.groups {
            if !labels.contains(label.as_str()) {
                wrong.push(format!("{place}: nothing in it has a label {label}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unused: Vec<_> = metrics.iter().map(|m| &m.name).filter(|m| !used.contains(*m)).collect();
    assert!(unused.is_empty(), "no panel and no alert asks for {unused:?}");
    let unread: Vec<_> = recorded.iter().filter(|r| !used.contains(*r)).collect();
    assert!(unread.is_empty(), "recorded, and nobody reads {unread:?}");
}

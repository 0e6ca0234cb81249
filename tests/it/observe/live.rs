//! Every panel of every dashboard, asked of a real Prometheus that has scraped a real Hotbed under a short load.

use std::collections::{BTreeMap, BTreeSet};

use super::load::{self, REPO};
use super::prometheus::Prometheus;
use super::{Asked, panel_queries};
use crate::world::World;

/// What is zero on a good day, and is all the same there to be looked at. Ticks are missed by servers that stand still.
const MAY_BE_ZERO: [&str; 13] = [
    "hotbed_spared",
    "hotbed_outbox_pending",
    "hotbed_outbox_oldest_seconds",
    "hotbed_queue_length",
    "hotbed_warmups_live",
    "hotbed_pool_sandboxes_behind",
    "hotbed_image_missed_ticks_total",
    // Nothing fails here; `rollout` has images that do.
    "hotbed_image_failures_total",
    "hotbed_image_verdicts_total",
    // This load has no registry; `docker::registry` has one.
    "hotbed_image_pushes_total",
    "hotbed_images_unpushed",
    // A hundred thousand lines wait before one is lost.
    "hotbed_audit_lost_total",
    // Nothing was restored here; `backup` does that.
    "hotbed_spared",
];

/// A query as Grafana asks it.
fn filled_in(query: &str) -> String {
    query.replace("$__rate_interval", "1m").replace("$repo", REPO)
}

/// Every sample of `/metrics`: the name, the labels, the value.
async fn samples(w: &World) -> Vec<(String, String, f64)> {
    let text = w.get("/metrics").await.expect(200).text();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            // Behind a value may stand the trace of an example.
            let line = line.split(" # ").next().expect("a sample");
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            (name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// Waits until Prometheus has seen what Hotbed has counted so far.
async fn scraped(w: &World, prometheus: &Prometheus) {
    let counted = samples(w)
        .await
        .into_iter()
        .find(|(name, ..)| name == "hotbed_exec_seconds_count")
        .expect("counted")
        .2;
    w.wait("Prometheus has scraped what there is", async || {
        let seen = prometheus.query("hotbed_exec_seconds_count").await;
        seen.iter().any(|(_, n)| *n >= counted).then_some(())
    })
    .await;
}

#[test]
fn every_metric_moves_and_every_panel_has_data() {
    let collector = crate::traces::collector(tests::collector::Manners::Takes);
    World::with(load::setup().tracing(crate::traces::to(&collector)), async |w| {
        // As a configuration with a budget sets it.
        let budget = domain::Budget { memory: Some(64 << 30), cpu_millis: Some(64_000), sandboxes: None };
        w.app().metrics.set_budget(budget);
        let address = w.client().address.parse().expect("address");
        let prometheus = Prometheus::start(address, &w.app().api_key).await;
        // Twice: a rate is that of what was there before.
        for number in 0..2 {
            load::round(w, number).await;
            scraped(w, &prometheus).await;
        }

        let described = w.app().metrics.described();
        let samples = samples(w).await;
        let moved =
            |series: &[String]| samples.iter().any(|(name, _, value)| series.contains(name) && *value != 0.0);
        let still: Vec<_> = described
            .iter()
            .filter(|m| !moved(&m.series()) && !MAY_BE_ZERO.contains(&m.name.as_str()))
            .map(|m| m.name.clone())
            .collect();
        assert!(still.is_empty(), "the load did not move {still:?}");
        said_as_described(&described, &samples);

        // A panel leads from a slow claim to its trace, and the collector has it.
        for metric in ["hotbed_session_claim_seconds", "hotbed_session_ready_seconds", "hotbed_exec_seconds"]
        {
            let examples = prometheus.examples(&format!("{metric}_bucket")).await;
            assert!(!examples.is_empty(), "{metric} has no example");
            w.wait_for("their traces are kept", || {
                let kept: BTreeSet<_> = collector.seen().into_iter().map(|s| s.trace).collect();
                examples.iter().all(|trace| kept.contains(trace))
            })
            .await;
        }

        let mut empty = Vec::new();
        for Asked { place, query } in panel_queries() {
            let query = filled_in(&query);
            let data = w.wait_data(&prometheus, &query).await;
            if !data {
                empty.push(format!("{place}: {query}"));
            }
        }
        assert!(empty.is_empty(), "no data for\n{}", empty.join("\n"));
        let unwell: Vec<_> = prometheus.rules().await.into_iter().filter(|r| r.health != "ok").collect();
        assert!(unwell.is_empty(), "{unwell:?}");
    });
}

/// Every label that is shown is one that is described, and holds one of its words.
fn said_as_described(
    described: &[orchestrator::metrics::catalogue::Described],
    samples: &[(String, String, f64)],
) {
    let by_series: BTreeMap<_, _> =
        described.iter().flat_map(|m| m.series().into_iter().map(move |s| (s, m))).collect();
    let mut wrong = BTreeSet::new();
    for (name, labels, _) in samples {
        let Some(metric) = by_series.get(name) else {
            wrong.insert(format!("{name} is not described"));
            continue;
        };
        for label in labels.split("\",").filter(|l| !l.is_empty()) {
            let (label, word) = label.split_once("=\"").expect("a label");
            let word = word.trim_end_matches('"');
            match metric.labels.iter().find(|(known, _)| *known == label) {
                Some((_, values)) if values.allows(word) => {}
                None if label == "le" => {}
                _ => drop(wrong.insert(format!("{name}: {label}=\"{word}\" is not described"))),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

impl World {
    /// Whether a query has a number to show, now or after the next scrapes.
    async fn wait_data(&self, prometheus: &Prometheus, query: &str) -> bool {
        let ask = async {
            loop {
                if prometheus.query(query).await.iter().any(|(_, n)| n.is_finite()) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), ask).await.is_ok()
    }
}

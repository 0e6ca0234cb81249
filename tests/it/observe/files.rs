//! The files in `dashboards/`: made of their source, accepted by promtool, with a case for firing and one for staying
//! quiet for each alert, and with a section of the runbook behind each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::prometheus::{Prometheus, rule_files, run};
use super::{boards, here, panels, read};

/// The files with promtool's cases.
const CASES: [&str; 2] = ["dashboards/alerts/tests/hotbed.yml", "dashboards/alerts/tests/slo.yml"];

#[test]
fn what_is_generated_is_what_its_source_says() {
    let (good, said) = run("python3", &["dashboards/generate.py", "--check"], &here("."));
    assert!(good, "{said}run dashboards/generate.py");
}

#[test]
fn promtool_accepts_the_rules() {
    let mut args = vec!["check", "rules"];
    args.extend(rule_files());
    let (good, said) = run("promtool", &args, &here("."));
    assert!(good, "{said}");
}

#[test]
fn promtool_accepts_the_configuration() {
    let (good, said) =
        run("promtool", &["check", "config", "--syntax-only", "dashboards/prometheus.yml"], &here("."));
    assert!(good, "{said}");
}

#[test]
fn every_alert_fires_when_it_is_to_and_else_is_quiet() {
    let mut args = vec!["test", "rules"];
    args.extend(CASES);
    let (good, said) = run("promtool", &args, &here("."));
    assert!(good, "{said}");
}

/// What promtool is told to expect: for each alert how many cases in which it fires, and in which it does not.
fn cases() -> BTreeMap<String, (u32, u32)> {
    let mut found: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for path in CASES {
        let text = read(&here(path));
        let mut alert = None;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("alertname: ") {
                alert = Some(name.to_owned());
            } else if let Some(expected) = line.strip_prefix("exp_alerts:") {
                let counts = found.entry(alert.take().expect("an alert's name before")).or_default();
                if expected.trim() == "[]" { counts.1 += 1 } else { counts.0 += 1 }
            }
        }
    }
    found
}

/// The sections of a page: anchor and text.
fn sections(page: &Path) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut anchor = String::new();
    for line in read(page).lines() {
        if let Some(heading) = line.strip_prefix('#') {
            // As GitHub makes them.
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || *c == '-' || *c == '_' || *c == ' ';
            anchor = words.chars().filter(kept).collect::<String>().replace(' ', "-");
        }
        let section = found.entry(anchor.clone()).or_default();
        section.push_str(line);
        section.push('\n');
    }
    found
}

#[tokio::test]
async fn every_alert_has_its_cases_and_its_section_of_the_runbook() {
    let prometheus = Prometheus::start(([127, 0, 0, 1], 9).into(), "none").await;
    let rules = prometheus.rules().await;
    let alerts: BTreeMap<_, _> = rules.iter().filter(|r| r.alert).map(|r| (r.name.clone(), r)).collect();
    assert!(alerts.len() > 20, "{} alerts", alerts.len());
    let cases = cases();
    assert_eq!(
        cases.keys().collect::<BTreeSet<_>>(),
        alerts.keys().collect::<BTreeSet<_>>(),
        "cases are of alerts that there are, and all of them have some"
    );
    let sections = sections(&here("docs/runbook.md"));
    for (name, rule) in alerts {
        let (fires, quiet) = cases[&name];
        assert!(
            fires > 0 && quiet > 0,
            "{name}: {fires} cases in which it fires, {quiet} in which it does not"
        );
        let severity = rule.labels["severity"].as_str();
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: severity {severity:?}");
        assert!(rule.annotations["summary"].as_str().is_some_and(|s| !s.is_empty()), "{name} has no summary");
        let link = rule.annotations["runbook_url"].as_str().unwrap_or_default();
        let anchor = link.rsplit_once("/runbook.md#").map(|(_, anchor)| anchor).unwrap_or_default();
        let section =
            sections.get(anchor).unwrap_or_else(|| panic!("{name}: docs/runbook.md has no `{anchor}`"));
        for part in ["**Means:**", "**See:**", "**Mend:**"] {
            assert!(section.contains(part), "{name}: its section of the runbook has no {part}");
        }
    }
}

/// Tests that the runbook says have walked one of its sections.
#[test]
fn the_tests_that_the_runbook_cites_are_there() {
    let mut sources = String::new();
    let mut dirs = vec![here("tests/it")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("tests") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                sources.push_str(&read(&path));
            }
        }
    }
    let runbook = read(&here("docs/runbook.md"));
    let cited: BTreeSet<_> =
        runbook.split("Walked by `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(cited.len() >= 5, "{cited:?}");
    for test in cited {
        let name = test.rsplit("::").next().expect("a name");
        assert!(sources.contains(&format!("fn {name}()")), "there is no test `{name}`");
    }
}

/// What Grafana needs of a dashboard to take it, and what people need of a panel.
#[test]
fn dashboards_are_whole() {
    let boards = boards();
    let uids: BTreeSet<_> = boards.iter().map(|b| b["uid"].as_str().expect("uid").to_owned()).collect();
    let wanted = ["overview", "repo", "builds", "sessions", "engine", "cost", "slo"];
    assert_eq!(uids, wanted.iter().map(|name| format!("hotbed-{name}")).collect());
    for board in &boards {
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().expect("panels") {
            assert!(ids.insert(panel["id"].as_u64().expect("id")), "{}: an id twice", board["title"]);
            let at = &panel["gridPos"];
            assert!(at["x"].as_u64().expect("x") + at["w"].as_u64().expect("w") <= 24, "{panel}");
        }
        for panel in panels(board) {
            assert!(
                panel["description"].as_str().is_some_and(|d| d.len() > 10),
                "{panel} does not say what it is"
            );
        }
    }
}

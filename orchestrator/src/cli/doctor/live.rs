//! What a running installation says of itself, judged: the thresholds of the alerts, without a Prometheus, and what to do
//! about each in a sentence. The longer story is in the runbook under the same names.

use super::Finding;
use crate::cli::samples::Samples;

/// Judges one answer of `/metrics`, with the time at which it was asked for in seconds since 1970.
pub fn judge(samples: &Samples, now: f64) -> Vec<Finding> {
    let mut findings =
        vec![engine(samples), images(samples), tasks(samples, now), disks(samples), outbox(samples)];
    findings.push(pools(samples));
    findings.push(kept(samples));
    findings.push(audit(samples));
    findings
}

/// Good where nobody is named.
fn all_but(check: &'static str, good: String, bad: Vec<String>, mend: &str) -> Finding {
    if bad.is_empty() {
        return Finding { check, good: true, detail: good, mend: None };
    }
    Finding { check, good: false, detail: bad.join("; "), mend: Some(mend.to_owned()) }
}

fn engine(samples: &Samples) -> Finding {
    let bad = samples.of("hotbed_backend_up").filter(|s| s.value == 0.0);
    let bad = bad.map(|s| format!("{} did not answer the last comparison", s.label("backend"))).collect();
    let mend = "start the engine or read its log; sessions that are there go on meanwhile (HotbedEngineDown)";
    all_but("engine, as the server sees it", "answers".into(), bad, mend)
}

fn images(samples: &Samples) -> Finding {
    let mut bad = Vec::new();
    let mut repos = 0;
    for target in samples.of("hotbed_image_age_target_seconds") {
        repos += 1;
        let repo = target.label("repo");
        match samples.at("hotbed_image_age_seconds", "repo", repo) {
            None => bad.push(format!("{repo} has no image")),
            Some(age) if age > 1.1 * target.value => {
                bad.push(format!("{repo}: {:.1} h old, wanted {:.1} h", age / 3600.0, target.value / 3600.0));
            }
            Some(_) => {}
        }
    }
    let mend = "`hotbed build ls REPO` and `hotbed build log ID` say why (HotbedNoImage, HotbedImageOld)";
    all_but("images", format!("{repos} repos, each with one that is fresh"), bad, mend)
}

/// A task that has not ended well for three of its intervals, and half a minute.
fn tasks(samples: &Samples, now: f64) -> Finding {
    let mut bad = Vec::new();
    let mut tasks = 0;
    for interval in samples.of("hotbed_task_interval_seconds") {
        tasks += 1;
        let task = interval.label("task");
        let last = samples.at("hotbed_task_last_success_timestamp_seconds", "task", task).unwrap_or_default();
        let up = samples.sum("process_start_time_seconds").unwrap_or_default();
        let since = now - last.max(up);
        if since > 3.0 * interval.value + 30.0 {
            bad.push(format!("{task} has not ended well for {since:.0} s"));
        }
    }
    all_but(
        "tasks",
        format!("all {tasks} run"),
        bad,
        "the log says why: `task` is its name (HotbedTaskNotRun)",
    )
}

fn disks(samples: &Samples) -> Finding {
    let full = samples.of("hotbed_disk_free_ratio").filter(|s| s.value < 0.1);
    let bad = full
        .map(|s| format!("{}: {:.0} % of its {} left", s.label("disk"), 100.0 * s.value, s.label("of")))
        .collect();
    let mend = "`hotbed image gc --dry-run`, lower `image.keep` or `retention`, or give it a larger disk (HotbedDiskLow)";
    all_but("disks", "room on each".into(), bad, mend)
}

fn outbox(samples: &Samples) -> Finding {
    let stuck = samples.of("hotbed_outbox_oldest_seconds").filter(|s| s.value > 600.0);
    let bad =
        stuck.map(|s| format!("a {} has waited for {:.0} min", s.label("kind"), s.value / 60.0)).collect();
    let mend =
        "the forge can't be reached, or refuses: `error` of the pull request says it (HotbedOutboxStuck)";
    all_but("outbox", "nothing waits for long".into(), bad, mend)
}

fn pools(samples: &Samples) -> Finding {
    let mut bad = Vec::new();
    let mut members = 0.0;
    for target in samples.of("hotbed_pool_target") {
        let repo = target.label("repo");
        let of_repo = samples.of("hotbed_pool_sandboxes").filter(|s| s.label("repo") == repo);
        let (mut warm, mut coming) = (0.0, 0.0);
        for series in of_repo {
            match series.label("state") {
                "warm" => warm += series.value,
                _ => coming += series.value,
            }
        }
        members += warm;
        if target.value > 0.0 && warm + coming == 0.0 {
            bad.push(format!("{repo} wants {} and has none, nor is one on its way", target.value));
        }
    }
    let mend = "`hotbed pool explain REPO` says what it waits for: an image, the budget, the engine (HotbedPoolEmpty)";
    all_but("pools", format!("{members} sandboxes are ready"), bad, mend)
}

fn kept(samples: &Samples) -> Finding {
    let mut bad = Vec::new();
    let kept: f64 =
        samples.of("hotbed_sandboxes").filter(|s| s.label("state") == "kept").map(|s| s.value).sum();
    if kept > 0.0 {
        bad.push(format!("{kept} sandboxes could not be captured and are kept"));
    }
    let spared = samples.sum("hotbed_spared").unwrap_or_default();
    if spared > 0.0 {
        bad.push(format!("{spared} sandboxes and captures are of after the copy that was restored"));
    }
    let mend = "they may hold somebody's work: look at them (HotbedSandboxKept, \"The state was restored\")";
    all_but("what waits for a person", "nothing".into(), bad, mend)
}

fn audit(samples: &Samples) -> Finding {
    let lost = samples.sum("hotbed_audit_lost_total").unwrap_or_default();
    let bad = if lost > 0.0 { vec![format!("{lost} lines were lost")] } else { Vec::new() };
    all_but("audit log", "whole".into(), bad, "the store took none for long: its disk is slow or full")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = r#"
process_start_time_seconds 1000
hotbed_backend_up{backend="docker"} 1
hotbed_image_age_target_seconds{repo="acme/api"} 86400
hotbed_image_age_seconds{repo="acme/api"} 3600
hotbed_task_interval_seconds{task="reconcile"} 15
hotbed_task_last_success_timestamp_seconds{task="reconcile"} 4990
hotbed_disk_free_ratio{disk="state",of="bytes"} 0.5
hotbed_outbox_oldest_seconds{kind="pull_request"} 0
hotbed_pool_target{repo="acme/api"} 2
hotbed_pool_sandboxes{repo="acme/api",state="warm"} 2
hotbed_sandboxes{purpose="session",state="kept"} 0
hotbed_spared{kind="sandbox"} 0
hotbed_audit_lost_total 0
"#;

    fn bad(text: &str) -> Vec<(&'static str, String)> {
        let findings = judge(&Samples::parse(text), 5000.0);
        assert!(findings.iter().all(|f| f.good == f.mend.is_none()), "what is wrong says what to do");
        findings.into_iter().filter(|f| !f.good).map(|f| (f.check, f.detail)).collect()
    }

    #[test]
    fn a_well_one_is_well_and_each_trouble_is_named() {
        assert_eq!(bad(WELL), []);
        for (was, is, check, word) in [
            (
                "hotbed_backend_up{backend=\"docker\"} 1",
                "hotbed_backend_up{backend=\"docker\"} 0",
                "engine, as the server sees it",
                "docker",
            ),
            (
                "image_age_seconds{repo=\"acme/api\"} 3600",
                "image_age_seconds{repo=\"acme/api\"} 100000",
                "images",
                "27.8 h",
            ),
            ("hotbed_image_age_seconds{repo=\"acme/api\"} 3600\n", "", "images", "has no image"),
            ("task=\"reconcile\"} 4990", "task=\"reconcile\"} 4900", "tasks", "reconcile"),
            ("of=\"bytes\"} 0.5", "of=\"bytes\"} 0.05", "disks", "5 % of its bytes"),
            ("kind=\"pull_request\"} 0", "kind=\"pull_request\"} 900", "outbox", "15 min"),
            ("state=\"warm\"} 2", "state=\"warm\"} 0", "pools", "acme/api wants 2"),
            ("state=\"kept\"} 0", "state=\"kept\"} 1", "what waits for a person", "could not be captured"),
            ("kind=\"sandbox\"} 0", "kind=\"sandbox\"} 3", "what waits for a person", "restored"),
            ("audit_lost_total 0", "audit_lost_total 4", "audit log", "4 lines"),
        ] {
            assert!(WELL.contains(was), "{was}");
            let found = bad(&WELL.replace(was, is));
            assert!(matches!(&found[..], [(c, d)] if *c == check && d.contains(word)), "{is}: {found:?}");
        }
    }

    /// One that has just been started has not run its hourly tasks yet.
    #[test]
    fn a_young_server_is_given_its_time() {
        let text = "process_start_time_seconds 4980\nhotbed_task_interval_seconds{task=\"reconcile\"} 15\n";
        assert_eq!(bad(text), []);
    }
}

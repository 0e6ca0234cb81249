//! Traces, as a collector gets them: one from the keystroke to the pull request, and nothing that waits for a collector
//! or tells it a secret.

use std::collections::{BTreeMap, BTreeSet};

use config::TracingSettings;
use domain::{Branch, SecretSource, TraceContext};
use orchestrator::traces::kinds;
use serde_json::{Value, json};
use tests::collector::{Collector, Manners, Seen};

use crate::world::{Setup, World, id};

const KEYSTROKE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

pub fn collector(manners: Manners) -> Collector {
    Collector::start(manners).expect("a collector")
}

pub fn to(collector: &Collector) -> TracingSettings {
    TracingSettings {
        endpoint: collector.endpoint(),
        service_name: "hotbed-of-tests".into(),
        sample: 1.0,
        per_second: 1000,
        headers: BTreeMap::new(),
    }
}

async fn post(w: &World, path: &str, headers: &[(&str, &str)], body: &Value) -> Value {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    let answer = w.send("POST", path, &all, body.to_string().as_bytes()).await;
    assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
    answer.json()
}

/// As if the session had pushed.
fn push(w: &World, view: &Value) {
    let branch: Branch = view["branch"].as_str().expect("branch").parse().expect("branch");
    let repo = &w.specs[0].name;
    let tip = w.upstream(repo).tip(&crate::world::main()).expect("tip").expect("main");
    w.upstream(repo).set_branch(&branch, &tip).expect("branch");
    w.commit_to(&branch, "the session's work");
}

/// The spans of a trace, by name; of several of a name the first.
fn of_trace<'a>(seen: &'a [Seen], trace: &str) -> BTreeMap<&'a str, &'a Seen> {
    let mut by_name = BTreeMap::new();
    for span in seen.iter().filter(|s| s.trace == trace) {
        by_name.entry(span.name.as_str()).or_insert(span);
    }
    by_name
}

/// Each is of a kind that is documented, with the attributes that are documented for it, and ends after it begins.
#[track_caller]
fn all_are_documented(seen: &[Seen]) {
    for span in seen {
        let kind = kinds::ALL.into_iter().find(|k| k.name == span.name);
        let kind = kind.unwrap_or_else(|| {
            assert!(span.name.contains(" /v1/"), "no kind of span is called {}", span.name);
            &kinds::REQUEST
        });
        assert_eq!(span.scope, kind.scope.as_str(), "{span:?}");
        assert!(span.attributes.keys().all(|a| kind.attributes.contains(&a.as_str())), "{span:?}");
        assert!(span.start <= span.end, "{span:?}");
        assert_eq!(span.service, "hotbed-of-tests");
    }
}

/// The client says where it is at the keystroke, and never again; a restart comes in between.
#[test]
fn one_trace_from_the_keystroke_to_the_pull_request() {
    let collector = collector(Manners::Takes);
    World::with(Setup::pool(2).tracing(to(&collector)), async |w| {
        let announce = json!({"repo": "acme/api", "client": "web:ada"});
        let sent = [("traceparent", KEYSTROKE), ("tracestate", "vendor=7")];
        let warmup = post(w, "/v1/warmups", &sent, &announce).await;
        let prepared = format!("/v1/warmups/{}", id(&warmup));
        w.wait("the warm-up is prepared", async || {
            (!w.get(&prepared).await.json()["prepared_at"].is_null()).then_some(())
        })
        .await;
        let mut new = w.new_session();
        new["warmup"] = warmup["id"].clone();
        let view = post(w, "/v1/sessions", &[], &new).await;
        assert_eq!((w.synced(&view).await.as_str(), &view["launch"]), ("synced", &json!("warmup")));
        let of_session = format!("/v1/sessions/{}", id(&view));
        let run = json!({"cmd": ["make", "test"], "wait": true});
        post(w, &format!("{of_session}/exec"), &[], &run).await;
        push(w, &view);
        w.restart().await;
        let opened = post(w, &format!("{of_session}/pull-requests"), &[], &json!({"title": "Do it"})).await;
        assert_eq!(opened["state"], "open");
        w.end(&view).await;
        w.wait("the session's life has left", async || {
            collector.seen().iter().any(|s| s.name == "session").then_some(())
        })
        .await;

        let seen = collector.seen();
        all_are_documented(&seen);
        let spans = of_trace(&seen, TRACE);
        let below = |name: &str, parent: &str| {
            let span = spans.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", spans.keys()));
            let above = spans.get(parent).map_or("00f067aa0ba902b7", |p| p.id.as_str());
            assert_eq!(span.parent, above, "{name} stands below {parent}");
        };
        below("POST /v1/warmups", "the client's keystroke");
        below("warmup.prepare", "POST /v1/warmups");
        below("warmup", "POST /v1/warmups");
        below("POST /v1/sessions", "POST /v1/warmups");
        for name in
            ["session.claim", "session.bind", "session.sync", "session.gate", "session.end", "session"]
        {
            below(name, "POST /v1/sessions");
        }
        below("agent.sync", "session.sync");
        below("POST /v1/sessions/{id}/exec", "POST /v1/sessions");
        below("exec", "POST /v1/sessions/{id}/exec");
        below("agent.exec", "exec");
        below("session.snapshot", "POST /v1/sessions");
        below("POST /v1/sessions/{id}/pull-requests", "POST /v1/sessions");
        below("pull_request.open", "POST /v1/sessions/{id}/pull-requests");
        assert_eq!(spans["session"].attributes["hotbed.session"], id(&view));
        assert_eq!(spans["POST /v1/warmups"].state, "vendor=7");
        let exec = &spans["POST /v1/sessions/{id}/exec"].attributes;
        let of_request = [kinds::METHOD, kinds::ROUTE, kinds::STATUS, kinds::SESSION];
        assert_eq!(
            of_request.map(|key| exec[key].as_str()),
            ["POST", "/v1/sessions/{id}/exec", "201", id(&view)]
        );
        assert_eq!(spans["agent.sync"].scope, "hotbed-agent");
        // Every parent is a span that arrived, or the client's own.
        let ids: BTreeSet<_> = seen.iter().map(|s| s.id.as_str()).collect();
        let lost = seen.iter().find(|s| {
            !s.parent.is_empty() && !ids.contains(s.parent.as_str()) && s.parent != "00f067aa0ba902b7"
        });
        assert!(lost.is_none(), "{lost:?}");
    });
}

/// A client that goes on in another trace than its keystroke's: both stay, and are linked.
#[test]
fn two_traces_of_a_client_are_linked() {
    let collector = collector(Manners::Takes);
    World::with(Setup::pool(2).tracing(to(&collector)), async |w| {
        let announce = json!({"repo": "acme/api", "client": "web:ada"});
        let warmup = post(w, "/v1/warmups", &[], &announce).await;
        let mut new = w.new_session();
        new["warmup"] = warmup["id"].clone();
        let view = post(w, "/v1/sessions", &[("traceparent", KEYSTROKE)], &new).await;
        assert_eq!(w.synced(&view).await, "synced");
        // Reads leave no span, and a keystroke that moves an expiry neither.
        w.read_session(&view).await;
        w.see(&collector, "session.gate").await;
        let seen = collector.seen();
        all_are_documented(&seen);
        let announced = seen.iter().find(|s| s.name == "POST /v1/warmups").expect("the announcement");
        assert!(announced.parent.is_empty(), "it began a trace: {announced:?}");
        let claimed = of_trace(&seen, TRACE)["POST /v1/sessions"];
        assert_eq!(claimed.links, std::slice::from_ref(&announced.trace));
        assert_eq!(of_trace(&seen, TRACE)["session.sync"].parent, claimed.id);
        assert!(!seen.iter().any(|s| s.name.starts_with("GET")), "{seen:?}");
    });
}

/// What a client says is not sampled is passed on as such, and not recorded.
#[test]
fn what_is_not_sampled_leaves_nothing() {
    let collector = collector(Manners::Takes);
    World::with(Setup::pool(1).tracing(to(&collector)), async |w| {
        let unsampled = KEYSTROKE.replace("-01", "-00");
        let sent = [("traceparent", unsampled.as_str())];
        let view = post(w, "/v1/sessions", &sent, &w.new_session()).await;
        assert_eq!(w.synced(&view).await, "synced");
        let record = w.app().sessions.live(id(&view).parse().expect("id")).expect("live").record();
        let place = record.trace.clone().expect("a place");
        assert_eq!((format!("{:032x}", place.trace_id()).as_str(), place.is_sampled()), (TRACE, false));
        w.end(&view).await;
        let other = post(w, "/v1/sessions", &[], &w.new_session()).await;
        w.synced(&other).await;
        w.see(&collector, "session.gate").await;
        assert!(collector.seen().iter().all(|s| s.trace != TRACE));
    });
}

/// What begins here and is not sampled is not recorded either: not what is done later, and not after a restart.
#[test]
fn a_trace_that_is_not_kept_stays_so() {
    let collector = collector(Manners::Takes);
    let nothing = TracingSettings { sample: 0.0, ..to(&collector) };
    World::with(Setup::pool(2).tracing(nothing), async |w| {
        let view = post(w, "/v1/sessions", &[], &w.new_session()).await;
        assert_eq!(w.synced(&view).await, "synced");
        let of_session = id(&view).parse().expect("id");
        let place = |w: &World| w.app().sessions.live(of_session).expect("live").record().trace.clone();
        let before = place(w).expect("a place");
        assert!(!before.is_sampled());
        w.restart().await;
        assert_eq!(place(w), Some(before));
        let run = json!({"cmd": ["true"], "wait": true});
        post(w, &format!("/v1/sessions/{}/exec", id(&view)), &[], &run).await;
        w.end(&view).await;
        // A client's own is kept, so it is seen that something can be.
        let other = post(w, "/v1/sessions", &[("traceparent", KEYSTROKE)], &w.new_session()).await;
        w.synced(&other).await;
        w.see(&collector, "session.gate").await;
        let seen = collector.seen();
        assert!(seen.iter().all(|s| s.trace == TRACE), "{seen:?}");
    });
}

/// A request whose client has gone is shown for what it was, without an answer.
#[test]
fn a_client_that_hangs_up_leaves_its_request() {
    let collector = collector(Manners::Takes);
    World::with(Setup::pool(1).tracing(to(&collector)), async |w| {
        for agent in w.agents.all() {
            agent.set(|o| o.sync_hangs = true);
        }
        let view = w.session().await;
        let path = format!("/v1/sessions/{}/sync?wait_seconds=60", id(&view));
        w.ask_and_hang_up("GET", &path, &[("traceparent", KEYSTROKE)]).await;
        w.see(&collector, "GET /v1/sessions/{id}/sync").await;
        let seen = collector.seen();
        let asked = of_trace(&seen, TRACE)["GET /v1/sessions/{id}/sync"];
        assert_eq!(
            (asked.attributes[kinds::METHOD].as_str(), asked.attributes.get(kinds::STATUS)),
            ("GET", None)
        );
    });
}

/// A collector that takes requests and never answers: sessions go on, what is too many is dropped and counted.
#[test]
fn nothing_waits_for_a_collector_that_hangs() {
    let collector = collector(Manners::Hangs);
    World::with(Setup::pool(2).tracing(to(&collector)), async |w| {
        w.allow_log("the collector takes no spans");
        w.allow_log("the last spans did not leave in time");
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.wait_for("the collector is asked", || collector.requests() > 0).await;
        let parent: TraceContext = KEYSTROKE.parse().expect("a traceparent");
        for _ in 0..10_000 {
            drop(w.app().tracer.child(&kinds::SYNC, Some(&parent)));
        }
        let dropped = spans_left(w, "dropped");
        assert!(dropped >= 10_000.0 - 2.0 * 4096.0, "{dropped}");
        let run = json!({"cmd": ["true"], "wait": true});
        post(w, &format!("/v1/sessions/{}/exec", id(&view)), &[], &run).await;
        w.end(&view).await;
    });
}

/// A collector that refuses is complained of once, counted each time, and used again when it is well.
#[test]
fn a_collector_that_refuses_is_said_once() {
    let collector = collector(Manners::Refuses);
    World::with(Setup::pool(2).tracing(to(&collector)), async |w| {
        w.expect_log("the collector takes no spans");
        for asked in 1..=2 {
            let parent: TraceContext = KEYSTROKE.parse().expect("a traceparent");
            drop(w.app().tracer.child(&kinds::SYNC, Some(&parent)));
            w.wait_for("another batch was refused", || collector.requests() >= asked).await;
        }
        w.wait_for("they are counted", || spans_left(w, "failed") >= 2.0).await;
        let complaints = w.log_lines().iter().filter(|l| l.contains("takes no spans")).count();
        assert_eq!(complaints, 1, "{:?}", w.log_lines());
        collector.behave(Manners::Takes);
        let view = w.session().await;
        w.synced(&view).await;
        w.see(&collector, "session.gate").await;
    });
}

fn spans_left(w: &World, result: &str) -> f64 {
    let all = w.metric("hotbed_trace_spans_total");
    all.iter().find(|(labels, _)| labels.contains(result)).map_or(0.0, |(_, n)| *n)
}

/// What users type, their environment, keys and tokens: no byte of it reaches the collector.
#[test]
fn no_secret_is_in_what_is_exported() {
    let collector = collector(Manners::Takes);
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("otlp");
    std::fs::write(&secret, "Bearer collectors-own-secret\n").expect("write");
    let mut settings = to(&collector);
    settings.headers.insert("authorization".into(), SecretSource::File(secret));
    World::with(Setup::pool(2).github().tracing(settings), async |w| {
        let token = w.hub().user_token("ada");
        let mut new = w.new_session();
        new["env"] = json!({"DB_PASSWORD": "hunter2hunter2"});
        new["user_token"] = json!(token);
        let sent = [("traceparent", KEYSTROKE), ("tracestate", "v=ghp_0123456789abcdef0123456789abcdef0123")];
        let view = post(w, "/v1/sessions", &sent, &new).await;
        assert_eq!(w.synced(&view).await, "synced");
        let run =
            json!({"cmd": "psql --password=typed-in-a-command", "wait": true, "env": {"X": "in-the-exec"}});
        post(w, &format!("/v1/sessions/{}/exec", id(&view)), &[], &run).await;
        push(w, &view);
        let order = json!({"title": "A title that somebody typed", "body": "and a body"});
        post(w, &format!("/v1/sessions/{}/pull-requests", id(&view)), &[], &order).await;
        w.see(&collector, "pull_request.open").await;
        assert!(collector.headers().iter().all(|h| h["authorization"] == "Bearer collectors-own-secret"));
        let key = w.app().api_key.clone();
        for body in collector.bodies() {
            for secret in [
                key.as_str(),
                token.as_str(),
                "hunter2",
                "typed-in-a-command",
                "in-the-exec",
                "collectors-own",
                "ghp_",
                "somebody typed",
                "ada@",
            ] {
                let found = body.windows(secret.len()).any(|w| w == secret.as_bytes());
                assert!(!found, "{secret} is in {}", String::from_utf8_lossy(&body));
            }
        }
    });
}

impl World {
    /// Waits until a span of this name has arrived.
    async fn see(&self, collector: &Collector, name: &str) {
        let what = format!("a span {name} arrives");
        self.wait_for(&what, || collector.seen().iter().any(|s| s.name == name)).await;
    }
}

/// The page of the documentation has the table of the code.
#[test]
fn the_page_of_spans_is_the_one_of_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tracing.md");
    let page = std::fs::read_to_string(&path).expect("docs/tracing.md");
    let (begin, end) = ("<!-- spans: made by the code -->\n", "<!-- end -->\n");
    let (head, rest) = page.split_once(begin).expect("the table's beginning");
    let (_, tail) = rest.split_once(end).expect("the table's end");
    let wanted = format!("{head}{begin}\n{}\n{end}{tail}", kinds::reference());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).expect("write");
        return;
    }
    assert_eq!(page, wanted, "UPDATE=1 rewrites {}", path.display());
}

//! A trace in which the real agent takes part: what it did in a sandbox without a network, what a command finds in its
//! environment, what is pushed and asked for from inside, also after the server was killed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::collector::{Collector, Manners, Seen};

use super::api::{Api, until};
use super::on_docker;
use super::world::{Repo, World};
use crate::http;

const REPO: &str = "acme/traced";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// The span of the client's.
const CLIENT: &str = "00f067aa0ba902b7";

/// Until a span of this name is in the trace, as often as it is asked for.
async fn seen(collector: &Collector, name: &str, times: usize) -> Vec<Seen> {
    until(&format!("{times} spans `{name}` arrive"), async || {
        let all: Vec<_> = collector.seen().into_iter().filter(|s| s.trace == TRACE).collect();
        let found = all.iter().filter(|s| s.name == name).count();
        if found >= times { Ok(all) } else { Err(format!("{:?}", names(&all))) }
    })
    .await
}

fn names(all: &[Seen]) -> BTreeMap<&str, usize> {
    all.iter().fold(BTreeMap::new(), |mut names, span| {
        *names.entry(span.name.as_str()).or_default() += 1;
        names
    })
}

#[track_caller]
fn last<'a>(all: &'a [Seen], name: &str) -> &'a Seen {
    let found = all.iter().rev().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", names(all)))
}

/// What a command finds in its environment: the span that it stands below.
async fn told(api: &Api, id: &str) -> String {
    let told = api.must(id, "printenv TRACEPARENT").await;
    let parts: Vec<_> = told.trim().split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"), "{told}");
    parts[2].to_owned()
}

/// Lines of the log, as machines read it.
struct Said(Vec<(Value, String)>);

impl Said {
    /// Every line is one object with what each has.
    fn since(world: &World, at: usize) -> Self {
        let read = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            for there in ["timestamp", "level", "target"] {
                assert!(value[there].is_string(), "no {there}: {line}");
            }
            assert!(value["fields"]["message"].is_string(), "no message: {line}");
            (value, line.to_owned())
        };
        Self(world.log()[at..].lines().map(read).collect())
    }

    /// What is said of a session. It is named in a field, and never in the message.
    fn of(&self, id: &str) -> Vec<&Value> {
        let named = self.0.iter().filter(|(_, line)| line.contains(id));
        named
            .map(|(said, line)| {
                assert_eq!(said["fields"]["session"], id, "{line}");
                assert!(!said["fields"]["message"].as_str().expect("a message").contains(id), "{line}");
                said
            })
            .collect()
    }

    /// The one line of an event of a session.
    #[track_caller]
    fn once(&self, message: &str, id: &str) -> &Value {
        let all = self.of(id);
        let found: Vec<_> = all.iter().filter(|said| said["fields"]["message"] == message).collect();
        assert_eq!(found.len(), 1, "`{message}` of {id}: {all:#?}");
        found[0]
    }
}

// F5
#[test]
fn the_agent_and_what_runs_in_a_sandbox_stand_in_the_clients_trace() {
    on_docker(async {
        let collector = Collector::start(Manners::Takes).expect("a collector");
        let settings =
            json!({"tracing": {"endpoint": collector.endpoint(), "service_name": "hotbed-of-tests"}});
        let world = World::start_with("traces", vec![Repo::new(REPO, 1)], settings).await;
        let api = world.api();
        api.ready(REPO).await;
        let order = json!({"repo": REPO, "user": Api::user(), "env": {"SECRET": "hunter2hunter2"}});
        let key = std::fs::read_to_string(world.state_dir().join("api.key")).expect("an API key");
        let bearer = format!("Bearer {}", key.trim());
        let traceparent = format!("00-{TRACE}-{CLIENT}-01");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("traceparent", traceparent.as_str()),
        ];
        let body = order.to_string();
        let start = async || {
            let answer = http::send(world.address(), "POST", "/v1/sessions", &headers, body.as_bytes()).await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 201, "{}", answer.text());
            answer.json()["id"].as_str().expect("an id").to_owned()
        };
        let id = &start().await;
        api.synced(id).await;

        let above = told(&api, id).await;
        seen(&collector, "session.sync", 1).await;
        let spans = seen(&collector, "exec", 1).await;
        let exec = last(&spans, "exec");
        assert_eq!(above, exec.id, "a command is told the span of its exec");
        let ran = last(&spans, "agent.exec");
        assert_eq!((ran.parent.as_str(), ran.scope.as_str()), (exec.id.as_str(), "hotbed-agent"));
        assert!(exec.start <= ran.start && ran.end <= exec.end, "{exec:?} {ran:?}");
        assert_eq!(ran.attributes["process.exit.code"], "0");
        let session = last(&spans, "POST /v1/sessions");
        assert_eq!(session.parent, CLIENT);
        assert_eq!(last(&spans, "session.sync").parent, session.id);
        assert_eq!(last(&spans, "agent.sync").parent, last(&spans, "session.sync").id);
        assert_eq!(last(&spans, "agent.fetch").parent, last(&spans, "agent.sync").id);

        // The agent dials again, and the session's place is in its row.
        world.kill_server();
        let text = world.log().len();
        world.start_server_with(&[("HOTBED_LOG_FORMAT", "json")]).await;
        let api = world.api();
        api.reaches(id, &["active"]).await;
        assert_ne!(told(&api, id).await, above);
        let token = api.must(id, "printenv HOTBED_TOKEN").await;
        api.must(id, "git commit -q --allow-empty -m 'a message that somebody typed'").await;
        api.must(id, "git push -q origin HEAD").await;
        let opened = api.must(id, "hotbed-agent pr create --title 'A title that somebody typed'").await;
        assert!(opened.starts_with("open"), "{opened}");
        let spans = seen(&collector, "pull_request.open", 1).await;
        let pushed = last(&spans, "git.push");
        assert_eq!((pushed.parent.as_str(), pushed.scope.as_str()), (session.id.as_str(), "hotbed"));
        // The command's own span leaves after what it asked for.
        let asked = last(&spans, "pull_request.open").parent.clone();
        let spans = seen(&collector, "exec", 6).await;
        let asking = spans.iter().find(|s| s.id == asked).expect("the span below which it was asked for");
        assert_eq!(asking.name, "exec", "the command that asked: {asking:?}");
        api.end(id).await;
        let spans = seen(&collector, "session", 1).await;
        assert_eq!(last(&spans, "session.snapshot").parent, session.id);

        // A whole life in the log.
        let other = &start().await;
        api.synced(other).await;
        api.must(other, "echo something > that-was-not-there").await;
        api.end(other).await;
        let said = Said::since(&world, text);
        for event in ["session started", "session ready", "session ended"] {
            let line = said.once(event, other);
            assert_eq!(
                (&line["level"], &line["span"]["trace_id"]),
                (&json!("INFO"), &json!(TRACE)),
                "{line}"
            );
        }
        said.once("session ended", id);
        for (_, line) in &said.0 {
            for secret in ["hunter2", "somebody typed", "printenv", "ada@example", key.trim(), token.trim()] {
                assert!(!line.contains(secret), "{secret} is in {line}");
            }
        }
        for body in collector.bodies() {
            for secret in ["hunter2", "somebody typed", "printenv", "ada@example", key.trim(), token.trim()] {
                let found = body.windows(secret.len()).any(|w| w == secret.as_bytes());
                assert!(!found, "{secret} is in {}", String::from_utf8_lossy(&body));
            }
        }
    });
}

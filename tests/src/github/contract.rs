//! GitHub's own description, as the judge of what is asked and answered here; and octokit's, of the webhooks.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

const FILE: &str = include_str!("../../fixtures/github/github-contract.json");
/// Installed by `make setup`.
const WEBHOOKS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/node/node_modules/@octokit/webhooks-schemas/schema.json");

pub(crate) struct Contract {
    document: Value,
    /// Of each operation the method, the pieces of its path, and its name in the description.
    operations: Vec<(String, Vec<String>, String)>,
    webhooks: Option<Value>,
    /// Made when first needed: compiling all of them takes seconds.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    pub fn load() -> Self {
        let mut document: Value = serde_json::from_str(FILE).expect("the contract is JSON");
        // The cut from GitHub's description names some definitions that it does not hold: those say nothing.
        let mut named = Vec::new();
        references(&document, &mut named);
        let definitions = document["$defs"].as_object_mut().expect("$defs");
        for name in named {
            definitions.entry(name).or_insert(json!({}));
        }
        let operations = document["operations"].as_object().expect("operations");
        let operations = operations.keys().filter_map(|name| {
            let (method, path) = name.split_once(' ')?;
            Some((method.to_owned(), path.split('/').skip(1).map(str::to_owned).collect(), name.clone()))
        });
        let operations = operations.collect();
        let webhooks =
            std::fs::read_to_string(Path::new(WEBHOOKS)).ok().and_then(|t| serde_json::from_str(&t).ok());
        Self { document, operations, webhooks, validators: Mutex::default() }
    }

    /// Whether webhooks can be judged: octokit's schemas are installed.
    pub fn judges_webhooks(&self) -> bool {
        self.webhooks.is_some()
    }

    /// The operation of a request, if GitHub's description (as far as it is here) has it. `{ref}` takes the rest.
    pub fn operation(&self, method: &str, path: &[String]) -> Option<&str> {
        let fits = |wanted: &[String]| {
            let open = |w: &str| w.starts_with('{');
            let rest = wanted.last().is_some_and(|w| w == "{ref}" || w == "{branch}");
            (wanted.len() == path.len() || (rest && wanted.len() < path.len()))
                && wanted.iter().zip(path).all(|(w, p)| open(w) || w == p)
        };
        let all = self.operations.iter().filter(|(m, wanted, _)| m == method && fits(wanted));
        // The one with the fewest open pieces is meant: `/app/installations` before `/app/{x}`.
        all.min_by_key(|(_, w, _)| w.iter().filter(|p| p.starts_with('{')).count())
            .map(|(.., name)| name.as_str())
    }

    pub fn check_request(
        &self,
        operation: &str,
        query: &BTreeMap<String, String>,
        body: Option<&Value>,
    ) -> Vec<String> {
        let described = &self.document["operations"][operation];
        let mut wrong = Vec::new();
        for (name, value) in query {
            let Some(schema) = described["query"].get(name) else {
                wrong.push(format!("{operation}: the query `{name}` is not described"));
                continue;
            };
            let value = match schema["type"].as_str() {
                Some("integer") => value.parse::<i64>().map_or_else(|_| json!(value), |n| json!(n)),
                Some("boolean") => value.parse::<bool>().map_or_else(|_| json!(value), |b| json!(b)),
                _ => json!(value),
            };
            wrong.extend(self.judge(&format!("{operation} query {name}"), schema, &value));
        }
        match (described.get("request"), body) {
            (Some(schema), Some(body)) => {
                wrong.extend(self.judge(&format!("{operation} request"), schema, body))
            }
            (Some(_), None) if described["required"] == json!(true) => {
                wrong.push(format!("{operation}: no body"))
            }
            (None, Some(body)) if *body != json!({}) => {
                wrong.push(format!("{operation}: a body that is not described"))
            }
            _ => {}
        }
        wrong
    }

    pub fn check_answer(&self, operation: &str, status: u16, body: Option<&Value>) -> Vec<String> {
        let described = &self.document["operations"][operation]["responses"];
        let schema = match described.get(status.to_string()) {
            Some(schema) => schema.clone(),
            // Any call may be refused like this.
            None if matches!(status, 401 | 403 | 404 | 429) || status >= 500 => {
                json!({"$ref": "#/$defs/basic-error"})
            }
            None => return vec![format!("{operation}: the status {status} is not described")],
        };
        match (schema.is_null(), body) {
            (true, None) => Vec::new(),
            (true, Some(_)) => vec![format!("{operation}: {status} has no body")],
            (false, body) => {
                self.judge(&format!("{operation} {status}"), &schema, body.unwrap_or(&Value::Null))
            }
        }
    }

    /// Holds a webhook against octokit's schema of its event and action.
    pub fn check_webhook(&self, event: &str, action: Option<&str>, body: &Value) -> Vec<String> {
        let Some(webhooks) = &self.webhooks else { return Vec::new() };
        let name = format!("{event}${}", action.unwrap_or("event"));
        if webhooks["definitions"].get(&name).is_none() {
            return vec![format!("octokit knows no webhook {name}")];
        }
        let label = format!("webhook {name}");
        let build = || {
            json!({
                "$schema": "http://json-schema.org/draft-07/schema#",
                "definitions": webhooks["definitions"],
                "$ref": format!("#/definitions/{name}"),
            })
        };
        self.judge_with(&label, build, body)
    }

    fn judge(&self, label: &str, schema: &Value, value: &Value) -> Vec<String> {
        let build = || {
            let mut whole = Map::new();
            whole.insert("$schema".into(), self.document["$schema"].clone());
            whole.insert("$defs".into(), self.document["$defs"].clone());
            whole.insert("allOf".into(), json!([schema]));
            Value::Object(whole)
        };
        self.judge_with(label, build, value)
    }

    fn judge_with(&self, label: &str, build: impl FnOnce() -> Value, value: &Value) -> Vec<String> {
        let known = self.validators.lock().expect("lock").get(label).cloned();
        let validator = known.unwrap_or_else(|| {
            let made = Arc::new(jsonschema::validator_for(&build()).expect("a schema that can be compiled"));
            self.validators.lock().expect("lock").insert(label.to_owned(), made.clone());
            made
        });
        let wrong = validator.iter_errors(value).take(3);
        wrong.map(|e| format!("{label}: {} at {}", short(&e.to_string()), e.instance_path())).collect()
    }
}

fn short(text: &str) -> String {
    text.chars().rev().take(220).collect::<Vec<_>>().into_iter().rev().collect()
}

fn references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let (true, Some(name)) = (key == "$ref", value.as_str()) {
                    into.extend(name.strip_prefix("#/$defs/").map(str::to_owned));
                }
                references(value, into);
            }
        }
        Value::Array(all) => all.iter().for_each(|v| references(v, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(path: &str) -> Vec<String> {
        path.split('/').skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn operations_are_recognised() {
        let contract = Contract::load();
        let named = |method, path: &str| contract.operation(method, &pieces(path)).map(str::to_owned);
        assert_eq!(named("GET", "/app/installations").as_deref(), Some("GET /app/installations"));
        let nested = named("GET", "/repos/acme/api/git/ref/heads/a/b");
        assert_eq!(nested.as_deref(), Some("GET /repos/{owner}/{repo}/git/ref/{ref}"));
        assert_eq!(named("PUT", "/repos/acme/api/pulls/1/merge"), None);
        assert_eq!(contract.operations.len(), 35);
    }

    /// The judge says no where it should: what is missing, unknown, of another type, of another status.
    #[test]
    fn what_breaks_the_description_is_noticed() {
        let contract = Contract::load();
        let create = "POST /repos/{owner}/{repo}/pulls";
        let none = BTreeMap::new();
        let good = json!({"title": "t", "head": "h", "base": "b"});
        assert_eq!(contract.check_request(create, &none, Some(&good)), Vec::<String>::new());
        for bad in [
            json!({"title": "t", "base": "b"}),
            json!({"head": 1, "base": "b"}),
            json!({"head": "h", "base": "b", "x": 1}),
        ] {
            assert!(!contract.check_request(create, &none, Some(&bad)).is_empty(), "{bad}");
        }
        assert!(!contract.check_request(create, &none, None).is_empty());
        let query = BTreeMap::from([("state".to_owned(), "ajar".to_owned())]);
        assert!(!contract.check_request("GET /repos/{owner}/{repo}/pulls", &query, None).is_empty());
        assert!(!contract.check_answer(create, 201, Some(&json!({"number": 1}))).is_empty());
        assert!(!contract.check_answer(create, 200, Some(&json!({}))).is_empty());
        assert!(!contract.check_answer("DELETE /installation/token", 204, Some(&json!({}))).is_empty());
        assert!(contract.judges_webhooks(), "octokit's schemas are not installed: `make setup` does it");
        let body = json!({"action": "revoked"});
        assert!(!contract.check_webhook("github_app_authorization", Some("revoked"), &body).is_empty());
        assert!(!contract.check_webhook("pull_request", Some("invented"), &body).is_empty());
    }
}

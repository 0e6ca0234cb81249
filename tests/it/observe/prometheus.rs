//! A real Prometheus on loopback, with the configuration and the rules of `dashboards/`. It goes with its holder.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Asked, here, read};
use crate::http;

/// The longest that it may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the programs that Debian's package `prometheus` brings.
pub fn run(program: &str, args: &[&str], dir: &Path) -> (bool, String) {
    let output = Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| missing(program, &e));
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn missing(program: &str, e: &std::io::Error) -> ! {
    panic!("these tests need `{program}` of the Debian package `prometheus`: `make setup` installs it ({e})")
}

/// The files of rules.
pub fn rule_files() -> [&'static str; 2] {
    ["dashboards/alerts/hotbed.yml", "dashboards/alerts/slo.yml"]
}

/// A rule as Prometheus understood it.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub alert: bool,
    pub query: String,
    /// `ok`, or why it could not be evaluated.
    pub health: String,
    pub labels: Value,
    pub annotations: Value,
}

impl Prometheus {
    /// Scrapes Hotbed every second with this key, and evaluates the rules as often.
    pub async fn start(hotbed: SocketAddr, key: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("hbp").tempdir().expect("temporary directory");
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            std::fs::write(path, text).expect("write");
        };
        write("api.key", key.to_owned());
        for path in rule_files() {
            // Some are evaluated every five minutes, which is longer than a test.
            let name = format!("alerts/{}", Path::new(path).file_name().expect("name").to_string_lossy());
            write(&name, read(&here(path)).replace("interval: 5m", "interval: 1s"));
        }
        let mut config = read(&here("dashboards/prometheus.yml"));
        for (what, by) in [
            ("127.0.0.1:7070", hotbed.to_string()),
            ("/var/lib/hotbed/api.key", dir.path().join("api.key").display().to_string()),
            ("15s", "1s".to_owned()),
        ] {
            assert!(config.contains(what), "dashboards/prometheus.yml has no `{what}`");
            config = config.replace(what, &by);
        }
        write("prometheus.yml", config);
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={port}"))
            .args(["--log.level=warn", "--enable-feature=exemplar-storage"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).expect("log"))
            .spawn()
            .unwrap_or_else(|e| missing("prometheus", &e));
        let prometheus = Self { child, address: port, _dir: dir };
        let ready = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Ok(answer) = http::send(port, "GET", "/-/ready", &[], b"").await
                    && answer.status == 200
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let log = || read(&prometheus._dir.path().join("log"));
        assert!(ready.await.is_ok(), "Prometheus is not up within {PATIENCE:?}: {}", log());
        prometheus
    }

    async fn get(&self, path: &str) -> Value {
        let answer = http::send(self.address, "GET", path, &[], b"").await.expect("an answer of Prometheus");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["data"].clone()
    }

    /// The values of an instant query: numbers by their labels.
    pub async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let data = self.get(&format!("/api/v1/query?query={}", escaped(query))).await;
        let number = |v: &Value| v[1].as_str().expect("a value").parse().expect("a number");
        match data["resultType"].as_str() {
            Some("vector") => {
                let result = data["result"].as_array().expect("a vector");
                result.iter().map(|r| (r["metric"].clone(), number(&r["value"]))).collect()
            }
            _ => vec![(Value::Null, number(&data["result"]))],
        }
    }

    /// The traces that are named by examples of a metric.
    pub async fn examples(&self, query: &str) -> Vec<String> {
        let data = self.get(&format!("/api/v1/query_exemplars?query={}", escaped(query))).await;
        let series = data.as_array().into_iter().flatten();
        let examples = series.flat_map(|s| s["exemplars"].as_array().into_iter().flatten());
        examples.map(|e| e["labels"]["trace_id"].as_str().expect("a trace").to_owned()).collect()
    }

    pub async fn rules(&self) -> Vec<Rule> {
        let data = self.get("/api/v1/rules").await;
        let groups = data["groups"].as_array().expect("groups");
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().expect("rules"))
            .map(|rule| Rule {
                name: text(&rule["name"]),
                alert: rule["type"] == "alerting",
                query: text(&rule["query"]),
                health: rule["lastError"].as_str().map_or_else(|| text(&rule["health"]), str::to_owned),
                labels: rule["labels"].clone(),
                annotations: rule["annotations"].clone(),
            })
            .collect()
    }
}

impl Rule {
    pub fn asked(&self) -> Asked {
        Asked { place: format!("rule {}", self.name), query: self.query.clone() }
    }
}

/// For a query string.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

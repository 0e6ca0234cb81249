//! A real browser, driven over its DevTools protocol: started in a directory of its own, ended with its holder.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use orchestrator::client::Client;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "about:blank",
];
/// A browser on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Chromium {
    process: Child,
    socket: WebSocketStream<TcpStream>,
    serial: u64,
    _profile: tempfile::TempDir,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its own group: the renderers go with it.
        // SAFETY: no memory is involved.
        unsafe { libc::kill(-(self.process.id() as i32), libc::SIGKILL) };
        let _ = self.process.wait();
    }
}

impl Chromium {
    pub async fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("hb-chromium").tempdir().expect("a profile");
        let mut command = Command::new("chromium");
        command
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let process = command.spawn().expect("chromium is there: `make setup` installs it");
        let port = wait("chromium listens", async || port(profile.path())).await;
        let address = format!("127.0.0.1:{port}");
        let target = wait("chromium shows a page", async || {
            // It speaks HTTP/1.1 and leaves its connections open, as Hotbed's own client expects.
            let list: Vec<Value> = Client::new(&*address, "").get("/json/list").await.ok()?;
            let page = list.iter().find(|t| t["type"] == "page")?.clone();
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        })
        .await;
        let stream = TcpStream::connect(&address).await.expect("connect to chromium");
        let request = target.into_client_request().expect("an address");
        let (socket, _) =
            tokio_tungstenite::client_async(request, stream).await.expect("speak with chromium");
        Self { process, socket, serial: 0, _profile: profile }
    }

    /// One command of the protocol and its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.serial += 1;
        let order = json!({"id": self.serial, "method": method, "params": params});
        self.socket.send(Message::text(order.to_string())).await.expect("send to chromium");
        let answer = tokio::time::timeout(PATIENCE, async {
            loop {
                let message = self.socket.next().await.expect("chromium lives").expect("chromium speaks");
                let Ok(text) = message.to_text() else { continue };
                let Ok(said) = serde_json::from_str::<Value>(text) else { continue };
                if said["id"] == self.serial {
                    return said;
                }
            }
        });
        let answer = answer.await.unwrap_or_else(|_| panic!("chromium did not answer {method}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Goes to a page and waits until it is there.
    pub async fn open(&mut self, url: &str) {
        self.call("Page.enable", json!({})).await;
        self.call("Page.navigate", json!({"url": url})).await;
        self.until(&format!("location.href.startsWith({url:?}) && document.readyState === 'complete'")).await;
    }

    /// The value of an expression in the page; a promise is waited for.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params).await;
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression holds in the page.
    pub async fn until(&mut self, expression: &str) {
        let guarded = format!("(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()");
        let held = tokio::time::timeout(PATIENCE, async {
            while self.eval(&guarded).await != true {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(held.await.is_ok(), "it did not come about in the page that {expression}");
    }

    /// Keys as a person presses them, into what has the focus.
    pub async fn keys(&mut self, text: &str) {
        for key in text.chars() {
            self.call("Input.dispatchKeyEvent", json!({"type": "keyDown", "text": key, "key": key})).await;
            self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key})).await;
        }
    }
}

/// Chromium writes it when it listens.
fn port(profile: &Path) -> Option<u16> {
    std::fs::read_to_string(profile.join("DevToolsActivePort")).ok()?.lines().next()?.parse().ok()
}

async fn wait<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    asked.await.unwrap_or_else(|_| panic!("it did not come about that {what}"))
}

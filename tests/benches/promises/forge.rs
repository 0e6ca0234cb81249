//! Webhooks at the door: signed deliveries over HTTP, each kept durably before it is answered. Client, server and the
//! stand-in share this process, so the rate is that of the server with its client on the same cores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use bytes::Bytes;
use domain::testing::FakeBackend;
use domain::{Error, Result, SecretSource, SystemClock};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use orchestrator::app::{App, Engine, Options};
use serde_json::json;
use tests::github::{APP_ID, Standin, WEBHOOK_SECRET};
use tokio::net::{TcpListener, TcpStream};

use crate::report::{Report, Target, note};
use crate::stage;

const CLIENTS: usize = 16;
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(2);
/// Bytes of a delivery, about those of a push.
const BODY: usize = 7_000;

pub async fn webhooks(report: &mut Report) -> Result<()> {
    let dir = stage::scratch()?;
    let failed = |what: &'static str| move |e: std::io::Error| Error::permanent(what).caused_by(e);
    let hub = Standin::start(Arc::new(SystemClock)).await.map_err(failed("start the stand-in"))?;
    let secret = |name: &str, value: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, value).map_err(failed("write a secret"))?;
        Ok::<_, Error>(SecretSource::File(path))
    };
    let settings = config::GithubSettings {
        app_id: APP_ID,
        private_key: secret("app.pem", &hub.private_key())?,
        webhook_secrets: vec![secret("webhook", WEBHOOK_SECRET)?],
        api_url: hub.api_url(),
        web_url: hub.web_url(),
        git_url: hub.web_url(),
        users: None,
    };
    let engine = Engine::Given(Arc::new(FakeBackend::default()));
    let mut options = Options::new(dir.path().join("state"), Vec::new(), engine);
    options.agent = Some(b"no agent".to_vec());
    options.schedules = false;
    options.forge = config::ForgeSettings::Github(Box::new(settings));
    let app = App::start(options).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed("listen"))?;
    let address = listener.local_addr().map_err(failed("listen"))?.to_string();
    let serving = app.clone();
    let served = tokio::spawn(async move { serving.serve(listener).await });

    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(deliver(address.clone(), format!("{round}-{client}"), begun + ROUND));
        }
        let mut taken = 0;
        while let Some(done) = clients.join_next().await {
            let of_one = done.map_err(|e| Error::permanent("deliver").caused_by(e))??;
            taken += of_one.len();
            times.extend(of_one);
        }
        rates.push(taken as f64 / begun.elapsed().as_secs_f64());
    }
    note(format!("{CLIENTS} connections, {BODY} bytes each, {} deliveries", times.len()));
    report.row("webhooks_per_s", "1/s", &rates, Target::at_least(1000.0));
    report.row("webhook_answer", "ms", &times, Target::p99(100.0));
    app.stop.cancel();
    let _ = served.await;
    app.shutdown().await;
    Ok(())
}

/// One connection that delivers until `end`; how long each took, in milliseconds.
async fn deliver(address: String, name: String, end: Instant) -> Result<Vec<f64>> {
    let lost = || Error::unavailable(format!("reach {address}"));
    let stream = TcpStream::connect(&address).await.map_err(|e| lost().caused_by(e))?;
    stream.set_nodelay(true).map_err(|e| lost().caused_by(e))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost().caused_by(e))?;
    tokio::spawn(connection);
    let body = Bytes::from(json!({"zen": "x".repeat(BODY)}).to_string());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, WEBHOOK_SECRET.as_bytes()), &body);
    let tag: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let mut times = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        let request = Request::post("/v1/webhooks/github")
            .header(header::HOST, &address)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-github-event", "ping")
            .header("x-github-delivery", format!("{name}-{}", times.len()))
            .header("x-hub-signature-256", format!("sha256={tag}"))
            .body(Full::new(body.clone()))
            .map_err(|e| Error::invalid("make a delivery").caused_by(e))?;
        sender.ready().await.map_err(|e| lost().caused_by(e))?;
        let answer = sender.send_request(request).await.map_err(|e| lost().caused_by(e))?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(|e| lost().caused_by(e))?;
        if status != StatusCode::ACCEPTED {
            return Err(Error::permanent(format!("a delivery was answered {status}")));
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

//! A bare client: one connection that stays, no Nagle, JSON bodies, nothing between the clock and the socket.

use bytes::Bytes;
use domain::{Error, Result};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

pub struct Wire {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    bearer: String,
}

impl Wire {
    pub async fn connect(address: &str, key: &str) -> Result<Self> {
        let what = || format!("reach {address}");
        let stream =
            TcpStream::connect(address).await.map_err(|e| Error::unavailable(what()).caused_by(e))?;
        stream.set_nodelay(true).map_err(|e| Error::unavailable(what()).caused_by(e))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::unavailable(what()).caused_by(e))?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: address.into(), bearer: format!("Bearer {key}") })
    }

    /// One request, read to its end.
    pub async fn raw(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let what = || format!("ask for {path}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, &self.bearer)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| Error::invalid(what()).caused_by(e))?;
        self.sender.ready().await.map_err(|e| Error::unavailable(what()).caused_by(e))?;
        let sent = self.sender.send_request(request).await;
        let response = sent.map_err(|e| Error::unavailable(what()).caused_by(e))?;
        let status = response.status();
        let body =
            response.into_body().collect().await.map_err(|e| Error::unavailable(what()).caused_by(e))?;
        Ok((status, body.to_bytes()))
    }

    /// As [`Wire::raw`], of JSON; anything but success is an error.
    pub async fn json(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = body.map_or_else(Bytes::new, |b| b.to_string().into());
        let (status, bytes) = self.raw(method, path, bytes).await?;
        parse(path, status, &bytes)
    }

    pub async fn get(&mut self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, None).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::POST, path, Some(body)).await
    }
}

pub fn parse(path: &str, status: StatusCode, bytes: &[u8]) -> Result<Value> {
    if !status.is_success() {
        return Err(Error::permanent(format!("{path}: {status}: {}", String::from_utf8_lossy(bytes))));
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes)
        .map_err(|e| Error::permanent(format!("read the answer to {path}")).caused_by(e))
}

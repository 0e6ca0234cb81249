//! `hotbed-agent pr …`: what a session asks Hotbed for from inside its sandbox.
//!
//! It speaks HTTP to the address that git's `origin` has, which the agent carries to Hotbed, and shows the session's token.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use domain::wire::PullOrder;
use domain::{Error, Result, TraceContext};
use serde_json::Value;

/// Longer than Hotbed itself takes for a forge that is slow.
const PATIENCE: Duration = Duration::from_secs(120);
const USAGE: &str =
    "hotbed-agent pr create [--title TITLE] [--body TEXT | --body-file FILE] [--base BRANCH] [--draft]
hotbed-agent pr list";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    Create(PullOrder),
    List,
    Help,
}

/// Reads what comes after `pr`.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Ask> {
    let mut args = args.into_iter();
    match args.next().as_deref() {
        Some("create") => {}
        Some("list") => {
            return match args.next() {
                None => Ok(Ask::List),
                Some(other) => Err(unknown(&other)),
            };
        }
        None | Some("help" | "--help" | "-h") => return Ok(Ask::Help),
        Some(other) => return Err(unknown(other)),
    }
    let mut order = PullOrder::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| Error::invalid(format!("{arg} needs a value\n{USAGE}")));
        match arg.as_str() {
            "--title" | "-t" => order.title = Some(value()?),
            "--body" | "-b" => order.body = Some(value()?),
            "--body-file" | "-F" => order.body = Some(read_body(&value()?)?),
            "--base" | "-B" => order.base = Some(value()?),
            "--draft" | "-d" => order.draft = true,
            "--help" | "-h" => return Ok(Ask::Help),
            other => return Err(unknown(other)),
        }
    }
    Ok(Ask::Create(order))
}

fn unknown(argument: &str) -> Error {
    Error::invalid(format!("argument `{argument}` is not known here\n{USAGE}"))
}

fn read_body(file: &str) -> Result<String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        file => std::fs::read_to_string(file).map(|t| text = t),
    };
    read.map(|()| text).map_err(|e| Error::invalid(format!("read the body from `{file}`")).caused_by(e))
}

/// Asks, and prints the answer: the address of a pull request for each line.
pub fn run(ask: &Ask) -> Result<()> {
    let env = |name: &str| {
        std::env::var(name).map_err(|_| {
            Error::invalid(format!("{name} is not set: this is for commands that run in a session of Hotbed"))
        })
    };
    let answer = match ask {
        Ask::Help => {
            println!("{USAGE}");
            return Ok(());
        }
        Ask::Create(order) => {
            let body =
                serde_json::to_vec(order).map_err(|e| Error::permanent("write the order").caused_by(e))?;
            call(&env("HOTBED_URL")?, &env("HOTBED_TOKEN")?, "POST", &body)?
        }
        Ask::List => call(&env("HOTBED_URL")?, &env("HOTBED_TOKEN")?, "GET", b"")?,
    };
    let one = [answer];
    let all = one[0]["items"].as_array().map_or(&one[..], Vec::as_slice);
    for pull in all {
        println!("{}", line(pull));
    }
    // What was refused is an answer all the same, with the way forward; scripts tell it by the status.
    match one[0]["state"].as_str() {
        Some("refused") => Err(Error::denied(one[0]["error"].as_str().unwrap_or("refused").to_owned())),
        _ => Ok(()),
    }
}

fn line(pull: &Value) -> String {
    let word = |name: &str| pull[name].as_str().unwrap_or_default();
    match (word("url"), word("error")) {
        ("", error) => format!("{}\t{error}", word("state")),
        (url, "") => format!("{}\t{url}", word("state")),
        (url, error) => format!("{}\t{url}\t{error}", word("state")),
    }
}

/// One request on a connection of its own. An answer that is no success is an error in Hotbed's words.
fn call(base: &str, token: &str, method: &str, body: &[u8]) -> Result<Value> {
    let host = base.strip_prefix("http://").map(|h| h.trim_end_matches('/'));
    let host =
        host.ok_or_else(|| Error::invalid(format!("HOTBED_URL is `{base}`: expected http://HOST:PORT")))?;
    let failed = |e: std::io::Error| Error::unavailable(format!("ask Hotbed at {base}")).caused_by(e);
    let mut stream = TcpStream::connect(host).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let head = format!(
        "{method} /v1/pull-requests HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
        trace_header(std::env::var("TRACEPARENT").ok()),
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let (status, body) =
        read_answer(&answer).ok_or_else(|| Error::unavailable("Hotbed's answer broke off"))?;
    let value = serde_json::from_slice::<Value>(body);
    if !(200..300).contains(&status) {
        let said = value.ok().and_then(|v| v["detail"].as_str().map(str::to_owned));
        let said = said.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
        return Err(Error::denied(said));
    }
    value.map_err(|e| Error::permanent("read Hotbed's answer").caused_by(e))
}

/// Where this command stands in a trace, if Hotbed or a tool of the session has told it.
fn trace_header(told: Option<String>) -> String {
    let place = told.and_then(|text| text.parse::<TraceContext>().ok());
    place.map(|at| format!("traceparent: {}\r\n", at.traceparent())).unwrap_or_default()
}

/// Status and body. Hotbed says how long its answers are.
fn read_answer(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body = &answer[end + 4..];
    (body.len() == length).then_some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        let parse = |args: &[&str]| parse(args.iter().map(|a| (*a).to_owned()));
        let order = PullOrder {
            title: Some("Add a greeting".into()),
            body: Some("Why: …".into()),
            base: Some("main".into()),
            draft: true,
        };
        let all = ["create", "--title", "Add a greeting", "--body", "Why: …", "--base", "main", "--draft"];
        assert_eq!(parse(&all).unwrap(), Ask::Create(order));
        assert_eq!(parse(&["create"]).unwrap(), Ask::Create(PullOrder::default()));
        assert_eq!(parse(&["list"]).unwrap(), Ask::List);
        for bad in [&["create", "--title"][..], &["create", "x"], &["merge"], &["list", "x"]] {
            assert!(parse(bad).unwrap_err().to_string().contains("hotbed-agent pr create"), "{bad:?}");
        }
    }

    #[test]
    fn a_place_in_a_trace_is_told_and_nothing_else_is() {
        let place = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_header(Some(place.into())), format!("traceparent: {place}\r\n"));
        assert_eq!(trace_header(Some(format!("{place}\r\nX-Other: 1"))), "");
        assert_eq!(trace_header(None), "");
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(read_answer(whole), Some((201, &b"{}"[..])));
        for end in 0..whole.len() {
            assert_eq!(read_answer(&whole[..end]), None, "{end}");
        }
    }
}

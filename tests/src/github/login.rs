//! Sign-in: the web flow, the device flow, refresh. Refusals come with status 200, as at GitHub.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::rest::{Reply, now};
use super::state::{Approval, Bearer, DeviceCode, RefreshToken, State, Token, WebCode};
use super::{CLIENT_ID, CLIENT_SECRET, Inner};

type Fields = BTreeMap<String, String>;

/// Works off what lies below `/login`. `fields` are those of the query or the body.
pub(crate) fn answer(inner: &Inner, method: &str, path: &str, fields: &Fields) -> Reply {
    match (method, path) {
        ("GET", "/login/oauth/authorize") => authorize(inner, fields),
        ("POST", "/login/oauth/access_token") => {
            access_token(inner, fields).unwrap_or_else(|refused| refused)
        }
        ("POST", "/login/device/code") => device_code(inner, fields),
        ("GET", "/login/device") => {
            Reply::new(200, json!({"type": "the code in", "at": "POST /_standin/approve"}))
        }
        _ => Reply::error(404, "Not Found"),
    }
}

fn no(word: &str, description: &str) -> Reply {
    Reply::new(
        200,
        json!({"error": word, "error_description": description, "error_uri": "https://docs.github.com"}),
    )
}

fn get<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}

/// The page on which the user says yes. Here whoever is named by `login` has said so already.
fn authorize(inner: &Inner, fields: &Fields) -> Reply {
    let mut state = inner.state();
    let redirect = get(fields, "redirect_uri");
    if get(fields, "client_id") != CLIENT_ID || state.user(get(fields, "login")).is_none() {
        return Reply::error(404, "Not Found");
    }
    if !state.app.callbacks.iter().any(|c| redirect.starts_with(c.as_str())) {
        return Reply::error(400, "The redirect_uri is not associated with this application.");
    }
    let challenge =
        fields.get("code_challenge").filter(|_| get(fields, "code_challenge_method") == "S256").cloned();
    let code =
        WebCode { login: get(fields, "login").to_owned(), redirect_uri: redirect.to_owned(), challenge };
    let name = state.secret("")[..20].to_owned();
    state.codes.insert(name.clone(), code);
    let joint = if redirect.contains('?') { '&' } else { '?' };
    Reply::empty(302)
        .header("location", format!("{redirect}{joint}code={name}&state={}", get(fields, "state")))
}

fn device_code(inner: &Inner, fields: &Fields) -> Reply {
    let mut state = inner.state();
    if get(fields, "client_id") != CLIENT_ID {
        return Reply::error(404, "Not Found");
    }
    if !state.app.device_flow {
        return no("device_flow_disabled", "Device Flow must be explicitly enabled for this App");
    }
    let word = state.secret("").to_ascii_uppercase();
    let (code, user_code) = (state.secret("dev_"), format!("{}-{}", &word[..4], &word[4..8]));
    let expires_at = now(inner, &state) + SignedDuration::from_secs(900);
    let device = DeviceCode {
        user_code: user_code.clone(),
        approval: Approval::Pending,
        interval: 5,
        last_poll: None,
        expires_at,
    };
    state.devices.insert(code.clone(), device);
    Reply::new(
        200,
        json!({
            "device_code": code, "user_code": user_code, "verification_uri": format!("{}/login/device", inner.web),
            "expires_in": 900, "interval": 5,
        }),
    )
}

fn access_token(inner: &Inner, fields: &Fields) -> Result<Reply, Reply> {
    let mut state = inner.state();
    let at = now(inner, &state);
    if get(fields, "client_id") != CLIENT_ID {
        return Err(Reply::error(404, "Not Found"));
    }
    let with_secret = get(fields, "client_secret") == CLIENT_SECRET;
    let wrong_secret =
        || no("incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect.");
    let only = fields.get("repository_id").and_then(|id| id.parse().ok());
    match get(fields, "grant_type") {
        "urn:ietf:params:oauth:grant-type:device_code" => {
            by_device(&mut state, get(fields, "device_code"), only, at)
        }
        "refresh_token" => {
            let known = state.refresh.get(get(fields, "refresh_token")).cloned();
            let known = known.filter(|r| r.expires_at > at);
            let known = known.ok_or_else(|| {
                no("bad_refresh_token", "The refresh token passed is incorrect or expired.")
            })?;
            if !known.by_device && !with_secret {
                return Err(wrong_secret());
            }
            // Both old ones are dead from here on, whatever becomes of the answer.
            state.refresh.remove(get(fields, "refresh_token"));
            state.tokens.remove(&known.access);
            Ok(give(&mut state, &known.login, known.only, known.by_device, at))
        }
        "" | "authorization_code" if !with_secret => Err(wrong_secret()),
        "" | "authorization_code" => {
            let bad = || no("bad_verification_code", "The code passed is incorrect or expired.");
            let code = state.codes.remove(get(fields, "code")).ok_or_else(bad)?;
            if fields.get("redirect_uri").is_some_and(|r| *r != code.redirect_uri) {
                return Err(no(
                    "redirect_uri_mismatch",
                    "The redirect_uri MUST match the registered callback URL.",
                ));
            }
            let shown =
                BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, get(fields, "code_verifier").as_bytes()));
            if code.challenge.is_some_and(|wanted| wanted != shown) {
                return Err(bad());
            }
            Ok(give(&mut state, &code.login, only, false, at))
        }
        _ => Err(no("unsupported_grant_type", "The grant type is not supported.")),
    }
}

fn by_device(state: &mut State, code: &str, only: Option<u64>, at: Timestamp) -> Result<Reply, Reply> {
    let wrong = || no("incorrect_device_code", "The device_code provided is not valid.");
    let device = state.devices.get_mut(code).ok_or_else(wrong)?;
    if device.expires_at <= at {
        return Err(no("expired_token", "The device_code has expired."));
    }
    let early = device
        .last_poll
        .is_some_and(|last| at < last + SignedDuration::from_secs(device.interval.cast_signed()));
    device.last_poll = Some(at);
    if early {
        device.interval += 5;
        let mut reply = no("slow_down", "Too many requests have been made in the same timeframe.");
        if let Some(body) = &mut reply.body {
            body["interval"] = json!(device.interval);
        }
        return Err(reply);
    }
    match device.approval.clone() {
        Approval::Pending => Err(no("authorization_pending", "The authorization request is still pending.")),
        Approval::Denied => Err(no("access_denied", "The authorization request was denied.")),
        Approval::Approved(login) => {
            state.devices.remove(code);
            Ok(give(state, &login, only, true, at))
        }
    }
}

/// Gives a user's tokens.
fn give(state: &mut State, login: &str, only: Option<u64>, by_device: bool, at: Timestamp) -> Reply {
    let access = state.secret("ghu_");
    let life = state.app.token_life;
    let expires_at = state.app.expiring.then(|| at + life);
    let bearer = Bearer::User { login: login.to_owned(), only };
    state.tokens.insert(access.clone(), Token { bearer, expires_at });
    let mut body: Value = json!({"access_token": access, "token_type": "bearer", "scope": ""});
    if state.app.expiring {
        let refresh = state.secret("ghr_");
        let months = SignedDuration::from_secs(15_811_200);
        let kept = RefreshToken { login: login.to_owned(), access, only, by_device, expires_at: at + months };
        state.refresh.insert(refresh.clone(), kept);
        body["expires_in"] = json!(life.as_secs());
        body["refresh_token"] = json!(refresh);
        body["refresh_token_expires_in"] = json!(15_811_200);
    }
    Reply::new(200, body)
}

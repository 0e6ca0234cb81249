//! Who asks, and what that one may do where.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::rest::Reply;
use super::state::{Bearer, Grade, Repo, State};
use super::{APP_ID, CLIENT_ID, CLIENT_SECRET};

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    Nobody,
    App,
    /// The App as an OAuth client.
    Client,
    Token {
        token: String,
        bearer: Bearer,
    },
}

impl Who {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::App => "app",
            Self::Client => "client",
            Self::Token { bearer: Bearer::Installation { .. }, .. } => "installation",
            Self::Token { bearer: Bearer::User { .. }, .. } => "user",
            Self::Token { bearer: Bearer::Personal { .. }, .. } => "personal",
        }
    }

    /// The account that acts: a user's, or the App's bot.
    pub fn login(&self, state: &State) -> Option<String> {
        match self {
            Self::Token { bearer: Bearer::User { login, .. } | Bearer::Personal { login }, .. } => {
                Some(login.clone())
            }
            Self::Token { .. } => Some(format!("{}[bot]", state.app.slug)),
            _ => None,
        }
    }
}

/// What is wrong with an `Authorization` header: GitHub's words.
pub(crate) fn identify(state: &State, header: Option<&str>, now: Timestamp) -> Result<Who, Reply> {
    let Some(header) = header else { return Ok(Who::Nobody) };
    let (kind, value) = header.split_once(' ').unwrap_or(("", header));
    match kind.to_ascii_lowercase().as_str() {
        "bearer" | "token" if value.matches('.').count() == 2 && value.starts_with("eyJ") => {
            json_web_token(state, value, now).map(|()| Who::App)
        }
        "bearer" | "token" => by_token(state, value, now),
        "basic" => {
            let pair = BASE64_STANDARD
                .decode(value)
                .ok()
                .and_then(|b| String::from_utf8(b).ok())
                .unwrap_or_default();
            match pair.split_once(':') {
                Some((CLIENT_ID, CLIENT_SECRET)) => Ok(Who::Client),
                // Git: whatever the name, the token is the password.
                Some((_, token)) => by_token(state, token, now),
                None => Err(Reply::error(401, "Bad credentials")),
            }
        }
        _ => Err(Reply::error(401, "Bad credentials")),
    }
}

fn by_token(state: &State, token: &str, now: Timestamp) -> Result<Who, Reply> {
    let known = state.tokens.get(token).filter(|t| t.expires_at.is_none_or(|at| at > now));
    let known = known.ok_or_else(|| Reply::error(401, "Bad credentials"))?;
    if let Bearer::Installation { id, .. } = known.bearer
        && state.installations.get(&id).is_none_or(|i| i.suspended)
    {
        return Err(Reply::error(403, "This installation has been suspended"));
    }
    Ok(Who::Token { token: token.to_owned(), bearer: known.bearer.clone() })
}

fn json_web_token(state: &State, token: &str, now: Timestamp) -> Result<(), Reply> {
    let undecodable = || Reply::error(401, "A JSON web token could not be decoded");
    let key = DecodingKey::from_rsa_pem(state.app.public_pem.as_bytes()).expect("our own key");
    let mut rules = Validation::new(Algorithm::RS256);
    // The times are judged by the stand-in's clock, below.
    rules.validate_exp = false;
    rules.required_spec_claims.clear();
    let claims: BTreeMap<String, Value> =
        jsonwebtoken::decode(token, &key, &rules).map_err(|_| undecodable())?.claims;
    let number = |name: &str| claims.get(name).and_then(Value::as_i64);
    let issuer = claims.get("iss").map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    if !issuer.is_some_and(|i| i == APP_ID.to_string() || i == CLIENT_ID) {
        return Err(Reply::error(401, "'Issuer' claim ('iss') must be an Integer"));
    }
    let (Some(issued), Some(expires)) = (number("iat"), number("exp")) else { return Err(undecodable()) };
    let now = now.as_second();
    if expires <= now {
        return Err(Reply::error(
            401,
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        ));
    }
    if expires > now + 600 {
        return Err(Reply::error(401, "'Expiration time' claim ('exp') is too far in the future"));
    }
    if issued > now {
        return Err(Reply::error(
            401,
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        ));
    }
    Ok(())
}

/// A repository for somebody who wants to do `what` (a permission of Apps) to the degree `write` or not.
///
/// What somebody may not see is not there; what somebody may see and not do is forbidden.
pub(crate) fn reach<'a>(
    state: &'a State,
    who: &Who,
    full_name: &str,
    what: &str,
    write: bool,
) -> Result<&'a Repo, Reply> {
    let absent = || Reply::error(404, "Not Found");
    let repo =
        state.repo(full_name).ok_or_else(|| match state.moved.get(&full_name.to_ascii_lowercase()) {
            Some(id) => Reply::moved(*id),
            None => absent(),
        })?;
    let granted = |permissions: &BTreeMap<String, String>| match permissions.get(what).map(String::as_str) {
        Some("write" | "admin") => true,
        Some(_) => !write,
        None => false,
    };
    let personally = |login: &str| repo.collaborators.get(&login.to_ascii_lowercase()).copied();
    let enough = |grade: Grade| !write || grade >= Grade::Write;
    let forbidden = || Reply::error(403, "Resource not accessible by integration");
    let Who::Token { bearer, .. } = who else {
        return if repo.private || write { Err(absent()) } else { Ok(repo) };
    };
    match bearer {
        Bearer::Installation { id, repos, permissions } => {
            if repo.installation != Some(*id) || repos.as_ref().is_some_and(|r| !r.contains(&repo.id)) {
                return Err(absent());
            }
            if granted(permissions) { Ok(repo) } else { Err(forbidden()) }
        }
        Bearer::User { login, only } => {
            let grade = personally(login).ok_or_else(absent)?;
            if repo.installation.is_none() || only.is_some_and(|id| id != repo.id) {
                return Err(if repo.private { absent() } else { forbidden() });
            }
            if granted(&state.app.permissions) && enough(grade) { Ok(repo) } else { Err(forbidden()) }
        }
        Bearer::Personal { login } => {
            let grade = personally(login).ok_or_else(absent)?;
            let words = "Resource not accessible by personal access token";
            if enough(grade) { Ok(repo) } else { Err(Reply::error(403, words)) }
        }
    }
}

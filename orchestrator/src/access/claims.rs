//! What a token says, once its signature was found good: whether it is for this installation and of now, and what its
//! holder may do. Pure.

use config::{OidcSettings, RoleRule, UserRule};
use domain::{Reach, RepoName, Role};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::holder::{Credential, Holder, Person};

pub type Claims = Map<String, Value>;

/// The longest `sub` that is taken.
const LONGEST_SUB: usize = 255;

/// Whom a token makes of who shows it; in words why it opens nothing.
pub fn holder(settings: &OidcSettings, claims: &Claims, now: Timestamp) -> Result<Holder, String> {
    // What can't stand in a commit is left out.
    let text = |name: &str| {
        let text = claims.get(name).and_then(Value::as_str).map(str::trim)?;
        let good = (1..=200).contains(&text.len()) && !text.contains(['<', '>', '\n', '\r', '\0']);
        good.then(|| text.to_owned())
    };
    if claims.get("iss").and_then(Value::as_str) != Some(&settings.issuer) {
        return Err("this token is of another issuer".into());
    }
    let aud = claims.get("aud").map(|v| texts("aud", v)).unwrap_or_default();
    if !aud.iter().any(|a| settings.audiences.iter().any(|mine| mine == a)) {
        return Err("this token is for somebody else: its `aud` names no audience of `access.oidc`".into());
    }
    let expires_at = time(settings, claims, now)?;
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if sub.trim().is_empty() || sub.len() > LONGEST_SUB || sub.chars().any(char::is_control) {
        return Err("this token does not say whose it is: its `sub` is missing or not readable".into());
    }
    let role = role(&settings.roles, claims)
        .ok_or("this token is good, but no rule of `access.oidc` gives it a role")?;
    let name = format!("oidc:{}#{sub}", settings.issuer);
    Ok(Holder {
        credential: Credential::Token,
        space: name.clone(),
        name,
        role,
        reach: reach(settings, claims, role),
        person: Some(Person {
            login: find(claims, &settings.name_claim)
                .and_then(Value::as_str)
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .unwrap_or(sub)
                .to_owned(),
            name: text("name"),
            email: text("email"),
            may_name_others: settings.user == UserRule::Request || role > Role::Client,
        }),
        expires_at: Some(expires_at),
        closed: CancellationToken::new(),
    })
}

/// Until when it is good, with the leeway; an error when it is not, now.
fn time(settings: &OidcSettings, claims: &Claims, now: Timestamp) -> Result<Timestamp, String> {
    let at = |name: &str| match claims.get(name) {
        None => Ok(None),
        // Whole seconds or parts of them; what is out of all bounds is no time.
        Some(value) => value
            .as_f64()
            .and_then(|s| Timestamp::from_millisecond((s * 1000.0) as i64).ok().filter(|_| s.is_finite()))
            .map(Some)
            .ok_or_else(|| format!("this token's `{name}` is no time")),
    };
    let leeway = SignedDuration::try_from(settings.leeway).unwrap_or(SignedDuration::ZERO);
    let exp = at("exp")?.ok_or("this token has no end: its `exp` is missing")?;
    let end = exp.saturating_add(leeway).map_err(|_| "this token's `exp` is no time")?;
    if now >= end {
        return Err("this token has expired".into());
    }
    let early = now.saturating_add(leeway).unwrap_or(now);
    for name in ["nbf", "iat"] {
        if at(name)?.is_some_and(|t| t > early) {
            return Err(format!("this token is not good yet: its `{name}` is in the future"));
        }
    }
    Ok(end)
}

/// The highest role of the rules that fit.
fn role(rules: &[RoleRule], claims: &Claims) -> Option<Role> {
    let fits = |rule: &&RoleRule| {
        let found = find(claims, &rule.claim).map(|v| texts(&rule.claim, v)).unwrap_or_default();
        found.iter().any(|t| rule.values.iter().any(|v| v == t))
    };
    rules.iter().filter(fits).map(|rule| rule.role).max()
}

fn reach(settings: &OidcSettings, claims: &Claims, role: Role) -> Reach {
    let Some(name) = settings.repos_claim.as_ref().filter(|_| role < Role::Admin) else { return Reach::All };
    let named = find(claims, name).map(|v| texts(name, v)).unwrap_or_default();
    Reach::Only(named.iter().filter_map(|t| t.parse::<RepoName>().ok()).collect())
}

/// A claim by its name; where there is none of the whole name, dots lead into it.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// The texts of a claim: one, or a list; of scopes the words.
fn texts<'a>(name: &str, value: &'a Value) -> Vec<&'a str> {
    match value {
        Value::String(text) if matches!(name, "scope" | "scp") => text.split_ascii_whitespace().collect(),
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn settings() -> OidcSettings {
        let rule = |claim: &str, value: &str, role| RoleRule {
            claim: claim.into(),
            values: vec![value.into(), "also".into()],
            role,
        };
        OidcSettings {
            issuer: "https://login.example".into(),
            audiences: vec!["hotbed".into()],
            algorithms: Vec::new(),
            jwks: None,
            roles: vec![
                rule("groups", "developers", Role::Client),
                rule("realm.roles", "platform", Role::Operator),
                rule("scope", "hotbed:look", Role::ReadOnly),
                rule("https://acme.example/is", "root", Role::Admin),
            ],
            repos_claim: Some("repos".into()),
            name_claim: "preferred_username".into(),
            user: UserRule::Claim,
            leeway: std::time::Duration::from_secs(60),
        }
    }

    /// The claims of a good token, with some changed; `null` takes one away.
    fn judged(change: Value) -> Result<Holder, String> {
        let mut claims = json!({
            "iss": "https://login.example", "aud": "hotbed", "sub": "7", "exp": NOW + 600, "iat": NOW, "nbf": NOW,
            "groups": ["all", "developers"], "repos": ["acme/api", "no repo"], "preferred_username": "ada"
        });
        let claims = claims.as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            claims.insert(name.clone(), value.clone());
        }
        claims.retain(|_, v| !v.is_null());
        holder(&settings(), claims, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn a_good_token_makes_a_holder() {
        let ada = judged(json!({})).unwrap();
        assert_eq!((ada.name.as_str(), ada.role), ("oidc:https://login.example#7", Role::Client));
        assert_eq!(ada.reach, Reach::Only(["acme/api".parse().unwrap()].into()));
        assert_eq!(ada.expires_at, Timestamp::from_second(NOW + 660).ok());
        let person = ada.person.unwrap();
        assert_eq!((person.login.as_str(), person.may_name_others), ("ada", false));
        for good in [
            json!({"aud": ["else", "hotbed"]}),
            json!({"exp": NOW as f64 + 0.5}),
            json!({"exp": NOW - 59}),
            json!({"nbf": NOW + 60, "iat": NOW + 60}),
            json!({"nbf": null, "iat": null}),
        ] {
            judged(good.clone()).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
    }

    #[test]
    fn what_is_wrong_is_refused_in_words() {
        for (wrong, word) in [
            (json!({"iss": "https://login.example/"}), "issuer"),
            (json!({"iss": ["https://login.example"]}), "issuer"),
            (json!({"iss": null}), "issuer"),
            (json!({"aud": "other"}), "aud"),
            (json!({"aud": ["other"]}), "aud"),
            (json!({"aud": {"hotbed": 1}}), "aud"),
            (json!({"aud": null}), "aud"),
            (json!({"exp": null}), "exp"),
            (json!({"exp": "tomorrow"}), "exp"),
            (json!({"exp": NOW - 60}), "expired"),
            (json!({"exp": -1}), "expired"),
            (json!({"nbf": NOW + 61}), "nbf"),
            (json!({"iat": NOW + 61}), "iat"),
            (json!({"iat": true}), "iat"),
            (json!({"sub": null}), "sub"),
            (json!({"sub": "a\nb"}), "sub"),
            (json!({"sub": "x".repeat(256)}), "sub"),
            (json!({"groups": ["nobody"]}), "role"),
            (json!({"groups": "all developers"}), "role"),
            (json!({"groups": null}), "role"),
        ] {
            let why = judged(wrong.clone()).err().unwrap_or_else(|| panic!("{wrong} was taken"));
            assert!(why.contains(word), "{wrong}: {why}");
        }
    }

    #[test]
    fn the_highest_rule_that_fits_counts() {
        for (change, role) in [
            (json!({"groups": "developers"}), Role::Client),
            (json!({"groups": [], "scope": "openid hotbed:look"}), Role::ReadOnly),
            (json!({"realm": {"roles": ["platform"]}}), Role::Operator),
            (json!({"realm": {"roles": ["also"]}}), Role::Operator),
            (json!({"https://acme.example/is": "root"}), Role::Admin),
        ] {
            assert_eq!(judged(change.clone()).unwrap().role, role, "{change}");
        }
        // An admin is not held to repos; who lists none has none.
        assert_eq!(judged(json!({"https://acme.example/is": "root"})).unwrap().reach, Reach::All);
        assert_eq!(judged(json!({"repos": null})).unwrap().reach, Reach::Only(Default::default()));
        // Without a name the subject is who somebody is.
        let nameless = judged(json!({"preferred_username": null})).unwrap();
        assert_eq!(nameless.person.unwrap().login, "7");
    }
}

//! Whom a request is about: whoever it names, or whoever calls, where a token says who that is.

use domain::{Error, Identity, Result};

use super::Caller;
use super::types::User;
use crate::access::Person;
use crate::app::App;

/// The person of a request.
///
/// Errors: `Invalid`; `Denied` where somebody who may speak for himself alone names another one.
pub fn whoever(app: &App, caller: &Caller, named: Option<&User>) -> Result<Identity> {
    match (caller.person(), named) {
        (None, None) => {
            Err(Error::invalid("`user` is missing: expected whom this is for, such as {\"login\": \"ada\"}"))
        }
        (None, Some(user)) => identity(app, user),
        (Some(person), Some(user)) if person.may_name_others => identity(app, user),
        (Some(person), named) => {
            if let Some(user) = named {
                caller.must_be(&user.login)?;
            }
            // As the issuer names them: what a request says of them does not count.
            let Person { login, name, email, .. } = person.clone();
            identity(app, &User { login, name, email })
        }
    }
}

/// Who commits, from what a client says of its user. Both parts end up in a git header, so neither may break one.
fn identity(app: &App, user: &User) -> Result<Identity> {
    let login = user.login.trim();
    if login.is_empty() || login.len() > 100 || login.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid(format!(
            "`user.login` is `{login}`: expected 1 to 100 characters without blanks"
        )));
    }
    let clean = |field: &str, value: Option<&str>, default: String| {
        let value = value.map(str::trim).filter(|v| !v.is_empty()).map_or(default, str::to_owned);
        if value.len() > 200 || value.contains(['<', '>', '\n', '\r', '\0']) {
            return Err(Error::invalid(format!(
                "`user.{field}` holds `<`, `>`, a line break or over 200 characters"
            )));
        }
        Ok(value)
    };
    // What the forge counts as this account's own, where it is known without asking.
    let known = match &app.github {
        Some(github) => github.people.identity(login),
        None => Identity {
            login: login.to_owned(),
            name: login.to_owned(),
            email: format!("{login}@users.noreply.hotbed.invalid"),
        },
    };
    Ok(Identity {
        name: clean("name", user.name.as_deref(), known.name)?,
        email: clean("email", user.email.as_deref(), known.email)?,
        login: known.login,
    })
}

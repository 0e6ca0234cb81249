//! What tests do to the stand-in, from inside by methods, from outside (the demo, octokit) below `/_standin/`.

use std::sync::Arc;
use std::time::Duration;

use domain::RepoName;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::faults::{Fault, Mischief};
use super::rest::{Reply, end_grant, now};
use super::state::{Approval, Bearer, Grade, Limit, Token, key_pair};
use super::{Inner, Standin, hooks, objects};

impl Standin {
    /// Has something go wrong.
    pub fn fault(&self, fault: Fault) {
        self.inner.state().faults.push(fault);
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.inner.state().faults.clear();
    }

    /// Where webhooks go from now on.
    pub fn webhooks_to(&self, url: Option<&str>) {
        self.inner.state().app.webhook_url = url.map(str::to_owned);
    }

    /// Whether webhooks are held against octokit's schemas: whether `make setup` has installed them.
    pub fn judges_webhooks(&self) -> bool {
        self.inner.contract.judges_webhooks()
    }

    /// The bodies of the webhooks told so far, with event and the name of the delivery.
    pub fn webhooks(&self) -> Vec<(String, String, Value)> {
        let state = self.inner.state();
        state.deliveries.iter().map(|d| (d.event.clone(), d.guid.clone(), d.body.clone())).collect()
    }

    /// The user types the code in and says yes, or no.
    pub fn approve(&self, user_code: &str, login: Option<&str>) -> bool {
        approve(&self.inner, user_code, login)
    }

    /// The user opens GitHub's page at this address and says yes: where the browser is sent then.
    pub fn consent(&self, address: &str, login: &str) -> Option<String> {
        self.user(login);
        let mut fields = super::door::form(address.split_once('?')?.1);
        fields.insert("login".into(), login.to_owned());
        let reply = super::login::answer(&self.inner, "GET", "/login/oauth/authorize", &fields);
        reply.headers.into_iter().find(|(name, _)| name == "location").map(|(_, to)| to)
    }

    /// A personal access token for a user.
    pub fn personal_token(&self, login: &str) -> String {
        personal_token(&self.inner, login)
    }

    /// A token as the App has for a user after a sign-in.
    pub fn user_token(&self, login: &str) -> String {
        let mut state = self.inner.state();
        state.add_user(login);
        let token = state.secret("ghu_");
        state.tokens.insert(
            token.clone(),
            Token { bearer: Bearer::User { login: login.into(), only: None }, expires_at: None },
        );
        token
    }

    /// Ends all tokens now, as time would.
    pub fn expire_tokens(&self) {
        let mut state = self.inner.state();
        let at = now(&self.inner, &state);
        for token in state.tokens.values_mut() {
            token.expires_at = Some(at);
        }
    }

    /// Every token and code that was ever given out.
    pub fn secrets(&self) -> Vec<String> {
        self.inner.state().given.clone()
    }

    /// Which one repository each token of a user's reaches; `None` for all.
    pub fn reach_of_users(&self) -> Vec<Option<String>> {
        let state = self.inner.state();
        let name = |id: u64| state.repos.values().find(|r| r.id == id).map(|r| r.full_name.clone());
        let reach = state.tokens.values().filter_map(|t| match &t.bearer {
            Bearer::User { only, .. } => Some(only.and_then(name)),
            _ => None,
        });
        reach.collect()
    }

    /// Whether it is a token of a user's that is good now, or one to refresh it with.
    pub fn is_users(&self, secret: &str) -> bool {
        let state = self.inner.state();
        let bearer = state.tokens.get(secret).map(|t| &t.bearer);
        matches!(bearer, Some(Bearer::User { .. })) || state.refresh.contains_key(secret)
    }

    /// How many tokens of installations are good now.
    pub fn live_installation_tokens(&self) -> usize {
        let state = self.inner.state();
        let at = now(&self.inner, &state);
        let live = |t: &&Token| {
            matches!(t.bearer, Bearer::Installation { .. }) && t.expires_at.is_none_or(|e| e > at)
        };
        state.tokens.values().filter(live).count()
    }

    /// Makes all refresh tokens worthless.
    pub fn spoil_refresh_tokens(&self) {
        self.inner.state().refresh.clear();
    }

    /// The user takes the App's authorization back: tokens die, and GitHub says so.
    pub fn revoke_user(&self, login: &str) {
        end_grant(&mut self.inner.state(), login);
        let sender = objects::account(&self.inner, &self.inner.state(), login);
        hooks::tell(
            &self.inner,
            "github_app_authorization",
            Some("revoked"),
            json!({"action": "revoked", "sender": sender}),
            None,
        );
    }

    /// Another private key: what the old one signed is believed no longer. Answers the new one.
    pub fn rotate_key(&self) -> String {
        let (private, public) = key_pair();
        let mut state = self.inner.state();
        state.app.private_pem.clone_from(&private);
        state.app.public_pem = public;
        private
    }

    /// Sets GitHub's clock ahead of ours, or back.
    pub fn skew(&self, by: SignedDuration) {
        self.inner.state().skew = by;
    }

    /// From now on so many requests are left, until then.
    pub fn primary_limit(&self, left: i64, reset_in: Duration) {
        let mut state = self.inner.state();
        let reset = now(&self.inner, &state) + reset_in;
        state.limit = Some(Limit { left, reset });
    }

    /// Whether users' tokens expire: a setting of the App.
    pub fn expiring_user_tokens(&self, on: bool) {
        self.inner.state().app.expiring = on;
    }

    /// For how long users' tokens are good that are given from now on.
    pub fn user_tokens_last(&self, life: Duration) {
        self.inner.state().app.token_life = SignedDuration::try_from(life).expect("a life");
    }

    pub fn device_flow(&self, on: bool) {
        self.inner.state().app.device_flow = on;
    }

    pub fn drafts(&self, repo: &RepoName, on: bool) {
        self.inner.state().repo_mut(repo.as_str()).expect("a repository").drafts = on;
    }

    /// Mints tokens of this length, in the stateless form.
    pub fn token_length(&self, length: usize) {
        self.inner.state().token_length = Some(length);
    }

    /// From now on tokens have no shape by which they could be known.
    pub fn odd_tokens(&self) {
        self.inner.state().odd_tokens = true;
    }

    /// Takes the App off a repository, or puts it back.
    pub fn installed(&self, repo: &RepoName, on: bool) {
        let (body, event, action) = {
            let mut state = self.inner.state();
            let known = state
                .installations
                .values()
                .find(|i| i.account == repo.owner())
                .cloned()
                .expect("an installation");
            let id = on.then_some(known.id);
            let found = state.repo_mut(repo.as_str()).expect("a repository");
            found.installation = id;
            let stub = objects::repository_stub(found);
            let (added, removed) = if on { (vec![stub], vec![]) } else { (vec![], vec![stub]) };
            let action = if on { "added" } else { "removed" };
            let body = json!({
                "action": action, "installation": objects::installation(&self.inner, &state, &known),
                "repository_selection": "selected", "repositories_added": added, "repositories_removed": removed,
                "requester": null, "sender": objects::account(&self.inner, &state, repo.owner()),
            });
            (body, "installation_repositories", action)
        };
        hooks::tell(&self.inner, event, Some(action), body, None);
    }

    /// Suspends the App's installation of this owner, or takes that back.
    pub fn suspend(&self, owner: &str, on: bool) {
        let mut state = self.inner.state();
        state.installations.values_mut().filter(|i| i.account == owner).for_each(|i| i.suspended = on);
    }

    /// Renames a repository; its bare repository moves along, its old name answers 301.
    pub fn rename(&self, repo: &RepoName, name: &str) {
        let renamed = format!("{}/{name}", repo.owner());
        std::fs::rename(self.inner.repo_dir(repo.as_str()), self.inner.repo_dir(&renamed))
            .expect("a repository");
        let body = {
            let mut state = self.inner.state();
            let mut found = state.repos.remove(&repo.as_str().to_ascii_lowercase()).expect("a repository");
            found.full_name.clone_from(&renamed);
            state.moved.insert(repo.as_str().to_ascii_lowercase(), found.id);
            state
                .pulls
                .iter_mut()
                .filter(|p| p.repo == repo.as_str())
                .for_each(|p| p.repo.clone_from(&renamed));
            let body = json!({
                "action": "renamed", "changes": {"repository": {"name": {"from": repo.name()}}},
                "repository": objects::repository(&self.inner, &state, &found),
                "sender": objects::account(&self.inner, &state, repo.owner()),
            });
            state.repos.insert(renamed.to_ascii_lowercase(), found);
            body
        };
        hooks::tell(&self.inner, "repository", Some("renamed"), body, None);
    }
}

fn approve(inner: &Inner, user_code: &str, login: Option<&str>) -> bool {
    let mut state = inner.state();
    let known = login.is_none_or(|l| state.user(l).is_some());
    let Some(device) = state.devices.values_mut().find(|d| d.user_code == user_code).filter(|_| known) else {
        return false;
    };
    device.approval = login.map_or(Approval::Denied, |l| Approval::Approved(l.to_owned()));
    true
}

fn personal_token(inner: &Inner, login: &str) -> String {
    let mut state = inner.state();
    state.add_user(login);
    let token = state.secret("ghp_");
    let bearer = Bearer::Personal { login: login.into() };
    state.tokens.insert(token.clone(), Token { bearer, expires_at: None });
    token
}

/// `POST /_standin/{knob}` with JSON; for programs that can't call methods.
pub(crate) fn answer(inner: &Arc<Inner>, method: &str, knob: &str, body: Value) -> Reply {
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let done = || Reply::new(200, json!({}));
    match (method, knob) {
        ("GET", "violations") => Reply::new(200, json!(inner.state().violations)),
        ("GET", "private-key") => Reply::new(200, json!({"pem": inner.state().app.private_pem})),
        ("POST", "approve") => match approve(inner, text("user_code"), body["login"].as_str()) {
            true => done(),
            false => Reply::error(404, "no such code, or no such user"),
        },
        ("POST", "users") => {
            inner.state().add_user(text("login"));
            done()
        }
        ("POST", "personal-tokens") => {
            Reply::new(200, json!({"token": personal_token(inner, text("login"))}))
        }
        ("POST", "collaborators") => {
            let mut state = inner.state();
            state.add_user(text("login"));
            match state.repo_mut(text("repo")) {
                Some(repo) => {
                    repo.collaborators.insert(text("login").to_ascii_lowercase(), Grade::of(text("grade")));
                    done()
                }
                None => Reply::error(404, "no such repository"),
            }
        }
        ("POST", "webhooks") => {
            inner.state().app.webhook_url = body["url"].as_str().map(str::to_owned);
            done()
        }
        ("POST", "faults") => {
            let what = match (body["status"].as_u64(), body["delay_ms"].as_u64(), body["cut_after"].as_u64())
            {
                (Some(status), ..) if body["done"] == json!(true) => Mischief::DoneThen(status as u16),
                (Some(status), ..) => Mischief::Answer(status as u16, Vec::new(), text("body").to_owned()),
                (_, Some(ms), _) => Mischief::Delay(Duration::from_millis(ms)),
                (.., Some(bytes)) => Mischief::CutAfter(bytes),
                _ => Mischief::SecondaryLimit { retry_after: body["retry_after"].as_u64() },
            };
            let times = body["times"].as_u64().unwrap_or(1) as u32;
            inner.state().faults.push(Fault::many(times, text("method"), text("path"), what));
            done()
        }
        _ => Reply::error(404, "no such knob"),
    }
}

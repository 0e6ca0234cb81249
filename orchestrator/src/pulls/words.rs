//! What a pull request says: what was asked for, the rest drawn from its commits and from the repository's own template, in
//! the form that the repo's policy gives it. Pure.

use domain::ports::CommitLine;
use domain::{Asked, Branch, PullPolicy, SessionRecord, Words};

/// GitHub's own bounds, in characters.
const MAX_TITLE: usize = 256;
const MAX_BODY: usize = 65_536;
const CUT: &str = "\n\n(cut here)";

/// What it is drawn from.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub session: &'a SessionRecord,
    pub base: &'a Branch,
    /// What the branch has and its base has not, newest first.
    pub commits: &'a [CommitLine],
    /// The repository's `pull_request_template.md`.
    pub template: Option<&'a str>,
}

pub(super) fn words(asked: &Asked, policy: &PullPolicy, facts: &Facts<'_>) -> Words {
    let first = facts.commits.last();
    let drawn = first.map_or_else(|| facts.session.branch.to_string(), |c| c.subject.clone());
    let own_title = asked.title.clone().unwrap_or(drawn);
    let own_body = match (&asked.body, facts.template) {
        (Some(body), _) => body.clone(),
        (None, Some(template)) => template.to_owned(),
        // One commit says it all in the title.
        (None, None) if facts.commits.len() > 1 => list(facts.commits),
        (None, None) => String::new(),
    };
    let fill = |form: &str| fill(form, &own_title, &own_body, facts);
    // A title is a line.
    let title = fill(&policy.title).split_whitespace().collect::<Vec<_>>().join(" ");
    let body = fill(&policy.body);
    Words { title: title.chars().take(MAX_TITLE).collect(), body: bounded(body.trim_end()) }
}

/// Puts what is meant in the place of what stands in braces. What is filled in is not looked at again.
fn fill(form: &str, title: &str, body: &str, facts: &Facts<'_>) -> String {
    let session = facts.session;
    let mut text = String::new();
    let mut rest = form;
    while let Some(open) = rest.find('{') {
        text += &rest[..open];
        rest = &rest[open..];
        let name = rest[1..].split('}').next().filter(|name| rest.len() > name.len() + 1);
        let value = match name {
            Some("title") => title.to_owned(),
            Some("body") => body.to_owned(),
            Some("commits") => list(facts.commits),
            Some("session") => session.id.to_string(),
            Some("user") => session.user.login.clone(),
            Some("people") => people(session),
            Some("branch") => session.branch.to_string(),
            Some("base") => facts.base.to_string(),
            _ => {
                text.push('{');
                rest = &rest[1..];
                continue;
            }
        };
        text += &value;
        rest = &rest[name.map_or(1, |n| n.len() + 2)..];
    }
    text + rest
}

/// In the order in which they were made.
fn list(commits: &[CommitLine]) -> String {
    commits.iter().rev().map(|c| format!("- {}\n", c.subject)).collect()
}

fn people(session: &SessionRecord) -> String {
    let others = session.prompters.iter().map(|p| &p.who).filter(|who| who.login != session.user.login);
    let all: Vec<_> =
        std::iter::once(&session.user).chain(others).map(|who| format!("@{}", who.login)).collect();
    all.join(", ")
}

fn bounded(body: &str) -> String {
    if body.chars().count() <= MAX_BODY {
        return body.to_owned();
    }
    body.chars().take(MAX_BODY - CUT.len()).collect::<String>() + CUT
}

#[cfg(test)]
mod tests {
    use domain::{Identity, Launch, SessionId, SessionState, SyncState};
    use jiff::Timestamp;

    use super::*;

    fn who(login: &str) -> Identity {
        Identity { login: login.into(), name: login.into(), email: format!("{login}@example.com") }
    }

    fn session() -> SessionRecord {
        let now = Timestamp::UNIX_EPOCH;
        SessionRecord {
            id: SessionId::from_u128(7),
            repo: "acme/api".parse().unwrap(),
            state: SessionState::Active,
            launch: Launch::Warm,
            sandbox: None,
            image: None,
            user: who("ada"),
            prompters: Vec::new(),
            env: Default::default(),
            base: "main".parse().unwrap(),
            branch: "hotbed/x".parse().unwrap(),
            sync: SyncState::pending(),
            prepared: false,
            token_handed: false,
            snapshot: None,
            parent: None,
            warmup: None,
            created_at: now,
            started_at: None,
            expires_at: now,
            idle_end_seconds: None,
            deadline: now,
            ended_at: None,
            end: None,
            trouble: None,
            trace: None,
        }
    }

    fn commits(subjects: &[&str]) -> Vec<CommitLine> {
        let line = |(n, subject): (usize, &&str)| CommitLine {
            id: format!("{n:040x}").parse().unwrap(),
            subject: (*subject).to_owned(),
            author: "Ada".into(),
            committed_at: Timestamp::UNIX_EPOCH,
        };
        subjects.iter().enumerate().map(line).collect()
    }

    fn of(asked: Asked, policy: &PullPolicy, subjects: &[&str], template: Option<&str>) -> Words {
        let (session, commits) = (session(), commits(subjects));
        let base = "main".parse().unwrap();
        words(&asked, policy, &Facts { session: &session, base: &base, commits: &commits, template })
    }

    fn plain(title: &str, body: &str) -> Words {
        Words { title: title.into(), body: body.into() }
    }

    #[test]
    fn what_was_asked_for_counts_and_the_rest_is_drawn() {
        let policy = PullPolicy::default();
        let asked = Asked { title: Some("Greet".into()), body: Some("Why".into()) };
        assert_eq!(of(asked, &policy, &["b", "a"], Some("## What")), plain("Greet", "Why"));
        assert_eq!(of(Asked::default(), &policy, &["b", "a"], None), plain("a", "- a\n- b"));
        assert_eq!(of(Asked::default(), &policy, &["a"], None), plain("a", ""));
        assert_eq!(of(Asked::default(), &policy, &["a"], Some("## What\n")), plain("a", "## What"));
        assert_eq!(of(Asked::default(), &policy, &[], None), plain("hotbed/x", ""));
    }

    #[test]
    fn the_form_is_filled_once() {
        let policy = PullPolicy {
            title: "[{base}] {title}".into(),
            body: "{body}\n\n{ {unknown} {commits}By {people} in {session} on {branch} {".into(),
        };
        let asked = Asked { title: Some("{user}\nx".into()), body: Some("{title}".into()) };
        let words = of(asked, &policy, &["a"], None);
        assert_eq!(words.title, "[main] {user} x");
        let id = SessionId::from_u128(7);
        assert_eq!(words.body, format!("{{title}}\n\n{{ {{unknown}} - a\nBy @ada in {id} on hotbed/x {{"));
    }

    #[test]
    fn nothing_is_longer_than_the_forge_takes() {
        let asked = Asked { title: Some("ä".repeat(300)), body: Some("ö".repeat(70_000)) };
        let words = of(asked, &PullPolicy::default(), &[], None);
        assert_eq!(words.title.chars().count(), MAX_TITLE);
        assert_eq!(words.body.chars().count(), MAX_BODY);
        assert!(words.body.ends_with(CUT));
    }
}

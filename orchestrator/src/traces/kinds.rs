//! Every kind of span, with what it stands below and the attributes it may have. `docs/tracing.md` shows this table.

use std::fmt::Write as _;

use opentelemetry::trace::SpanKind;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Hotbed,
    /// The agent in the sandbox, as it tells Hotbed.
    Agent,
}

impl Scope {
    /// The name of the instrumentation scope.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hotbed => "hotbed",
            Self::Agent => "hotbed-agent",
        }
    }
}

/// A kind of span.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub scope: Scope,
    /// What it lasts for.
    pub what: &'static str,
    /// What it stands below.
    pub below: &'static str,
    pub attributes: &'static [&'static str],
    role: Role,
}

#[derive(Debug)]
enum Role {
    Internal,
    Server,
    /// It waits for an answer from elsewhere.
    Client,
}

impl Kind {
    pub(super) fn span_kind(&self) -> SpanKind {
        match self.role {
            Role::Internal => SpanKind::Internal,
            Role::Server => SpanKind::Server,
            Role::Client => SpanKind::Client,
        }
    }
}

pub const REPO: &str = "hotbed.repo";
pub const SESSION: &str = "hotbed.session";
pub const SANDBOX: &str = "hotbed.sandbox";
pub const WARMUP: &str = "hotbed.warmup";
pub const EXEC_ID: &str = "hotbed.exec";
pub const SNAPSHOT_ID: &str = "hotbed.snapshot";
pub const BUILD_ID: &str = "hotbed.build";
/// `warm`, `warmup`, `restore`, `cold`.
pub const LAUNCH: &str = "hotbed.launch";
/// How it came out: a word.
pub const RESULT: &str = "hotbed.result";
/// Which of its kind it was: a word.
pub const OF: &str = "hotbed.kind";
pub const LAG: &str = "hotbed.lag_commits";
pub const FETCHED: &str = "hotbed.fetched";
pub const EXIT_CODE: &str = "process.exit.code";
pub const SIGNAL: &str = "hotbed.signal";
pub const NUMBER: &str = "hotbed.pull_request.number";
pub const METHOD: &str = "http.request.method";
pub const ROUTE: &str = "http.route";
pub const STATUS: &str = "http.response.status_code";

/// A request of the API. Named by method and route.
pub static REQUEST: Kind = Kind {
    name: "{method} {route}",
    scope: Scope::Hotbed,
    what: "a request of the API, until the head of its answer",
    below: "the client's span; else the session's or the warm-up's place; else it begins a trace",
    attributes: &[METHOD, ROUTE, STATUS, SESSION, WARMUP],
    role: Role::Server,
};
pub static WARMUP_LIFE: Kind = Kind {
    name: "warmup",
    scope: Scope::Hotbed,
    what: "a warm-up, from its announcement to its end; written then",
    below: "the first announcement",
    attributes: &[WARMUP, REPO, SANDBOX, RESULT],
    role: Role::Internal,
};
pub static WARMUP_PREPARE: Kind = Kind {
    name: "warmup.prepare",
    scope: Scope::Hotbed,
    what: "one round of getting its member ready: reserved or made, and brought to the branch",
    below: "the first announcement",
    attributes: &[WARMUP, REPO],
    role: Role::Internal,
};
pub static CLAIM: Kind = Kind {
    name: "session.claim",
    scope: Scope::Hotbed,
    what: "the claim of a sandbox, until it is on disk",
    below: "the request that started the session",
    attributes: &[SESSION, REPO, LAUNCH, SANDBOX],
    role: Role::Internal,
};
pub static START: Kind = Kind {
    name: "sandbox.start",
    scope: Scope::Hotbed,
    what: "a cold start: its turn, its place in the budget, the engine, until its agent answers",
    below: "the session's place",
    attributes: &[SESSION, SANDBOX],
    role: Role::Internal,
};
pub static BIND: Kind = Kind {
    name: "session.bind",
    scope: Scope::Hotbed,
    what: "telling the agent whose it is",
    below: "the session's place",
    attributes: &[SESSION, SANDBOX],
    role: Role::Client,
};
pub static SYNC: Kind = Kind {
    name: "session.sync",
    scope: Scope::Hotbed,
    what: "bringing the tree to the tip of its branch, with what its image does between sync and gate",
    below: "the session's place",
    attributes: &[SESSION, RESULT, LAG],
    role: Role::Internal,
};
pub static REFRESH: Kind = Kind {
    name: "git.refresh",
    scope: Scope::Hotbed,
    what: "bringing Hotbed's mirror up to date with upstream",
    below: "`session.sync`, `warmup.prepare`",
    attributes: &[REPO],
    role: Role::Client,
};
pub static GATE: Kind = Kind {
    name: "session.gate",
    scope: Scope::Hotbed,
    what: "the write gate shut, from the session's beginning until it opens",
    below: "the session's place",
    attributes: &[SESSION, LAUNCH],
    role: Role::Internal,
};
pub static EXEC: Kind = Kind {
    name: "exec",
    scope: Scope::Hotbed,
    what: "a command: until it has ended where the client waits, else until it has started",
    below: "the request",
    attributes: &[SESSION, EXEC_ID, EXIT_CODE, SIGNAL],
    role: Role::Client,
};
pub static FETCH: Kind = Kind {
    name: "git.fetch",
    scope: Scope::Hotbed,
    what: "what a sandbox fetches from Hotbed",
    below: "the session's place",
    attributes: &[SESSION, REPO, STATUS],
    role: Role::Server,
};
pub static PUSH: Kind = Kind {
    name: "git.push",
    scope: Scope::Hotbed,
    what: "what a sandbox pushes through Hotbed, upstream included",
    below: "the session's place",
    attributes: &[SESSION, REPO, STATUS],
    role: Role::Server,
};
pub static PULL_REQUEST: Kind = Kind {
    name: "pull_request.open",
    scope: Scope::Hotbed,
    what: "asking the forge for a pull request, each time it is asked",
    below: "the request for it, or the command in the sandbox that asked; kept with it, so after a restart too",
    attributes: &[SESSION, REPO, RESULT, NUMBER],
    role: Role::Client,
};
pub static SNAPSHOT: Kind = Kind {
    name: "session.snapshot",
    scope: Scope::Hotbed,
    what: "a capture of the session's filesystem",
    below: "the session's place",
    attributes: &[SESSION, SNAPSHOT_ID, OF],
    role: Role::Client,
};
pub static END: Kind = Kind {
    name: "session.end",
    scope: Scope::Hotbed,
    what: "one round of ending a session: quiet, captured, released",
    below: "the session's place",
    attributes: &[SESSION],
    role: Role::Internal,
};
pub static SESSION_LIFE: Kind = Kind {
    name: "session",
    scope: Scope::Hotbed,
    what: "a session, from its claim to its end; written then",
    below: "the session's place",
    attributes: &[SESSION, REPO, LAUNCH, RESULT],
    role: Role::Internal,
};
pub static BUILD: Kind = Kind {
    name: "build",
    scope: Scope::Hotbed,
    what: "a build of an image, from its start to its end",
    below: "nothing: it begins a trace",
    attributes: &[BUILD_ID, REPO, RESULT],
    role: Role::Internal,
};
pub static BUILD_PHASE: Kind = Kind {
    name: "build.phase",
    scope: Scope::Hotbed,
    what: "one phase of a build",
    below: "`build`",
    attributes: &[BUILD_ID, OF],
    role: Role::Internal,
};
pub static AGENT_SYNC: Kind = Kind {
    name: "agent.sync",
    scope: Scope::Agent,
    what: "the agent's part of a sync",
    below: "`session.sync`",
    attributes: &[SANDBOX, FETCHED],
    role: Role::Server,
};
pub static AGENT_FETCH: Kind = Kind {
    name: "agent.fetch",
    scope: Scope::Agent,
    what: "git fetch in the sandbox",
    below: "`agent.sync`",
    attributes: &[],
    role: Role::Internal,
};
pub static AGENT_CHECKOUT: Kind = Kind {
    name: "agent.checkout",
    scope: Scope::Agent,
    what: "git checkout in the sandbox, and the look at HEAD",
    below: "`agent.sync`",
    attributes: &[],
    role: Role::Internal,
};
pub static AGENT_EXEC: Kind = Kind {
    name: "agent.exec",
    scope: Scope::Agent,
    what: "the process of a command, from its start to its exit",
    below: "`exec`",
    attributes: &[SANDBOX, EXEC_ID, EXIT_CODE],
    role: Role::Server,
};

/// In the order of a session's life.
pub static ALL: [&Kind; 22] = [
    &REQUEST,
    &WARMUP_LIFE,
    &WARMUP_PREPARE,
    &CLAIM,
    &START,
    &BIND,
    &SYNC,
    &REFRESH,
    &AGENT_SYNC,
    &AGENT_FETCH,
    &AGENT_CHECKOUT,
    &GATE,
    &EXEC,
    &AGENT_EXEC,
    &FETCH,
    &PUSH,
    &PULL_REQUEST,
    &SNAPSHOT,
    &END,
    &SESSION_LIFE,
    &BUILD,
    &BUILD_PHASE,
];

/// The table of the documentation.
pub fn reference() -> String {
    let mut out =
        String::from("| span | scope | lasts for | stands below | attributes |\n|---|---|---|---|---|\n");
    for kind in ALL {
        let attributes: Vec<_> = kind.attributes.iter().map(|a| format!("`{a}`")).collect();
        let _ = writeln!(
            out,
            "| `{}` | `{}` | {} | {} | {} |",
            kind.name,
            kind.scope.as_str(),
            kind.what,
            kind.below,
            attributes.join(" ")
        );
    }
    out
}

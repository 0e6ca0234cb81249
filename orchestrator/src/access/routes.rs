//! What each route asks of whoever calls it: the least role, and what it is about. A route that is not here is open to
//! nobody; `docs/access.md` is made of it, and a test holds it against the API's own description.

use std::fmt::Write as _;

use domain::Role;

/// What a route is about, and so what a key that is limited to repos has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// No repo: open to limited keys, too.
    Nothing,
    /// All of them at once: closed to limited keys.
    Installation,
    /// The repo in the path.
    Repo,
    /// What the path has the id of.
    Session,
    Build,
    Image,
    Snapshot,
    Warmup,
    /// What its handler finds out: lists show what the key may see, what is made is of a repo that it may use.
    Found,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub method: &'static str,
    /// As it is written down, with its placeholders.
    pub path: &'static str,
    pub least: Role,
    pub about: About,
}

const fn route(method: &'static str, path: &'static str, least: Role, about: About) -> Route {
    Route { method, path, least, about }
}

/// Every route that asks for a key.
pub const TABLE: &[Route] = {
    use About::{Build, Found, Image, Installation, Nothing, Repo, Session, Snapshot, Warmup};
    use Role::{Admin, Client, Operator, ReadOnly};
    &[
        route("GET", "/metrics", ReadOnly, Installation),
        route("GET", "/v1/openapi.json", ReadOnly, Nothing),
        route("GET", "/v1/whoami", ReadOnly, Nothing),
        route("GET", "/v1/stats", ReadOnly, Installation),
        route("GET", "/v1/events", ReadOnly, Found),
        route("GET", "/v1/collectable", ReadOnly, Installation),
        route("GET", "/v1/repos", ReadOnly, Found),
        route("GET", "/v1/repos/{owner}/{name}", ReadOnly, Repo),
        route("GET", "/v1/repos/{owner}/{name}/builds", ReadOnly, Repo),
        route("POST", "/v1/repos/{owner}/{name}/builds", Operator, Repo),
        route("POST", "/v1/repos/{owner}/{name}/rollback", Operator, Repo),
        route("GET", "/v1/builds/{id}", ReadOnly, Build),
        route("GET", "/v1/builds/{id}/log", ReadOnly, Build),
        route("GET", "/v1/images", ReadOnly, Found),
        route("GET", "/v1/images/{id}", ReadOnly, Image),
        // It has the engine read two images whole.
        route("GET", "/v1/images/{id}/diff", Operator, Image),
        route("POST", "/v1/images/{id}/promote", Operator, Image),
        route("PUT", "/v1/images/{id}/pin", Operator, Image),
        route("DELETE", "/v1/images/{id}/pin", Operator, Image),
        route("GET", "/v1/pools", ReadOnly, Found),
        route("GET", "/v1/pools/{owner}/{name}", ReadOnly, Repo),
        route("GET", "/v1/pools/{owner}/{name}/arrivals", ReadOnly, Repo),
        route("PUT", "/v1/pools/{owner}/{name}/order", Operator, Repo),
        route("DELETE", "/v1/pools/{owner}/{name}/order", Operator, Repo),
        route("POST", "/v1/warmups", Client, Found),
        route("GET", "/v1/warmups", ReadOnly, Found),
        route("GET", "/v1/warmups/{id}", ReadOnly, Warmup),
        route("DELETE", "/v1/warmups/{id}", Client, Warmup),
        route("POST", "/v1/warmups/tokens", Client, Found),
        route("POST", "/v1/sessions", Client, Found),
        route("GET", "/v1/sessions", ReadOnly, Found),
        route("GET", "/v1/sessions/{id}", ReadOnly, Session),
        route("DELETE", "/v1/sessions/{id}", Client, Session),
        route("GET", "/v1/sessions/{id}/events", ReadOnly, Session),
        route("GET", "/v1/sessions/{id}/sync", ReadOnly, Session),
        route("POST", "/v1/sessions/{id}/sync", Client, Session),
        route("POST", "/v1/sessions/{id}/prompts", Client, Session),
        route("POST", "/v1/sessions/{id}/pause", Client, Session),
        route("POST", "/v1/sessions/{id}/resume", Client, Session),
        route("POST", "/v1/sessions/{id}/extend", Client, Session),
        route("POST", "/v1/sessions/{id}/fork", Client, Session),
        route("PUT", "/v1/sessions/{id}/user-token", Client, Session),
        // Files and output are the source and whatever is printed, secrets perhaps: nothing for who only looks.
        route("POST", "/v1/sessions/{id}/exec", Client, Session),
        route("GET", "/v1/sessions/{id}/exec", Client, Session),
        route("GET", "/v1/sessions/{id}/exec/{exec}", Client, Session),
        route("GET", "/v1/sessions/{id}/exec/{exec}/output", Client, Session),
        route("POST", "/v1/sessions/{id}/exec/{exec}/input", Client, Session),
        route("POST", "/v1/sessions/{id}/exec/{exec}/signal", Client, Session),
        route("POST", "/v1/sessions/{id}/exec/{exec}/resize", Client, Session),
        route("GET", "/v1/sessions/{id}/terminal", Client, Session),
        route("GET", "/v1/sessions/{id}/files", Client, Session),
        route("GET", "/v1/sessions/{id}/files/{*path}", Client, Session),
        route("PUT", "/v1/sessions/{id}/files/{*path}", Client, Session),
        route("DELETE", "/v1/sessions/{id}/files/{*path}", Client, Session),
        route("POST", "/v1/sessions/{id}/snapshots", Client, Session),
        route("GET", "/v1/snapshots", ReadOnly, Found),
        route("GET", "/v1/snapshots/{id}", ReadOnly, Snapshot),
        route("DELETE", "/v1/snapshots/{id}", Client, Snapshot),
        route("POST", "/v1/sessions/{id}/pull-requests", Client, Session),
        route("GET", "/v1/sessions/{id}/pull-requests", ReadOnly, Session),
        route("GET", "/v1/pull-requests/{owner}/{name}/{number}", ReadOnly, Repo),
        route("POST", "/v1/sign-ins/device", Client, Nothing),
        route("POST", "/v1/sign-ins/device/{id}", Client, Nothing),
        route("POST", "/v1/sign-ins/web", Client, Nothing),
        route("POST", "/v1/sign-ins/web/finish", Client, Nothing),
        route("GET", "/v1/users", Client, Nothing),
        route("GET", "/v1/users/{login}", Client, Nothing),
        route("DELETE", "/v1/users/{login}", Client, Nothing),
        route("PUT", "/v1/users/{login}/token", Client, Nothing),
        route("POST", "/v1/keys", Admin, Installation),
        route("GET", "/v1/keys", Admin, Installation),
        route("DELETE", "/v1/keys/{id}", Admin, Installation),
        route("GET", "/v1/audit", Admin, Installation),
    ]
};

/// Routes that ask for no key: what is sent there is signed.
pub const SIGNED: &[(&str, &str)] = &[("POST", "/v1/webhooks/github")];

/// How the table knows a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Route(&'static Route),
    /// The path takes other methods.
    OtherMethods,
    /// Open to nobody.
    Nowhere,
}

/// Looks a request up by its method and the path that it matched.
pub fn find(method: &str, path: &str) -> Found {
    // What answers a GET answers a HEAD.
    let method = if method == "HEAD" { "GET" } else { method };
    let mut found = Found::Nowhere;
    for route in TABLE.iter().filter(|r| r.path == path) {
        if route.method == method {
            return Found::Route(route);
        }
        found = Found::OtherMethods;
    }
    found
}

/// `docs/access.md`.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    for route in TABLE {
        let limited = match route.about {
            About::Nothing => "open",
            About::Installation => "closed: 403",
            About::Repo => "its own repos; else 404",
            About::Found => "shows and makes what is of its own repos",
            _ => "what is of its own repos; else 404",
        };
        let _ = writeln!(out, "| `{}` | `{}` | {} | {limited} |", route.method, route.path, route.least);
    }
    out
}

const HEAD: &str = "\
# Who may call what

Made of the code (`orchestrator/src/access/routes.rs`); `UPDATE=1 cargo test -p tests --test it access::` writes this page anew.
What the roles are for is in [security.md](security.md). A role may do what those before it may: `read-only`, `client`, `operator`,
`admin`. Without a key: `/healthz`, `/readyz`, and `/v1/webhooks/github`, which is signed. A route that is not listed is open to
nobody.

| method | route | least role | a key that is limited to repos |
|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_stands_twice() {
        let mut all: Vec<_> = TABLE.iter().map(|r| (r.path, r.method)).collect();
        all.sort_unstable();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    }

    #[test]
    fn what_is_not_there_is_nowhere() {
        assert!(matches!(find("HEAD", "/v1/repos"), Found::Route(r) if r.least == Role::ReadOnly));
        assert_eq!(find("PATCH", "/v1/repos"), Found::OtherMethods);
        assert_eq!(find("GET", "/v1/secrets"), Found::Nowhere);
        assert_eq!(find("GET", ""), Found::Nowhere);
    }
}

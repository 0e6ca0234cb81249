//! The reference of all keys, made of the schema: `docs/configuration.md`. A test holds file and function together,
//! and parses every example.

use std::fmt::Write;

use serde_json::Value;

use crate::de::keys_of;
use crate::phases::{CommandSection, ReadySection, ServiceSection};
use crate::schema::schema;
use crate::sections;

/// One table of the reference.
pub(crate) struct Section {
    /// Its name in the schema; empty for the file.
    def: &'static str,
    /// Where it stands.
    pub title: &'static str,
    /// Its keys in the order of the type; none for a choice.
    keys: &'static [&'static str],
    /// A whole file that uses it.
    pub example: &'static str,
}

pub(crate) fn sections() -> Vec<Section> {
    let section = |def, title, keys, example| Section { def, title, keys, example };
    vec![
        section(
            "",
            "The file",
            keys_of::<sections::File>(),
            "listen: 127.0.0.1:7070\nstate_dir: /var/lib/hotbed\nrepos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n",
        ),
        section("backend", "backend", &[], "backend: { docker: {} }\nrepos: []\n"),
        section(
            "docker",
            "backend.docker",
            keys_of::<sections::DockerSection>(),
            "backend:\n  docker:\n    host: unix:///var/run/docker.sock\n    runtime: runsc\nrepos: []\n",
        ),
        section(
            "kubernetes",
            "backend.kubernetes",
            keys_of::<sections::KubernetesSection>(),
            "backend: { kubernetes: { namespace: hotbed } }\nrepos: []\n",
        ),
        section(
            "registry",
            "registry",
            keys_of::<sections::RegistrySection>(),
            "registry:\n  push: registry.example/hotbed\n  user: hotbed\n  password: { file: /etc/hotbed/registry }\nrepos: []\n",
        ),
        section("forge", "forge", &[], "forge: local\nrepos: []\n"),
        section(
            "github",
            "forge.github",
            keys_of::<sections::GithubSection>(),
            "forge:\n  github:\n    app_id: 1\n    private_key: { file: /etc/hotbed/app.pem }\n    webhook_secret: { env: HOOK }\nrepos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n",
        ),
        section(
            "github users",
            "forge.github.users",
            keys_of::<sections::GithubUsersSection>(),
            "forge:\n  github:\n    app_id: 1\n    private_key: { file: /etc/hotbed/app.pem }\n    webhook_secret: { env: HOOK }\n    users:\n      client_id: Iv1.0123456789abcdef\n      client_secret: { env: CLIENT_SECRET }\n      vault_key: { file: /etc/hotbed/vault.key }\nrepos: []\n",
        ),
        section(
            "budget",
            "budget",
            keys_of::<sections::BudgetSection>(),
            "budget: { memory: 48GiB, cpus: 24 }\nrepos: []\n",
        ),
        section(
            "builds",
            "builds",
            keys_of::<sections::BuildsSection>(),
            "builds: { at_once: 4 }\nrepos: []\n",
        ),
        section(
            "retention",
            "retention",
            keys_of::<sections::RetentionSection>(),
            "retention: { build_log_age: 14d, session_log_age: 30d, removed_repos: 2d }\nrepos: []\n",
        ),
        section(
            "tls",
            "tls",
            keys_of::<sections::TlsSection>(),
            "tls: { certificate: /etc/hotbed/tls.pem, key: /etc/hotbed/tls.key }\nrepos: []\n",
        ),
        section(
            "access",
            "access",
            keys_of::<sections::AccessSection>(),
            "access: { per_second: 500, origins: [ \"https://ui.example.com\" ] }\nrepos: []\n",
        ),
        section(
            "oidc",
            "access.oidc[]",
            keys_of::<sections::OidcSection>(),
            "access:\n  oidc:\n    - issuer: https://login.example.com\n      audiences: [hotbed]\n      roles:\n        - { claim: groups, values: [platform], role: admin }\n        - { claim: groups, values: [developers], role: client }\n      name_claim: github_login\nrepos: []\n",
        ),
        section(
            "role_rule",
            "access.oidc[].roles[]",
            keys_of::<sections::RoleRuleSection>(),
            "access:\n  oidc:\n    - issuer: https://ci.example.com\n      audiences: [hotbed]\n      roles: [ { claim: project_path, values: [acme/api, acme/web], role: client } ]\n      repos_claim: hotbed_repos\nrepos: []\n",
        ),
        section(
            "quotas",
            "quotas",
            keys_of::<sections::QuotasSection>(),
            "quotas: { sessions_per_user: 20, sessions_per_repo: 200 }\nrepos: []\n",
        ),
        section(
            "warmups",
            "warmups",
            keys_of::<sections::WarmupsSection>(),
            "warmups: { live: 64, per_second: 2000, origins: [ \"https://ui.example.com\" ] }\nrepos: []\n",
        ),
        section(
            "tracing",
            "tracing",
            keys_of::<sections::TracingSection>(),
            "tracing:\n  endpoint: http://collector.internal:4318\n  sample: 0.2\n  headers: { authorization: { file: /etc/hotbed/otlp } }\nrepos: []\n",
        ),
        section(
            "defaults",
            "defaults",
            keys_of::<sections::DefaultsSection>(),
            "defaults:\n  image: { base: debian:bookworm }\n  session: { timeout: 4h, idle: { end: 45m } }\nrepos:\n  - { name: acme/api, url: \"https://github.com/acme/api.git\" }\n  - { name: acme/web, url: \"https://github.com/acme/web.git\" }\n",
        ),
        section(
            "repo",
            "repos[]",
            keys_of::<sections::RepoSection>(),
            "repos:\n  - name: acme/api\n    url: git@github.com:acme/api.git\n    branch: develop\n    image: { base: debian:bookworm }\n    network: none\n",
        ),
        section(
            "image",
            "repos[].image",
            keys_of::<sections::ImageSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image:\n      base: debian:bookworm\n      schedule: \"0 3 * * mon-fri\"\n      timezone: Europe/Berlin\n      setup: [ \"pip install -e .[dev]\" ]\n      update: [ \"pip install -e .[dev]\" ]\n      warm: [ \"pytest -q -x\" ]\n      verify: \"python -c 'import api'\"\n      env: { LANG: C.UTF-8 }\n      secrets: { PIP_INDEX_URL: { file: /etc/hotbed/pip-index } }\n",
        ),
        section(
            "canary",
            "repos[].image.canary",
            keys_of::<sections::CanarySection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm, canary: { share: 0.2, sessions: 5, longest: 20m }, demote_after: 3 }\n",
        ),
        section(
            "command",
            "repos[].image.setup[]",
            keys_of::<CommandSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image:\n      base: debian:bookworm\n      setup:\n        - apt-get install -y --no-install-recommends postgresql\n        - { run: createdb api, user: postgres, timeout: 2m }\n        - { run: npm ci, workdir: web, env: { CI: \"1\" } }\n        - { run: npm ci, workdir: private, secrets: [NPM_TOKEN] }\n      secrets: { NPM_TOKEN: { env: HOTBED_NPM_TOKEN } }\n      warm:\n        - { run: npm test, workdir: web, required: true }\n",
        ),
        section(
            "service",
            "repos[].image.services[]",
            keys_of::<ServiceSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image:\n      base: { packages: { suite: bookworm, include: [git, postgresql] } }\n      services:\n        - name: db\n          run: /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main\n          user: postgres\n          ready: { port: 5432, timeout: 30s }\n",
        ),
        section(
            "ready",
            "repos[].image.services[].ready",
            keys_of::<ReadySection>(),
            "repos:\n  - name: acme/web\n    url: https://github.com/acme/web.git\n    image:\n      base: debian:bookworm\n      services:\n        - { name: web, run: npm run dev, ready: { log: \"compiled successfully\", port: 3000 } }\n        - { name: queue, run: redis-server, ready: { command: redis-cli ping } }\n",
        ),
        section(
            "base",
            "repos[].image.base",
            &[],
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n  - name: acme/tools\n    url: https://github.com/acme/tools.git\n    image: { base: { packages: { suite: bookworm, include: [git, python3] } } }\n  - name: acme/web\n    url: https://github.com/acme/web.git\n    image: { base: { devcontainer: .devcontainer/devcontainer.json } }\n",
        ),
        section(
            "packages",
            "repos[].image.base.packages",
            keys_of::<sections::PackagesSection>(),
            "repos:\n  - name: acme/tools\n    url: /srv/git/tools.git\n    image:\n      base:\n        packages: { suite: bookworm, include: [git, python3] }\n",
        ),
        section(
            "dockerfile",
            "repos[].image.base.dockerfile",
            keys_of::<sections::DockerfileSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image:\n      base:\n        dockerfile: { path: docker/dev.Dockerfile, target: dev, args: { NODE: \"22\" } }\n",
        ),
        section(
            "repository_file",
            "repos[].image.repository_file",
            keys_of::<sections::RepositoryFileSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image:\n      base: debian:bookworm\n      repository_file: { wins: repository, may_set: [env, setup, update, warm, verify] }\n",
        ),
        section(
            "pool",
            "repos[].pool",
            keys_of::<sections::PoolSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    pool: { min: 2, max: 20, member_max_age: 6h, warmup_ttl: 2m, fresh_within: 1m }\n",
        ),
        section(
            "window",
            "repos[].pool.schedule[]",
            keys_of::<sections::WindowSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    pool:\n      schedule: [ { days: mon-fri, hours: \"08:00-19:00\", timezone: Europe/Berlin, min: 4 } ]\n",
        ),
        section(
            "pushes",
            "repos[].pushes",
            keys_of::<sections::PushesSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    pushes: { max_file: 10MiB, secrets: refuse, expected_in: [ \"tests/keys/**\" ] }\n",
        ),
        section(
            "pull_requests",
            "repos[].pull_requests",
            keys_of::<sections::PullRequestsSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    pull_requests: { title: \"[agent] {title}\", body: \"{body}\\n\\nFor {people}, in session {session}.\" }\n",
        ),
        section(
            "session",
            "repos[].session",
            keys_of::<sections::SessionSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    session: { timeout: 8h, branch_pattern: \"agent/{session}\" }\n",
        ),
        section(
            "idle",
            "repos[].session.idle",
            keys_of::<sections::IdleSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    session: { idle: { end: 45m } }\n",
        ),
        section(
            "resources",
            "repos[].resources",
            keys_of::<sections::ResourcesSection>(),
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    resources: { cpus: 0.5, memory: 512MiB, pids: 256 }\n",
        ),
        section(
            "network",
            "repos[].network",
            &[],
            "repos:\n  - name: acme/api\n    url: https://github.com/acme/api.git\n    image: { base: debian:bookworm }\n    network: { use: ci-net }\n",
        ),
    ]
}

const HEAD: &str = "# Configuration: `hotbed.yaml`

<!-- Made by `config::Config::reference()`; a test compares. Do not edit: change the types in config/src/sections.rs. -->

One file, checked whole before anything starts: `hotbed config check`. A JSON Schema for editors comes from
`hotbed config schema`. Unknown keys, duplicate keys and keys without a value are errors. Every error names file, line,
column, key path, the value and what was expected, and all of them come at once. A changed file is read again when it
changes or on SIGHUP; a bad one is refused and the old one stays in force.

Values:

| written | means |
|---|---|
| `45s`, `30m`, `4h`, `1h30m`, `7d` | a duration; a number without a unit is refused |
| `512MiB`, `4GiB`, `1GB` | a size in whole units of KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (of 1000) |
| `2`, `0.5` | processors |
| `{ env: NAME }`, `{ file: PATH }` | a secret; the secret itself never stands in this file, and neither does a credential in an address |
| `\"*/30 * * * *\"`, `@daily` | cron, five fields; in quotes, since `*` begins an alias in YAML |
| `\"08:00-19:00\"`, `mon-fri` | hours and days |

Paths in this file that are not absolute are below its directory. At most 1MiB, 32 levels and 50000 values.
Merge keys (`<<`) and tags (`!…`) are not used; anchors and aliases are.
";

pub(crate) fn reference() -> String {
    let schema = schema();
    let mut out = HEAD.to_owned();
    for section in sections() {
        let def = if section.def.is_empty() { &schema } else { &schema["$defs"][section.def] };
        let title =
            if section.def.is_empty() { section.title.to_owned() } else { format!("`{}`", section.title) };
        // Writing to a string does not fail.
        let _ = writeln!(out, "\n## {title}\n");
        if !section.def.is_empty() {
            let _ = writeln!(out, "{}\n", text(&def["description"]));
        }
        if section.keys.is_empty() {
            let _ = writeln!(out, "| write | means |\n|---|---|");
            choices(def, &schema, &mut out);
        } else {
            let _ = writeln!(out, "| key | type | default | |\n|---|---|---|---|");
            for key in section.keys {
                let property = &def["properties"][key];
                let needed = def["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
                let default = match &property["default"] {
                    _ if needed => "needed".to_owned(),
                    Value::Null => String::new(),
                    value => format!("`{}`", plain(value)),
                };
                let _ = writeln!(
                    out,
                    "| `{key}` | {} | {default} | {} |",
                    kind(property, &schema),
                    text(&property["description"])
                );
            }
        }
        let _ = writeln!(out, "\n```yaml\n{}```", section.example);
    }
    out
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// A default as one would write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Object(map) if map.len() == 1 => {
            map.iter().map(|(k, v)| format!("{{ {k}: {} }}", plain(v))).collect()
        }
        other => other.to_string(),
    }
}

fn kind(schema: &Value, root: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let def = reference.trim_start_matches("#/$defs/");
        return match sections().into_iter().find(|s| s.def == def) {
            Some(section) => format!("[{}](#{})", def.replace('_', " "), slug(section.title)),
            None => def.to_owned(),
        };
    }
    if let Some(options) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let all: Vec<String> = options.iter().map(|o| form(o, root)).collect();
        return all.join(" or ");
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("array"), _) => format!("list of {}", kind(&schema["items"], root)),
        (Some("object"), _) => match &schema["additionalProperties"] {
            value if value["oneOf"].is_array() => format!("mapping of {}", kind(value, root)),
            _ => "mapping of texts".into(),
        },
        (Some("integer"), _) => "whole number".into(),
        (Some("string"), Some("timespan")) => "duration".into(),
        (Some("string"), Some(format)) => format.replace('-', " "),
        (Some("string"), None) => "text".into(),
        (Some(other), _) => other.to_owned(),
        (None, _) => "value".into(),
    }
}

/// How a choice is written.
fn form(option: &Value, root: &Value) -> String {
    if let Some(word) = option["const"].as_str() {
        return format!("`{word}`");
    }
    match option["properties"].as_object().and_then(|p| p.iter().next()) {
        Some((key, value)) => format!("`{{ {key}: … }}`: {}", kind(value, root)),
        None => kind(option, root),
    }
}

fn choices(def: &Value, root: &Value, out: &mut String) {
    for list in ["oneOf", "anyOf"] {
        for option in def[list].as_array().into_iter().flatten() {
            match option["$ref"].as_str() {
                // A choice within a choice reads as one.
                Some(reference) => {
                    choices(&root["$defs"][reference.trim_start_matches("#/$defs/")], root, out)
                }
                None => {
                    let _ = writeln!(out, "| {} | {} |", form(option, root), text(&option["description"]));
                }
            }
        }
    }
}

/// The anchor that a heading gets.
fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_and_key_of_the_schema_is_in_the_reference() {
        let schema = schema();
        let sections = sections();
        for (name, def) in schema["$defs"].as_object().unwrap() {
            // It is shown within `base`.
            if name == "made_base" {
                continue;
            }
            let section =
                sections.iter().find(|s| s.def == name).unwrap_or_else(|| panic!("{name} has no section"));
            let keys: Vec<&String> =
                def["properties"].as_object().into_iter().flatten().map(|(k, _)| k).collect();
            assert_eq!(keys.len(), section.keys.len(), "{name}");
            for key in keys {
                assert!(section.keys.contains(&key.as_str()), "{name}.{key}");
                assert!(def["properties"][key]["description"].is_string(), "{name}.{key} is not described");
            }
        }
        assert_eq!(schema["properties"].as_object().unwrap().len(), sections[0].keys.len());
    }

    #[test]
    fn every_example_parses_or_is_refused_for_this_build_only() {
        for section in sections() {
            let parsed = crate::Config::parse(section.example, section.title, std::path::Path::new("/"));
            match section.def {
                "kubernetes" => {
                    let errors = parsed.unwrap_err();
                    assert_eq!(errors.problems.len(), 1, "{errors}");
                    assert!(errors.problems[0].message.ends_with("is not in this build yet"), "{errors}");
                }
                _ => assert!(parsed.is_ok(), "{}\n{}", section.example, parsed.unwrap_err()),
            }
        }
    }
}

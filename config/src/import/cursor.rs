//! `.cursor/environment.json`.

use domain::{Ready, Service};

use super::Walk;
use crate::tree::{Entry, Node, Value};

pub(super) fn read(walk: &mut Walk<'_>, root: &Node) {
    let dir = walk.dir.clone();
    for Entry { key, node } in walk.entries(root) {
        match key.as_str() {
            "name" | "$schema" => {}
            "build" => {
                let (mut dockerfile, mut context) = (None, None);
                for Entry { key, node } in walk.entries(node) {
                    match key.as_str() {
                        "dockerfile" => dockerfile = walk.path(node, &dir),
                        "context" => context = walk.path(node, &dir),
                        _ => walk.cannot(node, ""),
                    }
                }
                walk.dockerfile(dockerfile, context);
            }
            // Made to be repeated, before the agent begins.
            "install" => {
                let install = walk.command(node);
                walk.out.phases.update.extend(install);
            }
            // It may stay, or be done soon: both are fine.
            "start" => {
                if let Some(command) = walk.command(node) {
                    let start = beside("start".into(), command.run);
                    walk.out.phases.services.insert(0, start);
                }
            }
            "terminals" => terminals(walk, node),
            "user" => {
                if !matches!(&node.value, Value::Text(user) if user == "root") {
                    walk.cannot(node, "commands run as root");
                }
            }
            "snapshot" => walk.cannot(node, "snapshots of another service can't be used"),
            "agentCanUpdateSnapshot" => {}
            "repositoryDependencies" => walk.cannot(node, "a sandbox holds one repository"),
            "ports" => walk.cannot(node, "ports are reached through the API"),
            _ => walk.cannot(node, ""),
        }
    }
}

fn terminals(walk: &mut Walk<'_>, node: &Node) {
    let Value::List(items) = &node.value else { return walk.wrong(node, "a list") };
    for (n, item) in items.iter().enumerate() {
        let (mut name, mut run) = (format!("terminal-{}", n + 1), None);
        for Entry { key, node } in walk.entries(item) {
            match key.as_str() {
                "name" => name = walk.text(node).map_or(name, |text| service_name(text, n)),
                "command" => run = walk.command(node).map(|c| c.run),
                "description" => {}
                "ports" => walk.cannot(node, "ports are reached through the API"),
                _ => walk.cannot(node, ""),
            }
        }
        if let Some(run) = run {
            let service = beside(unused(walk, name), run);
            walk.out.phases.services.push(service);
        }
    }
}

/// A service that nothing waits for and that may end.
pub(super) fn beside(name: String, run: String) -> Service {
    Service { name, run, required: false, ready: Ready::default(), ..Service::default() }
}

/// A name that a service may have.
pub(super) fn service_name(text: &str, n: usize) -> String {
    let word: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(60)
        .collect();
    let word = word.trim_matches('-').to_owned();
    if word.is_empty() { format!("terminal-{}", n + 1) } else { word }
}

/// The name, or one like it that no service has yet.
pub(super) fn unused(walk: &Walk<'_>, name: String) -> String {
    let taken = |name: &str| walk.out.phases.services.iter().any(|s| s.name == name);
    if !taken(&name) {
        return name;
    }
    (2..).map(|n| format!("{}-{n}", &name[..name.len().min(55)])).find(|n| !taken(n)).unwrap_or(name)
}

//! `devcontainer.json`.

use std::collections::BTreeMap;

use domain::{Base, Command, Dockerfile, TreePath};

use super::{Walk, quoted};
use crate::tree::{Entry, Node, Value};

/// What is to be built, where it is not an image.
#[derive(Default)]
struct Build {
    dockerfile: Option<TreePath>,
    context: Option<TreePath>,
    target: Option<String>,
    args: BTreeMap<String, String>,
}

pub(super) fn read(walk: &mut Walk<'_>, root: &Node) {
    let dir = walk.dir.clone();
    let mut build = Build::default();
    for Entry { key, node } in walk.entries(root) {
        match key.as_str() {
            // For people and editors, or what is the case anyway.
            "name" | "$schema" | "waitFor" | "userEnvProbe" | "shutdownAction" | "init" => {}
            "image" => walk.image(node),
            "dockerFile" => build.dockerfile = walk.path(node, &dir),
            "context" => build.context = walk.path(node, &dir),
            "build" => read_build(walk, node, &mut build),
            "containerEnv" | "remoteEnv" => {
                let env = walk.env(node);
                walk.out.env.extend(env);
            }
            "onCreateCommand" => walk.out.phases.setup = commands(walk, node),
            "updateContentCommand" => {
                let first = commands(walk, node);
                walk.out.phases.update.splice(0..0, first);
            }
            "postCreateCommand" => {
                let last = commands(walk, node);
                if !last.is_empty() {
                    walk.cannot(node, "it runs in builds, as `update`, and not in each session");
                }
                walk.out.phases.update.extend(last);
            }
            "postStartCommand" => walk.out.phases.start = commands(walk, node),
            _ => unsupported(walk, key, node),
        }
    }
    let Build { dockerfile, context, target, args } = build;
    if walk.out.base.is_none()
        && let Some(path) = dockerfile
    {
        let context = context.unwrap_or_else(|| path.parent());
        walk.out.base = Some(Base::Dockerfile(Dockerfile { path, context, target, args }));
    }
}

fn unsupported(walk: &mut Walk<'_>, key: &str, node: &Node) {
    match key {
        "postAttachCommand" => walk.cannot(node, "nobody attaches to a sandbox"),
        "initializeCommand" => walk.cannot(node, "nothing of a repository runs on the host"),
        "remoteUser" | "containerUser" => {
            if !matches!(&node.value, Value::Text(user) if user == "root") {
                walk.cannot(node, "commands run as root");
            }
        }
        "updateRemoteUserUID" => {}
        "workspaceFolder" => {
            if !matches!(&node.value, Value::Text(dir) if dir == walk.workspace) {
                walk.cannot(node, &format!("the tree lies at {}", walk.workspace));
            }
        }
        "overrideCommand" => {
            if matches!(node.value, Value::Bool(false)) {
                walk.cannot(node, "the image's own command is not run; make it one of `services`");
            }
        }
        "features" => {
            for Entry { node, .. } in walk.entries(node) {
                walk.cannot(node, "install it in `setup` or in the Dockerfile");
            }
        }
        "dockerComposeFile" | "service" | "runServices" => {
            walk.cannot(node, "compose files are not used; write `services`");
        }
        "forwardPorts" | "appPort" | "portsAttributes" | "otherPortsAttributes" => {
            walk.cannot(node, "ports are reached through the API");
        }
        "mounts" | "workspaceMount" | "runArgs" | "privileged" | "capAdd" | "securityOpt" => {
            walk.cannot(node, "what a sandbox may do is the operator's to say");
        }
        "hostRequirements" => walk.cannot(node, "resources are the operator's to say: `resources`"),
        "customizations" => walk.cannot(node, "there is no editor"),
        _ => walk.cannot(node, ""),
    }
}

fn read_build(walk: &mut Walk<'_>, node: &Node, build: &mut Build) {
    let dir = walk.dir.clone();
    for Entry { key, node } in walk.entries(node) {
        match key.as_str() {
            "dockerfile" | "dockerFile" => build.dockerfile = walk.path(node, &dir),
            "context" => build.context = walk.path(node, &dir),
            "target" => build.target = walk.text(node).map(str::to_owned),
            "args" => build.args = walk.env(node),
            "cacheFrom" | "options" => walk.cannot(node, "how it is built is Hotbed's to say"),
            _ => walk.cannot(node, ""),
        }
    }
}

/// A line, a program with its arguments, or several of these by name, which run one after the other.
fn commands(walk: &mut Walk<'_>, node: &Node) -> Vec<Command> {
    match &node.value {
        Value::Null => Vec::new(),
        Value::Text(_) => {
            let Some(command) = walk.command(node) else { return Vec::new() };
            walk.substituted(node, &command.run).map(Command::new).into_iter().collect()
        }
        Value::List(words) => {
            let words: Vec<_> = words.iter().filter_map(|word| walk.scalar(word)).collect();
            let line: Vec<_> = words.iter().map(|word| quoted(word)).collect();
            let line = walk.substituted(node, &line.join(" ")).filter(|line| !line.is_empty());
            line.map(Command::new).into_iter().collect()
        }
        Value::Map(map) => {
            let named = map.entries.iter();
            named
                .filter(|e| !matches!(e.node.value, Value::Map(_)))
                .flat_map(|e| commands(walk, &e.node))
                .collect()
        }
        _ => {
            walk.wrong(node, "a command: a text, a list of words, or a mapping of these");
            Vec::new()
        }
    }
}

//! `.gitpod.yml`.

use std::collections::BTreeMap;

use domain::{Base, Command, Dockerfile, TreePath};

use super::Walk;
use super::cursor::{beside, service_name, unused};
use crate::tree::{Entry, Node, Value};

/// What a file without `image` stands on.
const DEFAULT: &str = "gitpod/workspace-full:latest";

pub(super) fn read(walk: &mut Walk<'_>, root: &Node) {
    walk.out.base = Some(Base::Reference(DEFAULT.into()));
    for Entry { key, node } in walk.entries(root) {
        match key.as_str() {
            "image" => match &node.value {
                Value::Map(_) => image(walk, node),
                _ => walk.image(node),
            },
            "tasks" => tasks(walk, node),
            "ports" => walk.cannot(node, "ports are reached through the API"),
            "vscode" | "jetbrains" => walk.cannot(node, "there is no editor"),
            "github" => walk.cannot(node, "when images are built is the operator's to say: `schedule`"),
            "checkoutLocation" | "workspaceLocation" => {
                walk.cannot(node, &format!("the tree lies at {}", walk.workspace));
            }
            "additionalRepositories" | "mainConfiguration" => {
                walk.cannot(node, "a sandbox holds one repository");
            }
            "gitConfig" => walk.cannot(node, "git's identity is the session's"),
            "env" => {
                let env = walk.env(node);
                walk.out.env.extend(env);
            }
            _ => walk.cannot(node, ""),
        }
    }
}

fn image(walk: &mut Walk<'_>, node: &Node) {
    let (mut path, mut context) = (None, None);
    for Entry { key, node } in walk.entries(node) {
        match key.as_str() {
            "file" => path = walk.path(node, &TreePath::root()),
            "context" => context = walk.path(node, &TreePath::root()),
            _ => walk.cannot(node, ""),
        }
    }
    match path {
        Some(path) => {
            let context = context.unwrap_or_else(|| path.parent());
            let made = Dockerfile { path, context, target: None, args: BTreeMap::new() };
            walk.out.base = Some(Base::Dockerfile(made));
        }
        None => walk.wrong(node, "a mapping with `file`"),
    }
}

fn tasks(walk: &mut Walk<'_>, node: &Node) {
    let Value::List(items) = &node.value else { return walk.wrong(node, "a list") };
    for (n, item) in items.iter().enumerate() {
        let mut name = format!("task-{}", n + 1);
        let (mut before, mut init, mut command) = (None, None, None);
        let mut env = BTreeMap::new();
        for Entry { key, node } in walk.entries(item) {
            match key.as_str() {
                "name" => name = walk.text(node).map_or(name, |text| service_name(text, n)),
                "before" => before = walk.command(node),
                "init" => init = walk.command(node),
                "command" => command = walk.command(node),
                "env" => env = walk.env(node),
                "prebuild" => walk.cannot(node, "what is to be done in builds goes into `init`"),
                "openIn" | "openMode" => {}
                _ => walk.cannot(node, ""),
            }
        }
        // One shell runs all parts of a task, and `before` is there to change it.
        let together = |last: Command| match &before {
            Some(before) => format!("{}\n{}", before.run, last.run),
            None => last.run,
        };
        if let Some(init) = init {
            walk.out.phases.update.push(Command {
                run: together(init),
                env: env.clone(),
                ..Command::default()
            });
        }
        if let Some(command) = command {
            let mut service = beside(unused(walk, name), together(command));
            service.env = env;
            walk.out.phases.services.push(service);
        } else if let Some(before) = before {
            walk.out.phases.start.push(Command { env, ..before });
        }
    }
}

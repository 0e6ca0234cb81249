//! A recipe as one would write it in `hotbed.yaml` or `.hotbed.yaml`.

use std::fmt::Write;

use domain::{Base, Command, Dockerfile, Import, RecipePart, Service};
use serde_json::{Map, Value, json};

use crate::values::Period;

/// The part of a recipe as keys and values of the configuration; what is not set is not in it.
pub fn recipe_json(part: &RecipePart) -> Value {
    let mut out = Map::new();
    if let Some(base) = &part.base {
        out.insert("base".into(), base_json(base));
    }
    if !part.env.is_empty() {
        out.insert("env".into(), json!(part.env));
    }
    let phases = &part.phases;
    for (key, commands) in [
        ("setup", &phases.setup),
        ("update", &phases.update),
        ("warm", &phases.warm),
        ("verify", &phases.verify),
        ("prepare", &phases.prepare),
        ("start", &phases.start),
    ] {
        if !commands.is_empty() {
            out.insert(key.into(), commands.iter().map(command_json).collect());
        }
    }
    if !phases.services.is_empty() {
        out.insert("services".into(), phases.services.iter().map(service_json).collect());
    }
    Value::Object(out)
}

/// The same as YAML, each line after `indent` blanks. Values are written as JSON, which is YAML.
pub fn recipe_yaml(part: &RecipePart, indent: usize) -> String {
    let mut out = String::new();
    let pad = " ".repeat(indent);
    let json = recipe_json(part);
    // In the order in which they come into play.
    let keys = ["base", "env", "setup", "update", "warm", "verify", "prepare", "start", "services"];
    for key in keys {
        match &json[key] {
            Value::Null => {}
            Value::Array(items) => {
                // Writing to a string does not fail.
                let _ = writeln!(out, "{pad}{key}:");
                for item in items {
                    let _ = writeln!(out, "{pad}  - {item}");
                }
            }
            value => {
                let _ = writeln!(out, "{pad}{key}: {value}");
            }
        }
    }
    out
}

fn base_json(base: &Base) -> Value {
    match base {
        Base::Reference(reference) => json!(reference),
        Base::Packages { suite, include } => json!({"packages": {"suite": suite, "include": include}}),
        Base::Dockerfile(Dockerfile { path, context, target, args }) => {
            let mut out = json!({"path": path, "context": context});
            if let Some(target) = target {
                out["target"] = json!(target);
            }
            if !args.is_empty() {
                out["args"] = json!(args);
            }
            json!({"dockerfile": out})
        }
        Base::Import(Import { kind, path }) => json!({kind.as_str(): path}),
    }
}

fn command_json(command: &Command) -> Value {
    let Command { run, timeout, env, secrets, user, workdir, inputs, required } = command;
    let mut out = Map::from_iter([("run".to_owned(), json!(run))]);
    if let Some(timeout) = timeout {
        out.insert("timeout".into(), json!(Period(*timeout).to_string()));
    }
    if !env.is_empty() {
        out.insert("env".into(), json!(env));
    }
    if !secrets.is_empty() {
        out.insert("secrets".into(), json!(secrets));
    }
    if let Some(user) = user {
        out.insert("user".into(), json!(user));
    }
    if let Some(workdir) = workdir {
        out.insert("workdir".into(), json!(workdir));
    }
    if !inputs.is_empty() {
        out.insert("inputs".into(), json!(inputs));
    }
    if *required {
        out.insert("required".into(), json!(true));
    }
    if out.len() == 1 { json!(run) } else { Value::Object(out) }
}

fn service_json(service: &Service) -> Value {
    let Service { name, run, env, user, workdir, ready, required } = service;
    let mut out = json!({"name": name, "run": run});
    if !env.is_empty() {
        out["env"] = json!(env);
    }
    if let Some(user) = user {
        out["user"] = json!(user);
    }
    if let Some(workdir) = workdir {
        out["workdir"] = json!(workdir);
    }
    let mut when = Map::new();
    if let Some(command) = &ready.command {
        when.insert("command".into(), json!(command));
    }
    if let Some(port) = ready.port {
        when.insert("port".into(), json!(port));
    }
    if let Some(log) = &ready.log {
        when.insert("log".into(), json!(log));
    }
    if ready.timeout != domain::Ready::DEFAULT_TIMEOUT {
        when.insert("timeout".into(), json!(Period(ready.timeout).to_string()));
    }
    if !when.is_empty() {
        out["ready"] = Value::Object(when);
    }
    if !required {
        out["required"] = json!(false);
    }
    out
}

//! The shape of what runs: the phases of a recipe, as they are written in `hotbed.yaml` and in a repository. The doc
//! comments are the reference and the schema.

use std::collections::BTreeSet;
use std::fmt;

use domain::{Command, Phases, Ready, Service};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, nearest};
use crate::values::{
    Account, Directory, Env, EnvName, Needle, Period, Port, ServiceName, Shell, TreePattern, parse,
};

/// The commands of a phase: one plain one, or a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum PhaseSection {
    One(Shell),
    Several(Vec<StepSection>),
}

/// A shell command alone, or with what it needs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum StepSection {
    Plain(Shell),
    Full(Box<CommandSection>),
}

/// A command with what it needs. A text alone is the same as `{ run: … }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "command")]
pub(crate) struct CommandSection {
    /// A line for `sh -c`.
    pub run: Shell,
    /// The longest that it may take; `step_timeout` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Its environment, over that of the image. Not for secrets.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub env: Env,
    /// Names of `secrets` that it gets as environment variables: in `setup`, `update`, `warm` and `verify`. What it writes down of them stays in the image; what it prints is masked in the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<EnvName>,
    /// The account in the sandbox that it runs as: a name or a number, and a group after a `:`. Root when not given; the workspace belongs to root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Account>,
    /// Where it runs: a path in the sandbox, or one below the workspace, which it is when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<Directory>,
    /// In `update` only: paths in the repository, with `*`, `?` and `**`, such as `package-lock.json`. Where the git sync of a session changes one of them, the command runs in the session too, before its writes may begin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<TreePattern>,
    /// In `warm` only: its failure fails the build.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

/// A program that runs as long as the sandbox does. It begins at each start of a sandbox, when those before it are ready. It does not wait at the write gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "service")]
pub(crate) struct ServiceSection {
    /// Its name in logs; each once.
    pub name: ServiceName,
    /// A line for `sh -c` that stays in the foreground.
    pub run: Shell,
    /// Its environment, over that of the image. Not for secrets.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub env: Env,
    /// The account in the sandbox that it runs as; root when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Account>,
    /// Where it runs: a path in the sandbox, or one below the workspace, which it is when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<Directory>,
    /// When it is ready. A warm sandbox is one whose services are.
    #[serde(default)]
    pub ready: ReadySection,
    /// Where false, nothing waits for it, and its end is no failure.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// When a service is ready: all that is given must hold. Where nothing is, it is ready when it has been started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ready")]
pub(crate) struct ReadySection {
    /// A shell command that must succeed; run as the service's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Shell>,
    /// A TCP port that must take connections on the sandbox's loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// A text that a line of its output must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Needle>,
    /// From its start until all of that holds; `1m` when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

fn is_empty(env: &Env) -> bool {
    env.0.is_empty()
}

impl Default for PhaseSection {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl<'de> Deserialize<'de> for PhaseSection {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct PhaseVisitor;
        impl<'de> Visitor<'de> for PhaseVisitor {
            type Value = PhaseSection;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shell command, or a list of commands")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PhaseSection, E> {
                parse(text).map(PhaseSection::One).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PhaseSection, A::Error> {
                let mut steps = Vec::new();
                while let Some(step) = seq.next_element()? {
                    steps.push(step);
                }
                Ok(PhaseSection::Several(steps))
            }
        }
        d.deserialize_any(PhaseVisitor)
    }
}

struct StepVisitor;

impl<'de> Visitor<'de> for StepVisitor {
    type Value = StepSection;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shell command, or `{ run: …, timeout: …, env: …, user: …, workdir: … }`")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<StepSection, E> {
        parse(text).map(StepSection::Plain).map_err(E::custom)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StepSection, A::Error> {
        let full = CommandSection::deserialize(MapAccessDeserializer::new(map))?;
        Ok(StepSection::Full(Box::new(full)))
    }
}

impl<'de> Deserialize<'de> for StepSection {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(StepVisitor)
    }
}

impl PhaseSection {
    /// The commands that are written with more than a line, each with its place in the list.
    fn full(&self) -> impl Iterator<Item = (usize, &CommandSection)> {
        let steps: &[StepSection] = match self {
            Self::One(_) => &[],
            Self::Several(steps) => steps,
        };
        steps.iter().enumerate().filter_map(|(i, step)| match step {
            StepSection::Full(full) => Some((i, &**full)),
            StepSection::Plain(_) => None,
        })
    }

    pub fn commands(&self) -> Vec<Command> {
        match self {
            Self::One(run) => vec![Command::new(&run.0)],
            Self::Several(steps) => steps.iter().map(StepSection::command).collect(),
        }
    }
}

impl StepSection {
    fn command(&self) -> Command {
        match self {
            Self::Plain(run) => Command::new(&run.0),
            Self::Full(full) => Command {
                run: full.run.0.clone(),
                timeout: full.timeout.map(|t| t.0),
                env: full.env.0.clone(),
                user: full.user.as_ref().map(|u| u.0.clone()),
                workdir: full.workdir.as_ref().map(|w| w.0.clone()),
                secrets: full.secrets.iter().map(|s| s.0.clone()).collect(),
                inputs: full.inputs.iter().map(|i| i.0.clone()).collect(),
                required: full.required,
            },
        }
    }
}

impl ServiceSection {
    fn service(&self) -> Service {
        let ready = &self.ready;
        Service {
            name: self.name.0.clone(),
            run: self.run.0.clone(),
            env: self.env.0.clone(),
            user: self.user.as_ref().map(|u| u.0.clone()),
            workdir: self.workdir.as_ref().map(|w| w.0.clone()),
            ready: Ready {
                command: ready.command.as_ref().map(|c| c.0.clone()),
                port: ready.port.map(|p| p.0),
                log: ready.log.as_ref().map(|l| l.0.clone()),
                timeout: ready.timeout.map_or(Ready::DEFAULT_TIMEOUT, |t| t.0),
            },
            required: self.required,
        }
    }
}

/// Where no secret goes, or there is none of this name.
fn secret_problem(
    phase: &str,
    full: &CommandSection,
    name: &EnvName,
    known: Option<&[&str]>,
) -> Option<Problem> {
    let problem = |message: String| Problem::new(message).value(name.to_string());
    if matches!(phase, "prepare" | "start") {
        return Some(
            problem(format!("`{phase}` runs in sandboxes that users get, where no build secret goes"))
                .expected("secrets in `setup`, `update`, `warm` and `verify` only"),
        );
    }
    if !full.inputs.is_empty() {
        return Some(
            problem("with `inputs` it runs in sessions too, where no build secret goes".into())
                .expected("`inputs` or `secrets`, and not both"),
        );
    }
    let Some(known) = known else {
        return Some(
            problem("a repository's own commands get no secrets here".into())
                .expected("`secrets` in `image.repository_file.may_set` of hotbed.yaml"),
        );
    };
    if known.contains(&name.0.as_str()) {
        return None;
    }
    let mut unknown =
        problem(format!("there is no secret `{name}`")).expected("a name from `secrets` of the image");
    if let Some(near) = nearest(&name.0, known.iter().copied()) {
        unknown = unknown.help(format!("did you mean `{near}`?"));
    }
    Some(unknown)
}

/// All phases of a section, by reference: the same checks and conversions for `hotbed.yaml` and `.hotbed.yaml`.
pub(crate) struct PhaseKeys<'a> {
    pub setup: &'a PhaseSection,
    pub update: &'a PhaseSection,
    pub warm: &'a PhaseSection,
    pub verify: &'a PhaseSection,
    pub prepare: &'a PhaseSection,
    pub start: &'a PhaseSection,
    pub services: &'a [ServiceSection],
}

impl PhaseKeys<'_> {
    fn each(&self) -> [(&'static str, &PhaseSection); 6] {
        [
            ("setup", self.setup),
            ("update", self.update),
            ("warm", self.warm),
            ("verify", self.verify),
            ("prepare", self.prepare),
            ("start", self.start),
        ]
    }

    /// What is wrong with a key because of where it stands: the key path below the section, and the problem. `secrets`
    /// are the names there are; `None` where none may be named.
    pub fn problems(&self, secrets: Option<&[&str]>) -> Vec<(String, Problem)> {
        let mut problems = Vec::new();
        for (phase, section) in self.each() {
            for (i, full) in section.full() {
                if full.required && phase != "warm" {
                    let problem = Problem::new(format!("`required` means nothing in `{phase}`"))
                        .value("true")
                        .expected("`required` in `warm` only: everywhere else a failure is fatal");
                    problems.push((format!("{phase}[{i}].required"), problem));
                }
                for (j, name) in full.secrets.iter().enumerate() {
                    if let Some(problem) = secret_problem(phase, full, name, secrets) {
                        problems.push((format!("{phase}[{i}].secrets[{j}]"), problem));
                    }
                }
                if !full.inputs.is_empty() && phase != "update" {
                    let problem = Problem::new(format!("`inputs` means nothing in `{phase}`")).expected(
                        "`inputs` in `update` only: it says after which syncs a command runs again",
                    );
                    problems.push((format!("{phase}[{i}].inputs"), problem));
                }
            }
        }
        let mut names = BTreeSet::new();
        for (i, service) in self.services.iter().enumerate() {
            if !names.insert(&service.name) {
                let problem = Problem::new(format!("there are two services `{}`", service.name))
                    .value(service.name.to_string())
                    .expected("each name once");
                problems.push((format!("services[{i}].name"), problem));
            }
        }
        problems
    }

    pub fn phases(&self) -> Phases {
        Phases {
            setup: self.setup.commands(),
            update: self.update.commands(),
            warm: self.warm.commands(),
            verify: self.verify.commands(),
            prepare: self.prepare.commands(),
            start: self.start.commands(),
            services: self.services.iter().map(ServiceSection::service).collect(),
        }
    }
}

//! `hotbed.yaml`: read, checked whole, explained. The only crate that knows YAML.
//!
//! Promises: a [`Config`] is right in itself: every key known, every value in its range, limits consistent, files
//! there. What is wrong is reported all at once, each with file, line, column, key path, value and what was expected;
//! no input panics or takes more than bounded work; a secret in the file is refused and never shown. Leaves to others:
//! whether the engine, the repositories and the networks that are named exist; watching the file; applying a change.
//!
//! How it goes: text to a tree with spans ([`tree`]), tree to typed sections with repairs ([`de`], [`sections`],
//! [`values`]), defaults under repos, then what several keys together must fulfil ([`check`]).

mod check;
mod de;
mod diff;
mod error;
mod import;
mod pem;
mod phases;
mod recipe_file;
mod recipe_text;
mod reference;
mod schema;
mod sections;
mod settings;
mod tree;
mod values;

use std::fmt;
use std::io::Read;
use std::path::Path;

use domain::RepoSpec;
use serde::Serialize;

pub use diff::{Change, ConfigDiff, RepoChange};
pub use error::{ConfigErrors, Place, Problem};
pub use import::import;
pub use recipe_file::{MAX_REPOSITORY_FILE, repository_file};
pub use recipe_text::{recipe_json, recipe_yaml};
pub use settings::{
    AccessSettings, BuildSettings, DockerSettings, ForgeSettings, GithubSettings, GithubUsers, OidcSettings,
    QuotaSettings, RegistrySettings, RetentionSettings, RoleRule, Settings, SigningAlgorithm, TlsSettings,
    TracingSettings, UserRule, WarmupSettings,
};
pub use values::{ListenAddress, SecretRef, is_loopback};

use error::Source;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// A configuration that has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    settings: Settings,
    repos: Vec<RepoSpec>,
    warnings: Vec<Warning>,
}

/// Something that is accepted and has no effect, or is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    pub file: String,
    /// The key path, such as `repos[0].pool.schedule`.
    pub path: String,
    /// Counted from 1, as `column`.
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.path, self.message)
    }
}

impl Config {
    /// Reads and checks a file. Blocking; relative paths in it are below its directory.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let unreadable = |why: String| {
            ConfigErrors::unreadable(&name, Problem::new(format!("the configuration can't be read: {why}")))
        };
        // Opening a pipe would wait for its other end.
        let meta = std::fs::metadata(path).map_err(|e| unreadable(pem::reason(&e)))?;
        if !meta.is_file() {
            return Err(unreadable("it is not a file".into()));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| unreadable(pem::reason(&e)))?;
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| unreadable(pem::reason(&e)))?;
        let full = std::path::absolute(path).map_err(|e| unreadable(pem::reason(&e)))?;
        Self::parse_bytes(&bytes, &name, full.parent().unwrap_or(Path::new("/")))
    }

    /// Checks bytes that should be UTF-8.
    pub fn parse_bytes(bytes: &[u8], file_name: &str, base_dir: &Path) -> Result<Self, ConfigErrors> {
        if bytes.len() > MAX_BYTES {
            return Err(ConfigErrors::unreadable(file_name, too_large()));
        }
        let text = error::text(bytes, file_name)?;
        Self::parse(text, file_name, base_dir)
    }

    /// Checks a text. Reads the files that it names (certificates), relative ones below `base_dir`; nothing else
    /// of the machine.
    pub fn parse(text: &str, file_name: &str, base_dir: &Path) -> Result<Self, ConfigErrors> {
        if text.len() > MAX_BYTES {
            return Err(ConfigErrors::unreadable(file_name, too_large()));
        }
        let source = Source::new(file_name, text.strip_prefix('\u{feff}').unwrap_or(text));
        let mut root = tree::read(&source).map_err(|problems| ConfigErrors::new(&source, problems))?;
        let mut problems = Vec::new();
        let file = de::decode::<sections::File>(&mut root, &mut problems);
        let Some(file) = file else { return Err(ConfigErrors::new(&source, problems)) };
        let mut checker = check::Checker::new(&source, &root, base_dir, problems);
        let (settings, repos) = checker.run(&file);
        if !checker.problems.is_empty() {
            return Err(ConfigErrors::new(&source, checker.problems));
        }
        let mut warnings = checker.warnings;
        warnings.sort_by_key(|w| (w.line, w.column));
        Ok(Self { settings, repos, warnings })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// In the order of the file; names are unique.
    pub fn repos(&self) -> &[RepoSpec] {
        &self.repos
    }

    /// In the order of the file; to be shown by `config check` and at start.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What is different from `old`. Pure.
    pub fn diff(&self, old: &Self) -> ConfigDiff {
        diff::diff(old, self)
    }

    /// JSON Schema, draft 2020-12. It knows structure, not ranges of texts nor what keys need of each other.
    pub fn schema() -> serde_json::Value {
        schema::schema()
    }

    /// JSON Schema of a repository's own file, `.hotbed.yaml`.
    pub fn repository_schema() -> serde_json::Value {
        schema::repository_schema()
    }

    /// The reference of all keys, in Markdown.
    pub fn reference() -> String {
        reference::reference()
    }
}

fn too_large() -> Problem {
    Problem::new("the configuration is too large").expected("at most 1MiB")
}

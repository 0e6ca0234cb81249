//! `.hotbed.yaml`: what a repository says of its own image, as far as the operator lets it.
//!
//! Anybody who can push may have written it, so it is read under a budget, without aliases, and can name nothing of
//! the host. What it may not set is an error, and so is what it does not know: nothing in it is ignored.

use std::collections::BTreeMap;

use domain::{RecipeKey, RecipePart, RepositoryFile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::de::{decode, place_of};
use crate::error::{ConfigErrors, Problem, Source};
use crate::phases::{PhaseKeys, PhaseSection, ServiceSection};
use crate::sections::BaseSection;
use crate::tree::{self, Value};
use crate::values::Env;

/// The largest such file that is read, in bytes.
pub const MAX_REPOSITORY_FILE: usize = 256 << 10;

/// What a repository says of its own image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = ".hotbed.yaml")]
pub(crate) struct RecipeSection {
    /// Where the image starts. Used where the operator lets the repository win.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseSection>,
    /// Environment of build steps and of what runs for sessions. It ends up in images: not for secrets.
    pub env: Env,
    /// Run on a full build, after the clone; the first failure fails the build.
    pub setup: PhaseSection,
    /// Run on every build; make them safe to repeat.
    pub update: PhaseSection,
    /// Fill caches: the first build and test run. A failure is recorded; it fails the build where the command is `required`.
    pub warm: PhaseSection,
    /// Must succeed in a sandbox booted from the new image, whose services are ready.
    pub verify: PhaseSection,
    /// Run once per session, after its git sync and before its writes may begin.
    pub prepare: PhaseSection,
    /// Run at each start of a sandbox, before the services.
    pub start: PhaseSection,
    /// Programs that run as long as the sandbox does.
    pub services: Vec<ServiceSection>,
}

impl RecipeSection {
    fn phases(&self) -> PhaseKeys<'_> {
        PhaseKeys {
            setup: &self.setup,
            update: &self.update,
            warm: &self.warm,
            verify: &self.verify,
            prepare: &self.prepare,
            start: &self.start,
            services: &self.services,
        }
    }
}

/// Reads a repository's own file. `secrets` are the names that the operator has configured.
pub fn repository_file(
    bytes: &[u8],
    file_name: &str,
    policy: &RepositoryFile,
    secrets: &BTreeMap<String, domain::SecretSource>,
) -> Result<RecipePart, ConfigErrors> {
    let source = Source::untrusted(bytes, file_name, MAX_REPOSITORY_FILE)?;
    if source.text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(RecipePart::default());
    }
    let mut root = tree::read_untrusted(&source).map_err(|problems| ConfigErrors::new(&source, problems))?;
    let mut problems = Vec::new();
    if let Value::Map(map) = &root.value {
        for entry in &map.entries {
            let known = RecipeKey::ALL.into_iter().find(|k| k.as_str() == entry.key);
            if known.is_some_and(|key| !policy.may_set.contains(&key)) {
                let may: Vec<_> = policy.may_set.iter().map(|k| format!("`{}`", k.as_str())).collect();
                problems.push(
                    Problem::new(format!("a repository may not set `{}` here", entry.key))
                        .path(&entry.key)
                        .at(entry.node.key_span.clone().unwrap_or(entry.node.span.clone()))
                        .expected(if may.is_empty() { "nothing".into() } else { may.join(", ") })
                        .help("the operator decides it: `image.repository_file.may_set` in hotbed.yaml"),
                );
            }
        }
    }
    let section = decode::<RecipeSection>(&mut root, &mut problems);
    if let Some(section) = section.filter(|_| problems.is_empty()) {
        let names: Vec<&str> = secrets.keys().map(String::as_str).collect();
        let names = policy.may_set.contains(&RecipeKey::Secrets).then_some(names.as_slice());
        for (key, problem) in section.phases().problems(names) {
            let span = root.find(&key).map_or_else(|| place_of(&root), place_of);
            problems.push(problem.path(key).at(span));
        }
        if problems.is_empty() {
            return Ok(RecipePart {
                base: section.base.as_ref().map(BaseSection::base),
                env: section.env.0.clone(),
                phases: section.phases().phases(),
            });
        }
    }
    Err(ConfigErrors::new(&source, problems))
}

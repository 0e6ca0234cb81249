//! What an image is made of, as one number: where it changes, the next build is a full one (F26).

use std::fmt::Write as _;

use domain::{Base, Digest, Dockerfile, Import, Phases, Recipe, RepoSpec};
use sha2::{Digest as _, Sha256};

use crate::redact::BuildSecret;

/// Grows when the builder itself does something else with the same recipe.
const FORMAT: u32 = 2;

/// SHA-256 (hex) over all that images of a repo are made of: where they come from, the whole recipe, the base as
/// resolved, the certificates' contents, the secrets' versions, the agent's protocol. The same in every process and release of one format.
///
/// The whole recipe, even what only says when to build: one needless full build is cheaper than an exception that
/// one day is wrong. Both structures are taken apart without `..`, so a new field has to be thought about.
pub fn fingerprint(
    spec: &RepoSpec,
    base: &Digest,
    ca_certificates: &[Vec<u8>],
    secrets: &[BuildSecret],
    agent_protocol: u32,
) -> String {
    // The rest says what is done with an image, not what is in it.
    let RepoSpec {
        name,
        url,
        branch,
        workspace,
        image,
        rollout: _,
        pool: _,
        session: _,
        pushes: _,
        pulls: _,
        resources: _,
        network: _,
    } = spec;
    let Recipe {
        base: recipe_base,
        schedule,
        timezone,
        phases,
        max_age,
        keep,
        env,
        secrets: _,
        ca_certificates: ca_paths,
        step_timeout,
        // What it leads to is in the other fields; what it might have led to is not in the image.
        repository_file: _,
    } = image;

    let mut hash = Fields(Sha256::new());
    hash.number("format", FORMAT.into());
    hash.texts("origin", [name.as_str(), url, branch.as_str(), workspace]);
    match recipe_base {
        Base::Reference(reference) => hash.texts("base reference", [reference]),
        Base::Packages { suite, include } => {
            hash.texts("base packages", std::iter::once(suite).chain(include))
        }
        // Its content is in the digest of what it was built to.
        Base::Dockerfile(Dockerfile { path, context, target, args }) => {
            hash.texts("base dockerfile", [path.as_str(), context.as_str()]);
            hash.texts("base target", target);
            hash.texts("base args", args.iter().flat_map(|(k, v)| [k, v]));
        }
        Base::Import(Import { kind, path }) => hash.texts("base import", [kind.as_str(), path.as_str()]),
    }
    hash.texts("base digest", [base.as_str()]);
    hash.texts("schedule", [schedule]);
    if timezone != "UTC" {
        // Left out where it says nothing, so that images made before there were zones stay as they are.
        hash.texts("timezone", [timezone]);
    }
    hash.phases(phases);
    hash.number("max age", max_age.as_nanos());
    hash.number("keep", (*keep).into());
    hash.texts("env", env.iter().flat_map(|(k, v)| [k, v]));
    // Which values, and not where they are found (F30). Recipes without any are as they were before there were any.
    if !secrets.is_empty() {
        hash.texts("secrets", secrets.iter().flat_map(|s| [s.name(), s.version()]));
    }
    hash.list("ca paths", ca_paths.iter().map(|p| p.as_os_str().as_encoded_bytes()));
    hash.list("ca contents", ca_certificates.iter().map(Vec::as_slice));
    hash.number("step timeout", step_timeout.as_nanos());
    hash.number("agent protocol", agent_protocol.into());
    hash.finish()
}

/// Fields with their names, counts and lengths, so that no two inputs read the same.
struct Fields(Sha256);

impl Fields {
    fn list<'a>(&mut self, name: &str, items: impl Iterator<Item = &'a [u8]>) {
        let items: Vec<_> = items.collect();
        self.bytes(name.as_bytes());
        self.0.update((items.len() as u64).to_be_bytes());
        for item in items {
            self.bytes(item);
        }
    }

    fn texts<T: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        let items: Vec<T> = items.into_iter().collect();
        self.list(name, items.iter().map(|t| t.as_ref().as_bytes()));
    }

    /// As JSON: every field of every command is in it, in one order, and what is not set is not.
    fn phases(&mut self, phases: &Phases) {
        // These types have text keys and no foreign serializers: they always serialize.
        let json = serde_json::to_vec(phases).unwrap_or_default();
        self.list("phases", std::iter::once(json.as_slice()));
    }

    fn number(&mut self, name: &str, n: u128) {
        self.list(name, std::iter::once(&n.to_be_bytes()[..]));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            // Writing to a string can't fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

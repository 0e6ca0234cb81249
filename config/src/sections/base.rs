//! Where an image starts.

use domain::{Base, Dockerfile, Import, ImportKind, TreePath};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

use super::written;
use crate::values::{Env, ImageReference, Needle, PackageName, Suite, TreeFile, parse};

/// Where an image starts: an image reference, or one of the made ones.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "base")]
pub(crate) enum BaseSection {
    /// An image reference, pulled when it is not there.
    Reference(ImageReference),
    Made(MadeBase),
}

/// A base that is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "made_base")]
pub(crate) enum MadeBase {
    /// A root filesystem of a distribution's packages; needs no registry.
    Packages(PackagesSection),
    /// A Dockerfile in the repository, built by the engine from the tree at the commit. Its path, or more.
    Dockerfile(DockerfileChoice),
    /// A `devcontainer.json` in the repository: its image or Dockerfile, environment and commands. `hotbed recipe import` shows what it gives.
    Devcontainer(TreeFile),
    /// A `.cursor/environment.json` in the repository, likewise.
    Cursor(TreeFile),
    /// A `.gitpod.yml` in the repository, likewise.
    Gitpod(TreeFile),
}

/// A Dockerfile: its path, or with what it needs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum DockerfileChoice {
    Path(TreeFile),
    Full(DockerfileSection),
}

/// A Dockerfile in the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "dockerfile")]
pub(crate) struct DockerfileSection {
    /// Where it lies.
    pub path: TreeFile,
    /// The directory that it copies from. `.` is the repository's root. What its `.dockerignore` names is left out.
    #[serde(default = "root_of_tree")]
    pub context: TreeFile,
    /// The stage that is built; the last one when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Needle>,
    /// Arguments of the build. They end up in the image's history: not for secrets.
    #[serde(default)]
    pub args: Env,
}

fn root_of_tree() -> TreeFile {
    written(".")
}

impl<'de> Deserialize<'de> for DockerfileChoice {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct DockerfileVisitor;
        impl<'de> Visitor<'de> for DockerfileVisitor {
            type Value = DockerfileChoice;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path in the repository, or `{ path: …, context: …, target: …, args: … }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DockerfileChoice, E> {
                parse(text).map(DockerfileChoice::Path).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DockerfileChoice, A::Error> {
                DockerfileSection::deserialize(MapAccessDeserializer::new(map)).map(DockerfileChoice::Full)
            }
        }
        d.deserialize_any(DockerfileVisitor)
    }
}

impl DockerfileChoice {
    fn dockerfile(&self) -> Dockerfile {
        match self {
            Self::Path(path) => Dockerfile {
                path: path.0.clone(),
                context: TreePath::root(),
                target: None,
                args: Default::default(),
            },
            Self::Full(full) => Dockerfile {
                path: full.path.0.clone(),
                context: full.context.0.clone(),
                target: full.target.as_ref().map(|t| t.0.clone()),
                args: full.args.0.clone(),
            },
        }
    }
}

/// A root filesystem of a distribution's packages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "packages")]
pub(crate) struct PackagesSection {
    /// The suite.
    pub suite: Suite,
    /// Packages besides the minimal system. `git` is needed in a sandbox.
    #[serde(default)]
    pub include: Vec<PackageName>,
}

impl BaseSection {
    pub fn base(&self) -> Base {
        match self {
            Self::Reference(reference) => Base::Reference(reference.0.clone()),
            Self::Made(MadeBase::Packages(PackagesSection { suite, include })) => Base::Packages {
                suite: suite.0.clone(),
                include: include.iter().map(|p| p.0.clone()).collect(),
            },
            Self::Made(MadeBase::Dockerfile(choice)) => Base::Dockerfile(choice.dockerfile()),
            Self::Made(MadeBase::Devcontainer(file)) => import_of(ImportKind::Devcontainer, file),
            Self::Made(MadeBase::Cursor(file)) => import_of(ImportKind::Cursor, file),
            Self::Made(MadeBase::Gitpod(file)) => import_of(ImportKind::Gitpod, file),
        }
    }
}

fn import_of(kind: ImportKind, file: &TreeFile) -> Base {
    Base::Import(Import { kind, path: file.0.clone() })
}

impl<'de> Deserialize<'de> for BaseSection {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct BaseVisitor;
        const EXPECTED: &str =
            "an image reference such as `debian:bookworm`, or `{ packages: { suite: …, include: […] } }`";
        impl<'de> Visitor<'de> for BaseVisitor {
            type Value = BaseSection;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BaseSection, E> {
                parse(text).map(BaseSection::Reference).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BaseSection, A::Error> {
                let made = MadeBase::deserialize(MapAccessDeserializer::new(&mut map))?;
                match map.next_key::<String>()? {
                    None => Ok(BaseSection::Made(made)),
                    Some(_) => Err(de::Error::custom("a base is one thing, and here stand two")),
                }
            }
        }
        d.deserialize_any(BaseVisitor)
    }
}

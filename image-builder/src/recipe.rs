//! Whose recipe it is in the end: the operator's, what the repository says in its `.hotbed.yaml`, and what is imported
//! from another tool's file. Pure; reading and checking are done by others.

use std::collections::BTreeMap;

use domain::{Import, Imported, Phases, Recipe, RecipeKey, RecipePart, RepositoryFile, Winner};

/// The recipe of one commit, and what there is to say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitRecipe {
    pub recipe: Recipe,
    /// Where it comes from, for the log.
    pub notes: Vec<String>,
    /// What was said and does not count, or can't be honoured.
    pub warnings: Vec<String>,
}

impl CommitRecipe {
    /// The operator's alone.
    pub fn new(recipe: &Recipe) -> Self {
        Self { recipe: recipe.clone(), notes: Vec::new(), warnings: Vec::new() }
    }

    /// With what the repository's own file says: `part` holds only what the operator lets a repository set.
    pub fn with_repository_file(mut self, part: &RecipePart) -> Self {
        let mut merge = Merge {
            upper: "hotbed.yaml",
            lower: RepositoryFile::PATH,
            lower_wins: self.recipe.repository_file.wins == Winner::Repository,
            unused: &mut self.warnings,
        };
        if let Some(base) = &part.base {
            if merge.lower_wins {
                self.recipe.base = base.clone();
            } else {
                merge.left_out(RecipeKey::Base.as_str());
            }
        }
        merge.env(&mut self.recipe.env, &part.env);
        merge.phases(&mut self.recipe.phases, &part.phases);
        self.notes.push(format!("{} is read", RepositoryFile::PATH));
        self
    }

    /// With what an import gives under it: what is set already stays.
    pub fn with_import(mut self, import: &Import, imported: &Imported) -> Self {
        let path = import.path.to_string();
        let mut merge =
            Merge { upper: "the recipe", lower: &path, lower_wins: false, unused: &mut self.warnings };
        if let Some(base) = &imported.part.base {
            self.recipe.base = base.clone();
        }
        merge.env(&mut self.recipe.env, &imported.part.env);
        merge.phases(&mut self.recipe.phases, &imported.part.phases);
        self.notes.push(format!("{path} is imported"));
        if !imported.unsupported.is_empty() {
            let all = imported.unsupported.join("\n  ");
            self.warnings.push(format!("{path} says what can't be honoured:\n  {all}"));
        }
        self
    }
}

struct Merge<'a> {
    upper: &'a str,
    lower: &'a str,
    lower_wins: bool,
    unused: &'a mut Vec<String>,
}

impl Merge<'_> {
    fn left_out(&mut self, key: &str) {
        self.unused.push(format!("`{key}` of {} is not used: {} sets it", self.lower, self.upper));
    }

    fn env(&mut self, own: &mut BTreeMap<String, String>, other: &BTreeMap<String, String>) {
        for (name, value) in other {
            match own.get(name) {
                Some(mine) if mine != value && !self.lower_wins => self.left_out(&format!("env.{name}")),
                _ => {
                    own.insert(name.clone(), value.clone());
                }
            }
        }
    }

    fn phases(&mut self, own: &mut Phases, other: &Phases) {
        let Phases { setup, update, warm, verify, prepare, start, services } = own;
        let lists = [
            ("setup", setup, &other.setup),
            ("update", update, &other.update),
            ("warm", warm, &other.warm),
            ("verify", verify, &other.verify),
            ("prepare", prepare, &other.prepare),
            ("start", start, &other.start),
        ];
        for (key, own, other) in lists {
            self.list(key, own, other);
        }
        self.list("services", services, &other.services);
    }

    /// What is empty is not set. What both set is one's or the other's, never a mixture.
    fn list<T: Clone + PartialEq>(&mut self, key: &str, own: &mut Vec<T>, other: &[T]) {
        if other.is_empty() || own == other {
            return;
        }
        if own.is_empty() || self.lower_wins {
            *own = other.to_vec();
        } else {
            self.left_out(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Base, Command};

    fn part(setup: &[&str], env: &[(&str, &str)]) -> RecipePart {
        RecipePart {
            base: Some(Base::Reference("theirs".into())),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            phases: Phases { setup: setup.iter().map(|c| Command::new(*c)).collect(), ..Phases::default() },
        }
    }

    fn recipe(setup: &[&str], wins: Winner) -> Recipe {
        let mut recipe = Recipe::of(Base::Reference("ours".into()));
        recipe.phases.setup = setup.iter().map(|c| Command::new(*c)).collect();
        recipe.env.insert("A".into(), "ours".into());
        recipe.repository_file.wins = wins;
        recipe
    }

    #[test]
    fn the_operator_wins_unless_it_says_otherwise() {
        let theirs = part(&["their setup"], &[("A", "theirs"), ("B", "theirs")]);
        let kept = CommitRecipe::new(&recipe(&["our setup"], Winner::Operator)).with_repository_file(&theirs);
        assert_eq!(kept.recipe.phases.setup, ["our setup".into()]);
        assert_eq!((kept.recipe.env["A"].as_str(), kept.recipe.env["B"].as_str()), ("ours", "theirs"));
        assert_eq!(kept.recipe.base, Base::Reference("ours".into()));
        let unused = |key: &str| format!("`{key}` of .hotbed.yaml is not used: hotbed.yaml sets it");
        assert_eq!(kept.warnings, [unused("base"), unused("env.A"), unused("setup")]);

        let theirs_wins =
            CommitRecipe::new(&recipe(&["our setup"], Winner::Repository)).with_repository_file(&theirs);
        assert_eq!(theirs_wins.recipe.phases.setup, ["their setup".into()]);
        assert_eq!(theirs_wins.recipe.env["A"], "theirs");
        assert_eq!(theirs_wins.recipe.base, Base::Reference("theirs".into()));
        assert!(theirs_wins.warnings.is_empty());

        let filled = CommitRecipe::new(&recipe(&[], Winner::Operator)).with_repository_file(&theirs);
        assert_eq!(filled.recipe.phases.setup, ["their setup".into()], "what is not set is theirs to set");
    }

    #[test]
    fn an_import_lies_under_everything() {
        let import = Import { kind: domain::ImportKind::Gitpod, path: ".gitpod.yml".parse().unwrap() };
        let imported = Imported {
            part: part(&["their setup"], &[("A", "theirs")]),
            unsupported: vec!["`ports` (line 3)".into(), "`vscode` (line 9)".into()],
        };
        let made =
            CommitRecipe::new(&recipe(&["our setup"], Winner::Repository)).with_import(&import, &imported);
        assert_eq!(made.recipe.base, Base::Reference("theirs".into()));
        assert_eq!(made.recipe.phases.setup, ["our setup".into()]);
        assert_eq!(made.warnings.len(), 3);
        assert_eq!(
            made.warnings[2],
            ".gitpod.yml says what can't be honoured:\n  `ports` (line 3)\n  `vscode` (line 9)",
            "in one message"
        );
    }
}

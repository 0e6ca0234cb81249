//! `hotbed recipe`: what another tool's environment file becomes. Looks at files, and asks no server.

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use domain::{Error, ImportKind, Result, TreePath};
use serde_json::json;

use super::Ctx;

#[derive(Subcommand)]
pub enum RecipeCommand {
    /// Show what an import gives: a `devcontainer.json`, a `.cursor/environment.json` or a `.gitpod.yml`.
    Import {
        /// The file, or the repository that holds it.
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Where the tree would lie in a sandbox.
        #[arg(long, default_value = "/workspace")]
        workspace: String,
    },
}

pub fn run(ctx: &Ctx, command: RecipeCommand) -> Result<ExitCode> {
    let RecipeCommand::Import { path, workspace } = command;
    let Found { kind, file, place, others } = find(&path)?;
    let read = |e: std::io::Error| Error::not_found(format!("read {}", file.display())).caused_by(e);
    let bytes = std::fs::read(&file).map_err(read)?;
    let imported = match config::import(kind, &place, &bytes, &workspace) {
        Ok(imported) => imported,
        Err(errors) if ctx.out.json => {
            ctx.out.print_json(&errors.to_json())?;
            return Ok(ExitCode::FAILURE);
        }
        Err(errors) => return Err(Error::invalid(errors.to_string())),
    };
    if ctx.out.json {
        let shown = json!({
            "import": {kind.as_str(): place},
            "image": config::recipe_json(&imported.part),
            "unsupported": imported.unsupported,
        });
        ctx.out.print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("# What {place} gives. `base: {{ {}: {place} }}` does the same.", kind.as_str());
    for other in others {
        println!("# There is also {}: name it to see what it gives.", other.display());
    }
    println!("image:");
    print!("{}", config::recipe_yaml(&imported.part, 2));
    if !imported.unsupported.is_empty() {
        println!("# What can't be honoured:");
        for line in &imported.unsupported {
            println!("#   {line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Found {
    kind: ImportKind,
    file: PathBuf,
    /// The file within its repository.
    place: TreePath,
    /// Files of other tools beside it.
    others: Vec<PathBuf>,
}

fn find(path: &Path) -> Result<Found> {
    let nothing = || {
        let places: Vec<_> =
            ImportKind::ALL.iter().flat_map(|k| k.places()).map(|p| format!("`{p}`")).collect();
        Error::not_found(format!("{} holds none of {}", path.display(), places.join(", ")))
    };
    if path.is_dir() {
        let places =
            ImportKind::ALL.into_iter().flat_map(|kind| kind.places().iter().map(move |p| (kind, *p)));
        let mut there = places.filter(|(_, place)| path.join(place).is_file());
        let (kind, place) = there.next().ok_or_else(nothing)?;
        let others = there.map(|(_, place)| path.join(place)).collect();
        return Ok(Found { kind, file: path.join(place), place: tree_path(place)?, others });
    }
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let kind = match name {
        "environment.json" => ImportKind::Cursor,
        ".gitpod.yml" | ".gitpod.yaml" => ImportKind::Gitpod,
        name if name.ends_with(".json") => ImportKind::Devcontainer,
        _ => {
            return Err(Error::invalid(format!(
                "{}: expected a `devcontainer.json`, an `environment.json` or a `.gitpod.yml`",
                path.display()
            )));
        }
    };
    // The repository is what holds the tool's own directory, or the file.
    let parts: Vec<&str> = path
        .components()
        .filter_map(|c| if let Component::Normal(part) = c { part.to_str() } else { None })
        .collect();
    let begin =
        parts.iter().rposition(|p| matches!(*p, ".devcontainer" | ".cursor")).unwrap_or(parts.len() - 1);
    Ok(Found {
        kind,
        file: path.to_owned(),
        place: tree_path(&parts[begin..].join("/"))?,
        others: Vec::new(),
    })
}

fn tree_path(text: &str) -> Result<TreePath> {
    text.parse().map_err(|e| Error::invalid("name a file of a repository").caused_by(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_repository_is_found_and_the_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = find(dir.path()).err().unwrap().to_string();
        assert!(nothing.contains("`.devcontainer/devcontainer.json`, `.devcontainer.json`"), "{nothing}");
        for file in [".gitpod.yml", ".devcontainer/devcontainer.json"] {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "{}").unwrap();
        }
        let found = find(dir.path()).unwrap();
        assert_eq!(
            (found.kind, found.place.as_str()),
            (ImportKind::Devcontainer, ".devcontainer/devcontainer.json")
        );
        assert_eq!(found.others, [dir.path().join(".gitpod.yml")]);
    }

    #[test]
    fn a_file_has_its_place_in_its_repository() {
        for (path, kind, place) in [
            (
                "/x/.devcontainer/py/devcontainer.json",
                ImportKind::Devcontainer,
                ".devcontainer/py/devcontainer.json",
            ),
            ("/x/.devcontainer.json", ImportKind::Devcontainer, ".devcontainer.json"),
            (".cursor/environment.json", ImportKind::Cursor, ".cursor/environment.json"),
            ("../y/.gitpod.yml", ImportKind::Gitpod, ".gitpod.yml"),
        ] {
            let found = find(Path::new(path)).unwrap();
            assert_eq!((found.kind, found.place.as_str()), (kind, place), "{path}");
        }
        assert!(find(Path::new("/x/compose.yaml")).is_err());
    }
}

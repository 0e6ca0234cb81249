//! The configuration from outside: what is refused and in which words (golden files in `refused/`), what is accepted
//! and becomes what, whether schema and parser agree, and that no input panics. `UPDATE=1` rewrites the golden files
//! and `docs/configuration.md`; those of `imports/` too, what comes of other tools' files.

mod accepted;
mod agree;
mod any_input;
mod imports;
mod recipe_file;
mod refused;

use std::path::{Path, PathBuf};

use config::{Config, ConfigErrors};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "hotbed.yaml", &here("tests"))
}

/// Compares a file with what it should hold; with `UPDATE=1` writes it.
fn hold(path: &Path, wanted: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, wanted).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} differs (UPDATE=1 rewrites it)\n--- it holds\n{found}\n--- it should hold\n{wanted}",
        path.display()
    );
}

//! Who commits in this sandbox: the person who prompted last, with everybody else who prompted as co-author.
//!
//! A coding agent may run for hours while people take turns in front of it, so identity is not in the environment of
//! what runs but in a file that git reads each time. Two variables lead there: `GIT_CONFIG_COUNT` has git include the
//! file, over what the user's and the repository's configuration say, and forbids it to guess a name. What takes another
//! environment (`sudo`, `su -`) finds the file through the system's configuration.
//!
//! Nothing of it is there before a session is bound, nor in an image that is built.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use domain::wire::{Bind, SESSION_DIR};
use domain::{Error, Identity, Result};

use crate::hooks;

/// What git would take before any configuration.
const BEFORE_CONFIG: [&str; 5] =
    ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"];
const SYSTEM: &str = "/etc/gitconfig";

/// The files of one session, in a directory of their own.
#[derive(Debug, Clone)]
pub struct Who {
    dir: PathBuf,
}

impl Who {
    /// Empties the directory: whoever was here is gone. Where the files of this sandbox are its own, the system's git
    /// configuration is made to include what will be there.
    pub fn new(dir: &str) -> Self {
        let who = Self { dir: dir.into() };
        if let Err(e) = who.begin() {
            eprintln!("hotbed-agent: prepare {dir}: {e}");
        }
        who
    }

    fn begin(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir_all(&self.dir)?,
        }
        if self.dir == Path::new(SESSION_DIR) {
            include_in(Path::new(SYSTEM), &self.config())
        } else {
            Ok(())
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.join("gitconfig")
    }

    /// Writes down who commits from now on.
    pub fn tell(&self, bind: &Bind) -> Result<()> {
        let Some(identity) = &bind.identity else { return Ok(()) };
        let failed = |e: io::Error| Error::permanent("write down who commits").caused_by(e);
        let together = !bind.co_authors.is_empty();
        if together {
            let lines: String = bind.co_authors.iter().map(|who| format!("{}\n", address(who))).collect();
            replace(&self.dir.join(hooks::CO_AUTHORS), &lines).map_err(failed)?;
            hooks::install(&self.dir.join(hooks::DIR)).map_err(failed)?;
        }
        let hooks = together.then(|| self.dir.join(hooks::DIR));
        replace(&self.config(), &config(identity, hooks.as_deref())).map_err(failed)
    }

    /// Has git read it, whatever the environment said before. What the session or the request sets itself comes after this
    /// and counts.
    pub fn clear(env: &mut BTreeMap<String, String>) {
        for name in BEFORE_CONFIG {
            env.remove(name);
        }
    }

    /// The last word on configuration, after what `env` brings along itself.
    pub fn lead(&self, env: &mut BTreeMap<String, String>) {
        let count = env.get("GIT_CONFIG_COUNT").and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let config = self.config().to_string_lossy().into_owned();
        let ours = [("include.path", config), ("user.useConfigOnly", "true".to_owned())];
        for (n, (key, value)) in (count..).zip(ours) {
            env.insert(format!("GIT_CONFIG_KEY_{n}"), key.to_owned());
            env.insert(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        env.insert("GIT_CONFIG_COUNT".into(), (count + 2).to_string());
    }
}

fn address(who: &Identity) -> String {
    format!("{} <{}>", who.name, who.email)
}

fn config(identity: &Identity, hooks: Option<&Path>) -> String {
    let mut text = String::from("# Written by Hotbed whenever somebody prompts.\n");
    // Each on its own: `author.name` of another file would go before `user.name` of this one.
    for section in ["user", "author", "committer"] {
        let (name, email) = (quoted(&identity.name), quoted(&identity.email));
        text += &format!("[{section}]\n\tname = {name}\n\temail = {email}\n");
    }
    if let Some(hooks) = hooks {
        text += &format!("[core]\n\thooksPath = {}\n", quoted(&hooks.to_string_lossy()));
    }
    text
}

/// A value of git's configuration, whatever is in it.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' | '\r' | '\0' => text.push(' '),
            c => text.push(c),
        }
    }
    text + "\""
}

/// Whoever reads sees the old text or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

/// Once; what is there already stays as it is.
fn include_in(system: &Path, config: &Path) -> io::Result<()> {
    let include = format!("[include]\n\tpath = {}\n", config.display());
    let mut text = match fs::read_to_string(system) {
        Ok(text) if text.contains(&include) => return Ok(()),
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    replace(system, &(text + &include))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_one_value() {
        assert_eq!(quoted(r#"A "B" \ # ; C"#), r#""A \"B\" \\ # ; C""#);
        assert_eq!(quoted("a\n[core]"), "\"a [core]\"");
    }

    #[test]
    fn the_systems_configuration_includes_it_once() {
        let dir = tempfile::tempdir().unwrap();
        let (system, config) = (dir.path().join("gitconfig"), Path::new("/run/x/gitconfig"));
        fs::write(&system, "[safe]\n\tdirectory = *").unwrap();
        include_in(&system, config).unwrap();
        include_in(&system, config).unwrap();
        let text = fs::read_to_string(&system).unwrap();
        assert_eq!(text, "[safe]\n\tdirectory = *\n[include]\n\tpath = /run/x/gitconfig\n");
    }

    #[test]
    fn what_the_environment_configures_itself_stays() {
        let who = Who { dir: "/run/x".into() };
        let mut env: BTreeMap<String, String> = [
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "user.name"),
            ("GIT_CONFIG_VALUE_0", "the session's own"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        who.lead(&mut env);
        assert_eq!(env["GIT_CONFIG_COUNT"], "3");
        assert_eq!(env["GIT_CONFIG_KEY_0"], "user.name");
        assert_eq!(env["GIT_CONFIG_VALUE_1"], "/run/x/gitconfig");
        assert_eq!(env["GIT_CONFIG_KEY_2"], "user.useConfigOnly");
    }
}

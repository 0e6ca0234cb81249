//! The directory that holds the mirrors: its hooks, and what a crash may have left in it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use domain::RepoName;

use super::second_try;

/// Pushes what arrived on to upstream, before the mirror's own reference moves: when upstream refuses, the mirror
/// stays as it is and the sandbox reads upstream's words.
///
/// Before that Hotbed looks at what arrived ([`crate::look`]): it is told where the objects are, over a pipe, and answers
/// over another. Without an answer nothing is pushed.
///
/// The objects lie in quarantine still. `git push` finds them through `GIT_OBJECT_DIRECTORY`, which is
/// inherited; the mark of the quarantine itself is taken off, because upstream may be a path on this machine,
/// and its git would refuse to move references then. The lease makes upstream compare and swap. A `+` before the
/// new id would defeat it.
///
/// Where upstream does not believe the authority, another one is asked for through the pipes of
/// [`SecondTry`](super::second_try::SecondTry), and it is pushed again. The configuration is in the environment, where
/// the header takes the place of the old one; it is on no command line.
const PRE_RECEIVE: &str = r#"#!/bin/sh
# Written by Hotbed at each start; changes are lost.
printf '%s\n' "$GIT_OBJECT_DIRECTORY" >&3 || exit 1
exec 3>&-
IFS= read -r verdict <&4 || verdict=
cat <&4 >&2
exec 4<&-
[ "$verdict" = good ] || exit 1
unset GIT_QUARANTINE_PATH
pipes=$HOTBED_SECOND_TRY
unset HOTBED_SECOND_TRY
set --
while read -r old new ref; do
    case $old in
    *[!0]*) ;;
    *) old= ;;
    esac
    set -- "$@" "--force-with-lease=$ref:$old" "$new:$ref"
done
push_on() {
    git push --quiet --no-verify --no-follow-tags --recurse-submodules=no upstream "$@" 2>&1
}
not_believed() {
    case $1 in
    *'Authentication failed'* | *'returned error: 401'* | *'Invalid username or'*) ;;
    # Without the first authority git would ask somebody, and nobody is there.
    *'could not read Username'* | *'could not read Password'* | *'unable to get password from user'*) ;;
    *) return 1 ;;
    esac
}
said=$(push_on "$@")
status=$?
if [ $status -ne 0 ] && [ -n "$pipes" ] && not_believed "$said"; then
    timeout --foreground 60 sh -c 'echo >"$1"' sh "$pipes/ask"
    header=$(timeout --foreground 60 head -n 1 "$pipes/answer")
    case $header in
    Authorization:*)
        at=0
        while eval "[ \"\${GIT_CONFIG_KEY_$at-http.extraHeader}\" != http.extraHeader ]"; do
            at=$((at + 1))
        done
        export "GIT_CONFIG_VALUE_$at=$header"
        said=$(push_on "$@")
        status=$?
        ;;
    *)
        said="$said
${header:-there was no other authority in time: push again}"
        ;;
    esac
fi
case $status:$said in
0:*) ;;
*'unable to access'* | *'hung up'* | *'RPC failed'* | *'early EOF'* | *'unexpected disconnect'*)
    said="$said
upstream could not be reached to the end: the commits are kept where they are, push again"
    ;;
esac
[ -z "$said" ] || printf '%s\n' "$said" >&2
exit $status
"#;

/// Makes the directory, writes the hooks, removes what is half done. Answers where the hooks are.
pub(super) fn prepare(dir: &Path) -> io::Result<PathBuf> {
    // No repository's owner begins with a dot.
    let hooks = dir.join(".hooks");
    fs::create_dir_all(&hooks)?;
    let (hook, new) = (hooks.join("pre-receive"), hooks.join("pre-receive.new"));
    fs::write(&new, PRE_RECEIVE)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, &hook)?;
    for left in directories(&hooks)?.iter().filter(|d| name(d).starts_with(second_try::PREFIX)) {
        fs::remove_dir_all(left)?;
    }
    for owner in directories(dir)? {
        if owner == hooks {
            continue;
        }
        for mirror in directories(&owner)? {
            if name(&mirror).starts_with('.') {
                fs::remove_dir_all(&mirror)?;
            } else {
                tidy(&mirror)?;
            }
        }
    }
    Ok(hooks)
}

/// Where a mirror lies while it is made.
pub(super) fn making(mirror: &Path) -> PathBuf {
    mirror.with_file_name(format!(".{}.making", name(mirror)))
}

/// The repositories that have a mirror.
pub(super) fn mirrors(dir: &Path) -> io::Result<Vec<RepoName>> {
    let mut found = Vec::new();
    for owner in directories(dir)? {
        for mirror in directories(&owner)? {
            let (owner, mirror) = (name(&owner), name(&mirror));
            let repo = mirror.strip_suffix(".git").and_then(|repo| format!("{owner}/{repo}").parse().ok());
            found.extend(repo);
        }
    }
    Ok(found)
}

/// Takes a mirror out of its place; answers where it is now, if there was one. What is left there is removed at the
/// next start.
pub(super) fn put_aside(mirror: &Path) -> io::Result<Option<PathBuf>> {
    let aside = mirror.with_file_name(format!(".{}.gone", name(mirror)));
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    match fs::rename(mirror, &aside) {
        Ok(()) => Ok(Some(aside)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Removes the locks, quarantines and half-written packs of git commands that were killed.
fn tidy(mirror: &Path) -> io::Result<()> {
    for entry in fs::read_dir(mirror)? {
        let path = entry?.path();
        if name(&path).ends_with(".lock") {
            fs::remove_file(&path)?;
        }
    }
    remove_locks(&mirror.join("refs"))?;
    for entry in entries(&mirror.join("objects"))? {
        if name(&entry).starts_with("tmp_objdir-") {
            fs::remove_dir_all(&entry)?;
        }
    }
    for entry in entries(&mirror.join("objects/pack"))? {
        if name(&entry).starts_with("tmp_") {
            fs::remove_file(&entry)?;
        }
    }
    Ok(())
}

fn remove_locks(dir: &Path) -> io::Result<()> {
    for entry in entries(dir)? {
        if entry.is_dir() {
            remove_locks(&entry)?;
        } else if name(&entry).ends_with(".lock") {
            fs::remove_file(&entry)?;
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| Ok(e?.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn directories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(|p| p.is_dir()).collect())
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().map_or("".into(), |n| n.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let mirror = root.path().join("acme/api.git");
        let left = [
            "packed-refs.lock",
            "refs/heads/x/y.lock",
            "objects/tmp_objdir-incoming-1/pack/p",
            "objects/pack/tmp_pack_1",
        ];
        let stays = ["HEAD", "refs/heads/x/y", "objects/pack/pack-1.pack"];
        for file in left.iter().chain(&stays) {
            let path = mirror.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let making = making(&mirror);
        fs::create_dir_all(&making).unwrap();
        let pipes = root.path().join(".hooks").join(format!("{}7", second_try::PREFIX));
        fs::create_dir_all(&pipes).unwrap();
        let hooks = prepare(root.path()).unwrap();
        assert!(!making.exists() && !pipes.exists());
        for file in left {
            assert!(!mirror.join(file).exists(), "{file}");
        }
        for file in stays {
            assert!(mirror.join(file).exists(), "{file}");
        }
        let mode = fs::metadata(hooks.join("pre-receive")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        prepare(root.path()).unwrap();
    }
}

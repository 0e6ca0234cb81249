//! Files and trees of a commit, read from the mirror.

use std::collections::BTreeMap;
use std::io::Read;

use domain::ports::Mirrors;
use domain::{CommitId, ErrorKind, TreePath};

use crate::world::*;

fn path(text: &str) -> TreePath {
    text.parse().unwrap()
}

/// A tree with a file, a program, a link, a directory and something large.
async fn grown() -> (World, CommitId) {
    let w = World::new().await;
    let script = r#"
        set -eu
        git clone -q "$1" work && cd work
        mkdir -p docker/deep && echo FROM x > docker/Dockerfile && echo deep > docker/deep/file
        printf '#!/bin/sh\n' > run.sh && chmod 755 run.sh
        ln -s /etc/passwd link && ln -s docker dir-link
        head -c 100000 /dev/zero > large.bin
        git add -A && git -c user.name=a -c user.email=a@b commit -q -m grow && git push -q origin HEAD:main
    "#;
    let dir = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(w.upstream.path())
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    w.mirrors.refresh(&repo()).await.unwrap();
    let tip = w.mirrors.tip(&repo(), &branch("main")).await.unwrap().unwrap();
    (w, tip)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_commit_is_read_without_following_anything() {
    let (w, tip) = grown().await;
    let read = async |p: &str, limit| w.mirrors.read(&repo(), &tip, &path(p), limit).await;
    assert_eq!(read("docker/Dockerfile", 100).await.unwrap().unwrap(), "FROM x\n");
    assert_eq!(read("none", 100).await.unwrap(), None);
    assert_eq!(read("docker/none/x", 100).await.unwrap(), None);
    for (p, why) in [
        ("large.bin", "100000 bytes"),
        ("link", "a symbolic link"),
        ("docker", "a directory"),
        (".", "a directory"),
    ] {
        let error = read(p, 1000).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{p}");
        assert!(error.to_string().contains(why), "{p}: {error}");
    }
    // Nothing is found below a link, which may lead anywhere.
    assert_eq!(read("dir-link/Dockerfile", 100).await.unwrap(), None);
    let unknown: CommitId = "0".repeat(40).parse().unwrap();
    assert_eq!(w.mirrors.read(&repo(), &unknown, &path("README"), 100).await.unwrap(), None);
}

/// F26: equal for equal content and mode, and for nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_at_a_path_is_named_by_its_content() {
    let (w, tip) = grown().await;
    let later = commit(&w.upstream, "main", "README", "later");
    w.mirrors.refresh(&repo()).await.unwrap();
    let id = async |at: &CommitId, p: &str| w.mirrors.identify(&repo(), at, &path(p)).await.unwrap();
    for p in ["docker", "docker/Dockerfile", "run.sh", "link"] {
        let name = id(&tip, p).await.unwrap();
        assert_eq!(Some(name), id(&later, p).await, "{p}");
    }
    assert_ne!(id(&tip, ".").await, id(&later, ".").await);
    assert_ne!(id(&tip, "docker").await, id(&tip, "docker/deep").await);
    assert_eq!(id(&tip, "none").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_holds_what_is_wanted_and_is_the_same_each_time() {
    let (w, tip) = grown().await;
    let archive = async |dir: &str, name: &str, without: &'static str| {
        let to = w.dir.path().join(name);
        let wanted = Box::new(move |p: &str| !p.starts_with(without));
        w.mirrors.archive(&repo(), &tip, &path(dir), wanted, to.clone()).await.map(|()| to)
    };
    let entries = |file: &std::path::Path| {
        let mut found = BTreeMap::new();
        let mut tar = tar::Archive::new(std::fs::File::open(file).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let link = entry.link_name().unwrap().map(|l| l.display().to_string());
            found.insert(name, (entry.header().mode().unwrap(), link, text.len()));
        }
        found
    };
    let whole = archive(".", "a.tar", "large").await.unwrap();
    let found = entries(&whole);
    assert_eq!(found["run.sh"], (0o755, None, 10));
    assert_eq!(found["docker/Dockerfile"], (0o644, None, 7));
    assert_eq!(found["link"], (0o777, Some("/etc/passwd".into()), 0));
    assert!(found.contains_key("docker/") && !found.contains_key("large.bin"), "{found:?}");
    let again = archive(".", "b.tar", "large").await.unwrap();
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&again).unwrap());
    let below = entries(&archive("docker", "c.tar", "-").await.unwrap());
    assert_eq!(below.keys().collect::<Vec<_>>(), ["Dockerfile", "deep/", "deep/file"]);
    for dir in ["none", "run.sh"] {
        assert_eq!(archive(dir, "d.tar", "-").await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

//! A base from packages, made for real: it needs mmdebstrap, root, and a package archive that answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docker::rootfs::RootfsCache;
use domain::{Base, ErrorKind};

fn base(suite: &str, include: &[&str]) -> Base {
    Base::Packages { suite: suite.into(), include: include.iter().map(|s| (*s).to_owned()).collect() }
}

/// Names in a tar file, with the sizes.
fn names(tar: &std::path::Path) -> BTreeMap<String, u64> {
    let mut tar = tar::Archive::new(std::fs::File::open(tar).unwrap());
    let entries = tar.entries().unwrap().map(|e| e.unwrap());
    entries.map(|e| (format!("/{}", e.path().unwrap().display()).replace("/./", "/"), e.size())).collect()
}

fn left_of_work(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| !name.ends_with(".tar")).collect()
}

#[tokio::test]
async fn a_base_is_made_once_of_this_machines_packages() {
    let dir = tempfile::tempdir().unwrap();
    let cache = RootfsCache::new(dir.path().join("cache"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = heard.clone();
    let progress: docker::rootfs::Progress = Arc::new(move |line| into.lock().unwrap().push(line.to_owned()));
    let wanted = base("bookworm", &[]);
    let (one, two) =
        tokio::join!(cache.build(&wanted, progress.clone()), cache.build(&wanted, progress.clone()));
    let one = one.unwrap_or_else(|e| panic!("this test needs mmdebstrap and an archive: {}", e.chain()));
    assert_eq!(one, two.unwrap());
    let lines = heard.lock().unwrap().len();
    assert!(lines > 3, "progress is told");

    // Again, by another process as it were: nothing runs.
    let again = RootfsCache::new(dir.path().join("cache")).build(&wanted, progress).await.unwrap();
    assert_eq!(again, one);
    assert_eq!(heard.lock().unwrap().len(), lines);
    assert_eq!(left_of_work(&dir.path().join("cache")), [] as [&str; 0]);

    let names = names(&one.tar);
    for there in ["/usr/bin/git", "/etc/ssl/certs/ca-certificates.crt", "/usr/bin/apt-get", "/bin/sh"] {
        // Merged directories are links, so the shell is at its real place.
        let real = there.replace("/bin/sh", "/usr/bin/sh").replace("/usr/usr", "/usr");
        assert!(names.contains_key(&real), "{real}");
    }
    assert!(names.keys().any(|n| n.starts_with("/etc/apt/sources.list.d/") && n.ends_with(".sources")));
    assert!(names.contains_key("/usr/share/man/man1/"), "packages link into it");
    assert!(!names.contains_key("/usr/share/man/man1/git.1.gz"), "manual pages");
    assert!(names.contains_key("/usr/share/doc/git/copyright"));
}

#[tokio::test]
async fn a_build_that_fails_or_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let quiet: docker::rootfs::Progress = Arc::new(|_| {});
    let wanted = base("bookworm", &["no-such-package-at-all"]);
    let error = RootfsCache::new(dir.path()).build(&wanted, quiet.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.context().contains("no-such-package-at-all"), "the tool's own words: {error}");

    let hurried = RootfsCache::with_deadline(dir.path(), Duration::from_millis(700));
    let error = hurried.build(&base("bookworm", &[]), quiet.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");

    let cache = RootfsCache::new(dir.path());
    let wanted = base("bookworm", &[]);
    let dropped = tokio::time::timeout(Duration::from_millis(700), cache.build(&wanted, quiet)).await;
    assert!(dropped.is_err());
    let bound = tokio::time::Instant::now() + Duration::from_secs(20);
    // The work directory of a dropped call is removed behind it.
    while !left_of_work(dir.path()).is_empty() {
        assert!(tokio::time::Instant::now() < bound, "{:?}", left_of_work(dir.path()));
        tokio::task::yield_now().await;
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Takes down what a test has mounted, however it ends.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &std::path::Path) {
    let mounted = std::process::Command::new("mount").args(args).arg(at).status().unwrap();
    assert!(mounted.success(), "this test needs root: mount {args:?} {}", at.display());
}

#[tokio::test]
async fn what_a_killed_tool_left_mounted_is_taken_down_and_its_origin_stays() {
    let dir = tempfile::tempdir().unwrap();
    // In the place of the machine's own /dev: a mount with another in it, and shared, as those are.
    let machine = dir.path().join("machine dev");
    std::fs::create_dir(&machine).unwrap();
    mount(&["-t", "tmpfs", "hotbed-test"], &machine);
    let _machine = Mounted(machine.clone());
    mount(&["--make-shared"], &machine);
    let pts = machine.join("pts");
    std::fs::create_dir(&pts).unwrap();
    mount(&["-t", "tmpfs", "hotbed-test"], &pts);
    std::fs::write(pts.join("kept"), "kept").unwrap();

    let cache = dir.path().join("cache");
    let left = cache.join(".work-left/root");
    std::fs::create_dir_all(left.join("dev")).unwrap();
    let _left = Mounted(left.join("dev"));
    mount(&["--rbind", machine.to_str().unwrap()], &left.join("dev"));
    std::fs::write(left.join("file"), "x").unwrap();
    assert!(left.join("dev/pts/kept").exists());

    RootfsCache::new(&cache).sweep().await;
    assert!(!cache.join(".work-left").exists());
    assert_eq!(std::fs::read_to_string(pts.join("kept")).unwrap(), "kept");
}

//! What changed between two images.

use std::collections::BTreeMap;

use domain::ports::TreeEntry;
use image_builder::{Change, Comparison, Difference, Inventory, PackageKind, Tally, tells_packages};
use proptest::prelude::*;

fn entry(path: &str, content: &str) -> TreeEntry {
    let mut print = [0; 16];
    for (i, byte) in content.bytes().enumerate() {
        print[i % 16] ^= byte.rotate_left(u32::try_from(i % 8).unwrap());
    }
    let wanted = tells_packages(path.as_bytes());
    let content_of = wanted.then(|| content.to_owned().into());
    TreeEntry { path: path.into(), size: content.len() as u64, print, content: content_of }
}

fn compare(before: &[(&str, &str)], after: &[(&str, &str)], most: usize) -> Difference {
    let mut inventory = Inventory::default();
    before.iter().for_each(|(path, content)| inventory.add(entry(path, content)).unwrap());
    let mut comparison = Comparison::new(inventory, most);
    after.iter().for_each(|(path, content)| comparison.add(entry(path, content)));
    comparison.finish()
}

#[test]
fn files_are_counted_and_the_largest_are_named() {
    let before = [("/same", "same"), ("/grown", "1"), ("/gone", "12345"), ("/z", "zz")];
    let after = [("/same", "same"), ("/grown", "123"), ("/new", "1234567"), ("/z", "yy")];
    let found = compare(&before, &after, 10);
    assert_eq!(found.added, Tally { files: 1, bytes: 7 });
    assert_eq!(found.changed, Tally { files: 2, bytes: 5 });
    assert_eq!(found.removed, Tally { files: 1, bytes: 5 });
    let named: Vec<_> = found.files.iter().map(|f| (f.path.as_str(), f.change)).collect();
    let all = [
        ("/new", Change::Added),
        ("/gone", Change::Removed),
        ("/grown", Change::Changed),
        ("/z", Change::Changed),
    ];
    assert_eq!(named, all);
    assert_eq!((found.files[2].size_before, found.files[2].size_after), (Some(1), Some(3)));
    let bounded = compare(&before, &after, 2);
    assert_eq!(bounded.files, found.files[..2]);
    assert_eq!(bounded.changed, found.changed, "sums are of all");
    assert_eq!(compare(&after, &after, 10), Difference::default());
}

#[test]
fn packages_are_compared_by_their_versions() {
    let dpkg = |git: &str| format!("Package: git\nStatus: install ok installed\nVersion: {git}\n");
    let venv = "/opt/venv/lib/python3.11/site-packages";
    let old = format!("{venv}/iniconfig-1.1.1.dist-info/METADATA");
    let new = format!("{venv}/iniconfig-2.0.0.dist-info/METADATA");
    let lock = "/workspace/node_modules/.package-lock.json";
    let ms = r#"{"packages": {"node_modules/ms": {"version": "2.1.3"}}}"#;
    let (one, two) = (dpkg("2.39"), dpkg("2.47"));
    let found = compare(
        &[("/var/lib/dpkg/status", one.as_str()), (old.as_str(), "")],
        &[("/var/lib/dpkg/status", two.as_str()), (new.as_str(), ""), (lock, ms)],
        0,
    );
    let changes: Vec<_> = found
        .packages
        .iter()
        .map(|p| format!("{} {} {} -> {}", p.kind, p.name, p.before.join(","), p.after.join(",")))
        .collect();
    assert_eq!(changes, ["dpkg git 2.39 -> 2.47", "pip iniconfig 1.1.1 -> 2.0.0", "npm ms  -> 2.1.3"]);
    assert_eq!(found.kinds, [PackageKind::Dpkg, PackageKind::Pip, PackageKind::Npm]);
    assert!(found.files.is_empty() && !found.more_packages);
}

#[test]
fn a_list_that_is_too_long_to_read_is_named() {
    let mut inventory = Inventory::default();
    inventory.add(TreeEntry { content: None, ..entry("/var/lib/dpkg/status", "long") }).unwrap();
    let found = Comparison::new(inventory, 0).finish();
    assert_eq!(found.unread, ["/var/lib/dpkg/status"]);
    assert_eq!(found.kinds, [PackageKind::Dpkg]);
}

type Tree = BTreeMap<String, String>;

fn tree() -> impl Strategy<Value = Tree> {
    proptest::collection::btree_map("/[a-d]{1,2}", "[xy]{0,3}", 0..12)
}

proptest! {
    /// In whatever order the files come: the sums are those of the sets, and the list is its largest part.
    #[test]
    fn it_agrees_with_sets(before in tree(), after in tree(), most in 0usize..8, backwards: bool) {
        let list = |of: &Tree| -> Vec<(String, String)> {
            let all: Vec<_> = of.iter().map(|(p, c)| (p.clone(), c.clone())).collect();
            if backwards { all.into_iter().rev().collect() } else { all }
        };
        let (old, new) = (list(&before), list(&after));
        let found = compare(
            &old.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect::<Vec<_>>(),
            &new.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect::<Vec<_>>(),
            most,
        );
        let added: Vec<_> = after.iter().filter(|(p, _)| !before.contains_key(*p)).collect();
        let removed: Vec<_> = before.iter().filter(|(p, _)| !after.contains_key(*p)).collect();
        let changed: Vec<_> = after.iter().filter(|(p, c)| before.get(*p).is_some_and(|b| b != *c)).collect();
        let tally = |of: &[(&String, &String)]| Tally {
            files: of.len() as u64,
            bytes: of.iter().map(|(_, c)| c.len() as u64).sum(),
        };
        prop_assert_eq!(found.added, tally(&added));
        prop_assert_eq!(found.removed, tally(&removed));
        prop_assert_eq!(found.changed, tally(&changed));
        prop_assert_eq!(found.files.len(), most.min(added.len() + removed.len() + changed.len()));
        let sizes: Vec<_> = found.files.iter().map(|f| f.size_before.max(f.size_after)).collect();
        prop_assert!(sizes.is_sorted_by(|a, b| a >= b), "{:?}", sizes);
    }
}

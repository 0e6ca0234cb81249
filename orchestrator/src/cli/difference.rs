//! What changed between two images, in words.

use std::fmt::Write;

use super::output::{bytes, short};
use crate::api::types::{CommitsView, ImageDiffView, ImageView, TallyView};

pub fn text(d: &ImageDiffView) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(d, &mut out);
    out
}

fn write(d: &ImageDiffView, out: &mut String) -> std::fmt::Result {
    let image = |i: &ImageView| {
        format!("{}, generation {}, at {}, {}", i.id, i.generation, short(Some(&i.commit)), bytes(i.size))
    };
    writeln!(out, "from  {}\n  to  {}", image(&d.from), image(&d.to))?;
    let (sign, size) = (if d.size_change < 0 { "-" } else { "+" }, bytes(d.size_change.unsigned_abs()));
    writeln!(out, "\nSize: {sign}{size}")?;

    commits("Commits", &d.commits, out)?;
    if d.commits_gone.count.is_some_and(|n| n > 0) {
        commits("Commits that are gone", &d.commits_gone, out)?;
    }

    let known = match d.packages.known.as_slice() {
        [] => "no kind of them is known in these images".to_owned(),
        known => format!("known: {}", known.join(", ")),
    };
    writeln!(out, "\nPackages: {} changed ({known})", d.packages.changes.len())?;
    for change in &d.packages.changes {
        let versions = |of: &[String]| if of.is_empty() { "-".to_owned() } else { of.join(", ") };
        let (before, after) = (versions(&change.before), versions(&change.after));
        writeln!(out, "  {} {}  {before} -> {after}", change.kind, change.name)?;
    }
    if d.packages.more {
        writeln!(out, "  and more")?;
    }
    for list in &d.packages.unread {
        writeln!(out, "  not read, because it is too long: {list}")?;
    }

    let tally = |t: &TallyView| format!("{} ({})", t.files, bytes(t.bytes));
    let f = &d.files;
    let (added, changed, removed) = (tally(&f.added), tally(&f.changed), tally(&f.removed));
    writeln!(out, "\nFiles: {added} added, {changed} changed, {removed} removed")?;
    for file in &f.largest {
        let size = match (file.size_before, file.size_after) {
            (Some(before), Some(after)) if before != after => {
                format!("{} -> {}", bytes(before), bytes(after))
            }
            (before, after) => bytes(after.or(before).unwrap_or(0)),
        };
        writeln!(out, "  {:<7}  {}  {size}", file.change, file.path.escape_debug())?;
    }
    let all = f.added.files + f.changed.files + f.removed.files;
    if (f.largest.len() as u64) < all {
        writeln!(out, "  the {} largest of {all}", f.largest.len())?;
    }
    Ok(())
}

fn commits(head: &str, of: &CommitsView, out: &mut String) -> std::fmt::Result {
    let Some(count) = of.count else {
        return writeln!(out, "\n{head}: not known (the mirror does not have both, or they are unrelated)");
    };
    writeln!(out, "\n{head}: {count}")?;
    for commit in &of.newest {
        writeln!(
            out,
            "  {}  {}  {}",
            short(Some(&commit.id)),
            commit.author.escape_debug(),
            commit.subject.escape_debug()
        )?;
    }
    if of.newest.len() < count as usize {
        writeln!(out, "  the {} newest", of.newest.len())?;
    }
    Ok(())
}

//! `hotbed backup` and `hotbed restore`: the state directory as one file, and back.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use domain::{Clock as _, Error, Result, SystemClock};
use serde_json::json;
use store::backup::{self, Manifest};

use super::{Ctx, load, output::bytes};

#[derive(Args)]
pub struct BackupArgs {
    /// Where the copy is written; `-` is standard output. A file that is there is not overwritten.
    file: PathBuf,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// A file that `hotbed backup` has written, or the copy of the database that an upgrade has left (`hotbed.vN.db`).
    #[arg(required_unless_present = "release")]
    file: Option<PathBuf>,
    /// Put what is there aside, into `before-restore-TIME` in the state directory.
    #[arg(long)]
    replace: bool,
    /// Say that what was found without a record after a restore may be removed. At the next start it is.
    #[arg(long, conflicts_with_all = ["file", "replace"])]
    release: bool,
}

pub async fn backup(ctx: &Ctx, args: BackupArgs) -> Result<()> {
    let dir = state_dir(ctx)?;
    let to = args.file.clone();
    let manifest = blocking(move || {
        if to.as_os_str() == "-" {
            return backup::take(&dir, BufWriter::new(io::stdout().lock()), VERSION, SystemClock.now());
        }
        into_file(&dir, &to)
    })
    .await?;
    let said = json!({
        "file": args.file,
        "files": manifest.files.len(),
        "bytes": manifest.size(),
        "schema": manifest.schema,
        "taken_at": manifest.taken_at,
    });
    if args.file.as_os_str() == "-" {
        // The copy is on standard output.
        eprintln!("{}", summary(&args.file, &manifest));
    } else if ctx.out.json {
        ctx.out.print_json(&said)?;
    } else {
        println!("{}", summary(&args.file, &manifest));
    }
    Ok(())
}

pub async fn restore(ctx: &Ctx, args: RestoreArgs) -> Result<()> {
    let dir = state_dir(ctx)?;
    let Some(file) = args.file else {
        let at = blocking(move || backup::release(&dir)).await?;
        println!("what was left alone since the restore at {at} is removed at the next start");
        return Ok(());
    };
    let from = file.clone();
    let into = dir.clone();
    let done = blocking(move || backup::restore(&into, &from, args.replace, SystemClock.now())).await?;
    if ctx.out.json {
        return ctx.out.print_json(&json!({
            "files": done.files,
            "schema": done.schema,
            "taken_at": done.taken_at,
            "aside": done.aside,
        }));
    }
    match done.taken_at {
        Some(at) => println!("{} holds the state of {at}, {} files", dir.display(), done.files),
        None => println!("{} holds the database of {}", dir.display(), file.display()),
    }
    if let Some(aside) = &done.aside {
        println!("what was there before: {}", aside.display());
    }
    println!(
        "sandboxes and snapshots made after that copy have no record in it; they are left alone until \
         `hotbed restore --release`"
    );
    Ok(())
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn summary(file: &Path, manifest: &Manifest) -> String {
    format!(
        "{}: {} files, {}, schema version {}",
        file.display(),
        manifest.files.len(),
        bytes(manifest.size()),
        manifest.schema
    )
}

/// Under another name until it is whole; readable by its owner alone, for it holds the installation's key.
fn into_file(dir: &Path, to: &Path) -> Result<Manifest> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |e| Error::permanent(format!("write {}", to.display())).caused_by(e);
    if to.exists() {
        return Err(Error::conflict(format!("{} is there already: name another file", to.display())));
    }
    let mut options = File::options();
    let out = options.write(true).create(true).truncate(true).mode(0o600).open(&partial).map_err(failed)?;
    let mut out = BufWriter::new(out);
    let taken = backup::take(dir, &mut out, VERSION, SystemClock.now()).and_then(|manifest| {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed)?;
        // Never over one that came meanwhile.
        std::fs::hard_link(&partial, to).map_err(failed)?;
        Ok(manifest)
    });
    let _ = std::fs::remove_file(&partial);
    taken
}

fn state_dir(ctx: &Ctx) -> Result<PathBuf> {
    Ok(load(&ctx.config)?.settings().state_dir.clone())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::permanent("copy the state directory").caused_by(e))?
}

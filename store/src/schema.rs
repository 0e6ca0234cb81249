//! The database's shape: versioned migrations, how connections are set up, and what is made once at first open.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::{Error, InstanceId, Result};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rusqlite_migration::{M, Migrations};

use crate::{failure, files};

/// Each entry is one version; entries are only ever added. `tests/schema_v1.sql` pins what the first one made.
const STEPS: &[M<'static>] = &[
    M::up(include_str!("schema_v1.sql")),
    M::up(include_str!("schema_sealed.sql")),
    M::up(include_str!("schema_cadence.sql")),
    M::up(include_str!("schema_demand.sql")),
    M::up(include_str!("schema_deliveries.sql")),
    M::up(include_str!("schema_absence.sql")),
    M::up(include_str!("schema_access.sql")),
    M::up(include_str!("schema_audit.sql")),
];

pub(crate) const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// Nothing inside one process makes another wait this long; it is there for a person with the `sqlite3` program.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// Opens a connection to a database whose file exists.
pub(crate) fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY)?;
        conn.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;")?;
        Ok(conn)
    };
    open().map_err(|e| failure::sql(format!("open database {}", path.display()), e))
}

/// A connection that can't write by mistake.
pub(crate) fn connect_reader(path: &Path) -> Result<Connection> {
    let conn = connect(path)?;
    conn.execute_batch("PRAGMA query_only=ON;")
        .map_err(|e| failure::sql(format!("open database {}", path.display()), e))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Opens the write connection and brings the database to this program's version. It is left with
/// `synchronous=FULL`; the writer switches as its batches ask.
pub(crate) fn connect_writer(path: &Path) -> Result<Connection> {
    let mut conn = connect(path)?;
    let context = || format!("set up database {}", path.display());
    // Checkpoints run on a thread of their own; see `checkpoint`.
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=67108864; PRAGMA synchronous=FULL;",
    )
    .map_err(|e| failure::sql(context(), e))?;
    migrate(&mut conn, path, &MIGRATIONS, STEPS.len())?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// The version of the schema that a database has.
///
/// # Errors
/// `Permanent` where a newer Hotbed wrote it.
pub(crate) fn version(conn: &Connection, path: &Path) -> Result<u32> {
    version_up_to(conn, path, STEPS.len())
}

fn version_up_to(conn: &Connection, path: &Path, known: usize) -> Result<u32> {
    let found: u32 = conn
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|e| failure::sql(format!("read the schema version of {}", path.display()), e))?;
    if found as usize > known {
        let copy = copies(path).into_iter().filter(|(version, _)| *version as usize <= known).max();
        let copy = copy.map_or("a copy from before the upgrade".into(), |(_, path)| {
            format!("{} (`hotbed restore --replace`), the copy from before the upgrade", path.display())
        });
        return Err(Error::permanent(format!(
            "the database {} has schema version {found} and this program knows versions up to {known}: a newer \
             Hotbed wrote it; run that one, or restore {copy}",
            path.display()
        )));
    }
    Ok(found)
}

fn migrate(conn: &mut Connection, path: &Path, migrations: &Migrations<'_>, known: usize) -> Result<()> {
    let found = version_up_to(conn, path, known)?;
    if found > 0 && (found as usize) < known {
        copy_before(conn, path, found)?;
    }
    migrations.to_latest(conn).map_err(|e| {
        Error::permanent(format!(
            "bring the database {} from schema version {found} to {known}; it was left as it was",
            path.display()
        ))
        .caused_by(e)
    })
}

/// Where the copy of an older version lies: `hotbed.v8.db` beside `hotbed.db`.
fn copy_of(path: &Path, version: u32) -> PathBuf {
    path.with_extension(format!("v{version}.db"))
}

/// The copies of older versions beside a database.
fn copies(path: &Path) -> Vec<(u32, PathBuf)> {
    let (Some(dir), Some(stem)) = (path.parent(), path.file_stem().and_then(|s| s.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let version =
        |name: &str| name.strip_prefix(stem)?.strip_prefix(".v")?.strip_suffix(".db")?.parse::<u32>().ok();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some((version(&name)?, dir.join(&name))))
        .collect()
}

/// Keeps the database as it is before it is brought forward: the way back to the older program. Copies of versions
/// before that one go.
fn copy_before(conn: &Connection, path: &Path, version: u32) -> Result<()> {
    let copy = copy_of(path, version);
    let failed = |e| failure::sql(format!("copy the database to {} before the upgrade", copy.display()), e);
    let Some(staged) = copy.to_str().map(|name| format!("{name}.new")) else {
        return Err(Error::invalid(format!("the name of {} is not UTF-8", path.display())));
    };
    // SQLite refuses to write into a file that holds something, and takes an empty one with the mode it has.
    files::remove(Path::new(&staged))?;
    drop(files::private_file(Path::new(&staged))?);
    conn.execute("VACUUM INTO ?1", [&staged]).map_err(failed)?;
    std::fs::rename(&staged, &copy).map_err(|e| failure::io(format!("make {}", copy.display()), e))?;
    for (older, path) in copies(path) {
        if older < version {
            files::remove(&path)?;
        }
    }
    tracing::info!(copy = %copy.display(), version, "the database is brought forward; a copy of it was kept");
    Ok(())
}

const RESTORED: &str = "restored";

/// When the state was put back from a copy, if it was and that was not taken back.
pub(crate) fn restored_at(conn: &Connection) -> Result<Option<Timestamp>> {
    let failed = |e| failure::sql("read when the state was restored (table meta)", e);
    let value: Option<Vec<u8>> = conn
        .query_row("SELECT value FROM meta WHERE key = ?1", [RESTORED], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let Some(value) = value else { return Ok(None) };
    let at = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    at.map(Some).ok_or_else(|| Error::permanent("row restored of table meta does not hold a time"))
}

pub(crate) fn set_restored(conn: &Connection, at: Option<Timestamp>) -> Result<()> {
    let done = match at {
        Some(at) => conn.execute(
            "INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            rusqlite::params![RESTORED, at.to_string().into_bytes()],
        ),
        None => conn.execute("DELETE FROM meta WHERE key = ?1", [RESTORED]),
    };
    done.map(|_| ()).map_err(|e| failure::sql("note that the state was restored (table meta)", e))
}

/// What this installation is, made at the first open and kept for good.
pub(crate) struct Birth {
    pub instance: InstanceId,
    pub secret: [u8; 32],
}

pub(crate) fn birth(conn: &mut Connection) -> Result<Birth> {
    let failed = |e| failure::sql("read or make the identity of this installation (table meta)", e);
    let damaged =
        |key: &str| Error::permanent(format!("row {key} of table meta does not hold what it should"));
    let tx = conn.transaction().map_err(failed)?;
    let get = |key: &str| {
        tx.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, Vec<u8>>(0))
            .optional()
    };
    let put = |key: &str, value: &[u8]| {
        tx.execute("INSERT INTO meta(key, value) VALUES(?1, ?2)", rusqlite::params![key, value])
    };
    let instance = match get("instance").map_err(failed)? {
        Some(value) => std::str::from_utf8(&value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("instance"))?,
        None => {
            let id = InstanceId::new();
            put("instance", id.to_string().as_bytes()).map_err(failed)?;
            id
        }
    };
    let secret = match get("secret").map_err(failed)? {
        Some(value) => value.try_into().map_err(|_| damaged("secret"))?,
        None => {
            let secret = random()?;
            put("secret", &secret).map_err(failed)?;
            secret
        }
    };
    tx.commit().map_err(failed)?;
    Ok(Birth { instance, secret })
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|e| failure::io("read /dev/urandom", e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_valid() {
        MIGRATIONS.validate().unwrap();
    }

    /// The page that says from which version one can go back to which.
    #[test]
    fn the_page_on_upgrades_names_this_schema() {
        let page = include_str!("../../docs/upgrading.md");
        let row = format!("| {} | {} |", env!("CARGO_PKG_VERSION"), STEPS.len());
        assert!(page.contains(&row), "docs/upgrading.md lacks the row {row}");
    }

    /// A later step keeps the rows of the earlier ones, and a failing one leaves the database as it was.
    #[test]
    fn steps_forward() {
        let dir = tempfile::tempdir().unwrap();
        let path = &dir.path().join("hotbed.db");
        let mut conn = Connection::open(path).unwrap();
        migrate(&mut conn, path, &MIGRATIONS, STEPS.len()).unwrap();
        conn.execute("INSERT INTO counters VALUES('x', 7)", []).unwrap();

        let mut steps = STEPS.to_vec();
        steps.push(M::up("ALTER TABLE counters ADD COLUMN note TEXT; INSERT INTO nowhere VALUES(1);"));
        let err = migrate(&mut conn, path, &Migrations::new(steps), STEPS.len() + 1).unwrap_err();
        assert!(err.chain().contains("nowhere"), "{err:?}");

        let mut steps = STEPS.to_vec();
        steps.push(M::up("ALTER TABLE counters ADD COLUMN note TEXT;"));
        migrate(&mut conn, path, &Migrations::new(steps), STEPS.len() + 1).unwrap();
        let row: (i64, Option<String>) = conn
            .query_row("SELECT value, note FROM counters WHERE scope = 'x'", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .unwrap();
        assert_eq!(row, (7, None));

        // What it was before stands beside it, and an older program that is put back says where.
        let before = copy_of(path, STEPS.len() as u32);
        let copied = Connection::open(&before).unwrap();
        assert_eq!(version(&copied, &before).unwrap() as usize, STEPS.len());
        assert!(copied.prepare("SELECT note FROM counters").is_err());
        let err = version(&conn, path).unwrap_err();
        assert!(err.to_string().contains(before.to_str().unwrap()), "{err}");

        // One copy is kept, that of the last step.
        let mut steps = STEPS.to_vec();
        steps.push(M::up("ALTER TABLE counters ADD COLUMN note TEXT;"));
        steps.push(M::up("ALTER TABLE counters ADD COLUMN more TEXT;"));
        migrate(&mut conn, path, &Migrations::new(steps), STEPS.len() + 2).unwrap();
        assert_eq!(copies(path), [(STEPS.len() as u32 + 1, copy_of(path, STEPS.len() as u32 + 1))]);
    }
}

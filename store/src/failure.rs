//! Turns what SQLite and the file system report into the domain's errors: which kind it is, in one place.

use domain::{Error, ErrorKind};
use rusqlite::ErrorCode;

/// What a caller can do about an error of SQLite.
fn kind(error: &rusqlite::Error) -> ErrorKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::Exhausted,
        Some(ErrorCode::ConstraintViolation) => ErrorKind::Conflict,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => {
            ErrorKind::Unavailable
        }
        Some(ErrorCode::TooBig) => ErrorKind::Invalid,
        _ => ErrorKind::Permanent,
    }
}

/// `context` says what was being done, in words.
pub(crate) fn sql(context: impl Into<String>, error: rusqlite::Error) -> Error {
    let context = context.into();
    match kind(&error) {
        // A full disk is the one failure whose cure must be in the first sentence (F41).
        ErrorKind::Exhausted => {
            Error::exhausted(format!("{context}: the disk of the state directory is full")).caused_by(error)
        }
        kind => Error::new(kind, context).caused_by(error),
    }
}

/// Whether the device itself failed, so that trying the same again one by one would only hide it.
pub(crate) fn is_device_failure(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether another connection held the lock for longer than this one waits.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub(crate) fn io(context: impl Into<String>, error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => {
            return Error::exhausted(format!("{}: the disk is full", context.into())).caused_by(error);
        }
        Io::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Permanent,
    };
    Error::new(kind, context).caused_by(error)
}

/// A blocking call was cancelled by the end of the runtime, or panicked.
pub(crate) fn join(context: &str, error: tokio::task::JoinError) -> Error {
    if error.is_panic() {
        Error::permanent(format!("{context}: the blocking call panicked")).caused_by(error)
    } else {
        Error::unavailable(format!("{context}: the runtime is stopping")).caused_by(error)
    }
}

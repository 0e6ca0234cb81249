//! From what the engine answers to an error that callers branch on.

use std::io;

use bollard::errors::Error as Engine;
use domain::{Error, ErrorKind};

/// `context` says what was being done; the engine's own words stay in the source.
pub(crate) fn engine(context: impl Into<String>, error: Engine) -> Error {
    Error::new(kind(&error), context).caused_by(error)
}

pub(crate) fn kind(error: &Engine) -> ErrorKind {
    match error {
        Engine::DockerResponseServerError { status_code, message } => match status_code {
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            400..=499 => match text_kind(message) {
                // The daemon answers some full pools and disks with 4xx as well.
                ErrorKind::Permanent if *status_code == 403 => ErrorKind::Conflict,
                ErrorKind::Permanent => ErrorKind::Invalid,
                kind => kind,
            },
            502..=504 => ErrorKind::Unavailable,
            _ => text_kind(message),
        },
        Engine::DockerStreamError { error } => text_kind(error),
        Engine::RequestTimeoutError => ErrorKind::Timeout,
        Engine::SocketNotFoundError(_) => ErrorKind::Unavailable,
        Engine::IOError { .. } | Engine::HyperResponseError { .. } | Engine::HyperLegacyError { .. } => {
            match io_kind(error) {
                // Waiting does not change who may open the socket.
                Some(io::ErrorKind::PermissionDenied) => ErrorKind::Permanent,
                _ => ErrorKind::Unavailable,
            }
        }
        _ => ErrorKind::Permanent,
    }
}

/// What a 5xx means, by its text: the engine has no better way to say it.
fn text_kind(text: &str) -> ErrorKind {
    const FULL: [&str; 6] = [
        "no space left on device",
        "disk quota exceeded",
        "cannot allocate memory",
        "resource temporarily unavailable",
        "non-overlapping ipv4 address pool",
        "too many open files",
    ];
    const AWAY: [&str; 8] = [
        "connection refused",
        "connection reset",
        "transport is closing",
        "context deadline exceeded",
        "context canceled",
        "device or resource busy",
        "shutting down",
        "i/o timeout",
    ];
    let text = text.to_ascii_lowercase();
    if FULL.iter().any(|t| text.contains(t)) {
        ErrorKind::Exhausted
    } else if AWAY.iter().any(|t| text.contains(t)) {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Permanent
    }
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = match error.downcast_ref::<Engine>() {
            // Their sources are not all linked.
            Some(Engine::HyperLegacyError { err }) => Some(err),
            Some(Engine::HyperResponseError { err }) => Some(err),
            Some(Engine::IOError { err }) => Some(err),
            _ => error.source(),
        };
    }
    None
}

/// The status and message of an answer that is an error.
pub(crate) fn answer(error: &Engine) -> Option<(u16, &str)> {
    match error {
        Engine::DockerResponseServerError { status_code, message } => Some((*status_code, message)),
        _ => None,
    }
}

pub(crate) fn is_status(error: &Engine, status: u16) -> bool {
    answer(error).is_some_and(|(s, _)| s == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_kinds() {
        let kind = |status_code, message: &str| {
            kind(&Engine::DockerResponseServerError { status_code, message: message.to_owned() })
        };
        assert_eq!(kind(404, "No such container"), ErrorKind::NotFound);
        assert_eq!(kind(409, "name in use"), ErrorKind::Conflict);
        assert_eq!(kind(400, "invalid memory"), ErrorKind::Invalid);
        assert_eq!(kind(403, "network has active endpoints"), ErrorKind::Conflict);
        assert_eq!(kind(500, "write /x: no space left on device"), ErrorKind::Exhausted); // F41
        let pool = "could not find an available, non-overlapping IPv4 address pool among the defaults";
        assert_eq!(kind(500, pool), ErrorKind::Exhausted);
        assert_eq!(kind(403, pool), ErrorKind::Exhausted);
        assert_eq!(kind(503, "swarm"), ErrorKind::Unavailable);
        assert_eq!(
            kind(500, "dial unix containerd.sock: connect: connection refused"),
            ErrorKind::Unavailable
        );
        assert_eq!(kind(500, "OCI runtime create failed: exec: \"x\": not found"), ErrorKind::Permanent);
    }

    #[test]
    fn a_socket_that_may_not_be_opened_is_not_worth_waiting_for() {
        let error = |k: io::ErrorKind| kind(&Engine::IOError { err: k.into() });
        assert_eq!(error(io::ErrorKind::PermissionDenied), ErrorKind::Permanent);
        assert_eq!(error(io::ErrorKind::ConnectionRefused), ErrorKind::Unavailable);
    }
}

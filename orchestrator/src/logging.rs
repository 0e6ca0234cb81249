//! Where this process's log goes: to stderr, without what is secret. It is the last place that a token could pass on its
//! way out, and the one that every line passes, whoever wrote it.

use std::io::{self, Write};

use domain::redact::redact;
use tracing_subscriber::EnvFilter;

/// Logging as the environment asks for it: `HOTBED_LOG` filters, `HOTBED_LOG_FORMAT=json` for machines.
pub fn to_stderr(default: &str) {
    let filter = EnvFilter::try_from_env("HOTBED_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Redacting(io::stderr()));
    let done = if std::env::var("HOTBED_LOG_FORMAT").is_ok_and(|f| f == "json") {
        builder.json().try_init()
    } else {
        builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init()
    };
    // Somebody else has set it up already: theirs stands.
    let _ = done;
}

/// Takes a line at a time, as the subscriber writes them.
struct Redacting<W>(W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(redact(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// As text and as JSON, as a message and as a field, shown and debugged.
    #[test]
    fn no_line_holds_what_is_secret() {
        let odd = r#"odd "shape" of~a token"#;
        let kept = domain::redact::in_use().keep(odd);
        let lines = Lines::default();
        let to = lines.clone();
        let text = tracing_subscriber::fmt().with_writer(move || Redacting(to.clone())).finish();
        let to = lines.clone();
        let json = tracing_subscriber::fmt().json().with_writer(move || Redacting(to.clone())).finish();
        let say = || tracing::error!(shown = %odd, debugged = ?odd, "ghs_abcdef {odd} (end)");
        tracing::subscriber::with_default(text, say);
        tracing::subscriber::with_default(json, say);
        drop(kept);
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said.matches("(end)").count(), 2, "{said}");
        assert!(!said.contains("of~a") && !said.contains("abcdef"), "{said}");
        assert!(
            said.lines().nth(1).is_some_and(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()),
            "{said}"
        );
    }
}

//! Collects what is logged as WARN or ERROR, and panics of tasks, by World: every thread of a World's runtimes
//! carries its number. What a test did not expect fails it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

thread_local! {
    static WORLD: Cell<u64> = const { Cell::new(0) };
}

static LINES: Mutex<Option<HashMap<u64, Vec<String>>>> = Mutex::new(None);

/// What this thread says belongs to this World from now on.
pub fn adopt(world: u64) {
    WORLD.set(world);
}

/// Everything a World has said so far.
pub fn lines(world: u64) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.as_ref().and_then(|l| l.get(&world).cloned()).unwrap_or_default()
}

fn add(line: String) {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.get_or_insert_default().entry(WORLD.get()).or_default().push(line);
}

/// Once for the process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::env::var_os("IT_LOG").is_some();
        let subscriber = tracing_subscriber::registry().with(Collector { loud });
        tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // The test's own thread reports by failing; a task's panic would be swallowed.
            if std::thread::current().name().is_some_and(|n| n.starts_with("world-")) {
                add(format!("PANIC {info}"));
            }
            before(info);
        }));
    });
}

struct Collector {
    loud: bool,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let bad = *meta.level() <= Level::WARN;
        if !bad && !self.loud {
            return;
        }
        let mut line = Line(format!("{} {}:", meta.level(), meta.target()));
        event.record(&mut line);
        if self.loud && *meta.level() <= Level::DEBUG && !meta.target().starts_with("h2") {
            eprintln!("[{}] {}", WORLD.get(), line.0);
        }
        if bad {
            add(line.0);
        }
    }
}

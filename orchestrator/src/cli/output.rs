//! Tables for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use domain::{Clock, Error, Result, SystemClock};
use jiff::Timestamp;
use serde::Serialize;

pub struct Out {
    pub json: bool,
}

impl Out {
    pub fn print_json<T: Serialize>(&self, value: &T) -> Result<()> {
        let text =
            serde_json::to_string_pretty(value).map_err(|e| Error::permanent("write JSON").caused_by(e))?;
        println!("{text}");
        Ok(())
    }

    pub fn table<T: Serialize>(
        &self,
        head: &[&str],
        items: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<()> {
        if self.json {
            return self.print_json(&items);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(head);
        for item in items {
            table.add_row(row(item));
        }
        println!("{table}");
        Ok(())
    }
}

/// The first 12 digits of a hash.
pub fn short(hash: Option<&str>) -> String {
    hash.map_or("-".into(), |h| h.chars().take(12).collect())
}

/// Time since then, in its largest two units at most.
pub fn ago(then: Timestamp) -> String {
    units(SystemClock.now().duration_since(then).as_secs().max(0))
}

/// A length of time; short ones with a tenth of a second.
pub fn lasted(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.1}s") } else { units(seconds as i64) }
}

fn units(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

//! The figures and plots of `docs/pool-sizing.md`: `cargo run --release -p pool --example sizing docs/pool-sizing.svg`,
//! and after it how many weeks are simulated, four when not given.

use pool::sim::study::{compare, costs, office, one_week};
use pool::sim::svg;

fn main() -> std::io::Result<()> {
    let weeks: u64 = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(4);
    let scenarios: Vec<_> = (1..=weeks).map(office).collect();
    let curves = compare(&scenarios);
    for curve in &curves {
        println!("{}: {:?} idle hours at 99 %", curve.name, curve.idle_hours_at(0.99).map(f64::round));
        for p in &curve.points {
            println!("   {:>6}: {:.2} % at {:.0} idle hours", p.setting, p.hit_rate * 100.0, p.idle_hours);
        }
    }
    let Some(path) = std::env::args().nth(1) else { return Ok(()) };
    std::fs::write(path, svg::document(&[costs(weeks, &curves), one_week()]))
}

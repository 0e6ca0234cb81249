//! The figures and plots of `docs/pool-sizing.md`: `cargo run --release -p pool --example sizing docs/pool-sizing.svg`,
//! and after it how many weeks are simulated, eight when not given.

use pool::sim::study::{compare, course, office, plot};
use pool::sim::{Rule, run, svg};

fn main() -> std::io::Result<()> {
    let weeks: u64 = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(8);
    let scenarios: Vec<_> = (1..=weeks).map(office).collect();
    let curves = compare(&scenarios);
    for curve in &curves {
        println!("{}: {:?} idle hours at 99 %", curve.name, curve.idle_hours_at(0.99).map(f64::round));
        for p in &curve.points {
            println!("   {:>6}: {:.2} % at {:.0} idle hours", p.setting, p.hit_rate * 100.0, p.idle_hours);
        }
    }
    let Some(path) = std::env::args().nth(1) else { return Ok(()) };
    let planner = run(&scenarios[0], Rule::Plan);
    let fixed = run(&scenarios[0], Rule::Fixed(12));
    let week = course("One of the weeks", &scenarios[0], &[("planner", &planner), ("fixed at 12", &fixed)]);
    let costs = plot(
        &format!("{weeks} weeks of 4,000 claims each by office hours, with bursts of six"),
        &curves,
        3000.0 * weeks as f64,
    );
    std::fs::write(path, svg::document(&[costs, week]))
}

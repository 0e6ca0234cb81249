//! The integration tests: whole servers on fakes, by area. Failure rows (F…) are named at the tests that hold them.

use std::io::Write as _;

mod access;
mod api;
mod audit;
mod backup;
mod browser;
mod cadence;
mod claims;
mod clients;
mod contract;
mod docker;
mod environment;
mod faults;
mod forge;
mod freshness;
mod github;
mod happenings;
mod http;
mod images;
mod layers;
mod logs;
mod observe;
mod oidc;
mod pulls;
mod quotas;
mod recipes;
mod restarts;
mod rollout;
mod sessions;
mod sizing;
mod tls;
mod top;
mod traces;
mod warmups;
mod world;

/// Says at once, beside the harness, what fails and where: what it has kept of a test's output comes at the end, and
/// who cuts a long output keeps the lines around the failure.
fn say_failures() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("a thread without a name");
            let told = panic.payload_as_str().unwrap_or_default();
            let told: String = told.chars().take(4000).collect();
            let at = panic.location().map(ToString::to_string).unwrap_or_default();
            // Nothing can be done about a stderr that is gone.
            let _ = writeln!(std::io::stderr(), "panic in {name} at {at}: {told}");
            usual(panic);
        }));
    });
}

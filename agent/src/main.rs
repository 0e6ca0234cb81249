//! The binary `hotbed-agent`.

use std::process::ExitCode;

use agent::boot::{self, Args};

fn main() -> ExitCode {
    let done = match boot::parse_args(std::env::args().skip(1)) {
        Ok(Args::Version) => {
            println!("{}", boot::version());
            Ok(())
        }
        Ok(Args::Run { boot }) => boot::begin(boot).and_then(agent::run::run),
        Err(e) => Err(e),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("hotbed-agent: {}", e.chain());
            ExitCode::FAILURE
        }
    }
}

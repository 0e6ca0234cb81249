//! The binary `hotbed-agent`: the agent itself, and what a session's own commands call.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::boot::{self, Args};
use agent::{ask, hooks};
use domain::Result;

fn main() -> ExitCode {
    match begin() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("hotbed-agent: {}", e.chain());
            ExitCode::FAILURE
        }
    }
}

fn begin() -> Result<ExitCode> {
    let mut args = std::env::args_os();
    let program = PathBuf::from(args.next().unwrap_or_default());
    if let Some(hook) = hooks::called(&program) {
        return hooks::run(hook, &program, args.collect());
    }
    match boot::parse_args(args.map(|a| a.to_string_lossy().into_owned()))? {
        Args::Version => println!("{}", boot::version()),
        Args::Ask(ask) => ask::run(&ask)?,
        Args::Run { boot } => boot::begin(boot).and_then(agent::run::run)?,
    }
    Ok(ExitCode::SUCCESS)
}

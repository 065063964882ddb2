//! The chores of this workspace, run as `cargo xtask COMMAND`.

mod api;
mod bench;
mod ci;
mod examples;
mod features;
mod licences;
mod play;
mod process;
mod rooms;
mod servers;
mod soak;
mod style;
mod test;
mod workspace;

use std::env;
use std::process::ExitCode;

/// Why a chore failed, as a sentence for the person who ran it.
pub(crate) type Failure = Box<dyn std::error::Error>;
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

const USAGE: &str = "\
cargo xtask COMMAND

  test [CARGO TEST ARGUMENTS]      every test, beside the real servers that this machine can start
  ci                               all gates, as .ci/run runs them
  features                         each published crate with no feature, with each alone, with all
  licences                         every dependency of the published crates has an allowed licence
  api                              public signatures show only the allowed foreign types
  rooms                            arrows between packages point inward; the map in CONTRIBUTING.md is complete
  style                            the house rules that a program can check
  examples                         builds all examples, runs those that need no server
  bench [--json FILE] [--peers] [CARGO BENCH ARGUMENTS]
                                   runs the benches and prints their figures beside the baselines
  soak [--for 10m] [CARGO TEST ARGUMENTS]
                                   runs the long tests, each for the given time
  kafka up [--nodes 3] | status | down
                                   a Kafka cluster to play with; prints its bootstrap servers
  postgres up | status | down      a Postgres server to play with; prints its URL";

fn main() -> ExitCode {
    if let Some(code) = api::as_rustdoc() {
        return code;
    }
    let mut args = env::args().skip(1);
    let command = args.next().unwrap_or_default();
    match run(&command, args.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask {command}: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, args: Vec<String>) -> Result {
    match command {
        "test" => test::run(&args),
        "ci" => ci::run(),
        "features" => features::run(),
        "licences" => licences::run(),
        "api" => api::run(),
        "style" => style::run(),
        "rooms" => rooms::run(),
        "examples" => examples::run(),
        "bench" => bench::run(args),
        "soak" => soak::run(args),
        "kafka" | "postgres" => play::run(command, &args),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        unknown => Err(format!("unknown command {unknown:?}\n\n{USAGE}").into()),
    }
}

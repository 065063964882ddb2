//! The chores of this workspace, run as `cargo xtask COMMAND`.

mod api;
mod bench;
mod ci;
mod circles;
mod examples;
mod junit;
mod mutant_scores;
mod mutants;
mod play;
mod process;
mod report;
mod rooms;
mod servers;
mod side_by_side;
mod soak;
mod style;
mod test;
mod workspace;

use std::env;
use std::process::ExitCode;

/// Why a chore failed, as a sentence for the person who ran it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

const USAGE: &str = "\
cargo xtask COMMAND

  test [CARGO NEXTEST ARGUMENTS]   every test, next to the real servers that this machine can start
  ci                               all gates, as .ci/run runs them
  features                         each published crate with no feature, with each alone, with all
  dependencies                     licences, sources and arrows of the published crates, by cargo-deny
  api                              public signatures show only the allowed foreign types
  rooms                            the map in CONTRIBUTING.md and the arrows in deny.toml miss no room
  style                            the house rules that a program can check
  examples                         builds all examples, runs those that need no server
  bench [--json FILE] [--peers] [CARGO BENCH ARGUMENTS]
                                   runs the benches and prints their figures beside the baselines
  soak [--for 10m] [CARGO TEST ARGUMENTS]
                                   runs the long tests, each for the given time
  soak mutants ROOM [suites|all] [--shard K/N | --sample COUNT [--seed N]]
                                   plants bugs in a room, and prints those that no test sees
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
        "features" => ci::features(),
        "dependencies" => ci::dependencies(),
        "api" => api::run(),
        "style" => style::run(),
        "rooms" => rooms::run(),
        "examples" => examples::run(),
        "bench" => bench::run(args),
        "soak" if args.first().is_some_and(|first| first == "mutants") => mutants::run(&args[1..]),
        "soak" => soak::run(args),
        "kafka" | "postgres" => play::run(command, &args),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        unknown => Err(format!("unknown command {unknown:?}\n\n{USAGE}").into()),
    }
}

//! The command line: global options, and the one noun that follows.

use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser};

use crate::exit::{Failure, one_line};
use crate::input;
use crate::nouns::Noun;
use crate::output::Format;

/// Default of `--timeout`.
const TIMEOUT: &str = "30s";

/// Operates event systems: topics, events, groups, dead letters, services and brokers.
///
/// A verb that changes something prints its plan, and changes nothing without --execute.
#[derive(Debug, Parser)]
#[command(
    name = "tidings",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done in part, 4 a check did not pass.\n\
        Passwords and tokens come from TIDINGS_USERNAME, TIDINGS_PASSWORD, TIDINGS_TOKEN, from the files that \
        TIDINGS_PASSWORD_FILE and TIDINGS_TOKEN_FILE name, or from those of a context."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Transport or ops endpoint: kafka://, kafkas://, http://, https:// [env: TIDINGS_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Name of the context to use [env: TIDINGS_CONTEXT]
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "url")]
    pub(crate) context: Option<String>,
    /// Idempotency store, to count which events are done: postgres://, sled:PATH [env: TIDINGS_STORE]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Where the dead letters are: topics, postgres://, sled:PATH, or the name of a store at an ops endpoint
    #[arg(long, global = true, value_name = "WHERE")]
    pub(crate) letters: Option<String>,
    /// Where changes are recorded: topic:NAME, postgres://, sled:PATH; default: standard error [env: TIDINGS_AUDIT]
    #[arg(long, global = true, value_name = "WHERE")]
    pub(crate) audit: Option<String>,
    /// Format of the output
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true,
        help = "Format of the output: table, wide, json, yaml, jsonl, schema; for checks nagios and prometheus"
    )]
    pub(crate) output: Format,
    /// Repeat every 2 s, or at the interval that follows the equals sign
    #[arg(short, long, global = true, value_name = "INTERVAL", num_args = 0..=1, require_equals = true,
        default_missing_value = "2s", value_parser = input::duration)]
    pub(crate) watch: Option<Duration>,
    /// Longest time for the whole verb, or for each round of --watch
    #[arg(long, global = true, value_name = "DURATION", default_value = TIMEOUT, value_parser = input::duration)]
    pub(crate) timeout: Duration,
    /// No colors [env: NO_COLOR]
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Only data and errors: no notes, no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// Converts an error of clap's to one line.
///
/// An argument's value is repeated only if it is one of a list or its option is not a URL: a URL may hold a password.
pub(crate) fn usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    let parts: Vec<String> = std::iter::once(first).chain(tips).map(one_line).collect();
    let help = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => help_of(&usage.to_string()),
        _ => "tidings --help".to_owned(),
    };
    Failure::usage(parts.join("; ")).with_hint(format!("see {help}"))
}

/// Returns the command whose help explains a usage line: `Usage: tidings topic create [OPTIONS] ...`.
fn help_of(usage: &str) -> String {
    let words = usage.trim_start_matches("Usage: ").split_whitespace();
    // A user's program has another name.
    let is_named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let named: Vec<&str> = words.take_while(|word| word.chars().all(is_named)).collect();
    let named: Vec<&str> = named.into_iter().take_while(|word| !word.starts_with('-')).collect();
    format!("{} --help", if named.is_empty() { "tidings".to_owned() } else { named.join(" ") })
}

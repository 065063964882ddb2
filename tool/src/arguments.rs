//! The command line: global options, and the one noun that follows.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};

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
    /// [env: TIDINGS_LETTERS]
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
    /// Longest time for a verb, a plan, or a round of --watch; no limit for tail, export, import and applied redrives
    #[arg(long, global = true, value_name = "DURATION", default_value = TIMEOUT, value_parser = input::duration)]
    pub(crate) timeout: Duration,
    /// No colors [env: NO_COLOR]
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Only data and errors: no notes, no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// Converts an error of clap's to one line, with the help of the command that the words name.
///
/// An argument's value is repeated only if it is one of a list or its option is not a URL: a URL may hold a password.
pub(crate) fn usage(error: &clap::Error, words: &[OsString]) -> Failure {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    let parts: Vec<String> = std::iter::once(first).chain(tips).map(one_line).collect();
    Failure::usage(parts.join("; ")).with_hint(format!("see {} --help", command_of(words)))
}

/// Returns the command that the words name, such as `my-service tool topic create`, by the names of its help.
fn command_of(words: &[OsString]) -> String {
    let root = Arguments::command();
    let program = words.first().and_then(|path| Path::new(path).file_name());
    let mut named = program.map_or("tidings".to_owned(), |name| name.to_string_lossy().into_owned());
    let (mut at, mut words) = (&root, words.iter().skip(1).map(|word| word.to_string_lossy()));
    while let Some(word) = words.next() {
        if takes_next(&root, &word) {
            words.next();
        } else if let Some(next) = at.find_subcommand(&*word) {
            named = format!("{named} {}", next.get_name());
            at = next;
        }
    }
    named
}

/// Returns whether the word is a global option whose value is the next word.
fn takes_next(root: &clap::Command, word: &str) -> bool {
    let is_it = |option: &clap::Arg| match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => option.get_long() == Some(long),
        (None, Some(short)) => option.get_short().is_some_and(|known| short.chars().eq([known])),
        (None, None) => false,
    };
    let takes = |option: &clap::Arg| option.get_action().takes_values() && !option.is_require_equals_set();
    root.get_arguments().any(|option| is_it(option) && takes(option))
}

//! The verbs of the `tidings` command, as a library: topics, events, groups, dead letters, services and brokers
//! from a terminal.
//!
//! The binary `tidings` and a program of your own run the same [`Tool`]; they differ in the transports and stores that
//! its [`Connect`] opens. The facade has `tidings::tool::main`, which connects everything that its features allow.
//!
//! - A verb prints data to standard output, as a table or, by `-o`, as JSON, YAML or JSON Lines. `-o schema` prints the
//!   JSON Schema of that data. Everything else goes to standard error.
//! - A verb that changes something prints its plan, and changes nothing without `--execute`. The plan that is shown is
//!   the one that is applied; `--plan FILE` keeps it for `--from-plan FILE --execute`, which refuses it if the state
//!   that it was made from has changed.
//! - Errors are one line, and the exit code is an [`Exit`].
//! - A program that declares its services ([`Tool::with_service`]) describes them and shows payloads by their types.
//! - Passwords and tokens come from variables, files and commands such as a keyring's, never from arguments.

mod arguments;
mod change;
mod complete;
mod connect;
mod console;
mod context;
mod contexts;
mod exit;
mod input;
mod nouns;
mod output;
mod program;
mod secret_command;
mod services;
mod target;
mod tool;
mod trail;

pub use self::connect::{Connect, Generated};
pub use self::exit::Exit;
pub use self::tool::Tool;

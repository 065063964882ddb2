//! The command `tidings`: the verbs of `tidings::tool`, over every transport of the facade.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidings::tool::main([])
}

//! `cargo xtask kafka` and `cargo xtask postgres`: servers for people who want to play.

use std::process::Command;

use crate::Result;
use crate::process::{cargo, output};
use crate::workspace::{root, target_directory};

/// Passes `server ARGUMENTS` on to the program of the room testbed.
pub(crate) fn run(server: &str, args: &[String]) -> Result {
    output(cargo(["build", "--quiet", "--package=tidings-testbed", "--bin=testbed"]).current_dir(root()))?;
    // Not by `run`: what is printed is a URL, for a person or a script, and nothing else.
    let status = Command::new(target_directory().join("debug/testbed")).arg(server).args(args).status()?;
    if status.success() { Ok(()) } else { Err(format!("testbed ended with {status}").into()) }
}

//! `completion`: prints the script that connects a shell with this program.

use clap::Args;
use clap_complete::env::Shells;

use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Print a shell's completion script.
///
/// For bash, in ~/.bashrc: source <(tidings completion bash)
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    shell: String,
}

impl Completion {
    pub(crate) fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        let fail = |why: &dyn std::fmt::Display| Failure::failed(format!("completion {}: {why}", self.shell));
        let shells = Shells::builtins();
        let shell = shells.completer(&self.shell).ok_or_else(|| fail(&"there is no such shell"))?;
        // A shell registers completion for a program, so `my-service` stands for `my-service tool`.
        let program = cx.console.program().split(' ').next().unwrap_or_default();
        let mut script = Vec::new();
        shell.write_registration("COMPLETE", program, program, program, &mut script).map_err(|e| fail(&e))?;
        cx.print(&String::from_utf8_lossy(&script)).map(|()| Exit::Ok)
    }
}

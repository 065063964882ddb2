//! The tool: parses a command line, runs its verb, and reports the end.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use tidings_service::ServiceDescription;
use tokio::sync::watch;

use crate::arguments::{Arguments, usage};
use crate::complete;
use crate::connect::Connect;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::program::Program;
use crate::target::Variables;

/// The `tidings` command: parses arguments, runs the verb and returns how it ended.
///
/// ```
/// use tidings_core::{Result, Transport, async_trait};
/// use tidings_tool::{Connect, Exit, Tool};
///
/// #[derive(Debug)]
/// struct Nothing;
///
/// #[async_trait]
/// impl Connect for Nothing {
///     async fn transport(&self, _url: &str) -> Result<std::sync::Arc<dyn Transport>> {
///         Err(tidings_core::Error::new(tidings_core::ErrorKind::Unavailable, "connect: the broker is down"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let tool = Tool::new(Nothing).with_variables([("TIDINGS_URL", "kafka://a:9092")]);
/// assert_eq!(tool.run(["tidings", "topic", "list"]).await, Exit::Failed);
/// # }
/// ```
#[derive(Debug)]
pub struct Tool {
    connect: Arc<dyn Connect>,
    variables: Option<Variables>,
    console: Console,
    services: Vec<ServiceDescription>,
}

impl Tool {
    /// Creates a tool that reads the process's environment and writes to its standard outputs.
    pub fn new(connect: impl Connect) -> Self {
        Self { connect: Arc::new(connect), variables: None, console: Console::of_process(), services: Vec::new() }
    }

    /// Adds a service of the program: `describe` shows it, and payloads of its events are decoded by their types.
    ///
    /// Accepts a `Service`, a reference to one, or the [`ServiceDescription`] of a router that lacks its state.
    ///
    /// ```
    /// # use tidings_core::{Delivery, Result, Transport, async_trait};
    /// # use tidings_tool::{Connect, Exit, Tool};
    /// # #[derive(Debug)] struct Nothing;
    /// # #[async_trait] impl Connect for Nothing {
    /// #     async fn transport(&self, _: &str) -> Result<std::sync::Arc<dyn Transport>> { unreachable!() }
    /// # }
    /// use tidings_service::{Router, Service};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let service = Service::new("meter", Router::new().on_topic("clicks", async |_: Delivery| {}));
    /// let tool = Tool::new(Nothing).with_service(&service);
    /// assert_eq!(tool.run(["meter", "describe", "--declared"]).await, Exit::Ok); // no broker is called
    /// # }
    /// ```
    #[must_use]
    pub fn with_service(mut self, service: impl Into<ServiceDescription>) -> Self {
        self.services.push(service.into());
        self
    }

    /// Sets the environment's variables. By default those of the process.
    #[must_use]
    pub fn with_variables<N: Into<String>, V: Into<String>>(mut self, all: impl IntoIterator<Item = (N, V)>) -> Self {
        self.variables = Some(Variables::new(all.into_iter().map(|(name, value)| (name.into(), value.into()))));
        self
    }

    /// Sets where data (`out`) and everything else (`err`) is written. By default the standard outputs.
    #[must_use]
    pub fn with_output(mut self, out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        self.console = Console::new(Box::new(out), Box::new(err));
        self
    }

    /// Runs the verb of `arguments`, of which the first is the program's name.
    ///
    /// # Cancel safety
    /// Dropping the future of a verb that changes something leaves open how much of it was applied.
    pub async fn run<A: Into<OsString>>(self, arguments: impl IntoIterator<Item = A>) -> Exit {
        let (_sender, never) = watch::channel(false);
        self.run_until(arguments.into_iter().map(Into::into).collect(), never).await
    }

    /// Returns whether the first argument of the process is the word `tool`, or a shell requests completions.
    ///
    /// For programs that have arguments of their own: see [`main`](Self::main).
    pub fn is_called() -> bool {
        Program::of_process().has_word() || complete::is_asked(&of_process())
    }

    /// Runs the verb of the process's arguments, on a runtime of its own, until it ends or the user interrupts it. Call it
    /// outside of a runtime.
    ///
    /// The verb may follow the word `tool`, as in `my-service tool topic list`: a program keeps its own arguments, and
    /// calls this function if [`is_called`](Self::is_called). If a shell requests completions, prints these instead.
    pub fn main(mut self) -> ExitCode {
        let program = Program::of_process();
        self.console.name(program.title());
        let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.console.fail(&Failure::failed(format!("start the runtime: {error}")));
                return Exit::Failed.into();
            }
        };
        let variables = self.variables.clone().unwrap_or_else(of_process);
        if complete::answered(&self.connect, &variables, runtime.handle(), &program) {
            return Exit::Ok.into();
        }
        let exit = runtime.block_on(async {
            let (sender, interrupt) = watch::channel(false);
            let run = self.run_until(program.arguments(), interrupt);
            tokio::pin!(run);
            tokio::select! {
                exit = &mut run => exit,
                Ok(()) = tokio::signal::ctrl_c() => {
                    // Verbs end in order; a second interrupt ends the process.
                    sender.send_replace(true);
                    tokio::select! {
                        exit = &mut run => exit,
                        Ok(()) = tokio::signal::ctrl_c() => {
                            eprintln!("tidings: interrupted: a step may have been applied; look at the present state");
                            Exit::Interrupted
                        }
                    }
                }
            }
        });
        // Connections are not waited for: they may hang with their broker.
        runtime.shutdown_background();
        exit.into()
    }

    async fn run_until(self, arguments: Vec<OsString>, interrupt: watch::Receiver<bool>) -> Exit {
        let Self { connect, variables, mut console, services } = self;
        let variables = variables.unwrap_or_else(of_process);
        let parsed = Arguments::command().try_get_matches_from(&arguments);
        let parsed = parsed.and_then(|matches| Arguments::from_arg_matches(&matches));
        let Arguments { globals, noun } = match parsed {
            Ok(arguments) => arguments,
            Err(error) if !error.use_stderr() => {
                // Help and version are data that was asked for; a reader that left does not want it.
                drop(console.print(&error.render().to_string()));
                return Exit::Ok;
            }
            Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                console.note(error.render().to_string().trim_end());
                return Exit::Usage;
            }
            Err(error) => {
                console.fail(&usage(&error, &arguments));
                return Exit::Usage;
            }
        };
        console.configure(globals.quiet, globals.no_color || variables.get("NO_COLOR").is_some());
        let cx = Context::new(globals, variables, console, connect, interrupt).with_services(services);
        match noun.run(&cx).await {
            Ok(exit) => exit,
            Err(failure) => {
                if failure.exit() != Exit::Ok {
                    cx.console.fail(&failure);
                }
                failure.exit()
            }
        }
    }
}

/// Reads the environment; variables that are no text are left out.
fn of_process() -> Variables {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    Variables::new(std::env::vars_os().filter_map(text))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use tidings_core::{Result, Transport, async_trait};
    use tidings_memory::MemoryTransport;

    use super::*;

    #[derive(Debug)]
    struct Own(Arc<MemoryTransport>);

    #[async_trait]
    impl Connect for Own {
        async fn transport(&self, _: &str) -> Result<Arc<dyn Transport>> {
            Ok(self.0.clone())
        }
    }

    /// An output that cannot be written.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_change_whose_report_cannot_be_written_ends_as_the_change_did() {
        for (kind, topic) in [(io::ErrorKind::BrokenPipe, "a"), (io::ErrorKind::StorageFull, "b")] {
            let (transport, err) = (Arc::new(MemoryTransport::new()), Kept::default());
            let tool = || {
                let tool = Tool::new(Own(Arc::clone(&transport))).with_variables([("TIDINGS_URL", "kafka://a")]);
                tool.with_output(Broken(kind), err.clone())
            };
            let create = ["tidings", "topic", "create", topic, "--execute"];
            assert_eq!(tool().run(create).await, Exit::Ok);
            assert_eq!(transport.admin().await.unwrap().list_topics().await.unwrap().len(), 1);
            let written = String::from_utf8(err.0.lock().unwrap().clone()).unwrap();
            assert!(written.contains("1 of 1 done. The report could not be written"), "{written}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_secret_command_ends_with_the_time_limit_of_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("contexts.toml").display().to_string();
        let err = Kept::default();
        let run = async |arguments: &[&str]| {
            let tool = Tool::new(Own(Arc::new(MemoryTransport::new()))).with_variables([("TIDINGS_CONTEXTS", &*file)]);
            tool.with_output(io::sink(), err.clone()).run(["tidings"].iter().chain(arguments)).await
        };
        for (name, command) in [("quick", "echo s3cr3t"), ("slow", "exec sleep 600")] {
            let add = ["context", "add", name, "--url", "kafka://a", "--username", "u", "--password-command", command];
            assert_eq!(run(&add).await, Exit::Ok, "{:?}", String::from_utf8_lossy(&err.0.lock().unwrap()));
        }
        for verb in [&["topic", "list", "--context"][..], &["context", "test"]] {
            assert_eq!(run(&[verb, &["quick"]].concat()).await, Exit::Ok);
            assert_eq!(run(&[verb, &["slow", "--timeout", "2s"]].concat()).await, Exit::Failed);
        }
        let written = String::from_utf8(err.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.matches("password_command: it did not end within 1").count(), 2, "{written}");
    }
}

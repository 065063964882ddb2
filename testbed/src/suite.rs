//! A test harness that reports tests as `ignored`, never as passed, if this machine cannot run their server.

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::{error::Error as StdError, fmt, future::Future, process::ExitCode, time::Duration};

/// If this variable is `1`, an unavailable server fails the tests that need it: for machines where all servers run.
pub const REQUIRE_VARIABLE: &str = "REQUIRE_BROKERS";

/// Default time limit of a test. See [`Suite::with_timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);

/// Error type of tests.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Returns whether servers are required: [`REQUIRE_VARIABLE`] is `1`.
pub fn servers_are_required() -> bool {
    std::env::var(REQUIRE_VARIABLE).is_ok_and(|value| value == "1")
}

/// Returns why a test that ended with `error` counts as ignored: the chain of its causes contains a testbed error
/// that is [unavailable](crate::Error::is_unavailable), if servers are not required, or
/// [forbidden](crate::Error::is_forbidden). Harnesses other than [`Suite`] use it.
pub fn ignored_because(error: &(dyn StdError + 'static)) -> Option<String> {
    let required = servers_are_required();
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<crate::Error>() {
            Some(error) if error.is_forbidden() || (error.is_unavailable() && !required) => {
                return Some(error.to_string());
            }
            _ => cause = error.source(),
        }
    }
    None
}

/// The tests of one file with `harness = false`.
///
/// ```no_run
/// use tidings_testbed::{Kafka, KafkaOptions, Suite};
///
/// fn main() -> std::process::ExitCode {
///     Suite::new().with_case("a_cluster_starts", a_cluster_starts).run()
/// }
///
/// async fn a_cluster_starts() -> Result<(), tidings_testbed::BoxError> {
///     let kafka = Kafka::start(KafkaOptions::new()).await?; // no Java: the test is reported ignored
///     assert!(kafka.node(0).is_up().await);
///     Ok(())
/// }
/// ```
pub struct Suite {
    trials: Vec<Trial>,
    timeout: Duration,
    arguments: Arguments,
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").field("cases", &self.trials.len()).field("timeout", &self.timeout).finish()
    }
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

impl Suite {
    /// Creates a suite without tests; reads the command line.
    pub fn new() -> Self {
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert(1);
        Self { trials: Vec::new(), timeout: DEFAULT_TIMEOUT, arguments }
    }

    /// Sets the time limit of the cases added after this.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds a test, which runs on its own multi-threaded runtime.
    #[must_use]
    pub fn with_case<F, Fut, E>(mut self, name: &str, case: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let timeout = self.timeout;
        self.trials.push(Trial::ignorable_test(name, move || run(case, timeout)));
        self
    }

    /// Adds a test without a time limit: ignored unless the command line has `--ignored` or `--include-ignored`, as
    /// that of `cargo xtask soak` does. Its name contains `soak`.
    #[must_use]
    pub fn with_soak<F, Fut, E>(mut self, name: &str, case: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>>,
        E: Into<BoxError>,
    {
        let asked = self.arguments.ignored || self.arguments.include_ignored;
        let soak = move || if asked { run(case, Duration::MAX) } else { Ok(Completion::ignored_with("soak")) };
        // Flagged only when asked for: an ignored flag alone would be reported without its reason.
        self.trials.push(Trial::ignorable_test(name, soak).with_ignored_flag(asked));
        self
    }

    /// Runs the tests selected on the command line, like `cargo test`'s own harness, but one at a time unless it asks
    /// for more: each may start a cluster.
    pub fn run(self) -> ExitCode {
        libtest_mimic::run(&self.arguments, self.trials).exit_code()
    }
}

fn run<F, Fut, E>(case: F, timeout: Duration) -> Result<Completion, Failed>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(timeout, case()).await });
    // A failed test may have left blocking work behind.
    runtime.shutdown_background();
    match outcome {
        Err(_) => Err(format!("did not end within {timeout:?}").into()),
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(error)) => {
            let error = error.into();
            match ignored_because(error.as_ref()) {
                Some(why) => Ok(Completion::ignored_with(why)),
                None => Err(chain(error.as_ref()).into()),
            }
        }
    }
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

//! The runner: each case runs on its own thread and runtime, with a deadline.
//!
//! A runtime of its own keeps a paused clock, a leaked task or a blocked thread within its case.
//! The backend is opened once in advance, for its guarantees: then an unreachable broker is
//! reported by every case at once, instead of after each one's deadline.

use std::env;
use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use libtest_mimic::{Arguments, Completion, Trial};
use tidings_core::{ErrorKind, Guarantees, Result};
use tokio::runtime::{Builder, Runtime};

use crate::case::{Broken, Case, Checked, broken};
use crate::context::{Context, History};
use crate::hooks::{Erase, Opened, missing};
use crate::setup::{Clock, Setup};

/// Environment variable that turns an unavailable backend into a failure if set to `1`.
pub const REQUIRE_BROKERS: &str = "REQUIRE_BROKERS";
/// Environment variable that ends a suite at its first failed case if set to `1`: later cases are reported ignored.
///
/// For planting bugs by the hundred, where only the verdict matters.
pub const FAIL_FAST: &str = "TIDINGS_FAIL_FAST";

/// Whether a case of this program has failed, in any of its suites.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Result of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The promise was kept.
    Passed,
    /// The case could not be checked; states why.
    Ignored(String),
    /// The promise was broken; states the clause, the expected and the actual result, and the history.
    Failed(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Ignored(why) => write!(f, "ignored, {why}"),
            Self::Failed(why) => write!(f, "failed\n{why}"),
        }
    }
}

/// Runs several suites in one test program.
///
/// ```no_run
/// # use std::process::ExitCode;
/// # use std::sync::Arc;
/// # use tidings_core::{Error, ErrorKind, IdempotencyStore, Transport, Result};
/// # async fn open() -> Result<Arc<dyn Transport>> { Err(Error::new(ErrorKind::Unavailable, "open")) }
/// use tidings_conformance::{Setup, Suites};
///
/// fn main() -> ExitCode {
///     Suites::new()
///         .with_transport(Setup::new("mine", || async { open().await }))
///         .with_transport(Setup::new("mine, two brokers", || async { open().await }))
///         .run()
/// }
/// ```
#[derive(Default)]
pub struct Suites {
    trials: Vec<Trial>,
    threads: Option<usize>,
}

impl fmt::Debug for Suites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suites").field("cases", &self.trials.len()).finish()
    }
}

impl Suites {
    /// Creates an empty set of suites.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(mut self, trials: Vec<Trial>) -> Self {
        self.trials.extend(trials);
        self
    }

    /// Sets how many cases run concurrently, unless the arguments do. The default is one per core; cases against a
    /// server mostly wait, and finish sooner with more.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Runs all cases selected by the program's arguments: filters, `--list`, `--include-ignored`.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = arguments.test_threads.or(self.threads);
        libtest_mimic::run(&arguments, self.trials).exit_code()
    }
}

/// One suite: its cases and the conversion of a backend to the trait that they check.
pub(crate) struct Suite<T, B: ?Sized + 'static> {
    pub(crate) setup: Arc<Setup<T>>,
    pub(crate) erase: Erase<T, B>,
    pub(crate) guarantees: fn(&B) -> Guarantees,
    pub(crate) cases: Vec<&'static Case<B>>,
}

/// Builds the runtime that a clock needs: only a single thread can be paused.
fn runtime(clock: Clock) -> std::io::Result<Runtime> {
    match clock {
        Clock::Paused => Builder::new_current_thread().enable_all().start_paused(true).build(),
        Clock::Real => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    }
}

impl<T: Send + Sync + 'static, B: ?Sized + 'static> Suite<T, B> {
    /// Opens the backend once and returns its guarantees.
    fn probe(&self) -> Result<Guarantees, Broken> {
        let (setup, erase, guarantees) = (Arc::clone(&self.setup), self.erase, self.guarantees);
        let opened = on_a_thread(self.setup.pace, History::default(), move |_| async move {
            let backend = (setup.open)().await.map_err(|error| match error.kind() {
                ErrorKind::Unavailable => Broken::Ignored(error.report()),
                _ => Broken::Failed(format!("expected: the backend opens\n    came: {}", error.report())),
            })?;
            Ok(guarantees(&*erase(Arc::new(backend))))
        });
        match opened {
            Err(Broken::Ignored(why)) if env::var(REQUIRE_BROKERS).is_ok_and(|v| v == "1") => {
                Err(Broken::Failed(format!("{REQUIRE_BROKERS}=1, but the backend can't be reached: {why}")))
            }
            opened => opened,
        }
    }

    /// Returns the cases as named tests.
    pub(crate) fn trials(self) -> Vec<Trial> {
        let probed = self.probe();
        let fail_fast = env::var(FAIL_FAST).is_ok_and(|v| v == "1");
        let trial = |case: &'static Case<B>| {
            let name = format!("{}::{}", self.setup.name, case.name);
            let (setup, erase, known) = (Arc::clone(&self.setup), self.erase, probed.clone());
            Trial::ignorable_test(name, move || {
                if fail_fast && FAILED.load(Ordering::Relaxed) {
                    return Ok(Completion::ignored_with(format!("{FAIL_FAST}=1, and a case has failed")));
                }
                match judge(&setup, erase, case, known.as_ref()) {
                    Verdict::Passed => Ok(Completion::Completed),
                    Verdict::Ignored(why) => Ok(Completion::ignored_with(why)),
                    Verdict::Failed(why) => {
                        FAILED.store(true, Ordering::Relaxed);
                        Err(why.into())
                    }
                }
            })
        };
        let unknown = self
            .unknown()
            .map(|(name, why)| Trial::ignorable_test(format!("{}::{name}", self.setup.name), move || Err(why.into())));
        self.cases.iter().copied().map(trial).chain(unknown).collect()
    }

    /// Returns names declared as not kept that match no case, with an error message.
    fn unknown(&self) -> impl Iterator<Item = (&str, String)> {
        let names = self.setup.without.iter().map(|(name, _)| name.as_str());
        let unknown = names.filter(|name| self.cases.iter().all(|case| case.name != *name));
        unknown.map(|name| (name, format!("the setup declares {name} as not kept, but there is no such case")))
    }

    /// Runs the case of this name alone.
    pub(crate) fn check(self, name: &str) -> Verdict {
        if let Some((_, why)) = self.unknown().next() {
            return Verdict::Failed(why);
        }
        match self.cases.iter().find(|case| case.name == name) {
            Some(case) => judge(&self.setup, self.erase, case, self.probe().as_ref()),
            None => Verdict::Failed(format!("there is no case {name}")),
        }
    }
}

/// Returns whether the arguments include ignored tests.
fn include_ignored() -> bool {
    env::args().any(|arg| arg == "--include-ignored" || arg == "--ignored")
}

/// Decides, in this order: unreachable, disclaimed, declared as not kept, a missing hook, and then
/// by running the case.
fn judge<T: Send + Sync + 'static, B: ?Sized + 'static>(
    setup: &Arc<Setup<T>>,
    erase: Erase<T, B>,
    case: &'static Case<B>,
    known: Result<&Guarantees, &Broken>,
) -> Verdict {
    let guarantees = match known {
        Ok(guarantees) => guarantees,
        Err(Broken::Ignored(why)) => return Verdict::Ignored(why.clone()),
        Err(Broken::Failed(why)) => return Verdict::Failed(why.clone()),
    };
    let Some(clause) = case.clause() else { return Verdict::Failed(format!("{} names no clause", case.name)) };
    if let Some(why) = guarantees.why_not(clause).filter(|_| !include_ignored()) {
        return Verdict::Ignored(format!("{clause} is disclaimed: {why}"));
    }
    let declared = setup.without.iter().find(|(name, _)| name == case.name);
    if let Some((_, why)) = declared.filter(|_| !include_ignored()) {
        return Verdict::Ignored(why.clone());
    }
    if let Some(hook) = missing(setup, case.needs) {
        return Verdict::Ignored(format!("the setup has no hook {hook}"));
    }
    let history = History::default();
    let (opening, pace) = (Arc::clone(setup), setup.pace);
    let checked = on_a_thread(pace, history.clone(), move |history| async move {
        let backend = Arc::new((opening.open)().await?);
        let context = Context::new(Box::new(Opened { backend, setup: opening, erase }), history, pace);
        (case.run)(&context).await
    });
    match checked {
        Ok(()) => Verdict::Passed,
        Err(Broken::Ignored(why)) => Verdict::Ignored(why),
        Err(Broken::Failed(why)) => {
            let steps = history.text();
            Verdict::Failed(format!("  {clause}: {}\n{why}\n  history:\n{steps}", clause.text()))
        }
    }
}

/// Runs a future on its own thread and runtime, so that even one that never yields is aborted in time.
fn on_a_thread<R, Fut>(
    pace: crate::setup::Pace,
    history: History,
    start: impl FnOnce(History) -> Fut + Send + 'static,
) -> Checked<R>
where
    R: Send + 'static,
    Fut: Future<Output = Checked<R>>,
{
    let (answer, answered) = mpsc::channel();
    let run = move || {
        let checked = match runtime(pace.clock) {
            Ok(runtime) => {
                let checked = runtime.block_on(start(history));
                runtime.shutdown_background();
                checked
            }
            Err(error) => broken("a runtime", error),
        };
        // The receiver is gone once the deadline has passed.
        drop(answer.send(checked));
    };
    if let Err(error) = thread::Builder::new().name("conformance case".into()).spawn(run) {
        return broken("a thread", error);
    }
    answered.recv_timeout(pace.case_limit).unwrap_or_else(|error| match error {
        mpsc::RecvTimeoutError::Timeout => broken(format!("an end within {:?} of real time", pace.case_limit), "none"),
        mpsc::RecvTimeoutError::Disconnected => broken("no panic", "a panic, printed above"),
    })
}

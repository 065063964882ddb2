//! Verbs that change something: plan first, then apply exactly the plan.
//!
//! A plan pins the state that it was made from, such as a group's committed offsets. Before anything is applied, the
//! present state is compared with it: a plan is refused as a whole if it is stale.

mod drive;
mod plan;

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidings_core::Error;

pub(crate) use self::plan::Plan;

use crate::context::Context;
use crate::exit::Failure;

/// Options of every verb that changes something.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ChangeOptions {
    /// Apply the plan; without it nothing changes
    #[arg(long)]
    pub(crate) execute: bool,
    /// Save the plan to a file, for --from-plan
    #[arg(long, value_name = "FILE", conflicts_with_all = ["execute", "from_plan"])]
    pub(crate) plan: Option<PathBuf>,
    /// Take a saved plan instead of making one; refused if the state has changed since
    #[arg(long, value_name = "FILE")]
    pub(crate) from_plan: Option<PathBuf>,
}

/// A change of one thing, with the values that it depends on and that it sets.
pub(crate) trait Step: Clone + Serialize + DeserializeOwned + JsonSchema {
    /// The columns of the plan's table.
    const COLUMNS: &'static [&'static str];

    /// Returns the cells of a row.
    fn cells(&self) -> Vec<String>;
}

/// Steps that a verb plans, with remarks for people.
#[derive(Debug)]
pub(crate) struct Draft<S> {
    pub(crate) steps: Vec<S>,
    pub(crate) notes: Vec<String>,
}

impl<S> Draft<S> {
    pub(crate) fn new(steps: Vec<S>) -> Self {
        Self { steps, notes: Vec::new() }
    }

    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// A verb that changes something.
pub(crate) trait Change {
    /// The verb in plans and audits: `topic.create`.
    const VERB: &'static str;
    /// One step of the plan.
    type Step: Step;

    /// Returns the options.
    fn options(&self) -> &ChangeOptions;

    /// Returns the names that the arguments give; none with only `--from-plan`.
    fn subjects(&self) -> Vec<String>;

    /// Makes the plan, and changes nothing.
    async fn plan(&self, cx: &Context) -> Result<Draft<Self::Step>, Failure>;

    /// Compares the steps with the present state; returns why they no longer fit, one line each.
    async fn stale(&self, cx: &Context, steps: &[Self::Step]) -> Result<Vec<String>, Failure>;

    /// Applies the steps; answer `i` is step `i`'s. Fewer answers mean that the remaining steps were not begun.
    async fn apply(&self, cx: &Context, steps: &[Self::Step]) -> Vec<tidings_core::Result<()>>;
}

/// Applies steps one after the other, until the deadline, an interrupt, or an error after which others would fail too.
pub(crate) async fn one_by_one<S>(
    cx: &Context,
    steps: &[S],
    apply: impl AsyncFn(&S) -> tidings_core::Result<()>,
) -> Vec<tidings_core::Result<()>> {
    let progress = crate::console::progress(&cx.console, steps.len() as u64);
    let mut answers = Vec::with_capacity(steps.len());
    for step in steps {
        if cx.is_interrupted() || tokio::time::Instant::now() >= cx.deadline() {
            break;
        }
        let answer = tokio::time::timeout_at(cx.deadline(), apply(step)).await.unwrap_or_else(|_| Err(no_answer()));
        let is_over = answer.as_ref().is_err_and(Error::is_infrastructure);
        answers.push(answer);
        progress.inc(1);
        if is_over {
            break;
        }
    }
    progress.finish_and_clear();
    answers
}

/// Marks the error of a step that was applied in part.
#[derive(Debug)]
struct Partly;

impl fmt::Display for Partly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applied in part")
    }
}

impl std::error::Error for Partly {}

/// Returns the error of a step that was applied in part; `what` names the rest.
pub(crate) fn partly(what: String) -> Error {
    Error::new(tidings_core::ErrorKind::Conflict, what).with_source(Partly)
}

/// Returns whether an error is that of a step that was applied in part.
fn is_partly(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Partly>())
}

/// Answers each of `count` steps that were applied in one call with the answer of the call.
pub(crate) fn same_for_all(count: usize, answer: tidings_core::Result<()>) -> Vec<tidings_core::Result<()>> {
    let same = |error: &Error| Error::new(error.kind(), error.report());
    (0..count).map(|_| answer.as_ref().copied().map_err(same)).collect()
}

/// Returns the error of a step that was not answered before the deadline.
fn no_answer() -> Error {
    Error::new(tidings_core::ErrorKind::Indeterminate, "no answer before the deadline: it may have been applied")
}

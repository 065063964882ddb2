//! Cases and their checks.
//!
//! A check returns `Err` at the first broken promise; `?` ends the case with it. So cases read as
//! the story that they check, without assertions that panic on another thread.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::Pin;

use tidings_core::{Clause, Error, ErrorKind, Result};

use crate::context::Context;
use crate::hooks::Hook;

/// Result of a case that does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The case failed; states the expected and the actual result.
    Failed(String),
    /// The case can't be checked here; states why.
    Ignored(String),
}

/// A case's result, or that of a step of it.
pub(crate) type Checked<T = ()> = Result<T, Broken>;

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Failed(format!("expected: success\n    came: {} ({})", error.report(), error.kind()))
    }
}

/// A case; not `Send`, as it runs where it was started.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Checked> + 'a>>;

/// A case: a function over an open backend.
pub(crate) struct Case<B: ?Sized> {
    /// Begins with the id of its clause.
    pub(crate) name: &'static str,
    /// Hooks without which it is ignored.
    pub(crate) needs: &'static [Hook],
    pub(crate) run: for<'a> fn(&'a Context<B>) -> Running<'a>,
}

impl<B: ?Sized> Case<B> {
    /// The clause that the case's name begins with.
    pub(crate) fn clause(&self) -> Option<Clause> {
        let (id, _) = self.name.split_once('_')?;
        Clause::ALL.iter().copied().find(|clause| clause.id() == id)
    }
}

/// Lists functions as cases: `cases![p1_a, p2_b [Outage]]`.
macro_rules! cases {
    ($($name:ident $([$($hook:ident),+])?),* $(,)?) => {
        &[$($crate::case::Case {
            name: stringify!($name),
            needs: &[$($($crate::hooks::Hook::$hook),+)?],
            run: |context| Box::pin($name(context)),
        }),*]
    };
}
pub(crate) use cases;

/// Maximum bytes of an expected or actual result in a failure.
const SHOWN: usize = 2_000;

/// Shows a value up to a bound: records may be large.
fn shown(value: impl Display) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push_str(" ..");
    }
    text
}

/// Returns a failure with the expected and the actual result.
pub(crate) fn broken<T>(expected: impl Display, came: impl Display) -> Checked<T> {
    Err(Broken::Failed(format!("expected: {}\n    came: {}", shown(expected), shown(came))))
}

/// Checks that `came` equals `expected`.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, expected: T, came: T) -> Checked {
    if expected == came { Ok(()) } else { broken(format!("{what}: {expected:?}"), format!("{came:?}")) }
}

/// Checks that `holds` is true; `came` is the actual result.
pub(crate) fn holds(holds: bool, expected: &str, came: impl Debug) -> Checked {
    if holds { Ok(()) } else { broken(expected, format!("{came:?}")) }
}

/// Checks that `answer` is an error of one of these kinds.
pub(crate) fn refused<T: Debug>(what: &str, kinds: &[ErrorKind], answer: Result<T>) -> Checked {
    match answer {
        Err(error) if kinds.contains(&error.kind()) => Ok(()),
        Err(error) => {
            broken(format!("{what}: an error of kind {kinds:?}"), format!("{} ({})", error.report(), error.kind()))
        }
        Ok(answer) => broken(format!("{what}: an error of kind {kinds:?}"), format!("Ok({answer:?})")),
    }
}

/// Checks that `answer` is `Ok`.
pub(crate) fn granted<T>(what: &str, answer: Result<T>) -> Checked<T> {
    answer.or_else(|error| broken(format!("{what}: Ok"), format!("{} ({})", error.report(), error.kind())))
}

/// Returns the only one of `answers`.
pub(crate) fn only<T: Debug>(what: &str, mut answers: Vec<T>) -> Checked<T> {
    match (answers.pop(), answers.len()) {
        (Some(answer), 0) => Ok(answer),
        (last, _) => broken(format!("{what}: one answer"), format!("{answers:?} and {last:?}")),
    }
}

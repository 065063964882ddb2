//! Rules of the values that a codec must not write, because its reader could not read them.
//!
//! The rules belong to a format; the walk over a value that applies them is [`strict`](super::strict). State is kept in
//! cells, because serde hands out several serializers of one value at once, each with a shared reference.

use std::cell::{Cell, RefCell};
use std::fmt::Write;

use serde::ser::Error;

/// The error of a value that is nested too deep, both when written and when read.
pub(super) const TOO_DEEP: &str = "values are nested too deep";

/// Restrictions of a format's reader, and the state of a check.
#[derive(Debug)]
pub(super) struct Rules {
    /// Whether the format can represent NaN and the infinities.
    pub(super) all_floats: bool,
    /// Whether the format distinguishes `Some(())` and `Some(None)` from `None`.
    pub(super) nested_options: bool,
    /// Whether the format records which fields are present.
    pub(super) skipped_fields: bool,
    /// The levels that the reader counts for a level of this kind.
    pub(super) depth_of: fn(Level) -> usize,
    depth: Cell<usize>,
    elements: Cell<usize>,
    /// The refusal: formats without error texts lose that of the error.
    refused: Cell<Option<&'static str>>,
    /// The path of the refused value, from the innermost field outwards.
    path: RefCell<Vec<Step>>,
}

/// A level of nesting around a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// A list, a map, or a struct.
    Compound,
    /// A variant around one value.
    NewtypeVariant,
    /// A variant around several values.
    Variant,
    /// A newtype, an option, or a unit variant.
    Thin,
}

/// A step from a value to one within it.
#[derive(Debug)]
pub(super) enum Step {
    Field(&'static str),
    Element(usize),
}

impl Rules {
    /// Creates the rules of a format without restrictions, whose reader accepts `depth` levels.
    pub(super) fn new(depth: usize, depth_of: fn(Level) -> usize) -> Self {
        Self {
            all_floats: true,
            nested_options: true,
            skipped_fields: true,
            depth_of,
            depth: Cell::new(depth),
            elements: Cell::new(0),
            refused: Cell::new(None),
            path: RefCell::default(),
        }
    }

    /// Counts elements of a list, a map, or a tuple without a size in memory.
    #[inline]
    pub(super) fn count(&self, elements: usize) {
        self.elements.set(self.elements.get().saturating_add(elements));
    }

    /// Returns the number of elements that were counted while writing.
    #[cfg(feature = "postcard")]
    pub(super) fn elements(&self) -> usize {
        self.elements.get()
    }

    /// Returns what was refused and where, if that is why writing failed: `lines[1].price: ..`.
    pub(super) fn refused(&self) -> Option<String> {
        let why = self.refused.get()?;
        let mut text = String::new();
        for step in self.path.borrow().iter().rev() {
            let dot = if text.is_empty() { "" } else { "." };
            // Writing to a string cannot fail.
            let _ = match step {
                Step::Field(name) => write!(text, "{dot}{name}"),
                Step::Element(place) => write!(text, "[{place}]"),
            };
        }
        if text.is_empty() { Some(why.to_owned()) } else { Some(format!("{text}: {why}")) }
    }

    /// Fails because of a rule. The text is kept apart from the error, which a format may drop.
    #[cold]
    pub(super) fn refuse<T, E: Error>(&self, why: &'static str) -> Result<T, E> {
        self.refused.set(Some(why));
        Err(E::custom(why))
    }

    /// Enters a level of nesting, to be left by [`leave`](Self::leave).
    #[inline]
    pub(super) fn enter<E: Error>(&self, level: Level) -> Result<(), E> {
        match self.depth.get().checked_sub((self.depth_of)(level)) {
            Some(left) => self.depth.set(left),
            None => return self.refuse(TOO_DEEP),
        }
        Ok(())
    }

    /// Leaves a level that was entered.
    #[inline]
    pub(super) fn leave(&self, level: Level) {
        self.depth.set(self.depth.get() + (self.depth_of)(level));
    }

    /// Writes a value one level deeper.
    #[inline]
    pub(super) fn within<T, E: Error>(&self, level: Level, write: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.enter(level)?;
        let written = write();
        self.leave(level);
        written
    }

    /// Records the path of an error.
    #[inline]
    pub(super) fn at<T, E>(&self, step: impl FnOnce() -> Step, written: Result<T, E>) -> Result<T, E> {
        if written.is_err() {
            self.note(step());
        }
        written
    }

    /// Adds a step to the path, from the inside out: the walk returns through the fields around the refused value.
    #[cold]
    fn note(&self, step: Step) {
        self.path.borrow_mut().push(step);
    }
}

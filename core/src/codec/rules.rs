//! What a codec must not write, because its reader could not take it.

use std::cell::{Cell, RefCell};
use std::fmt::Write;

use serde::ser::Error;

/// Why a value that is nested too deep is neither written nor read.
pub(super) const TOO_DEEP: &str = "values are nested too deep";

/// What a format's reader can't take.
#[derive(Debug)]
pub(super) struct Rules {
    /// Whether the format has a text for NaN and the infinities.
    pub(super) all_floats: bool,
    /// Whether the format tells `Some(())` and `Some(None)` from `None`.
    pub(super) nested_options: bool,
    /// Whether the format tells which fields are there.
    pub(super) skipped_fields: bool,
    /// How deep a level of this kind is for the reader.
    pub(super) depth_of: fn(Level) -> usize,
    depth: Cell<usize>,
    elements: Cell<usize>,
    /// What was refused: formats without room for texts forget the error's own.
    refused: Cell<Option<&'static str>>,
    /// Where, from the innermost field outwards.
    path: RefCell<Vec<Step>>,
}

/// What lies around a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// A list, a map, or a struct.
    Compound,
    /// A variant around one value.
    NewtypeVariant,
    /// A variant around several values.
    Variant,
    /// A newtype, an option, or a variant of nothing.
    Thin,
}

/// A step from a value to one in it.
#[derive(Debug)]
pub(super) enum Step {
    Field(&'static str),
    Element(usize),
}

impl Rules {
    /// Of a format that tells everything, whose reader takes `depth` levels.
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

    /// Counts an element of a list or map.
    #[inline]
    pub(super) fn element(&self) {
        self.elements.set(self.elements.get() + 1);
    }

    /// How many elements of lists and maps were written.
    #[cfg(feature = "postcard")]
    pub(super) fn elements(&self) -> usize {
        self.elements.get()
    }

    /// What was refused and where, if that is why writing failed: `lines[1].price: ..`.
    pub(super) fn refused(&self) -> Option<String> {
        let why = self.refused.get()?;
        let mut text = String::new();
        for step in self.path.borrow().iter().rev() {
            let dot = if text.is_empty() { "" } else { "." };
            // Writing to a string does not fail.
            let _ = match step {
                Step::Field(name) => write!(text, "{dot}{name}"),
                Step::Element(place) => write!(text, "[{place}]"),
            };
        }
        if text.is_empty() { Some(why.to_owned()) } else { Some(format!("{text}: {why}")) }
    }

    #[cold]
    pub(super) fn refuse<T, E: Error>(&self, why: &'static str) -> Result<T, E> {
        self.refused.set(Some(why));
        Err(E::custom(why))
    }

    #[inline]
    pub(super) fn enter<E: Error>(&self, level: Level) -> Result<(), E> {
        match self.depth.get().checked_sub((self.depth_of)(level)) {
            Some(left) => self.depth.set(left),
            None => return self.refuse(TOO_DEEP),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn leave(&self, level: Level) {
        self.depth.set(self.depth.get() + (self.depth_of)(level));
    }

    #[inline]
    pub(super) fn within<T, E: Error>(&self, level: Level, write: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.enter(level)?;
        let written = write();
        self.leave(level);
        written
    }

    /// Notes where an error came from.
    #[inline]
    pub(super) fn at<T, E>(&self, step: impl FnOnce() -> Step, written: Result<T, E>) -> Result<T, E> {
        if written.is_err() {
            self.note(step());
        }
        written
    }

    #[cold]
    fn note(&self, step: Step) {
        self.path.borrow_mut().push(step);
    }
}

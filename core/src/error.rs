//! The error type of the workspace: its kind, what was being tried, and its cause.
//!
//! All crates return [`Error`]. A caller decides by its [`ErrorKind`], never by its text: the kinds are chosen by what
//! the caller can do. A backend maps its client's errors in one place, its `error.rs`; the client's error stays in the
//! chain of sources and its type is not public. Handlers and layers return [`BoxError`], so that they can use any error
//! type.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The error type of handlers, layers and error sources: any error that may cross threads.
///
/// `?` converts into it from every error type and from texts. An error without a [`Failure`](crate::Failure) in its
/// chain is retried, then dead-lettered; [`reject`](crate::reject) and [`unavailable`](crate::unavailable) state
/// another treatment.
///
/// ```
/// use tidings_core::{BoxError, Failure, reject};
///
/// fn age(text: &str) -> Result<u8, BoxError> {
///     if text.is_empty() {
///         return Err(reject("no age").into());
///     }
///     Ok(text.parse::<u8>()?)
/// }
///
/// assert_eq!(Failure::of(&*age("old").unwrap_err()), Failure::Retry);
/// assert_eq!(Failure::of(&*age("").unwrap_err()), Failure::Reject);
/// ```
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// A result whose error is [`Error`].
///
/// It fits `main`: on an error the program prints [`Error`]'s `Debug`, which is one line and its causes.
///
/// ```
/// use tidings_core::{ErrorKind, Result, check_topic_name};
///
/// fn letters_of(topic: &str) -> Result<String> {
///     check_topic_name(topic)?;
///     Ok(format!("{topic}-dlq"))
/// }
///
/// assert_eq!(letters_of("orders")?, "orders-dlq");
/// assert_eq!(letters_of("my orders").map_err(|error| error.kind()), Err(ErrorKind::Invalid));
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`], by what a caller can do about it. A kind exists only where a caller acts differently.
///
/// ```
/// use tidings_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "publish to orders");
/// assert!(error.is_retryable() && error.is_infrastructure());
///
/// // Kinds are written as text into dead letters, and read back.
/// assert_eq!(ErrorKind::from_name(ErrorKind::TooLarge.as_str()), ErrorKind::TooLarge);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request or a setting is wrong: fix the program. The message names the field or argument.
    Invalid,
    /// A topic, partition, group or letter does not exist: create it, or wait until it is created.
    NotFound,
    /// The resource to be created exists already: continue, or choose another name.
    AlreadyExists,
    /// Credentials are wrong or a permission is missing: fix them at the broker or in the configuration.
    Denied,
    /// A record or request exceeds the backend's limit: it will never fit, dead-letter it.
    TooLarge,
    /// The bytes are malformed (an undecodable record): dead-letter the record.
    Undecodable,
    /// The backend is down, busy or unreachable: nothing was done, try again later.
    Unavailable,
    /// The operation may or may not have been done (a timeout, a lost answer): a retry may do it twice.
    Indeterminate,
    /// A newer owner has taken over (of a partition, a claim, a membership): stop, never retry.
    Fenced,
    /// The current state forbids it (an active group, another open process): end that first.
    Conflict,
    /// The publisher, consumer or service was closed: open a new one.
    Closed,
    /// Stored data is damaged: an operator must look at it before it is used again.
    Corrupt,
    /// The backend does not offer this, by its [`guarantees`](crate::Guarantees) or its version: do not use it.
    Unsupported,
    /// A handler failed with an error without a kind of its own: retry, then dead-letter.
    Failed,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: &[Self] = &[
        Self::Invalid,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Denied,
        Self::TooLarge,
        Self::Undecodable,
        Self::Unavailable,
        Self::Indeterminate,
        Self::Fenced,
        Self::Conflict,
        Self::Closed,
        Self::Corrupt,
        Self::Unsupported,
        Self::Failed,
    ];

    /// Returns the kind's stable name, as used in dead letters, logs and metrics: `"unavailable"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Denied => "denied",
            Self::TooLarge => "too-large",
            Self::Undecodable => "undecodable",
            Self::Unavailable => "unavailable",
            Self::Indeterminate => "unknown",
            Self::Fenced => "fenced",
            Self::Conflict => "conflict",
            Self::Closed => "closed",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }

    /// Returns the kind of this name; [`Failed`](Self::Failed) for an unknown name, such as one from a later version.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name).unwrap_or(Self::Failed)
    }

    /// Returns whether the same call may succeed later. After [`Indeterminate`](Self::Indeterminate) a retry may do
    /// it twice.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Indeterminate)
    }

    /// Returns whether the fault lies with the infrastructure and not with the record: a service then pauses and
    /// backs off, and dead-letters nothing.
    pub const fn is_infrastructure(self) -> bool {
        matches!(self, Self::Unavailable | Self::Indeterminate | Self::Fenced | Self::Closed | Self::Corrupt)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of every tidings crate.
///
/// A cause is named once: either by [`source`](StdError::source) or by the error's own text, never by both.
///
/// - `Display` is one line. It states what was being tried and leaves the cause to `source()`.
/// - An error of opening something ([`Error::explained`]: `connect`, `open`, `start`) is often the only line that a
///   program prints. Its `Display` names the address and the cause, and it has no source.
/// - `Debug` is readable, since `fn main() -> tidings::Result<()>` prints it: the line of `Display`, the kind, and the
///   causes below it. `{:#?}` prints the fields.
/// - [`Error::report`] prints the whole chain in one line.
///
/// ```
/// use tidings_core::{Error, ErrorKind};
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = Error::explained(ErrorKind::Unavailable, "connect to Kafka at a:9092", &refused);
/// assert_eq!(error.to_string(), "connect to Kafka at a:9092: connection refused");
/// assert_eq!(format!("{error:?}"), "connect to Kafka at a:9092: connection refused (unavailable)");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    context: Cow<'static, str>,
    source: Option<BoxError>,
}

impl Error {
    /// Creates an error of `kind`; `context` states what was being tried: lower case, no full stop, no secret.
    pub fn new(kind: ErrorKind, context: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, context: context.into(), source: None }))
    }

    /// Sets the cause of the error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Creates an error of `kind` caused by `source`.
    pub fn caused_by(kind: ErrorKind, context: impl Into<Cow<'static, str>>, source: impl Into<BoxError>) -> Self {
        Self::new(kind, context).with_source(source)
    }

    /// Creates an error of `kind` whose own text names `cause` and its causes in one line; it has no
    /// [`source`](StdError::source).
    ///
    /// For errors of opening something, which must be readable where only `{error}` is printed.
    pub fn explained(kind: ErrorKind, context: impl fmt::Display, cause: &(dyn StdError + 'static)) -> Self {
        let text = format!("{context}: {}", report(cause));
        Self::new(kind, text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Prefixes the error's text with what was being tried: `"start orders: no such topic"`.
    ///
    /// Adds no link to the chain, so that `{error}` alone names both.
    ///
    /// ```
    /// use tidings_core::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::NotFound, "no such topic").in_context("start orders");
    /// assert_eq!(error.to_string(), "start orders: no such topic");
    /// ```
    #[must_use]
    pub fn in_context(mut self, context: impl fmt::Display) -> Self {
        self.0.context = format!("{context}: {}", self.0.context).into();
        self
    }

    /// Returns the error's kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns whether the same call may succeed later: see [`ErrorKind::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// Returns whether the fault lies with the infrastructure: see [`ErrorKind::is_infrastructure`].
    pub fn is_infrastructure(&self) -> bool {
        self.0.kind.is_infrastructure()
    }

    /// Formats the error and all its sources in one line, for logs and people.
    pub fn report(&self) -> String {
        report(self)
    }
}

/// Formats `error` and all its sources in one line: `"open the store: permission denied"`.
///
/// A source whose text is already part of the error above it is omitted, and at most 64 errors of a chain are visited.
///
/// ```
/// use tidings_core::{Error, ErrorKind, report};
///
/// let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
/// let error = Error::caused_by(ErrorKind::Denied, "open the store", denied);
/// assert_eq!(error.to_string(), "open the store");
/// assert_eq!(report(&error), "open the store: permission denied");
/// ```
pub fn report(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    text
}

/// Returns the texts of the sources of `error`. A text contained in the one before it, as with anyhow and others, is
/// omitted.
fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let (mut last, mut found) = (error.to_string(), Vec::new());
    for source in error_chain(error).skip(1) {
        let text = source.to_string();
        if !contains(&last, &text) {
            found.push(text.clone());
            last = text;
        }
    }
    found
}

/// Limit of errors visited in a chain: the chain of an error that is its own source never ends.
const CHAIN_LENGTH: usize = 64;

/// Iterates over `error` and its sources, up to 64 errors: an error may be its own source. The error that an
/// [`std::io::Error`] wraps is one of them.
///
/// For searching a cause by its type, below the errors of layers that wrapped it; for one of ours see [`find_error`].
///
/// ```
/// use std::io;
/// use tidings_core::{Error, ErrorKind, error_chain};
///
/// let error = Error::caused_by(ErrorKind::Unavailable, "read the disk", io::Error::from(io::ErrorKind::TimedOut));
/// let io = error_chain(&error).find_map(|cause| cause.downcast_ref::<io::Error>());
/// assert_eq!(io.map(io::Error::kind), Some(io::ErrorKind::TimedOut));
/// ```
pub fn error_chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| source(error)).take(CHAIN_LENGTH)
}

/// Returns the next error of a chain. [`std::io::Error`] names as its source that of the error which it wraps, and so
/// skips the wrapped one.
fn source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// Returns whether `text` contains `part` as whole words.
fn contains(text: &str, part: &str) -> bool {
    let is_apart = |(before, after): (&str, &str)| {
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    };
    part.is_empty() || text.match_indices(part).any(|(at, _)| is_apart((&text[..at], &text[at + part.len()..])))
}

/// Returns the first [`Error`] in `error`'s chain of sources, including `error` itself.
///
/// Layers and handlers wrap errors; this finds the one that has a [kind](Error::kind).
///
/// ```
/// use tidings_core::{Error, ErrorKind, find_error};
///
/// #[derive(Debug)]
/// struct Audited(Error);
/// # impl std::fmt::Display for Audited {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("audit a call") }
/// # }
///
/// impl std::error::Error for Audited {
///     fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
///         Some(&self.0)
///     }
/// }
///
/// let error = Audited(Error::new(ErrorKind::Fenced, "commit orders[0]"));
/// assert_eq!(find_error(&error).map(Error::kind), Some(ErrorKind::Fenced));
/// ```
pub fn find_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    error_chain(error).find_map(|error| error.downcast_ref::<Error>())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            let mut fields = f.debug_struct("Error");
            fields.field("kind", &self.0.kind).field("context", &self.0.context);
            if let Some(source) = &self.0.source {
                fields.field("source", source);
            }
            return fields.finish();
        }
        write!(f, "{} ({})", self.0.context, self.0.kind)?;
        let causes = causes(self);
        if !causes.is_empty() {
            f.write_str("\n\nCaused by:")?;
        }
        causes.iter().try_for_each(|cause| write!(f, "\n    {cause}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_every_cause_once() {
        let inner = Error::new(ErrorKind::Unavailable, "connect to 127.0.0.1:1");
        let outer = Error::caused_by(ErrorKind::Unavailable, "open the publisher", inner);
        assert_eq!(outer.to_string(), "open the publisher");
        assert_eq!(outer.report(), "open the publisher: connect to 127.0.0.1:1");
    }

    #[test]
    fn a_cause_that_stands_anywhere_in_the_text_before_is_not_repeated() {
        let of = |outer: &'static str, inner: &'static str| {
            Error::caused_by(ErrorKind::Failed, outer, std::io::Error::other(inner)).report()
        };
        assert_eq!(of("call mail: refused (tried twice)", "refused"), "call mail: refused (tried twice)");
        assert_eq!(of("refused: call mail", "refused"), "refused: call mail");
        assert_eq!(of("call mail", ""), "call mail");
        assert_eq!(of("unrefused calls", "refused"), "unrefused calls: refused", "a part of a word is no cause");
    }

    #[test]
    fn debug_is_a_readable_line_with_the_causes_below() {
        let inner = Error::caused_by(ErrorKind::Unavailable, "connect to a:1", std::io::Error::other("refused"));
        let outer = Error::caused_by(ErrorKind::Unavailable, "open the publisher", inner);
        let text = "open the publisher (unavailable)\n\nCaused by:\n    connect to a:1\n    refused";
        assert_eq!(format!("{outer:?}"), text);
        assert!(format!("{outer:#?}").starts_with("Error {\n    kind: Unavailable,"), "{outer:#?}");
        assert_eq!(
            format!("{:?}", Error::new(ErrorKind::Invalid, "linger: expected 1")),
            "linger: expected 1 (invalid)"
        );
    }

    #[test]
    fn an_explained_error_names_its_cause_itself_and_once() {
        let refused = std::io::Error::other("refused\nby the host");
        let cause = Error::caused_by(ErrorKind::Unavailable, "open a socket", refused);
        let error = Error::explained(ErrorKind::Unavailable, "connect to a:1", &cause);
        assert_eq!(error.to_string(), "connect to a:1: open a socket: refused by the host");
        assert!(error.source().is_none());
        let error = error.in_context("start orders");
        assert_eq!(error.report(), "start orders: connect to a:1: open a socket: refused by the host");
    }

    #[test]
    fn an_error_is_found_below_a_foreign_one() {
        #[derive(Debug)]
        struct Foreign(Error);
        impl fmt::Display for Foreign {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("foreign")
            }
        }
        impl StdError for Foreign {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let foreign = Foreign(Error::new(ErrorKind::Fenced, "commit"));
        assert_eq!(find_error(&foreign).map(Error::kind), Some(ErrorKind::Fenced));
    }

    #[test]
    fn a_chain_without_an_end_is_read_within_bounds() {
        #[derive(Debug)]
        struct Endless(std::sync::atomic::AtomicUsize);
        impl fmt::Display for Endless {
            // Each text differs, so that no cause is omitted. The test fails instead of running forever.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "text {}", self.0.load(std::sync::atomic::Ordering::Relaxed))
            }
        }
        impl StdError for Endless {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                assert!(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 1_000, "it does not end");
                Some(self)
            }
        }
        let endless = || Endless(std::sync::atomic::AtomicUsize::new(0));
        assert!(report(&endless()).starts_with("text 0: text "));
        assert!(find_error(&endless()).is_none());
        assert_eq!(crate::Failure::of(&endless()), crate::Failure::Retry);
        let error = Error::caused_by(ErrorKind::Failed, "handle", endless());
        assert!(error.report().starts_with("handle: text "));
        assert!(format!("{error:?}").starts_with("handle ("));
    }
}

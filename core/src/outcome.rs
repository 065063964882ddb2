//! Return values of handlers, and the errors by which they report failures.

use std::error::Error as StdError;
use std::fmt;

use crate::publish::derived_record;
use crate::{BoxError, Caused, Delivery, Event, Record, headers};

/// The outcome of a handled delivery: the events to publish before it is settled.
///
/// ```
/// use tidings_core::{Outcome, Record};
///
/// let mut outcome = Outcome::handled();
/// outcome.push(Record::new("alarms", "fire").with_header("retry-attempt", "3"));
/// assert!(outcome.records()[0].headers.is_empty(), "headers that steer a delivery are removed");
/// ```
#[derive(Debug, Default)]
pub struct Outcome {
    records: Vec<Record>,
    completed: bool,
}

impl Outcome {
    /// Creates an outcome with nothing to publish. Allocates nothing.
    pub const fn handled() -> Self {
        Self { records: Vec::new(), completed: false }
    }

    /// Appends a record to be published.
    ///
    /// Headers that [steer a delivery](headers::steers_delivery) are removed: a redriven or buried record that a
    /// handler passes on is a new record.
    pub fn push(&mut self, mut record: Record) {
        headers::remove_steering(&mut record.headers);
        self.records.push(record);
    }

    /// Returns the records to be published.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Takes the records to be published, for a layer that publishes them by other means (an outbox).
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Marks the events as already completed in the idempotency store, for a layer whose transaction completed them.
    #[must_use]
    pub fn with_completed(mut self) -> Self {
        self.completed = true;
        self
    }

    /// Returns whether a layer has completed the events.
    pub fn is_completed(&self) -> bool {
        self.completed
    }
}

/// The way in which a returned value names the event that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Causes {
    /// There is nothing to publish.
    Nothing,
    /// The cause is the delivery's only event; not usable in a batch handler.
    Delivery,
    /// Each returned event names its own cause: [`Caused`].
    Named,
}

impl Causes {
    /// Combines the causes of a pair: `Nothing` yields to the other, and one that does not name its cause decides for
    /// both.
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, other) => other,
            (this, Self::Nothing) => this,
            (Self::Named, Self::Named) => Self::Named,
            _ => Self::Delivery,
        }
    }
}

/// A return value of a handler: `()`, events, or a `Result` of these.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "not an outcome",
    note = "handlers return `()`, an event, `Option`/`Vec`/tuples of events, or a `Result` of these whose error converts to `BoxError`"
)]
pub trait IntoOutcome {
    /// The way in which the returned events name their causes: a batch handler must return `()` or [`Caused`] events.
    const CAUSES: Causes;

    /// Whether the conversion reads the delivery. If not, a raw handler owns its delivery, and an empty one is passed
    /// here.
    #[doc(hidden)]
    const LOOKS: bool = true;

    /// Converts the value into an outcome, with ids derived from `delivery`.
    ///
    /// # Errors
    /// The handler's own error, or an event that could not be encoded.
    fn into_outcome(self, delivery: &Delivery) -> Result<Outcome, BoxError>;
}

impl IntoOutcome for () {
    const CAUSES: Causes = Causes::Nothing;
    const LOOKS: bool = false;
    fn into_outcome(self, _: &Delivery) -> Result<Outcome, BoxError> {
        Ok(Outcome::handled())
    }
}

impl IntoOutcome for Outcome {
    // Its records were made by hand, including their ids.
    const CAUSES: Causes = Causes::Named;
    const LOOKS: bool = false;
    fn into_outcome(self, _: &Delivery) -> Result<Outcome, BoxError> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoEvents> IntoOutcome for T {
    const CAUSES: Causes = T::CAUSES;
    fn into_outcome(self, delivery: &Delivery) -> Result<Outcome, BoxError> {
        let mut outcome = Outcome::handled();
        self.append(delivery, &mut outcome)?;
        Ok(outcome)
    }
}

impl<T: IntoOutcome, E: Into<BoxError>> IntoOutcome for Result<T, E> {
    const CAUSES: Causes = T::CAUSES;
    const LOOKS: bool = T::LOOKS;
    fn into_outcome(self, delivery: &Delivery) -> Result<Outcome, BoxError> {
        self.map_err(Into::into)?.into_outcome(delivery)
    }
}

/// One or several events.
#[diagnostic::on_unimplemented(message = "`{Self}` is not an event, nor a collection of events")]
pub trait IntoEvents {
    /// See [`IntoOutcome::CAUSES`].
    const CAUSES: Causes;

    /// Appends the events, in order, to the records to be published.
    ///
    /// # Errors
    /// If an event cannot be encoded.
    fn append(self, delivery: &Delivery, outcome: &mut Outcome) -> Result<(), BoxError>;
}

impl<E: Event> IntoEvents for E {
    const CAUSES: Causes = Causes::Delivery;
    fn append(self, delivery: &Delivery, outcome: &mut Outcome) -> Result<(), BoxError> {
        outcome.push(derived_record(delivery, None, &self)?);
        Ok(())
    }
}

impl<E: Event> IntoEvents for Caused<E> {
    const CAUSES: Causes = Causes::Named;
    fn append(self, delivery: &Delivery, outcome: &mut Outcome) -> Result<(), BoxError> {
        outcome.push(derived_record(delivery, Some(self.cause), &self.event)?);
        Ok(())
    }
}

impl<T: IntoEvents> IntoEvents for Option<T> {
    const CAUSES: Causes = T::CAUSES;
    fn append(self, delivery: &Delivery, outcome: &mut Outcome) -> Result<(), BoxError> {
        self.map_or(Ok(()), |events| events.append(delivery, outcome))
    }
}

impl<T: IntoEvents> IntoEvents for Vec<T> {
    const CAUSES: Causes = T::CAUSES;
    fn append(self, delivery: &Delivery, outcome: &mut Outcome) -> Result<(), BoxError> {
        self.into_iter().try_for_each(|events| events.append(delivery, outcome))
    }
}

macro_rules! tuples { ($(($first:ident $(, $rest:ident)+))*) => { $(
    impl<$first: IntoEvents $(, $rest: IntoEvents)+> IntoEvents for ($first, $($rest,)+) {
        const CAUSES: Causes = $first::CAUSES$(.and($rest::CAUSES))+;
        #[expect(non_snake_case, reason = "the type parameters' names serve as the values'")]
        fn append(self, delivery: &Delivery, outcome: &mut Outcome) -> Result<(), BoxError> {
            let ($first, $($rest,)+) = self;
            $first.append(delivery, outcome)?;
            $($rest.append(delivery, outcome)?;)+
            Ok(())
        }
    }
)* } }
tuples! { (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) }

/// The way in which the engine treats a handler's error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Retry with backoff, then dead-letter: any error that does not say otherwise.
    Retry,
    /// Dead-letter at once: [`reject`].
    Reject,
    /// The fault does not lie with the record: pause, back off and retry without limit: [`unavailable`], or a tidings
    /// error of an [infrastructure](crate::ErrorKind::is_infrastructure) kind in the chain.
    Unavailable,
    /// These records of a batch failed, and all others were handled: [`failed`].
    Failed(Vec<usize>),
    /// The records of a batch before this one were handled, this one failed, those after it were not touched:
    /// [`stopped_at`].
    StoppedAt(usize),
    /// No record of a batch was handled, because its transaction was rolled back: these failed; if none is named, it
    /// is unknown which ones: [`rolled_back`].
    RolledBack(Vec<usize>),
    /// The claims of the events belong, or may belong, to another lease now: nothing was handled, claim them again:
    /// [`held`].
    Held,
    /// Publishing a returned event failed permanently, or a record could not be decoded: not used by handlers.
    Undecodable,
}

impl Failure {
    /// Returns the failure that `error` or any of its sources states.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        for current in crate::error_chain(error) {
            if let Some(marked) = current.downcast_ref::<HandlerError>() {
                return marked.failure.clone();
            }
            // anyhow hides the type of the error it was created from, but not the types of that error's sources.
            if let Some(reason) = current.downcast_ref::<Reason>() {
                return reason.failure.clone();
            }
            if let Some(error) = current.downcast_ref::<crate::Error>()
                && error.is_infrastructure()
            {
                return Self::Unavailable;
            }
        }
        Self::Retry
    }
}

/// A handler's error with the [`Failure`] that it states. It passes through `?`, [`BoxError`] and anyhow.
#[derive(Debug)]
pub struct HandlerError {
    failure: Failure,
    reason: Reason,
}

/// Repeats the failure below the error itself: see [`Failure::of`].
#[derive(Debug)]
struct Reason {
    failure: Failure,
    error: BoxError,
}

impl HandlerError {
    fn new(failure: Failure, error: impl Into<BoxError>) -> Self {
        Self { reason: Reason { failure: failure.clone(), error: error.into() }, failure }
    }

    /// Creates an error as [`reject`] does.
    pub fn reject(error: impl Into<BoxError>) -> Self {
        Self::new(Failure::Reject, error)
    }

    /// Creates an error as [`unavailable`] does.
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::new(Failure::Unavailable, error)
    }

    /// Returns how the engine treats the error.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Failure::Reject => f.write_str("rejected by the handler"),
            Failure::Unavailable => f.write_str("a dependency of the handler is unavailable"),
            Failure::Failed(places) if places.len() == 1 => f.write_str("1 record of the batch failed"),
            Failure::Failed(places) => write!(f, "{} records of the batch failed", places.len()),
            Failure::StoppedAt(place) => write!(f, "the batch stopped at record {place}"),
            Failure::RolledBack(_) => f.write_str("the handler failed, and its transaction was rolled back"),
            Failure::Held => f.write_str("the claim is no longer held by this service"),
            Failure::Retry | Failure::Undecodable => f.write_str("the handler failed"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for HandlerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.reason)
    }
}

impl StdError for Reason {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// Dead-letters the record immediately: a retry would fail in the same way.
///
/// ```
/// use tidings_core::{BoxError, Failure, reject};
///
/// fn register(email: &str) -> Result<(), BoxError> {
///     if email.contains('@') { Ok(()) } else { Err(reject("not an address").into()) }
/// }
///
/// assert!(register("a@b.c").is_ok());
/// assert_eq!(Failure::of(&*register("nowhere").unwrap_err()), Failure::Reject);
/// ```
pub fn reject(error: impl Into<BoxError>) -> HandlerError {
    HandlerError::reject(error)
}

/// Reports that a dependency of the handler is down.
///
/// The partition pauses and the record is retried without limit; it is never dead-lettered for this.
///
/// ```
/// use tidings_core::{Failure, unavailable};
///
/// let error = unavailable(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
/// assert_eq!(Failure::of(&error), Failure::Unavailable);
/// ```
pub fn unavailable(error: impl Into<BoxError>) -> HandlerError {
    HandlerError::unavailable(error)
}

/// Reports that the records of a batch at `places` (from 0) failed with `error` and all others were handled.
///
/// The failed ones are retried without the others, then dead-lettered.
///
/// ```
/// use tidings_core::{Failure, failed};
///
/// assert_eq!(Failure::of(&failed([1, 4], "no such account")), Failure::Failed(vec![1, 4]));
/// ```
pub fn failed(places: impl IntoIterator<Item = usize>, error: impl Into<BoxError>) -> HandlerError {
    HandlerError::new(Failure::Failed(places.into_iter().collect()), error)
}

/// Reports that the records of a batch before `place` (from 0) were handled, that one failed with `error`, and later
/// ones were not touched.
///
/// ```
/// use tidings_core::{Failure, stopped_at};
///
/// assert_eq!(Failure::of(&stopped_at(2, "no such account")), Failure::StoppedAt(2));
/// ```
pub fn stopped_at(place: usize, error: impl Into<BoxError>) -> HandlerError {
    HandlerError::new(Failure::StoppedAt(place), error)
}

/// Reports that a whole batch was undone because of `error`, for example by a layer that rolls back a transaction.
///
/// `places` (from 0) are the records that failed. If it is empty, the engine finds them by handling halves of the
/// batch.
///
/// ```
/// use tidings_core::{Failure, rolled_back};
/// assert_eq!(Failure::of(&rolled_back([1], "duplicate key")), Failure::RolledBack(vec![1]));
/// ```
pub fn rolled_back(places: impl IntoIterator<Item = usize>, error: impl Into<BoxError>) -> HandlerError {
    HandlerError::new(Failure::RolledBack(places.into_iter().collect()), error)
}

/// Reports that the delivery's claims no longer belong to its lease and that everything was undone: the engine claims
/// the events again.
///
/// For layers that complete events themselves; handlers do not need it.
pub fn held(error: impl Into<BoxError>) -> HandlerError {
    HandlerError::new(Failure::Held, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    #[derive(Debug)]
    struct Wrapped(BoxError);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(self.0.as_ref())
        }
    }

    #[test]
    fn a_failure_is_found_through_the_chain() {
        let box_error: BoxError = reject("no").into();
        assert_eq!(Failure::of(box_error.as_ref()), Failure::Reject);
        assert_eq!(Failure::of(&Wrapped(unavailable("db").into())), Failure::Unavailable);
        assert_eq!(Failure::of(&Wrapped(stopped_at(3, "x").into())), Failure::StoppedAt(3));
        assert_eq!(Failure::of(&Wrapped("plain".into())), Failure::Retry);
    }

    #[test]
    fn one_record_that_failed_is_one_record() {
        assert_eq!(failed([3], "no").to_string(), "1 record of the batch failed");
        assert_eq!(failed([3, 4], "no").to_string(), "2 records of the batch failed");
    }

    #[test]
    fn a_failure_within_an_io_error_is_found() {
        // `std::io::Error::source` skips the error that it wraps.
        let wrapped = std::io::Error::other(unavailable("db"));
        assert_eq!(Failure::of(&wrapped), Failure::Unavailable);
        let ours = std::io::Error::other(Error::new(ErrorKind::Unavailable, "publish"));
        assert_eq!(Failure::of(&Wrapped(ours.into())), Failure::Unavailable);
    }

    #[test]
    fn the_reason_tells_even_where_the_error_itself_is_hidden() {
        // As with anyhow: the top error's type is hidden, its source is not.
        let hidden = reject("no");
        assert_eq!(Failure::of(hidden.source().unwrap()), Failure::Reject);
    }

    #[test]
    fn an_infrastructure_error_of_ours_is_never_the_records_fault() {
        let down = Wrapped(Error::new(ErrorKind::Unavailable, "publish").into());
        assert_eq!(Failure::of(&down), Failure::Unavailable);
        let large = Wrapped(Error::new(ErrorKind::TooLarge, "publish").into());
        assert_eq!(Failure::of(&large), Failure::Retry);
    }

    #[test]
    fn one_event_without_a_named_cause_spoils_a_tuple() {
        assert_eq!(Causes::Named.and(Causes::Delivery), Causes::Delivery);
        assert_eq!(Causes::Nothing.and(Causes::Named), Causes::Named);
    }
}

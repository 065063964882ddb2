//! Distinguishes a record that cannot be decoded from a handler that failed.
//!
//! Both arrive as a `BoxError`, perhaps wrapped by layers. A record that cannot be decoded fails in the same way each
//! time, so it is dead-lettered at once; an error of a handler that happens to be of the kind `Undecodable` is not,
//! since it may come from something else that the handler reads.

use std::error::Error as StdError;
use std::fmt;

use tidings_core::{DecodeErrors, error_chain};

/// The error of a route whose records cannot be decoded. Private, so that no error of a handler is mistaken for it.
#[derive(Debug)]
pub(crate) struct Undecodable(DecodeErrors);

impl Undecodable {
    /// Wraps the errors of decoding a delivery, by the index of the record.
    pub(crate) fn new(errors: DecodeErrors) -> Self {
        Self(errors)
    }

    /// Returns the records that could not be decoded, if that is why a route failed. Layers may have wrapped the
    /// error.
    pub(crate) fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a DecodeErrors> {
        error_chain(error).find_map(|error| error.downcast_ref::<Self>()).map(|found| &found.0)
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("read the event")
    }
}

impl StdError for Undecodable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.as_slice().first().map(|(_, error)| error as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde::{Deserialize, Serialize};
    use tidings_core::{Error, ErrorKind};
    use tidings_macros::Event;

    use super::*;

    #[derive(Serialize, Deserialize, Event)]
    #[event(crate = "tidings_core", topic = "t", type = "registered")]
    pub(crate) struct Registered;

    #[test]
    fn a_handlers_own_decode_error_is_not_ours() {
        let own = Error::new(ErrorKind::Undecodable, "read a field");
        assert!(Undecodable::find(&own).is_none());
    }

    #[test]
    fn a_chain_without_an_end_is_searched_within_bounds() {
        #[derive(Debug)]
        struct Endless(std::sync::atomic::AtomicUsize);
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("endless")
            }
        }
        impl StdError for Endless {
            // Fails the test instead of running for ever.
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                assert!(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 1_000, "it does not end");
                Some(self)
            }
        }
        assert!(Undecodable::find(&Endless(std::sync::atomic::AtomicUsize::new(0))).is_none());
    }
}

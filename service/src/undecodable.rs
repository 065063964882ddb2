//! How the engine tells a record that can't be read from a handler that failed.

use std::error::Error as StdError;
use std::fmt;

use tidings_core::DecodeErrors;

/// The error of a route whose records can't be read. Private, so that no handler's own error is taken for it.
#[derive(Debug)]
pub(crate) struct Undecodable(DecodeErrors);

impl Undecodable {
    pub(crate) fn new(errors: DecodeErrors) -> Self {
        Self(errors)
    }

    /// The records that could not be read, if that is why a route failed. Layers may have wrapped the error.
    pub(crate) fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a DecodeErrors> {
        let mut next = Some(error);
        while let Some(current) = next {
            if let Some(found) = current.downcast_ref::<Self>() {
                return Some(&found.0);
            }
            next = current.source();
        }
        None
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
}

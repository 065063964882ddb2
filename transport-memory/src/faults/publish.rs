//! Faults of publishing.

use std::fmt;
use std::sync::Arc;

use tidings_core::{ErrorKind, Name, Record};

#[cfg(doc)]
use super::Faults;

type Matcher = Arc<dyn Fn(&Record) -> bool + Send + Sync>;

/// A fault of publishing, for [`Faults::publish`].
#[derive(Clone)]
pub struct PublishFault {
    pub(super) kind: ErrorKind,
    pub(super) stored: bool,
    pub(super) times: u32,
    topic: Option<Name>,
    matching: Option<Matcher>,
}

impl PublishFault {
    /// Creates a fault: the next record fails as `kind` and is not stored.
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind, stored: false, times: 1, topic: None, matching: None }
    }

    /// Creates a fault: the next record fails as [`Indeterminate`](ErrorKind::Indeterminate). Its answer is lost,
    /// after it was stored or (`stored` is `false`) before.
    pub fn unknown(stored: bool) -> Self {
        Self { stored, ..Self::new(ErrorKind::Indeterminate) }
    }

    /// Sets the number of records that fail; [`Faults::UNTIL_HEALED`] has no end.
    #[must_use]
    pub fn with_times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Limits the fault to records of this topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Name>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Limits the fault to records for which `matching` returns `true`. It is called with a lock held and must not
    /// call the transport.
    #[must_use]
    pub fn with_matching(mut self, matching: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        self.matching = Some(Arc::new(matching));
        self
    }

    pub(super) fn hits(&self, record: &Record) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == record.topic)
            && self.matching.as_ref().is_none_or(|matching| matching(record))
    }
}

impl fmt::Debug for PublishFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishFault")
            .field("kind", &self.kind)
            .field("stored", &self.stored)
            .field("times", &self.times)
            .field("topic", &self.topic)
            .field("matching", &self.matching.is_some())
            .finish()
    }
}

/// Effect of a publish fault on one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) kind: ErrorKind,
    pub(crate) stored: bool,
}

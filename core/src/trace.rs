//! W3C trace context in the `traceparent` header.
//!
//! A published event starts a trace or continues one, and the events that a handler returns are spans of the trace of
//! their cause. So a flow over several services is one trace, without any tracing library on either side.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::{Error, ErrorKind};

/// A `traceparent`: the trace and the span in which a record was published.
///
/// Source: W3C Trace Context, level 1, section 3.2.
///
/// ```
/// use tidings_core::TraceParent;
///
/// let parent: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
/// let child = parent.child();
/// assert_eq!(child.trace_id(), parent.trace_id());
/// assert_ne!(child.span_id(), parent.span_id());
///
/// assert!("00-00000000000000000000000000000000-b7ad6b7169203331-01".parse::<TraceParent>().is_err());
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// The flag of a sampled trace.
const SAMPLED: u8 = 1;

impl TraceParent {
    /// Creates a new, sampled trace.
    pub fn new_root() -> Self {
        Self { trace_id: Uuid::new_v4().as_u128(), span_id: random_span(), flags: SAMPLED }
    }

    /// Creates the trace `trace_id` at span `span_id`; `None` if either is zero, which the standard forbids.
    pub fn from_parts(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags })
    }

    /// Creates a new span within the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: random_span(), ..self }
    }

    /// Returns the trace's id.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// Returns the span's id.
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    /// Returns the flags.
    pub fn flags(self) -> u8 {
        self.flags
    }
}

/// Returns a random id of a span, which is never zero.
fn random_span() -> u64 {
    // The lower half of a v4 UUID is random except for its two variant bits, which also keep it from being zero.
    Uuid::new_v4().as_u64_pair().1
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::new(ErrorKind::Undecodable, "read the header traceparent"))
    }
}

/// Parses version 00, and what later versions have in common with it.
fn parse(text: &str) -> Option<TraceParent> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Later versions may append parts; version 00 may not, and ff is forbidden.
    let known = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
    let lengths = trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !(known && lengths && [version, trace, span, flags].into_iter().all(hex)) {
        return None;
    }
    TraceParent::from_parts(
        u128::from_str_radix(trace, 16).ok()?,
        u64::from_str_radix(span, 16).ok()?,
        u8::from_str_radix(flags, 16).ok()?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_standards_example() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace: TraceParent = text.parse().unwrap();
        assert_eq!(trace.to_string(), text);
        assert_eq!(trace.child().trace_id(), trace.trace_id());
        assert_ne!(trace.child().span_id(), trace.span_id());
    }

    #[test]
    fn refuses_what_the_standard_forbids() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad:?}");
        }
        assert!("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more".parse::<TraceParent>().is_ok());
    }
}

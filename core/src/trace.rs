//! W3C trace context in the `traceparent` header.
//!
//! A published event starts a trace or continues one, and the events that a handler returns are spans of the trace of
//! their cause. So a flow over several services is one trace, without any tracing library on either side.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use uuid::Uuid;

use crate::{Error, ErrorKind, Header, Headers, headers};

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

/// A trace and span with the vendor-specific `tracestate` that belongs to it.
///
/// A layer that traces handlers inserts the context of its span into a delivery's
/// [extensions](crate::Delivery::extensions_mut). The events that follow from the delivery then continue that span:
/// those that the handler returns, those of [`Delivery::publisher`](crate::Delivery::publisher), and those published
/// with [`PublishOptions::following`](crate::PublishOptions::following). Without it they continue the record's trace.
///
/// ```
/// use tidings_core::{Headers, TraceContext, TraceParent};
///
/// let context = TraceContext::new(TraceParent::new_root()).with_state("vendor=1");
/// let mut headers = Headers::new();
/// context.write_to(&mut headers);
/// assert_eq!(TraceContext::read_from(&headers), Some(context));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    /// The trace and the span.
    pub parent: TraceParent,
    /// The value of the header [`TRACESTATE`](headers::TRACESTATE). Default: none.
    pub state: Option<Bytes>,
}

impl TraceContext {
    /// Creates the context of a span without a `tracestate`.
    pub const fn new(parent: TraceParent) -> Self {
        Self { parent, state: None }
    }

    /// Sets the `tracestate`.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<Bytes>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Reads the context from a record's headers; `None` if the `traceparent` is missing or malformed.
    pub fn read_from(headers: &Headers) -> Option<Self> {
        let parent = headers.get_str(headers::TRACEPARENT)?.parse().ok()?;
        Some(Self { parent, state: headers.get(headers::TRACESTATE).cloned() })
    }

    /// Writes the context to a record's headers, in place of an earlier one.
    pub fn write_to(&self, headers: &mut Headers) {
        headers.set(headers::TRACEPARENT, self.parent.to_string());
        match &self.state {
            Some(state) => headers.set(headers::TRACESTATE, state.clone()),
            // The state of another span would be read as this one's.
            None if headers.contains(headers::TRACESTATE) => {
                headers.remove_where(|header| header.name == headers::TRACESTATE.as_bytes());
            }
            None => {}
        }
    }

    /// Returns the context of a new span within the same trace.
    pub(crate) fn child(self) -> Self {
        Self { parent: self.parent.child(), ..self }
    }

    /// Returns the headers, with those that are missing left out.
    pub(crate) fn into_headers(self) -> impl Iterator<Item = Header> {
        let parent = Header::new(headers::TRACEPARENT, self.parent.to_string());
        [Some(parent), self.state.map(|state| Header::new(headers::TRACESTATE, state))].into_iter().flatten()
    }
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

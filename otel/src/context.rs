//! Trace contexts: between the headers of records and OpenTelemetry's context.

use std::str::FromStr;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tidings_core::{TraceContext, TraceParent};

/// The longest `tracestate` that is read, in bytes: the W3C requires 512 at least.
const MAX_STATE_BYTES: usize = 4_096;

/// Returns the trace context of the span that is active on this thread.
///
/// For events that are stored before they are published, as in an outbox outside of a handler: pass its parent to
/// [`PublishOptions::with_traceparent`](tidings_core::PublishOptions::with_traceparent).
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
///
/// assert_eq!(tidings_otel::current_trace(), None);
/// let span = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, false, TraceState::NONE);
/// let _active = Context::new().with_remote_span_context(span).attach();
/// assert_eq!(tidings_otel::current_trace().map(|trace| trace.parent.trace_id()), Some(7));
/// ```
pub fn current_trace() -> Option<TraceContext> {
    Context::map_current(|context| of_span(context.span().span_context()))
}

/// Returns the context of a span, as it is written to a record; `None` if the span is not valid.
pub(crate) fn of_span(span: &SpanContext) -> Option<TraceContext> {
    let trace_id = u128::from_be_bytes(span.trace_id().to_bytes());
    let span_id = u64::from_be_bytes(span.span_id().to_bytes());
    let context = TraceContext::new(TraceParent::from_parts(trace_id, span_id, span.trace_flags().to_u8())?);
    let state = span.trace_state().header();
    Some(if state.is_empty() { context } else { context.with_state(state) })
}

/// Returns the remote span that a record's trace context names. A malformed `tracestate` is left out, as the W3C
/// demands.
pub(crate) fn to_span(context: &TraceContext) -> SpanContext {
    let state = context.state.as_deref().filter(|state| state.len() <= MAX_STATE_BYTES);
    let state = state.and_then(|state| std::str::from_utf8(state).ok()).filter(|state| !state.is_empty());
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let flags = TraceFlags::new(context.parent.flags()) & TraceFlags::SAMPLED;
    let (trace_id, span_id) = (TraceId::from(context.parent.trace_id()), SpanId::from(context.parent.span_id()));
    SpanContext::new(trace_id, span_id, flags, true, state)
}

/// Returns whether both name the same span. Their flags may differ.
pub(crate) fn is_same_span(one: &SpanContext, other: &SpanContext) -> bool {
    one.trace_id() == other.trace_id() && one.span_id() == other.span_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parent: &str, state: Option<&'static str>) -> SpanContext {
        let context = TraceContext::new(parent.parse().unwrap());
        to_span(&state.into_iter().fold(context, |context, state| context.with_state(state)))
    }

    #[test]
    fn a_context_survives_both_ways() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let span = read(parent, Some("vendor=1,other=2"));
        assert!(span.is_valid() && span.is_sampled() && span.is_remote());
        let written = of_span(&span).unwrap();
        assert_eq!(written.parent.to_string(), parent);
        assert_eq!(written.state.as_deref(), Some(&b"vendor=1,other=2"[..]));
    }

    #[test]
    fn unknown_flags_and_a_malformed_state_are_left_out() {
        let span = read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", Some("no pair"));
        assert_eq!(span.trace_flags(), TraceFlags::SAMPLED);
        assert_eq!(of_span(&span).unwrap().state, None);
        let long = format!("vendor={}", "x".repeat(MAX_STATE_BYTES)).leak();
        assert_eq!(
            read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some(long)).trace_state().header(),
            ""
        );
    }

    #[test]
    fn an_invalid_span_is_no_context() {
        assert_eq!(of_span(&SpanContext::empty_context()), None);
    }
}

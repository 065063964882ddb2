//! The layer around handlers: a span for each attempt, with links to the spans that published its records.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use opentelemetry::Context;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt};
use pin_project_lite::pin_project;
use tidings_core::{BoxError, Delivery, Outcome, Record, TraceContext};
use tower_layer::Layer;
use tower_service::Service;

use crate::context::{is_same_span, of_span, to_span};
use crate::conventions::{ATTEMPT, GROUP, HANDLER, MESSAGE_COUNT, MESSAGE_ID, PROCESS};
use crate::errors::error_type;
use crate::spans::{OpenSpan, Spans, Start};

/// A layer that traces handlers: one span named `process <topic>` per attempt, of the kind `CONSUMER`.
///
/// Created by [`Tracing::layer`](crate::Tracing::layer). The span has a link to the span that published each record,
/// and its context is active while the handler is polled. The events that the handler returns continue it. Records
/// that wait for their turn have no span.
///
/// A failed attempt has `error.type`: the [kind](tidings_core::ErrorKind) of the [`Error`](tidings_core::Error) in its
/// chain, otherwise `rejected`, `unavailable`, `failed`, `cancelled` (as by a timeout) or `panicked`. The text of an
/// error is not part of the span.
#[derive(Debug, Clone)]
pub struct TraceLayer {
    spans: Arc<Spans>,
}

impl TraceLayer {
    pub(crate) fn new(spans: Arc<Spans>) -> Self {
        Self { spans }
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = TraceService<S>;

    fn layer(&self, inner: S) -> TraceService<S> {
        TraceService { inner, spans: self.spans.clone() }
    }
}

/// A handler within a [`TraceLayer`].
#[derive(Debug, Clone)]
pub struct TraceService<S> {
    inner: S,
    spans: Arc<Spans>,
}

impl<S> Service<Delivery> for TraceService<S>
where
    S: Service<Delivery, Response = Outcome>,
    S::Error: Into<BoxError>,
{
    type Response = Outcome;
    type Error = BoxError;
    type Future = TraceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut delivery: Delivery) -> Self::Future {
        let processing = Processing::start(self.spans.clone(), &mut delivery);
        let _active = processing.span.context().clone().attach();
        TraceFuture { inner: self.inner.call(delivery), processing: Some(processing) }
    }
}

pin_project! {
    /// The future of a traced delivery.
    pub struct TraceFuture<F> {
        #[pin]
        inner: F,
        processing: Option<Processing>,
    }
}

impl<F> fmt::Debug for TraceFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceFuture").field("processing", &self.processing).finish_non_exhaustive()
    }
}

impl<F: Future<Output = Result<Outcome, E>>, E: Into<BoxError>> Future for TraceFuture<F> {
    type Output = Result<Outcome, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Out of its place while the handler is polled: a panic ends the span as such.
        let Some(processing) = this.processing.take() else { return this.inner.poll(cx).map_err(Into::into) };
        let polled = {
            let _active = processing.span.context().clone().attach();
            this.inner.poll(cx)
        };
        match polled {
            Poll::Pending => {
                *this.processing = Some(processing);
                Poll::Pending
            }
            Poll::Ready(result) => Poll::Ready(processing.end(result.map_err(Into::into))),
        }
    }
}

/// The span of an attempt, and the spans that published its records.
#[derive(Debug)]
struct Processing {
    spans: Arc<Spans>,
    span: OpenSpan,
    /// Of a batch: the creation contexts of its records.
    causes: Vec<SpanContext>,
}

impl Processing {
    fn start(spans: Arc<Spans>, delivery: &mut Delivery) -> Self {
        let causes: Vec<_> = delivery
            .records()
            .filter_map(|record| TraceContext::read_from(&record.headers))
            .map(|of| to_span(&of))
            .collect();
        let mut links: Vec<_> = causes.iter().map(|span| Link::with_context(span.clone())).collect();
        let mut parent = Context::current();
        let is_single = delivery.len() == 1;
        if let (true, false, Some(cause)) = (is_single, spans.settings.links_only, causes.first()) {
            let active = parent.span().span_context().clone();
            parent = parent.with_remote_span_context(cause.clone());
            if active.is_valid() {
                links.push(Link::with_context(active));
            }
        }
        let topic = delivery.topic().clone();
        let start = Start { operation: PROCESS, kind: SpanKind::Consumer, topic: Some(&topic), links, parent: &parent };
        let context = delivery.context();
        let span = spans.start(
            start,
            |attributes| {
                attributes.add_partition(delivery.partition());
                attributes.add(GROUP, context.group.to_string());
            },
            |details| {
                details.add(HANDLER, context.handler.to_string());
                details.add(ATTEMPT, i64::from(delivery.attempt()));
                if is_single {
                    details.add(MESSAGE_ID, delivery.event_id().to_string());
                    details.add_offset(delivery.offset());
                    spans.describe_stored(delivery.record(), details);
                } else {
                    details.add(MESSAGE_COUNT, i64::try_from(delivery.len()).unwrap_or(i64::MAX));
                }
            },
        );
        // The events that the handler publishes, stores or returns continue its span.
        if let Some(trace) = of_span(span.context().span().span_context()) {
            delivery.extensions_mut().insert(trace);
        }
        Self { spans, span, causes: if is_single { Vec::new() } else { causes } }
    }

    fn end(self, result: Result<Outcome, BoxError>) -> Result<Outcome, BoxError> {
        let result = result.map(|outcome| self.with_contexts(outcome));
        self.span.end(result.as_ref().err().map(|error| error_type(error.as_ref())));
        result
    }

    /// Gives the returned events their creation contexts.
    fn with_contexts(&self, mut outcome: Outcome) -> Outcome {
        if outcome.records().is_empty() {
            return outcome;
        }
        for mut record in outcome.take_records() {
            self.create(&mut record);
            outcome.push(record);
        }
        outcome
    }

    fn create(&self, record: &mut Record) {
        let context = self.span.context();
        let span = context.span().span_context().clone();
        let Some(written) = TraceContext::read_from(&record.headers).map(|written| to_span(&written)) else {
            return self.spans.create(record, context, None);
        };
        if is_same_span(&written, &span) {
            return self.spans.create(record, context, None);
        }
        // An event of a batch that names its cause is in the trace of that cause. Any other context is the handler's
        // own choice.
        if let Some(cause) = self.causes.iter().find(|cause| cause.trace_id() == written.trace_id()) {
            let parent = context.with_remote_span_context(cause.clone());
            self.spans.create(record, &parent, Some(&span));
        }
    }
}

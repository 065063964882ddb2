//! The publisher that traces its records, and writes the trace context that their consumers continue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, Link, SpanContext, SpanKind, TraceContextExt};
use tidings_core::{Begun, DelayedRecord, Error, Guarantees, Position, Publisher, Record, Result, TraceContext};
use uuid::Uuid;

use crate::context::{is_same_span, to_span};
use crate::conventions::{Attributes, MESSAGE_COUNT, PUBLISH};
use crate::spans::{OpenSpan, Spans, Start, inject};

/// A publisher with a span per call, named `publish <topic>`.
///
/// Created by [`Tracing::publisher`](crate::Tracing::publisher), and by a
/// [`TracedTransport`](crate::TracedTransport). The span's parent is the active span.
///
/// - A record without a trace context gets one: that of the span, whose kind then is `PRODUCER`, or in a batch that of
///   a `create` span of its own.
/// - A record that has one keeps it, as an event from an outbox does: the span has a link to it. If no span is active,
///   it is also the parent of the span of a single record.
/// - If all records of a call have contexts of their own, the span's kind is `CLIENT`.
///
/// A failed call has `error.type`: the [kind](tidings_core::ErrorKind) of the (first) record's error, or `cancelled` if
/// its future was dropped.
#[derive(Clone)]
pub struct TracedPublisher {
    inner: Arc<dyn Publisher>,
    spans: Arc<Spans>,
}

impl fmt::Debug for TracedPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TracedPublisher").field(&self.inner).finish()
    }
}

impl TracedPublisher {
    pub(crate) fn new(inner: Arc<dyn Publisher>, spans: Arc<Spans>) -> Self {
        Self { inner, spans }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Publisher for TracedPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        Sending::around(&self.spans, records, |records| self.inner.publish(records)).await
    }

    fn begin_one(&self, mut record: Record) -> Begun<'_> {
        let sending = Sending::start(&self.spans, std::slice::from_mut(&mut record), false);
        let context = sending.span.context().clone();
        let begun = {
            let _active = context.clone().attach();
            self.inner.begin_one(record)
        };
        match begun {
            Begun::Answered(answer) => {
                sending.end(std::slice::from_ref(&answer));
                Begun::Answered(answer)
            }
            Begun::Pending(pending) => Begun::Pending(Box::pin(async move {
                let answer = pending.with_context(context).await;
                sending.end(std::slice::from_ref(&answer));
                answer
            })),
        }
    }

    async fn publish_delayed(&self, mut delayed: DelayedRecord) -> Result<()> {
        let sending = Sending::start(&self.spans, std::slice::from_mut(&mut delayed.record), false);
        let context = sending.span.context().clone();
        let answer = self.inner.publish_delayed(delayed).with_context(context).await;
        sending.span.end(answer.as_ref().err().map(|error| error.kind().as_str()));
        answer
    }

    async fn cancel_delayed(&self, id: Uuid) -> Result<bool> {
        self.inner.cancel_delayed(id).await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// A call in progress.
pub(crate) struct Sending {
    span: OpenSpan,
    system: &'static str,
    is_single: bool,
}

impl Sending {
    /// Publishes records with a span of the call.
    pub(crate) async fn around<F: Future<Output = Vec<Result<Position>>>>(
        spans: &Spans,
        mut records: Vec<Record>,
        publish: impl FnOnce(Vec<Record>) -> F,
    ) -> Vec<Result<Position>> {
        let sending = Self::start(spans, &mut records, true);
        let context = sending.span.context().clone();
        let answers = publish(records).with_context(context).await;
        sending.end(&answers);
        answers
    }

    /// Starts the span of a call, and gives every record its trace context.
    fn start(spans: &Spans, records: &mut [Record], is_batch_call: bool) -> Self {
        let active = Context::current();
        // A context that only repeats the active span is replaced by that of a span below it.
        let own = |record: &Record| {
            let written = to_span(&TraceContext::read_from(&record.headers)?);
            (!is_same_span(&written, active.span().span_context())).then_some(written)
        };
        let given: Vec<Option<SpanContext>> = records.iter().map(own).collect();
        let creates = records.len() > 1 && spans.settings.create_spans;
        let is_client = !records.is_empty() && (creates || given.iter().all(Option::is_some));
        let parent = match &given[..] {
            [Some(creation)] if !active.has_active_span() => active.with_remote_span_context(creation.clone()),
            _ => active.clone(),
        };
        let kind = if is_client { SpanKind::Client } else { SpanKind::Producer };
        let links = given.iter().flatten().map(|span| Link::with_context(span.clone())).collect();
        let span = Self::open(
            spans,
            records,
            Start { operation: PUBLISH, kind, topic: None, links, parent: &parent },
            is_batch_call,
        );
        // Without an active span the records of a call are still one trace.
        let creator = if active.has_active_span() { active } else { span.context().clone() };
        let mut created = Vec::new();
        for (record, _) in records.iter_mut().zip(&given).filter(|(_, given)| given.is_none()) {
            if creates {
                spans.create(record, &creator, None);
                created.extend(TraceContext::read_from(&record.headers).map(|of| Link::with_context(to_span(&of))));
            } else {
                inject(span.context(), record);
            }
        }
        span.add_links(created);
        Self { span, system: spans.system, is_single: records.len() == 1 }
    }

    fn open(spans: &Spans, records: &[Record], start: Start<'_>, is_batch_call: bool) -> OpenSpan {
        let first = records.first().map(|record| record.topic.clone());
        let topic = first.filter(|topic| records.iter().all(|record| record.topic == *topic));
        let start = Start { topic: topic.as_deref(), ..start };
        let count = |attributes: &mut Attributes| {
            if is_batch_call {
                attributes.add(MESSAGE_COUNT, i64::try_from(records.len()).unwrap_or(i64::MAX));
            }
        };
        spans.start(start, count, |details| {
            if let [record] = records {
                spans.describe(record, details);
            }
        })
    }

    fn end(self, answers: &[Result<Position>]) {
        if let (true, [Ok(position)]) = (self.is_single, answers) {
            let mut attributes = Attributes::empty(self.system);
            attributes.add_partition(position.partition);
            attributes.add_offset(position.offset);
            self.span.set(attributes);
        }
        let error = answers.iter().find_map(|answer| answer.as_ref().err());
        self.span.end(error.map(|error: &Error| error.kind().as_str()));
    }
}

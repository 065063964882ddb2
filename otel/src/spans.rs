//! Spans: how they are started, what they carry, and how they end.

use std::fmt;
use std::sync::Arc;

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{Link, Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, Key, KeyValue};
use tidings_core::{Record, StoredRecord, Timestamp, codec, headers};

use crate::context::of_span;
use crate::conventions::{Attributes, CREATE, DESTINATION, ERROR_TYPE, MESSAGE_ID, Operation};
use crate::errors::unfinished;

/// The settings of all spans.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Whether a handler's span has links to its records, and never one of them as its parent.
    pub(crate) links_only: bool,
    /// Whether each event of a batch has a span of its own.
    pub(crate) create_spans: bool,
    /// Whether spans carry keys.
    pub(crate) message_keys: bool,
    /// The broker's address and port, if they were given.
    pub(crate) server: Vec<KeyValue>,
}

/// Starts the spans of one messaging system.
#[derive(Debug)]
pub(crate) struct Spans {
    pub(crate) tracer: Arc<BoxedTracer>,
    pub(crate) settings: Settings,
    pub(crate) system: &'static str,
}

/// The beginning of a span: what samplers may decide by.
pub(crate) struct Start<'a> {
    pub(crate) operation: Operation,
    pub(crate) kind: SpanKind,
    /// The topic, if all records have the same.
    pub(crate) topic: Option<&'a str>,
    pub(crate) links: Vec<Link>,
    pub(crate) parent: &'a Context,
}

impl Spans {
    /// Returns the attributes that every span of this system has.
    pub(crate) fn attributes(&self, operation: Operation) -> Attributes {
        Attributes::new(self.system, operation, &self.settings.server)
    }

    /// Starts a span. `describe` adds attributes before sampling, `detail` those of spans that are recorded.
    pub(crate) fn start(
        &self,
        start: Start<'_>,
        describe: impl FnOnce(&mut Attributes),
        detail: impl FnOnce(&mut Attributes),
    ) -> OpenSpan {
        let mut attributes = self.attributes(start.operation);
        let name = match start.topic {
            Some(topic) => {
                attributes.add(DESTINATION, topic.to_owned());
                format!("{} {topic}", start.operation.name).into()
            }
            None => start.operation.name.into(),
        };
        describe(&mut attributes);
        let builder = SpanBuilder::from_name::<std::borrow::Cow<'static, str>>(name)
            .with_kind(start.kind)
            .with_links(start.links)
            .with_attributes(attributes.into_values());
        let mut span = self.tracer.build_with_context(builder, start.parent);
        if span.is_recording() {
            let mut details = Attributes::empty(self.system);
            detail(&mut details);
            span.set_attributes(details.into_values());
        }
        OpenSpan { context: start.parent.with_span(span), is_open: true }
    }

    /// Makes the creation context of one record of a batch: a span of its own, or `parent` itself where such spans are
    /// off. Writes it to the record.
    pub(crate) fn create(&self, record: &mut Record, parent: &Context, link: Option<&SpanContext>) {
        if !self.settings.create_spans {
            inject(parent, record);
            return;
        }
        let links = link.into_iter().map(|span| Link::with_context(span.clone())).collect();
        let topic = record.topic.clone();
        let start = Start { operation: CREATE, kind: SpanKind::Producer, topic: Some(&topic), links, parent };
        let describe = |details: &mut Attributes| {
            if let Some(partition) = record.partition {
                details.add_partition(partition);
            }
            self.describe(record, details);
        };
        let span = self.start(start, |_| {}, describe);
        inject(span.context(), record);
        span.end(None);
    }

    /// Adds the attributes of a single record that is to be published.
    pub(crate) fn describe(&self, record: &Record, attributes: &mut Attributes) {
        let stored = StoredRecord::from_record(record.clone(), 0, Timestamp::default());
        if let Ok(head) = codec::peek(&stored) {
            attributes.add(MESSAGE_ID, head.id.to_string());
        }
        self.describe_stored(&stored, attributes);
    }

    /// Adds the attributes of a record that publishers and handlers know.
    pub(crate) fn describe_stored(&self, record: &StoredRecord, attributes: &mut Attributes) {
        if let Some(id) = record.headers.get_str(headers::CORRELATION_ID) {
            attributes.add_conversation(id);
        }
        attributes.add_tombstone(record.value.as_deref());
        if self.settings.message_keys {
            attributes.add_key(record.key.as_deref());
        }
    }
}

/// Writes the context's span to a record, if the span is valid.
pub(crate) fn inject(context: &Context, record: &mut Record) {
    if let Some(trace) = of_span(context.span().span_context()) {
        trace.write_to(&mut record.headers);
    }
}

/// A span that has not ended. Dropped, it ends as cancelled.
pub(crate) struct OpenSpan {
    context: Context,
    is_open: bool,
}

impl OpenSpan {
    /// Returns the context in which the operation runs.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Adds links that were not known at the start.
    pub(crate) fn add_links(&self, links: Vec<Link>) {
        let span = self.context.span();
        links.into_iter().for_each(|link| span.add_link(link.span_context, link.attributes));
    }

    /// Adds attributes that were not known at the start.
    pub(crate) fn set(&self, attributes: Attributes) {
        self.context.span().set_attributes(attributes.into_values());
    }

    /// Ends the span, with the error if the operation failed.
    pub(crate) fn end(mut self, error: Option<&'static str>) {
        self.close(error);
    }

    fn close(&mut self, error: Option<&'static str>) {
        self.is_open = false;
        let span = self.context.span();
        if let Some(error) = error {
            span.set_attribute(KeyValue::new(Key::from_static_str(ERROR_TYPE), error));
            // Without a description: the text of an error may repeat a payload.
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if self.is_open {
            self.close(Some(unfinished()));
        }
    }
}

impl fmt::Debug for OpenSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSpan").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

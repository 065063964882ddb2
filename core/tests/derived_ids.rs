//! Events that follow from a delivery: their ids, and the headers that link them to it.
#![cfg(feature = "json")]

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Json};
use tidings_core::{
    Batch, Delivery, DeliveryContext, Envelope, Event, Headers, Input, IntoOutcome, Outcome, PublishOptions,
    RecordBatch, StoredRecord, Timestamp, TopicPartition, TraceContext, TraceParent, event_id_of,
};
use uuid::Uuid;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Noted(String);

impl Event for Noted {
    type Codec = Json;
    const TOPIC: &'static str = "notes";
    const TYPE: &'static str = "noted";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self.0.as_bytes()))
    }
}

fn noted(key: &str) -> Noted {
    Noted(key.into())
}

fn record(id: u64, headers: &[(&'static str, &str)]) -> StoredRecord {
    let envelope = Envelope::new(noted("cause")).with_id(Uuid::from_u128(id.into()));
    let mut record = codec::encode(envelope.as_ref(), "").expect("it can be written");
    headers.iter().for_each(|(name, value)| record.headers.set(*name, (*value).to_owned()));
    StoredRecord::from_record(record, id, Timestamp::default())
}

fn batch(records: Vec<StoredRecord>) -> RecordBatch {
    RecordBatch::new(TopicPartition::new("t", 0), records)
}

fn delivery(records: Vec<StoredRecord>) -> Delivery {
    Delivery::new(batch(records), DeliveryContext::new("service", "handler"))
}

fn ids(outcome: &Outcome) -> Vec<Uuid> {
    let stored = outcome.records().iter().map(|r| StoredRecord::from_record(r.clone(), 0, Timestamp::default()));
    stored.map(|record| codec::peek(&record).expect("we wrote it").id).collect()
}

fn returned(delivery: &Delivery, events: impl IntoOutcome) -> Outcome {
    events.into_outcome(delivery).expect("it can be written")
}

#[test]
fn a_repeat_derives_the_same_ids() {
    let first = ids(&returned(&delivery(vec![record(1, &[])]), vec![noted("a"), noted("b")]));
    let fresh = ids(&returned(&delivery(vec![record(1, &[])]), vec![noted("a"), noted("b")]));
    assert_eq!(first, fresh);
    assert_eq!(first[0].get_version_num(), 5);
}

#[test]
fn a_retry_of_the_same_batch_derives_the_same_ids() {
    let records = batch(vec![record(1, &[])]);
    let run = |n| Delivery::new(records.clone(), DeliveryContext::new("service", "handler")).with_run(n);
    assert_eq!(ids(&returned(&run(1), noted("a"))), ids(&returned(&run(2), noted("a"))));
}

#[test]
fn equal_events_differ_by_their_index_and_others_by_key_handler_and_cause() {
    let equal = ids(&returned(&delivery(vec![record(1, &[])]), vec![noted("a"), noted("a")]));
    assert_ne!(equal[0], equal[1]);
    let alone = |delivery: &Delivery, key| ids(&returned(delivery, noted(key)))[0];
    let base = alone(&delivery(vec![record(1, &[])]), "a");
    assert_eq!(base, equal[0]);
    assert_ne!(base, alone(&delivery(vec![record(1, &[])]), "b"));
    assert_ne!(base, alone(&delivery(vec![record(2, &[])]), "a"));
    let other = Delivery::new(batch(vec![record(1, &[])]), DeliveryContext::new("service", "other"));
    assert_ne!(base, alone(&other, "a"));
}

#[test]
fn the_order_among_different_events_does_not_matter() {
    let one = ids(&returned(&delivery(vec![record(1, &[])]), vec![noted("a"), noted("b")]));
    let two = ids(&returned(&delivery(vec![record(1, &[])]), vec![noted("b"), noted("a")]));
    assert_eq!((one[0], one[1]), (two[1], two[0]));
}

#[test]
fn clones_of_a_delivery_count_on_together() {
    let delivery = delivery(vec![record(1, &[])]);
    let first = ids(&returned(&delivery, noted("a")));
    let second = ids(&returned(&delivery.clone(), noted("a")));
    assert_ne!(first, second);
}

#[test]
fn an_event_carries_the_trace_the_flow_and_its_cause() {
    let trace = TraceParent::new_root();
    let headers = [("traceparent", &*trace.to_string()), ("tracestate", "v=1"), ("correlation-id", "flow")];
    let outcome = returned(&delivery(vec![record(1, &headers)]), noted("a"));
    let headers = &outcome.records()[0].headers;
    let written: TraceParent = headers.get_str("traceparent").unwrap().parse().unwrap();
    assert_eq!(written.trace_id(), trace.trace_id());
    assert_ne!(written.span_id(), trace.span_id());
    assert_eq!(headers.get_str("tracestate"), Some("v=1"));
    assert_eq!(headers.get_str("correlation-id"), Some("flow"));
    assert_eq!(headers.get_str("causation-id"), Some(&*Uuid::from_u128(1).to_string()));
}

#[test]
fn events_continue_the_span_that_a_layer_handles_them_in() {
    let mut delivery = delivery(vec![record(1, &[("traceparent", TRACE), ("tracestate", "v=1")])]);
    let span = TraceContext::new(TraceParent::new_root()).with_state("v=2");
    delivery.extensions_mut().insert(span.clone());
    let outcome = returned(&delivery, noted("a"));
    assert_eq!(TraceContext::read_from(&outcome.records()[0].headers), Some(span.clone()));
    let mut headers = Headers::new();
    PublishOptions::following(&delivery).write_to(&mut headers).expect("nothing is reserved");
    assert_eq!(TraceContext::read_from(&headers), Some(span), "those that an outbox stores, too");
}

#[test]
fn an_event_of_a_batch_stays_in_the_trace_of_its_cause() {
    let mut both = delivery(vec![record(1, &[]), record(2, &[("traceparent", TRACE)])]);
    both.extensions_mut().insert(TraceContext::new(TraceParent::new_root()));
    let events = Batch::<Noted>::decode(&both).expect("events");
    let outcome = returned(&both, events.iter().map(|event| event.causes(noted("a"))).collect::<Vec<_>>());
    assert_eq!(TraceContext::read_from(&outcome.records()[0].headers), None);
    let trace = TraceContext::read_from(&outcome.records()[1].headers).expect("a trace").parent;
    assert!(trace.to_string().starts_with(&TRACE[..35]) && trace.to_string() != TRACE);
}

#[test]
fn options_that_follow_carry_the_vendors_state() {
    let delivery = delivery(vec![record(1, &[("traceparent", TRACE), ("tracestate", "v=1")])]);
    let mut headers = Headers::new();
    PublishOptions::following(&delivery).write_to(&mut headers).expect("nothing is reserved");
    assert_eq!(headers.get_str("tracestate"), Some("v=1"));
}

#[test]
fn a_context_replaces_the_one_that_was_written() {
    let mut headers = Headers::new().with("traceparent", TRACE).with("tracestate", "v=1").with("traceparent", TRACE);
    let context = TraceContext::new(TraceParent::new_root());
    context.write_to(&mut headers);
    assert_eq!((TraceContext::read_from(&headers), headers.len()), (Some(context), 1));
}

#[test]
fn a_flow_is_named_by_its_first_event() {
    let outcome = returned(&delivery(vec![record(1, &[])]), noted("a"));
    assert_eq!(outcome.records()[0].headers.get_str("correlation-id"), Some(&*Uuid::from_u128(1).to_string()));
}

#[test]
fn events_of_a_batch_follow_from_the_one_that_they_name() {
    let both = delivery(vec![record(1, &[]), record(2, &[("correlation-id", "two")])]);
    let events = Batch::<Noted>::decode(&both).unwrap();
    let caused: Vec<_> = events.iter().map(|envelope| envelope.causes(noted("a"))).collect();
    let outcome = returned(&both, caused);
    let causes: Vec<_> = outcome.records().iter().filter_map(|r| r.headers.get_str("causation-id")).collect();
    assert_eq!(causes, [Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string()]);
    assert_eq!(outcome.records()[1].headers.get_str("correlation-id"), Some("two"));
    // The same as from a delivery of its own: how records were grouped does not matter.
    let alone = returned(&delivery(vec![record(2, &[])]), noted("a"));
    assert_eq!(ids(&outcome)[1], ids(&alone)[0]);
    assert_ne!(ids(&outcome)[0], ids(&outcome)[1]);
}

#[test]
fn bad_records_of_a_batch_are_told_by_their_places() {
    let bad = StoredRecord::new(5, Timestamp::default()).with_value("{");
    let delivery = delivery(vec![record(1, &[]), bad.clone(), record(2, &[]), bad]);
    let errors = Batch::<Noted>::decode(&delivery).unwrap_err();
    assert_eq!(errors.as_slice().iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_record_without_an_id_has_one_of_its_place() {
    let origin = TopicPartition::new("t", 0);
    let raw = |offset| StoredRecord::new(offset, Timestamp::default()).with_value("raw");
    assert_eq!(event_id_of(&origin, &raw(3)), event_id_of(&origin, &raw(3)));
    assert_ne!(event_id_of(&origin, &raw(3)), event_id_of(&origin, &raw(4)));
    assert_ne!(event_id_of(&origin, &raw(3)), event_id_of(&TopicPartition::new("t", 1), &raw(3)));
    assert_eq!(event_id_of(&origin, &record(9, &[])), Uuid::from_u128(9));
    // In a topic that was made anew, another record has the same offset.
    let (other, keyed) = (raw(3).with_value("other"), raw(3).with_key("raw"));
    let moved = StoredRecord::new(3, Timestamp::default()).with_key("raw");
    let ids = [raw(3), other, keyed, moved].map(|record| event_id_of(&origin, &record));
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len(), "{ids:?}");
}

//! Records as a broker holds them, and the names and places of records.
//!
//! ```
//! use tidings::Record;
//! use tidings::record::{Headers, StoredRecord, Timestamp, TopicPartition, headers, partition_for};
//!
//! let record = Record::new("clicks", "home").with_key("u1").with_headers(Headers::new().with(headers::SOURCE, "web"));
//! let place = TopicPartition::new(record.topic.clone(), partition_for(b"u1", 12));
//! assert!(place.partition < 12);
//!
//! let stored = StoredRecord::from_record(record, 41, Timestamp::from_millis(1_764_150_000_000));
//! assert_eq!((stored.offset, stored.headers.get_str("source")), (41, Some("web")));
//! ```

pub use tidings_core::{
    Header, Headers, Name, Position, RecordBatch, RetryRecord, StoredRecord, Timestamp, TopicPartition, TraceContext,
    TraceParent, headers, partition_for,
};

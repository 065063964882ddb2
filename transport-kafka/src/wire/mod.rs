//! A data path to Kafka without a client library.

#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "no reader or producer uses it yet"))]
pub(crate) mod records;

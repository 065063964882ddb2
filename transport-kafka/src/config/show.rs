//! `Debug` output of the configuration.
//!
//! Written by hand rather than derived, since broker addresses come from URLs and may hold a
//! password in the wrong place.

use std::fmt;

use tidings_core::settings::Address;

use super::KafkaConfig;

impl fmt::Debug for KafkaConfig {
    /// Formats the settings without secrets. A broker that is not a valid address is hidden, because it may be a name
    /// and password whose host is missing.
    ///
    /// The fields of TLS and SASL hide their own secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured in full, so that a new field cannot be forgotten.
        let Self {
            brokers,
            client_id,
            tls,
            sasl,
            compression,
            compression_level,
            linger,
            batch_bytes,
            max_record_bytes,
            max_unanswered_records,
            max_unanswered_bytes,
            delivery_timeout,
            connect_timeout,
            connect_wait,
            request_timeout,
            metadata_max_age,
            fetch_max_bytes,
            fetch_max_partition_bytes,
            fetch_max_unpacked_bytes,
            fetch_max_wait,
            group_protocol,
            instance_id,
            isolation,
            rack,
            reader,
            publisher,
        } = self;
        let shown =
            |broker: &String| Address::parse("", broker).map_or("(not an address)".to_owned(), |a| a.to_string());
        f.debug_struct("KafkaConfig")
            .field("brokers", &brokers.iter().map(shown).collect::<Vec<_>>())
            .field("client_id", client_id)
            .field("tls", tls)
            .field("sasl", sasl)
            .field("compression", compression)
            .field("compression_level", compression_level)
            .field("linger", linger)
            .field("batch_bytes", batch_bytes)
            .field("max_record_bytes", max_record_bytes)
            .field("max_unanswered_records", max_unanswered_records)
            .field("max_unanswered_bytes", max_unanswered_bytes)
            .field("delivery_timeout", delivery_timeout)
            .field("connect_timeout", connect_timeout)
            .field("connect_wait", connect_wait)
            .field("request_timeout", request_timeout)
            .field("metadata_max_age", metadata_max_age)
            .field("fetch_max_bytes", fetch_max_bytes)
            .field("fetch_max_partition_bytes", fetch_max_partition_bytes)
            .field("fetch_max_unpacked_bytes", fetch_max_unpacked_bytes)
            .field("fetch_max_wait", fetch_max_wait)
            .field("group_protocol", group_protocol)
            .field("instance_id", instance_id)
            .field("isolation", isolation)
            .field("rack", rack)
            .field("reader", reader)
            .field("publisher", publisher)
            .finish()
    }
}

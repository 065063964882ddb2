//! The only mapping from the client's errors to ours.
//!
//! The kind answers the question of what a caller can do: retry (`Unavailable`), find out
//! (`Indeterminate`), ask for rights (`Denied`), change the call (`Invalid`, `TooLarge`,
//! `NotFound`), or stop (`Fenced`, `Closed`). Everything unknown is `Unavailable`: a retry is
//! bounded by its caller, a wrong permanent error loses a record.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use krafka::KrafkaError;
use krafka::error::ErrorCode;
use tidings_core::{Error, ErrorKind, report};

/// Client message for a cached token that comes close to its expiry during a handshake: the next handshake gets a new
/// token. (A source whose new tokens are already that old is detected where it is asked.)
///
/// Compared by text: the client has no kind for it.
const AGED: &str = "token is expired or too close to expiry";

/// Converts `error`, which occurred during `context`. An open outcome becomes unavailable: correct for reads, and for
/// writes that may be repeated.
///
/// Writes of records are not mapped by this alone; see [`leaves_open`].
pub(crate) fn failed(context: impl Into<String>, error: KrafkaError) -> Error {
    Error::caused_by(kind_of(&error), context.into(), error)
}

/// Returns the causes of `error`, which occurred during `context`, in one line, without the client's list of brokers
/// and the names of its own layers.
///
/// The client's text for a failed connection repeats the brokers and wraps the cause several times,
/// so it is cut by its known parts; a text of another form is kept whole.
pub(crate) fn cause_of(context: &str, error: &Error) -> String {
    let text = report(error);
    let text = text.strip_prefix(context).map_or(&*text, |rest| rest.trim_start_matches(": "));
    let cause = match text.split_once("could not connect to any of [") {
        Some((_, rest)) => {
            rest.split_once("]; last error: ").or(rest.split_once("]: ")).map_or(rest, |(_, cause)| cause)
        }
        None => text,
    };
    cause.trim_start_matches("network error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the kind of `error`, by what a caller can do about it.
///
/// Without an outcome: for records, [`leaves_open`] decides first.
pub(crate) fn kind_of(error: &KrafkaError) -> ErrorKind {
    match error {
        KrafkaError::Auth { message, .. } if message.contains(AGED) => ErrorKind::Unavailable,
        KrafkaError::Auth { .. } => ErrorKind::Denied,
        // A TLS alert is reported as a failed connection, but retrying cannot help.
        KrafkaError::Network(_) if is_tls(error) => ErrorKind::Denied,
        KrafkaError::Network(_) | KrafkaError::Timeout { .. } | KrafkaError::Wakeup => ErrorKind::Unavailable,
        KrafkaError::DeliveryTimeout { possibly_written: true, .. } => ErrorKind::Indeterminate,
        KrafkaError::DeliveryTimeout { .. } | KrafkaError::TransactionAbortable { .. } => ErrorKind::Unavailable,
        KrafkaError::Broker { code, .. } => kind_of_code(*code),
        KrafkaError::Config { .. } | KrafkaError::Serialization { .. } => ErrorKind::Invalid,
        KrafkaError::Compression { .. } | KrafkaError::RecordDeserialization { .. } => ErrorKind::Undecodable,
        KrafkaError::Protocol { .. } => ErrorKind::Undecodable,
        KrafkaError::Closed { .. } => ErrorKind::Closed,
        KrafkaError::Fenced { .. } => ErrorKind::Fenced,
        KrafkaError::NoOffset { .. } | KrafkaError::UnknownTopic { .. } => ErrorKind::NotFound,
        KrafkaError::OutOfOrderSequence { .. } => ErrorKind::Indeterminate,
        // `IllegalState` is a member between two generations: it is transient.
        _ => ErrorKind::Unavailable,
    }
}

/// Maps a broker's code. Codes that are missing here are transient, as most of the protocol's are.
fn kind_of_code(code: ErrorCode) -> ErrorKind {
    match code {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownTopicId
        | ErrorCode::GroupIdNotFound
        | ErrorCode::ResourceNotFound => ErrorKind::NotFound,
        ErrorCode::TopicAlreadyExists => ErrorKind::AlreadyExists,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::OffsetMetadataTooLarge => {
            ErrorKind::TooLarge
        }
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed
        | ErrorCode::SaslAuthenticationFailed
        | ErrorCode::UnsupportedSaslMechanism
        | ErrorCode::IllegalSaslState
        | ErrorCode::SecurityDisabled => ErrorKind::Denied,
        ErrorCode::InvalidTopic
        | ErrorCode::InvalidPartitions
        | ErrorCode::InvalidReplicationFactor
        | ErrorCode::InvalidReplicaAssignment
        | ErrorCode::InvalidConfig
        | ErrorCode::InvalidPrincipalType
        | ErrorCode::InvalidRequest
        | ErrorCode::InvalidGroupId
        | ErrorCode::InvalidSessionTimeout
        | ErrorCode::InvalidTimestamp
        | ErrorCode::InvalidRecord
        | ErrorCode::PolicyViolation => ErrorKind::Invalid,
        ErrorCode::CorruptMessage => ErrorKind::Undecodable,
        // The previous member of that name, which may have crashed: wait until its session expires.
        ErrorCode::UnreleasedInstanceId => ErrorKind::Unavailable,
        ErrorCode::FencedInstanceId | ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch => ErrorKind::Fenced,
        ErrorCode::NonEmptyGroup
        | ErrorCode::GroupSubscribedToTopic
        | ErrorCode::InconsistentGroupProtocol
        | ErrorCode::GroupMaxSizeReached => ErrorKind::Conflict,
        ErrorCode::UnsupportedVersion
        | ErrorCode::UnsupportedAssignor
        | ErrorCode::UnsupportedForMessageFormat
        | ErrorCode::UnsupportedCompressionType => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    }
}

/// Checks whether a record's answer leaves open if it is stored: then it must not be reported as a failure.
///
/// In doubt it does: a record that is reported as failed is published again, and would be stored
/// twice.
pub(crate) fn leaves_open(error: &KrafkaError) -> bool {
    match error {
        KrafkaError::Network(_) | KrafkaError::Timeout { .. } | KrafkaError::Closed { .. } => true,
        KrafkaError::OutOfOrderSequence { .. } | KrafkaError::Protocol { .. } => true,
        // It occurred when the batch was to be sent, which need not have been the first attempt.
        KrafkaError::Auth { .. } | KrafkaError::Fenced { .. } => true,
        KrafkaError::DeliveryTimeout { possibly_written, .. } => *possibly_written,
        // Appended, but not yet on enough replicas.
        KrafkaError::Broker { code, .. } => matches!(
            code,
            ErrorCode::RequestTimedOut
                | ErrorCode::NotEnoughReplicasAfterAppend
                | ErrorCode::UnknownServerError
                | ErrorCode::NetworkException
        ),
        _ => false,
    }
}

/// Checks whether `error` is a broker's answer to a fetch that is unlikely to change on retry: the batch cannot be
/// read.
///
/// Transient codes, such as a leader that has moved, are left out: the client handles them.
pub(crate) fn is_refused_fetch(error: &Error) -> bool {
    let cause = StdError::source(error).and_then(|cause| cause.downcast_ref());
    matches!(
        cause,
        Some(KrafkaError::Broker {
            code: ErrorCode::CorruptMessage
                | ErrorCode::UnknownServerError
                | ErrorCode::UnsupportedForMessageFormat
                | ErrorCode::UnsupportedCompressionType
                | ErrorCode::UnsupportedVersion
                | ErrorCode::InvalidRecord
                | ErrorCode::InvalidTimestamp
                | ErrorCode::MessageTooLarge
                | ErrorCode::RecordListTooLarge,
            ..
        })
    )
}

/// Checks whether a producer that refuses a record with this error accepts no more records: it is fenced, stopped, or
/// was refused a new identity.
///
/// The producer is then replaced, with a new identity.
pub(crate) fn ends_a_producer(error: &KrafkaError) -> bool {
    match error {
        KrafkaError::Fenced { .. } | KrafkaError::Closed { .. } | KrafkaError::Auth { .. } => true,
        KrafkaError::Broker { code, .. } => matches!(
            code,
            ErrorCode::ProducerFenced
                | ErrorCode::InvalidProducerEpoch
                | ErrorCode::InvalidProducerIdMapping
                | ErrorCode::ClusterAuthorizationFailed
                | ErrorCode::TransactionalIdAuthorizationFailed
                | ErrorCode::UnsupportedVersion
        ),
        _ => false,
    }
}

/// Checks whether TLS failed: the reason then names the certificate, the host or the alert.
///
/// Errors are searched rather than texts: TLS alerts have no fixed wording.
pub(crate) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut open: Vec<&(dyn StdError + 'static)> = vec![error];
    for _ in 0..MAX_ERRORS {
        let Some(current) = open.pop() else { return false };
        if current.is::<rustls::Error>() {
            return true;
        }
        // `io::Error::source` skips the error it wraps, and the client keeps it in an `Arc`.
        let shared = current.downcast_ref::<Arc<io::Error>>().map(AsRef::as_ref);
        let wrapped = shared.or_else(|| current.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
        open.extend(current.source());
        open.extend(wrapped.map(|inner| inner as &(dyn StdError + 'static)));
    }
    false
}

/// Limit of errors visited below an error: one that is its own source has no end.
const MAX_ERRORS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_alert_within_an_io_error_is_denied() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let error = KrafkaError::network(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert_eq!(kind_of(&error), ErrorKind::Denied);
        assert_eq!(kind_of(&KrafkaError::network(io::ErrorKind::ConnectionRefused.into())), ErrorKind::Unavailable);
    }

    #[test]
    fn an_error_that_is_its_own_source_is_searched_within_bounds() {
        #[derive(Debug, Default)]
        struct Endless(std::sync::atomic::AtomicUsize);
        impl std::fmt::Display for Endless {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("endless")
            }
        }
        impl StdError for Endless {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                // Fails the test instead of running forever.
                assert!(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 1_000, "it does not end");
                Some(self)
            }
        }
        let error = KrafkaError::network(io::Error::other(io::Error::other(Endless::default())));
        assert!(!is_tls(&error));
    }

    #[test]
    fn the_cause_of_a_failed_connection_is_told_without_the_brokers() {
        let cause = |error| cause_of("connect", &failed("connect", error));
        let refused = "could not connect to any of [[::1]:1, b:2]; last error: network error: Connection refused";
        assert_eq!(cause(KrafkaError::network(io::Error::other(refused))), "Connection refused");
        let denied = KrafkaError::auth("could not connect to any of [b:2]: Invalid username or password");
        assert_eq!(cause(denied), "Invalid username or password");
        assert_eq!(cause(KrafkaError::network(io::Error::other("connection\n closed"))), "connection closed");
        assert_eq!(cause_of("connect", &Error::new(ErrorKind::Invalid, "tls.ca: read x")), "tls.ca: read x");
    }

    #[test]
    fn a_token_that_aged_in_a_handshake_is_no_refusal() {
        let aged =
            KrafkaError::auth(format!("could not connect to any of [b:9092]: OAuthBearer {AGED}; obtain a fresh"));
        assert_eq!(kind_of(&aged), ErrorKind::Unavailable);
        assert!(leaves_open(&aged));
        assert_eq!(kind_of(&KrafkaError::auth("no such user")), ErrorKind::Denied);
    }

    #[test]
    fn a_delivery_that_may_be_written_is_unknown() {
        assert_eq!(kind_of(&KrafkaError::delivery_timeout(true, "late")), ErrorKind::Indeterminate);
        assert_eq!(kind_of(&KrafkaError::delivery_timeout(false, "late")), ErrorKind::Unavailable);
        assert!(leaves_open(&KrafkaError::timeout("produce")));
        assert!(leaves_open(&KrafkaError::auth("the password was changed")));
    }
}

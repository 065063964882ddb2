//! Requests and responses: versions in use, frames, and the meaning of error codes.

mod layout;

use std::collections::HashMap;
use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tidings_core::{Error, ErrorKind, Result};

/// Size of the length field that precedes each message.
pub(crate) const LENGTH_BYTES: usize = 4;
/// API key of the request for versions.
pub(crate) const API_VERSIONS: i16 = 18;

/// Requests that are sent, with their oldest and newest version in use.
///
/// Fetch and Metadata name topics, so their newest versions are the last ones that do. The oldest ones have leader
/// epochs (KIP-320) and racks (KIP-392): brokers since 2.4 support them.
const USED: [(i16, &str, RangeInclusive<i16>); 9] = [
    (0, "Produce", 7..=9),
    (1, "Fetch", 11..=12),
    (2, "ListOffsets", 4..=7),
    (3, "Metadata", 8..=12),
    (17, "SaslHandshake", 1..=1),
    (API_VERSIONS, "ApiVersions", 0..=3),
    (22, "InitProducerId", 1..=4),
    (23, "OffsetForLeaderEpoch", 3..=4),
    (36, "SaslAuthenticate", 1..=2),
];

/// Returns the name of a request.
pub(crate) fn name_of(key: i16) -> &'static str {
    USED.iter().find(|(used, ..)| *used == key).map_or("unknown request", |(_, name, _)| name)
}

/// Versions that a broker supports, by API key.
#[derive(Debug, Clone, Default)]
pub(crate) struct BrokerVersions(HashMap<i16, (i16, i16)>);

impl BrokerVersions {
    /// Reads the versions of an answer.
    pub(crate) fn of(answer: &ApiVersionsResponse) -> Self {
        Self(answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
    }

    /// Returns the newest version of a request that both sides support.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), naming the request and the versions of both sides.
    pub(crate) fn of_request<R: Request>(&self) -> Result<i16> {
        let name = name_of(R::KEY);
        let unsupported = |why: String| Error::new(ErrorKind::Unsupported, format!("send {name} to a broker: {why}"));
        let ours = USED.iter().find(|(key, ..)| *key == R::KEY).map(|(.., versions)| versions.clone());
        let ours = ours.ok_or_else(|| unsupported("this client never sends it".into()))?;
        let Some((oldest, newest)) = self.0.get(&R::KEY).copied() else {
            return Err(unsupported("the broker does not support it".into()));
        };
        let version = newest.min(*ours.end());
        if version < oldest.max(*ours.start()) {
            let text = format!("the broker supports versions {oldest} to {newest}, this client {ours:?}");
            return Err(unsupported(text));
        }
        Ok(version)
    }
}

/// Encodes a request with its length and header.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) if a field is set that this version does not have, or the request is too large.
pub(crate) fn encode<R: Request>(request: &R, version: i16, correlation: i32, client_id: &StrBytes) -> Result<Bytes> {
    let what = || format!("encode a {} request", name_of(R::KEY));
    let invalid = |why: String| Error::new(ErrorKind::Invalid, format!("{}: {why}", what()));
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    let header_version = R::header_version(version);
    let size = header.compute_size(header_version).and_then(|header| Ok(header + request.compute_size(version)?));
    let size = size.map_err(|e| invalid(e.to_string()))?;
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + size);
    frame.put_i32(i32::try_from(size).map_err(|_| invalid(format!("{size} bytes")))?);
    header.encode(&mut frame, header_version).map_err(|e| invalid(e.to_string()))?;
    request.encode(&mut frame, version).map_err(|e| invalid(e.to_string()))?;
    // The length was computed first: a different one would misalign all messages that follow.
    if frame.len() != LENGTH_BYTES + size {
        return Err(invalid(format!("{} bytes instead of {size}", frame.len() - LENGTH_BYTES)));
    }
    Ok(frame.freeze())
}

/// Decodes the answer to a request of this version, without its length.
///
/// Byte fields, such as fetched records, are slices of `answer`.
///
/// # Errors
/// [`Undecodable`](ErrorKind::Undecodable).
pub(crate) fn decode<R: Request>(mut answer: Bytes, version: i16) -> Result<R::Response> {
    let undecodable =
        |why: String| Error::new(ErrorKind::Undecodable, format!("decode the answer to {}: {why}", name_of(R::KEY)));
    ResponseHeader::decode(&mut answer, R::Response::header_version(version))
        .map_err(|e| undecodable(e.to_string()))?;
    if !layout::fits(R::KEY, version, &answer) {
        return Err(undecodable("its lengths exceed its bytes".to_owned()));
    }
    R::Response::decode(&mut answer, version).map_err(|e| undecodable(e.to_string()))
}

/// Returns the correlation id of an answer without its length.
pub(crate) fn correlation_of(answer: &[u8]) -> Option<i32> {
    answer.first_chunk().map(|id| i32::from_be_bytes(*id))
}

/// A broker's error code; zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i16);

/// Codes that the client handles, or whose kind differs from [`Unavailable`](ErrorKind::Unavailable).
impl Code {
    pub(crate) const OFFSET_OUT_OF_RANGE: Self = Self(1);
    pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    pub(crate) const UNSUPPORTED_VERSION: Self = Self(35);

    /// Returns whether a replica has yet to learn an election, or to copy the records: the same replica is asked again.
    pub(crate) fn is_replica_behind(self) -> bool {
        // Unknown leader epoch, offset not available.
        matches!(self.0, 75 | 78)
    }

    /// Returns the code as a result.
    pub(crate) fn ok(self) -> std::result::Result<(), Self> {
        if self.0 == 0 { Ok(()) } else { Err(self) }
    }

    /// Returns the kind by what a caller can do. Most codes are transient, such as a leader that has moved.
    pub(crate) fn kind(self) -> ErrorKind {
        match self.0 {
            // Unknown topic, topic id, group.
            3 | 69 | 91 | 100 => ErrorKind::NotFound,
            // Message and record list too large, offset metadata too large.
            10 | 12 | 18 => ErrorKind::TooLarge,
            // Topic, group, cluster and transactional id authorization; SASL state, mechanism and authentication.
            29..=31 | 33 | 34 | 53 | 54 | 58 => ErrorKind::Denied,
            17 | 32 | 37..=40 | 42 | 44 | 87 => ErrorKind::Invalid,
            2 => ErrorKind::Undecodable,
            // Instance id fenced, producer fenced, old producer epoch.
            47 | 82 | 90 => ErrorKind::Fenced,
            35 | 43 | 76 => ErrorKind::Unsupported,
            _ => ErrorKind::Unavailable,
        }
    }

    /// Returns whether a fetch with this code is unlikely to succeed on retry: the broker cannot return the batch.
    pub(crate) fn is_refused_fetch(self) -> bool {
        // Corrupt, unknown, message and list too large, timestamp, version, message format, codec, record.
        matches!(self.0, -1 | 2 | 10 | 18 | 32 | 35 | 43 | 76 | 87)
    }

    /// Returns an error of this code; `what` was tried.
    pub(crate) fn error(self, what: impl std::fmt::Display) -> Error {
        Error::new(self.kind(), format!("{what}: {self}"))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match kafka_protocol::ResponseError::try_from_code(self.0) {
            Some(error) => write!(f, "{error:?} (code {})", self.0),
            None => write!(f, "no error (code {})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData, SnapshotId,
    };
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{
        ApiVersionsRequest, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
        OffsetForLeaderEpochRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
        TopicName,
    };

    use super::*;

    fn encoded<R: Request>(answer: &R::Response, version: i16) -> Bytes {
        let mut bytes = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(7);
        header.encode(&mut bytes, R::Response::header_version(version)).unwrap();
        answer.encode(&mut bytes, version).unwrap();
        bytes.freeze()
    }

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn fetched() -> FetchResponse {
        let partition = PartitionData::default()
            .with_records(Some(Bytes::from_static(b"records")))
            .with_aborted_transactions(Some(vec![AbortedTransaction::default(); 3]));
        let topic = FetchableTopicResponse::default()
            .with_topic(TopicName(text("topic")))
            .with_partitions(vec![partition.clone(), partition]);
        FetchResponse::default().with_responses(vec![topic.clone(), topic])
    }

    /// Answers with all tagged fields: the decoder ignores the lengths that they declare.
    fn tagged() -> Vec<(i16, i16, Bytes)> {
        let mut api = ApiVersionsResponse::default()
            .with_supported_features(vec![SupportedFeatureKey::default(); 2])
            .with_finalized_features_epoch(7)
            .with_finalized_features(vec![FinalizedFeatureKey::default(); 2])
            .with_zk_migration_ready(true);
        api.api_keys = vec![ApiVersion::default()];
        let mut fetch = fetched();
        for partition in fetch.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.diverging_epoch = EpochEndOffset::default().with_epoch(5).with_end_offset(9);
            partition.current_leader = LeaderIdAndEpoch::default().with_leader_id(3.into()).with_leader_epoch(4);
            partition.snapshot_id = SnapshotId::default().with_epoch(6).with_end_offset(8);
        }
        let fetch = encoded::<FetchRequest>(&fetch, 12);
        vec![(1, 12, fetch), (API_VERSIONS, 3, encoded::<ApiVersionsRequest>(&api, 3))]
    }

    fn metadata() -> MetadataResponse {
        let partition = MetadataResponsePartition::default().with_replica_nodes(vec![1.into(); 3]);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(text("topic"))))
            .with_partitions(vec![partition.clone(), partition]);
        let broker = MetadataResponseBroker::default().with_host(text("host"));
        MetadataResponse::default().with_topics(vec![topic]).with_brokers(vec![broker.clone(), broker])
    }

    /// Answers of each kind, in each version that is used.
    fn answers() -> Vec<(i16, i16, Bytes)> {
        let mut all = Vec::new();
        let mut api = ApiVersionsResponse::default();
        api.api_keys = vec![ApiVersion::default(); 3];
        let sasl = SaslAuthenticateResponse::default()
            .with_error_message(Some(text("no")))
            .with_auth_bytes(Bytes::from_static(b"bytes"));
        for (key, _, versions) in USED {
            for version in versions {
                let bytes = match key {
                    1 => encoded::<FetchRequest>(&fetched(), version),
                    3 => encoded::<MetadataRequest>(&metadata(), version),
                    API_VERSIONS => encoded::<ApiVersionsRequest>(&api, version),
                    36 => encoded::<SaslAuthenticateRequest>(&sasl, version),
                    17 => encoded::<SaslHandshakeRequest>(&Default::default(), version),
                    23 => encoded::<OffsetForLeaderEpochRequest>(&Default::default(), version),
                    _ => continue,
                };
                all.push((key, version, bytes));
            }
        }
        all.extend(tagged());
        all
    }

    fn decoded(key: i16, version: i16, bytes: Bytes) -> Result<()> {
        match key {
            1 => decode::<FetchRequest>(bytes, version).map(drop),
            3 => decode::<MetadataRequest>(bytes, version).map(drop),
            API_VERSIONS => decode::<ApiVersionsRequest>(bytes, version).map(drop),
            36 => decode::<SaslAuthenticateRequest>(bytes, version).map(drop),
            17 => decode::<SaslHandshakeRequest>(bytes, version).map(drop),
            _ => decode::<OffsetForLeaderEpochRequest>(bytes, version).map(drop),
        }
    }

    #[test]
    fn an_answer_of_each_kind_and_version_is_decoded() {
        for (key, version, bytes) in answers() {
            decoded(key, version, bytes).unwrap_or_else(|error| panic!("{key} {version}: {error}"));
        }
        let answer = decode::<FetchRequest>(encoded::<FetchRequest>(&fetched(), 12), 12).unwrap();
        assert_eq!(answer, fetched());
    }

    /// Without the check of lengths, the decoder reserves what an answer declares, and the process ends.
    #[test]
    fn damaged_answers_are_refused_within_their_own_size() {
        let mut random = fastrand::Rng::with_seed(7);
        for (key, version, bytes) in answers() {
            for len in 0..bytes.len() {
                assert!(decoded(key, version, bytes.slice(..len)).is_err(), "{key} {version}, cut at {len}");
            }
            for _ in 0..5_000 {
                let mut damaged = bytes.to_vec();
                for _ in 0..=random.usize(0..3) {
                    let at = random.usize(0..damaged.len());
                    damaged[at] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff, random.clone().u8(..)]).unwrap();
                }
                let _refused = decoded(key, version, damaged.into());
            }
        }
        let mut huge = encoded::<MetadataRequest>(&metadata(), 8).to_vec();
        // The number of brokers, after the correlation id and the throttle time.
        huge[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(decoded(3, 8, huge.into()).unwrap_err().kind(), ErrorKind::Undecodable);
    }

    #[test]
    fn the_newest_version_of_both_sides_is_used() {
        let versions = |oldest, newest| BrokerVersions(HashMap::from([(1, (oldest, newest))]));
        assert_eq!(versions(4, 17).of_request::<FetchRequest>().unwrap(), 12);
        assert_eq!(versions(4, 11).of_request::<FetchRequest>().unwrap(), 11);
        for wrong in [versions(0, 10), versions(13, 17), BrokerVersions::default()] {
            let error = wrong.of_request::<FetchRequest>().unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("Fetch"), "{error}");
        }
    }
}

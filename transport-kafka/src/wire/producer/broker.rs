//! The requests to one broker: written in order, up to five without an answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use tidings_core::{Error, ErrorKind, Name, Result, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Answer, Identity};
use crate::wire::cluster::Cluster;
use crate::wire::connection::RequestError;
use crate::wire::messages::Code;

/// Acknowledged by all in-sync replicas: a batch that only the leader has is lost with it.
const ALL: i16 = -1;
/// No producer: the broker assigns a new id.
const NO_ID: i64 = -1;
const NO_EPOCH: i16 = -1;
/// Time limit of a request for an identity: another broker may answer sooner than one that hangs.
const IDENTITY_LIMIT: Duration = Duration::from_secs(3);

/// A request to be sent. Its outcome is reported once, also if it is dropped.
#[derive(Debug)]
pub(crate) struct ToSend {
    batches: Vec<(TopicPartition, Bytes)>,
    outcome: Outcome,
}

impl ToSend {
    /// Creates a request whose outcome goes to `reports`.
    pub(crate) fn new(
        request: u64,
        batches: Vec<(TopicPartition, Bytes)>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        Self { batches, outcome: Outcome { request, is_sent: false, reports: Some(reports) } }
    }

    /// Reports the same answer to all batches.
    #[cfg(test)]
    pub(crate) fn answer(self, answer: Answer) {
        let answers = self.batches.into_iter().map(|(at, _)| (at, answer)).collect();
        let request = self.outcome.request;
        self.outcome.report(Report::Answered { request, answers, throttle: Duration::ZERO });
    }
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Report {
    /// A broker answered.
    Answered {
        request: u64,
        answers: HashMap<TopicPartition, Answer>,
        /// How long the broker delays this client's requests, because it exceeds a quota.
        throttle: Duration,
    },
    /// There is no answer.
    Lost {
        request: u64,
        /// Whether no byte of it was sent.
        unsent: bool,
        /// The cause, unless a task ended.
        error: Option<Arc<Error>>,
    },
}

/// Reports the outcome of a request.
#[derive(Debug)]
struct Outcome {
    request: u64,
    is_sent: bool,
    /// `None` once reported.
    reports: Option<mpsc::UnboundedSender<Report>>,
}

impl Outcome {
    fn report(mut self, report: Report) {
        if let Some(reports) = self.reports.take() {
            // Without a receiver, the producer has ended.
            let _ended = reports.send(report);
        }
    }

    fn lost(self, broker: i32, error: &RequestError) {
        let report = Report::Lost {
            request: self.request,
            unsent: matches!(error, RequestError::Unsent(_)),
            error: Some(Arc::clone(error.error())),
        };
        self.report(report);
        tracing::debug!(broker, error = error.error().report(), "batches have no answer; they are sent again");
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(reports) = self.reports.take() {
            let _ended = reports.send(Report::Lost { request: self.request, unsent: !self.is_sent, error: None });
        }
    }
}

/// Sends requests to a broker until there are no more, and reports their outcomes.
pub(crate) async fn run(broker: i32, cluster: Cluster, mut requests: mpsc::Receiver<ToSend>) {
    let mut pending = FuturesOrdered::new();
    let limit = cluster.config().request_timeout;
    let (mut is_open, mut resume_at) = (true, None);
    while is_open || !pending.is_empty() {
        tokio::select! {
            biased;
            Some((outcome, answer)) = pending.next() => match answer {
                Ok(answer) => resume_at = answered(outcome, &answer),
                Err(error) => Outcome::lost(outcome, broker, &error),
            },
            // The broker does not read this connection meanwhile, and a request would time out.
            () = sleep_until(resume_at.unwrap_or_else(Instant::now)), if resume_at.is_some() => resume_at = None,
            next = requests.recv(), if is_open && resume_at.is_none() => {
                let Some(ToSend { batches, mut outcome }) = next else {
                    is_open = false;
                    continue;
                };
                let sent = match cluster.connection(broker).await {
                    Ok(connection) => {
                        outcome.is_sent = true;
                        connection.send(&message(batches, limit), limit).await
                    }
                    Err(error) => Err(RequestError::Unsent(Arc::new(error))),
                };
                match sent {
                    Ok(sent) => pending.push_back(async move { (outcome, sent.answer().await) }),
                    Err(error) => outcome.lost(broker, &error),
                }
            }
        }
    }
}

/// Reports an answer, and returns when the next request may be sent, if the broker delays requests (KIP-219).
fn answered(outcome: Outcome, answer: &ProduceResponse) -> Option<Instant> {
    let throttle = Duration::from_millis(u64::try_from(answer.throttle_time_ms).unwrap_or(0));
    let request = outcome.request;
    outcome.report(Report::Answered { request, answers: answers(answer), throttle });
    (!throttle.is_zero()).then(|| Instant::now() + throttle)
}

fn message(batches: Vec<(TopicPartition, Bytes)>, limit: Duration) -> ProduceRequest {
    let mut topics: HashMap<Name, Vec<PartitionProduceData>> = HashMap::new();
    for (at, bytes) in batches {
        let partition = PartitionProduceData::default()
            .with_index(i32::try_from(at.partition).unwrap_or(i32::MAX))
            .with_records(Some(bytes));
        topics.entry(at.topic).or_default().push(partition);
    }
    let topic = |(name, partitions): (Name, Vec<PartitionProduceData>)| {
        TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(name.to_string())))
            .with_partition_data(partitions)
    };
    ProduceRequest::default()
        .with_acks(ALL)
        .with_timeout_ms(i32::try_from(limit.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(topics.into_iter().map(topic).collect())
}

fn answers(response: &ProduceResponse) -> HashMap<TopicPartition, Answer> {
    let each = response.responses.iter().flat_map(|topic| {
        let name = Name::from(topic.name.as_str());
        topic.partition_responses.iter().map(move |partition| {
            let at = TopicPartition::new(name.clone(), u32::try_from(partition.index).unwrap_or(u32::MAX));
            (at, Answer::of(partition.error_code, partition.base_offset))
        })
    });
    each.collect()
}

/// Requests a new producer id from a broker.
///
/// # Errors
/// [`Denied`](ErrorKind::Denied) if the right to publish idempotently is missing; others are transient.
pub(crate) async fn identity(cluster: &Cluster, broker: i32) -> Result<Identity> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(NO_ID))
        .with_producer_epoch(NO_EPOCH);
    let connection = cluster.connection(broker).await?;
    let limit = cluster.config().request_timeout.min(IDENTITY_LIMIT);
    let answer = connection.request(&request, limit).await.map_err(Error::from)?;
    Code(answer.error_code).ok().map_err(|code| code.error("request a producer id"))?;
    if answer.producer_id.0 < 0 {
        return Err(Error::new(ErrorKind::Unavailable, "request a producer id: the broker assigned none"));
    }
    Ok(Identity { id: answer.producer_id.0, epoch: answer.producer_epoch })
}

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
use crate::wire::connection::{Connection, Pending, RequestError};
use crate::wire::messages::Code;

/// Acknowledged by all in-sync replicas: a batch that only the leader has is lost with it.
const ALL: i16 = -1;
/// No producer: the broker assigns a new id.
const NO_ID: i64 = -1;
const NO_EPOCH: i16 = -1;
/// Time limit of a request for an identity: another broker may answer sooner than one that hangs.
const IDENTITY_LIMIT: Duration = Duration::from_secs(3);

/// A batch of a request.
#[derive(Debug)]
pub(crate) struct BatchToSend {
    pub(crate) at: TopicPartition,
    pub(crate) bytes: Bytes,
    /// When its records end: it must not be sent afterwards.
    pub(crate) expires: Instant,
}

/// A request to be sent. Its outcome is reported once, also if it is dropped.
#[derive(Debug)]
pub(crate) struct ToSend {
    batches: Vec<BatchToSend>,
    outcome: Outcome,
}

impl ToSend {
    /// Creates a request whose outcome goes to `reports`.
    pub(crate) fn new(request: u64, batches: Vec<BatchToSend>, reports: mpsc::UnboundedSender<Report>) -> Self {
        Self { batches, outcome: Outcome { request, is_sent: false, reports: Some(reports) } }
    }

    /// Reports the same answer to all batches.
    #[cfg(test)]
    pub(crate) fn answer(self, answer: Answer) {
        let answers = self.batches.into_iter().map(|batch| (batch.at, answer)).collect();
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
        /// The cause; `None` if the task ended.
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
        tracing::debug!(broker, error = error.error().report(), "a request has no answer; its batches are sent again");
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
    let most = cluster.config().delivery_timeout;
    let (mut is_open, mut pace) = (true, Pace::default());
    while is_open || !pending.is_empty() {
        tokio::select! {
            biased;
            Some((outcome, connection, answer)) = pending.next() => match answer {
                Ok(answer) => {
                    let throttle = answered(outcome, &answer).min(most);
                    pace.answered(throttle);
                    Connection::delay(&connection, throttle);
                }
                Err(error) => Outcome::lost(outcome, broker, &error),
            },
            () = sleep_until(pace.resume_at.unwrap_or_else(Instant::now)), if pace.resume_at.is_some() => {
                pace.resume_at = None;
            }
            next = requests.recv(), if is_open && pace.may_send(pending.len()) => match next {
                Some(request) => {
                    if let Some((outcome, connection, sent)) = send(request, broker, &cluster).await {
                        pending.push_back(async move { (outcome, connection, sent.answer().await) });
                    }
                }
                None => is_open = false,
            },
        }
    }
}

/// How fast a broker that delays requests (KIP-219) is sent the next ones.
#[derive(Debug, Default)]
struct Pace {
    /// The broker does not read the connection until then.
    resume_at: Option<Instant>,
    /// Whether the last answer announced a delay. The delays of further requests on their way would add up.
    is_throttled: bool,
}

impl Pace {
    fn answered(&mut self, throttle: Duration) {
        self.is_throttled = !throttle.is_zero();
        self.resume_at = self.is_throttled.then(|| Instant::now() + throttle);
    }

    /// Returns whether a request may be sent while this number of them has no answer.
    fn may_send(&self, pending: usize) -> bool {
        self.resume_at.is_none() && (!self.is_throttled || pending == 0)
    }
}

/// Sends the batches of a request whose records have not ended; `None` if it is not sent, and its outcome is reported.
async fn send(
    ToSend { mut batches, mut outcome }: ToSend,
    broker: i32,
    cluster: &Cluster,
) -> Option<(Outcome, Connection, Pending<ProduceRequest>)> {
    let limit = cluster.config().request_timeout;
    // It may have waited for earlier requests, and then waits for the connection.
    retain_live(&mut batches)?;
    let sent = match cluster.connection(broker).await {
        Ok(connection) => {
            retain_live(&mut batches)?;
            outcome.is_sent = true;
            connection.send(&message(batches, limit), limit).await.map(|sent| (connection, sent))
        }
        Err(error) => Err(RequestError::Unsent(Arc::new(error))),
    };
    match sent {
        Ok((connection, sent)) => Some((outcome, connection, sent)),
        Err(error) => {
            outcome.lost(broker, &error);
            None
        }
    }
}

/// Removes expired batches; returns `None` if no others are left.
fn retain_live(batches: &mut Vec<BatchToSend>) -> Option<()> {
    let now = Instant::now();
    batches.retain(|batch| batch.expires > now);
    (!batches.is_empty()).then_some(())
}

/// Reports an answer, and returns for how long the broker delays requests.
fn answered(outcome: Outcome, answer: &ProduceResponse) -> Duration {
    let throttle = Duration::from_millis(u64::try_from(answer.throttle_time_ms).unwrap_or(0));
    let request = outcome.request;
    outcome.report(Report::Answered { request, answers: answers(answer), throttle });
    throttle
}

fn message(batches: Vec<BatchToSend>, limit: Duration) -> ProduceRequest {
    let mut topics: HashMap<Name, Vec<PartitionProduceData>> = HashMap::new();
    for BatchToSend { at, bytes, .. } in batches {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_request_at_a_time_is_sent_to_a_broker_that_delays_them() {
        let mut pace = Pace::default();
        assert!(pace.may_send(4));
        pace.answered(Duration::from_secs(1));
        assert!(!pace.may_send(0), "the broker reads nothing");
        pace.resume_at = None;
        assert!(pace.may_send(0) && !pace.may_send(1));
        pace.answered(Duration::ZERO);
        assert!(pace.may_send(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_batches_have_expired_is_not_sent() {
        // There is no connection: sending it would fail with that error.
        let cluster = Cluster::new(&crate::KafkaConfig::new(Vec::<String>::new()));
        let ((reports, mut reported), (requests, incoming)) = (mpsc::unbounded_channel(), mpsc::channel(2));
        let at = TopicPartition::new("t", 0);
        let batch = BatchToSend { at, bytes: Bytes::new(), expires: Instant::now() };
        requests.send(ToSend::new(7, vec![batch], reports)).await.expect("room");
        drop(requests);
        run(1, cluster, incoming).await;
        let Some(Report::Lost { request: 7, unsent: true, error }) = reported.recv().await else {
            panic!("its outcome")
        };
        assert!(error.is_none(), "{error:?}");
    }
}

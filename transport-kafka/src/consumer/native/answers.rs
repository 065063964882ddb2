//! Handling of a broker's answers by its reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::FetchResponse;
use tidings_core::{Error, ErrorKind, TopicPartition};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::super::fetch_buffer::FetchTarget;
use super::super::{fetchers, unreadable};
use super::reader::{InFlight, NativeReader, Waiting};
use super::reading::Reading;
use crate::client::fetcher::UnreadableBatch;
use crate::wire::connection::Connection;
use crate::wire::messages::Code;
use crate::wire::reader::epochs::{self, EpochToCheck};
use crate::wire::reader::fetch::{self, Answer};

/// Pause of a partition whose fetch was answered with a transient error.
const AGAIN: Duration = Duration::from_millis(100);
/// Pause of a partition that the broker refuses to return, or whose bounds are looked up.
const LATER: Duration = Duration::from_secs(1);
/// Maximum time that a broker's throttling delays the next fetch.
const LONGEST_THROTTLE: Duration = Duration::from_secs(30);
/// Number of consecutive refusals after which a partition is held.
const REFUSALS: u32 = 3;

impl NativeReader {
    /// Checks whether the logs of new leaders contain the records read before (KIP-320).
    pub(super) async fn check_epochs(&mut self, connection: &Connection) -> Result<(), Error> {
        let cluster = &self.readers.cluster;
        let check = |reading: &Reading| {
            let leader = cluster.leader(&reading.target.partition)?;
            let read_epoch = reading.to_check(leader, self.id.broker)?;
            Some(EpochToCheck { partition: reading.target.partition.clone(), leader_epoch: leader.epoch, read_epoch })
        };
        let checks: Vec<EpochToCheck> = self.readings.values().filter_map(check).collect();
        if checks.is_empty() {
            return Ok(());
        }
        let answer = connection.request(&epochs::request(&checks), self.limit()).await?;
        let ends = epochs::ends(&answer);
        for check in checks {
            let Some(reading) = self.readings.get_mut(&check.partition) else { continue };
            match ends.get(&check.partition) {
                Some(Ok(Some(end))) if *end < reading.next => {
                    let (partition, ticket) = (&check.partition, reading.target.ticket);
                    if let Some(next) = self.shared.change(|state| state.truncate(partition, ticket, *end)) {
                        warn!(%partition, next, end, "the log was truncated by an election; reading continues at its end");
                    }
                    reading.stopped = true;
                }
                Some(Ok(_)) => reading.checked_epoch = Some(check.leader_epoch),
                Some(Err(_)) | None => {
                    reading.pause(AGAIN);
                    self.readers.moved.notify_one();
                }
            }
        }
        Ok(())
    }

    /// Processes an answer, and sends the next fetch before it decompresses any batch.
    pub(super) async fn receive(&mut self, response: FetchResponse) {
        let Some(InFlight { targets, tickets, .. }) = self.in_flight.take() else { return };
        self.throttle(response.throttle_time_ms);
        if let Err(code) = Code(response.error_code).ok() {
            return self.failed(code.error(format!("fetch from broker {}", self.id.broker)));
        }
        let tickets: BTreeMap<TopicPartition, u64> =
            targets.iter().map(|target| target.partition.clone()).zip(tickets).collect();
        let mut out_of_range = Vec::new();
        for answer in fetch::answers(response, &targets, self.readers.limits.committed_only) {
            let ticket = tickets.get(&answer.partition);
            let is_current = |reading: &Reading| Some(&reading.target.ticket) == ticket && !reading.stopped;
            if self.readings.get(&answer.partition).is_some_and(is_current) {
                self.take(answer, &mut out_of_range);
            }
        }
        self.restart(out_of_range);
        let waiting: usize = self.waiting.iter().map(|waiting| waiting.batches.bytes()).sum();
        if self.shared.lock().has_room_for(waiting) {
            self.send().await;
        }
    }

    /// Sends nothing while the broker does not read from the connection, because a quota is exceeded (KIP-219).
    fn throttle(&mut self, millis: i32) {
        let pause = Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(LONGEST_THROTTLE);
        if !pause.is_zero() {
            debug!(broker = self.id.broker, ?pause, "the broker throttles fetches; the next one waits");
            self.throttled = Some(Instant::now() + pause);
        }
    }

    /// Processes the answer for one partition.
    fn take(&mut self, answer: Answer, out_of_range: &mut Vec<FetchTarget>) {
        let Answer { partition, code, leader, replica, batches } = answer;
        let Some(reading) = self.readings.get_mut(&partition) else { return };
        if let Some(leader) = leader {
            self.readers.cluster.learn_leader(&partition, leader);
        }
        let ticket = reading.target.ticket;
        if let Err(code) = code.ok() {
            if code.is_replica_behind() {
                // A leader would name this replica again at once.
                return self.refused(&partition, code);
            }
            let leads = self.readers.cluster.leader(&partition).is_none_or(|leader| leader.broker == self.id.broker);
            if !leads {
                // A replica may be behind or ahead of its leader, so the leader's answer decides.
                self.shared.change(|state| state.read_from(&partition, ticket, None));
            } else if code == Code::OFFSET_OUT_OF_RANGE && self.waiting.iter().any(|w| w.partition == partition) {
                // Batches fetched before are unpacked first, although the log no longer has them.
                return reading.pause(AGAIN);
            } else if code == Code::OFFSET_OUT_OF_RANGE {
                out_of_range.push(FetchTarget { from: reading.next, ..reading.target.clone() });
                reading.pause(LATER);
                return;
            }
            return self.refused(&partition, code);
        }
        reading.refused = 0;
        if let Some(replica) = replica.filter(|replica| *replica != self.id.broker) {
            self.shared.change(|state| state.read_from(&partition, ticket, Some(replica)));
        }
        if batches.bytes() > 0 {
            let behind = batches.behind();
            reading.next = behind.next;
            reading.read_epoch = behind.leader_epoch.or(reading.read_epoch);
            // An unreadable batch is reported when it is unpacked.
            reading.stopped = !behind.is_sound;
            self.waiting.push_back(Waiting { partition, ticket, batches });
        }
    }

    /// Handles an error code of a partition.
    fn refused(&mut self, partition: &TopicPartition, code: Code) {
        let Some(reading) = self.readings.get_mut(partition) else { return };
        let offset = reading.next;
        let error = code.error(format!("fetch {partition} from offset {offset}"));
        if code.is_refused_fetch() {
            reading.refused += 1;
            reading.pause(LATER);
            if reading.refused >= REFUSALS {
                reading.stopped = true;
                let kind = if error.is_retryable() { ErrorKind::Undecodable } else { error.kind() };
                let what = format!("cannot read the batch of {partition} at offset {offset}");
                let bad = UnreadableBatch {
                    partition: partition.clone(),
                    offset,
                    error: Error::caused_by(kind, what, error),
                };
                let target = reading.target.clone();
                self.hold(target, bad);
            }
            return;
        }
        if error.kind() == ErrorKind::Denied {
            reading.pause(LATER);
            self.shared.change(|state| state.trouble = Some(error));
        } else {
            reading.pause(AGAIN);
            debug!(error = error.report(), "fetching a partition failed; it is retried after a request for its leader");
            self.readers.moved.notify_one();
        }
    }

    /// Looks up the oldest records of partitions whose next offset is not in the log.
    ///
    /// The leader's answer decides: this broker may be a replica, or may have lost the partition.
    fn restart(&mut self, targets: Vec<FetchTarget>) {
        if !targets.is_empty() {
            let (shared, client) = (Arc::clone(&self.shared), self.readers.client.clone());
            self.lookups.spawn(async move { fetchers::restart(&shared, &client, &targets, true).await });
        }
    }

    /// Holds a partition whose next batch cannot be read.
    pub(super) fn hold(&mut self, target: FetchTarget, bad: UnreadableBatch) {
        let (shared, client, broker) = (Arc::clone(&self.shared), self.readers.client.clone(), self.id.broker);
        self.lookups.spawn(async move {
            if !unreadable::hold(&shared, &client, broker, &target, bad).await {
                sleep(AGAIN).await;
            }
        });
    }

    /// Handles a failed fetch: retries its partitions, and requests their leaders.
    pub(super) fn failed(&mut self, error: Error) {
        self.in_flight = None;
        debug!(error = error.report(), broker = self.id.broker, "a fetch failed; it is retried");
        for reading in self.readings.values_mut() {
            reading.pause(AGAIN);
        }
        if error.is_retryable() {
            // If a replica does not answer, its partitions are read from their leaders.
            self.shared.change(|state| state.leave_replica(self.id.broker));
            self.readers.moved.notify_one();
        } else {
            self.shared.change(|state| state.trouble = Some(error));
        }
    }
}

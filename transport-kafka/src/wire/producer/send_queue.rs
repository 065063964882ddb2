//! All partitions of a producer, and the requests to brokers that carry their batches.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::partition::{MAX_IN_FLIGHT, Partition, Wants};
use super::{Answer, Fate, Identity, Payload};
use crate::wire::records::ProducerState;

/// Settings of a [`SendQueue`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendSettings {
    /// Maximum time from queueing a batch to its end.
    pub(crate) delivery_timeout: Duration,
    /// Maximum size of the batches of a request in bytes. A larger batch is sent alone.
    pub(crate) max_request_bytes: usize,
}

/// A batch that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completion<B> {
    /// Number of its partition.
    pub(crate) partition: usize,
    /// The batch.
    pub(crate) payload: B,
    /// How it ended.
    pub(crate) fate: Fate,
}

/// A request without an answer.
#[derive(Debug)]
struct Sent {
    broker: i32,
    partitions: Vec<usize>,
}

/// The batches of a producer that have not ended. The caller bounds their number.
///
/// Partitions are numbered by their caller, from zero, in the order in which it learns of them.
#[derive(Debug)]
pub(crate) struct SendQueue<B> {
    settings: SendSettings,
    partitions: Vec<Partition<B>>,
    requests: HashMap<u64, Sent>,
    last_request: u64,
    /// The partition with which the next request begins, so that all partitions get a turn.
    turn: usize,
}

impl<B: Payload> SendQueue<B> {
    /// Creates an empty queue.
    pub(crate) fn new(settings: SendSettings) -> Self {
        Self { settings, partitions: Vec::new(), requests: HashMap::new(), last_request: 0, turn: 0 }
    }

    /// Adds a partition without a leader, and returns its number.
    pub(crate) fn add_partition(&mut self) -> usize {
        self.partitions.push(Partition::new());
        self.partitions.len() - 1
    }

    /// Queues a batch behind those of its partition. An unknown partition ends it at once.
    pub(crate) fn push(&mut self, partition: usize, payload: B, now: Instant) -> Option<Completion<B>> {
        match self.partitions.get_mut(partition) {
            Some(known) => {
                known.push(payload, now + self.settings.delivery_timeout);
                None
            }
            None => Some(Completion { partition, payload, fate: Fate::Expired }),
        }
    }

    /// Returns whether the next batch of a partition should be queued now. A batch that is queued earlier than it can
    /// be sent is smaller than necessary.
    pub(crate) fn wants(&self, partition: usize, now: Instant) -> bool {
        match self.partitions.get(partition).map_or(Wants::Nothing, |partition| partition.wants(now)) {
            Wants::ToSend(broker) => self.in_flight(broker) < MAX_IN_FLIGHT,
            Wants::ToAsk => true,
            Wants::Nothing => false,
        }
    }

    fn in_flight(&self, broker: i32) -> usize {
        self.requests.values().filter(|sent| sent.broker == broker).count()
    }

    /// Returns the brokers that lead partitions with batches.
    pub(crate) fn leaders(&self) -> Vec<i32> {
        let busy = self.partitions.iter().filter(|partition| !partition.is_empty());
        let mut leaders: Vec<i32> = busy.filter_map(Partition::leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        leaders
    }

    /// Returns whether all batches have ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.iter().all(Partition::is_empty)
    }

    /// Returns the partitions whose batches wait for a leader to be known.
    pub(crate) fn without_leader(&self) -> impl Iterator<Item = usize> + '_ {
        let each = self.partitions.iter().enumerate();
        each.filter(|(_, partition)| partition.needs_leader()).map(|(number, _)| number)
    }

    /// Sets the leader of a partition.
    pub(crate) fn set_leader(&mut self, partition: usize, leader: Option<i32>) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.set_leader(leader);
        }
    }

    /// Returns whether batches wait for an identity, which a broker has to assign.
    pub(crate) fn needs_identity(&self) -> bool {
        self.partitions.iter().any(Partition::needs_identity)
    }

    /// Sets the identity of the partitions that have none.
    pub(crate) fn set_identity(&mut self, identity: Identity) {
        for partition in &mut self.partitions {
            partition.set_identity(identity);
        }
    }

    /// Sets the identity of a partition, if it has none.
    pub(crate) fn set_identity_of(&mut self, partition: usize, identity: Identity) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.set_identity(identity);
        }
    }

    /// Returns the time of the next expiry or retry after `now`.
    pub(crate) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        self.partitions.iter().filter_map(|partition| partition.wakes_at(now)).min()
    }

    /// Starts the next request to `broker`, and returns its number; `None` if nothing can be sent now. `add` gets
    /// each of its batches, with the partition, and the producer state to write into it.
    pub(crate) fn next_request(
        &mut self,
        broker: i32,
        now: Instant,
        mut add: impl FnMut(usize, ProducerState, &mut B),
    ) -> Option<u64> {
        if self.in_flight(broker) >= MAX_IN_FLIGHT {
            return None;
        }
        let (count, request) = (self.partitions.len(), self.last_request + 1);
        let mut sent = Sent { broker, partitions: Vec::new() };
        let mut room = self.settings.max_request_bytes;
        for number in (self.turn..count).chain(0..self.turn) {
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            let most = if sent.partitions.is_empty() { usize::MAX } else { room };
            if let Some((producer, payload)) = partition.start(broker, request, most, now) {
                room = room.saturating_sub(payload.size());
                add(number, producer, payload);
                sent.partitions.push(number);
            }
        }
        let first = *sent.partitions.first()?;
        self.turn = (first + 1) % count;
        self.last_request = request;
        self.requests.insert(request, sent);
        Some(request)
    }

    /// Returns the partitions of a request without an answer.
    pub(crate) fn partitions_of(&self, request: u64) -> &[usize] {
        self.requests.get(&request).map(|sent| sent.partitions.as_slice()).unwrap_or_default()
    }

    /// Records the answers to a request, and returns the batches that end. A batch without an answer is open.
    pub(crate) fn answered(
        &mut self,
        request: u64,
        answers: &HashMap<usize, Answer>,
        now: Instant,
    ) -> Vec<Completion<B>> {
        self.end(request, now, |partition| answers.get(&partition).copied().unwrap_or(Answer::Open { moved: false }))
    }

    /// Records that a request has no answer; `unsent` means that no byte of it was sent.
    pub(crate) fn lost(&mut self, request: u64, unsent: bool, now: Instant) -> Vec<Completion<B>> {
        // The broker may be down, so its partitions may have another leader.
        let answer = if unsent { Answer::NotStored { moved: true } } else { Answer::Open { moved: true } };
        self.end(request, now, |_| answer)
    }

    fn end(&mut self, request: u64, now: Instant, answer: impl Fn(usize) -> Answer) -> Vec<Completion<B>> {
        let Some(sent) = self.requests.remove(&request) else { return Vec::new() };
        let mut ended = Vec::new();
        for number in sent.partitions {
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            if let Some((payload, fate)) = partition.answered(request, answer(number), now) {
                ended.push(Completion { partition: number, payload, fate });
            }
        }
        ended
    }

    /// Ends the batches of a partition up to the first that is in flight, as if their delivery timeout had passed, and
    /// returns them.
    pub(crate) fn give_up(&mut self, partition: usize) -> Vec<Completion<B>> {
        let mut ended = Vec::new();
        if let Some(known) = self.partitions.get_mut(partition) {
            known.give_up(|payload, fate| ended.push(Completion { partition, payload, fate }));
        }
        ended
    }

    /// Ends the batches whose delivery timeout has passed, and returns them.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Completion<B>> {
        let mut ended = Vec::new();
        for (number, partition) in self.partitions.iter_mut().enumerate() {
            partition.expire(now, |payload, fate| ended.push(Completion { partition: number, payload, fate }));
        }
        ended
    }
}

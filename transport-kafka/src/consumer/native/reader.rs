//! The reader of one broker: it fetches, and unpacks the last answer while the next fetch is in flight.
//!
//! One fetch is in flight. The headers of batches in its answer contain the next offset, so the next fetch is sent
//! before any record is decoded. While the consumer has no capacity, fetched batches wait without being unpacked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tidings_core::{Error, Result, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::fetch_buffer::{FetchTarget, FetcherId};
use super::super::{Shared, until};
use super::NativeReaders;
use super::reading::Reading;
use crate::wire::connection::Pending;
use crate::wire::reader::FetchedBatches;
use crate::wire::reader::fetch::{self, FetchFrom};

/// Time limit of an answer, in addition to the fetch's wait: other brokers may have taken over the partitions of one
/// that hangs.
const HASTY: Duration = Duration::from_secs(3);
/// Pause of an idle reader, unless it is woken.
const REST: Duration = Duration::from_millis(500);

/// A fetch in flight.
pub(super) struct InFlight {
    pending: Pending<FetchRequest>,
    pub(super) targets: Vec<FetchFrom>,
    /// The reading of each target.
    pub(super) tickets: Vec<u64>,
}

/// Fetched batches that wait to be unpacked.
pub(super) struct Waiting {
    pub(super) partition: TopicPartition,
    pub(super) ticket: u64,
    pub(super) batches: FetchedBatches,
}

/// The reader of one broker.
pub(super) struct NativeReader {
    pub(super) readers: NativeReaders,
    pub(super) shared: Arc<Shared>,
    pub(super) id: FetcherId,
    pub(super) readings: BTreeMap<TopicPartition, Reading>,
    /// The plan that was last applied.
    seen: u64,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) in_flight: Option<InFlight>,
    /// No fetch is sent before this time, because of a quota.
    pub(super) throttled: Option<Instant>,
    /// Which partition is first in the next fetch: brokers fill it in order.
    turn: usize,
    /// Look-ups for partitions that cannot continue; the other partitions do not wait for them.
    pub(super) lookups: JoinSet<()>,
}

/// Event that ends a reader's wait.
enum Event {
    Answer(Result<FetchResponse>),
    Other,
}

impl NativeReader {
    pub(super) fn new(readers: NativeReaders, shared: Arc<Shared>, id: FetcherId) -> Self {
        Self {
            readers,
            shared,
            id,
            readings: BTreeMap::new(),
            seen: 0,
            waiting: VecDeque::new(),
            in_flight: None,
            throttled: None,
            turn: 0,
            lookups: JoinSet::new(),
        }
    }

    /// Reads until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let has_room = self.follow_plan();
            if has_room && !self.waiting.is_empty() {
                self.unpack();
                // Unpacking never awaits, so yield to other tasks.
                tokio::task::yield_now().await;
                continue;
            }
            if has_room && self.in_flight.is_none() {
                self.send().await;
            }
            match self.wait(has_room).await {
                Event::Answer(Ok(response)) => self.receive(response).await,
                Event::Answer(Err(error)) => self.failed(error),
                Event::Other => {}
            }
            while self.lookups.try_join_next().is_some() {}
        }
    }

    /// Applies a change of the plan; returns whether there is room for records.
    fn follow_plan(&mut self) -> bool {
        let (targets, has_room) = {
            let state = self.shared.lock();
            if state.plan == self.seen {
                return state.has_room();
            }
            self.seen = state.plan;
            (state.targets(self.id), state.has_room())
        };
        let mut before = std::mem::take(&mut self.readings);
        for target in targets {
            let same = before.remove(&target.partition).filter(|reading| reading.target.ticket == target.ticket);
            let reading = match same {
                Some(reading) => Reading { target: FetchTarget { from: reading.target.from, ..target }, ..reading },
                None => Reading::new(target),
            };
            self.readings.insert(reading.target.partition.clone(), reading);
        }
        let readings = &self.readings;
        let is_current = |w: &Waiting| readings.get(&w.partition).is_some_and(|r| r.target.ticket == w.ticket);
        self.waiting.retain(is_current);
        has_room
    }

    /// Waits for an answer, capacity, a new plan, or the end of a pause.
    async fn wait(&mut self, has_room: bool) -> Event {
        let (shared, seen) = (Arc::clone(&self.shared), self.seen);
        let work = until(&shared.plans, || {
            let state = shared.lock();
            (state.plan != seen || (!has_room && state.has_room())).then_some(())
        });
        let now = Instant::now();
        let pauses = self.readings.values().map(|reading| reading.paused).chain([self.throttled]);
        let rest = pauses.flatten().filter(|until| *until > now).min();
        let rest = rest.unwrap_or(now + REST);
        let Some(in_flight) = &mut self.in_flight else {
            tokio::select! {
                () = work => {}
                () = sleep_until(rest) => {}
            }
            return Event::Other;
        };
        tokio::select! {
            biased;
            answer = in_flight.pending.wait() => Event::Answer(answer.map_err(Error::from)),
            () = work => Event::Other,
        }
    }

    /// Sends a fetch, if there is anything to fetch.
    pub(super) async fn send(&mut self) {
        let now = Instant::now();
        let is_throttled = self.throttled.is_some_and(|until| until > now);
        if is_throttled || !self.readings.values().any(|reading| reading.is_wanted(now)) {
            return;
        }
        match self.try_send(now).await {
            Ok(sent) => self.in_flight = sent,
            Err(error) => self.failed(error),
        }
    }

    async fn try_send(&mut self, now: Instant) -> Result<Option<InFlight>> {
        let connection = self.readers.cluster.connection(self.id.broker).await?;
        self.check_epochs(&connection).await?;
        let mut wanted: Vec<&Reading> = self.readings.values().filter(|reading| reading.is_wanted(now)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        self.turn = (self.turn + 1) % wanted.len();
        wanted.rotate_left(self.turn);
        let tickets = wanted.iter().map(|reading| reading.target.ticket).collect();
        let target = |reading: &&Reading| FetchFrom {
            partition: reading.target.partition.clone(),
            offset: reading.next,
            leader_epoch: self.readers.cluster.leader(&reading.target.partition).map_or(-1, |leader| leader.epoch),
        };
        let targets: Vec<FetchFrom> = wanted.iter().map(target).collect();
        let limits = &self.readers.limits;
        let pending = connection.send(&fetch::request(&targets, limits), self.limit()).await?;
        // A large answer over a slow link takes longer than the time after which a silent broker is given up.
        let pending = pending.while_it_arrives(limits.wait + self.readers.cluster.config().request_timeout);
        Ok(Some(InFlight { pending, targets, tickets }))
    }

    /// Returns the time limit of an answer.
    pub(super) fn limit(&self) -> Duration {
        let wait = self.readers.limits.wait;
        wait + self.readers.cluster.config().request_timeout.min(HASTY)
    }
}

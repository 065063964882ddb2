//! The readers: one or two per leading broker, so that an idle broker's long poll never delays a busy one (K1), and a
//! task that follows the leaders (K6).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_core::{Error, ErrorKind, Result, SeekTo, TopicPartition};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::fetched::{Lane, Left, Seat, Want};
use super::odd::{self, Doubt, Order};
use super::slot::Chunk;
use super::state::State;
use super::{Shared, unreadable, until};
use crate::client::admin::Asks;
use crate::client::connection::{Connection, Role};
use crate::client::reader::{Bad, FetchSizes, Read, Reader, Run, Trouble};
use crate::config::KafkaConfig;

/// Interval between requests for the leaders.
const FOLLOW: Duration = Duration::from_millis(500);
/// Pause of an idle reader, unless it is woken.
const REST: Duration = Duration::from_millis(500);
/// Pause after a failed fetch.
const AGAIN: Duration = Duration::from_millis(100);
/// Pause before the second connection is retried.
const SECOND_AGAIN: Duration = Duration::from_secs(5);
/// Attempts to find a topic before it is reported missing.
const LOOKS: usize = 4;
/// Pause between two of these attempts.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

#[derive(Debug, Clone)]
pub(super) struct Readers {
    connection: Connection,
    /// Connection of the second readers: a broker answers the requests of a connection one after the other. It learns
    /// of brokers and leaders separately, and only when it is asked.
    second: Arc<OnceCell<(Connection, Reader)>>,
    /// Connection of the readers that fetch batches one by one: the long polls of the others would delay them.
    single: Arc<OnceCell<(Connection, Reader)>>,
    config: Arc<KafkaConfig>,
    sizes: FetchSizes,
    follower: Arc<Reader>,
}

impl Readers {
    pub(super) async fn open(connection: Connection, config: &KafkaConfig, sizes: FetchSizes) -> Result<Self> {
        let follower = Arc::new(Reader::open(&connection, config, sizes).await?);
        Ok(Self {
            connection,
            second: Arc::default(),
            single: Arc::default(),
            config: Arc::new(config.clone()),
            sizes,
            follower,
        })
    }

    /// Looks for a topic; brokers learn of a new topic at different times, and any of them may be asked.
    pub(super) async fn find(&self, topic: &str) -> Result<()> {
        for _ in 1..LOOKS {
            match self.leaders(topic).await {
                Err(error) if error.kind() == ErrorKind::NotFound => sleep(LOOK_AGAIN).await,
                found => return found.map(drop),
            }
        }
        self.leaders(topic).await.map(drop)
    }

    pub(super) async fn leaders(&self, topic: &str) -> Result<HashMap<u32, Option<i32>>> {
        self.follower.leaders(topic).await
    }

    /// Follows the leaders, and runs a reader for each, until it is aborted.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let mut taken = HashSet::new();
        // Dropping the set aborts the readers together with this task.
        let mut readers = JoinSet::new();
        let mut following = self.follow(&shared).boxed();
        let mut opening = self.open_second(&shared).boxed();
        loop {
            let (plan, seats) = {
                let state = shared.lock();
                (state.plan, state.seats())
            };
            for seat in seats {
                if taken.insert(seat) {
                    readers.spawn(self.clone().read(Arc::clone(&shared), seat));
                }
            }
            let changed = until(&shared.plans, || (shared.lock().plan != plan).then_some(()));
            // A reader with work starts at once, however long the brokers take to answer for other topics.
            tokio::select! {
                () = changed => {}
                () = &mut following => following = self.follow(&shared).boxed(),
                () = &mut opening, if !self.second.initialized() => {}
            }
        }
    }

    /// Opens another connection, with a reader that follows the leaders for it.
    async fn connect(&self) -> Result<(Connection, Reader)> {
        let connection = Connection::open(&self.config, Role::Reading).await?;
        let follower = Reader::open(&connection, &self.config, self.sizes).await?;
        Ok((connection, follower))
    }

    /// Opens the second connection, once a broker leads several partitions. Until then the first readers read all of
    /// them.
    async fn open_second(&self, shared: &Shared) {
        until(&shared.plans, || shared.lock().shares_a_broker().then_some(())).await;
        while let Err(error) = self.second.get_or_try_init(|| self.connect()).await {
            warn!(error = Error::report(&error), "there is no second connection to read by yet");
            sleep(SECOND_AGAIN).await;
        }
        debug!("there is a second connection to read by");
        shared.change(State::use_seconds);
    }

    /// Asks for the leaders, after a pause.
    async fn follow(&self, shared: &Shared) {
        sleep(FOLLOW).await;
        let topics: HashSet<_> = shared.lock().owned().into_iter().map(|p| p.topic).collect();
        for topic in topics {
            let first = async {
                match self.follower.leaders(&topic).await {
                    Ok(leaders) => shared.change(|state| state.lead(&topic, &leaders)),
                    Err(error) => debug!(error = error.report(), "the leaders are not known"),
                }
            };
            // The other connections have to know the leaders, too, but their answers are awaited only briefly.
            let other = async |cell: &OnceCell<(Connection, Reader)>| {
                if let Some((_, follower)) = cell.get() {
                    let _known = timeout(FOLLOW, follower.leaders(&topic)).await;
                }
            };
            tokio::join!(first, other(&self.second), other(&self.single));
        }
    }

    /// Returns the reader of a seat.
    async fn sit_down(&self, seat: Seat) -> Result<Reader> {
        let (other, sizes) = match seat.lane {
            Lane::First => (None, self.sizes),
            Lane::Second => (self.second.get(), self.sizes),
            Lane::Single => {
                let opened = self.single.get_or_try_init(|| self.connect()).await;
                let opened = opened.inspect_err(|error| {
                    warn!(
                        error = Error::report(error),
                        "there is no connection for large batches; they are read slowly"
                    );
                });
                (opened.ok(), self.sizes.single())
            }
        };
        Reader::open(other.map_or(&self.connection, |(connection, _)| connection), &self.config, sizes).await
    }

    /// Reads the partitions of this seat until it is aborted.
    async fn read(self, shared: Arc<Shared>, seat: Seat) {
        let asks = Asks::new(&self.connection, &self.config);
        let client = loop {
            match self.sit_down(seat).await {
                Ok(client) => break client,
                Err(error) => {
                    warn!(error = error.report(), "a reader can't be opened");
                    tell(&shared, error);
                }
            }
            sleep(AGAIN).await;
        };
        let mut reading = Reading { client, wants: BTreeMap::new(), unsure: false, gappy: HashSet::new(), seen: 0 };
        loop {
            let (plan, room) = {
                let state = shared.lock();
                (state.plan, state.has_room())
            };
            if plan != reading.seen {
                let wants = shared.lock().wants(seat);
                match reading.take(wants).await {
                    Ok(()) => reading.seen = plan,
                    Err(error) => {
                        debug!(error = error.report(), ?seat, "partitions can't be read yet");
                        sleep(AGAIN).await;
                        continue;
                    }
                }
            }
            if !room || reading.wants.values().all(|want| want.held) {
                let held = reading.wants.values().all(|want| want.held);
                let work = until(&shared.plans, || {
                    let state = shared.lock();
                    (state.plan != reading.seen || (!held && state.has_room())).then_some(())
                });
                let _told = timeout(REST, work).await;
                continue;
            }
            let polled = reading.client.poll(self.config.fetch_max_wait).await;
            shared.lock().polled(seat);
            match polled {
                Ok(reads) => {
                    let cut_off = reading.bring(&shared, &asks, seat, reads).await;
                    if !cut_off.is_empty() {
                        restart(&shared, &asks, &reading.of(cut_off), false).await;
                    }
                }
                Err(Trouble::OutOfRange(partitions)) => {
                    // With a rack, the answer may come from a follower that is behind its leader or ahead of it.
                    let doubted = self.config.rack.is_some();
                    restart(&shared, &asks, &reading.of(partitions), doubted).await;
                }
                Err(Trouble::Unreadable(bad)) => reading.hold(&shared, &asks, seat, bad).await,
                Err(Trouble::Other(error)) => {
                    debug!(error = error.report(), ?seat, "a fetch failed");
                    tell(&shared, error);
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// A reader and its current partitions.
struct Reading {
    client: Reader,
    wants: BTreeMap<TopicPartition, Want>,
    /// Whether the client may read other partitions: it did not accept all of a change.
    unsure: bool,
    /// Partitions whose gaps have a reason.
    gappy: HashSet<TopicPartition>,
    seen: u64,
}

impl Reading {
    /// Makes the client read exactly the wanted partitions.
    async fn take(&mut self, wants: Vec<Want>) -> Result<()> {
        let wants: BTreeMap<_, _> = wants.into_iter().map(|want| (want.partition.clone(), want)).collect();
        let unsure = std::mem::replace(&mut self.unsure, true);
        let told = self.tell(&wants, unsure).await;
        if told.is_ok() {
            self.gappy.retain(|partition| wants.contains_key(partition));
            self.wants = wants;
            self.unsure = false;
        } else {
            // All topics that the client may have, for the next time.
            self.wants.extend(wants);
        }
        told
    }

    async fn tell(&self, wants: &BTreeMap<TopicPartition, Want>, unsure: bool) -> Result<()> {
        let topics: HashSet<_> = wants.keys().chain(self.wants.keys()).map(|p| p.topic.clone()).collect();
        for topic in topics {
            let of = |all: &BTreeMap<TopicPartition, Want>| -> Vec<u32> {
                all.keys().filter(|p| p.topic == topic).map(|p| p.partition).collect()
            };
            let (before, now) = (of(&self.wants), of(wants));
            if unsure || before != now {
                self.client.assign(&topic, &now).await?;
            }
        }
        for (partition, want) in wants {
            let before = self.wants.get(partition).filter(|_| !unsure);
            if before.is_none_or(|b| b.ticket != want.ticket) {
                self.client.seek(partition, want.from).await?;
            }
            if unsure || before.map_or(want.held, |b| b.held != want.held) {
                self.client.hold(partition, want.held).await;
            }
        }
        Ok(())
    }

    /// Stops reading a partition whose next batch cannot be read.
    async fn hold(&self, shared: &Shared, asks: &Asks, seat: Seat, bad: Bad) {
        let held = match self.wants.get(&bad.partition) {
            Some(want) => unreadable::hold(shared, asks, seat.broker, want, bad).await,
            None => false,
        };
        if !held {
            // The partition is just moving; otherwise the error recurs, and must not do so in a tight loop.
            sleep(AGAIN).await;
        }
    }

    /// Returns the current readings of these partitions.
    fn of(&self, partitions: Vec<TopicPartition>) -> Vec<Want> {
        partitions.iter().filter_map(|partition| self.wants.get(partition)).cloned().collect()
    }

    /// Hands on fetched records and the extent of gaps. Returns the partitions whose logs end before their next
    /// offset: the client then resets them to the end of the log.
    async fn bring(&mut self, shared: &Shared, asks: &Asks, seat: Seat, reads: Vec<Read>) -> Vec<TopicPartition> {
        let marks = self.client.marks().await;
        let sized = |Read { partition, run }: Read| (partition, (run.size(), run));
        let mut reads: HashMap<TopicPartition, (usize, Run)> = reads.into_iter().map(sized).collect();
        let (mut came, mut cut_off, mut doubts) = (false, Vec::new(), Vec::new());
        {
            let mut state = shared.lock();
            for mark in marks {
                let Some(want) = self.wants.get(&mark.partition) else { continue };
                if state.is_beyond(&mark.partition, want.ticket, mark.position) {
                    cut_off.push(mark.partition);
                    continue;
                }
                let (size, run) = reads.remove(&mark.partition).unwrap_or_default();
                // Without records only a gap is news: never skip records that are still in the client's buffer.
                came |= !run.is_empty();
                let chunk = Chunk { run, next: mark.position, size };
                let from = state.fetched(&mark.partition, want.ticket).unwrap_or(chunk.next);
                let order = odd::order(&chunk.run, from, chunk.next, mark.end);
                if order == Order::Broken || order == Order::Gaps && !self.gappy.contains(&mark.partition) {
                    doubts.push(Doubt { want: want.clone(), from, chunk, order });
                } else {
                    state.bring(&mark.partition, want.ticket, chunk);
                }
            }
        }
        if came {
            shared.steps.notify_waiters();
        }
        for doubt in doubts {
            let (partition, order) = (doubt.want.partition.clone(), doubt.order);
            if !odd::examine(shared, asks, seat.broker, doubt).await {
                sleep(AGAIN).await;
            } else if order == Order::Gaps {
                self.gappy.insert(partition);
            }
        }
        cut_off
    }
}

/// Reports an error that is not transient through `next`.
fn tell(shared: &Shared, error: Error) {
    if !error.is_retryable() {
        shared.change(|state| state.trouble = Some(error));
    }
}

/// Continues at the oldest record where the next offset is no longer in the log. If that is doubted, the leader is
/// asked, and an offset that is within its log is kept.
async fn restart(shared: &Shared, asks: &Asks, readings: &[Want], doubted: bool) {
    let at = |to: SeekTo| readings.iter().map(move |want| (want.partition.clone(), to));
    let all = asks.of_all();
    let asked = tokio::try_join!(asks.offsets_each(at(SeekTo::Earliest)), all.offsets_each(at(SeekTo::Latest)));
    let (mut oldest, mut ends) = asked.unwrap_or_else(|error| {
        debug!(error = error.report(), "the bounds of logs are not known");
        (HashMap::new(), HashMap::new())
    });
    let mut waits = false;
    for Want { partition, ticket, .. } in readings {
        let known = |bounds: &mut HashMap<TopicPartition, Result<Option<u64>>>| bounds.remove(partition)?.ok()?;
        let moved = known(&mut oldest).zip(known(&mut ends)).and_then(|(oldest, end)| {
            let left = shared.change(|state| state.restart(partition, *ticket, oldest..=end, doubted))?;
            let Left { next, committed } = left;
            warn!(%partition, next, committed, oldest, end, "the next record is not in the log; reading goes on at the oldest");
            Some(left)
        });
        waits |= moved.is_none();
    }
    if waits {
        sleep(AGAIN).await;
    }
}

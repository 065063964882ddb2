//! The task of a relay: fetches, publishes, deletes.
//!
//! A turn deletes what the broker holds, does periodic work, fetches as much as there is room for,
//! and waits. Any error of the database ends the turn and drops the link; its shards are free at
//! once, and records in flight are published again by the next owner if they were not deleted.

mod landing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Publisher, Result, Transport};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::flight::{Fetched, Landed, fly};
use super::link::{Link, Refusal, Room};
use super::{Refused, RelayConfig, Shared};
use crate::PostgresStore;

/// Interval of rebalancing shards, which also tells the server that the relay is alive.
const BALANCE_INTERVAL: Duration = Duration::from_secs(2);
/// Interval at which a sleeping relay renews its entry.
const SLEEPER_INTERVAL: Duration = RelayConfig::LEASE;
/// Polls after falling asleep: a transaction at its last statement at that moment sends no notification.
const FIRST_LOOKS: [Duration; 3] = [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(250)];
/// Number of consecutive turns with records after which notifications are disabled.
const BUSY_TURNS: u32 = 8;
/// Minimum number of records per read of a shard.
const MIN_PER_SHARD: usize = 16;
/// Maximum number of delayed records of a shard that are moved at once.
const PROMOTED_PER_SHARD: i64 = 100;
/// Minimum interval of checking for lanes whose backoff is over, and for delayed records that could not
/// be moved.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A success within this time shows that the broker is not down as a whole.
const RECENT: Duration = Duration::from_secs(1);
/// How long the publisher that the relay has opened may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Source of the publisher.
#[derive(Debug)]
pub(super) enum Source {
    /// The relay opens the publisher, replaces it when it ends, and closes it.
    Transport(Arc<dyn Transport>),
    Publisher(Arc<dyn Publisher>),
}

/// A lane in backoff after a failed publish.
#[derive(Debug, Clone, Copy)]
struct Cooling {
    /// Consecutive failures, which the backoff grows with.
    failures: u32,
    until: Instant,
}

/// Records are in at most one of these states: in flight (`busy`, by lane), `held` by the broker
/// and to be deleted, or `refused` and to be kept aside.
#[derive(Debug)]
pub(super) struct Worker {
    store: PostgresStore,
    source: Source,
    config: RelayConfig,
    shared: Arc<Shared>,
    id: Uuid,
    publisher: Option<Arc<dyn Publisher>>,
    link: Option<Link>,
    flights: JoinSet<Landed>,
    /// Lanes in flight, and their shards.
    busy: HashMap<i64, i16>,
    /// Records with the publisher; bounded by [`RelayConfig::batch_records`].
    in_flight: usize,
    bytes_in_flight: usize,
    /// Shard and id of records that the broker holds.
    held: Vec<(i16, i64)>,
    /// Records to move to the table of failed ones.
    refused: Vec<Refusal>,
    /// Lanes that wait after a failure; they are not fetched meanwhile.
    cooling: HashMap<i64, Cooling>,
    /// No fetch before this time, because all recent attempts failed.
    not_before: Option<Instant>,
    /// Consecutive failures of the broker for all attempts, and of the database.
    failures: u32,
    /// When the broker last accepted a record.
    succeeded_at: Option<Instant>,
    /// When delayed records are next looked for.
    promote_at: Instant,
    /// When shards are next shared out.
    balance_at: Instant,
    lag_at: Instant,
    /// Number of shards with records at the last fetch.
    active_shards: usize,
    /// When it last announced that it waits for notifications.
    asleep: Option<Instant>,
    /// Consecutive turns without records, and with records.
    idle_turns: usize,
    busy_turns: u32,
}

impl Worker {
    pub(super) fn new(
        store: PostgresStore,
        source: Source,
        config: RelayConfig,
        shared: Arc<Shared>,
        id: Uuid,
    ) -> Self {
        let now = Instant::now();
        Self {
            store,
            source,
            config,
            shared,
            id,
            publisher: None,
            link: None,
            flights: JoinSet::new(),
            busy: HashMap::new(),
            in_flight: 0,
            bytes_in_flight: 0,
            held: Vec::new(),
            refused: Vec::new(),
            cooling: HashMap::new(),
            not_before: None,
            failures: 0,
            succeeded_at: None,
            promote_at: now,
            balance_at: now,
            lag_at: now,
            active_shards: 1,
            asleep: None,
            idle_turns: 0,
            busy_turns: 0,
        }
    }

    /// Runs until the shutdown, when all results of records in flight are written.
    pub(super) async fn run(mut self) {
        while !self.is_over() {
            match self.turn().await {
                Ok(()) => {}
                Err(error) => self.broke(&error).await,
            }
        }
        self.leave().await;
    }

    /// Nothing is in flight, and everything that was published is deleted.
    fn is_over(&self) -> bool {
        let settled = self.held.is_empty() && self.refused.is_empty();
        self.shared.is_stopping() && self.flights.is_empty() && settled
    }

    /// # Errors
    /// Of the database, or of opening a publisher.
    async fn turn(&mut self) -> Result<()> {
        self.open().await?;
        self.settle().await?;
        self.keep().await?;
        self.promote().await?;
        let found = self.fetch().await?;
        if self.busy.is_empty() && found == Found::Nothing {
            self.fall_asleep().await?;
        }
        self.show();
        match found {
            // There are more records, and room for them.
            Found::More => self.drain(),
            Found::All | Found::Nothing => self.wait().await,
        }
        Ok(())
    }

    /// Opens what is missing: the publisher first, since shards are useless without it.
    async fn open(&mut self) -> Result<()> {
        if self.publisher.is_none() {
            self.publisher = Some(match &self.source {
                Source::Publisher(publisher) => Arc::clone(publisher),
                Source::Transport(transport) => transport.publisher().await?,
            });
        }
        if self.link.is_none() {
            self.link = Some(Link::open(&self.store, self.id).await?);
            self.asleep = None;
            (self.balance_at, self.failures) = (Instant::now(), 0);
        }
        Ok(())
    }

    fn link(&mut self) -> Result<&mut Link> {
        // `open` comes first in each turn.
        self.link.as_mut().ok_or_else(|| Error::new(ErrorKind::Closed, "use the relay's connection"))
    }

    /// Deletes records that the broker holds; always before the next fetch, which would return them again.
    async fn settle(&mut self) -> Result<()> {
        if self.held.is_empty() && self.refused.is_empty() {
            return Ok(());
        }
        let (held, refused) = (std::mem::take(&mut self.held), std::mem::take(&mut self.refused));
        let park = self.config.refused == Refused::Park;
        let settled = self.link()?.settle(&held, &refused, park).await;
        match settled {
            Ok(()) => {
                self.shared.board.write(|status| {
                    status.published += held.len() as u64;
                    status.refused += refused.len() as u64;
                });
                Ok(())
            }
            Err(error) => {
                (self.held, self.refused) = (held, refused);
                Err(error)
            }
        }
    }

    /// Does periodic work.
    async fn keep(&mut self) -> Result<()> {
        let now = Instant::now();
        if now >= self.balance_at {
            let busy: BTreeSet<i16> = self.busy.values().copied().collect();
            self.link()?.balance(&busy).await?;
            (self.balance_at, self.promote_at) = (now + BALANCE_INTERVAL, now); // the shards may be others
            // Otherwise lanes that other relays publish by now would stay forever.
            let old = self.config.retry_cap.saturating_mul(4);
            self.cooling.retain(|_, cooling| now < cooling.until + old);
        }
        if now >= self.lag_at {
            // Even after a failure: measuring the lag must not keep the relay from publishing.
            self.lag_at = now + self.config.lag_interval;
            let lag = self.link()?.lag().await?;
            let oldest = lag.oldest.unwrap_or_default().as_secs_f64();
            tracing::info!(
                target: "tidings::outbox",
                waiting = lag.waiting, delayed = lag.delayed, oldest_seconds = oldest, holding = lag.holding, parked = lag.parked,
                "outbox lag"
            );
            self.shared.board.write(|status| status.lag = Some(lag));
        }
        Ok(())
    }

    /// Moves delayed records that are due to the outbox, and sets the timer for the next.
    async fn promote(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_new = self.shared.delayed.swap(false, Ordering::AcqRel);
        if now < self.promote_at && !is_new {
            return Ok(());
        }
        // Set first: `wait` must not find a time that has passed.
        self.promote_at = now + self.config.poll_interval;
        if self.shared.is_stopping() || self.link()?.shard_count() == 0 {
            return Ok(());
        }
        let wait = match self.link()?.next_due().await? {
            None => self.config.poll_interval,
            Some(next) if !next.is_zero() => next.min(self.config.poll_interval),
            Some(_) if self.link()?.promote(PROMOTED_PER_SHARD).await? > 0 => Duration::ZERO,
            // Transactions hold their keys.
            Some(_) => LOOK_AGAIN,
        };
        self.promote_at = now + wait;
        Ok(())
    }

    /// Fetches as many records as there is room for, and publishes them.
    ///
    /// Lanes in flight or in backoff are left out, so that their order is kept.
    async fn fetch(&mut self) -> Result<Found> {
        let now = Instant::now();
        let waits = self.not_before.is_some_and(|at| now < at);
        let cold: Vec<i64> = self.cooling.iter().filter(|(_, c)| now < c.until).map(|(lane, _)| *lane).collect();
        let records = self.config.batch_records.saturating_sub(self.in_flight + cold.len());
        let bytes = self.config.batch_bytes.saturating_sub(self.bytes_in_flight);
        if waits || self.shared.is_stopping() || records == 0 || bytes == 0 || self.link()?.shard_count() == 0 {
            // The relay stays awake while records are in flight or in backoff.
            let quiet = self.link()?.shard_count() == 0 && self.busy.is_empty();
            return Ok(if quiet { Found::Nothing } else { Found::All });
        }
        let per_shard = records.div_ceil(self.active_shards).max(MIN_PER_SHARD);
        let excluded: Vec<i64> = self.busy.keys().copied().chain(cold).collect();
        let fetched = self.link()?.fetch(&excluded, Room { records, bytes, per_shard }).await?;
        if fetched.is_empty() {
            (self.idle_turns, self.busy_turns) = (self.idle_turns + 1, 0);
            return Ok(if self.cooling.is_empty() { Found::Nothing } else { Found::All });
        }
        (self.idle_turns, self.busy_turns) = (0, self.busy_turns + 1);
        if self.busy_turns >= BUSY_TURNS && self.asleep.take().is_some() {
            self.link()?.sleep(false).await?;
        }
        let mut of_shards: HashMap<i16, usize> = HashMap::new();
        let mut size = 0;
        for row in &fetched {
            *of_shards.entry(row.shard).or_default() += 1;
            size += row.record.size();
        }
        self.active_shards = of_shards.len();
        let cut = fetched.len() >= records || size >= bytes || of_shards.values().any(|count| *count >= per_shard);
        let room = fetched.len() < records && size < bytes;
        self.launch(fetched);
        Ok(if cut && room { Found::More } else { Found::All })
    }

    /// Publishes fetched records by lane, in the order in which the lanes were first seen.
    fn launch(&mut self, fetched: Vec<Fetched>) {
        let Some(publisher) = self.publisher.clone() else { return };
        let mut lanes: HashMap<i64, Vec<Fetched>> = HashMap::new();
        let mut order = Vec::new();
        for row in fetched {
            self.in_flight += 1;
            self.bytes_in_flight += row.record.size();
            let lane = lanes.entry(row.lane).or_default();
            if lane.is_empty() {
                order.push(row.lane);
            }
            lane.push(row);
        }
        for lane in order {
            let Some(records) = lanes.remove(&lane) else { continue };
            self.busy.insert(lane, records.first().map_or(0, |row| row.shard));
            let flight = fly(Arc::clone(&publisher), Arc::clone(&self.shared), records, self.config.records_per_key);
            self.flights.spawn(flight);
        }
    }

    /// Enables notifications when there is nothing to do.
    ///
    /// Writers notify only relays that have announced themselves, so the announcement comes before
    /// the last look at the table.
    async fn fall_asleep(&mut self) -> Result<()> {
        let now = Instant::now();
        let says_so = self.asleep.is_some_and(|since| now < since + SLEEPER_INTERVAL);
        if self.config.listen && !says_so && !self.shared.is_stopping() {
            self.link()?.sleep(true).await?;
            self.asleep = Some(now);
            // Notifications are enabled now, so the next fetch is the first that counts.
            self.idle_turns = 1;
        }
        Ok(())
    }

    /// Handles a failure of the database or of opening a publisher: the state of the session is unknown.
    ///
    /// Answers of the publisher are still processed during the backoff.
    async fn broke(&mut self, error: &Error) {
        self.link = None;
        self.failures = self.failures.saturating_add(1);
        let report = error.report();
        tracing::warn!(target: "tidings::outbox", error = %report, "the relay failed; it tries again");
        self.problem(Some(report));
        self.show();
        let again = Instant::now() + self.config.backoff(self.failures);
        while Instant::now() < again && !self.is_over() {
            tokio::select! {
                Some(landed) = self.flights.join_next() => self.landed(landed),
                () = sleep_until(again) => {}
            }
        }
    }

    /// Ends the session and closes a publisher of its own.
    async fn leave(mut self) {
        if let Some(mut link) = self.link.take() {
            if self.asleep.is_some() {
                let _others_bury_it = link.sleep(false).await;
            }
            link.close().await;
        }
        if let (Source::Transport(_), Some(publisher)) = (&self.source, &self.publisher) {
            let _nothing_is_under_way = publisher.close(CLOSE_LIMIT).await;
        }
        self.shared.board.stopped();
    }
}

/// Result of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No records, and none in flight that would trigger a new fetch.
    Nothing,
    /// All records, or as many as there was room for.
    All,
    /// A shard's limit was reached: there may be more records, and there is room.
    More,
}

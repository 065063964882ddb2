//! The fetchers: one or two per leading broker, so that an idle broker's long poll never delays a busy one (K1), and a
//! task that follows the leaders (K6).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_core::{Error, Result, SeekTo, TopicPartition};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::fetch_buffer::{FetchTarget, FetcherId, FetcherKind};
use super::fetcher_task::FetcherTask;
use super::replica::PreviousPosition;
use super::running::RunningReaders;
use super::state::State;
use super::{Shared, until};
use crate::client::admin::ClusterClient;
use crate::client::connection::{Connection, Role};
use crate::client::fetcher::{FetchError, FetchSizes, Fetcher};
use crate::config::KafkaConfig;

/// Interval between requests for the leaders.
const FOLLOW: Duration = Duration::from_millis(500);
/// Pause of an idle fetcher, unless it is woken.
const REST: Duration = Duration::from_millis(500);
/// Pause after a failed fetch.
pub(super) const AGAIN: Duration = Duration::from_millis(100);
/// Pause before the second connection is retried.
const SECOND_AGAIN: Duration = Duration::from_secs(5);

/// Opens fetchers, and finds the leaders that they read from.
#[derive(Debug, Clone)]
pub(super) struct Fetchers {
    connection: Connection,
    /// Connection of the second fetchers: a broker answers the requests of a connection one after the other. It learns
    /// of brokers and leaders separately, and only when it is asked.
    second: Arc<OnceCell<(Connection, Fetcher)>>,
    /// Connection of the fetchers that fetch batches one by one: the long polls of the others would delay them.
    single: Arc<OnceCell<(Connection, Fetcher)>>,
    config: Arc<KafkaConfig>,
    sizes: FetchSizes,
    follower: Arc<Fetcher>,
}

impl Fetchers {
    pub(super) async fn open(connection: Connection, config: &KafkaConfig, sizes: FetchSizes) -> Result<Self> {
        let follower = Arc::new(Fetcher::open(&connection, config, sizes).await?);
        Ok(Self {
            connection,
            second: Arc::default(),
            single: Arc::default(),
            config: Arc::new(config.clone()),
            sizes,
            follower,
        })
    }

    /// Asks for the leaders of a topic, over the first connection.
    pub(super) async fn leaders(&self, topic: &str) -> Result<HashMap<u32, Option<i32>>> {
        self.follower.leaders(topic).await
    }

    /// Follows the leaders, and runs a fetcher for each, until it is aborted.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        // Dropped together with this task, which aborts the fetchers.
        let mut running = RunningReaders::default();
        let mut following = self.follow(&shared).boxed();
        let mut opening = self.open_second(&shared).boxed();
        loop {
            let (plan, wanted) = {
                let state = shared.lock();
                (state.plan, state.fetchers())
            };
            running.start(wanted, |fetcher| self.clone().read(Arc::clone(&shared), fetcher));
            let changed = until(&shared.plans, || (shared.lock().plan != plan).then_some(()));
            // A fetcher with work starts at once, however long the brokers take to answer for other topics.
            tokio::select! {
                () = changed => {}
                () = running.ended() => {}
                () = &mut following => following = self.follow(&shared).boxed(),
                () = &mut opening, if !self.second.initialized() => {}
            }
        }
    }

    /// Opens another connection, with a fetcher that follows the leaders for it.
    async fn connect(&self) -> Result<(Connection, Fetcher)> {
        let connection = Connection::open(&self.config, Role::Reading).await?;
        let follower = Fetcher::open(&connection, &self.config, self.sizes).await?;
        Ok((connection, follower))
    }

    /// Opens the second connection, once a broker leads several partitions. Until then the first fetchers read all of
    /// them.
    async fn open_second(&self, shared: &Shared) {
        until(&shared.plans, || shared.lock().shares_a_broker().then_some(())).await;
        while let Err(error) = self.second.get_or_try_init(|| self.connect()).await {
            warn!(
                error = Error::report(&error),
                "cannot open a second connection for fetching; the first one fetches all partitions meanwhile"
            );
            sleep(SECOND_AGAIN).await;
        }
        debug!("opened a second connection for fetching");
        shared.change(State::enable_second);
    }

    /// Asks for the leaders, after a pause.
    async fn follow(&self, shared: &Shared) {
        sleep(FOLLOW).await;
        let topics: HashSet<_> = shared.lock().owned().into_iter().map(|p| p.topic).collect();
        for topic in topics {
            let first = async {
                match self.follower.leaders(&topic).await {
                    Ok(leaders) => shared.change(|state| state.update_leaders(&topic, &leaders)),
                    Err(error) => debug!(
                        error = error.report(),
                        "cannot refresh the leaders of a topic; the last known ones are kept"
                    ),
                }
            };
            // The other connections have to know the leaders, too, but their answers are awaited only briefly.
            let other = async |cell: &OnceCell<(Connection, Fetcher)>| {
                if let Some((_, follower)) = cell.get() {
                    let _known = timeout(FOLLOW, follower.leaders(&topic)).await;
                }
            };
            tokio::join!(first, other(&self.second), other(&self.single));
        }
    }

    /// Opens the client of a fetcher, and retries until it is open.
    async fn open_at_last(&self, shared: &Shared, fetcher: FetcherId) -> Fetcher {
        loop {
            match self.open_fetcher(fetcher).await {
                Ok(client) => return client,
                Err(error) => {
                    warn!(
                        error = error.report(),
                        "cannot open a fetcher; its partitions are not read until it is open"
                    );
                    report(shared, error);
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Opens the client of a fetcher.
    async fn open_fetcher(&self, fetcher: FetcherId) -> Result<Fetcher> {
        let (other, sizes) = match fetcher.kind {
            FetcherKind::First => (None, self.sizes),
            FetcherKind::Second => (self.second.get(), self.sizes),
            FetcherKind::Single => {
                let opened = self.single.get_or_try_init(|| self.connect()).await;
                let opened = opened.inspect_err(|error| {
                    warn!(
                        error = Error::report(error),
                        "cannot open a connection for large batches; they are read slowly, over another one"
                    );
                });
                (opened.ok(), self.sizes.single())
            }
        };
        Fetcher::open(other.map_or(&self.connection, |(connection, _)| connection), &self.config, sizes).await
    }

    /// Reads the partitions of this fetcher until it is aborted.
    async fn read(self, shared: Arc<Shared>, fetcher: FetcherId) {
        let cluster = ClusterClient::new(&self.connection, &self.config);
        let client = self.open_at_last(&shared, fetcher).await;
        let mut task =
            FetcherTask { client, targets: BTreeMap::new(), unsure: false, with_gaps: HashSet::new(), seen: 0 };
        loop {
            let (plan, room) = {
                let state = shared.lock();
                (state.plan, state.has_room())
            };
            if plan != task.seen {
                let targets = shared.lock().targets(fetcher);
                match task.take(targets).await {
                    Ok(()) => task.seen = plan,
                    Err(error) => {
                        debug!(
                            error = error.report(),
                            ?fetcher,
                            "cannot assign partitions to a fetcher; the attempt is repeated"
                        );
                        sleep(AGAIN).await;
                        continue;
                    }
                }
            }
            if !room || task.targets.values().all(|target| target.held) {
                let held = task.targets.values().all(|target| target.held);
                let work = until(&shared.plans, || {
                    let state = shared.lock();
                    (state.plan != task.seen || (!held && state.has_room())).then_some(())
                });
                let _told = timeout(REST, work).await;
                continue;
            }
            let polled = task.client.poll(self.config.fetch_max_wait).await;
            shared.lock().polled(fetcher);
            match polled {
                Ok(reads) => {
                    let cut_off = task.accept(&shared, &cluster, fetcher, reads).await;
                    if !cut_off.is_empty() {
                        restart(&shared, &cluster, &task.of(cut_off), false).await;
                    }
                }
                Err(FetchError::OutOfRange(partitions)) => {
                    // With a rack, the answer may come from a follower that is behind its leader or ahead of it.
                    let doubted = self.config.rack.is_some();
                    restart(&shared, &cluster, &task.of(partitions), doubted).await;
                }
                Err(FetchError::Unreadable(bad)) => task.hold(&shared, &cluster, fetcher, bad).await,
                Err(FetchError::Other(error)) => {
                    debug!(error = error.report(), ?fetcher, "a fetch failed; it is retried");
                    report(&shared, error);
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Reports an error that is not transient through `next`.
fn report(shared: &Shared, error: Error) {
    if !error.is_retryable() {
        shared.change(|state| state.trouble = Some(error));
    }
}

/// Continues at the oldest record where the next offset is no longer in the log. If that is doubted, the leader is
/// asked, and an offset that is within its log is kept.
pub(super) async fn restart(shared: &Shared, cluster: &ClusterClient, readings: &[FetchTarget], doubted: bool) {
    let at = |to: SeekTo| readings.iter().map(move |target| (target.partition.clone(), to));
    let all = cluster.of_all();
    let asked = tokio::try_join!(cluster.offsets_each(at(SeekTo::Earliest)), all.offsets_each(at(SeekTo::Latest)));
    let (mut oldest, mut ends) = asked.unwrap_or_else(|error| {
        debug!(error = error.report(), "cannot ask for the bounds of logs; the attempt is repeated");
        (HashMap::new(), HashMap::new())
    });
    let mut waits = false;
    for FetchTarget { partition, ticket, .. } in readings {
        let known = |bounds: &mut HashMap<TopicPartition, Result<Option<u64>>>| bounds.remove(partition)?.ok()?;
        let moved = known(&mut oldest).zip(known(&mut ends)).and_then(|(oldest, end)| {
            let left = shared.change(|state| state.restart(partition, *ticket, oldest..=end, doubted))?;
            let PreviousPosition { next, committed } = left;
            warn!(%partition, next, committed, oldest, end, "the next offset is not in the log; reading continues at the oldest record");
            Some(left)
        });
        waits |= moved.is_none();
    }
    if waits {
        sleep(AGAIN).await;
    }
}

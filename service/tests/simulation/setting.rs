//! The settings of a run's services, drawn from its seed.

use std::time::Duration;

use fastrand::Rng;

use super::history::Order;
use super::jobs::Telling;

/// The delays of retry topics, as their names and in milliseconds.
pub(crate) const TIERS: [(&str, u64); 2] = [("700ms", 700), ("20s", 20_000)];

/// The settings of a run's services.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) order: Order,
    pub(crate) store: bool,
    pub(crate) partitions: u32,
    pub(crate) workers: usize,
    pub(crate) concurrency: usize,
    pub(crate) max_span: u64,
    pub(crate) max_bytes: usize,
    pub(crate) commit_interval: Duration,
    pub(crate) handler_timeout: Duration,
    pub(crate) revocation: Duration,
    pub(crate) ttl: Duration,
    pub(crate) breaker: bool,
    pub(crate) batch: (usize, u64),
    pub(crate) keys: u64,
    pub(crate) processes: usize,
    pub(crate) telling: Telling,
    /// The probability that an event fails, in percent.
    pub(crate) trouble: u64,
    pub(crate) faults: bool,
    pub(crate) crashes: bool,
    pub(crate) seed: u64,
    /// The limits of each handler: its concurrency, and its deliveries in a period of milliseconds.
    pub(crate) limits: Option<(usize, usize, u64)>,
    /// The concurrency that a layer allows, over all processes.
    pub(crate) layer: Option<usize>,
    /// The delays of the retry topics.
    pub(crate) tiers: Vec<Duration>,
}

impl Setting {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
            of[rng.usize(..of.len())]
        }
        Self {
            order: pick(rng, &[Order::Key, Order::Key, Order::Key, Order::Partition, Order::None]),
            store: rng.u8(..10) < 6,
            partitions: rng.u32(1..=4),
            workers: rng.usize(1..=3),
            concurrency: pick(rng, &[1, 2, 4, 1_024]),
            max_span: pick(rng, &[1, 5, 50, 100_000]),
            max_bytes: pick(rng, &[1, 2_000, 64 << 20]),
            commit_interval: Duration::from_millis(pick(rng, &[200, 1_000, 5_000])),
            handler_timeout: Duration::from_millis(pick(rng, &[5_000, 60_000])),
            revocation: Duration::from_millis(pick(rng, &[500, 2_000, 20_000])),
            ttl: Duration::from_secs(pick(rng, &[3, 15])),
            breaker: rng.bool(),
            batch: (pick(rng, &[1, 3, 128]), pick(rng, &[0, 20, 500])),
            keys: pick(rng, &[1, 3, 20]),
            processes: rng.usize(1..=3),
            telling: pick(rng, &[Telling::Nothing, Telling::Failed, Telling::StoppedAt]),
            trouble: pick(rng, &[0, 10, 30, 90]),
            faults: rng.bool(),
            crashes: rng.bool(),
            seed: rng.u64(..),
            limits: (rng.u8(..3) == 0)
                .then(|| (pick(rng, &[1, 2, 50]), pick(rng, &[1, 5, 100]), pick(rng, &[10, 1_000]))),
            layer: pick(rng, &[None, None, Some(1), Some(2)]),
            tiers: Vec::new(),
        }
        .with_tiers()
    }

    /// Draws the retry topics from the seed of the services, so that the rest of a run does not depend on them.
    fn with_tiers(mut self) -> Self {
        if self.seed.is_multiple_of(3) {
            self.tiers = TIERS.map(|(_, millis)| Duration::from_millis(millis)).to_vec();
        }
        self
    }
}

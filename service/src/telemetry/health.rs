//! Health of a service, as a function of its snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use super::health_reason::{HealthReason, Severity};
use super::partition::{PartitionSnapshot, PartitionState};
use super::snapshot::Snapshot;
use crate::status::{PauseReason, State};

/// A worker that has not yielded its thread for this long counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// The thresholds of [`Health`].
///
/// ```
/// use std::time::Duration;
/// use tidings_service::telemetry::{HealthOptions, HealthReason};
///
/// let options = HealthOptions::default()
///     .with_max_time_lag(Duration::from_secs(300))
///     .with_fail_ready_on([HealthReason::PartitionStalled]);
/// assert_eq!(options.unready_after, HealthOptions::DEFAULT_UNREADY_AFTER);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthOptions {
    /// The service is not live if its coordinator has not run for this long, although it could.
    pub live_after: Duration,
    /// The service is not ready if the broker, or the store that it needs, has not answered for this long.
    pub unready_after: Duration,
    /// The service is degraded above this lag, in offsets over all partitions. Default: `None`, no limit.
    pub max_lag: Option<u64>,
    /// The service is degraded above this time lag of a partition. Default: `None`, no limit.
    pub max_time_lag: Option<Duration>,
    /// The reasons for which a service that is only degraded is not ready either.
    pub fail_ready_on: Vec<HealthReason>,
}

impl HealthOptions {
    /// The default of [`live_after`](Self::live_after).
    pub const DEFAULT_LIVE_AFTER: Duration = Duration::from_secs(30);
    /// The default of [`unready_after`](Self::unready_after).
    pub const DEFAULT_UNREADY_AFTER: Duration = Duration::from_secs(30);

    /// Sets [`live_after`](Self::live_after).
    #[must_use]
    pub fn with_live_after(mut self, time: Duration) -> Self {
        self.live_after = time;
        self
    }

    /// Sets [`unready_after`](Self::unready_after).
    #[must_use]
    pub fn with_unready_after(mut self, time: Duration) -> Self {
        self.unready_after = time;
        self
    }

    /// Sets [`max_lag`](Self::max_lag).
    #[must_use]
    pub fn with_max_lag(mut self, offsets: u64) -> Self {
        self.max_lag = Some(offsets);
        self
    }

    /// Sets [`max_time_lag`](Self::max_time_lag).
    #[must_use]
    pub fn with_max_time_lag(mut self, time: Duration) -> Self {
        self.max_time_lag = Some(time);
        self
    }

    /// Sets [`fail_ready_on`](Self::fail_ready_on).
    #[must_use]
    pub fn with_fail_ready_on(mut self, reasons: impl IntoIterator<Item = HealthReason>) -> Self {
        self.fail_ready_on = reasons.into_iter().collect();
        self
    }
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self {
            live_after: Self::DEFAULT_LIVE_AFTER,
            unready_after: Self::DEFAULT_UNREADY_AFTER,
            max_lag: None,
            max_time_lag: None,
            fail_ready_on: Vec::new(),
        }
    }
}

/// A reason that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The reason.
    pub reason: HealthReason,
    /// Its severity: that of the reason, or [`NotReady`](Severity::NotReady) by
    /// [`with_fail_ready_on`](HealthOptions::with_fail_ready_on).
    pub severity: Severity,
    /// How long it has applied, as far as it is known.
    pub lasted: Duration,
}

/// The health of a service.
///
/// ```
/// use tidings_core::Delivery;
/// use tidings_memory::MemoryTransport;
/// use tidings_service::telemetry::{Health, HealthOptions, HealthReason};
/// use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&MemoryTransport::new()).await?;
/// service.caught_up().await?;
/// let health = Health::of(&service.snapshot(), &HealthOptions::default());
/// assert!(health.live && health.ready && health.findings.is_empty());
///
/// service.pause()?;
/// service.status().await; // the command was carried out
/// let health = Health::of(&service.snapshot(), &HealthOptions::default());
/// assert!(health.ready && health.is_degraded());
/// assert_eq!(health.findings[0].reason, HealthReason::Paused);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether the engine works: if not, only a restart helps. No failure outside the process makes it false.
    pub live: bool,
    /// Whether the service takes its share of the work.
    pub ready: bool,
    /// Whether the service has joined its group, and has no partition: it is ready, and waits for a share.
    pub standby: bool,
    /// The reasons that apply, the most severe first.
    pub findings: Vec<Finding>,
}

impl Health {
    /// Returns the health as of a snapshot. A pure function: an endpoint uses a [`HealthMonitor`], whose answers do not
    /// flap.
    pub fn of(snapshot: &Snapshot, options: &HealthOptions) -> Self {
        let found = HealthReason::ALL.into_iter().filter_map(|reason| {
            let lasted = applies(reason, snapshot, options)?;
            Some(Finding { reason, severity: reason.severity(), lasted })
        });
        Self::new(found.collect(), snapshot, options)
    }

    fn new(mut findings: Vec<Finding>, snapshot: &Snapshot, options: &HealthOptions) -> Self {
        for finding in &mut findings {
            if options.fail_ready_on.contains(&finding.reason) {
                finding.severity = finding.severity.max(Severity::NotReady);
            }
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let severest = findings.first().map(|finding| finding.severity);
        Self {
            live: severest < Some(Severity::NotLive),
            ready: severest < Some(Severity::NotReady),
            standby: snapshot.joined && snapshot.partitions.is_empty() && severest < Some(Severity::NotReady),
            findings,
        }
    }

    /// Returns whether any reason applies.
    pub fn is_degraded(&self) -> bool {
        !self.findings.is_empty()
    }
}

/// Returns how long the reason has applied, if it does.
fn applies(reason: HealthReason, snapshot: &Snapshot, options: &HealthOptions) -> Option<Duration> {
    let at_least = |limit: Duration| move |lasted: &Duration| *lasted >= limit;
    let state = |state: State| (snapshot.state == state).then_some(Duration::ZERO);
    let has_ended = matches!(snapshot.state, State::Failed | State::Stopped);
    match reason {
        HealthReason::EngineFailed => state(State::Failed),
        HealthReason::EngineBlocked => Some(snapshot.tasks.coordinator).filter(at_least(options.live_after)),
        HealthReason::Stopped => state(State::Stopped),
        _ if has_ended => None,
        HealthReason::Starting => (!snapshot.joined).then_some(snapshot.uptime),
        HealthReason::Draining => snapshot.draining,
        HealthReason::BrokerUnreachable => snapshot.reading_failed.filter(at_least(options.unready_after)),
        HealthReason::StoreUnavailable => paused(snapshot, PauseReason::Store).filter(at_least(options.unready_after)),
        HealthReason::PartitionStalled => longest(snapshot, |p| p.state == PartitionState::Stalled, |p| p.unmoved),
        HealthReason::PartitionSlow => longest(snapshot, |p| p.state == PartitionState::Slow, |_| Duration::ZERO),
        HealthReason::PartitionUnreadable => {
            longest(snapshot, |p| matches!(p.state, PartitionState::Unreadable(_)), |_| Duration::ZERO)
        }
        HealthReason::CircuitOpen => snapshot.circuit.open,
        HealthReason::DeadLettersUnwritable => paused(snapshot, PauseReason::DeadLetters),
        HealthReason::PublisherUnavailable => paused(snapshot, PauseReason::Publisher),
        HealthReason::DependencyUnavailable => paused(snapshot, PauseReason::Handler),
        HealthReason::HandlerBlocked => {
            let busy = snapshot.tasks.workers.iter().map(|worker| worker.busy);
            busy.chain([snapshot.tasks.starved]).max().filter(at_least(BLOCKED_AFTER))
        }
        HealthReason::LagHigh => {
            let offsets = options.max_lag.is_some_and(|limit| snapshot.lag() > limit);
            let time = options.max_time_lag.is_some_and(|limit| snapshot.time_lag() > limit);
            (offsets || time).then_some(Duration::ZERO)
        }
        HealthReason::Paused => paused(snapshot, PauseReason::Operator).or_else(|| state(State::Paused)),
    }
}

fn longest(
    snapshot: &Snapshot,
    applies: impl Fn(&PartitionSnapshot) -> bool,
    lasted: impl Fn(&PartitionSnapshot) -> Duration,
) -> Option<Duration> {
    snapshot.partitions.iter().filter(|partition| applies(partition)).map(lasted).max()
}

fn paused(snapshot: &Snapshot, reason: PauseReason) -> Option<Duration> {
    let pauses = snapshot.partitions.iter().flat_map(|partition| &partition.pauses);
    pauses.filter(|pause| pause.reason == reason).map(|pause| pause.lasted).max()
}

/// The health of a service over time. Each reason appears or disappears at most once in [`HealthMonitor::HOLD`].
///
/// Keep one for each service, and call [`update`](Self::update) for each answer.
///
/// ```
/// # use tidings_core::Delivery;
/// # use tidings_memory::MemoryTransport;
/// use tidings_service::telemetry::{HealthMonitor, HealthOptions};
/// # use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// # let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&MemoryTransport::new()).await?;
/// let mut monitor = HealthMonitor::new(HealthOptions::default());
/// assert!(!monitor.update(&service.snapshot()).ready, "it has not joined its group yet");
/// service.caught_up().await?;
/// assert!(monitor.update(&service.snapshot()).ready);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HealthMonitor {
    options: HealthOptions,
    reasons: BTreeMap<HealthReason, Shown>,
}

/// A reason that is or was shown.
#[derive(Debug, Clone, Copy)]
struct Shown {
    is_shown: bool,
    /// The uptime at which that changed.
    changed: Duration,
}

impl HealthMonitor {
    /// The time for which a reason stays as it is, after it has appeared or disappeared. The phases of a service's
    /// life (starting, draining, stopped) are shown at once.
    pub const HOLD: Duration = Duration::from_secs(10);

    /// Creates a monitor of one service.
    pub fn new(options: HealthOptions) -> Self {
        Self { options, reasons: BTreeMap::new() }
    }

    /// Returns the options.
    pub fn options(&self) -> &HealthOptions {
        &self.options
    }

    /// Returns the health as of a snapshot, which must be later than the one before.
    pub fn update(&mut self, snapshot: &Snapshot) -> Health {
        let now = snapshot.uptime;
        let found = Health::of(snapshot, &self.options).findings;
        for reason in HealthReason::ALL {
            let finding = found.iter().find(|finding| finding.reason == reason);
            self.show(reason, finding.map(|finding| finding.lasted), now);
        }
        let shown = self.reasons.iter().filter(|(_, shown)| shown.is_shown);
        let findings = shown.map(|(reason, shown)| {
            let lasted = found.iter().find(|finding| finding.reason == *reason).map(|finding| finding.lasted);
            let lasted = lasted.unwrap_or_default().max(now.saturating_sub(shown.changed));
            Finding { reason: *reason, severity: reason.severity(), lasted }
        });
        Health::new(findings.collect(), snapshot, &self.options)
    }

    fn show(&mut self, reason: HealthReason, lasted: Option<Duration>, now: Duration) {
        let is_phase = matches!(reason, HealthReason::Starting | HealthReason::Draining | HealthReason::Stopped);
        let hold = if is_phase { Duration::ZERO } else { Self::HOLD };
        match self.reasons.get_mut(&reason) {
            Some(shown) if shown.is_shown != lasted.is_some() && now.saturating_sub(shown.changed) >= hold => {
                *shown = Shown { is_shown: lasted.is_some(), changed: now };
            }
            None if lasted.is_some() => {
                self.reasons.insert(reason, Shown { is_shown: true, changed: now });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::TopicPartition;

    use super::*;
    use crate::telemetry::publishing::PublisherStats;
    use crate::telemetry::snapshot::{BusyWorker, CircuitSnapshot, ServiceCounters, TaskSnapshot};
    use crate::telemetry::{Pause, PublisherSnapshot};

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: Duration = Duration::ZERO;

    fn published() -> PublisherSnapshot {
        PublisherStats::new("s".into()).snapshot()
    }

    fn healthy() -> Snapshot {
        Snapshot {
            service: "s".into(),
            group: "g".into(),
            system: "memory",
            state: State::Running,
            uptime: 100 * SECOND,
            joined: true,
            members: None,
            draining: None,
            reading_failed: None,
            partitions: vec![partition(PartitionState::Ok)],
            handlers: Vec::new(),
            unrouted: Default::default(),
            counters: ServiceCounters::default(),
            claims: None,
            published: published(),
            circuit: CircuitSnapshot::default(),
            tasks: TaskSnapshot::default(),
            bytes_in_flight: 0,
        }
    }

    fn partition(state: PartitionState) -> PartitionSnapshot {
        PartitionSnapshot {
            partition: TopicPartition::new("t", 0),
            state,
            epoch: 1,
            position: 10,
            settled: 0,
            committed: None,
            end: 10,
            in_flight: 10,
            waiting: 0,
            is_retry: false,
            bytes_in_flight: 1,
            time_lag: 40 * SECOND,
            unmoved: 70 * SECOND,
            clock_gap: None,
            pauses: Vec::new(),
            holding: None,
            leaving: false,
        }
    }

    fn paused(reason: PauseReason, lasted: Duration) -> Vec<PartitionSnapshot> {
        let pauses = vec![Pause::new(reason, lasted)];
        vec![PartitionSnapshot { pauses, ..partition(PartitionState::Paused(reason)) }]
    }

    /// Returns whether it is live and ready, and the codes of the reasons.
    fn health(snapshot: &Snapshot, options: &HealthOptions) -> (bool, bool, Vec<&'static str>) {
        let health = Health::of(snapshot, options);
        (health.live, health.ready, health.findings.iter().map(|finding| finding.reason.as_str()).collect())
    }

    fn busy(busy: Duration) -> Vec<BusyWorker> {
        vec![BusyWorker::new(None, busy)]
    }

    /// A change of a healthy snapshot; whether it is live and ready then, and the codes of the reasons.
    type Case = (fn(&mut Snapshot), bool, bool, &'static [&'static str]);

    fn tasks(coordinator: Duration, starved: Duration, workers: Vec<BusyWorker>) -> TaskSnapshot {
        TaskSnapshot { coordinator, starved, workers }
    }

    #[test]
    fn a_reason_that_fails_ready_by_the_options_has_that_severity_and_comes_first() {
        let mut snapshot = healthy();
        snapshot.partitions[0].state = PartitionState::Stalled;
        let options = HealthOptions::default().with_max_lag(9).with_fail_ready_on([HealthReason::LagHigh]);
        let severities = |health: Health| -> Vec<_> {
            health.findings.iter().map(|finding| (finding.reason.as_str(), finding.severity)).collect()
        };
        let wanted = vec![("lag_high", Severity::NotReady), ("partition_stalled", Severity::Degraded)];
        assert_eq!(severities(Health::of(&snapshot, &options)), wanted);
        assert_eq!(severities(HealthMonitor::new(options).update(&snapshot)), wanted);
    }

    #[test]
    fn each_trouble_has_its_effect_and_its_code() {
        let options = HealthOptions::default().with_max_lag(9);
        let of = |change: fn(&mut Snapshot)| {
            let mut snapshot = healthy();
            snapshot.partitions[0].settled = 5;
            change(&mut snapshot);
            health(&snapshot, &options)
        };
        let cases: Vec<Case> = vec![
            (|_| {}, true, true, &[]),
            (|s| s.state = State::Failed, false, false, &["engine_failed"]),
            (|s| s.state = State::Stopped, true, false, &["stopped"]),
            (|s| s.tasks = tasks(30 * SECOND, NONE, Vec::new()), false, false, &["engine_blocked"]),
            (|s| s.tasks = tasks(29 * SECOND, NONE, Vec::new()), true, true, &[]),
            // Others have the threads: the engine is not dead, and a restart would change nothing.
            (|s| s.tasks = tasks(NONE, 900 * SECOND, busy(900 * SECOND)), true, true, &["handler_blocked"]),
            (|s| s.tasks = tasks(NONE, 900 * SECOND, Vec::new()), true, true, &["handler_blocked"]),
            (|s| s.tasks = tasks(NONE, 4 * SECOND, busy(4 * SECOND)), true, true, &[]),
            // A handler that blocks a thread is no excuse for an engine that is dead.
            (
                |s| s.tasks = tasks(900 * SECOND, NONE, busy(900 * SECOND)),
                false,
                false,
                &["engine_blocked", "handler_blocked"],
            ),
            (|s| s.joined = false, true, false, &["starting"]),
            (|s| s.draining = Some(SECOND), true, false, &["draining"]),
            (|s| s.partitions.clear(), true, true, &[]),
            (|s| s.reading_failed = Some(29 * SECOND), true, true, &[]),
            (|s| s.reading_failed = Some(30 * SECOND), true, false, &["broker_unreachable"]),
            (|s| s.partitions = paused(PauseReason::Store, 29 * SECOND), true, true, &["lag_high"]),
            (
                |s| s.partitions = paused(PauseReason::Store, 30 * SECOND),
                true,
                false,
                &["store_unavailable", "lag_high"],
            ),
            (|s| s.partitions[0].state = PartitionState::Stalled, true, true, &["partition_stalled"]),
            (|s| s.partitions[0].state = PartitionState::Slow, true, true, &["partition_slow"]),
            (|s| s.partitions[0].state = PartitionState::Unreadable(3), true, true, &["partition_unreadable"]),
            (|s| s.circuit.open = Some(SECOND), true, true, &["circuit_open"]),
            (|s| s.partitions[0].settled = 0, true, true, &["lag_high"]),
            (|s| s.state = State::Paused, true, true, &["paused"]),
        ];
        for (at, (change, live, ready, reasons)) in cases.into_iter().enumerate() {
            assert_eq!(of(change), (live, ready, reasons.to_vec()), "case {at}");
        }
    }

    #[test]
    fn each_dependency_that_is_down_is_told_apart() {
        for (reason, code) in [
            (PauseReason::DeadLetters, "dead_letters_unwritable"),
            (PauseReason::Publisher, "publisher_unavailable"),
            (PauseReason::Handler, "dependency_unavailable"),
            (PauseReason::Operator, "paused"),
        ] {
            let snapshot = Snapshot { partitions: paused(reason, SECOND), ..healthy() };
            assert_eq!(health(&snapshot, &HealthOptions::default()), (true, true, vec![code]));
        }
        let flow = Snapshot { partitions: paused(PauseReason::Bytes, 900 * SECOND), ..healthy() };
        assert_eq!(health(&flow, &HealthOptions::default()), (true, true, vec![]), "a bound is no trouble");
    }

    #[test]
    fn a_reason_can_be_turned_into_not_ready_and_a_member_without_partitions_is_ready() {
        let stalled = Snapshot { partitions: vec![partition(PartitionState::Stalled)], ..healthy() };
        let options = HealthOptions::default().with_fail_ready_on([HealthReason::PartitionStalled]);
        assert!(!Health::of(&stalled, &options).ready);
        assert_eq!(Health::of(&stalled, &options).findings[0].lasted, 70 * SECOND);
        let standby = Snapshot { partitions: Vec::new(), ..healthy() };
        let standby = Health::of(&standby, &options);
        assert!(standby.standby && standby.ready);
    }

    #[test]
    fn a_reason_changes_at_most_once_in_ten_seconds_and_clears_by_itself() {
        let mut monitor = HealthMonitor::new(HealthOptions::default());
        let mut changes = Vec::new();
        let mut before = false;
        for second in 0..60 {
            // It comes and goes each second for half a minute.
            let is_open = second < 30 && second % 2 == 0;
            let circuit = CircuitSnapshot { open: is_open.then_some(SECOND) };
            let health = monitor.update(&Snapshot { circuit, uptime: second * SECOND, ..healthy() });
            if health.is_degraded() != before {
                before = health.is_degraded();
                changes.push(second);
            }
        }
        assert!(!before, "it has cleared");
        assert!(changes.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{changes:?}");
        assert_eq!(changes.len() % 2, 0);
    }

    #[test]
    fn a_phase_is_shown_at_once_and_a_finding_says_how_long_it_lasts() {
        let mut monitor = HealthMonitor::new(HealthOptions::default());
        assert!(!monitor.update(&Snapshot { joined: false, uptime: SECOND, ..healthy() }).ready);
        assert!(monitor.update(&Snapshot { uptime: 2 * SECOND, ..healthy() }).ready);
        let draining = Snapshot { draining: Some(Duration::ZERO), uptime: 3 * SECOND, ..healthy() };
        assert!(!monitor.update(&draining).ready, "at once");
        let slow = |uptime| Snapshot { partitions: vec![partition(PartitionState::Slow)], uptime, ..healthy() };
        monitor.update(&slow(10 * SECOND));
        let health = monitor.update(&slow(25 * SECOND));
        let slow = health.findings.iter().find(|finding| finding.reason == HealthReason::PartitionSlow);
        assert_eq!(slow.map(|finding| finding.lasted), Some(15 * SECOND));
    }

    #[test]
    fn codes_are_unique_and_read_back() {
        for reason in HealthReason::ALL {
            assert_eq!(HealthReason::from_code(reason.as_str()), Some(reason));
        }
    }
}

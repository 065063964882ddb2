//! The checker: searches a history for anomalies, knowing the promises and nothing of the engine.
//!
//! Modelled on Jepsen's workload for Kafka: compares the order of events with the broker's final contents.

mod closing;
mod steps;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tidings_core::{Name, TopicPartition};
use tidings_service::RecordOutcome;
use uuid::Uuid;

use self::waits::is_retry;
use super::history::{Happened, Held, History, How, Kind, Order, Place, Process};

/// The part of a revocation's time reserved for stopping and for the last commit.
const COMMIT_TIME: Duration = Duration::from_secs(1);

/// A broken promise: its name and details.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Anomaly {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// One assignment of a partition to a process, while it lasts.
#[derive(Debug, Default)]
struct Assigned {
    start: u64,
    epoch: u64,
    settled: BTreeSet<u64>,
    /// The offsets of these that were settled after the deadline.
    late: BTreeSet<u64>,
    given: BTreeSet<u64>,
    /// The offsets whose handler completed.
    done: BTreeSet<u64>,
    revoking: bool,
    /// The deadline of in-flight work.
    over_at: Option<Duration>,
    /// Another process has it since: the deadline passed before it was released.
    taken: bool,
    /// A commit of it was refused or is unanswered; `cut`: some of its work was cancelled.
    commit_failed: bool,
    cut: bool,
    committed: Option<u64>,
}

/// A handler run in progress.
#[derive(Debug)]
struct Run {
    process: Process,
    origin: TopicPartition,
    epoch: u64,
    offsets: Vec<u64>,
    /// The assigned partition: of a retry topic, or the origin of the records.
    from: TopicPartition,
}

struct Checker<'a> {
    history: &'a History,
    anomalies: BTreeSet<Anomaly>,
    assigned: BTreeMap<(Process, TopicPartition), Assigned>,
    runs: HashMap<u64, Run>,
    /// How often each record was settled, by any process.
    settled: BTreeMap<Place, usize>,
    /// Successful handler runs, by record.
    ran: BTreeMap<Place, usize>,
    completed: HashSet<Uuid>,
    buried: BTreeSet<Place>,
    /// Records that were forwarded, which settles their offsets.
    forwarded: BTreeSet<Place>,
    /// When a record is due in a retry topic, at the earliest.
    due: BTreeMap<(Name, Place), Duration>,
    published: HashMap<Uuid, BTreeSet<Uuid>>,
    /// Nothing has happened that excuses a second handling.
    calm: bool,
    /// No attempt failed except as its event requested.
    patient: bool,
    crashed: BTreeSet<Process>,
    now: Duration,
    /// The shutdown deadlines of stopped processes.
    stops: BTreeMap<Process, Duration>,
}

/// Returns all anomalies of `history`, sorted.
pub(crate) fn check(history: &History) -> Vec<Anomaly> {
    let mut checker = Checker {
        history,
        anomalies: BTreeSet::new(),
        assigned: BTreeMap::new(),
        runs: HashMap::new(),
        settled: BTreeMap::new(),
        ran: BTreeMap::new(),
        completed: HashSet::new(),
        buried: BTreeSet::new(),
        forwarded: BTreeSet::new(),
        due: BTreeMap::new(),
        published: HashMap::new(),
        calm: true,
        patient: true,
        crashed: BTreeSet::new(),
        now: Duration::ZERO,
        stops: BTreeMap::new(),
    };
    for entry in &history.entries {
        checker.now = entry.at;
        checker.step(&entry.what);
    }
    checker.end();
    checker.anomalies.into_iter().collect()
}

impl Checker<'_> {
    fn found(&mut self, name: &'static str, text: impl Into<String>) {
        self.anomalies.insert(Anomaly { name, text: text.into() });
    }

    fn step(&mut self, what: &Happened) {
        match what {
            Happened::Crashed { process } => {
                self.calm = false;
                self.patient = false;
                self.crashed.insert(*process);
                self.assigned.retain(|(p, _), _| p != process);
            }
            Happened::Stopping { process, within } => drop(self.stops.insert(*process, self.now + *within)),
            Happened::Assigned { process, origin, epoch, start } => self.assign(*process, origin, *epoch, *start),
            Happened::Given { process, origin, epoch, offsets } => self.given(*process, origin, *epoch, offsets),
            Happened::Revoking { process, origin } => {
                if let Some(assigned) = self.assigned.get_mut(&(*process, origin.clone())) {
                    assigned.revoking = true;
                    assigned.over_at = Some(self.now + self.history.revocation.saturating_sub(COMMIT_TIME));
                }
            }
            Happened::Lost { process, origin } => {
                self.calm = false;
                self.assigned.remove(&(*process, origin.clone()));
            }
            Happened::Released { process, origin } => self.released(*process, origin),
            Happened::Closed { process } => {
                let theirs: Vec<_> = self.assigned.keys().filter(|(p, _)| p == process).cloned().collect();
                theirs.iter().for_each(|(_, origin)| self.released(*process, origin));
            }
            Happened::Seeking { process, origin } => self.seeking(*process, origin),
            Happened::Sought { process, origin, start } => self.sought(*process, origin, *start),
            Happened::Committing { process, origin, epoch, next } => self.committing(*process, origin, *epoch, *next),
            Happened::Committed { process, origin, next, ok } => self.committed(*process, origin, *next, *ok),
            Happened::Began { process, run, origin, epoch, offsets } => {
                self.began(*process, *run, origin, *epoch, offsets);
            }
            Happened::Ended { run, how, .. } => self.ended(*run, how),
            Happened::Published { cause, id, .. } => drop(self.published.entry(*cause).or_default().insert(*id)),
            Happened::Buried { place, ok: true, .. } => drop(self.buried.insert(place.clone())),
            Happened::Forwarding { topic, place, due } => {
                let known = self.due.entry((topic.clone(), place.clone())).or_insert(*due);
                *known = (*known).min(*due);
            }
            Happened::Completed { process, id } => self.completed(*process, *id),
            Happened::Observed { process, what, place, epoch } => self.observed(*process, *what, place, *epoch),
            Happened::Stopped { process, ok: false } => self.found("failed", format!("process {process} failed")),
            Happened::Fault { what, excuses } => {
                self.calm &= !excuses;
                self.patient &= !what.contains("clock jumps");
            }
            _ => {}
        }
    }

    fn committing(&mut self, process: Process, origin: &TopicPartition, epoch: u64, next: u64) {
        let upto = |offset| Place { origin: origin.clone(), offset };
        let open: Vec<_> = self.history.log.range(upto(0)..upto(next)).map(|(place, _)| place).collect();
        let open: Vec<_> = open
            .into_iter()
            .filter(|p| !self.settled.contains_key(p) && !self.forwarded.contains(p))
            .map(|p| p.offset)
            .collect();
        if !open.is_empty() {
            let text = format!("process {process} commits {origin} up to {next} in epoch {epoch}, open: {open:?}");
            self.found("committed past unfinished work", text);
        }
        if let Some(assigned) = self.assigned.get_mut(&(process, origin.clone())) {
            assigned.commit_failed = true;
        }
    }

    fn released(&mut self, process: Process, origin: &TopicPartition) {
        // Work of a lost assignment is fenced, and not waited for.
        let epoch = self.assigned.get(&(process, origin.clone())).map(|assigned| assigned.epoch);
        let of_it = |run: &&Run| run.process == process && run.from == *origin && Some(run.epoch) == epoch;
        let going_on = self.runs.values().find(of_it);
        if let Some(offsets) = going_on.map(|run| run.offsets.clone()) {
            let text = format!("process {process} gives up {origin} while a handler has {offsets:?}");
            self.found("delivered after revocation", text);
        }
        let Some(assigned) = self.assigned.remove(&(process, origin.clone())) else { return };
        if is_retry(origin) {
            // Its records are known only by their originals: unless all are committed, some may be delivered again.
            self.calm &= assigned.committed == assigned.given.last().map(|last| last + 1).or(assigned.committed);
            return;
        }
        let open = |offset: &&u64| !assigned.settled.contains(offset) || assigned.late.contains(offset);
        let open = assigned.given.iter().find(open).copied();
        let watermark = open.or_else(|| assigned.given.last().map(|last| last + 1)).unwrap_or(assigned.start);
        let committed = assigned.committed.unwrap_or(assigned.start);
        // Records settled behind one that was returned come again.
        let ahead = assigned.settled.last().is_some_and(|last| *last >= watermark);
        // Its events could not be published in time: it is handled again, and its events get the same ids.
        let unpublished = assigned.over_at.is_some_and(|at| self.now >= at)
            && assigned.done.difference(&assigned.settled).next().is_some();
        if assigned.cut || assigned.commit_failed || assigned.taken || ahead || unpublished {
            self.calm = false;
        }
        // The deadline may have passed at once: the clock has jumped.
        let over = self.stops.get(&process).is_some_and(|stop| self.now > *stop);
        if committed < watermark && !over && !assigned.commit_failed && !assigned.cut {
            let text =
                format!("process {process} gives up {origin} at {committed}, settled was all before {watermark}");
            self.found("settled and not committed", text);
        }
    }

    fn began(&mut self, process: Process, run: u64, origin: &TopicPartition, epoch: u64, offsets: &[u64]) {
        // A dropped process stops when its tasks are next polled: a real process is gone by then.
        let crashed = self.crashed.contains(&process);
        if let Some(from) = self.waited(process, origin, epoch) {
            return self.began_again(process, run, (origin, from), epoch, offsets);
        }
        match self.assigned.get(&(process, origin.clone())) {
            Some(assigned) if assigned.epoch == epoch && !assigned.revoking => {}
            _ if crashed => {}
            assigned => {
                let text = format!("process {process} begins {origin} {offsets:?} of epoch {epoch}, has {assigned:?}");
                self.found("delivered after revocation", text);
            }
        }
        for (index, offset) in offsets.iter().enumerate() {
            self.ordered(process, origin, *offset, &offsets[..index]);
            let place = Place { origin: origin.clone(), offset: *offset };
            let id = self.history.log.get(&place).and_then(|held| held.id);
            if id.is_some_and(|id| self.history.store && self.completed.contains(&id)) {
                self.found("handled again after it was completed", format!("{origin} {offset} by process {process}"));
            }
        }
        let (origin, from, offsets) = (origin.clone(), origin.clone(), offsets.to_vec());
        self.runs.insert(run, Run { process, origin, epoch, offsets, from });
    }

    /// Checks that records that must precede the one at `offset` are settled, or before it in the same batch.
    fn ordered(&mut self, process: Process, origin: &TopicPartition, offset: u64, before: &[u64]) {
        let Some(assigned) = self.assigned.get(&(process, origin.clone())) else { return };
        let at = |offset| Place { origin: origin.clone(), offset };
        let Some(this) = self.history.log.get(&at(offset)) else { return };
        let first = match self.history.order {
            Order::None => return,
            Order::Key if this.key.is_none() => return,
            Order::Key | Order::Partition => assigned.start,
        };
        // A record without a handler is not delivered, and has no order.
        let delivered = |held: &Held| matches!(held.kind, Kind::Good | Kind::Poison);
        let same = |held: &Held| delivered(held) && (self.history.order == Order::Partition || held.key == this.key);
        let open = |place: &Place| !assigned.settled.contains(&place.offset) && !before.contains(&place.offset);
        let earlier = self.history.log.range(at(first.min(offset))..at(offset)).filter(|(_, held)| same(held));
        let overtaken: Vec<_> = earlier.map(|(place, _)| place).filter(|p| open(p)).map(|p| p.offset).collect();
        let later = |other: &&u64| **other > offset && self.history.log.get(&at(**other)).is_some_and(same);
        let of_it = |run: &&Run| run.process == process && run.origin == *origin && run.epoch == assigned.epoch;
        let running = self.runs.values().filter(of_it);
        let running: Vec<u64> = running.flat_map(|run| run.offsets.clone()).collect();
        let repeated = assigned.done.contains(&offset);
        let later = assigned.done.iter().chain(&running).find(later).copied();
        if !overtaken.is_empty() {
            let text = format!("process {process} begins {origin} {offset} before {overtaken:?}, which it must follow");
            self.found("reordered", text);
        }
        // A record handled again after its claim was lost does not count as reordered.
        if let Some(later) = later.filter(|_| !repeated) {
            let text = format!("process {process} begins {origin} {offset} after {later}, which must follow it");
            self.found("reordered", text);
        }
    }

    fn ended(&mut self, run: u64, how: &How) {
        let Some(run) = self.runs.remove(&run) else { return };
        if *how == How::Dropped
            && let Some(assigned) = self.assigned.get_mut(&(run.process, run.from.clone()))
            && assigned.epoch == run.epoch
            && assigned.revoking
        {
            assigned.cut = true;
        }
        let done = match how {
            How::Ok => run.offsets,
            How::Partly(done) => done.clone(),
            How::Failed | How::Dropped => return,
        };
        for offset in done {
            let place = Place { origin: run.origin.clone(), offset };
            if let Some(assigned) = self.assigned.get_mut(&(run.process, run.origin.clone()))
                && assigned.epoch == run.epoch
            {
                assigned.done.insert(offset);
            }
            *self.ran.entry(place).or_default() += 1;
        }
    }

    fn observed(&mut self, process: Process, what: RecordOutcome, place: &Place, epoch: u64) {
        let Some(held) = self.history.log.get(place).cloned() else {
            return self.found("memory: a record that is not in the log", format!("{place:?}"));
        };
        let problem = match what {
            RecordOutcome::Handled if !self.ran.contains_key(place) => Some("handled, and no handler was done with it"),
            RecordOutcome::Handled if self.history.store && held.id.is_some_and(|id| !self.completed.contains(&id)) => {
                Some("handled, and not completed")
            }
            RecordOutcome::Handled if !self.is_published(&held) => Some("handled before its events were published"),
            RecordOutcome::Duplicate if held.id.is_none_or(|id| !self.completed.contains(&id)) => {
                Some("a duplicate of what was never completed")
            }
            RecordOutcome::Skipped if held.kind != Kind::Foreign => Some("skipped, and somebody takes it"),
            RecordOutcome::DeadLettered if !self.buried.contains(place) => Some("dead-lettered, and not buried"),
            RecordOutcome::DeadLettered if held.kind == Kind::Good && self.patient => {
                Some("dead-lettered, and the next attempt would succeed")
            }
            RecordOutcome::Retried => return,
            RecordOutcome::Forwarded if self.due.keys().all(|(_, due)| due != place) => Some("forwarded to nowhere"),
            _ => None,
        };
        if let Some(problem) = problem {
            self.found("settled wrongly", format!("process {process}, {} {}: {problem}", place.origin, place.offset));
        }
        if what == RecordOutcome::Forwarded {
            self.forwarded.insert(place.clone());
        } else {
            *self.settled.entry(place.clone()).or_default() += 1;
        }
        // A record settled after the deadline may be too late to be committed.
        let stopped = self.stops.get(&process).is_some_and(|stop| self.now > *stop);
        // Work of an earlier assignment settles nothing of this one.
        if let Some(assigned) = self.assigned.get_mut(&(process, place.origin.clone()))
            && assigned.epoch == epoch
        {
            if stopped || assigned.taken || assigned.over_at.is_some_and(|at| self.now >= at) {
                assigned.late.insert(place.offset);
            }
            assigned.settled.insert(place.offset);
            if !assigned.given.contains(&place.offset) {
                self.found("settled wrongly", format!("process {process}, {place:?}: it was not given in this epoch"));
            }
        }
    }

    fn is_published(&self, held: &Held) -> bool {
        let Some(id) = held.id else { return true };
        self.published.get(&id).map_or(0, BTreeSet::len) >= held.returns
    }
}

//! Batches for batch handlers: gathered per assignment and handler, and flushed when full, due or needed.

use std::sync::Arc;

use tokio::time::Instant;

use super::flight::Items;
use super::intake::LONE_DEATHS;
use super::{Due, Worker};
use crate::engine::assigned::Assigned;
use crate::engine::gate::Pass;
use crate::engine::record::{Claimed, PendingRecord};
use crate::time::after;

/// Records of an incomplete batch.
#[derive(Debug)]
pub(super) struct Gather {
    number: u64,
    assigned: Arc<Assigned>,
    handler: usize,
    items: Vec<PendingRecord>,
    size: usize,
    /// Full or due: started as soon as the gate lets it.
    due: bool,
}

impl Gather {
    fn is_of(&self, item: &PendingRecord) -> bool {
        self.handler == item.handler && self.assigned.id == item.assigned.id
    }
}

/// Returns whether a handler can start with it without any further call.
pub(super) fn may_begin(item: &PendingRecord) -> bool {
    match &item.claim {
        Claimed::NoStore => true,
        Claimed::Granted(history, hold) => history.crashes < LONE_DEATHS && hold.is_current(),
        Claimed::No => false,
    }
}

impl Worker {
    /// Returns whether the item may join an open batch that contains its lane's predecessor: a batch keeps its order.
    pub(super) fn joins_gather(&self, item: &PendingRecord) -> bool {
        let joins = |gather: &Gather| {
            gather.is_of(item) && !gather.due && gather.items.iter().any(|other| other.lane == item.lane)
        };
        // An item must not pass another one of its lane that waits.
        let waits = item.lane.is_some_and(|lane| self.busy.waits(lane));
        !item.single && !waits && self.gathers.iter().any(joins)
    }

    /// Adds an item, which holds its lane, to the batch of its handler.
    pub(super) fn gather(&mut self, item: PendingRecord) {
        let Some(options) = self.routes.table().info(item.handler).batch else {
            self.ready.push_back(item);
            return;
        };
        if item.single {
            self.gathers.push(Gather {
                number: u64::MAX,
                assigned: item.assigned.clone(),
                handler: item.handler,
                items: vec![item],
                size: 1,
                due: true,
            });
            return;
        }
        let at = self.gathers.iter().position(|gather| gather.is_of(&item) && !gather.due);
        let at = at.unwrap_or_else(|| {
            self.next_gather += 1;
            if !options.wait.is_zero() {
                self.timers.set(after(Instant::now(), options.wait), Due::Gather(self.next_gather));
            }
            self.gathers.push(Gather {
                number: self.next_gather,
                assigned: item.assigned.clone(),
                handler: item.handler,
                items: Vec::with_capacity(options.size.min(64)),
                size: options.size.max(1),
                due: false,
            });
            self.gathers.len() - 1
        });
        let lane = item.lane;
        self.gathers[at].items.push(item);
        // Items that wait behind it in the lane join the batch as far as there is room.
        while let Some(lane) = lane
            && self.gathers[at].items.len() < self.gathers[at].size
            && let Some(mut next) = self.take_follower(at, lane)
        {
            self.enter(&mut next);
            self.gathers[at].items.push(next);
        }
        let gather = &mut self.gathers[at];
        gather.due |= gather.items.len() >= gather.size;
    }

    /// Makes the remaining items of a batch a batch again. They are not mixed with others: split over two batches,
    /// items of one lane could overtake each other.
    pub(super) fn gather_again(&mut self, items: Vec<PendingRecord>) {
        let Some(first) = items.first() else { return };
        let (assigned, handler, size) = (first.assigned.clone(), first.handler, items.len());
        self.gathers.push(Gather { number: u64::MAX, assigned, handler, items, size, due: true });
    }

    fn take_follower(&mut self, at: usize, lane: u64) -> Option<PendingRecord> {
        let Self { busy, gathers, .. } = self;
        busy.next_waiting_if(lane, |next| gathers[at].is_of(next) && !next.single && may_begin(next))
    }

    /// Returns the number of batches that are ready to start.
    pub(super) fn due_gathers(&self) -> usize {
        self.gathers.iter().filter(|gather| gather.due).count()
    }

    /// Handles the due time of a batch.
    pub(super) fn flush_gather(&mut self, number: u64) {
        if let Some(gather) = self.gathers.iter_mut().find(|gather| gather.number == number) {
            gather.due = true;
        }
    }

    /// Starts the batches that are full, due, or of handlers that do not wait. Returns whether any was started.
    pub(super) fn flush_gathers(&mut self) -> bool {
        let mut moved = false;
        let mut at = 0;
        while at < self.gathers.len() && !self.runs_enough() {
            let gather = &self.gathers[at];
            let waits = self.routes.table().info(gather.handler).batch.is_some_and(|b| !b.wait.is_zero());
            // At a limit no records arrive to fill it, and waiting would keep the limit reached.
            if waits && !gather.due && !gather.assigned.is_at_bound() {
                at += 1;
                continue;
            }
            let pass = self.shared.gate.pass();
            if pass == Pass::Wait {
                break;
            }
            let gather = self.gathers.remove(at);
            moved = true;
            self.start_gather(gather, pass);
        }
        moved
    }

    fn start_gather(&mut self, gather: Gather, pass: Pass) {
        if gather.assigned.is_stopping() {
            gather.items.into_iter().for_each(|item| self.drop_item(item));
            if pass == Pass::Probe {
                self.return_probe();
            }
            return;
        }
        if gather.items.iter().any(|item| !may_begin(item)) {
            // The lease may have expired since they were gathered: its claims are then made again.
            if pass == Pass::Probe {
                self.return_probe();
            }
            let mut items = gather.items;
            for item in &mut items {
                if !may_begin(item) {
                    self.disclaim(item);
                }
            }
            for item in self.first_of_lanes(items) {
                match item.claim {
                    Claimed::No => self.to_claim.push(item),
                    _ => self.ready.push_back(item),
                }
            }
            return;
        }
        self.start_items(Items::Many(gather.items), pass == Pass::Probe);
    }

    /// Removes the items of an assignment from batches that have not started.
    pub(super) fn take_gathered(&mut self, slot: u64) -> Vec<PendingRecord> {
        let (gone, kept) = std::mem::take(&mut self.gathers).into_iter().partition(|g: &Gather| g.assigned.id == slot);
        self.gathers = kept;
        let gone: Vec<Gather> = gone;
        gone.into_iter().flat_map(|gather| gather.items).collect()
    }
}

//! Revokes an assignment: work that has not begun is returned, work that has begun is cancelled at the deadline.

use std::collections::VecDeque;

use super::{Backlog, Due, Worker};
use crate::engine::record::PendingRecord;

impl Worker {
    /// Drops the work of an assignment that has not begun; work that has begun continues.
    pub(super) fn give_back(&mut self, slot: u64) {
        self.dropped = true;
        self.unclaimed.retain(|chunk| chunk.assigned.id != slot);
        let mut gone: Vec<PendingRecord> = self.take_gathered(slot);
        for entry in std::mem::take(&mut self.backlog) {
            match entry {
                Backlog::Chunk(chunk) if chunk.assigned.id == slot => {}
                Backlog::Chunk(chunk) => self.backlog.push_back(Backlog::Chunk(chunk)),
                Backlog::Items(items) => {
                    let (out, kept): (VecDeque<_>, VecDeque<_>) =
                        items.into_iter().partition(|item| item.assigned.id == slot);
                    gone.extend(out);
                    self.backlog.push_back(Backlog::Items(kept));
                }
            }
        }
        gone.extend(self.busy.take_waiting(|item| item.assigned.id == slot));
        for list in [&mut self.ready, &mut self.lone] {
            let (out, kept): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(list).into_iter().partition(|i: &PendingRecord| i.assigned.id == slot);
            gone.extend(out);
            *list = kept;
        }
        let (out, kept) =
            std::mem::take(&mut self.to_claim).into_iter().partition(|i: &PendingRecord| i.assigned.id == slot);
        self.to_claim = kept;
        let out: Vec<PendingRecord> = out;
        gone.extend(out);
        let waiting = |due: &Due| match due {
            Due::Item(item) | Due::Claim(item) => item.assigned.id == slot,
            Due::ClaimChunk(items) => items.iter().any(|item| item.assigned.id == slot),
            _ => false,
        };
        let mut due = self.timers.take_where(waiting);
        due.extend(self.reclaim.take().map(Due::ClaimChunk));
        for due in due {
            match due {
                Due::Item(item) | Due::Claim(item) => gone.push(item),
                Due::ClaimChunk(items) => {
                    let (out, kept): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.assigned.id == slot);
                    gone.extend(out);
                    self.reclaim_or_go_on(kept);
                }
                _ => {}
            }
        }
        gone.into_iter().for_each(|item| self.drop_item(item));
    }

    /// Cancels the handlers of an assignment, and items that wait for an unresponsive publisher or sink.
    ///
    /// Completions continue: handled events are completed for as long as their claims are valid.
    pub(super) fn cancel(&mut self, slot: u64) {
        self.give_back(slot);
        let tickets: Vec<usize> = self
            .running
            .iter()
            .filter(|(_, running)| running.work.items.as_slice().iter().any(|item| item.assigned.id == slot))
            .map(|(ticket, _)| ticket)
            .collect();
        self.drop_flights(|ticket| tickets.contains(&ticket));
        for ticket in tickets {
            let running = self.running.remove(ticket);
            self.abandon(running.work);
        }
        let stuck = |due: &Due| match due {
            Due::Bury(letters) => letters.iter().any(|burying| burying.item.assigned.id == slot),
            Due::Publish(work) => work.iter().any(|p| p.work.items.as_slice()[0].assigned.id == slot),
            _ => false,
        };
        self.timers.take_where(stuck).into_iter().for_each(|due| self.cancel_stuck(due, slot));
    }

    fn cancel_stuck(&mut self, due: Due, slot: u64) {
        match due {
            Due::Bury(letters) => {
                let (out, kept): (Vec<_>, Vec<_>) = letters.into_iter().partition(|b| b.item.assigned.id == slot);
                self.to_bury.extend(kept);
                out.into_iter().for_each(|burying| self.drop_item(burying.item));
            }
            Due::Publish(work) => {
                let (out, kept): (Vec<_>, Vec<_>) =
                    work.into_iter().partition(|p| p.work.items.as_slice()[0].assigned.id == slot);
                self.to_publish.extend(kept);
                out.into_iter().for_each(|publishing| self.abandon(publishing.work));
            }
            _ => {}
        }
    }

    /// Claims the rest of a chunk again; if nothing is left, the next chunk follows.
    fn reclaim_or_go_on(&mut self, items: Vec<PendingRecord>) {
        if items.is_empty() {
            self.calls.claiming_chunk = false;
        } else {
            self.reclaim = Some(items);
        }
    }

    /// Drops an item that is not settled: the partition's next owner processes it again.
    pub(super) fn drop_item(&mut self, mut item: PendingRecord) {
        self.dropped = true;
        self.set_trouble(&mut item, None, "");
        self.give_claim_back(&mut item);
        self.leave(item);
    }
}

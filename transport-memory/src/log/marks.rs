//! Marks of transactions in a log: the records of open ones, and the offsets that no reader sees.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::Inner;

/// Marks of one log. All offsets lie between its start and its end.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Offsets of the records of each open transaction, in order.
    open: BTreeMap<u64, Vec<Range<u64>>>,
    /// Offsets that readers skip, aborted records and markers: end by start, disjoint and not adjacent.
    gaps: BTreeMap<u64, u64>,
    /// Offsets of the markers, in order; they are in `gaps` as well.
    markers: VecDeque<u64>,
}

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.gaps.is_empty()
    }

    /// Adds a record to an open transaction, which begins with its first one; returns whether it is that.
    pub(super) fn enlist(&mut self, transaction: u64, offset: u64) -> bool {
        let first = !self.open.contains_key(&transaction);
        let ranges = self.open.entry(transaction).or_default();
        match ranges.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => ranges.push(offset..offset + 1),
        }
        first
    }

    /// Ends a transaction; returns `false` if it has no records here.
    pub(super) fn end(&mut self, transaction: u64, committed: bool) -> bool {
        let Some(ranges) = self.open.remove(&transaction) else { return false };
        if !committed {
            ranges.into_iter().for_each(|range| self.add_gap(range));
        }
        true
    }

    pub(super) fn add_marker(&mut self, offset: u64) {
        self.markers.push_back(offset);
        self.add_gap(offset..offset + 1);
    }

    fn add_gap(&mut self, mut gap: Range<u64>) {
        if let Some((&start, &end)) = self.gaps.range(..gap.start).next_back()
            && end == gap.start
        {
            gap.start = start;
        }
        if let Some(end) = self.gaps.remove(&gap.end) {
            gap.end = end;
        }
        self.gaps.insert(gap.start, gap.end);
    }

    /// Returns the first record of an open transaction, or `end`.
    pub(super) fn stable(&self, end: u64) -> u64 {
        self.open.values().filter_map(|ranges| ranges.first()).map(|first| first.start).min().unwrap_or(end)
    }

    /// Returns `position`, or the end of the gap that it is in.
    pub(super) fn skip(&self, position: u64) -> u64 {
        let before = self.gaps.range(..=position).next_back();
        before.map_or(position, |(_, end)| position.max(*end))
    }

    /// Returns the start of the first gap behind `position`.
    pub(super) fn next_gap(&self, position: u64) -> u64 {
        self.gaps.range(position..).next().map_or(u64::MAX, |(start, _)| *start)
    }

    pub(super) fn markers(&self) -> u64 {
        self.markers.len() as u64
    }

    /// Forgets the offsets before `start`.
    pub(super) fn drop_before(&mut self, start: u64) {
        for ranges in self.open.values_mut() {
            ranges.retain_mut(|range| {
                range.start = range.start.max(start);
                range.start < range.end
            });
        }
        while let Some(gap) = self.gaps.first_entry().filter(|gap| *gap.key() < start) {
            let end = gap.remove();
            if end > start {
                self.gaps.insert(start, end);
            }
        }
        while self.markers.front().is_some_and(|marker| *marker < start) {
            self.markers.pop_front();
        }
    }

    /// Forgets the offsets from `end` on.
    pub(super) fn truncate(&mut self, end: u64) {
        for ranges in self.open.values_mut() {
            ranges.retain_mut(|range| {
                range.end = range.end.min(end);
                range.start < range.end
            });
        }
        while let Some(gap) = self.gaps.last_entry().filter(|gap| *gap.get() > end) {
            let (start, _) = gap.remove_entry();
            if start < end {
                self.gaps.insert(start, end);
            }
        }
        while self.markers.back().is_some_and(|marker| *marker >= end) {
            self.markers.pop_back();
        }
    }
}

impl Inner {
    /// Returns the end of what may be read.
    pub(super) fn stable(&self) -> u64 {
        match &self.marks {
            None => self.end,
            Some(marks) => marks.stable(self.end).max(self.start),
        }
    }

    /// Returns the next offsets from `position` on that readers see, up to the next gap or the end of what may be read.
    pub(super) fn visible(&self, position: u64) -> (u64, u64) {
        match &self.marks {
            None => (position, self.end),
            Some(marks) => {
                let (stable, first) = (self.stable(), marks.skip(position));
                (first.min(stable), marks.next_gap(first).min(stable))
            }
        }
    }

    /// Returns `position`, or the end of the gap that it is in.
    pub(super) fn skip(&self, position: u64) -> u64 {
        match &self.marks {
            None => position,
            Some(marks) => marks.skip(position).min(self.stable()),
        }
    }

    /// Returns the number of records; the markers of transactions are none.
    pub(super) fn records(&self) -> u64 {
        self.end - self.start - self.markers()
    }

    pub(super) fn markers(&self) -> u64 {
        self.marks.as_ref().map_or(0, |marks| marks.markers())
    }

    /// Changes the marks, which are dropped once nothing is marked.
    pub(super) fn mark<T>(&mut self, change: impl FnOnce(&mut Marks) -> T) -> Option<T> {
        let marks = self.marks.as_mut()?;
        let answer = change(marks);
        if marks.is_empty() {
            self.marks = None;
        }
        Some(answer)
    }
}

//! Checks at the end of a run.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Kind, Place};
use super::Checker;

impl Checker<'_> {
    pub(super) fn end(&mut self) {
        if let Some(why) = &self.history.stalled {
            self.found("stalled", why.clone());
        }
        for (place, held) in &self.history.log {
            let at = format!("{} {}", place.origin, place.offset);
            if !self.settled.contains_key(place) {
                self.found("lost", at.clone());
            }
            let runs = self.ran.get(place).copied().unwrap_or(0);
            let settled = self.settled.get(place).copied().unwrap_or(0);
            if self.calm && (runs > 1 || settled > 1) {
                self.found("duplicated", format!("{at}: handled {runs} times, settled {settled} times"));
            }
            if held.kind == Kind::Poison && runs > 0 {
                self.found("settled wrongly", format!("{at}: poison was handled"));
            }
            let returned = held
                .id
                .and_then(|id| self.history.returned.get(&id))
                .map_or(0, |ids| ids.iter().collect::<BTreeSet<_>>().len());
            // Events with the same id in one batch cannot be told apart by their causation id.
            let twins = self.history.log.values().filter(|other| other.id == held.id).count();
            let most = if place.origin.topic == "parts" { held.returns * twins } else { held.returns };
            if returned > most {
                self.found("a repeat returned other ids", format!("{at}: {returned} in place of {}", held.returns));
            }
        }
        let ends = self.history.log.keys().map(|place| (place.origin.clone(), place.offset + 1));
        for (origin, end) in ends.collect::<BTreeMap<_, _>>() {
            let committed = self.history.committed.get(&origin).copied();
            if committed != Some(end) && self.history.stalled.is_none() {
                self.found("not committed to the end", format!("{origin}: {committed:?} of {end}"));
            }
        }
        self.letters();
    }

    /// Checks that each dead-lettered record is in the dead letters unchanged, and nothing else is.
    fn letters(&mut self) {
        let mut kept: BTreeMap<&Place, _> = BTreeMap::new();
        for letter in &self.history.letters {
            kept.insert(&letter.place, (&letter.key, &letter.value, &letter.headers));
        }
        for place in self.buried.clone() {
            let held = &self.history.log[&place];
            let at = format!("{} {}", place.origin, place.offset);
            match kept.get(&place) {
                None => self.found("dead letters incomplete", format!("{at}: no letter")),
                Some(letter) if *letter != (&held.key, &held.value, &held.headers) => {
                    self.found("dead letters incomplete", format!("{at}: the letter is not the record"));
                }
                Some(_) => {}
            }
        }
    }
}

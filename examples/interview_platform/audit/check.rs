//! Whether the ledger adds up.

use std::collections::{HashMap, HashSet};

use tidings::record::Name;
use tidings::service::RecordOutcome;
use uuid::Uuid;

use super::ledger::{GroupLog, Ledger, Nature, Place, Published, Settled};

/// How many examples of one fault are named.
const NAMED: usize = 3;

/// Knowledge of the run in addition to its ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    /// Events are handled once, also when they are published twice.
    pub(crate) once: bool,
    /// The store may know events of earlier runs.
    pub(crate) store_lasts: bool,
    /// All that is in the topics was published by this run.
    pub(crate) alone: bool,
}

/// The result of the check.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The problems found, a line each.
    pub(crate) problems: Vec<String>,
    /// Deliveries that the store knew from earlier runs.
    pub(crate) known: u64,
}

pub(crate) fn check(ledger: &Ledger, logs: &[&GroupLog], letters: &[(Name, Place)], run: Checked) -> Findings {
    let published = ledger.all_published();
    let (mut problems, mut known) = (Problems::default(), 0);
    let mut buried: HashSet<(&str, Place)> = HashSet::new();
    for (service, place) in letters {
        if !buried.insert((service.as_str(), *place)) {
            problems.add(service, "twice in the dead letters", place);
        }
    }
    for log in logs {
        let settled = log.take_settled();
        let group = Group { log, published: &published, settled: &settled, run };
        group.settled_once(&mut problems);
        known += group.handled_once(&mut problems);
        group.in_order(&mut problems);
        group.letters(&mut buried, &mut problems);
    }
    if run.alone {
        buried.iter().for_each(|(service, place)| problems.add(service, "in the dead letters, and not poison", place));
    }
    Findings { problems: problems.lines(), known }
}

struct Group<'a> {
    log: &'a GroupLog,
    published: &'a [Published],
    settled: &'a [Settled],
    run: Checked,
}

impl Group<'_> {
    fn name(&self) -> &'static str {
        self.log.group.name
    }

    /// The records that it must settle.
    fn wanted(&self) -> impl Iterator<Item = &Published> {
        self.published.iter().filter(|published| self.log.group.topics.contains(&published.place.topic()))
    }

    fn is_poison(&self, nature: &Nature) -> bool {
        match nature {
            Nature::Garbage => true,
            Nature::Poison(event_type) => self.log.group.handles.contains(&event_type.as_str()),
            Nature::Event(_) => false,
        }
    }

    /// Whether that may become of a record.
    fn may(&self, nature: &Nature, what: RecordOutcome) -> bool {
        match (nature, what) {
            _ if self.is_poison(nature) => what == RecordOutcome::DeadLettered,
            (Nature::Event(event_type) | Nature::Poison(event_type), RecordOutcome::Skipped) => {
                !self.log.group.handles.contains(&event_type.as_str())
            }
            (Nature::Event(event_type), RecordOutcome::Handled | RecordOutcome::Duplicate) => {
                self.log.group.handles.contains(&event_type.as_str())
            }
            _ => false,
        }
    }

    /// Each record that was published is settled once, and in the way that it should be.
    fn settled_once(&self, problems: &mut Problems) {
        let mut settled: HashMap<Place, RecordOutcome> = HashMap::with_capacity(self.settled.len());
        for Settled { place, what, .. } in self.settled {
            // A broker that lasts may deliver again after a rebalance: then the store knows the event.
            let again =
                settled.insert(*place, *what).is_some_and(|_| self.run.alone || *what != RecordOutcome::Duplicate);
            if again {
                problems.add(self.name(), "settled twice", place);
            }
        }
        for published in self.wanted() {
            match settled.remove(&published.place) {
                None => problems.add(self.name(), "published, and not settled", &published.place),
                Some(what) if !self.may(&published.nature, what) => {
                    problems.add(self.name(), &format!("{}, and should not be", what.as_str()), &published.place);
                }
                Some(_) => {}
            }
        }
        if self.run.alone {
            settled.keys().for_each(|place| problems.add(self.name(), "settled, and never published", place));
        }
    }

    /// No event is handled twice, however often it was published. How many were handled by earlier runs.
    fn handled_once(&self, problems: &mut Problems) -> u64 {
        if !self.run.once {
            return 0;
        }
        let ids: HashMap<Place, Uuid> = self.wanted().map(|published| (published.place, published.id)).collect();
        let (mut handled, mut repeated) = (HashSet::new(), Vec::new());
        for Settled { place, what, .. } in self.settled {
            let Some(id) = ids.get(place) else { continue };
            match what {
                RecordOutcome::Handled if !handled.insert(*id) => problems.add(self.name(), "handled twice", place),
                RecordOutcome::Duplicate => repeated.push((*id, place)),
                _ => {}
            }
        }
        let unknown = repeated.into_iter().filter(|(id, _)| !handled.contains(id));
        if self.run.store_lasts {
            return unknown.count() as u64;
        }
        unknown.for_each(|(_, place)| problems.add(self.name(), "a duplicate of nothing", place));
        0
    }

    /// Of one key, records are handled in the order in which they lie.
    fn in_order(&self, problems: &mut Problems) {
        let mut last: HashMap<(u8, u32, u64), u64> = HashMap::new();
        for Settled { place, key, what } in self.settled {
            if *what == RecordOutcome::Handled {
                let before = last.insert((place.topic, place.partition, *key), place.offset);
                if before.is_some_and(|before| before > place.offset) {
                    problems.add(self.name(), "out of its key's order", place);
                }
            }
        }
    }

    /// All poison is in the dead letters; what is left of `buried` afterwards should not be there.
    fn letters(&self, buried: &mut HashSet<(&str, Place)>, problems: &mut Problems) {
        let service = self.log.group.member.name();
        for published in self.wanted().filter(|published| self.is_poison(&published.nature)) {
            if !buried.remove(&(service, published.place)) {
                problems.add(self.name(), "poison, and not in the dead letters", &published.place);
            }
        }
    }
}

/// Faults by who and what, with how many there are and the first few places.
#[derive(Debug, Default)]
struct Problems(Vec<(String, usize, Vec<Place>)>);

impl Problems {
    fn add(&mut self, who: &str, what: &str, place: &Place) {
        let title = format!("{who}: {what}");
        let found = self.0.iter().position(|(known, ..)| *known == title).unwrap_or_else(|| {
            self.0.push((title, 0, Vec::new()));
            self.0.len() - 1
        });
        let (_, count, places) = &mut self.0[found];
        *count += 1;
        if places.len() < NAMED {
            places.push(*place);
        }
    }

    fn lines(self) -> Vec<String> {
        let line = |(title, count, places): (String, usize, Vec<Place>)| {
            let places: Vec<_> = places.iter().map(Place::to_string).collect();
            let more = if count > places.len() { ", ..." } else { "" };
            format!("{title}: {count} ({}{more})", places.join(", "))
        };
        self.0.into_iter().map(line).collect()
    }
}

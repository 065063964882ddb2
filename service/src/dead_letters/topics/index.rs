//! The index of the letters of some topics: their positions and resolutions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use tidings_core::{
    DeadLetter, Error, ErrorKind, LetterEntry, LetterId, LetterKey, LetterQuery, LetterState, Name, Resolution,
    ResolutionKind, Result, Timestamp, TopicPartition,
};
use uuid::Uuid;

/// The limit of letters, with those that only a state is left of: about 300 bytes each.
pub(super) const MAX_LETTERS: usize = 1_000_000;

/// Letters are looked up by identity if a query names fewer than one in this number of them.
const MANY: usize = 8;

/// The operator of letters that an older version redrove, which kept only an offset.
const OLDER_VERSION: &str = "an older version";

/// A letter's record in a dead-letter topic.
pub(super) type Place = (TopicPartition, u64);

#[derive(Debug, Default)]
struct Entry {
    place: Option<Place>,
    resolution: Option<Resolution>,
    lease: Option<Lease>,
}

/// A lease of a letter.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) id: Uuid,
    from: Timestamp,
    until: Timestamp,
    /// The time of the first of the leases before it that expired without being given back: their redrives may have
    /// published the letter.
    pub(super) orphan_since: Option<Timestamp>,
}

impl Entry {
    fn is_closed(&self) -> bool {
        self.resolution.as_ref().is_some_and(|resolution| resolution.kind.closes())
    }

    fn is_in(&self, state: LetterState) -> bool {
        match state {
            LetterState::Open => self.resolution.is_none(),
            LetterState::Parked => self.resolution.is_some() && !self.is_closed(),
            LetterState::Closed => self.is_closed(),
            _ => true,
        }
    }
}

/// The letters of some topics, by identity and in the order of burying.
#[derive(Debug, Default)]
pub(super) struct Index {
    letters: BTreeMap<LetterKey, Entry>,
    order: BTreeMap<TopicPartition, Vec<(u64, LetterKey)>>,
    /// Each service's name once, so that its letters share it.
    services: BTreeSet<Name>,
    /// Committed offsets of older versions' redrives, by service.
    older: HashMap<Name, HashMap<TopicPartition, u64>>,
    /// The timestamp of the last entry.
    now: Option<Timestamp>,
}

impl Index {
    /// Adds a letter that lies at `offset` of the dead-letter partition `at`. Its repeats are ignored.
    pub(super) fn add(&mut self, at: &TopicPartition, offset: u64, letter: &DeadLetter) -> Result<()> {
        let key = self.shared(LetterKey::of(letter));
        let entry = self.entry(&key)?;
        if entry.place.is_none() {
            entry.place = Some((at.clone(), offset));
            self.order.entry(at.clone()).or_default().push((offset, key.clone()));
            self.apply_older(&key);
        }
        Ok(())
    }

    /// Applies an entry of a state topic.
    pub(super) fn apply(&mut self, key: LetterKey, entry: LetterEntry, time: Timestamp) -> Result<()> {
        self.now = Some(time);
        let key = self.shared(key);
        let letter = self.entry(&key)?;
        match entry {
            LetterEntry::Resolved(resolution) if resolution.kind.closes() => {
                (letter.resolution, letter.lease) = (Some(resolution), None);
            }
            _ if letter.is_closed() => {}
            LetterEntry::Resolved(resolution) => letter.resolution = Some(resolution),
            LetterEntry::Leased { lease: id, ttl } => {
                let before = letter.lease.as_ref().filter(|before| before.id != id);
                if before.is_none_or(|before| before.until <= time) {
                    let own = letter.lease.as_ref().filter(|own| own.id == id).and_then(|own| own.orphan_since);
                    let orphan_since = before.map(|before| before.orphan_since.unwrap_or(before.from)).or(own);
                    letter.lease = Some(Lease { id, from: time, until: time.saturating_add(ttl), orphan_since });
                }
            }
            LetterEntry::Ended { lease } => {
                letter.lease.take_if(|held| held.id == lease);
            }
            // An entry of a later version.
            _ => {}
        }
        Ok(())
    }

    /// Takes the letters of `service` before these committed offsets for redriven.
    pub(super) fn add_older(&mut self, service: Name, committed: HashMap<TopicPartition, u64>) {
        let known = !committed.is_empty();
        self.older.insert(service, committed);
        if known {
            let keys: Vec<LetterKey> = self.letters.keys().cloned().collect();
            keys.iter().for_each(|key| self.apply_older(key));
        }
    }

    fn apply_older(&mut self, key: &LetterKey) {
        let Some(committed) = self.older.get(&key.id.service) else { return };
        let Some(letter) = self.letters.get_mut(key) else { return };
        let Some((at, offset)) = &letter.place else { return };
        if letter.resolution.is_none() && committed.get(at).is_some_and(|committed| offset < committed) {
            let by = Resolution::new(ResolutionKind::Redriven, OLDER_VERSION);
            letter.resolution = Some(by.with_at(Timestamp::from_millis(0)));
        }
    }

    /// Returns the services with letters whose older redrives are not known yet.
    pub(super) fn services_to_look_up(&self) -> Vec<Name> {
        let buried: HashSet<&Name> =
            self.letters.iter().filter(|(_, letter)| letter.place.is_some()).map(|(key, _)| &key.id.service).collect();
        buried.into_iter().filter(|service| !self.older.contains_key(*service)).cloned().collect()
    }

    /// Returns the letter of this identity that is not closed: the first, if a topic was recreated.
    pub(super) fn find(&self, id: &LetterId) -> Option<&LetterKey> {
        let is_live = |(_, letter): &(&LetterKey, &Entry)| letter.place.is_some() && !letter.is_closed();
        self.of(id).find(is_live).map(|(key, _)| key)
    }

    pub(super) fn lease_of(&self, key: &LetterKey) -> Option<&Lease> {
        self.letters.get(key)?.lease.as_ref()
    }

    pub(super) fn is_closed(&self, key: &LetterKey) -> bool {
        self.letters.get(key).is_none_or(Entry::is_closed)
    }

    pub(super) fn is_parked(&self, key: &LetterKey) -> bool {
        self.letters.get(key).is_some_and(|letter| letter.is_in(LetterState::Parked))
    }

    pub(super) fn resolution(&self, key: &LetterKey) -> Option<Resolution> {
        self.letters.get(key)?.resolution.clone()
    }

    /// Returns how long the lease lives yet, by the clock of the last entry.
    pub(super) fn time_left(&self, lease: &Lease) -> std::time::Duration {
        let now = self.now.unwrap_or(lease.from);
        let left = lease.until.millis().saturating_sub(now.millis());
        std::time::Duration::from_millis(u64::try_from(left).unwrap_or_default())
    }

    /// Returns where the page of `query` begins: after this letter.
    pub(super) fn page(&self, query: &LetterQuery) -> Option<Place> {
        query.after.as_ref().and_then(|id| self.place_in_list(id, query.state))
    }

    /// Returns at most `max` letters that may match `query`, by partition and in the order of burying, after a place.
    pub(super) fn candidates(
        &self,
        query: &LetterQuery,
        after: Option<&Place>,
        max: usize,
    ) -> Vec<(TopicPartition, Vec<(u64, LetterKey)>)> {
        let from = after.map_or(Bound::Unbounded, |(at, _)| Bound::Included(at.clone()));
        let (mut found, mut left) = (Vec::new(), max);
        let few = self.few(query);
        for (at, letters) in few.as_ref().unwrap_or(&self.order).range((from, Bound::Unbounded)) {
            if left == 0 {
                break;
            }
            let start = after.filter(|(partition, _)| partition == at).map(|(_, offset)| *offset);
            let first = start.map_or(0, |start| letters.partition_point(|(offset, _)| *offset <= start));
            let wanted = letters[first..].iter().filter(|(_, key)| self.may_match(key, query));
            let wanted: Vec<_> = wanted.take(left).cloned().collect();
            left -= wanted.len();
            if !wanted.is_empty() {
                found.push((at.clone(), wanted));
            }
        }
        found
    }

    /// Counts the letters that may match `query`, from the first offset of each partition on.
    pub(super) fn count(&self, query: &LetterQuery, first: impl Fn(&TopicPartition) -> u64) -> u64 {
        let of = |(at, letters): (&TopicPartition, &Vec<(u64, LetterKey)>)| {
            let first = first(at);
            letters.iter().filter(|(offset, key)| *offset >= first && self.may_match(key, query)).count() as u64
        };
        let few = self.few(query);
        few.as_ref().unwrap_or(&self.order).iter().map(of).sum()
    }

    /// Returns the letters that `query` names by identity, in the order of burying; `None` if it does not select by
    /// identity, or names so large a part of the letters that a scan is cheaper.
    fn few(&self, query: &LetterQuery) -> Option<BTreeMap<TopicPartition, Vec<(u64, LetterKey)>>> {
        let ids = query.ids.as_ref().filter(|ids| ids.len() < self.letters.len() / MANY)?;
        let mut few = BTreeMap::<TopicPartition, Vec<_>>::new();
        for (key, letter) in ids.iter().flat_map(|id| self.of(id)) {
            if let Some((at, offset)) = &letter.place {
                few.entry(at.clone()).or_default().push((*offset, key.clone()));
            }
        }
        few.values_mut().for_each(|letters| letters.sort_unstable_by_key(|(offset, _)| *offset));
        Some(few)
    }

    fn may_match(&self, key: &LetterKey, query: &LetterQuery) -> bool {
        let Some(letter) = self.letters.get(key) else { return false };
        // A letter behind an open one of its identity waits, as in a store.
        let waits = || !letter.is_closed() && self.find(&key.id) != Some(key);
        letter.is_in(query.state)
            && query.service.as_ref().is_none_or(|service| *service == key.id.service)
            && query.topic.as_ref().is_none_or(|topic| *topic == key.id.origin.topic)
            && query.ids.as_ref().is_none_or(|ids| ids.contains(&key.id))
            && !waits()
    }

    /// Returns where a page that ends with this letter ends.
    fn place_in_list(&self, id: &LetterId, state: LetterState) -> Option<Place> {
        let placed = || self.of(id).filter(|(_, letter)| letter.place.is_some());
        let listed = placed().find(|(_, letter)| letter.is_in(state)).or_else(|| placed().last());
        listed.and_then(|(_, letter)| letter.place.clone())
    }

    fn of(&self, id: &LetterId) -> impl Iterator<Item = (&LetterKey, &Entry)> {
        let key = |time| LetterKey::new(id.clone(), Timestamp::from_millis(time));
        self.letters.range(key(i64::MIN)..=key(i64::MAX))
    }

    fn entry(&mut self, key: &LetterKey) -> Result<&mut Entry> {
        if self.letters.len() >= MAX_LETTERS && !self.letters.contains_key(key) {
            let text = format!(
                "read dead letters: there are more than {MAX_LETTERS}; delete old records of the \
                                dead-letter topics and their states"
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Ok(self.letters.entry(key.clone()).or_default())
    }

    /// Replaces the service's name by the shared one.
    fn shared(&mut self, mut key: LetterKey) -> LetterKey {
        match self.services.get(&key.id.service) {
            Some(shared) => key.id.service = shared.clone(),
            None => drop(self.services.insert(key.id.service.clone())),
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_core::{ErrorKind, StoredRecord};

    use super::*;

    const TTL: Duration = Duration::from_millis(10);

    fn letter(offset: u64, time: i64) -> DeadLetter {
        let record = StoredRecord::new(offset, Timestamp::from_millis(time));
        DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed)
    }

    fn at() -> TopicPartition {
        TopicPartition::new("t-dlq", 0)
    }

    fn index(letters: &[DeadLetter]) -> Index {
        let mut index = Index::default();
        (0..).zip(letters).for_each(|(offset, letter)| index.add(&at(), offset, letter).unwrap());
        index
    }

    fn apply(index: &mut Index, letter: &DeadLetter, entry: LetterEntry, time: i64) {
        index.apply(LetterKey::of(letter), entry, Timestamp::from_millis(time)).unwrap();
    }

    fn leased(lease: Uuid) -> LetterEntry {
        LetterEntry::Leased { lease, ttl: TTL }
    }

    #[test]
    fn the_first_lease_wins_until_it_expires_or_ends() {
        let (letter, one, other) = (letter(1, 1), Uuid::now_v7(), Uuid::now_v7());
        let mut index = index(std::slice::from_ref(&letter));
        let holder = |index: &Index| index.lease_of(&LetterKey::of(&letter)).map(|lease| lease.id);
        apply(&mut index, &letter, leased(one), 100);
        apply(&mut index, &letter, leased(other), 109);
        assert_eq!(holder(&index), Some(one));
        // Another lease ends nothing.
        apply(&mut index, &letter, LetterEntry::Ended { lease: other }, 109);
        apply(&mut index, &letter, leased(other), 110);
        assert_eq!(holder(&index), Some(other));
        apply(&mut index, &letter, LetterEntry::Ended { lease: other }, 111);
        assert_eq!(holder(&index), None);
    }

    #[test]
    fn a_lease_remembers_since_when_the_letter_may_be_published() {
        let (letter, leases) = (letter(1, 1), [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()]);
        let mut index = index(std::slice::from_ref(&letter));
        for (n, lease) in (0..).zip(leases) {
            apply(&mut index, &letter, leased(lease), 100 * (n + 1));
        }
        let since = |index: &Index| index.lease_of(&LetterKey::of(&letter)).unwrap().orphan_since;
        assert_eq!(since(&index), Some(Timestamp::from_millis(100)));
        // Renewed, it still does; given back, the letter was not published.
        apply(&mut index, &letter, leased(leases[2]), 305);
        assert_eq!(since(&index), Some(Timestamp::from_millis(100)));
        apply(&mut index, &letter, LetterEntry::Ended { lease: leases[2] }, 306);
        apply(&mut index, &letter, leased(leases[0]), 307);
        assert_eq!(since(&index), None);
    }

    #[test]
    fn a_closed_letter_stays_closed_whatever_comes_later() {
        let (letter, lease) = (letter(1, 1), Uuid::now_v7());
        let mut index = index(std::slice::from_ref(&letter));
        let key = LetterKey::of(&letter);
        apply(&mut index, &letter, LetterEntry::Resolved(Resolution::parked("ann", "later")), 1);
        assert!(index.is_parked(&key) && !index.is_closed(&key));
        apply(&mut index, &letter, LetterEntry::Resolved(Resolution::redriven("ann")), 2);
        for entry in [leased(lease), LetterEntry::Resolved(Resolution::parked("ann", "late"))] {
            apply(&mut index, &letter, entry, 3);
            assert!(index.is_closed(&key) && index.lease_of(&key).is_none());
        }
        assert_eq!(index.find(&letter.id()), None);
    }

    #[test]
    fn of_one_identity_the_letter_of_the_older_topic_comes_first() {
        let (old, new) = (letter(1, 1), letter(1, 2));
        let mut index = index(&[old.clone(), new.clone(), old.clone()]);
        let listed = |index: &Index| {
            let all = index.candidates(&LetterQuery::default(), None, usize::MAX);
            all.into_iter().flat_map(|(_, letters)| letters).map(|(offset, _)| offset).collect::<Vec<_>>()
        };
        assert_eq!(listed(&index), [0]);
        apply(&mut index, &old, LetterEntry::Resolved(Resolution::redriven("ann")), 1);
        assert_eq!(listed(&index), [1]);
        assert_eq!(index.find(&new.id()), Some(&LetterKey::of(&new)));
    }

    #[test]
    fn a_page_takes_no_more_letters_than_it_needs() {
        let letters: Vec<DeadLetter> = (0..10).map(|offset| letter(offset, 1)).collect();
        let index = index(&letters);
        let page = |after: Option<&Place>, max: usize| {
            let found = index.candidates(&LetterQuery::default(), after, max);
            found.into_iter().flat_map(|(_, letters)| letters).map(|(offset, _)| offset).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 3), [0, 1, 2]);
        assert_eq!(page(Some(&(at(), 2)), 3), [3, 4, 5]);
        assert_eq!(page(Some(&(at(), 7)), 3), [8, 9]);
        assert_eq!(index.count(&LetterQuery::default(), |_| 4), 6);
    }

    #[test]
    fn a_few_named_letters_are_found_without_the_others() {
        let letters: Vec<DeadLetter> = (0..100).rev().map(|offset| letter(offset, 1)).collect();
        let index = index(&letters);
        let named = |offsets: &[u64]| {
            let ids = offsets.iter().map(|offset| letter(*offset, 1).id());
            let query = LetterQuery::default().with_ids(ids);
            let found = index.candidates(&query, None, usize::MAX).into_iter().flat_map(|(_, letters)| letters);
            let found: Vec<u64> = found.map(|(offset, _)| offset).collect();
            assert_eq!(index.count(&query, |_| 0), found.len() as u64);
            (index.few(&query).map(|few| few.values().map(Vec::len).sum::<usize>()), found)
        };
        assert_eq!(named(&[7, 3, 500]), (Some(2), vec![92, 96]), "in the order of burying");
        assert_eq!(named(&(0..50).collect::<Vec<_>>()).0, None);
    }

    #[test]
    fn what_an_older_version_redrove_is_closed() {
        let letters = [letter(1, 1), letter(2, 1), letter(3, 1)];
        let mut index = index(&letters);
        assert_eq!(index.services_to_look_up(), [Name::from("svc")]);
        index.add_older("svc".into(), HashMap::from([(at(), 2)]));
        let closed: Vec<_> = letters.iter().map(|letter| index.is_closed(&LetterKey::of(letter))).collect();
        assert_eq!(closed, [true, true, false]);
        assert!(index.services_to_look_up().is_empty());
    }
}

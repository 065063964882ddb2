//! The epoch of an assignment: larger than that of every earlier assignment of the partition, to any member.
//!
//! The broker's generation decides between members, because it does not depend on clocks that agree. But it starts
//! over when the group is created anew: after the group is deleted, or its commits expire. So each commit carries a
//! [`EpochMark`]: the time from which generations are counted. The mark stays with the partition across owners for as
//! long as its commits do, and a new one is taken when they are gone: by then more time has passed than there were
//! generations. A group that changes its protocol while it has no members keeps its commits and starts over, too: a
//! mark of the other protocol is a lower bound of the new base.

use tidings_core::Timestamp;

/// 2020, in milliseconds: epochs count from there.
const BEGINNING: u64 = 1_577_836_800_000;
/// Bits of the milliseconds omitted from a base: its unit is 8 ms. Overall, a group has fewer generations than units
/// of lifetime: each generation takes the members a few round trips and the broker a write.
const BASE_SHIFT: u32 = 3;
/// The lower bits of an epoch, which decide within a generation. Together with the upper bits, which last until the
/// year 2089, these are 63 bits: integers in databases are signed.
const CLOCK_BITS: u32 = 25;
/// Unit of the clock where there is a mark, in milliseconds: the clock then lasts for four years.
const TICK: u64 = 4_000;
/// The clock stops here rather than overflow into the generation.
const MAX_CLOCK: u64 = (1 << CLOCK_BITS) - 1;
const MAX_UPPER: u64 = u64::MAX >> 1 >> CLOCK_BITS;
/// Name of the newer group protocol in a mark.
const NEWER: &str = "consumer";
const CLASSIC: &str = "classic";

/// A group's generation, and whether it belongs to the newer protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) number: u32,
    pub(super) newer: bool,
}

/// An epoch, and the time from which its generations are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct EpochMark {
    base: u64,
    newer: bool,
    pub(super) epoch: u64,
}

impl EpochMark {
    /// Returns the mark of an assignment in this generation; `before` is the mark of the partition's commit.
    pub(super) fn next(before: Option<Self>, generation: Generation, now: Timestamp) -> Self {
        let Generation { number, newer } = generation;
        let millis = u64::try_from(now.millis()).unwrap_or(0).saturating_sub(BEGINNING);
        let unit = 1 << BASE_SHIFT;
        // As if each earlier generation had taken one unit: the epoch is the current time.
        let fresh = (millis >> BASE_SHIFT).saturating_sub(u64::from(number));
        let ticks = |base: u64| millis.saturating_sub(base << BASE_SHIFT) / TICK;
        // A mark from years ago would leave no room for the clock.
        let before = before.filter(|before| unit + ticks(before.base) < MAX_CLOCK);
        let base = match before {
            Some(before) if before.newer == newer => before.base,
            // Above the generations of the other protocol.
            Some(before) => fresh.max(before.epoch >> CLOCK_BITS),
            None => fresh,
        };
        // Two runs of a static member have the same generation; the clock distinguishes them.
        let clock = if before.is_some() { unit + ticks(base) } else { millis % unit };
        let upper = base.saturating_add(u64::from(number)).min(MAX_UPPER);
        let made = Self { base, newer, epoch: (upper << CLOCK_BITS) | clock.min(MAX_CLOCK) };
        match before {
            // Only in the same generation: a member of an earlier generation than the commit has been replaced, and
            // must stay below.
            Some(before) if before.epoch >> CLOCK_BITS == upper => made.after(before.epoch),
            _ => made,
        }
    }

    /// Returns the mark with an epoch larger than `epoch`. The epochs of later generations are larger still: their
    /// base grows by the same amount.
    pub(super) fn after(self, epoch: u64) -> Self {
        let raised = self.epoch.max(epoch.saturating_add(1));
        let base = self.base + ((raised >> CLOCK_BITS) - (self.epoch >> CLOCK_BITS));
        Self { base, epoch: raised, ..self }
    }

    /// Formats the mark for a commit's metadata. Other clients see it; earlier versions parse it.
    pub(super) fn to_text(self) -> String {
        format!("{}/{}/{}", if self.newer { NEWER } else { CLASSIC }, self.base, self.epoch)
    }

    /// Parses a mark; one that is out of range counts as absent, since the metadata may be
    /// anyone's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (protocol, numbers) = text.split_once('/')?;
        let (base, epoch) = numbers.split_once('/')?;
        let (base, epoch) = (base.parse().ok()?, epoch.parse().ok()?);
        let known = [NEWER, CLASSIC].contains(&protocol) && base <= MAX_UPPER && epoch < u64::MAX >> 1;
        known.then_some(Self { base, newer: protocol == NEWER, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day in 2026.
    const TODAY: i64 = 1_795_000_000_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(TODAY + millis)
    }

    fn next(before: Option<EpochMark>, number: u32, now: Timestamp) -> EpochMark {
        EpochMark::next(before, Generation { number, newer: true }, now)
    }

    #[test]
    fn a_generation_counts_for_more_than_any_clock() {
        let mut last = next(None, 7, at(0));
        // A day fast, a day slow, and long after.
        for (generation, millis) in [(8, 86_400_000), (9, -86_400_000), (10, 0), (11, 100_000_000_000), (12, 0)] {
            let next = next(Some(last), generation, at(millis));
            assert!(next.epoch > last.epoch, "generation {generation}: {last:?} and then {next:?}");
            assert_eq!(next.base, last.base);
            last = next;
        }
        // A member of an earlier generation that resumes.
        assert!(next(Some(last), 11, at(110_000_000_000)).epoch < last.epoch);
    }

    #[test]
    fn a_group_that_begins_anew_goes_on_above_the_old_one() {
        let old = next(Some(next(None, 1, at(0))), 500, at(3_600_000));
        let new = next(None, 1, at(3_700_000));
        assert!(new.epoch > old.epoch, "{old:?} and then {new:?}");
    }

    #[test]
    fn a_group_that_changes_its_protocol_goes_on_above() {
        let old = next(Some(next(None, 1, at(0))), 500, at(3_600_000));
        let new = EpochMark::next(Some(old), Generation { number: 1, newer: false }, at(3_700_000));
        assert!(new.epoch > old.epoch, "{old:?} and then {new:?}");
        // Nothing was settled since: the mark still belongs to the old protocol.
        let later = EpochMark::next(Some(old), Generation { number: 4, newer: false }, at(3_800_000));
        assert!(later.epoch > new.epoch, "{new:?} and then {later:?}");
        // With a clock that was an hour fast as well.
        let fast = next(Some(next(None, 1, at(3_600_000))), 500, at(3_600_000));
        let classic = EpochMark::next(Some(fast), Generation { number: 1, newer: false }, at(0));
        assert!(classic.epoch > fast.epoch, "{fast:?} and then {classic:?}");
        // Also in generations that the old protocol has had, and beyond them.
        let last = EpochMark::next(Some(old), Generation { number: 501, newer: false }, at(3_900_000));
        assert!(last.epoch > later.epoch, "{later:?} and then {last:?}");
        let back = next(Some(last), 502, at(3_000_000));
        assert!(back.epoch > last.epoch, "members of both are in it at once: {last:?} and then {back:?}");
    }

    #[test]
    fn whoever_comes_after_a_raised_epoch_is_above_it() {
        // A clock that is a day fast, with nothing committed; then with another member's mark.
        let fast = next(None, 3, at(86_400_000));
        let raised = next(Some(next(None, 4, at(0))), 5, at(1)).after(fast.epoch);
        let later = next(Some(raised), 6, at(2));
        assert!(fast.epoch < raised.epoch && raised.epoch < later.epoch, "{fast:?}, {raised:?}, {later:?}");
    }

    #[test]
    fn a_mark_of_years_ago_leaves_room_for_the_clock() {
        let mut last = next(None, 1, at(0));
        for years in 1..=40 {
            let next = next(Some(last), 1, at(years * 31_557_600_000));
            assert!(next.epoch > last.epoch, "after {years} years: {last:?} and then {next:?}");
            last = next;
        }
    }

    #[test]
    fn a_static_member_comes_back_to_its_generation_with_a_larger_epoch() {
        let first = next(None, 3, at(0));
        assert!(next(None, 3, at(1)).epoch > first.epoch, "nothing is committed");
        let second = next(Some(first), 3, at(2));
        let third = next(Some(second), 3, at(3));
        let late = next(Some(first), 3, at(86_400_000));
        assert!(first.epoch < second.epoch && second.epoch < third.epoch && third.epoch < late.epoch);
        let slow = next(Some(late), 3, at(-5_000));
        assert!(slow.epoch > late.epoch);
    }

    #[test]
    fn an_epoch_is_a_databases_number_for_decades() {
        let last = Timestamp::from_millis(3_755_000_000_000);
        let mark = next(Some(next(None, 1, at(0))), u32::MAX, last);
        assert!(i64::try_from(mark.epoch).is_ok(), "{mark:?}");
        assert!(next(None, 1, last).epoch > next(None, 1, at(0)).epoch);
        assert_eq!(EpochMark::parse(&mark.to_text()), Some(mark));
        assert_eq!(EpochMark::parse("classic/1/-2"), None);
    }
}

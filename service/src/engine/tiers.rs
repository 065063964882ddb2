//! The retry topics of a service: their names, their order, and when their records are due.
//!
//! They are further topics of the service's consumer group. Whether one member has partition `p` of a topic and of its
//! retry topics does not matter: a record in a retry topic holds no key of its own topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidings_core::{
    Cleanup, DEAD_LETTER_ROOM, Error, ErrorKind, Name, Result, Timestamp, Topic, check_topic_name,
    dead_letter_state_topic, dead_letter_topic,
};
use tokio::time::Instant;

use super::wall_clock::{instant_of, time_at};
use crate::retry::Retry;
use crate::time::after;

/// Retention of a retry topic beyond its delay, so that waiting records survive an outage of the service.
const KEPT_LONGER: Duration = Duration::from_secs(7 * 24 * 3_600);
/// A due time that is further off than the delay and this time comes from a clock that is wrong, or was forged.
const WRONG_CLOCK: Duration = Duration::from_secs(60);
/// The maximum record size that is assumed if a topic states none: Kafka's default.
const USUAL_RECORD_BYTES: u64 = 1_048_588;
/// The index of a retry topic among those of its topic: first those in which records are put, then the former ones.
pub(crate) type Level = u32;

/// The retry topics of a service.
#[derive(Debug)]
pub(crate) struct Tiers {
    delays: Vec<Duration>,
    /// Delays whose topics are read, and not written any more.
    former: Vec<Duration>,
    max_clock_skew: Duration,
    /// The retry topics of each topic, in the order of the delays.
    of_topic: BTreeMap<Name, Vec<Name>>,
    /// The topic and the level of each retry topic.
    places: BTreeMap<Name, (Name, Level)>,
}

impl Tiers {
    /// Names the retry topics of `topics`; `None` if the policy has none.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an invalid delay or name.
    pub(crate) fn new(service: &str, topics: &[Name], retry: &Retry) -> Result<Option<Self>> {
        if delays_of(retry).next().is_none() {
            return Ok(None);
        }
        let wrong = |what: String| Error::new(ErrorKind::Invalid, format!("name the retry topics: {what}"));
        let (count, most) = (delays_of(retry).count(), Retry::MAX_TOPICS);
        if count > most {
            return Err(wrong(format!("there are {count} delays, and at most {most} are possible")));
        }
        if let Some(delay) = delays_of(retry).find(|delay| delay.as_millis() == 0) {
            return Err(wrong(format!("the delay {delay:?} is below 1 ms")));
        }
        let letters = topics.iter().flat_map(|topic| [dead_letter_topic(topic), dead_letter_state_topic(topic)]);
        let mut taken: BTreeSet<Name> = letters.chain(topics.iter().cloned()).collect();
        let (mut of_topic, mut places) = (BTreeMap::new(), BTreeMap::new());
        for topic in topics {
            let names: Vec<_> = delays_of(retry).map(|delay| name(topic, service, delay)).collect();
            for (level, name) in (0..).zip(&names) {
                check_topic_name(name).map_err(|e| e.in_context(format_args!("name the retry topics of {topic:?}")))?;
                if !taken.insert(name.clone()) {
                    return Err(wrong(format!("{name:?} is another topic of the service, or of an equal delay")));
                }
                places.insert(name.clone(), (topic.clone(), level));
            }
            of_topic.insert(topic.clone(), names);
        }
        let (delays, former) = (retry.topics.clone(), retry.former_topics.clone());
        Ok(Some(Self { delays, former, max_clock_skew: retry.max_clock_skew, of_topic, places }))
    }

    /// Returns all retry topics, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.places.keys()
    }

    /// Returns the delays of the topics in which records are put, in order.
    pub(crate) fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// Returns the topic and the level of a retry topic; `None` for another topic.
    pub(crate) fn place(&self, topic: &Name) -> Option<&(Name, Level)> {
        self.places.get(topic)
    }

    /// Returns the level after the one in which a record waited, with its delay. After a former one that is the first
    /// with a longer delay.
    pub(crate) fn next(&self, waited: Option<Level>) -> Option<(Level, Duration)> {
        let is_after = |(level, delay): &(Level, Duration)| match waited {
            None => true,
            Some(waited) => match self.former.get((waited as usize).wrapping_sub(self.delays.len())) {
                Some(former) => delay > former,
                None => *level > waited,
            },
        };
        (0..).zip(self.delays.iter().copied()).find(is_after)
    }

    /// Returns the delay of a level.
    fn delay(&self, level: Level) -> Duration {
        self.delays.iter().chain(&self.former).nth(level as usize).copied().unwrap_or_default()
    }

    /// Returns the retry topic of `topic` at this level.
    pub(crate) fn topic(&self, topic: &Name, level: Level) -> Option<&Name> {
        self.of_topic.get(topic)?.get(level as usize)
    }

    /// Returns the retry topics to create for `topic`, which has as many partitions.
    pub(crate) fn specs(&self, topic: &Topic) -> Vec<Topic> {
        let names = self.of_topic.get(&topic.name).into_iter().flatten();
        let spec = |(name, delay): (&Name, &Duration)| {
            let mut spec = Topic::new(name.clone())
                .with_partitions(topic.partitions)
                .with_cleanup(Cleanup::Delete)
                .with_retention(delay.saturating_add(KEPT_LONGER))
                .with_max_record_bytes(topic.max_record_bytes.unwrap_or(USUAL_RECORD_BYTES) + DEAD_LETTER_ROOM);
            spec.replication = topic.replication;
            spec
        };
        names.zip(self.delays.iter().chain(&self.former)).map(spec).collect()
    }

    /// Returns the current time, and the due time of a record that is forwarded now. Both are rounded up: by the same
    /// clock no record is early.
    pub(crate) fn forwarded(&self, delay: Duration) -> (Timestamp, Timestamp) {
        let now = time_at(Instant::now() + Duration::from_nanos(999_999));
        (now, now.saturating_add(delay))
    }

    /// Returns when a record of this level may run that is due at `due` and was fetched at `fetched`: by this host's clock,
    /// but at the latest [`WRONG_CLOCK`] after its delay. That has passed by then, because the record was forwarded before
    /// it was fetched.
    pub(crate) fn may_run(&self, level: Level, due: Timestamp, fetched: Instant) -> Instant {
        let wait = self.delay(level).saturating_add(self.max_clock_skew).saturating_add(WRONG_CLOCK);
        let latest = after(fetched, wait);
        self.shown(due).min(latest)
    }

    /// Returns whether a record that may run would still wait by its due time.
    pub(crate) fn is_beyond(&self, due: Timestamp, now: Instant) -> bool {
        self.shown(due) > now
    }

    /// Returns when this host's clock has passed `due` by the difference that clocks may have.
    fn shown(&self, due: Timestamp) -> Instant {
        instant_of(due.saturating_add(self.max_clock_skew))
    }
}

/// Returns the delays of all retry topics that are read, in the order of their levels.
fn delays_of(retry: &Retry) -> impl Iterator<Item = Duration> {
    retry.topics.iter().chain(&retry.former_topics).copied()
}

/// Returns the name of a retry topic.
fn name(topic: &str, service: &str, delay: Duration) -> Name {
    format!("{topic}-retry-{service}-{}", text(delay)).into()
}

/// Returns a delay in the largest unit that shows it as a whole number: `90s`, `5m`, `1h`.
fn text(delay: Duration) -> String {
    let millis = delay.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let whole = units.into_iter().find(|(_, unit)| millis.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{millis}ms"), |(unit, length)| format!("{}{unit}", millis / length))
}

/// Returns the names of the retry topics, in order, without checking them.
pub(crate) fn names_of(service: &str, topics: &[Name], retry: &Retry) -> Vec<Name> {
    topics.iter().flat_map(|topic| delays_of(retry).map(|delay| name(topic, service, delay))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(service: &str, topics: &[&str], delays: &[u64]) -> Result<Option<Tiers>> {
        let topics: Vec<Name> = topics.iter().map(|topic| Name::from(*topic)).collect();
        let retry = Retry::never().then_topics(delays.iter().map(|millis| Duration::from_millis(*millis)));
        Tiers::new(service, &topics, &retry)
    }

    #[test]
    fn a_retry_topic_is_named_by_topic_service_and_delay() {
        let delays = [30_000, 300_000, 3_600_000, 90_000, 1_500];
        let tiers = tiers("billing", &["orders"], &delays).unwrap().unwrap();
        let names: Vec<_> = (0..5).filter_map(|level| tiers.topic(&"orders".into(), level)).cloned().collect();
        let suffixes = ["30s", "5m", "1h", "90s", "1500ms"];
        assert_eq!(names, suffixes.map(|delay| Name::from(format!("orders-retry-billing-{delay}"))));
        assert_eq!(tiers.place(&names[2]), Some(&("orders".into(), 2)));
        assert_eq!(tiers.next(Some(4)), None);
        assert_eq!(tiers.next(Some(0)), Some((1, Duration::from_secs(300))));
    }

    #[test]
    fn what_no_topic_can_be_is_refused() {
        let refused = |service: &str, topics: &[&str], delays: &[u64], text: &str| {
            let error = tiers(service, topics, delays).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.report().contains(text), "{}", error.report());
        };
        refused(&"s".repeat(250), &["t"], &[1_000], "249");
        refused("a service", &["t"], &[1_000], "a service");
        refused("s", &["t"], &[1_000, 1_000], "equal delay");
        refused("s", &["t", "t-retry-s-1s"], &[1_000], "another topic");
        refused("b-retry-c", &["a", "a-retry-b"], &[0], "below 1 ms");
        refused("s", &["t"], &[7; 17], "at most 16");
        assert!(tiers("s", &["t"], &[]).unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_record_runs_before_its_delay_has_passed() {
        let tiers = tiers("s", &["t"], &[30_000]).unwrap().unwrap();
        tokio::time::sleep(Duration::from_micros(1_300)).await;
        let sent = Instant::now();
        let (at, due) = tiers.forwarded(Duration::from_secs(30));
        assert_eq!(due, at.saturating_add(Duration::from_secs(30)));
        let waited = tiers.may_run(0, due, Instant::now()).saturating_duration_since(sent);
        assert!(waited >= Duration::from_secs(30) && waited <= Duration::from_millis(30_001), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_waits_for_the_largest_difference_of_clocks() {
        let retry = Retry::never().then_topics([Duration::from_secs(5)]).with_max_clock_skew(Duration::from_secs(2));
        let tiers = Tiers::new("s", &["t".into()], &retry).unwrap().unwrap();
        let (_, due) = tiers.forwarded(Duration::from_secs(5));
        let waited = tiers.may_run(0, due, Instant::now()).saturating_duration_since(Instant::now());
        assert!(waited >= Duration::from_secs(7), "{waited:?}");
        let latest = tiers.may_run(0, Timestamp::from_millis(i64::MAX), Instant::now());
        assert_eq!(latest, Instant::now() + Duration::from_secs(67), "the due time is by a clock that was wrong");
        let ahead = Timestamp::from_millis(due.millis() + 2_000);
        let waited = tiers.may_run(0, ahead, Instant::now()).saturating_duration_since(Instant::now());
        assert!(waited >= Duration::from_secs(9), "a clock that is ahead by the skew counts: {waited:?}");
    }

    #[test]
    fn a_former_delay_is_followed_by_the_next_longer_one() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let retry = Retry::never().then_topics([minutes(1), minutes(60)]).with_former_topics([minutes(5), minutes(90)]);
        let tiers = Tiers::new("s", &["t".into()], &retry).unwrap().unwrap();
        assert_eq!(tiers.place(&"t-retry-s-5m".into()), Some(&("t".into(), 2)));
        let next = [None, Some(0), Some(1), Some(2), Some(3)].map(|level| tiers.next(level).map(|(level, _)| level));
        assert_eq!(next, [Some(0), Some(1), None, Some(1), None]);
        let former = Retry::never().with_former_topics([minutes(5)]);
        let tiers = Tiers::new("s", &["t".into()], &former).unwrap().unwrap();
        assert_eq!((tiers.next(None), tiers.next(Some(0))), (None, None));
        let specs = tiers.specs(&Topic::new("t"));
        assert_eq!((specs.len(), specs[0].cleanup), (1, Some(Cleanup::Delete)));
    }
}

//! Members in separate processes, killed and stopped: nothing is lost or out of order, no member commits after its
//! partitions were taken over, and only events uncommitted at the fault are processed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tidings_core::{ConsumerOptions, Name, Step, Topic, TopicPartition, Transport, dead_letter_topic};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, KafkaOptions};
use tokio::time::{Instant, sleep};

use crate::CAUGHT_UP_WITHIN;
use crate::book::{Book, Entry, Writers, entry, none};
use crate::chaos::no_lag;
use crate::child::{Member, SESSION};
use crate::common::{TestResult, fresh_name, make, next};

const MEMBERS: usize = 3;
const PARTITIONS: u32 = 6;
/// Time limit for the other members to take over.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);
/// Maximum distance between the lowest unsettled offset and a settled one.
const GAP: u64 = 1_000;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A line of the file: an action of a member.
#[derive(Debug, Clone)]
struct Line {
    done: bool,
    member: String,
    partition: u32,
    offset: u64,
    event: Entry,
}

/// A member was killed or stopped.
#[derive(Debug)]
struct Fault {
    victim: String,
    /// The commits at that time.
    committed: BTreeMap<u32, u64>,
    /// The number of lines at that time.
    began: usize,
    /// The number of lines when it resumed.
    resumed: Option<usize>,
}

struct Field {
    witness: KafkaTransport,
    brokers: String,
    topic: Name,
    file: String,
    protocol: GroupProtocol,
    members: Vec<Member>,
    started: usize,
    faults: Vec<Fault>,
}

async fn broker() -> TestResult<Kafka> {
    let millis = SESSION.as_millis().to_string();
    let options = KafkaOptions::new().with_property("group.consumer.session.timeout.ms", millis);
    Ok(Kafka::start(options.with_property("group.consumer.heartbeat.interval.ms", "500")).await?)
}

pub(crate) async fn survive(kills: usize, stops: usize) -> TestResult {
    let kafka = broker().await?;
    for protocol in [GroupProtocol::Consumer, GroupProtocol::Classic] {
        // The newer protocol is the default, and gets the larger part.
        let (kills, stops) = match protocol {
            GroupProtocol::Classic => (kills / 3, stops / 2),
            _ => (kills - kills / 3, stops - stops / 2),
        };
        Field::new(&kafka, protocol).await?.survive(kills, stops).await?;
    }
    Ok(())
}

/// Starts groups of three members each, all at once.
pub(crate) async fn join(groups: usize) -> TestResult {
    let kafka = broker().await?;
    for _ in 0..groups {
        Field::new(&kafka, GroupProtocol::Consumer).await?.survive(0, 0).await?;
    }
    Ok(())
}

impl Field {
    async fn new(kafka: &Kafka, protocol: GroupProtocol) -> TestResult<Self> {
        let brokers = kafka.bootstrap();
        let witness = KafkaTransport::connect(KafkaConfig::new(brokers.split(','))).await?;
        let topic = fresh_name("processes");
        let topics = [Topic::new(topic.clone()).with_partitions(PARTITIONS), Topic::new(dead_letter_topic(&topic))];
        make(&witness, &topics).await?;
        let file = std::env::temp_dir().join(format!("tidings-{topic}")).display().to_string();
        fs::write(&file, "")?;
        let mut field =
            Self { witness, brokers, topic, file, protocol, members: Vec::new(), started: 0, faults: Vec::new() };
        for _ in 0..MEMBERS {
            field.start()?;
        }
        Ok(field)
    }

    fn start(&mut self) -> TestResult {
        let name = format!("m{}", self.started);
        self.started += 1;
        self.members.push(Member::start(name, &self.brokers, &self.topic, &self.file, self.protocol)?);
        Ok(())
    }

    async fn survive(mut self, kills: usize, stops: usize) -> TestResult {
        let book = Arc::new(Book::default());
        let writers = Writers::start(&self.witness, &self.topic, &book).await?;
        self.all_move_on(&BTreeMap::new()).await?;
        for round in 0..kills.max(stops) {
            if round < kills {
                self.kill().await?;
            }
            if round < stops {
                self.stop().await?;
            }
        }
        writers.stop().await?;
        let lag = no_lag(&self.witness, &self.group(), CAUGHT_UP_WITHIN).await?;
        for member in &mut self.members {
            assert!(member.is_running()?, "{} ended by itself", member.name);
        }
        self.members.clear();
        let lines = self.lines()?;
        let doubled = self.check(&book, &lines)?;
        let commits = self.commits_never_go_back().await?;
        println!(
            "{:?}: {kills} kills, {stops} stops; {} events, {doubled} effects doubled, {commits} commits, no lag after {lag:?}",
            self.protocol,
            book.stored().len(),
        );
        fs::remove_file(&self.file)?;
        Ok(())
    }

    fn group(&self) -> Name {
        format!("{}-group", self.topic).into()
    }

    async fn kill(&mut self) -> TestResult {
        let mut member = self.members.remove(fastrand::usize(..self.members.len()));
        member.kill()?;
        let (committed, began) = (self.committed().await?, self.lines()?.len());
        self.faults.push(Fault { victim: member.name.clone(), committed: committed.clone(), began, resumed: None });
        self.start()?;
        self.all_move_on(&committed).await
    }

    async fn stop(&mut self) -> TestResult {
        let index = fastrand::usize(..self.members.len());
        self.members[index].signal(Signal::STOP)?;
        let (committed, began) = (self.committed().await?, self.lines()?.len());
        let stopped = Instant::now();
        self.all_move_on(&committed).await?;
        // Beyond the session timeout, even if none of its partitions was the last to progress.
        sleep((SESSION * 2).saturating_sub(stopped.elapsed())).await;
        let resumed = Some(self.lines()?.len());
        self.members[index].signal(Signal::CONT)?;
        self.faults.push(Fault { victim: self.members[index].name.clone(), committed, began, resumed });
        self.is_whole().await
    }

    /// Returns the commits, by partition.
    async fn committed(&self) -> TestResult<BTreeMap<u32, u64>> {
        let lag = self.witness.admin().await?.group_lag(&self.group()).await?;
        Ok(lag.into_iter().filter_map(|p| Some((p.partition.partition, p.committed?))).collect())
    }

    /// Waits until each partition has been committed beyond `before`: a member has taken it over.
    async fn all_move_on(&self, before: &BTreeMap<u32, u64>) -> TestResult {
        let ends = Instant::now() + TAKEN_OVER_WITHIN;
        loop {
            let now = self.committed().await.unwrap_or_default();
            let moved = |p: u32| now.get(&p).copied().unwrap_or(0) > before.get(&p).copied().unwrap_or(0) + 50;
            if (0..PARTITIONS).all(moved) {
                return Ok(());
            }
            if Instant::now() > ends {
                return Err(format!("not taken over in time: {before:?}, then {now:?}").into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until all members have partitions.
    async fn is_whole(&self) -> TestResult {
        let ends = Instant::now() + TAKEN_OVER_WITHIN;
        loop {
            let group = self.witness.admin().await?.describe_group(&self.group()).await?;
            let owning = group.members.iter().filter(|member| !member.partitions.is_empty()).count();
            if owning == MEMBERS && group.members.len() == MEMBERS {
                return Ok(());
            }
            if Instant::now() > ends {
                return Err(format!("not all members came back: {group:?}").into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn lines(&self) -> TestResult<Vec<Line>> {
        let text = fs::read_to_string(&self.file)?;
        let line = |line: &str| -> TestResult<Line> {
            let [what, member, partition, offset, value] = line.split(' ').collect::<Vec<_>>()[..] else {
                return Err(format!("a line that nobody wrote: {line}").into());
            };
            let (partition, offset) = (partition.parse()?, offset.parse()?);
            Ok(Line { done: what == "done", member: member.to_owned(), partition, offset, event: entry(value)? })
        };
        text.lines().map(line).collect()
    }

    /// Returns the number of duplicate effects.
    fn check(&self, book: &Book, lines: &[Line]) -> TestResult<usize> {
        let stored = book.stored();
        let mut wrong = Vec::new();
        let mut done: BTreeMap<&Entry, Vec<&Line>> = BTreeMap::new();
        let mut furthest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut by_member: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.done) {
            let (key, number) = (&*line.event.0, line.event.1);
            let effects = done.entry(&line.event).or_default();
            let first = effects.is_empty();
            effects.push(line);
            if first && stored.contains(&line.event) {
                let before = furthest.insert(key, number);
                if before.is_some_and(|before| before > number) {
                    wrong.push(format!("{line:?} came after number {before:?}"));
                }
            }
            let before = by_member.insert((&line.member, key), number);
            if before.is_some_and(|before| before >= number) {
                wrong.push(format!("{line:?}: the same member had done number {before:?}"));
            }
        }
        wrong.extend(stored.iter().filter(|event| !done.contains_key(event)).map(|event| format!("{event:?} is lost")));
        let doubled: Vec<_> = done.values().filter(|effects| effects.len() > 1).collect();
        let begun = Begun::of(lines);
        for effects in &doubled {
            if !effects.iter().any(|line| self.was_open(line)) && !begun.has_gap_before(effects) {
                wrong.push(format!("doubled though it was committed: {effects:?}"));
            }
        }
        wrong.extend(self.begun_by_zombies(lines));
        none(&wrong)?;
        Ok(doubled.len())
    }

    /// Returns whether the member's action was uncommitted when the member was killed or stopped.
    fn was_open(&self, line: &Line) -> bool {
        let open = |fault: &Fault| line.offset >= fault.committed.get(&line.partition).copied().unwrap_or(0);
        self.faults.iter().any(|fault| fault.victim == line.member && open(fault))
    }

    /// Returns the actions that stopped members began after they resumed, although others had begun them. After the
    /// next fault they may own the partition again.
    fn begun_by_zombies(&self, lines: &[Line]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (n, fault) in self.faults.iter().enumerate() {
            let Some(resumed) = fault.resumed else { continue };
            let until = self.faults.get(n + 1).map_or(lines.len(), |next| next.began);
            let (before, after) = lines[..until].split_at(resumed);
            let others: BTreeSet<&Entry> =
                before.iter().filter(|line| line.member != fault.victim).map(|line| &line.event).collect();
            let late = after.iter().filter(|line| !line.done && line.member == fault.victim);
            let late = late.filter(|line| others.contains(&line.event));
            wrong.extend(late.map(|line| format!("a zombie went on and began {line:?}")));
        }
        wrong
    }

    /// Reads the coordinator's records about the group. Returns the number of commits.
    async fn commits_never_go_back(&self) -> TestResult<usize> {
        let offsets = Name::from_static("__consumer_offsets");
        let described = self.witness.admin().await?.describe_topics(std::slice::from_ref(&offsets)).await?.remove(0)?;
        let mut open: BTreeMap<TopicPartition, u64> = described
            .partitions
            .iter()
            .filter(|p| p.end > p.start)
            .map(|p| (TopicPartition::new(offsets.clone(), p.partition), p.end))
            .collect();
        let options = ConsumerOptions::new(format!("{}-reader", self.topic), [offsets]);
        let consumer = self.witness.consumer(options.with_session_timeout(SESSION)).await?;
        let mut commits = 0;
        // The last commits, by the partition in which they are recorded.
        let mut written: BTreeMap<TopicPartition, BTreeMap<u32, u64>> = BTreeMap::new();
        while !open.is_empty() {
            let fetched = match next(&*consumer).await? {
                Step::Records(fetched) => fetched,
                // The partition is read from its start, and again where the reader had lost it.
                Step::Assigned(given) => {
                    given.iter().for_each(|assignment| drop(written.remove(&assignment.partition)));
                    continue;
                }
                _ => continue,
            };
            let last = written.entry((**fetched.batch.origin()).clone()).or_default();
            for record in fetched.batch.records() {
                let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
                let Some((partition, offset)) = self.commit(key, value) else { continue };
                let before = last.insert(partition, offset).unwrap_or(0);
                assert!(before <= offset, "partition {partition}: {offset} was committed after {before}");
                commits += 1;
            }
            open.retain(|partition, end| *partition != **fetched.batch.origin() || fetched.next_offset < *end);
        }
        consumer.close().await?;
        assert!(commits > 0, "no commit was found");
        Ok(commits)
    }

    /// Returns the partition and offset of a commit of this group.
    fn commit(&self, key: &[u8], value: &[u8]) -> Option<(u32, u64)> {
        let (version, rest) = key.split_first_chunk::<2>()?;
        let (group, rest) = text(rest)?;
        let (topic, rest) = text(rest)?;
        let ours =
            i16::from_be_bytes(*version) <= 1 && group == self.group().as_bytes() && topic == self.topic.as_bytes();
        let partition = u32::from_be_bytes(*rest.first_chunk()?);
        let offset = u64::from_be_bytes(*value.get(2..)?.first_chunk()?);
        ours.then_some((partition, offset))
    }
}

/// Actions that each member has begun, by partition.
struct Begun(BTreeMap<(String, u32), BTreeSet<u64>>);

impl Begun {
    fn of(lines: &[Line]) -> Self {
        let mut begun: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
        for line in lines.iter().filter(|line| !line.done) {
            begun.entry((line.member.clone(), line.partition)).or_default().insert(line.offset);
        }
        Self(begun)
    }

    /// Returns whether a duplicate effect lay, at an orderly handover of its partition, after an event that had not
    /// begun: the committed offset is the lowest unsettled one. Its new owner then began an earlier event that the
    /// old one had not.
    fn has_gap_before(&self, effects: &[&Line]) -> bool {
        let [first, second, ..] = effects else { return false };
        let of = |line: &Line| self.0.get(&(line.member.clone(), first.partition));
        let (Some(old), Some(new)) = (of(first), of(second)) else { return false };
        new.range(first.offset.saturating_sub(GAP)..first.offset).any(|offset| !old.contains(offset))
    }
}

/// Splits off a text with its length prefix, and returns the rest.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

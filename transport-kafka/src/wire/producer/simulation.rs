//! Simulates brokers that lose, delay, repeat and refuse the producer's requests, by seed.
//!
//! Partitions are logs with the rules by which Kafka's brokers accept a batch of an idempotent
//! producer. A cut connection leaves copies of requests that brokers handle at any later time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::simulated_log::{Log, Numbered};
use super::{Answer, Completion, Fate, Identity, SendQueue, SendSettings};
use crate::wire::records::ProducerState;

const BROKERS: i32 = 3;
const PARTITIONS: usize = 2;
const SEEDS: u64 = 3_000;
/// Number of steps with faults, of one seed.
const STEPS: usize = 600;
const TIMEOUT: Duration = Duration::from_secs(5);
/// After this time without an append, a log may forget producers.
const FORGET: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
struct Request {
    number: u64,
    batches: Vec<(usize, ProducerState, Numbered)>,
}

/// A broker: a connection, whose requests are handled in order, and copies of requests of cut connections.
#[derive(Debug, Default)]
struct Broker {
    arrived: VecDeque<Request>,
    answers: VecDeque<(u64, HashMap<usize, Answer>)>,
    copies: VecDeque<Request>,
}

struct World {
    rng: Rng,
    now: Instant,
    queue: SendQueue<Numbered>,
    logs: Vec<Log>,
    brokers: Vec<Broker>,
    pushed: u64,
    ended: BTreeMap<u64, (usize, Fate)>,
    faults: bool,
    ids: i64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (mut rng, now) = (Rng::with_seed(seed), Instant::now());
        let mut queue = SendQueue::new(SendSettings { delivery_timeout: TIMEOUT, max_request_bytes: 1_000 });
        let log =
            |leader| Log { leader, denied: false, stored: Vec::new(), producers: HashMap::new(), appended_at: now };
        let logs = (0..PARTITIONS).map(|_| log(rng.i32(0..BROKERS))).collect();
        let _numbers: Vec<_> = (0..PARTITIONS).map(|_| queue.add_partition()).collect();
        let brokers = (0..BROKERS).map(|_| Broker::default()).collect();
        Self { rng, now, queue, logs, brokers, pushed: 0, ended: BTreeMap::new(), faults: true, ids: 0 }
    }

    fn push(&mut self) {
        let (first, count) = (self.pushed, self.rng.u32(1..20));
        let poison = (self.rng.u8(..40) == 0).then(|| first + self.rng.u64(..u64::from(count)));
        let batch = Numbered { first, count, poison };
        self.pushed += u64::from(count);
        assert_eq!(self.queue.push(self.rng.usize(..PARTITIONS), batch, self.now), None);
    }

    fn send(&mut self, broker: usize) -> bool {
        let mut batches = Vec::new();
        let add = |partition, producer, batch: &mut Numbered| batches.push((partition, producer, batch.clone()));
        let Some(number) = self.queue.next_request(broker as i32, self.now, add) else { return false };
        if self.faults && self.rng.u8(..50) == 0 {
            let ended = self.queue.lost(number, true, self.now);
            self.end(ended);
        } else {
            self.brokers[broker].arrived.push_back(Request { number, batches });
        }
        true
    }

    /// Lets a broker handle a request.
    fn handle(&mut self, broker: usize, request: &Request) -> HashMap<usize, Answer> {
        let mut answers = HashMap::new();
        for (partition, producer, batch) in &request.batches {
            let fault = if self.faults { self.rng.u8(..80) } else { u8::MAX };
            let (code, offset) = self.logs[*partition].append(broker as i32, *producer, batch, fault, self.now);
            answers.insert(*partition, Answer::of(code, offset));
        }
        answers
    }

    fn handle_arrived(&mut self, broker: usize) -> bool {
        let Some(request) = self.brokers[broker].arrived.pop_front() else { return false };
        let answers = self.handle(broker, &request);
        self.brokers[broker].answers.push_back((request.number, answers));
        true
    }

    fn handle_copy(&mut self, broker: usize) -> bool {
        let Some(request) = self.brokers[broker].copies.pop_front() else { return false };
        let _unsent = self.handle(broker, &request);
        true
    }

    fn deliver(&mut self, broker: usize) -> bool {
        let Some((request, answers)) = self.brokers[broker].answers.pop_front() else { return false };
        let ended = self.queue.answered(request, &answers, self.now);
        self.end(ended);
        true
    }

    fn cut(&mut self, broker: usize) {
        let Broker { arrived, answers, copies } = &mut self.brokers[broker];
        let handled = answers.drain(..).map(|(request, _)| request);
        let lost: Vec<_> = handled.chain(arrived.iter().map(|request| request.number)).collect();
        let copied = self.rng.usize(..=arrived.len());
        copies.extend(arrived.drain(..).take(copied));
        for request in lost {
            let ended = self.queue.lost(request, false, self.now);
            self.end(ended);
        }
    }

    fn refresh(&mut self) {
        for partition in self.queue.without_leader().collect::<Vec<_>>() {
            if self.faults && self.rng.u8(..20) == 0 {
                let ended = self.queue.give_up(partition);
                self.end(ended);
            }
            let stale = self.faults && self.rng.u8(..10) == 0;
            let leader = if stale { self.rng.i32(0..BROKERS) } else { self.logs[partition].leader };
            self.queue.set_leader(partition, Some(leader));
        }
        if self.queue.needs_identity() {
            self.ids += 1;
            self.queue.set_identity(Identity { id: self.ids, epoch: 0 });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let ended = self.queue.expire(self.now);
        self.end(ended);
        for partition in 0..self.logs.len() {
            let log = &mut self.logs[partition];
            if self.now - log.appended_at > FORGET && !log.producers.is_empty() && self.rng.bool() {
                log.producers.clear();
                // No request is in flight for that long.
                for broker in 0..self.brokers.len() {
                    self.cut(broker);
                    self.brokers[broker].copies.clear();
                }
            }
        }
    }

    fn end(&mut self, ended: Vec<Completion<Numbered>>) {
        for Completion { partition, payload, fate } in ended {
            for (position, number) in (0..).zip(payload.numbers()) {
                let fate = match fate {
                    Fate::Stored(offset) => Fate::Stored(offset.map(|offset| offset + position)),
                    fate => fate,
                };
                assert_eq!(self.ended.insert(number, (partition, fate)), None, "a record ended twice");
            }
        }
    }

    /// Gives a partition another leader.
    fn move_leader(&mut self, partition: usize) {
        let log = &mut self.logs[partition];
        let former = std::mem::replace(&mut log.leader, self.rng.i32(0..BROKERS));
        if former == log.leader {
            return;
        }
        // The former leader answers so to batches that it has appended and that wait for replicas.
        if self.rng.bool() {
            let code = if self.rng.u8(..4) == 0 { 3 } else { 6 };
            let waiting = self.brokers[former as usize].answers.iter_mut();
            for answer in waiting.filter_map(|(_, answers)| answers.get_mut(&partition)) {
                if let Answer::Stored(_) = answer {
                    *answer = Answer::of(code, -1);
                }
            }
        }
        // One that has just started remembers the last batch of each producer only.
        if self.rng.bool() {
            for entry in log.producers.values_mut() {
                entry.last.drain(..entry.last.len().saturating_sub(1));
            }
        }
    }

    /// Does one thing at random.
    fn step(&mut self) {
        let broker = self.rng.usize(..self.brokers.len());
        match self.rng.u8(..100) {
            0..15 => self.push(),
            15..50 => drop(self.send(broker)),
            50..68 => drop(self.handle_arrived(broker)),
            68..84 => drop(self.deliver(broker)),
            84..88 => self.refresh(),
            88..90 => self.cut(broker),
            90..92 => drop(self.handle_copy(broker)),
            92 => {
                let partition = self.rng.usize(..PARTITIONS);
                self.move_leader(partition);
                self.logs[partition].denied = self.rng.u8(..10) == 0;
            }
            _ => {
                let most = match self.rng.u8(..50) {
                    0 => 20_000,
                    1..4 => 2_000,
                    _ => 30,
                };
                let time = self.rng.u64(..most);
                self.pass(Duration::from_millis(time));
            }
        }
    }

    /// Ends all faults, and goes on until all batches have ended.
    fn heal(&mut self) {
        self.faults = false;
        self.logs.iter_mut().for_each(|log| log.denied = false);
        let mut rounds = 0;
        while !self.queue.is_empty() {
            self.refresh();
            for broker in 0..self.brokers.len() {
                while self.send(broker) || self.handle_arrived(broker) || self.deliver(broker) {}
            }
            self.pass(Duration::from_millis(10));
            rounds += 1;
            assert!(rounds < 2_000, "batches do not end");
        }
        for broker in 0..self.brokers.len() {
            while self.handle_copy(broker) {}
        }
    }

    fn check(&self) {
        for (partition, log) in self.logs.iter().enumerate() {
            assert!(log.stored.is_sorted_by(|a, b| a < b), "partition {partition}: {:?}", log.stored);
        }
        assert_eq!(self.ended.len() as u64, self.pushed, "each record ends");
        for (number, (partition, fate)) in &self.ended {
            let stored = self.logs[*partition].stored.iter().position(|stored| stored == number);
            match fate {
                Fate::Stored(None) => assert!(stored.is_some(), "record {number} is lost"),
                Fate::Stored(offset) => assert_eq!(stored.map(|at| at as u64), *offset, "record {number}"),
                Fate::Refused(_) | Fate::Expired => assert_eq!(stored, None, "record {number} is stored: {fate:?}"),
                Fate::Unknown => {}
            }
        }
    }
}

/// Simulates a seed, and returns the number of records by outcome.
fn play(seed: u64) -> HashMap<&'static str, usize> {
    let mut world = World::new(seed);
    (0..STEPS).for_each(|_| world.step());
    world.heal();
    world.check();
    let mut counts = HashMap::new();
    for (_, fate) in world.ended.values() {
        let name = match fate {
            Fate::Stored(_) => "stored",
            Fate::Refused(_) => "refused",
            Fate::Expired => "expired",
            Fate::Unknown => "unknown",
        };
        *counts.entry(name).or_default() += 1;
    }
    let epochs = world.logs.iter().flat_map(|log| log.producers.values()).map(|entry| entry.epoch as usize).sum();
    counts.insert("epochs", epochs);
    counts
}

fn play_all(seeds: impl Iterator<Item = u64>) -> HashMap<&'static str, usize> {
    let mut counts = HashMap::new();
    for seed in seeds {
        let played = std::panic::catch_unwind(|| play(seed)).unwrap_or_else(|_| panic!("seed {seed} failed"));
        for (name, count) in played {
            *counts.entry(name).or_default() += count;
        }
    }
    counts
}

#[test]
fn nothing_is_lost_doubled_or_reordered() {
    let counts = play_all(0..SEEDS);
    println!("{counts:?}");
    for (name, least) in
        [("stored", 100_000), ("refused", 1_000), ("expired", 100), ("unknown", 1_000), ("epochs", 1_000)]
    {
        assert!(counts.get(name).is_some_and(|count| *count >= least), "too few {name}: {counts:?}");
    }
}

#[test]
#[ignore = "soak"]
fn soak_nothing_is_lost_doubled_or_reordered() {
    let seconds = std::env::var("TIDINGS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let ends = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    while Instant::now() < ends {
        play_all((0..100).map(|_| fastrand::u64(..)));
    }
}

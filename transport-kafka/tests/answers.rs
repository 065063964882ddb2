//! Runs the same scripts on the memory transport and on a real broker. The answers must be equal line by line, so
//! that the memory transport cannot diverge. Recorded are positions, offsets, backlog, settled records, and the kinds
//! of errors.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::fmt::{Debug, Display};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::{LIMIT, TestResult, next, transport};
use tidings_core::{
    BoxError, Commit, Consumer, ConsumerOptions, CreatePartitionsOptions, DeadLetter, Delivery, ErrorKind, Header,
    Name, Record, ResetOffsetsOptions, ResetTo, Result, SeekTo, Start, Step, StoredRecord, Timestamp, Topic,
    TopicPartition, Transport, dead_letter_topic, is_dead_letter_header, reject,
};
use tidings_kafka::GroupProtocol;
use tidings_memory::{MemoryConfig, MemoryTransport};
use tidings_service::{Retry, Router, Service};
use tidings_testbed::Suite;
use tokio::time::{Instant, timeout};

/// Default limit of brokers.
const MAX_RECORD_BYTES: u64 = 1_048_588;

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(Duration::from_secs(180))
        .with_case("topics_answer_alike", || both("topics", topics))
        .with_case("publishers_answer_alike", || both("publish", publish))
        .with_case("members_answer_alike", || both("members", members))
        .with_case("groups_answer_alike", || both("groups", groups))
        .with_case("dead_letters_answer_alike", || both("letters", letters))
        .with_case("services_settle_alike", || both("services", services))
        .run()
}

/// A transport, and its answers. Its topic is recorded as `t`, its group as `g`.
struct Script {
    on: Arc<dyn Transport>,
    topic: Name,
    group: Name,
    answers: Vec<String>,
}

/// Runs `script` on both transports, and compares the answers.
async fn both(what: &str, script: impl AsyncFn(&mut Script) -> TestResult) -> TestResult {
    let topic = Name::from(format!("answers-{what}-{}-{}", std::process::id(), Timestamp::now().millis()));
    let config = MemoryConfig::new().with_auto_create(false).with_max_record_bytes(MAX_RECORD_BYTES);
    let kafka = transport(GroupProtocol::Auto).await?;
    let all: [Arc<dyn Transport>; 2] = [Arc::new(MemoryTransport::open(config)?), Arc::new(kafka)];
    let mut answers = Vec::new();
    for on in all {
        let mut one = Script { on, topic: topic.clone(), group: format!("{topic}-group").into(), answers: Vec::new() };
        script(&mut one).await?;
        answers.push(one.answers);
    }
    let (memory, kafka) = (&answers[0], &answers[1]);
    let differ: Vec<_> = memory.iter().zip(kafka).filter(|(memory, kafka)| memory != kafka).collect();
    assert!(differ.is_empty(), "memory and Kafka differ: {differ:#?}");
    assert_eq!(memory, kafka);
    assert!(memory.len() > 5, "the script says something: {memory:?}");
    Ok(())
}

impl Script {
    fn say(&mut self, what: &str, answer: impl Display) {
        let answer = answer.to_string().replace(self.group.as_str(), "g").replace(self.topic.as_str(), "t");
        self.answers.push(format!("{what}: {answer}"));
    }

    /// Records an answer, or the kind of its error.
    fn tell<T>(&mut self, what: &str, answer: Result<T>, show: impl Fn(T) -> String) {
        match answer {
            Ok(answer) => self.say(what, show(answer)),
            Err(error) => self.say(what, format!("refused as {}", error.kind())),
        }
    }

    fn tell_all<T: Debug>(&mut self, what: &str, answers: Vec<Result<T>>, show: impl Fn(T) -> String) {
        for answer in answers {
            self.tell(what, answer, &show);
        }
    }

    fn at(&self, partition: u32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), partition)
    }

    async fn create(&mut self, partitions: u32) -> TestResult {
        let letters = Topic::new(dead_letter_topic(&self.topic));
        let topics = [Topic::new(self.topic.clone()).with_partitions(partitions), letters];
        for answer in self.on.admin().await?.create_topics(&topics).await? {
            answer?;
        }
        Ok(())
    }

    async fn put(&mut self, records: Vec<Record>) -> TestResult {
        let publisher = self.on.publisher().await?;
        for answer in publisher.publish(records).await {
            answer?;
        }
        Ok(publisher.close(LIMIT).await?)
    }

    /// Publishes `each` records to each of the partitions.
    async fn fill(&mut self, partitions: u32, each: usize) -> TestResult {
        let topic = self.topic.clone();
        let of = |partition| (0..each).map(move |n| (partition, n));
        let record = |(partition, n): (u32, usize)| Record::new(topic.clone(), n.to_string()).with_partition(partition);
        let records = (0..partitions).flat_map(of).map(record).collect();
        self.put(records).await
    }

    fn options(&self) -> ConsumerOptions {
        ConsumerOptions::new(self.group.clone(), [self.topic.clone()])
    }

    async fn join(&mut self, options: ConsumerOptions, partitions: usize) -> TestResult<Member> {
        let consumer = self.on.consumer(options).await?;
        let mut member = Member { consumer, epochs: Vec::new() };
        let mut lines = Vec::new();
        while member.epochs.len() < partitions {
            if let Step::Assigned(given) = member.next().await? {
                for a in given {
                    lines.push(format!(
                        "{} from {}, committed {:?} {:?}",
                        a.partition, a.start_offset, a.committed, a.metadata
                    ));
                    member.epochs.push((a.partition, a.epoch));
                }
            }
        }
        lines.sort();
        lines.into_iter().for_each(|line| self.say("assigned", line));
        Ok(member)
    }

    async fn lag(&mut self) -> TestResult {
        let admin = self.on.admin().await?;
        let lag = admin.group_lag(&self.group).await;
        self.tell("backlog", lag, |mut lag| {
            lag.sort_by(|a, b| a.partition.cmp(&b.partition));
            let line = |l: &tidings_core::PartitionLag| {
                format!("{} committed {:?} of {}..{}, lag {:?}", l.partition, l.committed, l.start, l.end, l.lag())
            };
            lag.iter().map(line).collect::<Vec<_>>().join("; ")
        });
        Ok(())
    }

    async fn reset(&mut self, what: &str, to: ResetTo, options: ResetOffsetsOptions) -> TestResult {
        let answer =
            self.on.admin().await?.reset_offsets(&self.group, std::slice::from_ref(&self.topic), to, options).await;
        self.tell(what, answer, |mut all| {
            all.sort_by(|a, b| a.partition.cmp(&b.partition));
            let line = |r: &tidings_core::PartitionReset| format!("{} {:?} -> {}", r.partition, r.from, r.to);
            all.iter().map(line).collect::<Vec<_>>().join("; ")
        });
        Ok(())
    }
}

/// A group member that is polled manually.
struct Member {
    consumer: Arc<dyn Consumer>,
    epochs: Vec<(TopicPartition, u64)>,
}

impl Member {
    async fn next(&self) -> TestResult<Step> {
        next(&*self.consumer).await
    }

    /// Reads the next `count` records, sorted by position.
    async fn read(&self, count: usize) -> TestResult<Vec<String>> {
        let mut lines = Vec::new();
        while lines.len() < count {
            if let Step::Records(fetched) = self.next().await? {
                let origin = fetched.batch.origin();
                let line = |r: &StoredRecord| {
                    (
                        origin.partition,
                        r.offset,
                        format!("{origin} {} {:?} {:?} {:?}", r.offset, r.key, r.value, r.headers),
                    )
                };
                lines.extend(fetched.batch.records().iter().map(line));
            }
        }
        lines.sort();
        Ok(lines.into_iter().map(|(_, _, line)| line).collect())
    }

    /// Creates a commit for this assignment, or for one whose epoch is lower by `older`.
    fn commit(&self, at: &TopicPartition, older: u64, next: u64) -> Commit {
        let epoch = self.epochs.iter().find(|(p, _)| p == at).map_or(1, |(_, epoch)| *epoch);
        Commit::new(at.clone(), epoch.saturating_sub(older), next)
    }
}

fn done(_: ()) -> String {
    "done".to_owned()
}

async fn topics(script: &mut Script) -> TestResult {
    let (admin, topic) = (script.on.admin().await?, script.topic.clone());
    let missing = Name::from(format!("{topic}-missing"));
    script.tell_all("describe what is missing", admin.describe_topics(std::slice::from_ref(&topic)).await?, |_| {
        "?".into()
    });
    let wanted = [Topic::new(topic.clone()).with_partitions(2), Topic::new("no topic!"), Topic::new(topic.clone())];
    script.tell_all("create", admin.create_topics(&wanted[..2]).await?, done);
    script.tell_all("create again", admin.create_topics(&wanted[2..]).await?, done);
    script.fill(2, 3).await?;
    let describe = |d: tidings_core::TopicDescription| {
        let log = |p: &tidings_core::PartitionDescription| format!("{} {}..{}", p.partition, p.start, p.end);
        format!("{} {:?}", d.name, d.partitions.iter().map(log).collect::<Vec<_>>())
    };
    script.tell_all("describe", admin.describe_topics(&[topic.clone(), missing.clone()]).await?, describe);
    script.put(vec![Record::new(topic.clone(), "v").with_key("k")]).await?;
    let rekeying = CreatePartitionsOptions::default().with_rekeying();
    script.tell("grow with keys", admin.create_partitions(&topic, 3, CreatePartitionsOptions::default()).await, done);
    script.tell("grow, allowed", admin.create_partitions(&topic, 3, rekeying).await, done);
    script.tell("shrink", admin.create_partitions(&topic, 1, rekeying).await, done);
    script.tell("grow what is missing", admin.create_partitions(&missing, 4, rekeying).await, done);
    script.tell_all("delete", admin.delete_topics(&[missing, topic]).await?, done);
    Ok(())
}

async fn publish(script: &mut Script) -> TestResult {
    script.create(4).await?;
    let (topic, publisher) = (script.topic.clone(), script.on.publisher().await?);
    let keyed = |n: u32| Record::new(topic.clone(), n.to_string()).with_key(format!("key-{n}"));
    let mut odd = Record::new(topic.clone(), vec![0_u8, 159, 146, 150]).with_key("").with_partition(3);
    odd = odd.with_header("a", "1").with_header("a", "2").with_header("", "");
    odd.headers.push(Header::null("n"));
    let mut records: Vec<Record> = (0..20).map(keyed).collect();
    records.extend([
        odd,
        Record::tombstone(topic.clone()).with_key("key-1"),
        Record::new(topic.clone(), "").with_partition(0),
        Record::new(topic.clone(), "x").with_partition(9),
        Record::new(format!("{topic}-missing"), "x"),
        Record::new(topic.clone(), vec![7_u8; 2 << 20]).with_key("key-2"),
        keyed(2),
    ]);
    let answers = publisher.publish(records).await;
    script.tell_all("publish", answers, |position| format!("{}@{}", position.partition, position.offset));
    script.tell("close", publisher.close(LIMIT).await, done);
    let late = publisher.publish(vec![keyed(1)]).await;
    script.tell_all("publish after close", late, |_| "?".into());
    let member = script.join(script.options(), 4).await?;
    for line in member.read(24).await? {
        script.say("record", line);
    }
    Ok(member.consumer.close().await?)
}

async fn members(script: &mut Script) -> TestResult {
    script.create(2).await?;
    script.fill(2, 5).await?;
    let missing = script.on.consumer(ConsumerOptions::new("g", [format!("{}-missing", script.topic)])).await;
    script.tell("join on what is missing", missing, |_| "?".into());
    let member = script.join(script.options(), 2).await?;
    let consumer = member.consumer.clone();
    member.read(10).await?.into_iter().for_each(|line| script.say("record", line));
    let (one, two, none) = (script.at(0), script.at(1), script.at(7));
    let commits =
        vec![member.commit(&one, 0, 3).with_metadata("mine"), member.commit(&two, 1, 5), member.commit(&none, 0, 1)];
    script.tell_all("commit", consumer.commit(commits).await, done);
    script.tell_all("commit less", consumer.commit(vec![member.commit(&one, 0, 1)]).await, done);
    for (what, to) in [("earliest", SeekTo::Earliest), ("latest", SeekTo::Latest), ("an offset", SeekTo::Offset(2))] {
        script.tell(&format!("seek {what}"), consumer.seek(&two, to).await, |offset| offset.to_string());
    }
    script.tell("seek beyond", consumer.seek(&two, SeekTo::Offset(99)).await, |offset| offset.to_string());
    script.tell("seek what is not mine", consumer.seek(&none, SeekTo::Earliest).await, |offset| offset.to_string());
    script.tell("seek back", consumer.seek(&two, SeekTo::Offset(3)).await, |offset| offset.to_string());
    member.read(2).await?.into_iter().for_each(|line| script.say("record again", line));
    consumer.pause(std::slice::from_ref(&two)).await?;
    let progress = consumer.progress().await;
    script.tell("progress", progress, |mut all| {
        all.sort_by(|a, b| a.partition.cmp(&b.partition));
        let line = |p: &tidings_core::Progress| format!("{} {:?} {} {}", p.partition, p.committed, p.end, p.paused);
        all.iter().map(line).collect::<Vec<_>>().join("; ")
    });
    script.lag().await?;
    consumer.close().await?;
    script.tell_all("commit after close", consumer.commit(vec![member.commit(&one, 0, 4)]).await, done);
    script.tell("next after close", consumer.next().await, |_| "?".into());
    script.tell("close again", consumer.close().await, done);
    let again = script.join(script.options(), 2).await?;
    Ok(again.consumer.close().await?)
}

async fn groups(script: &mut Script) -> TestResult {
    script.create(2).await?;
    script.fill(2, 6).await?;
    let (admin, now) = (script.on.admin().await?, ResetOffsetsOptions::default());
    script.tell("lag of nobody", admin.group_lag(&script.group.clone()).await, |lag| lag.len().to_string());
    let latest = script.options().with_start(Start::Latest);
    let member = script.join(latest, 2).await?;
    let commits = (0..2).map(|p| member.commit(&script.at(p), 0, 6)).collect();
    script.tell_all("commit", member.consumer.commit(commits).await, done);
    script.reset("reset with a member", ResetTo::Position(SeekTo::Earliest), now).await?;
    script.tell("delete with a member", admin.delete_group(&script.group.clone()).await, done);
    member.consumer.close().await?;
    // The coordinator takes a moment to notice that the group is empty.
    let end = Instant::now() + LIMIT;
    let (group, topics, to) = (script.group.clone(), [script.topic.clone()], ResetTo::Position(SeekTo::Earliest));
    while admin.reset_offsets(&group, &topics, to, now.with_dry_run()).await.is_err() {
        assert!(Instant::now() < end, "the group is not empty");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    script.reset("reset, dry", ResetTo::Position(SeekTo::Earliest), now.with_dry_run()).await?;
    script.lag().await?;
    script.reset("reset by three", ResetTo::Shift(-3), now).await?;
    script.lag().await?;
    let member = script.join(script.options(), 2).await?;
    member.read(6).await?.into_iter().for_each(|line| script.say("record", line));
    Ok(member.consumer.close().await?)
}

async fn letters(script: &mut Script) -> TestResult {
    script.create(1).await?;
    let sink = script.on.dead_letters().await?;
    let topic = script.topic.clone();
    script.tell("check", sink.check(std::slice::from_ref(&topic)).await, done);
    script.tell("check without one", sink.check(&[format!("{topic}-missing").into()]).await, done);
    let letter = |origin: &str, offset| {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1_000))
            .with_key("k")
            .with_headers(tidings_core::Headers::new().with("h", "1").with("h", "2"));
        let origin = TopicPartition::new(origin.to_owned(), 3);
        DeadLetter::new("billing", origin, record, ErrorKind::Failed).with_error("no").with_attempts(4)
    };
    let missing = format!("{topic}-missing");
    let letters = vec![letter(&topic, 7), letter(&missing, 8), letter(&topic, 9)];
    script.tell_all("bury", sink.bury(letters).await, done);
    let options = ConsumerOptions::new(script.group.clone(), [dead_letter_topic(&topic)]);
    let member = script.join(options, 1).await?;
    for line in member.read(2).await? {
        // All headers except the time of the failure.
        let kept: Vec<_> = line.split("Header").filter(|part| !part.contains("dlq-failed-at")).collect();
        script.say("letter", kept.join("Header"));
    }
    Ok(member.consumer.close().await?)
}

async fn services(script: &mut Script) -> TestResult {
    script.create(2).await?;
    let handler = async |delivery: Delivery| -> std::result::Result<(), BoxError> {
        match delivery.record().value.as_deref() {
            Some(b"bad") => Err(reject("never").into()),
            Some(b"later") if delivery.attempt() < 3 => Err("not yet".into()),
            _ => Ok(()),
        }
    };
    let topic = script.topic.clone();
    let service = Service::new("answers", Router::new().on_topic(topic.clone(), handler))
        .with_group(script.group.clone())
        // Most deliveries fail, as intended: that is no reason to wait.
        .with_breaker(None)
        .with_retry(Retry::exponential(Duration::from_millis(10)));
    let running = service.start(&script.on).await?;
    let record = |n: u32| {
        let value = ["good", "later", "bad", ""][n as usize % 4];
        Record::new(topic.clone(), value).with_key(format!("key-{}", n % 7))
    };
    script.put((0..100).map(record).collect()).await?;
    timeout(2 * LIMIT, running.caught_up()).await.map_err(|_| "it does not catch up")??;
    let status = running.status().await;
    script.say("settled", format!("{:?}", status.totals));
    for p in &status.partitions {
        let line = format!("{} {} {} {:?} {} {}", p.partition, p.position, p.settled, p.committed, p.end, p.in_flight);
        script.say("partition", line);
    }
    script.lag().await?;
    running.shutdown(LIMIT).await?;
    let options = ConsumerOptions::new(format!("{}-reader", script.group), [dead_letter_topic(&topic)]);
    let member = script.join(options, 1).await?;
    let mut of = Vec::new();
    while of.len() < 25 {
        if let Step::Records(fetched) = member.next().await? {
            for record in fetched.batch.records() {
                let original = record.headers.iter().filter(|header| is_dead_letter_header(header));
                let skip = |h: &&Header| !["dlq-failed-at", "dlq-original-timestamp"].iter().any(|n| h.name == *n);
                of.push(format!("{:?} {:?}", record.key, original.filter(skip).collect::<Vec<_>>()));
            }
        }
    }
    of.sort();
    of.into_iter().for_each(|line| script.say("letter", line));
    Ok(member.consumer.close().await?)
}

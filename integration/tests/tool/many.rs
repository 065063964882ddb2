//! Time and memory of the command for many letters, topics and groups, compared with Kafka's tools in the same run.

use std::time::{Duration, Instant};

use tidings::dead_letter::{DeadLetter, dead_letter_topic};
use tidings::record::{Name, StoredRecord, Timestamp, TopicPartition};
use tidings::{ErrorKind, Topic};
use tidings_testbed::{Kafka, KafkaOptions};
use tokio::time::sleep;

use crate::processes::{ended, start};
use crate::rig::{Rig, TestResult, fresh};

const LETTERS: u64 = 100_000;
const PARTITIONS: u32 = 3;
const GROUP_COMMAND: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
/// Letters of one call.
const CALL: u64 = 1_000;
/// The peak of the command's memory. An index entry takes about 300 bytes.
const MAX_MEMORY: u64 = 256 << 20;
/// The longest time of a run, in an optimized build.
const MAX_TIME: Duration = Duration::from_secs(2);
const TOPICS: usize = 1_000;
const GROUPS: usize = 500;
/// The topics that each group reads.
const TOPICS_OF_GROUP: usize = 4;

/// Time and memory of a run of the command.
#[derive(Debug)]
struct Cost {
    time: Duration,
    peak: u64,
}

pub(crate) async fn soak() -> TestResult {
    let kafka = Kafka::start(KafkaOptions::new()).await?;
    let rig = Rig::on(&kafka.bootstrap()).await?;
    let topic = fresh("many");
    bury(&rig, &topic).await?;
    let listed = cost(&rig, &["dead-letter", "list", "--topic", &topic], "shop/").await?;
    let counted = cost(&rig, &["dead-letter", "count", "--topic", &topic], "100000").await?;
    let grouped = cost(&rig, &["dead-letter", "count", "--topic", &topic, "--by", "service,cause"], "100000").await?;
    let checked = cost(&rig, &["check", "dead-letters", &topic, "--warning", "100001"], "100000 open").await?;
    let letters = dead_letter_topic(&topic);
    let began = Instant::now();
    let server = ["--bootstrap-server", "@", "--topic", &*letters];
    kafka.tool("org.apache.kafka.tools.GetOffsetShell", &server).await?;
    let offsets = began.elapsed();
    let (began, all) = (Instant::now(), LETTERS.to_string());
    let read = [&server[..], &["--from-beginning", "--max-messages", &all, "--timeout-ms", "60000"]].concat();
    kafka.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &read).await?;
    let read = began.elapsed();
    println!("kafka-get-offsets: {offsets:?}; kafka-console-consumer, all letters: {read:?}");
    for (what, cost) in [("list", &listed), ("count", &counted), ("count --by", &grouped), ("check", &checked)] {
        cost.judge(what, read);
    }
    // The other verbs read letters again, in an unoptimized build, so their figures are printed and not checked.
    assert!(counted.time < read, "slower than reading all by Kafka's own tool: {counted:?}");
    Ok(())
}

impl Cost {
    /// Prints the cost next to the time of Kafka's tool, and checks it. Checks the time only in an optimized build.
    fn judge(&self, what: &str, theirs: Duration) {
        let mebibytes = self.peak >> 20;
        println!("{what}: {:?}, {mebibytes} MiB, {:.2}x", self.time, self.time.as_secs_f64() / theirs.as_secs_f64());
        assert!(self.peak < MAX_MEMORY, "{what}: {self:?}");
        assert!(cfg!(debug_assertions) || self.time < MAX_TIME, "{what}: {self:?}");
    }
}

pub(crate) async fn soak_of_topics_and_groups() -> TestResult {
    let kafka = Kafka::start(KafkaOptions::new()).await?;
    let rig = Rig::on(&kafka.bootstrap()).await?;
    let admin = rig.transport.admin().await?;
    let topics: Vec<Topic> = (0..TOPICS).map(|n| Topic::new(format!("many-{n:04}"))).collect();
    for answer in admin.create_topics(&topics).await? {
        answer?;
    }
    for group in 0..GROUPS {
        let of = (0..TOPICS_OF_GROUP).map(|n| topics[(group * TOPICS_OF_GROUP + n) % TOPICS].name.clone());
        let offsets: Vec<_> = of.map(|topic| (TopicPartition::new(topic, 0), 0)).collect();
        admin.alter_offsets(&Name::from(format!("reader-{group:03}")), &offsets).await?;
    }
    let server = ["--bootstrap-server", "@"];
    let verbs: [(&[&str], &str, &str, &[&str]); 4] = [
        (&["topic", "list"], "many-0999", "org.apache.kafka.tools.TopicCommand", &["--list"]),
        (&["group", "list", "--details"], "reader-499", GROUP_COMMAND, &["--describe", "--all-groups", "--state"]),
        (&["group", "lag", "reader-250"], "many-0000", GROUP_COMMAND, &["--describe", "--group", "reader-250"]),
        (&["describe"], "reader-499", GROUP_COMMAND, &["--describe", "--all-groups"]),
    ];
    for (verb, expected, class, arguments) in verbs {
        let began = Instant::now();
        kafka.tool(class, &[&server[..], arguments].concat()).await?;
        let theirs = began.elapsed();
        println!("{class} {arguments:?}: {theirs:?}");
        cost(&rig, verb, expected).await?.judge(&verb.join(" "), theirs);
    }
    Ok(())
}

async fn bury(rig: &Rig, topic: &str) -> TestResult {
    tidings::admin::ensure_topics(&*rig.transport.admin().await?, &[Topic::new(topic).with_partitions(PARTITIONS)])
        .await?;
    let sink = rig.transport.dead_letters().await?;
    let origin = |offset: u64| TopicPartition::new(Name::from(topic), (offset % u64::from(PARTITIONS)) as u32);
    let letter = |offset: u64| {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1_000)).with_key(format!("key-{}", offset % 100));
        let letter = DeadLetter::new("shop", origin(offset), record.with_value("v".repeat(200)), ErrorKind::Failed);
        letter.with_handler("score").with_error(format!("no account {offset}"))
    };
    for first in (0..LETTERS).step_by(CALL as usize) {
        for answer in sink.bury((first..first + CALL).map(letter).collect()).await {
            answer?;
        }
    }
    Ok(())
}

/// Runs the command as a process of its own, which must print `expected`.
async fn cost(rig: &Rig, arguments: &[&str], expected: &str) -> TestResult<Cost> {
    let began = Instant::now();
    let child = start(rig, arguments)?.ok_or("a process reaches it")?;
    let id = child.id().ok_or("it has ended")?;
    let ended = ended(child);
    tokio::pin!(ended);
    let mut peak = 0;
    let (code, out, err) = loop {
        tokio::select! {
            ended = &mut ended => break ended?,
            () = sleep(Duration::from_millis(5)) => peak = peak.max(peak_of(id)),
        }
    };
    let time = began.elapsed();
    assert!(code == Some(0) && out.contains(expected), "{arguments:?}: {code:?} {out} {err}");
    Ok(Cost { time, peak })
}

/// Returns the peak memory of a process, in bytes; 0 once it has ended.
fn peak_of(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

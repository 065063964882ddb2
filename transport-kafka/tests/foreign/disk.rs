//! Batches that a broker refuses to append, but returns once they are on its disk: the log file is changed while the
//! broker is down.

use std::fs;
use std::path::PathBuf;

use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, KafkaOptions};

use crate::batch::{Batch, CODEC_AT, Codec, LENGTH_AT, MAGIC_AT, RECORDS_AT, Raw, seal};
use crate::cases::Fate;
use crate::common::TestResult;
use crate::scene::{HIT, Scene, verdict};

type Damage = fn(&mut [u8]);

/// Damages to the second of three batches; its partition is held.
const DAMAGES: [(&str, Damage); 12] = [
    ("a byte of a value", |batch| *batch.last_mut().expect("a batch") ^= 1),
    ("codec 5", |batch| coded(batch, 5)),
    ("codec 6", |batch| coded(batch, 6)),
    ("codec 7", |batch| coded(batch, 7)),
    ("gzip that is none", |batch| coded(batch, 1)),
    ("snappy that is none", |batch| coded(batch, 2)),
    ("lz4 that is none", |batch| coded(batch, 3)),
    ("zstd that is none", |batch| coded(batch, 4)),
    ("magic 3", |batch| batch[MAGIC_AT] = 3),
    ("records of zeros", |batch| batch[RECORDS_AT..].fill(0)),
    ("records of zeros, sealed", |batch| {
        batch[RECORDS_AT..].fill(0);
        seal(batch);
    }),
    ("a record of the largest length", |batch| {
        batch[RECORDS_AT..RECORDS_AT + 5].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x0f]);
        seal(batch);
    }),
];

/// Damages that the broker itself detects: it refuses to return that batch, and the log after it up to the next index
/// entry of the segment, which is the rest of such a small log.
const REFUSED: [(&str, Damage); 3] = [
    ("magic 0", |batch| batch[MAGIC_AT] = 0),
    ("magic 1", |batch| batch[MAGIC_AT] = 1),
    ("magic -1", |batch| batch[MAGIC_AT] = 0xff),
];

fn coded(batch: &mut [u8], codec: u8) {
    batch[CODEC_AT] |= codec;
    seal(batch);
}

pub(crate) async fn damaged_logs() -> TestResult {
    let cluster = Kafka::start(KafkaOptions::new()).await?;
    let brokers = cluster.bootstrap();
    let connect =
        || KafkaTransport::connect(KafkaConfig::new([brokers.clone()]).with_group_protocol(GroupProtocol::Auto));
    let kafka = connect().await?;
    let mut scenes = Vec::new();
    let given = DAMAGES.map(|(name, damage)| (name, damage, true));
    let refused = REFUSED.map(|(name, damage)| (name, damage, false));
    for (name, damage, is_given) in given.into_iter().chain(refused) {
        let scene = Scene::open(&kafka, &brokers, None).await?;
        let first = scene.good("before").await? as usize;
        let batch = Batch::of_many(3, |n| Raw::new(n, format!("h-{n}"))).with_codec(Codec::None).encode()?;
        let base = scene.hit(&batch).await?.stored()?;
        assert_eq!((first, base), (0, 3));
        let end = scene.good("behind").await? + 3;
        scenes.push((name, damage, is_given, scene, batch.len(), end));
    }
    drop(kafka);
    cluster.node(0).stop().await?;
    for (_, damage, _, scene, length, _) in &scenes {
        let folder = format!("{}-{HIT}", scene.topic);
        let log: PathBuf = cluster.node(0).log().with_file_name("data").join(folder).join(format!("{:020}.log", 0));
        let mut bytes = fs::read(&log)?;
        let second = 12 + i32::from_be_bytes(*bytes[LENGTH_AT..].first_chunk().ok_or("no batch")?) as usize;
        damage(&mut bytes[second..second + length]);
        fs::write(&log, bytes)?;
    }
    cluster.node(0).start().await?;
    let mut failures = Vec::new();
    for (name, _, is_given, mut scene, _, end) in scenes {
        scene.kafka = connect().await?;
        let played = async {
            let mut reading = scene.read().await?;
            let status = reading.through(end, &["before", "behind"]).await?;
            let behind = if is_given { &["before", "behind"][..] } else { &["before"] };
            verdict(Fate::Held, reading.settle(&status, end, behind, 3).await?)
        };
        match played.await {
            Ok(()) => println!("{name}: held"),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

//! Batches with random byte changes, as many as time allows, among good events.

use std::time::Duration;

use fastrand::Rng;
use tidings_kafka::GroupProtocol;
use tidings_testbed::Kafka;
use tokio::time::Instant;

use crate::batch::{Batch, Codec, HEADER, Raw, pack, seal};
use crate::common::{TestResult, transport};
use crate::scene::{Scene, good_events};
use crate::wire::Answer;

/// Number of hostile batches per round.
const BATCHES: usize = 150;

/// Returns the duration of a soak, from its variable.
pub(crate) fn soak_time() -> Duration {
    let seconds = std::env::var("TIDINGS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Runs rounds, at least one, until the time is over; prints the seed of a failed one.
pub(crate) async fn rounds(time: Duration) -> TestResult {
    let ends = Instant::now() + time;
    loop {
        let seed = fastrand::u64(..);
        round(seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
        if Instant::now() >= ends {
            return Ok(());
        }
    }
}

/// Alternates good events and random batches in one topic, read by one service.
pub(crate) async fn round(seed: u64) -> TestResult {
    let mut rng = Rng::with_seed(seed);
    let (kafka, shared) = (transport(GroupProtocol::Auto).await?, Kafka::shared().await?);
    let scene = Scene::open(&kafka, shared.bootstrap(), None).await?;
    let mut whens = Vec::new();
    let (mut stored, mut end) = (0, 0);
    for n in 0..BATCHES {
        if n % 10 == 0 {
            whens.push(format!("behind-{n}"));
            end = scene.good(&whens[whens.len() - 1]).await? + good_events();
        }
        let bytes = hostile(&mut rng)?;
        if let Ok(Answer::Stored(_)) = scene.hit(&bytes).await {
            stored += 1;
        }
    }
    whens.push("last".to_owned());
    end = end.max(scene.good("last").await? + good_events());
    let whens: Vec<_> = whens.iter().map(String::as_str).collect();
    let mut reading = scene.read().await?;
    reading.through(end, &whens).await?;
    println!("seed {seed}: {stored} of {BATCHES} batches stored, {} skipped", reading.skipped.len());
    reading.settle_any(end, &whens).await
}

fn text(rng: &mut Rng, most: usize) -> Vec<u8> {
    let length = rng.usize(..=most);
    (0..length).map(|_| rng.u8(..)).collect()
}

fn record(rng: &mut Rng, n: i32) -> Raw {
    let mut record = Raw::new(n, [b"h-", &text(rng, 40)[..]].concat());
    record.key = rng.bool().then(|| text(rng, 20));
    record.attributes = if rng.u8(..10) == 0 { rng.u8(..) } else { 0 };
    record.time_delta = if rng.u8(..10) == 0 { rng.i64(-1_000_000..1_000_000) } else { 0 };
    record.wide = rng.u8(..5) == 0;
    for _ in 0..rng.usize(..4) {
        let value = rng.bool().then(|| text(rng, 20));
        record.headers.push((text(rng, 20), value));
    }
    record
}

/// Creates a batch with changed bytes: in the records before or after compression, or in the header.
fn hostile(rng: &mut Rng) -> TestResult<Vec<u8>> {
    let count = rng.i32(1..8);
    let records: Vec<_> = (0..count).map(|n| record(rng, n)).collect();
    let codecs = [Codec::None, Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let mut batch = Batch::new(&records).with_codec(codecs[rng.usize(..codecs.len())]);
    let place = rng.u8(..3);
    if place == 0 {
        change(rng, &mut batch.records);
    } else if place == 1 && batch.codec != Codec::None {
        let mut packed = pack(batch.codec, &batch.records)?;
        change(rng, &mut packed);
        batch.packed = Some(packed);
    }
    let mut bytes = batch.encode()?;
    if place == 2 {
        change(rng, &mut bytes[..HEADER]);
        seal(&mut bytes);
    }
    Ok(bytes)
}

fn change(rng: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len());
        bytes[at] = match rng.u8(..3) {
            0 => rng.u8(..),
            1 => bytes[at] ^ 1 << rng.u8(..8),
            _ => [0, 0x7f, 0x80, 0xff][rng.usize(..4)],
        };
    }
}

//! Compares the record codec with Java's client: each reads the other's batches, and both write the same bytes.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
// It depends on nothing else of the crate, and is not public.
#[expect(dead_code, unused_imports, reason = "the transport and its unit tests use the rest")]
#[path = "../src/wire/records/mod.rs"]
mod records;
#[path = "foreign/wire.rs"]
mod wire;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use bytes::{Buf, Bytes};
use common::{TestResult, fresh, transport};
use fastrand::Rng;
use records::{BatchBuilder, BatchError, Codec, NewRecord, Packing, ProducerState, scan};
use tidings_core::{Header, Headers};
use tidings_kafka::GroupProtocol;
use tidings_testbed::{Kafka, Suite};

/// Number of random batches.
const BATCHES: usize = 10_000;
/// Bound of what a batch is decompressed to, above all of them.
const LIMIT: usize = 16 << 20;

fn main() -> ExitCode {
    Suite::new()
        .with_case("java_reads_and_writes_the_same_batches", java_reads_and_writes_the_same_batches)
        .with_case("a_batch_beyond_the_bound_takes_no_memory", a_batch_beyond_the_bound_takes_no_memory)
        .with_case("a_broker_orders_batches_as_in_the_simulation", a_broker_orders_batches_as_in_the_simulation)
        .with_case("the_console_consumer_reads_every_codec", the_console_consumer_reads_every_codec)
        .run()
}

/// A record of a random batch.
struct Given {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
    timestamp: i64,
}

impl Given {
    fn view(&self) -> NewRecord<'_> {
        NewRecord {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
            timestamp: self.timestamp,
        }
    }
}

fn bytes(rng: &mut Rng, most: usize) -> Option<Vec<u8>> {
    let (length, letters) = (rng.usize(..=most), rng.u8(1..=255));
    rng.bool().then(|| (0..length).map(|_| rng.u8(..letters)).collect())
}

fn given(rng: &mut Rng, most: usize) -> Given {
    // Java's client demands that the names of headers are text.
    let header = |rng: &mut Rng| Header {
        name: Bytes::from_static([b"", b"n".as_slice(), b"name"][rng.usize(..3)]),
        value: bytes(rng, 30).map(Bytes::from),
    };
    let headers = (0..rng.usize(..4)).map(|_| header(rng)).collect();
    let timestamp = if rng.u8(..20) == 0 { rng.i64(0..) } else { 1_700_000_000_000 + rng.i64(0..1_000) };
    Given { key: bytes(rng, 40), value: bytes(rng, most), headers, timestamp }
}

fn batch(rng: &mut Rng, number: usize) -> Vec<Given> {
    // A few exceed the blocks of the codecs.
    let (count, most) = if number.is_multiple_of(200) { (40, 20_000) } else { (rng.usize(1..20), 300) };
    (0..count).map(|_| given(rng, most)).collect()
}

/// Codecs that this build writes; Java writes the others.
fn packing(codec: Codec) -> Packing {
    let codec = if codec == Codec::Zstd && !cfg!(feature = "zstd") { Codec::None } else { codec };
    Packing { codec, level: None }
}

fn sealed(records: &[Given], packing: Packing, producer: ProducerState) -> TestResult<Bytes> {
    let mut builder = BatchBuilder::new(0);
    for record in records {
        builder.append(&record.view()).map_err(|_| "a record that is too large")?;
    }
    Ok(builder.seal(packing, producer, producer.sequence % 2 == 1)?.bytes().clone())
}

async fn java_reads_and_writes_the_same_batches() -> TestResult {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let (mut input, mut batches) = (Vec::new(), Vec::new());
    for number in 0..BATCHES {
        let (records, codec) = (batch(&mut rng, number), Codec::ALL[number % Codec::ALL.len()]);
        let producer = ProducerState { id: rng.i64(0..), epoch: rng.i16(0..), sequence: rng.i32(0..) };
        let bytes = sealed(&records, packing(codec), producer)?;
        input.extend((codec as i32).to_be_bytes());
        input.extend(i32::try_from(bytes.len())?.to_be_bytes());
        input.extend(&bytes);
        batches.push((records, codec, bytes));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("records-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (to, from) = (folder.join("to-java"), folder.join("from-java"));
    std::fs::write(&to, &input)?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records/Oracle.java");
    Kafka::java(source, &[&to.display().to_string(), &from.display().to_string()]).await?;
    let mut written = Bytes::from(std::fs::read(&from)?);
    std::fs::remove_dir_all(&folder)?;
    for (number, (records, codec, ours)) in batches.iter().enumerate() {
        let length = usize::try_from(written.get_i32())?;
        let theirs = written.split_to(length);
        same(records, *codec, ours, &theirs)
            .map_err(|error| format!("seed {seed}, batch {number}, {codec:?}: {error}"))?;
    }
    assert!(written.is_empty(), "Java wrote more batches");
    Ok(())
}

/// Checks that Java's batch has the records that it was given, and our bytes where nothing is compressed.
fn same(given: &[Given], codec: Codec, ours: &Bytes, theirs: &Bytes) -> TestResult {
    if codec == Codec::None && ours != theirs {
        return Err(format!("the bytes differ: {ours:02x?} and {theirs:02x?}").into());
    }
    let batch = scan(theirs).next().ok_or("no batch")?.map_err(|bad| bad.cause)?;
    if batch.header().codec()? != codec {
        return Err("it has another codec".into());
    }
    let read = batch.records(0, LIMIT)?;
    assert_eq!(read.len(), given.len());
    for (given, read) in given.iter().zip(read) {
        assert_eq!((read.key.as_deref(), read.value.as_deref()), (given.key.as_deref(), given.value.as_deref()));
        assert_eq!((read.timestamp.millis(), &read.headers), (given.timestamp, &given.headers));
    }
    Ok(())
}

async fn the_console_consumer_reads_every_codec() -> TestResult {
    let kafka = transport(GroupProtocol::Auto).await?;
    let brokers = Kafka::shared().await?.bootstrap().to_owned();
    let topic = fresh(&kafka, "records", 1).await?;
    let mut expected = Vec::new();
    for codec in Codec::ALL {
        let value = format!("{codec:?}-").repeat(100);
        let record = Given {
            key: Some(format!("{codec:?}").into_bytes()),
            value: Some(value.clone().into_bytes()),
            headers: Headers::new().with("h", "1").with("h", "2"),
            timestamp: 1_700_000_000_000,
        };
        let bytes = sealed(&[record], packing(codec), ProducerState::NONE)?;
        wire::produce(&brokers, &topic, 0, &bytes).await?.stored()?;
        expected.push(format!("h:1,h:2\t{codec:?}\t{value}"));
    }
    let count = expected.len().to_string();
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let args = ["--bootstrap-server", &brokers, "--topic", &topic, "--from-beginning", "--max-messages", &count];
    let options = ["--timeout-ms", "20000", "--property", "print.key=true", "--property", "print.headers=true"];
    let output = Kafka::java(class, &[&args[..], &options].concat()).await?;
    let read: Vec<_> = output.lines().filter(|line| line.starts_with("h:")).collect();
    assert_eq!(read, expected, "{output}");
    Ok(())
}

/// Compresses with the codec's own defaults, which for lz4 are its largest blocks.
fn packed(codec: Codec, bytes: &[u8]) -> TestResult<Vec<u8>> {
    Ok(match codec {
        Codec::None => bytes.to_vec(),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(bytes)?,
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
        Codec::Zstd => ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
    })
}

async fn a_batch_beyond_the_bound_takes_no_memory() -> TestResult {
    const BOUND: usize = 1 << 20;
    // The buffers of lz4's largest blocks take 12 MiB.
    const MOST: u64 = 14 << 20;
    let bomb = vec![0; 64 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut made = sealed(&[given(&mut Rng::with_seed(1), 0)], Packing::NONE, ProducerState::NONE)?.to_vec();
        made.truncate(61);
        made[22] |= codec as u8;
        made.extend(packed(codec, &bomb)?);
        let length = i32::try_from(made.len() - 12)?;
        made[8..12].copy_from_slice(&length.to_be_bytes());
        let sum = crc32c::crc32c(&made[21..]);
        made[17..21].copy_from_slice(&sum.to_be_bytes());
        let batch = scan(&made.into()).next().ok_or("no batch")?.map_err(|bad| bad.cause)?;
        let mut read = None;
        let allocated = allocation_counter::measure(|| read = Some(batch.records(0, BOUND).map(drop)));
        assert_eq!(read, Some(Err(BatchError::TooLarge { limit: BOUND })), "{codec:?}");
        assert!(allocated.bytes_max < MOST, "{codec:?} allocated {} bytes", allocated.bytes_max);
    }
    Ok(())
}

/// The rules that the simulation of the producer gives its brokers (`src/wire/producer/simulation.rs`).
async fn a_broker_orders_batches_as_in_the_simulation() -> TestResult {
    const OUT_OF_ORDER: i16 = 45;
    const FENCED: i16 = 47;
    let kafka = transport(GroupProtocol::Auto).await?;
    let brokers = Kafka::shared().await?.bootstrap().to_owned();
    let topic = fresh(&kafka, "sequences", 2).await?;
    let record = given(&mut Rng::with_seed(1), 10);
    // Partition, epoch and sequence of a batch of one record; and its offset, or the code of its refusal.
    let steps: [(u32, i16, i32, Result<u64, i16>); 17] = [
        // A producer that is not known may begin with any sequence, in each partition.
        (0, 0, 7, Ok(0)),
        (1, 3, 0, Ok(0)),
        (0, 0, 8, Ok(1)),
        // A repetition is recognised, and a gap refused.
        (0, 0, 8, Ok(1)),
        (0, 0, 7, Ok(0)),
        (0, 0, 10, Err(OUT_OF_ORDER)),
        (0, 0, 9, Ok(2)),
        (0, 0, 10, Ok(3)),
        (0, 0, 11, Ok(4)),
        (0, 0, 12, Ok(5)),
        // The last five are remembered.
        (0, 0, 8, Ok(1)),
        (0, 0, 7, Err(OUT_OF_ORDER)),
        // An epoch is raised in one partition, begins with sequence zero, and fences the last one.
        (0, 1, 13, Err(OUT_OF_ORDER)),
        (0, 1, 0, Ok(6)),
        (0, 0, 13, Err(FENCED)),
        (0, 0, 12, Err(FENCED)),
        (1, 3, 1, Ok(1)),
    ];
    for (step, (partition, epoch, sequence, expected)) in steps.into_iter().enumerate() {
        let mut builder = BatchBuilder::new(0);
        builder.append(&record.view()).map_err(|_| "a record that is too large")?;
        let batch = builder.seal(Packing::NONE, ProducerState { id: 815_000, epoch, sequence }, false)?;
        let answer = match wire::produce(&brokers, &topic, partition, batch.bytes()).await? {
            wire::Answer::Stored(offset) => Ok(offset),
            wire::Answer::Refused(code, _) => Err(code),
        };
        assert_eq!(answer, expected, "step {step}");
    }
    Ok(())
}

//! Random changes of bytes: they neither panic nor unpack more than the bound.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::super::{Codec, at, scan};
use super::{given, packed, plain, resized, with_body};

/// Number of changed fetches in each run, and per check of the time in a soak.
const FETCHES: usize = 100_000;
/// Bound of what a batch is decompressed to: some exceed it.
const SMALL_LIMIT: usize = 4 << 10;

/// Uncompressed batches, of which the others are made.
fn seeds() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let batch = proptest::collection::vec(given(), 1..12);
    (0..64).map(|_| plain(&batch.new_tree(&mut runner).expect("records").current())).collect()
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len().max(1));
        match rng.u8(..8) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(..at.min(bytes.len())),
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            3 => bytes.insert(at.min(bytes.len()), rng.u8(..)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match rng.u8(..3) {
                        0 => rng.u8(..),
                        1 => *byte ^ 1 << rng.u8(..8),
                        _ => [0, 1, 0x7f, 0x80, 0xfe, 0xff][rng.usize(..6)],
                    };
                }
            }
        }
    }
}

/// Returns a fetch that is damaged in its records before or after compression, in the header, or anywhere.
fn damaged(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let seed = &seeds[rng.usize(..seeds.len())];
    let codec = Codec::ALL[rng.usize(..Codec::ALL.len())];
    let mut records = seed[at::RECORDS..].to_vec();
    let place = rng.u8(..4);
    if place == 0 {
        change(rng, &mut records);
    }
    let mut body = packed(codec, &records);
    if place == 1 {
        change(rng, &mut body);
    }
    let mut batch = with_body(seed, codec, &body);
    if place == 2 {
        let at = rng.usize(..at::RECORDS);
        batch[at] ^= 1 << rng.u8(..8);
        if rng.bool() {
            resized(&mut batch);
        }
    }
    let mut fetch = if rng.bool() { batch } else { [&seeds[rng.usize(..seeds.len())][..], &batch].concat() };
    if place == 3 {
        change(rng, &mut fetch);
    }
    fetch
}

/// Reads everything that can be read, and returns the number of records.
fn read_all(fetch: &[u8]) -> usize {
    let fetch = Bytes::copy_from_slice(fetch);
    let mut count = 0;
    for batch in scan(&fetch).flatten() {
        let header = *batch.header();
        let _marker = batch.marker(SMALL_LIMIT);
        let Ok(records) = batch.records(header.base_offset, SMALL_LIMIT) else { continue };
        assert!(records.size() <= SMALL_LIMIT.max(fetch.len()));
        assert_eq!(records.len(), header.count as usize);
        let before = count;
        for record in records {
            assert!((header.base_offset..=header.last_offset).contains(&record.offset));
            count += 1;
        }
        assert_eq!(count - before, header.count as usize, "a record was checked, but not returned");
    }
    count
}

fn round(seeds: &[Vec<u8>], seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut count = 0;
    for _ in 0..FETCHES {
        let fetch = damaged(&mut rng, seeds);
        let read = std::panic::catch_unwind(|| read_all(&fetch));
        count += read.unwrap_or_else(|_| panic!("seed {seed}: this fetch panics: {fetch:02x?}"));
    }
    assert!(count > FETCHES / 10, "seed {seed}: hardly anything was read");
}

#[test]
fn damaged_fetches_are_read_as_far_as_they_go() {
    round(&seeds(), 1);
}

#[test]
#[ignore = "soak"]
fn soak_damaged_fetches() {
    let seconds = std::env::var("TIDINGS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let (seeds, ends) = (seeds(), Instant::now() + Duration::from_secs(seconds.unwrap_or(60)));
    let mut rounds = 0;
    // Ten rounds are a million fetches.
    while rounds < 10 || Instant::now() < ends {
        round(&seeds, fastrand::u64(..));
        rounds += 1;
    }
}

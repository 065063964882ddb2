//! Hostile bytes of other producers in one partition: no other partition stops, and nothing is lost silently.

mod batch;
mod book;
mod cases;
mod clients;
#[expect(dead_code, reason = "the other test files use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod hold;
mod memory;
#[path = "../kafkajs/peer.rs"]
mod peer;
mod random;
mod scene;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use cases::{Fate, Make};
use common::TestResult;
use scene::Behind;
use tidings_kafka::ReaderKind;
use tidings_testbed::{Kafka, Suite};

/// Time limit of a case with its own broker, or with many inputs.
const SLOW: Duration = Duration::from_secs(300);

/// Both readers, and how the names of their cases end.
const READERS: [(&str, ReaderKind); 2] = [("", ReaderKind::Client), ("_natively", ReaderKind::Native)];

fn main() -> ExitCode {
    if let Some(code) = memory::child() {
        return code;
    }
    let mut suite = Suite::new();
    for (name, fate, make) in cases::all() {
        for (how, reader) in READERS {
            let name = format!("{name}{how}");
            let fate = if reader == ReaderKind::Native { cases::natively(&name, fate) } else { fate };
            suite = suite.with_case(&name, move || case(fate, make, Behind::After, reader));
        }
    }
    for (name, fate, make) in cases::offsets() {
        for (how, reader) in READERS {
            let name = format!("{name}_in_one_fetch{how}");
            suite = suite.with_case(&name, move || case(fate, make, Behind::Before, reader));
        }
    }
    for (name, codec, fate, records, each) in clients::by_kafkajs() {
        suite = suite.with_case(name, move || clients::kafkajs(codec, fate, records, each));
    }
    for (name, codec, fate, records) in clients::by_rskafka() {
        suite = suite.with_case(name, move || clients::rskafka(codec, fate, records));
    }
    suite = suite.with_timeout(SLOW).with_case("damaged_logs_hold_their_partition", disk::damaged_logs);
    suite = suite.with_case("batches_at_random_are_accounted_for", || random::rounds(Duration::ZERO));
    suite = suite.with_case("memory_stays_within_its_formula", || memory::stays_within_the_formula(6));
    suite = suite.with_soak("soak_memory_stays_within_its_formula", || memory::stays_within_the_formula(30));
    let soak = || random::rounds(random::soak_time());
    suite.with_soak("soak_batches_at_random_are_accounted_for", soak).run()
}

async fn case(fate: Fate, make: Make, behind: Behind, reader: ReaderKind) -> TestResult {
    scene::play(Kafka::shared().await?.bootstrap(), fate, make()?, behind, reader).await
}

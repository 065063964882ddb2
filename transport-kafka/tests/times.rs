//! Lookups by time for which there is no record: they are answered at once, and not by the request's time limit.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::{LIMIT, TestResult, fresh, published};
use tidings_core::{Record, ResetOffsetsOptions, ResetTo, SeekTo, Timestamp, Transport};
use tidings_kafka::{KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, Suite};
use tokio::time::timeout;

fn main() -> ExitCode {
    Suite::new().with_case("a_time_later_than_all_records_is_the_end", a_time_later_than_all_records_is_the_end).run()
}

/// One partition is empty, one has recent records, one old ones.
async fn a_time_later_than_all_records_is_the_end() -> TestResult {
    let kafka = Kafka::shared().await?;
    let config =
        KafkaConfig::new(kafka.bootstrap().split(',')).with_request_timeout(LIMIT * 2).with_delivery_timeout(LIMIT * 4);
    let transport = KafkaTransport::connect(config).await?;
    let topic = fresh(&transport, "times", 3).await?;
    let now = Timestamp::now();
    let at = |p: u32, time: Timestamp| Record::new(&topic, "v").with_partition(p).with_timestamp(time);
    let old = now.saturating_sub(Duration::from_secs(60));
    published(&transport, vec![at(1, old), at(1, now), at(2, old), at(2, old)]).await?;
    let (admin, group, topics) = (transport.admin().await?, "times".into(), [topic]);
    let dry = ResetOffsetsOptions::default().with_dry_run();
    let later = now.saturating_add(Duration::from_secs(60));
    for (time, expected) in [(later, [0, 2, 2]), (now, [0, 1, 2]), (old, [0, 0, 0])] {
        let plan = admin.reset_offsets(&group, &topics, ResetTo::Position(SeekTo::Time(time)), dry);
        let plan = timeout(LIMIT, plan).await??;
        assert_eq!(plan.iter().map(|reset| reset.to).collect::<Vec<_>>(), expected, "{time}");
    }
    Ok(())
}

//! The client's own warnings do not mislead: a consumer and a publisher that were closed log none.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "common/traces.rs"]
mod traces;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use common::{LIMIT, TestResult, assigned, fresh, published, records, transport};
use tidings_core::{ConsumerOptions, Record, Transport};
use tidings_kafka::GroupProtocol;
use tidings_testbed::Suite;
use tokio::time::{Instant, sleep};
use traces::Traces;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let note = |line: &str| {
        if line.contains("dropped") || line.contains("closed") {
            LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        }
    };
    if Traces::install(note).is_err() {
        return ExitCode::FAILURE;
    }
    Suite::new().with_case("a_clean_stop_logs_no_dropped_consumer", a_clean_stop).run()
}

fn noted(part: &str) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| line.contains(part)).cloned().collect()
}

async fn a_clean_stop() -> TestResult {
    for protocol in [GroupProtocol::Auto, GroupProtocol::Classic] {
        let kafka = transport(protocol).await?;
        // Several partitions of a broker are read over two connections.
        let topic = fresh(&kafka, "warnings", 4).await?;
        published(&kafka, (0..4).map(|p| Record::new(topic.clone(), "v").with_partition(p)).collect()).await?;
        let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
        assigned(&*consumer, 4).await?;
        records(&*consumer, 4).await?;
        consumer.close().await?;
        drop(consumer);
    }
    // The fetchers end in tasks of their own, which take a moment.
    let ends = Instant::now() + LIMIT / 30;
    while Instant::now() < ends && noted("dropped without close").is_empty() {
        sleep(LIMIT / 300).await;
    }
    assert_eq!(noted("dropped without close"), Vec::<String>::new());
    Ok(())
}

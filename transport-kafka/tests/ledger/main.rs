//! Services under faults, with an external ledger: each acknowledged event has its effect once, and in order.
//!
//! Brokers are killed, connections cut, members join and leave; the other tests check in seconds what the soak tests of
//! this file check over long runs.

mod book;
mod chaos;
mod child;
#[expect(dead_code, reason = "the other test files use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod members;
mod processes;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use book::Book;
use chaos::Chaos;
use common::{TestResult, fresh_name, make};
use members::Members;
use tidings_core::{Topic, dead_letter_topic};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, KafkaOptions, Listener, Suite};
use tokio::time::Instant;

/// Time limit until there is no lag after the faults.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

/// How much of each fault must happen.
#[derive(Debug, Clone, Copy)]
struct Plan {
    protocol: GroupProtocol,
    kills: usize,
    cuts: u64,
    churn: Duration,
}

fn main() -> ExitCode {
    if let Some(code) = child::run() {
        return code;
    }
    let short = Plan { protocol: GroupProtocol::Consumer, kills: 10, cuts: 20, churn: Duration::from_secs(20) };
    let long = Plan { kills: 100, cuts: 200, churn: Duration::from_secs(300), ..short };
    let classic = Plan { protocol: GroupProtocol::Classic, ..long };
    Suite::new()
        .with_timeout(Duration::from_secs(400))
        .with_case("faults_lose_double_and_reorder_nothing", move || survives(short))
        .with_case("killed_and_stopped_members_lose_and_reorder_nothing", || processes::survive(5, 2))
        .with_timeout(Duration::from_secs(3 * 3_600))
        .with_soak("soak_members_that_join_at_once_never_share_a_partition", || processes::join(60))
        .with_soak("soak_killed_and_stopped_members_lose_and_reorder_nothing", || processes::survive(50, 20))
        .with_soak("soak_faults_lose_double_and_reorder_nothing", move || survives(long))
        .with_soak("soak_faults_and_the_classic_protocol", move || survives(classic))
        .run()
}

/// Starts three nodes that notice a failed one soon, and are reached through proxies.
async fn cluster() -> TestResult<Kafka> {
    let options = KafkaOptions::new().with_nodes(3).with_proxies().with_property("broker.session.timeout.ms", "3000");
    Ok(Kafka::start(options).await?)
}

async fn connected(kafka: &Kafka, listener: Listener, protocol: GroupProtocol) -> TestResult<KafkaTransport> {
    let brokers = kafka.bootstrap_on(listener)?;
    Ok(KafkaTransport::connect(KafkaConfig::new(brokers.split(',')).with_group_protocol(protocol)).await?)
}

async fn survives(plan: Plan) -> TestResult {
    let began = Instant::now();
    let kafka = cluster().await?;
    let transport = connected(&kafka, Listener::Proxied, plan.protocol).await?;
    // The witness has its own connections to the brokers, bypassing the proxies.
    let witness = connected(&kafka, Listener::Plain, plan.protocol).await?;
    let topic = fresh_name("ledger");
    let replicated = Topic::new(topic.clone()).with_partitions(6).with_replication(3);
    make(&witness, &[replicated, Topic::new(dead_letter_topic(&topic))]).await?;
    let book = Arc::new(Book::default());
    let members = Members::new(transport.clone(), topic.clone(), Arc::clone(&book));
    members.join().await?;
    members.join().await?;
    let writers = book::Writers::start(&transport, &topic, &book).await?;
    let chaos = Chaos::new(kafka, witness.clone(), topic.clone());
    let (kills, cuts, churned) = tokio::join!(
        chaos.kill(plan.kills),
        chaos.cut(plan.cuts),
        members.churn(plan.churn, chaos.over(plan.kills, plan.cuts)),
    );
    kills?;
    churned?;
    writers.stop().await?;
    let lag = chaos::no_lag(&witness, &members.group(), CAUGHT_UP_WITHIN).await?;
    members.leave_all().await?;
    println!(
        "{:?}: {} kills, {cuts} cuts, {} joins, {} leaves in {:?}; {}; no lag after {lag:?}",
        plan.protocol,
        plan.kills,
        members.joins(),
        members.leaves(),
        began.elapsed(),
        book.summary(),
    );
    book.check()
}

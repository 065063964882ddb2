//! Operation of a real Kafka: admin over HTTP, and the directory of running services in a topic. Ignored without a
//! broker.

#[path = "shared/kafka.rs"]
mod on_kafka;

use std::process::ExitCode;
use std::time::Duration;

use tidings::admin::{CreatePartitionsOptions, ResetOffsetsOptions, ResetTo, ensure_topics};
use tidings::consumer::SeekTo;
use tidings::dead_letter::{DeadLetters, LetterQuery, RedriveOptions};
use tidings::directory::{DirectoryEntry, DirectoryOptions, DirectoryTopic, Listing, list};
use tidings::kafka::KafkaTransport;
use tidings::ops::Ops;
use tidings::ops_api::OpsTransport;
use tidings::record::{Name, Timestamp};
use tidings::{BoxError, Delivery, ErrorKind, Record, Router, Service, ServiceHandle, State, Topic, Transport, reject};
use tidings_testbed::Suite;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::on_kafka::{create, fresh, transport};

type TestResult<T = ()> = Result<T, BoxError>;

/// Time limit of each step.
const LIMIT: Duration = Duration::from_secs(60);
/// With this variable, the program is an instance of a service: a process that can be killed.
const AS_INSTANCE: &str = "TIDINGS_TEST_AS_INSTANCE";
const TTL: Duration = DirectoryOptions::MIN_TTL;

fn main() -> ExitCode {
    if let Ok(topic) = std::env::var(AS_INSTANCE) {
        return instance_until_killed(&topic);
    }
    Suite::new()
        .with_case("topics_and_groups_are_administered_over_http", topics_and_groups_are_administered_over_http)
        .with_case(
            "letters_are_redriven_and_services_paused_over_http",
            letters_are_redriven_and_services_paused_over_http,
        )
        .with_case("a_directory_in_a_topic_lists_running_instances", a_directory_in_a_topic_lists_running_instances)
        .run()
}

async fn publish(transport: &dyn Transport, topic: &Name, values: &[&str]) -> TestResult {
    let records = values.iter().map(|value| Record::new(topic, (*value).to_owned()).with_key("k")).collect();
    for answer in timeout(LIMIT, transport.publisher().await?.publish(records)).await? {
        answer?;
    }
    Ok(())
}

async fn topics_and_groups_are_administered_over_http() -> TestResult {
    let kafka = transport().await?;
    let ops = Ops::new().with_admin(kafka.clone()).serve("127.0.0.1:0")?;
    let remote = OpsTransport::connect(&format!("http://{}", ops.local_addr())).await?;
    let admin = remote.admin().await?;
    let topic = fresh("remote");
    create(&remote, &[Topic::new(&topic).with_partitions(2)]).await?;
    let again = admin.create_topics(&[Topic::new(&topic)]).await?.remove(0);
    assert_eq!(again.map_err(|error| error.kind()), Err(ErrorKind::AlreadyExists), "as of the broker");
    let mut options = CreatePartitionsOptions::default();
    options.allow_rekeying = true;
    admin.create_partitions(&topic, 3, options).await?;
    // The broker itself agrees.
    let described = kafka.admin().await?.describe_topics(std::slice::from_ref(&topic)).await?.remove(0)?;
    assert_eq!(described.partitions.len(), 3);

    publish(&remote, &topic, &["1", "2", "3"]).await?;
    let (group, topics) = (fresh("remote-group"), [topic.clone()]);
    let to = ResetTo::Position(SeekTo::Latest);
    let plan = admin.reset_offsets(&group, &topics, to, ResetOffsetsOptions::default().with_dry_run()).await?;
    assert!(!kafka.admin().await?.list_groups().await?.contains(&group), "a plan changes nothing");
    let reset = admin.reset_offsets(&group, &topics, to, ResetOffsetsOptions::default()).await?;
    assert_eq!((plan.len(), &plan), (3, &reset));
    assert_eq!(reset.iter().map(|partition| partition.to).sum::<u64>(), 3);
    let lag = kafka.admin().await?.group_lag(&group).await?;
    assert_eq!((lag.len(), lag.iter().map(|partition| partition.lag().unwrap_or(9)).sum::<u64>()), (3, 0), "{lag:?}");
    admin.delete_group(&group).await?;
    assert!(!kafka.admin().await?.list_groups().await?.contains(&group));
    admin.delete_topics(&topics).await?.remove(0)?;
    let gone = admin.describe_topics(&topics).await?.remove(0);
    assert_eq!(gone.map_err(|error| error.kind()), Err(ErrorKind::NotFound));
    ops.shutdown(LIMIT).await?;
    Ok(())
}

/// Rejects bad records until the repair.
async fn poison(delivery: Delivery, State(repaired): State<watch::Receiver<bool>>) -> Result<(), BoxError> {
    match delivery.record().value.as_deref() {
        Some(value) if value.starts_with(b"bad") && !*repaired.borrow() => Err(reject("it is bad").into()),
        _ => Ok(()),
    }
}

async fn letters_are_redriven_and_services_paused_over_http() -> TestResult {
    let kafka = transport().await?;
    let topic = fresh("workbench");
    ensure_topics(&*kafka.admin().await?, &[Topic::new(&topic)]).await?;
    let (repair, repaired) = watch::channel(false);
    let router = Router::new().on_topic(topic.clone(), poison).with_state(repaired);
    let service = Service::new(topic.clone(), router).start(&kafka).await?;
    publish(&kafka, &topic, &["bad-1", "good", "bad-2"]).await?;
    timeout(LIMIT, service.caught_up()).await??;
    let letters = DeadLetters::open(&kafka, [topic.clone()]).await?;
    let ops = Ops::new().with_control(&service).with_admin(kafka.clone()).with_dead_letters("topics", letters);
    let ops = ops.serve("127.0.0.1:0")?;
    let remote = OpsTransport::connect(&format!("http://{}", ops.local_addr())).await?;
    let remote_letters =
        DeadLetters::new(remote.letters("topics").await?, remote.publisher().await?).with_operator("ann");
    let all = LetterQuery::default();
    assert_eq!(remote_letters.count(&all).await?, 2);

    // While the service is paused, redriven records stay in the topic.
    let services = remote.services();
    services.pause(&topic, None).await?;
    repair.send_replace(true);
    let options = RedriveOptions::default().with_reason("it is repaired");
    let report = timeout(LIMIT, remote_letters.redrive(&all, &options)).await??;
    assert_eq!((report.redriven, report.skipped, report.refused.len()), (2, 0, 0), "{report:?}");
    assert_eq!(remote_letters.count(&all).await?, 0);
    until("it is paused", async || Ok(services.describe(&topic).await?.state == "paused")).await?;
    assert_eq!(service.status().await.totals.handled, 1);
    services.resume(&topic, None).await?;
    until("the letters are handled", async || Ok(service.status().await.totals.handled == 3)).await?;
    assert_eq!(service.status().await.totals.dead_lettered, 2);
    services.drain(&topic, LIMIT).await?;
    timeout(LIMIT, service.stopped()).await??;
    service.shutdown(LIMIT).await?;
    ops.shutdown(LIMIT).await?;
    Ok(())
}

/// Polls until a condition is true.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> TestResult<bool>) -> TestResult {
    let ends = Instant::now() + LIMIT;
    while !holds().await? {
        if Instant::now() > ends {
            return Err(format!("never: {what}").into());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The service of a directory test, named like its topic; `more` handlers make another topology.
fn instance(topic: &str, id: &str, version: &str, more: bool) -> Service {
    let options = DirectoryOptions::new("http://10.0.0.7:9400").with_instance(id).with_version(version).with_ttl(TTL);
    let mut router = Router::new().on_topic(topic.to_owned(), async |_: Delivery| {});
    if more {
        router = router.on_topic(format!("{topic}-more"), async |_: Delivery| {});
    }
    Service::new(topic.to_owned(), router).with_directory(options)
}

/// Runs an instance with the id `killed`; its process is killed.
fn instance_until_killed(topic: &str) -> ExitCode {
    let run = async {
        let running = instance(topic, "killed", "1.0", false).start(&transport().await?).await?;
        sleep(LIMIT * 5).await;
        drop(running);
        TestResult::Ok(())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match runtime.map(|runtime| runtime.block_on(run)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        failed => {
            eprintln!("{failed:?}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the instances of one service: the directory is that of all tests.
async fn listed(kafka: &KafkaTransport, service: &Name) -> TestResult<Listing> {
    let directory = DirectoryTopic::open(kafka, tidings::directory::DIRECTORY_TOPIC).await?;
    let mut found = timeout(LIMIT, list(&directory, Timestamp::now())).await??;
    found.live.retain(|entry| entry.service == *service);
    found.expired.retain(|entry| entry.service == *service);
    found.drifts.retain(|drift| drift.service == *service);
    Ok(found)
}

fn ids(entries: &[DirectoryEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.instance.as_str()).collect()
}

async fn a_directory_in_a_topic_lists_running_instances() -> TestResult {
    let kafka = transport().await?;
    let topic = fresh("directory");
    let topics = [Topic::new(&topic), Topic::new(format!("{topic}-more"))];
    ensure_topics(&*kafka.admin().await?, &topics).await?;
    let one: ServiceHandle = instance(&topic, "a", "1.0", false).start(&kafka).await?;
    let other = instance(&topic, "b", "1.1", true).start(&kafka).await?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .env(AS_INSTANCE, topic.as_str())
        .kill_on_drop(true)
        .spawn()?;
    until("all three are listed", async || Ok(listed(&kafka, &topic).await?.live.len() == 3)).await?;
    let found = listed(&kafka, &topic).await?;
    assert_eq!(ids(&found.live), ["a", "b", "killed"]);
    let drifts: Vec<&str> = found.drifts.iter().map(|drift| drift.kind.as_str()).collect();
    assert_eq!(drifts, ["version", "topology"], "{found:?}");
    let settings =
        kafka.admin().await?.describe_topics(&[tidings::directory::DIRECTORY_TOPIC.into()]).await?.remove(0)?;
    assert_eq!(settings.settings["cleanup.policy"], "compact");

    // A killed instance is listed until its record expires; one that ends removes itself.
    child.kill().await?;
    other.shutdown(LIMIT).await?;
    let found = listed(&kafka, &topic).await?;
    assert!(!ids(&found.live).contains(&"b") && !ids(&found.expired).contains(&"b"), "{found:?}");
    until("the killed one expires", async || Ok(ids(&listed(&kafka, &topic).await?.expired) == ["killed"])).await?;
    // The live instance is refreshed.
    sleep(TTL * 2).await;
    let found = listed(&kafka, &topic).await?;
    assert_eq!((ids(&found.live), found.drifts.len()), (vec!["a"], 0), "{found:?}");
    one.shutdown(LIMIT).await?;
    assert_eq!(listed(&kafka, &topic).await?.live, []);
    Ok(())
}

//! Held partitions: records that cannot be read, dead letters that cannot be written, and logs that were truncated or
//! recreated.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Log, caught_up, publish, topics};
use tidings_core::{
    Admin, BoxError, Commit, Consumer, ConsumerOptions, DeadLetterSink, Delivery, ErrorKind, Guarantees, Name,
    Progress, Publisher, Record, Result, SeekTo, Step, Topic, TopicPartition, Transport, async_trait,
    dead_letter_topic, reject,
};
use tidings_memory::{Faults, MemoryTransport, PublishFault};
use tidings_service::{PauseReason, Router, Service, ServiceHandle, ServiceState, State, Status};
use tokio::time::{sleep, timeout};

/// A topic of two partitions, with its dead-letter topic.
async fn two_partitions(transport: &MemoryTransport) {
    let topics = [Topic::new("t").with_partitions(2), Topic::new(dead_letter_topic("t"))];
    for answer in transport.admin().await.expect("memory is up").create_topics(&topics).await.expect("memory is up") {
        answer.expect("memory is up");
    }
}

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn put(transport: &MemoryTransport, partition: u32, values: std::ops::Range<u32>) {
    let record = |n: u32| Record::new("t", format!("{partition}/{n}")).with_partition(partition);
    publish(transport, values.map(record).collect()).await;
}

async fn handle(delivery: Delivery, State(log): State<Log>) -> Result<(), BoxError> {
    let value = String::from_utf8_lossy(delivery.record().value.as_ref().expect("memory is up")).into_owned();
    if value.ends_with("bad") {
        return Err(reject("bad").into());
    }
    log.add(value);
    Ok(())
}

fn service(log: &Log) -> Service {
    let router = Router::new().on_topic("t", handle).with_state(log.clone());
    Service::new("s", router).with_commit_interval(Duration::from_millis(10))
}

/// Waits until the status matches.
async fn until(running: &ServiceHandle, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    let wait = async {
        loop {
            let status = running.status().await;
            if wanted(&status) {
                return status;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    match timeout(Duration::from_secs(60), wait).await {
        Ok(status) => status,
        Err(_) => panic!("{what}: {:#?}", running.status().await),
    }
}

async fn committed(transport: &MemoryTransport, partition: u32) -> Option<u64> {
    let lag =
        transport.admin().await.expect("memory is up").group_lag(&Name::from("s-group")).await.expect("memory is up");
    lag.into_iter().find(|lag| lag.partition == at(partition)).and_then(|lag| lag.committed)
}

#[tokio::test(start_paused = true)]
async fn unreadable_records_hold_their_partition_until_they_are_skipped() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    two_partitions(&transport).await;
    put(&transport, 0, 0..5).await;
    transport.faults().unreadable(&at(0), 2..4);
    let running = service(&log).start(&transport).await.unwrap();
    put(&transport, 1, 0..5).await;
    until(&running, "the other partition goes on", |s| s.partitions.iter().any(|p| p.committed == Some(5))).await;
    let status = until(&running, "below it is committed", |s| s.partitions[0].committed == Some(2)).await;
    assert_eq!((status.state, status.partitions[0].lag()), (ServiceState::Degraded, 3));
    assert_eq!(status.partitions[0].paused, [PauseReason::Unreadable]);
    let [hold] = &status.partitions[0].held[..] else { panic!("{status:#?}") };
    assert_eq!((hold.reason, hold.offset, hold.next_offset), (PauseReason::Unreadable, 2, Some(4)));
    let [problem] = &status.problems[..] else { panic!("{status:#?}") };
    assert!(problem.contains("t[0]: offset 2 to 3 cannot be read") && problem.contains("unknown bytes"), "{problem}");

    for (partition, offsets, kind) in [
        (0, 1..4, ErrorKind::Conflict),
        (0, 2..3, ErrorKind::Invalid),
        (0, 2..5, ErrorKind::Invalid),
        (1, 2..4, ErrorKind::Conflict),
        (7, 2..4, ErrorKind::NotFound),
    ] {
        let refused = running.skip(&at(partition), offsets.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{partition} {offsets:?}: {refused}");
        assert!(refused.to_string().contains(&format!("t[{partition}]")), "{refused}");
    }
    let skipped = running.skip(&at(0), 2..4).await.unwrap();
    assert_eq!((skipped.partition, skipped.offsets), (at(0), 2..4));
    assert!(skipped.cause.contains("unknown bytes"), "{}", skipped.cause);
    caught_up(&running).await;
    assert!(running.status().await.is_healthy());
    assert_eq!(committed(&transport, 0).await, Some(5));
    let of_0: Vec<String> = log.lines().into_iter().filter(|line| line.starts_with("0/")).collect();
    assert_eq!(of_0, ["0/0", "0/1", "0/4"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_can_be_read_again_goes_on_by_itself() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    two_partitions(&transport).await;
    put(&transport, 0, 0..3).await;
    transport.faults().unreadable(&at(0), 1..2);
    let running = service(&log).start(&transport).await.unwrap();
    until(&running, "it is held", |s| !s.problems.is_empty()).await;
    transport.faults().heal();
    caught_up(&running).await;
    assert!(running.status().await.is_healthy());
    assert_eq!(log.lines(), ["0/0", "0/1", "0/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_held_partition_is_no_stall_and_shuts_down() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    two_partitions(&transport).await;
    put(&transport, 0, 0..3).await;
    transport.faults().unreadable(&at(0), 1..2);
    let running = service(&log).start(&transport).await.unwrap();
    until(&running, "it is held", |s| s.partitions.first().is_some_and(|p| p.committed == Some(1))).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(running.status().await.problems.len(), 1, "{:#?}", running.status().await);
    running.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(committed(&transport, 0).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_written_holds_its_partition_until_it_is_skipped() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    two_partitions(&transport).await;
    let fault = PublishFault::new(ErrorKind::TooLarge).with_topic("t-dlq").with_times(Faults::UNTIL_HEALED);
    transport.faults().publish(fault);
    let bad = Record::new("t", "0/bad").with_partition(0);
    publish(&transport, vec![Record::new("t", "0/0").with_partition(0), bad]).await;
    put(&transport, 0, 2..4).await;
    let running = service(&log).start(&transport).await.unwrap();
    put(&transport, 1, 0..5).await;
    until(&running, "the other partition goes on", |s| s.partitions.iter().any(|p| p.committed == Some(5))).await;
    let status = until(&running, "below it is committed", |s| s.partitions[0].committed == Some(1)).await;
    let [hold] = &status.partitions[0].held[..] else { panic!("{status:#?}") };
    assert_eq!((hold.reason, hold.offset, hold.next_offset), (PauseReason::DeadLetters, 1, Some(2)));
    let [problem] = &status.problems[..] else { panic!("{status:#?}") };
    assert!(problem.starts_with("t[0]: a dead letter could not be written: offset 1: "), "{problem}");

    assert_eq!(running.skip(&at(0), 1..3).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(running.skip(&at(0), 0..1).await.unwrap_err().kind(), ErrorKind::Conflict);
    let skipped = running.skip(&at(0), 1..2).await.unwrap();
    assert_eq!(skipped.offsets, 1..2);
    caught_up(&running).await;
    let status = running.status().await;
    assert!(status.is_healthy(), "{status:#?}");
    assert_eq!((status.totals.handled, status.totals.skipped, status.totals.dead_lettered), (8, 1, 0));
    assert_eq!(committed(&transport, 0).await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_written_after_all_holds_nothing() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    two_partitions(&transport).await;
    let running = service(&log).start(&transport).await.unwrap();
    transport.faults().set_dead_letters_down(true);
    publish(&transport, vec![Record::new("t", "bad").with_partition(0)]).await;
    until(&running, "it is held", |s| s.partitions.iter().any(|p| !p.held.is_empty())).await;
    transport.faults().set_dead_letters_down(false);
    caught_up(&running).await;
    let status = running.status().await;
    assert!(status.is_healthy() && status.partitions.iter().all(|p| p.held.is_empty()), "{status:#?}");
    assert_eq!(running.skip(&at(0), 0..1).await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// The group has committed 20, and the log is recreated: the new records are committed anew, also by a service that
/// was running meanwhile.
#[tokio::test(start_paused = true)]
async fn a_log_made_anew_is_committed_anew() {
    for running_meanwhile in [false, true] {
        let (transport, log) = (MemoryTransport::new(), Log::default());
        topics(&transport, &["t"]).await;
        put(&transport, 0, 0..20).await;
        let mut running = service(&log).start(&transport).await.unwrap();
        caught_up(&running).await;
        if !running_meanwhile {
            running.shutdown(Duration::from_secs(5)).await.unwrap();
        }
        transport.faults().truncate(&at(0), 0);
        put(&transport, 0, 100..105).await;
        running = service(&log).start(&transport).await.unwrap();
        caught_up(&running).await;
        assert_eq!(log.lines()[20..], ["0/100", "0/101", "0/102", "0/103", "0/104"], "{running_meanwhile}");
        assert_eq!(committed(&transport, 0).await, Some(5), "{running_meanwhile}");
        running.shutdown(Duration::from_secs(5)).await.unwrap();
        put(&transport, 0, 105..120).await;
        let again = service(&log).start(&transport).await.unwrap();
        caught_up(&again).await;
        assert_eq!(log.lines().len(), 40, "what came up to the old offset is handled, once: {:?}", log.lines());
        assert_eq!(committed(&transport, 0).await, Some(20), "{running_meanwhile}");
    }
}

/// Before the first record of a recreated log is handled, its start is committed: after a crash processing resumes
/// there.
#[tokio::test(start_paused = true)]
async fn the_start_of_a_log_made_anew_is_committed_before_its_records_begin() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    put(&transport, 0, 0..20).await;
    let running = service(&log).start(&transport).await.unwrap();
    caught_up(&running).await;
    running.shutdown(Duration::from_secs(5)).await.unwrap();
    transport.faults().truncate(&at(0), 0);
    put(&transport, 0, 100..105).await;
    transport.faults().fail_commits(Faults::UNTIL_HEALED, ErrorKind::Unavailable);
    let running = service(&log).start(&transport).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!((log.lines().len(), running.status().await.totals.handled), (20, 0));
    transport.faults().heal();
    caught_up(&running).await;
    assert_eq!((log.lines().len(), committed(&transport, 0).await), (25, Some(5)));
}

/// Its consumers continue in the same assignment when a log went back, as a broker's client may.
#[derive(Debug, Clone)]
struct Silent(MemoryTransport);

#[derive(Debug)]
struct SilentConsumer {
    inner: Arc<dyn Consumer>,
    /// The epoch that was reported, and the current one.
    epochs: Mutex<Option<(u64, u64)>>,
}

#[async_trait]
impl Consumer for SilentConsumer {
    async fn next(&self) -> Result<Step> {
        loop {
            match self.inner.next().await? {
                Step::Assigned(given) => {
                    let mut epochs = self.epochs.lock().expect("no test panics with the lock");
                    let told = epochs.map(|(told, _)| told);
                    *epochs = Some((told.unwrap_or(given[0].epoch), given[0].epoch));
                    if told.is_none() {
                        return Ok(Step::Assigned(given));
                    }
                }
                Step::Lost(_) => {}
                Step::Records(mut fetched) => {
                    fetched.epoch =
                        self.epochs.lock().expect("no test panics with the lock").expect("it is assigned").0;
                    return Ok(Step::Records(fetched));
                }
                step => return Ok(step),
            }
        }
    }
    async fn commit(&self, mut commits: Vec<Commit>) -> Vec<Result<()>> {
        let epoch = self.epochs.lock().expect("no test panics with the lock").expect("it is assigned").1;
        commits.iter_mut().for_each(|commit| commit.epoch = epoch);
        self.inner.commit(commits).await
    }
    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.release(partitions).await
    }
    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.pause(partitions).await
    }
    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.resume(partitions).await
    }
    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.inner.seek(partition, to).await
    }
    async fn progress(&self) -> Result<Vec<Progress>> {
        self.inner.progress().await
    }
    fn is_member(&self) -> Option<bool> {
        self.inner.is_member()
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl Transport for Silent {
    fn system(&self) -> &'static str {
        self.0.system()
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.0.publisher().await
    }
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        let inner = self.0.consumer(options).await?;
        Ok(Arc::new(SilentConsumer { inner, epochs: Mutex::default() }))
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.0.dead_letters().await
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.0.admin().await
    }
    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }
}

/// Records arrive below those read before, within one assignment. The last record of the former log is still in
/// flight, and settles nothing of the new one.
#[tokio::test(start_paused = true)]
async fn a_log_that_goes_back_within_an_assignment_is_committed_anew() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    put(&transport, 0, 0..20).await;
    let handler = async |delivery: Delivery, State(log): State<Log>| {
        log.add(delivery.offset().to_string());
        if delivery.offset() == 19 {
            sleep(Duration::from_secs(40)).await;
        }
    };
    let router = || Router::new().on_topic("t", handler).with_state(log.clone());
    let service = || Service::new("s", router()).with_commit_interval(Duration::from_millis(10));
    let running = service().start(&Silent(transport.clone())).await.unwrap();
    until(&running, "19 are committed", |s| s.partitions.first().is_some_and(|p| p.committed == Some(19))).await;
    transport.faults().truncate(&at(0), 0);
    put(&transport, 0, 100..105).await;
    let status = until(&running, "it goes back", |s| s.partitions[0].committed == Some(5)).await;
    assert_eq!((status.partitions[0].settled, status.partitions[0].position, status.lag()), (5, 5, 0));
    caught_up(&running).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(committed(&transport, 0).await, Some(5));
    running.shutdown(Duration::from_secs(5)).await.unwrap();
    put(&transport, 0, 105..120).await;
    let running = service().start(&transport).await.unwrap();
    caught_up(&running).await;
    let offsets: Vec<String> = (0..20).map(|offset| offset.to_string()).collect();
    assert_eq!(log.lines()[20..], offsets);
}

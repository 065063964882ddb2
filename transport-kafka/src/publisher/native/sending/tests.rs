//! The sending task, with a test in the place of a broker's task.

use std::future::Future;

use tidings_core::{ErrorKind, Position, Record};
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::config::KafkaConfig;
use crate::publisher::buffer_limit::BufferLimit;
use crate::publisher::native::buffer::Appended;
use crate::publisher::native::call::{Call, OpenCall};
use crate::wire::records::NewRecord;

const BROKER: i32 = 1;
const IDENTITY: Identity = Identity { id: 7, epoch: 0 };
/// Longer than any delay before a repetition.
const LATER: Duration = Duration::from_secs(2);

/// A running task, one partition of it, and the requests to the broker that leads it.
struct Play {
    sending: Sending,
    buffer: Arc<PartitionBuffer>,
    limit: BufferLimit,
    requests: mpsc::Receiver<ToSend>,
}

impl Play {
    fn start() -> Self {
        let (play, task, drained) = Self::new();
        tokio::spawn(task.run(drained));
        play
    }

    /// Creates a task that does not run.
    fn new() -> (Self, Task, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        let cluster = Cluster::new(&KafkaConfig::new(Vec::<String>::new()).with_linger(Duration::ZERO));
        let ((drains, drained), news) = (mpsc::unbounded_channel(), Arc::<News>::default());
        let (sender, requests) = mpsc::channel(REQUESTS);
        let mut task = Task::new(cluster, Arc::clone(&news), Some(IDENTITY));
        let buffer = Arc::new(PartitionBuffer::new("t".into(), 0, 1 << 10));
        let number = task.number(&buffer);
        task.queue.set_leader(number, Some(BROKER));
        task.brokers.insert(BROKER, sender);
        let limit = BufferLimit::new(100, 10_000);
        (Self { sending: Sending { news, drains }, buffer, limit, requests }, task, drained)
    }

    /// Queues a record that has waited since `opened_at`.
    fn publish(&self, opened_at: Instant) -> Arc<Call> {
        self.publish_to(&self.buffer, opened_at)
    }

    fn publish_to(&self, buffer: &Arc<PartitionBuffer>, opened_at: Instant) -> Arc<Call> {
        let (open, permit) = (OpenCall::new(1), self.limit.try_take_all(1, 10));
        let record = Record::new("t", "v");
        let record = NewRecord::of(&record, 0);
        let mut permit = permit.expect("capacity");
        let appended = buffer.append(&record, 10, opened_at.into_std(), &mut permit, &mut open.queueing());
        if appended.expect("a batch") == Appended::Listed {
            self.sending.wake(&mut vec![Arc::clone(buffer)]);
        }
        open.call()
    }

    /// Answers all requests until `until` is ready; returns its output, and the number of requests.
    async fn answer<T>(&mut self, answer: Answer, until: impl Future<Output = T>) -> (T, usize) {
        let (mut until, mut count) = (std::pin::pin!(until), 0);
        loop {
            tokio::select! {
                biased;
                request = self.requests.recv() => {
                    request.expect("the task is running").answer(answer);
                    count += 1;
                }
                ended = &mut until => return (ended, count),
            }
        }
    }
}

/// Waits for the answer to a call of one record.
async fn ended(call: &Call) -> Result<Position, ErrorKind> {
    call.ended().await;
    let answer = call.answers(1, || panic!("it was queued")).remove(0);
    answer.map_err(|error| error.kind())
}

#[tokio::test(start_paused = true)]
async fn a_record_behind_an_expired_one_is_sent_after_the_delay() {
    let mut play = Play::start();
    let first = play.publish(Instant::now());
    let refused = play.answer(Answer::NotStored { moved: false }, ended(&first)).await;
    assert_eq!(refused.0, Err(ErrorKind::Unavailable));
    let (next, published) = (play.publish(Instant::now()), Instant::now());
    let stored = play.answer(Answer::Stored(Some(3)), ended(&next)).await;
    assert_eq!(stored, (Ok(Position::new(0, 3)), 1));
    assert!(published.elapsed() < LATER, "it was stored after {:?}", published.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_expired_record_is_not_sent() {
    let mut play = Play::start();
    let call = play.publish(Instant::now() - Duration::from_secs(31));
    let expired = play.answer(Answer::Stored(Some(0)), ended(&call)).await;
    assert_eq!(expired, (Err(ErrorKind::Unavailable), 0));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_queued_after_the_last_drain_ends_as_not_stored() {
    let play = Play::start();
    play.sending.drain().await;
    for _ in 0..2 {
        let call = play.publish(Instant::now());
        assert_eq!(timeout(LATER, ended(&call)).await, Ok(Err(ErrorKind::Closed)));
    }
    assert!(play.limit.try_take_all(100, 10_000).is_some(), "its capacity is free");
}

/// Looks the topic up until the record of `call` has ended; returns how it did, and after how long.
async fn looked_up(
    task: &mut Task,
    call: &Call,
    count: Result<u32, ErrorKind>,
) -> (Result<Position, ErrorKind>, Duration) {
    let start = Instant::now();
    loop {
        task.add_listed();
        task.send_all(Instant::now().into_std());
        task.led(Ok(vec![("t".into(), count.map_err(|kind| Error::new(kind, "look up")))]));
        if let Some(ended) = ended(call).now_or_never() {
            return (ended, start.elapsed());
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it waits for its delivery timeout");
        advance(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn records_of_a_partition_that_is_gone_end_with_the_answer_of_the_brokers() {
    for count in [Err(ErrorKind::NotFound), Err(ErrorKind::Denied), Ok(0)] {
        let (play, mut task, _drained) = Play::new();
        task.queue.set_leader(0, None);
        let (kind, call) = (count.err().unwrap_or(ErrorKind::NotFound), play.publish(Instant::now()));
        assert_eq!(looked_up(&mut task, &call, count).await, (Err(kind), Duration::from_secs(2)));
        // The brokers have said so for some time.
        let call = play.publish(Instant::now());
        assert_eq!(looked_up(&mut task, &call, count).await, (Err(kind), Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sent_record_of_a_topic_that_is_gone_may_be_stored() {
    let (mut play, mut task, _drained) = Play::new();
    let call = play.publish(Instant::now());
    task.add_listed();
    task.send_all(Instant::now().into_std());
    play.requests.recv().await.expect("a request").answer(Answer::Open { moved: true });
    let report = task.reports.1.recv().await.expect("a report");
    task.report(report);
    let ended = looked_up(&mut task, &call, Err(ErrorKind::NotFound)).await;
    assert_eq!(ended, (Err(ErrorKind::Indeterminate), Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_the_credentials_is_no_cause_for_the_records_of_another() {
    let (play, mut task, _drained) = Play::new();
    let other = Arc::new(PartitionBuffer::new("t".into(), 1, 1 << 10));
    let number = task.number(&other);
    task.queue.set_leader(number, Some(BROKER + 1));
    let calls = [play.publish(Instant::now()), play.publish_to(&other, Instant::now())];
    task.add_listed();
    task.send_all(Instant::now().into_std());
    for (request, kind) in [(2, ErrorKind::Unavailable), (1, ErrorKind::Denied)] {
        let error = Some(Arc::new(Error::new(kind, "refused")));
        task.report(Report::Lost { request, unsent: true, error });
    }
    advance(Duration::from_secs(31)).await;
    let expired = task.queue.expire(Instant::now().into_std());
    task.end(expired);
    assert_eq!(ended(&calls[0]).await, Err(ErrorKind::Denied));
    assert_eq!(ended(&calls[1]).await, Err(ErrorKind::Unavailable));
}

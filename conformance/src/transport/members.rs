//! Members that are driven concurrently, because a rebalance needs all of them.
//!
//! A rebalance completes only if all members take part, so a case can't await them one after the
//! other. Their calls of `next` stay pending between waits: a backend may lose nothing when a call
//! is polled rarely.

use std::future::{Future, poll_fn};
use std::ops::{Index, IndexMut};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidings_core::{Consumer, ConsumerOptions, Name, Result, Step, TopicPartition};
use tokio::time::{Instant, sleep, timeout_at};

use super::fixture::{Fixture, partitions};
use super::member::Member;
use crate::case::{Checked, broken, holds};

/// Backoff before a retry after a broker failed to answer.
pub(super) const AGAIN: Duration = Duration::from_millis(50);

/// Members of one or several groups whose steps are awaited concurrently.
pub(crate) struct Members<'a> {
    fixture: &'a Fixture,
    members: Vec<Member<'a>>,
    /// The member that is polled first, so that a busy one does not starve the others.
    turn: usize,
}

impl<'a> Index<usize> for Members<'a> {
    type Output = Member<'a>;
    fn index(&self, index: usize) -> &Member<'a> {
        &self.members[index]
    }
}

impl<'a> IndexMut<usize> for Members<'a> {
    fn index_mut(&mut self, index: usize) -> &mut Member<'a> {
        &mut self.members[index]
    }
}

impl Fixture {
    /// Creates an empty list of members.
    pub(crate) fn members(&self) -> Members<'_> {
        Members { fixture: self, members: Vec::new(), turn: 0 }
    }

    /// Creates a group of one member of a new group that reads `topic`.
    pub(crate) async fn reader(&self, topic: &Name) -> Checked<Members<'_>> {
        self.join(ConsumerOptions::new(self.fresh("group"), [topic])).await
    }

    /// Creates a group of one member.
    pub(crate) async fn join(&self, options: ConsumerOptions) -> Checked<Members<'_>> {
        let mut members = self.members();
        members.add(options).await?;
        Ok(members)
    }

    /// Reads all records of a topic with `count` partitions in a new group.
    pub(crate) async fn read_all(&self, topic: &Name, count: u32, records: usize) -> Checked<Members<'_>> {
        let mut members = self.reader(topic).await?;
        members.owns(0, topic, count).await?;
        members.records(0, records).await?;
        members.rest().await?;
        same_count(&members[0], records)?;
        Ok(members)
    }
}

/// Fails with the member's whole state.
fn same_count(member: &Member<'_>, records: usize) -> Checked {
    holds(member.count() == records, &format!("{records} records"), member)
}

/// Returns the next step of any member, with the member's index.
///
/// Idle members and those that have ended are left out.
async fn any_step(members: &mut [Member<'_>], first: usize) -> (usize, Result<Step>) {
    let count = members.len();
    poll_fn(|task| {
        for turn in 0..count {
            let member = &mut members[(first + turn) % count];
            if member.idle || member.ended.is_some() {
                continue;
            }
            let next = member.pending.get_or_insert_with(|| {
                let consumer = Arc::clone(&member.consumer);
                Box::pin(async move { consumer.next().await })
            });
            if let Poll::Ready(step) = next.as_mut().poll(task) {
                member.pending = None;
                return Poll::Ready(((first + turn) % count, step));
            }
        }
        Poll::Pending
    })
    .await
}

impl<'a> Members<'a> {
    /// Adds a member while the others run; returns its index.
    pub(crate) async fn add(&mut self, options: ConsumerOptions) -> Checked<usize> {
        let (fixture, transport, index) = (self.fixture, self.fixture.transport()?, self.members.len());
        fixture.note(format!("member {index}: joins {} for {:?}", options.group, options.topics));
        let asked = options.clone();
        let consumer = self.meanwhile("a consumer", async move { transport.consumer(asked).await }).await??;
        self.members.push(Member::new(fixture, index, consumer, options));
        Ok(index)
    }

    /// Awaits `future` while all members are driven.
    pub(crate) async fn meanwhile<F: Future>(&mut self, what: &str, future: F) -> Checked<F::Output> {
        let mut future = pin!(future);
        let deadline = Instant::now() + self.fixture.pace.patience;
        loop {
            let either = async {
                let mut step = pin!(any_step(&mut self.members, self.turn));
                poll_fn(|task| {
                    if let Poll::Ready(output) = future.as_mut().poll(task) {
                        return Poll::Ready(Ok(output));
                    }
                    step.as_mut().poll(task).map(Err)
                })
                .await
            };
            match timeout_at(deadline, either).await {
                Ok(Ok(output)) => return Ok(output),
                Ok(Err((who, step))) if Instant::now() < deadline => self.stepped(who, step).await?,
                _ => return broken(format!("{what} in time"), format!("nothing; {:?}", self.members)),
            }
        }
    }

    /// Takes a step. A transient error is tried again, a permanent one ends the member.
    async fn stepped(&mut self, who: usize, step: Result<Step>) -> Checked {
        self.turn = who + 1;
        let member = &mut self.members[who];
        match step {
            Ok(step) => member.take(step).await,
            Err(error) if error.is_retryable() => {
                self.fixture.note(format!("member {who}: {}", error.report()));
                sleep(AGAIN).await;
                Ok(())
            }
            Err(error) => {
                self.fixture.note(format!("member {who}: ends, {} ({})", error.report(), error.kind()));
                member.ended = Some(error.kind());
                Ok(())
            }
        }
    }

    /// Drives all members until `done`, within the setup's patience.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&[Member<'a>]) -> bool) -> Checked {
        let deadline = Instant::now() + self.fixture.pace.patience;
        while !done(&self.members) {
            match timeout_at(deadline, any_step(&mut self.members, self.turn)).await {
                Ok((who, step)) if Instant::now() < deadline => self.stepped(who, step).await?,
                _ => return broken(what, format!("not in time; {:?}", self.members)),
            }
        }
        Ok(())
    }

    /// Drives all members until member `who` owns `count` partitions of `topic`.
    pub(crate) async fn owns(&mut self, who: usize, topic: &Name, count: u32) -> Checked {
        let what = format!("member {who} has {count} partitions of {topic}");
        self.until(&what, |m| m[who].has(topic) == count as usize).await
    }

    /// Drives all members until member `who` has received `count` records.
    pub(crate) async fn records(&mut self, who: usize, count: usize) -> Checked {
        self.until(&format!("member {who} receives {count} records"), |m| m[who].count() >= count).await
    }

    /// Drives all members for the setup's quiet time.
    pub(crate) async fn rest(&mut self) -> Checked {
        self.rest_for(self.fixture.pace.quiet).await
    }

    /// Drives all members for `time`.
    pub(crate) async fn rest_for(&mut self, time: Duration) -> Checked {
        let deadline = Instant::now() + time;
        // The clock is checked too: a timeout never fires on a future that is always ready, such as with errors.
        while Instant::now() < deadline {
            match timeout_at(deadline, any_step(&mut self.members, self.turn)).await {
                Ok((who, step)) => self.stepped(who, step).await?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Closes a member while the others run.
    pub(crate) async fn close(&mut self, who: usize) -> Checked {
        let consumer = Arc::clone(&self.members[who].consumer);
        self.members[who].idle = true;
        self.members[who].pending = None;
        self.fixture.note(format!("member {who}: closes"));
        self.meanwhile("close", async move { consumer.close().await }).await??;
        self.members[who].owned.clear();
        Ok(())
    }

    /// Drops a member without closing it, like a crash. The indexes of later members shift down by one.
    pub(crate) fn kill(mut self, who: usize) -> Self {
        self.fixture.note(format!("member {who}: is dropped"));
        drop(self.members.remove(who));
        self
    }

    /// Drives all members until the members `among` own all partitions of a topic, each at least one.
    pub(crate) async fn shared(&mut self, topic: &Name, count: u32, among: &[usize]) -> Checked {
        let all = partitions(topic, count);
        self.until(&format!("{topic}'s partitions are shared by {among:?}"), |m| {
            let owner = |p: &TopicPartition| among.iter().filter(|i| m[**i].owned.contains_key(p)).count();
            all.iter().all(|p| owner(p) == 1) && among.iter().all(|i| m[*i].has(topic) > 0)
        })
        .await
    }

    /// Returns the consumer of a member, for calls concurrent with its steps.
    pub(crate) fn consumer(&self, who: usize) -> Arc<dyn Consumer> {
        Arc::clone(&self.members[who].consumer)
    }
}

//! A queue with a clock and named batches, for tests of its decisions.

use std::time::{Duration, Instant};

use super::{Answer, Completion, Identity, Payload, SendQueue, SendSettings};
use crate::wire::records::ProducerState;

pub(super) const BROKER: i32 = 1;
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
pub(super) const SETTINGS: SendSettings = SendSettings { delivery_timeout: TIMEOUT, max_request_bytes: 100 };
/// The code of a batch that can be split.
pub(super) const TOO_LARGE: i16 = 10;
/// Longer than any delay before a retry.
pub(super) const LATER: Duration = Duration::from_secs(2);

/// A batch of one record, with a name and a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named(pub(super) u32, pub(super) usize);

impl Payload for Named {
    fn count(&self) -> u32 {
        1
    }

    fn size(&self) -> usize {
        self.1
    }

    /// Splits off the first ten bytes.
    fn split(self, code: i16) -> Result<(Self, Self), Self> {
        if code != TOO_LARGE || self.1 <= 10 {
            return Err(self);
        }
        Ok((Self(self.0, 10), Self(self.0 + 100, self.1 - 10)))
    }
}

/// A batch in a request: its partition, its name, and the epoch and sequence that it is sent under.
pub(super) type Sent = (usize, u32, i16, i32);

/// A queue, and its caller's clock.
pub(super) struct Play {
    pub(super) queue: SendQueue<Named>,
    pub(super) now: Instant,
}

impl Play {
    /// Creates a queue of `partitions` that one broker leads.
    pub(super) fn new(partitions: usize) -> Self {
        let mut queue = SendQueue::new(SETTINGS);
        for _ in 0..partitions {
            let number = queue.add_partition();
            queue.set_leader(number, Some(BROKER));
        }
        queue.set_identity(Identity { id: 7, epoch: 0 });
        Self { queue, now: Instant::now() }
    }

    /// Creates a queue of one partition, whose broker has state of the producer up to sequence 0.
    pub(super) fn known() -> Self {
        let mut play = Self::new(1);
        play.push(0, 0..1);
        let (request, _) = play.send().expect("a request");
        assert_eq!(play.answer(request, Answer::Stored(Some(0))).len(), 1);
        play
    }

    pub(super) fn push(&mut self, partition: usize, names: std::ops::Range<u32>) {
        for name in names {
            assert_eq!(self.queue.push(partition, Named(name, 10), self.now), None);
        }
    }

    /// Returns the number and the batches of the next request.
    pub(super) fn send(&mut self) -> Option<(u64, Vec<Sent>)> {
        let mut sent = Vec::new();
        let add = |partition, producer: ProducerState, batch: &mut Named| {
            sent.push((partition, batch.0, producer.epoch, producer.sequence));
        };
        let request = self.queue.next_request(BROKER, self.now, add)?;
        Some((request, sent))
    }

    pub(super) fn answer(&mut self, request: u64, answer: Answer) -> Vec<Completion<Named>> {
        self.queue.answered(request, &(0..8).map(|number| (number, answer)).collect(), self.now)
    }

    /// Sends all requests that may be sent. Returns their numbers, and the names and sequences of their first batches.
    pub(super) fn send_all(&mut self) -> (Vec<u64>, Vec<(u32, i32)>) {
        let sent = std::iter::from_fn(|| self.send());
        let each = sent.map(|(request, batches)| (request, (batches[0].1, batches[0].3)));
        each.unzip()
    }
}

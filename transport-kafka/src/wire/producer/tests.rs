//! The order of batches, and the effects of answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::play::{BROKER, LATER, Named, Play, SETTINGS, TIMEOUT, TOO_LARGE};
use super::{Answer, Completion, Fate, Identity, Payload, SendQueue};
use crate::wire::records::ProducerState;

#[test]
fn the_first_batch_is_sent_alone_and_then_five_at_once() {
    let mut play = Play::new(1);
    play.push(0, 0..8);
    let (requests, sent) = play.send_all();
    assert_eq!(sent, [(0, 0)]);
    play.answer(requests[0], Answer::Stored(Some(0)));
    assert_eq!(play.send_all().1, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
}

#[test]
fn a_request_has_one_batch_of_each_partition_up_to_its_size() {
    let mut play = Play::new(12);
    (0..12).for_each(|partition| play.push(partition, 0..2));
    let first = play.send().expect("a request").1;
    assert_eq!(first.iter().map(|batch| batch.0).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    let second = play.send().expect("a request").1;
    assert_eq!(second.iter().map(|batch| batch.0).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(play.send(), None);
}

#[test]
fn a_larger_batch_is_sent_alone() {
    let mut play = Play::new(2);
    for partition in 0..2 {
        play.queue.push(partition, Named(0, 1_000), play.now);
    }
    assert_eq!(play.send().expect("a request").1.len(), 1);
    assert_eq!(play.send().expect("a request").1.len(), 1);
}

#[test]
fn after_a_failure_batches_are_repeated_one_by_one_and_in_order() {
    let mut play = Play::known();
    play.push(0, 1..4);
    let (requests, _) = play.send_all();
    play.answer(requests[0], Answer::NotStored { moved: false });
    play.answer(requests[1], Answer::OutOfOrder);
    assert_eq!(play.send(), None, "one is in flight, and the delay has not passed");
    play.answer(requests[2], Answer::OutOfOrder);
    play.now += LATER;
    let (requests, sent) = play.send_all();
    assert_eq!(sent, [(1, 1)], "under the same sequence");
    play.answer(requests[0], Answer::Stored(Some(1)));
    assert_eq!(play.send_all().1, [(2, 2), (3, 3)]);
}

#[test]
fn a_lost_connection_repeats_what_was_in_flight() {
    let mut play = Play::known();
    play.push(0, 1..3);
    for request in play.send_all().0 {
        assert_eq!(play.queue.lost(request, false, play.now), []);
    }
    assert_eq!(play.queue.without_leader().collect::<Vec<_>>(), [0]);
    play.now += LATER;
    assert_eq!(play.send(), None, "the leader is unknown");
    play.queue.set_leader(0, Some(BROKER));
    assert_eq!(play.send_all().1, [(1, 1)]);
}

#[test]
fn another_leader_gets_nothing_while_batches_are_in_flight_to_the_last_one() {
    let mut play = Play::known();
    play.push(0, 1..4);
    let (request, _) = play.send().expect("a request");
    play.queue.set_leader(0, Some(2));
    assert_eq!(play.queue.next_request(2, play.now, |_, _, _| {}), None);
    play.answer(request, Answer::NotStored { moved: false });
    play.now += LATER;
    assert!(play.queue.next_request(2, play.now, |_, _, _| {}).is_some());
}

#[test]
fn another_leader_gets_nothing_even_if_the_last_one_still_stores() {
    let mut play = Play::known();
    play.push(0, 1..4);
    let requests = [play.send(), play.send()].map(|sent| sent.expect("a request").0);
    play.queue.set_leader(0, Some(2));
    play.answer(requests[0], Answer::Stored(Some(1)));
    assert_eq!(play.queue.next_request(2, play.now, |_, _, _| {}), None);
    play.answer(requests[1], Answer::Stored(Some(2)));
    assert!(play.queue.next_request(2, play.now, |_, _, _| {}).is_some());
}

#[test]
fn a_refused_batch_leaves_no_gap_if_it_is_the_last() {
    let mut play = Play::known();
    play.push(0, 1..2);
    let (request, _) = play.send().expect("a request");
    let ended = play.answer(request, Answer::Refused(87));
    assert_eq!(ended[0].fate, Fate::Refused(87));
    play.push(0, 2..3);
    assert_eq!(play.send().expect("a request").1, [(0, 2, 0, 1)]);
}

#[test]
fn the_halves_of_a_refused_batch_take_its_place() {
    let mut play = Play::known();
    for (name, size) in [(1, 10), (2, 30), (3, 10)] {
        play.queue.push(0, Named(name, size), play.now);
    }
    let (requests, _) = play.send_all();
    play.answer(requests[0], Answer::Stored(Some(1)));
    assert_eq!(play.answer(requests[1], Answer::Refused(TOO_LARGE)), []);
    assert_eq!(play.send(), None, "the next epoch waits for what is in flight");
    play.answer(requests[2], Answer::OutOfOrder);
    play.now += LATER;
    let (mut sent, mut refused) = (Vec::new(), Vec::new());
    while let Some((request, batches)) = play.send() {
        sent.push((batches[0].1, batches[0].2, batches[0].3));
        let answer = if batches[0].1 == 102 { Answer::Refused(TOO_LARGE) } else { Answer::Stored(None) };
        let ended = play.answer(request, answer);
        refused.extend(ended.into_iter().filter(|ended| ended.fate == Fate::Refused(TOO_LARGE)));
    }
    // The second batch is split twice, and one of its parts is refused; its sequence is used again.
    assert_eq!(sent, [(2, 1, 0), (102, 1, 1), (102, 1, 1), (202, 1, 1), (3, 1, 2)]);
    assert_eq!(refused.iter().map(|ended| ended.payload.0).collect::<Vec<_>>(), [102]);
}

#[test]
fn a_gap_raises_the_epoch_of_its_partition_only() {
    let mut play = Play::new(2);
    (0..2).for_each(|partition| play.push(partition, 0..1));
    let (request, _) = play.send().expect("a request");
    play.answer(request, Answer::Stored(Some(0)));
    (0..2).for_each(|partition| play.push(partition, 1..4));
    let requests: Vec<_> = std::iter::from_fn(|| play.send()).map(|(request, _)| request).collect();
    let answers = |first, second| HashMap::from([(0, first), (1, second)]);
    let ended = play.queue.answered(requests[0], &answers(Answer::Refused(87), Answer::Stored(Some(1))), play.now);
    let fates: HashMap<_, _> = ended.iter().map(|ended| (ended.partition, ended.fate)).collect();
    assert_eq!(fates, HashMap::from([(0, Fate::Refused(87)), (1, Fate::Stored(Some(1)))]));
    play.queue.answered(requests[1], &answers(Answer::OutOfOrder, Answer::Stored(Some(2))), play.now);
    play.push(1, 4..5);
    assert_eq!(play.send().expect("a request").1, [(1, 4, 0, 4)], "the other one goes on");
    play.queue.answered(requests[2], &answers(Answer::OutOfOrder, Answer::Stored(Some(3))), play.now);
    play.now += LATER;
    assert_eq!(play.send().expect("a request").1, [(0, 2, 1, 0)]);
}

#[test]
fn a_log_that_lost_batches_gets_a_new_epoch() {
    let mut play = Play::known();
    play.push(0, 1..2);
    let (request, _) = play.send().expect("a request");
    assert_eq!(play.answer(request, Answer::OutOfOrder), []);
    play.now += LATER;
    assert_eq!(play.send().expect("a request").1, [(0, 1, 1, 0)]);
}

#[test]
fn a_gap_waits_for_what_is_in_flight() {
    let mut play = Play::known();
    play.push(0, 1..2);
    let _expires_first = play.send().expect("a request");
    play.now += Duration::from_secs(1);
    play.push(0, 2..4);
    let (requests, _) = play.send_all();
    assert_eq!(play.queue.expire(play.now + TIMEOUT - Duration::from_secs(1))[0].fate, Fate::Unknown);
    play.push(0, 4..6);
    play.answer(requests[0], Answer::Stored(Some(2)));
    assert_eq!(play.send(), None, "no sequence is taken while there may be a gap");
    play.answer(requests[1], Answer::Stored(Some(3)));
    let batches = std::iter::from_fn(|| play.send()).map(|(_, batches)| batches[0]);
    assert_eq!(batches.collect::<Vec<_>>(), [(0, 4, 1, 0)], "alone, as the first of its epoch");
}

#[test]
fn a_refusal_after_a_lost_answer_leaves_the_result_unknown() {
    let mut play = Play::known();
    play.push(0, 1..2);
    let (request, _) = play.send().expect("a request");
    play.answer(request, Answer::Open { moved: false });
    play.now += LATER;
    let (request, _) = play.send().expect("a request");
    assert_eq!(play.answer(request, Answer::Refused(29))[0].fate, Fate::Unknown);
}

#[test]
fn an_open_batch_is_never_sent_under_another_epoch() {
    let mut play = Play::known();
    play.push(0, 1..2);
    let (first, _) = play.send().expect("a request");
    play.queue.lost(first, false, play.now);
    play.queue.set_leader(0, Some(BROKER));
    play.now += LATER;
    let (again, sent) = play.send().expect("a request");
    assert_eq!(sent, [(0, 1, 0, 1)]);
    play.answer(again, Answer::OutOfOrder);
    play.push(0, 2..3);
    play.now += LATER;
    let (again, sent) = play.send().expect("a request");
    assert_eq!(sent, [(0, 1, 0, 1)]);
    play.answer(again, Answer::OutOfOrder);
    play.now += TIMEOUT - LATER - LATER;
    let ended = play.queue.expire(play.now);
    assert_eq!(ended.iter().map(|ended| (ended.payload.0, ended.fate)).collect::<Vec<_>>(), [(1, Fate::Unknown)]);
    assert_eq!(play.send().expect("a request").1, [(0, 2, 1, 0)]);
}

#[test]
fn a_batch_that_a_former_leader_may_have_appended_keeps_its_sequence() {
    let mut play = Play::known();
    play.push(0, 1..2);
    play.now += Duration::from_secs(1);
    play.push(0, 2..3);
    for request in play.send_all().0 {
        assert_eq!(play.answer(request, Answer::of(6, -1)), []);
    }
    play.now += TIMEOUT - Duration::from_secs(1);
    let ended = play.queue.expire(play.now);
    assert_eq!(ended.iter().map(|ended| (ended.payload.0, ended.fate)).collect::<Vec<_>>(), [(1, Fate::Unknown)]);
    play.queue.set_leader(0, Some(BROKER));
    let (request, sent) = play.send().expect("a request");
    assert_eq!(sent, [(0, 2, 0, 2)], "another epoch would append it again");
    assert_eq!(play.answer(request, Answer::of(29, -1))[0].fate, Fate::Unknown);
}

#[test]
fn batches_after_a_refused_one_do_not_wait_for_lost_answers() {
    for lost_first in [false, true] {
        let mut play = Play::known();
        play.push(0, 1..4);
        let (requests, sent) = play.send_all();
        assert_eq!(sent, [(1, 1), (2, 2), (3, 3)]);
        if lost_first {
            play.queue.lost(requests[1], false, play.now);
        }
        assert_eq!(play.answer(requests[0], Answer::Refused(87))[0].fate, Fate::Refused(87));
        if !lost_first {
            play.queue.lost(requests[1], false, play.now);
        }
        play.answer(requests[2], Answer::OutOfOrder);
        play.queue.set_leader(0, Some(BROKER));
        play.now += LATER;
        assert_eq!(play.send().expect("a request").1, [(0, 2, 1, 0)], "no copy of it can be appended");
    }
}

#[test]
fn batches_after_a_refused_one_wait_for_an_open_one_before_it() {
    let mut play = Play::known();
    play.push(0, 1..4);
    let (requests, _) = play.send_all();
    play.queue.lost(requests[0], false, play.now);
    play.answer(requests[1], Answer::Refused(87));
    play.queue.lost(requests[2], false, play.now);
    play.queue.set_leader(0, Some(BROKER));
    play.now += LATER;
    let (request, sent) = play.send().expect("a request");
    assert_eq!(sent, [(0, 1, 0, 1)]);
    assert_eq!(play.send(), None);
    assert_eq!(play.answer(request, Answer::Stored(Some(1)))[0].fate, Fate::Stored(Some(1)));
    assert_eq!(play.send().expect("a request").1, [(0, 3, 1, 0)]);
}

#[test]
fn batches_after_a_refused_one_expire_as_not_stored() {
    let mut play = Play::known();
    play.push(0, 1..3);
    let (requests, _) = play.send_all();
    play.answer(requests[0], Answer::Refused(87));
    let ended = play.queue.expire(play.now + TIMEOUT);
    assert_eq!(ended.iter().map(|ended| (ended.payload.0, ended.fate)).collect::<Vec<_>>(), [(2, Fate::Expired)]);
}

#[test]
fn unsent_batches_expire_as_not_stored() {
    let mut play = Play::new(1);
    play.queue.set_leader(0, None);
    play.push(0, 0..1);
    assert_eq!(play.queue.wakes_at(play.now), Some(play.now + TIMEOUT));
    let ended = play.queue.expire(play.now + TIMEOUT);
    assert_eq!(ended, [Completion { partition: 0, payload: Named(0, 10), fate: Fate::Expired }]);
    assert!(play.queue.is_empty());
}

#[test]
fn the_answer_to_an_expired_batch_is_ignored() {
    let mut play = Play::known();
    play.push(0, 1..2);
    let (request, _) = play.send().expect("a request");
    assert_eq!(play.queue.expire(play.now + TIMEOUT)[0].fate, Fate::Unknown);
    assert_eq!(play.answer(request, Answer::Stored(Some(1))), []);
    assert_eq!(play.answer(request, Answer::Stored(Some(1))), [], "a second answer as well");
    play.push(0, 2..3);
    assert_eq!(play.send().expect("a request").1, [(0, 2, 1, 0)], "its sequence may be missing");
}

#[test]
fn after_a_pause_the_next_batch_is_sent_alone() {
    let mut play = Play::known();
    play.now += Duration::from_secs(10);
    play.push(0, 1..3);
    assert_eq!(play.send_all().1, [(1, 1)]);
}

#[test]
fn after_the_last_epoch_another_id_is_needed() {
    let mut queue = SendQueue::new(SETTINGS);
    let (partition, now) = (queue.add_partition(), Instant::now());
    queue.set_leader(partition, Some(BROKER));
    queue.set_identity(Identity { id: 7, epoch: i16::MAX });
    queue.push(partition, Named(0, 10), now);
    let request = queue.next_request(BROKER, now, |_, _, _| {}).expect("a request");
    queue.answered(request, &HashMap::from([(partition, Answer::Fenced)]), now);
    assert!(queue.needs_identity());
    queue.set_identity(Identity { id: 8, epoch: 0 });
    let mut stamped = None;
    queue.next_request(BROKER, now + LATER, |_, producer, _| stamped = Some(producer));
    assert_eq!(stamped, Some(ProducerState { id: 8, epoch: 0, sequence: 0 }));
}

#[test]
fn sequences_start_again_after_the_largest() {
    /// A batch of as many records as there are sequences, but ten.
    #[derive(Debug)]
    struct Huge(u32);
    impl Payload for Huge {
        fn count(&self) -> u32 {
            self.0
        }
        fn size(&self) -> usize {
            1
        }
        fn split(self, _: i16) -> Result<(Self, Self), Self> {
            Err(self)
        }
    }
    let mut queue = SendQueue::new(SETTINGS);
    let (partition, now) = (queue.add_partition(), Instant::now());
    queue.set_leader(partition, Some(BROKER));
    queue.set_identity(Identity { id: 7, epoch: 0 });
    let mut sequences = Vec::new();
    for count in [i32::MAX as u32 - 9, 15, 1] {
        queue.push(partition, Huge(count), now);
        let request = queue.next_request(BROKER, now, |_, producer, _| sequences.push(producer.sequence));
        queue.answered(request.expect("a request"), &HashMap::from([(partition, Answer::Stored(None))]), now);
    }
    assert_eq!(sequences, [0, i32::MAX - 9, 5]);
}

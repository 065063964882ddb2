//! Tests of the checker: a good history has no anomaly, and each kind of planted anomaly is found.

use std::time::Duration;

use tidings_core::{Header, TopicPartition};
use tidings_service::RecordOutcome;
use uuid::Uuid;

use super::check::check;
use super::history::{Entry, Happened, Held, History, How, Kind, Letter, Order, Place};

fn origin() -> TopicPartition {
    TopicPartition::new("jobs", 0)
}

fn place(offset: u64) -> Place {
    Place { origin: origin(), offset }
}

fn id(offset: u64) -> Uuid {
    Uuid::from_u128(u128::from(offset) + 1)
}

fn held(offset: u64, kind: Kind) -> Held {
    let headers = vec![Header::new("h", "1")];
    Held { id: Some(id(offset)), key: Some("k".into()), value: Some("v".into()), headers, kind, returns: 0 }
}

fn committing(next: u64) -> [Happened; 2] {
    let origin = origin();
    [
        Happened::Committing { process: 1, origin: origin.clone(), epoch: 7, next },
        Happened::Committed { process: 1, origin, next, ok: true },
    ]
}

fn began(offset: u64) -> Happened {
    Happened::Began { process: 1, run: offset, origin: origin(), epoch: 7, offsets: vec![offset] }
}

fn ended(offset: u64) -> Happened {
    Happened::Ended { process: 1, run: offset, how: How::Ok }
}

fn observed(offset: u64, what: RecordOutcome) -> Happened {
    Happened::Observed { process: 1, what, place: place(offset), epoch: 7 }
}

/// Two records of one key are handled, the third is poison.
fn good() -> (Vec<Happened>, History) {
    let mut steps = vec![
        Happened::Started { process: 1 },
        Happened::Assigned { process: 1, origin: origin(), epoch: 7, start: 0 },
        Happened::Given { process: 1, origin: origin(), epoch: 7, offsets: vec![0, 1, 2] },
    ];
    for offset in 0..2 {
        steps.extend([began(offset), ended(offset), Happened::Completed { process: 1, id: id(offset) }]);
        steps.push(observed(offset, RecordOutcome::Handled));
    }
    steps.extend([began(2), Happened::Ended { process: 1, run: 2, how: How::Failed }]);
    steps.push(Happened::Buried { process: 1, place: place(2), ok: true });
    steps.push(observed(2, RecordOutcome::DeadLettered));
    steps.extend(committing(3));
    steps.push(Happened::Released { process: 1, origin: origin() });
    let poison = held(2, Kind::Poison);
    let letter = Letter {
        place: place(2),
        key: poison.key.clone(),
        value: poison.value.clone(),
        headers: poison.headers.clone(),
    };
    let history = History {
        order: Order::Key,
        store: true,
        max_span: 100,
        revocation: Duration::from_secs(60),
        entries: Vec::new(),
        log: [(place(0), held(0, Kind::Good)), (place(1), held(1, Kind::Good)), (place(2), poison)].into(),
        committed: [(origin(), 3)].into(),
        letters: vec![letter],
        returned: [].into(),
        stalled: None,
    };
    (steps, history)
}

/// Returns the kinds of anomalies found after `plant` has changed the good history.
fn found(plant: impl FnOnce(&mut Vec<Happened>, &mut History)) -> Vec<&'static str> {
    let (mut steps, mut history) = good();
    plant(&mut steps, &mut history);
    history.entries = steps.into_iter().map(|what| Entry { at: Duration::ZERO, what }).collect();
    let mut names: Vec<_> = check(&history).into_iter().map(|anomaly| anomaly.name).collect();
    names.dedup();
    names
}

fn at(steps: &[Happened], wanted: &Happened) -> usize {
    steps.iter().position(|step| step == wanted).expect("the good history has this step")
}

#[test]
fn a_good_history_has_no_anomaly() {
    assert_eq!(found(|_, _| {}), [""; 0]);
}

#[test]
fn a_lost_record_is_found() {
    let names = found(|steps, _| steps.retain(|step| *step != observed(1, RecordOutcome::Handled)));
    assert!(names.contains(&"lost") && names.contains(&"committed past unfinished work"), "{names:?}");
}

#[test]
fn a_record_that_is_handled_twice_is_found() {
    let again = |steps: &mut Vec<Happened>| {
        let end = at(steps, &committing(3)[0]);
        steps.splice(end..end, [began(1), ended(1)]);
    };
    assert!(found(|steps, _| again(steps)).contains(&"handled again after it was completed"));
    let names = found(|steps, history| {
        history.store = false;
        again(steps);
    });
    assert!(names.contains(&"duplicated"), "{names:?}");
}

#[test]
fn a_crash_excuses_a_second_handling_without_a_store() {
    let names = found(|steps, history| {
        history.store = false;
        let end = at(steps, &committing(3)[0]);
        steps.splice(end..end, [Happened::Crashed { process: 9 }, began(1), ended(1)]);
    });
    assert_eq!(names, [""; 0]);
}

#[test]
fn a_key_out_of_order_is_found() {
    let names = found(|steps, _| {
        let first = at(steps, &began(0));
        let late: Vec<_> = steps.drain(first..first + 4).collect();
        let second = at(steps, &observed(1, RecordOutcome::Handled));
        steps.splice(second + 1..second + 1, late);
    });
    assert!(names.contains(&"reordered"), "{names:?}");
}

#[test]
fn a_commit_past_unfinished_work_is_found() {
    let names = found(|steps, _| {
        let begin = at(steps, &began(1));
        steps.splice(begin..begin, committing(2));
    });
    assert_eq!(names, ["committed past unfinished work"]);
}

#[test]
fn a_delivery_after_revocation_is_found() {
    let revoking = Happened::Revoking { process: 1, origin: origin() };
    let names = found(|steps, _| {
        let begin = at(steps, &began(1));
        steps.insert(begin, revoking);
    });
    assert_eq!(names, ["delivered after revocation"]);
    let names = found(|steps, _| {
        let end = at(steps, &ended(1));
        steps.insert(end, Happened::Released { process: 1, origin: origin() });
    });
    assert!(names.contains(&"delivered after revocation"), "{names:?}");
    let names = found(|steps, _| {
        let begin = at(steps, &began(1));
        steps.insert(begin, Happened::Lost { process: 1, origin: origin() });
    });
    assert!(names.contains(&"delivered after revocation"), "{names:?}");
}

#[test]
fn what_is_settled_and_not_committed_at_the_end_of_an_assignment_is_found() {
    let names = found(|steps, _| {
        let commit = at(steps, &committing(3)[0]);
        steps.drain(commit..commit + 2);
    });
    assert_eq!(names, ["settled and not committed"]);
}

#[test]
fn a_stall_is_found_and_an_end_that_is_not_committed() {
    assert_eq!(found(|_, history| history.stalled = Some("it waits".into())), ["stalled"]);
    assert_eq!(found(|_, history| history.committed = [(origin(), 2)].into()), ["not committed to the end"]);
}

#[test]
fn a_dead_letter_that_is_missing_or_changed_is_found() {
    assert_eq!(found(|_, history| history.letters.clear()), ["dead letters incomplete"]);
    assert_eq!(found(|_, history| history.letters[0].value = None), ["dead letters incomplete"]);
    let twice = |history: &mut History| history.letters[0].headers.push(Header::new("h", "2"));
    assert_eq!(found(|_, history| twice(history)), ["dead letters incomplete"]);
}

#[test]
fn what_is_settled_in_a_way_that_it_was_not_is_found() {
    let without = |gone: Happened| found(move |steps, _| steps.retain(|step| *step != gone));
    assert!(without(ended(1)).contains(&"settled wrongly"), "handled, and no handler was done");
    assert_eq!(without(Happened::Completed { process: 1, id: id(1) }), ["settled wrongly"]);
    assert!(without(Happened::Buried { process: 1, place: place(2), ok: true }).contains(&"settled wrongly"));
    let kind = |kind| found(move |_, history| history.log.get_mut(&place(2)).unwrap().kind = kind);
    assert_eq!(kind(Kind::Good), ["settled wrongly"], "buried, though the next attempt would succeed");
    let returns = found(|_, history| history.log.get_mut(&place(0)).unwrap().returns = 1);
    assert_eq!(returns, ["settled wrongly"], "its event was not published first");
}

#[test]
fn a_repeat_that_returns_other_ids_is_found() {
    let names = found(|_, history| {
        history.log.get_mut(&place(0)).unwrap().returns = 1;
        history.returned.insert(id(0), vec![Uuid::from_u128(70), Uuid::from_u128(71)]);
    });
    assert!(names.contains(&"a repeat returned other ids"), "{names:?}");
}

#[test]
fn a_completion_before_the_handler_was_done_is_found() {
    let names = found(|steps, _| {
        let completed = at(steps, &Happened::Completed { process: 1, id: id(1) });
        let step = steps.remove(completed);
        let begin = at(steps, &began(1));
        steps.insert(begin, step);
    });
    assert!(names.contains(&"completed before it was handled"), "{names:?}");
}

#[test]
fn reading_on_beyond_the_bound_is_found() {
    let again = Happened::Given { process: 1, origin: origin(), epoch: 7, offsets: vec![3] };
    let read_on = |max_span| {
        let again = again.clone();
        found(move |steps, history| {
            history.max_span = max_span;
            let begin = at(steps, &began(1));
            steps.insert(begin, again);
        })
    };
    assert_eq!(read_on(2), ["unbounded"], "the second and the third are open");
    assert!(!read_on(3).contains(&"unbounded"));
}

#[test]
fn what_another_has_by_now_need_not_be_committed() {
    let names = found(|steps, _| {
        let commit = at(steps, &committing(3)[0]);
        steps.drain(commit..commit + 2);
        let taken = Happened::Assigned { process: 2, origin: origin(), epoch: 8, start: 0 };
        let begin = at(steps, &began(0));
        steps.insert(begin, taken);
    });
    assert_eq!(names, [""; 0]);
}

#[test]
fn what_is_settled_when_a_revocations_time_is_over_need_not_be_committed() {
    let within = |revocation| {
        found(move |steps, history| {
            history.revocation = revocation;
            let commit = at(steps, &committing(3)[0]);
            steps.drain(commit..commit + 2);
            let end = at(steps, &observed(2, RecordOutcome::DeadLettered));
            steps.splice(end..end, committing(2));
            steps.insert(end, Happened::Revoking { process: 1, origin: origin() });
        })
    };
    assert_eq!(within(Duration::from_secs(60)), ["settled and not committed"]);
    assert_eq!(within(Duration::ZERO), [""; 0]);
}

#[test]
fn what_was_not_published_within_a_revocations_time_may_be_handled_again() {
    let within = |revocation| {
        found(move |steps, history| {
            (history.store, history.revocation) = (false, revocation);
            // The second is handled, not settled, and released; the partition is assigned again.
            let done = at(steps, &observed(1, RecordOutcome::Handled));
            let again = [
                Happened::Revoking { process: 1, origin: origin() },
                Happened::Committing { process: 1, origin: origin(), epoch: 7, next: 1 },
                Happened::Committed { process: 1, origin: origin(), next: 1, ok: true },
                Happened::Released { process: 1, origin: origin() },
                Happened::Assigned { process: 1, origin: origin(), epoch: 7, start: 1 },
                Happened::Given { process: 1, origin: origin(), epoch: 7, offsets: vec![1, 2] },
                began(1),
                ended(1),
            ];
            steps.splice(done..done, again);
        })
    };
    assert_eq!(within(Duration::from_secs(60)), ["duplicated"]);
    assert_eq!(within(Duration::ZERO), [""; 0]);
}

#[test]
fn what_an_earlier_assignment_ends_settles_nothing_of_the_one_that_follows() {
    let settled_by = |epoch| {
        found(move |steps, _| {
            let last = at(steps, &observed(2, RecordOutcome::DeadLettered));
            steps[last] = Happened::Observed { process: 1, what: RecordOutcome::DeadLettered, place: place(2), epoch };
            let commit = at(steps, &committing(3)[0]);
            steps.splice(commit..commit + 2, committing(2));
        })
    };
    assert_eq!(settled_by(6), [""; 0]);
    assert_eq!(settled_by(7), ["settled and not committed"]);
}

#[test]
fn what_is_settled_and_was_not_given_is_found() {
    let given = Happened::Given { process: 1, origin: origin(), epoch: 7, offsets: vec![0, 1, 2] };
    let names = found(|steps, _| {
        let at = at(steps, &given);
        steps[at] = Happened::Given { process: 1, origin: origin(), epoch: 7, offsets: vec![0, 1] };
    });
    assert!(names.contains(&"settled wrongly"), "{names:?}");
}

//! X1: a transaction's records and offsets become visible together, or not at all.

use tidings_core::{ErrorKind, TopicPartition, TransactorOptions, Transport};

use super::c4::ten_read;
use super::fixture::{Fixture, numbered};
use super::x::{METADATA, same_values};
use crate::case::{Case, Checked, broken, cases, granted, holds, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    x1_records_of_all_partitions_are_seen_after_the_commit,
    x1_aborted_records_are_never_seen,
    x1_transactions_follow_each_other,
    x1_offsets_are_committed_with_the_records,
    x1_offsets_are_committed_alone,
    x1_a_record_that_is_not_stored_fails_its_transaction,
    x1_an_end_without_a_transaction_does_nothing,
    x1_a_dropped_commit_is_ended_by_the_next_call,
    x1_a_dropped_publish_is_whole_or_fails_its_transaction,
    x1_a_closed_transactor_has_aborted,
    x1_wrong_options_are_refused,
    x1_a_lost_answer_is_known_later_or_unknown[LostCommits],
];

async fn x1_records_of_all_partitions_are_seen_after_the_commit(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let transactor = fixture.transactor().await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 3).await?;
    let records: Vec<_> = (0..30).map(|n| numbered(&topic, (n % 3) as u32, n)).collect();
    for part in records.chunks(7) {
        members.meanwhile("publish", fixture.put(&*transactor, part.to_vec())).await??;
    }
    members.meanwhile("commit", fixture.end(&*transactor, None)).await??;
    members.records(0, 30).await?;
    members.rest().await?;
    for p in super::fixture::partitions(&topic, 3) {
        let of: Vec<_> = records.iter().filter(|r| r.partition == Some(p.partition)).cloned().collect();
        same_values(&of, members[0].of(&p))?;
    }
    Ok(())
}

async fn x1_aborted_records_are_never_seen(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    let mut members = fixture.reader(&topic).await?;
    fixture.put_numbered(&*transactor, &topic, 0, 5).await?;
    fixture.give_up(&*transactor).await?;
    let records = fixture.put_numbered(&*transactor, &topic, 5, 8).await?;
    fixture.end(&*transactor, None).await?;
    members.sees(&topic, &records).await?;
    fixture.sees(&topic, &records).await
}

async fn x1_transactions_follow_each_other(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    let mut members = fixture.reader(&topic).await?;
    let mut seen = Vec::new();
    for round in 0..12 {
        let records = fixture.put_numbered(&*transactor, &topic, 3 * round, 3 * round + 1 + round % 3).await?;
        if round % 3 == 1 {
            fixture.give_up(&*transactor).await?;
        } else {
            fixture.end(&*transactor, None).await?;
            seen.extend(records);
        }
    }
    members.sees(&topic, &seen).await
}

async fn x1_offsets_are_committed_with_the_records(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    let topic = fixture.topic(1).await?;
    let options = members[0].options.clone();
    let transactor = fixture.transactor().await?;
    let records = fixture.put_numbered(&*transactor, &topic, 0, 3).await?;
    let offsets = members.offsets(0, &p, 6).await??;
    members.rest().await?;
    same("what is committed before the end", None, fixture.committed_offset(&options.group, &p).await?)?;
    members.meanwhile("commit", fixture.end(&*transactor, Some(offsets))).await??;
    members.meanwhile("the offset", fixture.until_committed(&options.group, &p, 6)).await??;
    members.meanwhile("the records", fixture.sees(&topic, &records)).await??;
    // Progress and a plain commit know of it.
    members[0].commit(&p, 5).await?;
    same("a lower commit", Some(6), fixture.committed_offset(&options.group, &p).await?)?;
    members.close(0).await?;
    let mut next = fixture.join(options).await?;
    next.owns(0, &p.topic, 1).await?;
    let assignment = next[0].assignment(&p)?;
    same("the committed offset", (Some(6), 6), (assignment.committed, assignment.start_offset))?;
    same("its metadata", Some(METADATA), assignment.metadata.as_deref())
}

async fn x1_offsets_are_committed_alone(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    let group = members[0].options.group.clone();
    let transactor = fixture.transactor().await?;
    for next in [4, 7] {
        let offsets = members.offsets(0, &p, next).await??;
        members.meanwhile("commit", fixture.end(&*transactor, Some(offsets))).await??;
        members.meanwhile("the offset", fixture.until_committed(&group, &p, next)).await??;
    }
    Ok(())
}

/// Its neighbours are stored, and are aborted with it, as are the offsets.
async fn x1_a_record_that_is_not_stored_fails_its_transaction(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    let topic = fixture.topic(1).await?;
    let group = members[0].options.group.clone();
    let transactor = fixture.transactor().await?;
    let mut records: Vec<_> = (0..3).map(|n| numbered(&topic, 0, n)).collect();
    records.insert(1, numbered(&fixture.fresh("missing"), 0, 9));
    let answers = members.meanwhile("publish", fixture.try_put(&*transactor, records)).await??;
    holds(answers[1].is_err(), "an error of the record of a missing topic", &answers)?;
    let offsets = members.offsets(0, &p, 6).await??;
    let ended = members.meanwhile("commit", fixture.try_end(&*transactor, Some(offsets))).await??;
    match ended {
        Err(error) if error.kind() != ErrorKind::Indeterminate => {}
        other => return broken("the error of the record", format!("{other:?}")),
    }
    let records = fixture.put_numbered(&*transactor, &topic, 10, 12).await?;
    members.meanwhile("commit", fixture.end(&*transactor, None)).await??;
    members.meanwhile("the records", fixture.sees(&topic, &records)).await??;
    same("what is committed", None, fixture.committed_offset(&group, &p).await?)
}

async fn x1_an_end_without_a_transaction_does_nothing(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    fixture.end(&*transactor, None).await?;
    fixture.give_up(&*transactor).await?;
    let records = fixture.put_numbered(&*transactor, &topic, 0, 1).await?;
    fixture.end(&*transactor, None).await?;
    fixture.give_up(&*transactor).await?;
    fixture.end(&*transactor, None).await?;
    fixture.sees(&topic, &records).await
}

async fn x1_a_dropped_commit_is_ended_by_the_next_call(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    let mut seen = Vec::new();
    for polls in 1..4 {
        seen.extend(fixture.put_numbered(&*transactor, &topic, 10 * polls, 10 * polls + 2).await?);
        let dropped = poll_times(polls, transactor.commit(None)).await;
        fixture.note(format!("commit, dropped after {polls} polls: {dropped:?}"));
        fixture.end(&*transactor, None).await?;
    }
    fixture.sees(&topic, &seen).await
}

/// The call names four records: all of them are seen, or none. The order of one key is kept.
async fn x1_a_dropped_publish_is_whole_or_fails_its_transaction(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    let mut seen = Vec::new();
    for polls in 1..4 {
        let records: Vec<_> = (0..4).map(|n| numbered(&topic, 0, 10 * polls + n)).collect();
        let last = vec![numbered(&topic, 0, 10 * polls + 9)];
        drop(poll_times(polls, transactor.publish(records.clone())).await);
        fixture.note(format!("publish of four, dropped after {polls} polls"));
        let stored = fixture.try_put(&*transactor, last.clone()).await?.iter().all(Result::is_ok);
        match fixture.try_end(&*transactor, None).await? {
            Ok(()) if stored => seen.extend(records.into_iter().chain(last)),
            Ok(()) => return broken("an error of the commit", "Ok, although a record was not stored"),
            Err(_) => {}
        }
    }
    fixture.sees(&topic, &seen).await
}

async fn x1_a_closed_transactor_has_aborted(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    fixture.put_numbered(&*transactor, &topic, 0, 3).await?;
    for _ in 0..2 {
        granted("close", fixture.within("close", transactor.close(fixture.pace.patience)).await?)?;
    }
    let closed = &[ErrorKind::Closed];
    let answers = fixture.try_put(&*transactor, vec![numbered(&topic, 0, 3)]).await?;
    answers.into_iter().try_for_each(|answer| refused("publish after close", closed, answer))?;
    refused("commit after close", closed, fixture.try_end(&*transactor, None).await?)?;
    refused("abort after close", closed, fixture.within("abort", transactor.abort()).await?)?;
    let after = fixture.fill(&topic, 0, 5, 6).await;
    let records = after.or_else(|_| broken("a publisher that goes on", "an error"))?;
    fixture.sees(&topic, &records).await
}

async fn x1_wrong_options_are_refused(fixture: &Fixture) -> Checked {
    let transport = fixture.transport()?;
    let zero = TransactorOptions::new("x").with_timeout(std::time::Duration::ZERO);
    for options in [TransactorOptions::new(""), zero] {
        let opened = fixture.within("a transactor", transport.transactor(options)).await?;
        refused("a transactor with wrong options", &[ErrorKind::Invalid], opened)?;
    }
    Ok(())
}

/// A commit is `Ok`, and all is seen; it is unknown, and all or nothing is seen; or it failed, and nothing is.
async fn x1_a_lost_answer_is_known_later_or_unknown(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    let topic = fixture.topic(1).await?;
    let group = members[0].options.group.clone();
    let id = TransactorOptions::new(fixture.fresh("transactor"));
    let transactor = fixture.transactor_of(id.clone()).await?;
    let records = fixture.put_numbered(&*transactor, &topic, 0, 3).await?;
    let offsets = members.offsets(0, &p, 6).await??;
    fixture.lost_commits(true).await?;
    let ended = members.meanwhile("commit", fixture.try_end(&*transactor, Some(offsets))).await;
    fixture.lost_commits(false).await?;
    let kind = ended??.err().map(|error| error.kind());
    if kind == Some(ErrorKind::Indeterminate) {
        let again = fixture.try_end(&*transactor, None).await?;
        refused("a commit after an unknown one", &[ErrorKind::Closed, ErrorKind::Fenced], again)?;
    }
    // It waits for the end, or aborts.
    let next = members.meanwhile("a transactor", fixture.transactor_of(id)).await??;
    let last = fixture.put_numbered(&*next, &topic, 8, 9).await?;
    members.meanwhile("commit", fixture.end(&*next, None)).await??;
    let committed = match kind {
        None => {
            members.meanwhile("the offset", fixture.until_committed(&group, &p, 6)).await??;
            true
        }
        Some(ErrorKind::Indeterminate) => fixture.committed_offset(&group, &p).await?.is_some(),
        Some(_) => false,
    };
    same("what is committed", committed.then_some(6), fixture.committed_offset(&group, &p).await?)?;
    let seen = if committed { [records, last].concat() } else { last };
    members.meanwhile("the records", fixture.sees(&TopicPartition::new(&topic, 0).topic, &seen)).await?
}

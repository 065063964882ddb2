//! X2: committed readers see no record of an open or aborted transaction, and nothing behind an open one.

use tidings_core::{Name, ReadLimits, Record, TopicPartition, Transport};

use super::fixture::{Fixture, numbered};
use super::x::same_values;
use crate::case::{Case, Checked, cases, granted, holds, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    x2_an_open_transaction_holds_back_what_is_behind_it,
    x2_a_log_reader_stops_before_an_open_transaction,
    x2_transactions_of_a_partition_end_each_on_its_own,
    x2_other_partitions_are_not_held_back,
    x2_gaps_of_aborted_records_are_read,
    x2_the_order_is_that_of_publishing,
];

/// Both for a member that waits, and for one that joins later.
async fn x2_an_open_transaction_holds_back_what_is_behind_it(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut waiting = fixture.reader(&topic).await?;
    let mut records = fixture.fill(&topic, 0, 0, 2).await?;
    waiting.sees(&topic, &records).await?;
    let transactor = fixture.transactor().await?;
    records.extend(fixture.put_numbered(&*transactor, &topic, 2, 4).await?);
    records.extend(fixture.fill(&topic, 0, 4, 6).await?);
    records.extend(fixture.put_numbered(&*transactor, &topic, 6, 7).await?);
    waiting.sees(&topic, &records[..2]).await?;
    let mut later = fixture.reader(&topic).await?;
    later.sees(&topic, &records[..2]).await?;
    fixture.end(&*transactor, None).await?;
    waiting.sees(&topic, &records).await?;
    later.sees(&topic, &records).await
}

/// Reads a log by position until `count` records are there.
async fn read_log(fixture: &Fixture, topic: &Name, records: &[Record]) -> Checked {
    let transport = fixture.transport()?;
    let reader = fixture.within("a log reader", transport.log_reader()).await??;
    let at = TopicPartition::new(topic, 0);
    let what = format!("{} records of {at}", records.len());
    let read = fixture.eventually(&what, || async {
        let (mut all, mut next) = (Vec::new(), 0);
        loop {
            let read = granted("read", reader.read(&at, next, ReadLimits::default()).await)?;
            all.extend_from_slice(read.batch.records());
            next = read.next_offset;
            if read.is_at_end() {
                return Ok((all.len() >= records.len()).then_some(all));
            }
        }
    });
    same_values(records, &read.await?)
}

async fn x2_a_log_reader_stops_before_an_open_transaction(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    let mut records = fixture.fill(&topic, 0, 0, 2).await?;
    records.extend(fixture.put_numbered(&*transactor, &topic, 2, 4).await?);
    records.extend(fixture.fill(&topic, 0, 4, 6).await?);
    fixture.pass(fixture.pace.quiet).await?;
    read_log(fixture, &topic, &records[..2]).await?;
    fixture.end(&*transactor, None).await?;
    read_log(fixture, &topic, &records).await?;
    fixture.put_numbered(&*transactor, &topic, 6, 8).await?;
    fixture.give_up(&*transactor).await?;
    records.extend(fixture.fill(&topic, 0, 8, 9).await?);
    read_log(fixture, &topic, &records).await
}

async fn x2_transactions_of_a_partition_end_each_on_its_own(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let (first, second) = (fixture.transactor().await?, fixture.transactor().await?);
    let mut seen = Vec::new();
    for n in 0..3 {
        fixture.put_numbered(&*first, &topic, 2 * n, 2 * n + 1).await?;
        seen.extend(fixture.put_numbered(&*second, &topic, 2 * n + 1, 2 * n + 2).await?);
    }
    fixture.end(&*second, None).await?;
    let mut members = fixture.reader(&topic).await?;
    members.sees(&topic, &[]).await?;
    fixture.give_up(&*first).await?;
    members.sees(&topic, &seen).await
}

async fn x2_other_partitions_are_not_held_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let transactor = fixture.transactor().await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 2).await?;
    fixture.put_numbered(&*transactor, &topic, 0, 3).await?;
    let records = fixture.fill(&topic, 1, 3, 6).await?;
    members.records(0, 3).await?;
    members.rest().await?;
    same_values(&records, members[0].of(&TopicPartition::new(&topic, 1)))?;
    same("records of the other partition", 0, members[0].of(&TopicPartition::new(&topic, 0)).len())?;
    fixture.give_up(&*transactor).await
}

/// A service whose last records were aborted has no lag.
async fn x2_gaps_of_aborted_records_are_read(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    let transactor = fixture.transactor().await?;
    let at = fixture.put(&*transactor, (0..4).map(|n| numbered(&topic, 0, n)).collect()).await?;
    fixture.give_up(&*transactor).await?;
    let last = at.last().map_or(0, |position| position.offset);
    let owned = p.clone();
    members
        .until("the gap is read", move |m| m[0].owned.get(&owned).is_some_and(|owned| owned.position > last))
        .await?;
    let next = members[0].owned.get(&p).map_or(0, |owned| owned.position);
    members[0].commit(&p, next).await?;
    let (admin, group) = (fixture.admin().await?, members[0].options.group.clone());
    let nothing = fixture.eventually("no lag", || async {
        Ok((admin.group_lag(&group).await?.iter().all(|lag| lag.lag() == Some(0))).then_some(()))
    });
    members.meanwhile("no lag", nothing).await??;
    let consumer = members.consumer(0);
    let progress = members.meanwhile("progress", async move { consumer.progress().await }).await??;
    holds(progress.iter().all(|of| of.lag() == 0 && of.position > last), "a position behind the gap", progress)
}

/// Calls that overlap keep the order of their first polls, as a publisher's.
async fn x2_the_order_is_that_of_publishing(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transactor = fixture.transactor().await?;
    let one_key = |n: usize| numbered(&topic, 0, n).with_key("k");
    let records: Vec<_> = (0..30).map(one_key).collect();
    let [a, b, c] = [0, 10, 20].map(|from| transactor.publish(records[from..from + 10].to_vec()));
    let all = async { tokio::join!(biased; a, b, c) };
    let (a, b, c) = fixture.within("answers to publish", all).await?;
    let answers = a.into_iter().chain(b).chain(c);
    answers.into_iter().try_for_each(|answer| granted("publish in a transaction", answer).map(drop))?;
    fixture.end(&*transactor, None).await?;
    fixture.sees(&topic, &records).await
}

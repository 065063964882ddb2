//! L1 to L5: reading by position, without a group.
//!
//! An export or an audit that misses a record, or leaves a trace, is worse than none.

use std::time::Duration;

use tidings_core::{
    ConsumerOptions, ErrorKind, Header, Headers, LogReader, Read, ReadLimits, Record, SeekTo, StoredRecord, Timestamp,
    TopicPartition, Transport,
};
use tokio::time::{Instant, sleep};

use super::fixture::{Fixture, numbered, partitions, same_records};
use crate::case::{Case, Checked, broken, cases, granted, holds, only, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    l1_records_are_read_as_they_were_published,
    l1_reading_on_yields_each_record_once,
    l1_a_read_begins_at_its_offset,
    l1_reads_do_not_affect_each_other,
    l1_positions_are_found_on_each_partition,
    l1_gaps_are_passed_over[DeletedRecords],
    l2_reading_leaves_no_trace,
    l2_a_missing_partition_is_not_found,
    l3_limits_are_kept,
    l3_limits_of_zero_are_refused,
    l3_a_read_at_the_end_waits,
    l3_a_record_ends_the_wait,
    l4_a_read_below_the_start_begins_at_the_oldest[DeletedRecords],
    l4_a_read_beyond_the_end_is_refused,
    l5_unreadable_bytes_are_reported_and_can_be_skipped[UnreadableRecords],
];

impl Fixture {
    async fn log_reader(&self) -> Checked<std::sync::Arc<dyn LogReader>> {
        let transport = self.transport()?;
        Ok(self.within("a log reader", transport.log_reader()).await??)
    }

    /// Reads once, and checks what holds for every answer.
    async fn read_log(&self, at: &TopicPartition, offset: u64, limits: ReadLimits) -> Checked<Read> {
        let reader = self.log_reader().await?;
        let read = granted("read", self.within("read", reader.read(at, offset, limits)).await?)?;
        let records = read.batch.records();
        self.note(format!("read {at} from {offset}: {} records, then {}", records.len(), read.next_offset));
        same("the partition of the batch", at, &**read.batch.origin())?;
        holds(records.len() <= limits.max_records, "no more than max_records", records.len())?;
        holds(records.is_sorted_by(|a, b| a.offset < b.offset), "offsets that grow", records)?;
        let within = records.iter().all(|record| (offset..read.next_offset).contains(&record.offset));
        holds(within, "records between the offset and the next one", (offset, records, read.next_offset))?;
        holds(read.next_offset <= read.end_offset, "a next offset within the log", &read)?;
        Ok(read)
    }

    /// Reads a partition to its end, in parts of at most `limits`.
    async fn read_on(&self, at: &TopicPartition, from: u64, limits: ReadLimits) -> Checked<Vec<StoredRecord>> {
        let (mut next, mut all) = (from, Vec::new());
        loop {
            let read = self.read_log(at, next, limits).await?;
            all.extend_from_slice(read.batch.records());
            if read.is_at_end() {
                return Ok(all);
            }
            if read.next_offset <= next {
                return broken("progress with each read", format!("{} again", read.next_offset));
            }
            next = read.next_offset;
        }
    }

    async fn offsets(&self, at: &[TopicPartition], to: SeekTo) -> Checked<Vec<u64>> {
        let reader = self.log_reader().await?;
        let answers = self.within("offsets", reader.offsets(at, to)).await??;
        same("answers to offsets", at.len(), answers.len())?;
        answers.into_iter().map(|answer| granted("an offset", answer)).collect()
    }
}

fn limits() -> ReadLimits {
    ReadLimits::default()
}

async fn l1_records_are_read_as_they_were_published(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let headers = [Header::new("a", "1"), Header::null("n"), Header::new("a", ""), Header::new("", "empty")];
    let time = Timestamp::from_millis(1_600_000_000_000);
    let records = vec![
        Record::new(&topic, vec![0, 159, 146, 150]).with_key("k").with_timestamp(time),
        Record::tombstone(&topic).with_key(""),
        Record::new(&topic, "").with_headers(headers.into_iter().collect::<Headers>()),
        Record::new(&topic, vec![7; 200_000]),
    ];
    let records: Vec<_> = records.into_iter().map(|record| record.with_partition(0)).collect();
    fixture.publish(records.clone()).await?;
    let read = fixture.read_on(&TopicPartition::new(&topic, 0), 0, limits()).await?;
    same_records("what was published", 0, &records, &read)
}

async fn l1_reading_on_yields_each_record_once(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let records = fixture.fill(&topic, 1, 0, 25).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    let at = TopicPartition::new(&topic, 1);
    for most in [1, 3, 24, 25, 26] {
        let read = fixture.read_on(&at, 0, limits().with_max_records(most)).await?;
        same_records(&format!("what was read, {most} at a time"), 0, &records, &read)?;
    }
    Ok(())
}

/// Records that were published together are often stored together.
async fn l1_a_read_begins_at_its_offset(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records = fixture.fill(&topic, 0, 0, 10).await?;
    for from in 0..=10 {
        let read = fixture.read_log(&TopicPartition::new(&topic, 0), from as u64, limits()).await?;
        same_records("what was read", from as u64, &records[from..], read.batch.records())?;
        same("the next offset", 10, read.next_offset)?;
        same("the bounds of the log", (0, 10), (read.start_offset, read.end_offset))?;
    }
    Ok(())
}

async fn l1_reads_do_not_affect_each_other(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let (one, other) = (fixture.fill(&topic, 0, 0, 6).await?, fixture.fill(&topic, 1, 0, 6).await?);
    let [first, second] = [0, 1].map(|p| TopicPartition::new(&topic, p));
    let reader = fixture.log_reader().await?;
    let end = limits().with_wait(Duration::from_secs(1));
    let all = async {
        tokio::join!(
            reader.read(&first, 6, end),
            reader.read(&first, 0, limits()),
            reader.read(&second, 3, limits()),
            reader.read(&first, 2, limits()),
        )
    };
    let (waited, whole, half, most) = fixture.within("four reads", all).await?;
    same("records at the end", 0, waited?.batch.len())?;
    same_records("the whole of one", 0, &one, whole?.batch.records())?;
    same_records("half of the other", 3, &other[3..], half?.batch.records())?;
    same_records("most of one", 2, &one[2..], most?.batch.records())
}

async fn l1_positions_are_found_on_each_partition(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let time = |n: usize| Timestamp::from_millis(1_600_000_000_000 + n as i64 * 1_000);
    for (p, count) in [(0, 4), (1, 9)] {
        let records = (0..count).map(|n| numbered(&topic, p, n).with_timestamp(time(n)));
        fixture.publish(records.collect()).await?;
    }
    let all = partitions(&topic, 3);
    same("the oldest", vec![0, 0, 0], fixture.offsets(&all, SeekTo::Earliest).await?)?;
    same("the end", vec![4, 9, 0], fixture.offsets(&all, SeekTo::Latest).await?)?;
    same("an offset", vec![4, 6, 0], fixture.offsets(&all, SeekTo::Offset(6)).await?)?;
    same("a time", vec![2, 2, 0], fixture.offsets(&all, SeekTo::Time(time(2))).await?)?;
    same("a later time", vec![4, 7, 0], fixture.offsets(&all, SeekTo::Time(time(7))).await?)?;
    let twice = [all[1].clone(), all[0].clone(), all[1].clone()];
    same("in the order of the call", vec![9, 4, 9], fixture.offsets(&twice, SeekTo::Latest).await?)
}

/// Compacted records leave gaps, and a read within one goes on behind it.
async fn l1_gaps_are_passed_over(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 10).await?;
    let at = TopicPartition::new(&topic, 0);
    fixture.delete_records(&at, 3..7).await?;
    for (from, wanted) in [(0, vec![0, 1, 2, 7, 8, 9]), (4, vec![7, 8, 9]), (8, vec![8, 9])] {
        for most in [2, 100] {
            let read = fixture.read_on(&at, from, limits().with_max_records(most)).await?;
            let came: Vec<u64> = read.iter().map(|record| record.offset).collect();
            same(&format!("offsets from {from} on, {most} at a time"), wanted.clone(), came)?;
        }
    }
    Ok(())
}

async fn l2_reading_leaves_no_trace(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 10).await?;
    let at = TopicPartition::new(&topic, 0);
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 10).await?;
    members[0].commit(&at, 4).await?;
    members.close(0).await?;
    fixture.read_on(&at, 0, limits()).await?;
    fixture.read_log(&at, 10, limits().with_wait(Duration::from_millis(50))).await?;
    let admin = fixture.admin().await?;
    let lag = fixture.within("lag", admin.group_lag(&options.group)).await??;
    same("what the group has committed", vec![Some(4)], lag.iter().map(|lag| lag.committed).collect())?;
    same("the end of the log", 10, only("lag", lag)?.end)
}

async fn l2_a_missing_partition_is_not_found(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let missing = fixture.fresh("topic");
    let reader = fixture.log_reader().await?;
    let all = [TopicPartition::new(&missing, 0), TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 7)];
    for at in [&all[0], &all[2]] {
        let read = fixture.within("read", reader.read(at, 0, limits())).await?;
        refused(&format!("read {at}"), &[ErrorKind::NotFound], read)?;
    }
    let answers = fixture.within("offsets", reader.offsets(&all, SeekTo::Latest)).await??;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(tidings_core::Error::kind)).collect();
    same("the kinds of errors", vec![Some(ErrorKind::NotFound), None, Some(ErrorKind::NotFound)], kinds)?;
    let names = fixture.admin().await?.list_topics().await?;
    holds(!names.contains(&missing), "no topic is created", missing)
}

async fn l3_limits_are_kept(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records: Vec<_> = (0..10).map(|n| Record::new(&topic, vec![n; 10_000]).with_partition(0)).collect();
    fixture.publish(records.clone()).await?;
    let at = TopicPartition::new(&topic, 0);
    let read = fixture.read_log(&at, 2, limits().with_max_records(3)).await?;
    same("records with max_records", vec![2, 3, 4], offsets(&read))?;
    same("the next offset", 5, read.next_offset)?;
    let size = records[0].size();
    for (bytes, count) in [(size * 2, 2), (size * 3 - 1, 2), (size - 1, 1), (1, 1)] {
        let read = fixture.read_log(&at, 1, limits().with_max_bytes(bytes)).await?;
        let came = read.batch.size();
        holds(came <= bytes || read.batch.len() == 1, "no more than max_bytes, or one record", (bytes, came))?;
        same(&format!("records with max_bytes of {bytes}"), count, read.batch.len())?;
    }
    same_records("all, by bytes", 0, &records, &fixture.read_on(&at, 0, limits().with_max_bytes(size)).await?)
}

fn offsets(read: &Read) -> Vec<u64> {
    read.batch.records().iter().map(|record| record.offset).collect()
}

async fn l3_limits_of_zero_are_refused(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let (at, reader) = (TopicPartition::new(&topic, 0), fixture.log_reader().await?);
    for limits in [limits().with_max_records(0), limits().with_max_bytes(0)] {
        let read = fixture.within("read", reader.read(&at, 0, limits)).await?;
        refused(&format!("read with {limits:?}"), &[ErrorKind::Invalid], read)?;
    }
    Ok(())
}

async fn l3_a_read_at_the_end_waits(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 3).await?;
    let at = TopicPartition::new(&topic, 0);
    let wait = Duration::from_millis(300);
    for (wait, from) in [(Duration::ZERO, 3), (wait, 3)] {
        let began = Instant::now();
        let read = fixture.read_log(&at, from, limits().with_wait(wait)).await?;
        same("records", 0, read.batch.len())?;
        holds(read.is_at_end(), "the end of the log", &read)?;
        holds(began.elapsed() >= wait, &format!("an answer after {wait:?}"), began.elapsed())?;
    }
    // What is there does not wait.
    let wait = fixture.pace.patience / 2;
    let began = Instant::now();
    let read = fixture.read_log(&at, 2, limits().with_wait(wait)).await?;
    same("records", 1, read.batch.len())?;
    holds(began.elapsed() < wait, "an answer at once", began.elapsed())
}

async fn l3_a_record_ends_the_wait(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 3).await?;
    let (at, wait) = (TopicPartition::new(&topic, 0), fixture.pace.patience / 2);
    let began = Instant::now();
    let publish = async {
        sleep(Duration::from_millis(100)).await;
        fixture.fill(&topic, 0, 3, 4).await
    };
    let (read, published) = tokio::join!(fixture.read_log(&at, 3, limits().with_wait(wait)), publish);
    same_records("the record that came", 3, &published?, read?.batch.records())?;
    holds(began.elapsed() < wait, "an answer when it came", began.elapsed())
}

async fn l4_a_read_below_the_start_begins_at_the_oldest(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records = fixture.fill(&topic, 0, 0, 10).await?;
    let at = TopicPartition::new(&topic, 0);
    fixture.delete_records(&at, 0..6).await?;
    for from in [0, 5, 6] {
        let read = fixture.read_log(&at, from, limits()).await?;
        same_records("what is left", 6, &records[6..], read.batch.records())?;
        same("the oldest offset", 6, read.start_offset)?;
    }
    same("the oldest", vec![6], fixture.offsets(std::slice::from_ref(&at), SeekTo::Earliest).await?)?;
    same("an offset below", vec![6], fixture.offsets(&[at], SeekTo::Offset(2)).await?)
}

async fn l4_a_read_beyond_the_end_is_refused(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 3).await?;
    let (at, reader) = (TopicPartition::new(&topic, 0), fixture.log_reader().await?);
    for (offset, wait) in [(4, 0), (1_000, 1)] {
        let limits = limits().with_wait(Duration::from_secs(wait));
        let read = fixture.within("read", reader.read(&at, offset, limits)).await?;
        refused(&format!("read from {offset}"), &[ErrorKind::Invalid], read)?;
    }
    Ok(())
}

async fn l5_unreadable_bytes_are_reported_and_can_be_skipped(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let (bad, good) = (TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1));
    let before = fixture.fill(&topic, 0, 0, 3).await?;
    fixture.append_unreadable(&bad).await?;
    let behind = fixture.fill(&topic, 0, 3, 6).await?;
    let neighbours = fixture.fill(&topic, 1, 0, 5).await?;
    let first = fixture.read_log(&bad, 0, limits()).await?;
    same_records("records before the bytes", 0, &before, first.batch.records())?;
    same("the next offset", 3, first.next_offset)?;
    // They may be reported with the records before them, and are reported at their offset.
    let read = fixture.read_log(&bad, 3, limits().with_wait(Duration::from_secs(1))).await?;
    same("records at the bytes", 0, read.batch.len())?;
    let Some(held) = &read.unreadable else { return broken("unreadable bytes", format!("{read:?}")) };
    same("where they are", (&bad, 3, 3), (&held.partition, held.offset, read.next_offset))?;
    let kinds = [ErrorKind::Undecodable, ErrorKind::TooLarge, ErrorKind::Invalid, ErrorKind::Unsupported];
    holds(kinds.contains(&held.error.kind()), &format!("an error of {kinds:?}"), held)?;
    let end = fixture.offsets(std::slice::from_ref(&bad), SeekTo::Latest).await?;
    let next = held.next_offset.unwrap_or(end[0] - 3);
    same("where readable records go on", end[0] - 3, next)?;
    same_records("records behind the bytes", next, &behind, &fixture.read_on(&bad, next, limits()).await?)?;
    same_records("the other partition", 0, &neighbours, &fixture.read_on(&good, 0, limits()).await?)
}

//! `redrive_topic` with a publisher that refuses a letter.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use common::records;
use tidings_core::{
    DeadLetter, ErrorKind, Record, Result, StoredRecord, Timestamp, Topic, TopicPartition, Transport, dead_letter_topic,
};
use tidings_memory::{Faults, MemoryTransport, PublishFault};
use tidings_service::{RedriveOptions, redrive_topic};

async fn redrive(transport: &MemoryTransport) -> Result<u64> {
    Ok(redrive_topic(transport, "t", "s", RedriveOptions::default()).await?.redriven)
}

/// Letters of twelve records with the keys 0, 1 and 2 in turn; the value is the offset.
async fn bury_keyed(transport: &MemoryTransport) {
    let letter = |offset: u64| {
        let record = StoredRecord::new(offset, Timestamp::default());
        let record = record.with_key((offset % 3).to_string()).with_value(offset.to_string());
        DeadLetter::new("s", TopicPartition::new("t", 0), record, ErrorKind::Failed)
    };
    for answer in transport.dead_letters().await.expect("memory is up").bury((0..12).map(letter).collect()).await {
        answer.expect("memory is up");
    }
}

/// Returns the offsets of each key's letters that are back in their topic.
async fn back(transport: &MemoryTransport) -> [Vec<u64>; 3] {
    let text =
        |record: &StoredRecord| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    let values: Vec<u64> =
        records(transport, "t").await.iter().map(|r| text(r).parse().expect("we wrote it")).collect();
    [0, 1, 2].map(|key| values.iter().copied().filter(|value| value % 3 == key).collect())
}

#[tokio::test(start_paused = true)]
async fn a_refused_letter_is_named_and_holds_back_its_key_alone() {
    let all = [vec![0, 3, 6, 9], vec![1, 4, 7, 10], vec![2, 5, 8, 11]];
    // Refuses the second letter of each key in turn, as keys may or may not share a partition of the letters.
    for (refused, kind) in [("3", ErrorKind::Invalid), ("4", ErrorKind::TooLarge), ("5", ErrorKind::Invalid)] {
        let transport = MemoryTransport::new();
        let topics = [Topic::new("t").with_partitions(1), Topic::new(dead_letter_topic("t")).with_partitions(2)];
        for answer in transport.admin().await.unwrap().create_topics(&topics).await.unwrap() {
            answer.unwrap();
        }
        bury_keyed(&transport).await;
        let one = move |record: &Record| record.topic == "t" && record.value.as_deref() == Some(refused.as_bytes());
        transport.faults().publish(PublishFault::new(kind).with_matching(one).with_times(Faults::UNTIL_HEALED));
        let mut expected = all.clone();
        expected.iter_mut().find(|key| key[1].to_string() == refused).unwrap().truncate(1);
        for _ in 0..2 {
            let error = redrive(&transport).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().starts_with("redrive the letter t-dlq["), "{error}");
            assert_eq!(back(&transport).await, expected);
        }
        transport.faults().heal();
        assert_eq!(redrive(&transport).await.unwrap(), 3);
        assert_eq!(back(&transport).await, all);
    }
}

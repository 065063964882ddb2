//! D1 and D2, of the sink that goes with a transport: letters lie in `<topic>-dlq`, whole.
//!
//! The letters are read back by an ordinary consumer: other tools read these topics, too.

use std::sync::Arc;

use tidings_core::{
    DeadLetter, DeadLetterSink, ErrorKind, Header, Headers, Name, StoredRecord, Timestamp, TopicPartition, Transport,
    dead_letter_topic,
};

use super::fixture::Fixture;
use crate::case::{Case, Checked, broken, cases, granted, holds, only, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    d1_a_letter_that_is_buried_lies_in_its_topic,
    d1_each_letter_has_its_own_answer,
    d1_hundreds_of_letters_in_one_call,
    d1_a_letter_that_could_not_be_written_is_told,
    d1_the_check_names_the_missing_topic,
    d1_an_outage_is_told[Outage],
    d2_a_letter_keeps_its_record_byte_for_byte,
    d2_letters_keep_numbers_and_bytes_of_any_size,
    d2_a_letter_about_a_tombstone_keeps_it,
    d2_a_letter_about_a_letter_keeps_both,
];

/// Opens a sink of the transport.
async fn sink(fixture: &Fixture) -> Checked<Arc<dyn DeadLetterSink>> {
    let transport = fixture.transport()?;
    Ok(fixture.within("a dead-letter sink", transport.dead_letters()).await??)
}

/// Creates a topic with a dead-letter topic.
async fn topics(fixture: &Fixture) -> Checked<(Name, Name)> {
    let topic = fixture.topic(1).await?;
    let dead = dead_letter_topic(&topic);
    fixture.create(tidings_core::Topic::new(&dead)).await?;
    Ok((topic, dead))
}

/// Creates a letter whose record has bytes that are no UTF-8, duplicate headers and a null header.
fn letter(topic: &Name, offset: u64) -> DeadLetter {
    let mut headers = Headers::new().with("a", "1").with("a", "2").with("", vec![0xff, 0]);
    headers.push(Header::null("n"));
    let record = StoredRecord::new(offset, Timestamp::from_millis(1_700_000_000_123))
        .with_key(vec![0, 0xfe, 1])
        .with_value(vec![0xff, 0, 0xc3, 0x28])
        .with_headers(headers);
    DeadLetter::new("a service", TopicPartition::new(topic, 3), record, ErrorKind::Undecodable)
        .with_handler("a handler")
        .with_error("no such field: größe")
        .with_attempts(4)
        .with_failed_at(Timestamp::from_millis(1_700_000_111_456))
}

/// Reads the letters of a topic back.
async fn buried(fixture: &Fixture, dead: &Name, count: usize) -> Checked<Vec<DeadLetter>> {
    let members = fixture.read_all(dead, 1, count).await?;
    members[0].of(&TopicPartition::new(dead, 0)).iter().map(|r| Ok(DeadLetter::from_record(r)?)).collect()
}

/// Buries letters; each must be accepted.
async fn bury(fixture: &Fixture, letters: Vec<DeadLetter>) -> Checked {
    let count = letters.len();
    let sink = sink(fixture).await?;
    let answers = fixture.within("answers to bury", sink.bury(letters)).await?;
    same("answers to bury", count, answers.len())?;
    answers.into_iter().try_for_each(|answer| granted("bury", answer))
}

async fn d1_a_letter_that_is_buried_lies_in_its_topic(fixture: &Fixture) -> Checked {
    let (topic, dead) = topics(fixture).await?;
    let letters: Vec<DeadLetter> = (0..5).map(|n| letter(&topic, n)).collect();
    bury(fixture, letters.clone()).await?;
    same("the letters' offsets", 5, buried(fixture, &dead, 5).await?.len())
}

/// A missing dead-letter topic of one origin must not hold back the letters of others.
async fn d1_each_letter_has_its_own_answer(fixture: &Fixture) -> Checked {
    let (topic, dead) = topics(fixture).await?;
    let without = fixture.topic(1).await?;
    let sink = sink(fixture).await?;
    let letters = vec![letter(&topic, 1), letter(&without, 2), letter(&topic, 3)];
    let answers = fixture.within("answers to bury", sink.bury(letters)).await?;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(tidings_core::Error::kind)).collect();
    same("answers to bury", vec![None, Some(ErrorKind::NotFound), None], kinds)?;
    let offsets: Vec<u64> = buried(fixture, &dead, 2).await?.iter().map(|l| l.record.offset).collect();
    same("the letters that are there", vec![1, 3], offsets)
}

/// Of topics that begin alike, one of which has no dead-letter topic. Each is stored once, in the order of the call.
async fn d1_hundreds_of_letters_in_one_call(fixture: &Fixture) -> Checked {
    let (topic, dead) = topics(fixture).await?;
    let (other, without) = (Name::from(format!("{topic}-eu")), Name::from(format!("{topic}1")));
    let other_dead = dead_letter_topic(&other);
    fixture.create(tidings_core::Topic::new(&other_dead)).await?;
    let origin = |n: u64| match n {
        150 => &without,
        n if n.is_multiple_of(3) => &other,
        _ => &topic,
    };
    let letters = (0..300).map(|n| letter(origin(n), n)).collect();
    let sink = sink(fixture).await?;
    let answers = fixture.within("answers to bury", sink.bury(letters)).await?;
    let refused: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(tidings_core::Error::kind)).collect();
    same("answers to bury", (0..300).map(|n| (n == 150).then_some(ErrorKind::NotFound)).collect(), refused)?;
    for (origin, dead, count) in [(&topic, &dead, 200), (&other, &other_dead, 99)] {
        let came = buried(fixture, dead, count).await?;
        let of = |n: &u64| n.is_multiple_of(3) == (origin == &other) && *n != 150;
        let expected: Vec<_> = (0..300).filter(of).map(|n| (origin.clone(), n)).collect();
        let came = came.into_iter().map(|l| (l.origin.topic, l.record.offset)).collect();
        same(&format!("the letters in {dead}"), expected, came)?;
    }
    Ok(())
}

/// The record would be committed and lost.
async fn d1_a_letter_that_could_not_be_written_is_told(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let sink = sink(fixture).await?;
    let answers = fixture.within("an answer", sink.bury(vec![letter(&topic, 0)])).await?;
    refused("a letter that has no topic to go to", &[ErrorKind::NotFound], only("bury", answers)?)
}

/// A service checks before it starts, and tells its operator what to create.
async fn d1_the_check_names_the_missing_topic(fixture: &Fixture) -> Checked {
    let (good, _) = topics(fixture).await?;
    let bad = fixture.topic(1).await?;
    let sink = sink(fixture).await?;
    granted("check", fixture.within("check", sink.check(std::slice::from_ref(&good))).await?)?;
    match fixture.within("check", sink.check(&[good, bad.clone()])).await? {
        Ok(()) => broken(format!("no dead-letter topic for {bad}"), "Ok"),
        Err(error) => {
            same("the kind", ErrorKind::NotFound, error.kind())?;
            holds(error.report().contains(dead_letter_topic(&bad).as_str()), "its name", error.report())
        }
    }
}

async fn d1_an_outage_is_told(fixture: &Fixture) -> Checked {
    let (topic, _) = topics(fixture).await?;
    let sink = sink(fixture).await?;
    for answer in fixture.within("an answer", sink.bury(vec![letter(&topic, 0)])).await? {
        granted("bury", answer)?;
    }
    fixture.outage(true).await?;
    let answers = fixture.within("an answer", sink.bury(vec![letter(&topic, 1)])).await;
    fixture.outage(false).await?;
    let retryable = &[ErrorKind::Unavailable, ErrorKind::Indeterminate];
    refused("a letter during an outage", retryable, only("bury", answers?)?)
}

/// It is redriven from there: every byte counts.
async fn d2_a_letter_keeps_its_record_byte_for_byte(fixture: &Fixture) -> Checked {
    let (topic, dead) = topics(fixture).await?;
    let expected = letter(&topic, 77);
    bury(fixture, vec![expected.clone()]).await?;
    let came = only("letters", buried(fixture, &dead, 1).await?)?;
    same("the record", &expected.record, &came.record)?;
    same("its value", &expected.record.value, &came.record.value)?;
    same("its headers' values", values(&expected), values(&came))?;
    same("the letter", &expected, &came)
}

/// Returns names and values of headers, which `Debug` shortens.
fn values(letter: &DeadLetter) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    letter.record.headers.iter().map(|h| (h.name.to_vec(), h.value.as_ref().map(|v| v.to_vec()))).collect()
}

/// Null next to empty, more than a hundred headers, and numbers beyond 8, 32 and 53 bits or below zero.
async fn d2_letters_keep_numbers_and_bytes_of_any_size(fixture: &Fixture) -> Checked {
    let (topic, dead) = topics(fixture).await?;
    let mut headers = Headers::new();
    for n in 0..130 {
        headers.push(Header::new(format!("h{n}"), ""));
        headers.push(Header::null(format!("h{n}")));
    }
    let made = |partition: u32, offset: u64, time: i64, key: Option<Vec<u8>>, value: Option<Vec<u8>>| {
        let mut record = StoredRecord::new(offset, Timestamp::from_millis(time)).with_headers(headers.clone());
        (record.key, record.value) = (key.map(Into::into), value.map(Into::into));
        DeadLetter::new("größe", TopicPartition::new(&topic, partition), record, ErrorKind::Failed)
            .with_error("e".repeat(300))
            .with_attempts(u32::MAX)
            .with_failed_at(Timestamp::from_millis(-time))
    };
    let expected = vec![
        made(255, (1 << 32) + 1, 0, None, Some(Vec::new())),
        made(256, (1 << 53) + 1, -1, Some(Vec::new()), None),
        made(299, 0, -2_208_988_800_000, Some(vec![0xfe; 300]), Some(vec![0xff; 300_000])),
        made(1 << 30, i64::MAX as u64, 1, None, None),
    ];
    bury(fixture, expected.clone()).await?;
    let came = buried(fixture, &dead, expected.len()).await?;
    for (expected, came) in expected.iter().zip(&came) {
        same("the letter's headers", values(expected), values(came))?;
        same("the letter", expected, came)?;
    }
    Ok(())
}

async fn d2_a_letter_about_a_tombstone_keeps_it(fixture: &Fixture) -> Checked {
    let (topic, dead) = topics(fixture).await?;
    let mut expected = letter(&topic, 5);
    expected.record.value = None;
    expected.record.key = None;
    bury(fixture, vec![expected.clone()]).await?;
    same("the letter", expected, only("letters", buried(fixture, &dead, 1).await?)?)
}

/// A service that reads dead letters may fail, too: the headers of both must not mix.
async fn d2_a_letter_about_a_letter_keeps_both(fixture: &Fixture) -> Checked {
    let (topic, dead) = topics(fixture).await?;
    fixture.create(tidings_core::Topic::new(dead_letter_topic(&dead))).await?;
    let inner = letter(&topic, 1);
    bury(fixture, vec![inner.clone()]).await?;
    let members = fixture.read_all(&dead, 1, 1).await?;
    let p = TopicPartition::new(&dead, 0);
    let Some(stored) = members[0].of(&p).first().cloned() else { return broken("a letter", "none") };
    let outer = DeadLetter::new("another service", p, stored, ErrorKind::Failed).with_error("again");
    bury(fixture, vec![outer.clone()]).await?;
    let came = only("letters", buried(fixture, &dead_letter_topic(&dead), 1).await?)?;
    same("the outer letter", &outer, &came)?;
    same("the inner letter", inner, DeadLetter::from_record(&came.record)?)
}

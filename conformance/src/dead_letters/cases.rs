//! D1: durable. D2: byte for byte. D3: once.

use std::sync::Arc;

use tidings_core::{
    Clause, DeadLetter, DeadLetterStore, ErrorKind, Header, Headers, LetterId, LetterQuery, Name, Resolution,
    StoredRecord, Timestamp, TopicPartition,
};

use crate::case::{Case, Checked, broken, cases, granted, same};
use crate::context::{Context, poll_times};

pub(super) type Rig = Context<dyn DeadLetterStore>;

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d1_what_is_buried_is_listed,
    d1_no_letter_has_no_answer,
    d1_hundreds_of_letters_in_one_call,
    d1_a_dropped_bury_can_be_repeated,
    d1_an_outage_is_told_and_forgets_nothing[Outage],
    d1_the_check_passes_where_letters_can_be_buried,
    d2_the_original_is_kept_byte_for_byte,
    d2_a_tombstone_without_key_and_headers_is_kept,
    d2_a_value_of_one_mebibyte_is_kept,
    d2_the_longest_error_is_kept,
    d2_why_it_was_buried_is_kept,
    d3_a_letter_buried_twice_is_listed_once,
    d3_twins_within_one_call_are_listed_once,
    d3_letters_differ_by_service_topic_partition_and_offset,
    d3_a_letter_is_resolved_once,
    d3_resolving_from_many_sides_is_granted_once,
    d3_a_resolved_letter_that_is_buried_again_stays_resolved,
    d3_a_redriven_letter_that_fails_again_is_a_letter_again,
    d3_letters_are_listed_in_the_order_of_burying_and_by_pages,
    d3_letters_are_listed_as_asked,
    d3_letters_are_selected_by_their_error_and_counted,
    restart_letters_survive[Reopen],
    restart_resolutions_survive[Reopen],
];

/// Creates a letter whose record has bytes that are no UTF-8, duplicate headers, a null and an
/// empty one.
pub(super) fn letter(service: &Name, offset: u64) -> DeadLetter {
    let mut headers = Headers::new().with("a", "1").with("a", "2").with("", vec![0xff, 0]);
    headers.push(Header::null("n"));
    headers.push(Header::new("e", ""));
    let record = StoredRecord::new(offset, Timestamp::from_millis(1_700_000_000_123))
        .with_key(vec![0, 0xfe, 1])
        .with_value(vec![0xff, 0, 0xc3, 0x28])
        .with_headers(headers);
    DeadLetter::new(service, TopicPartition::new("conformance", 3), record, ErrorKind::Undecodable)
        .with_handler("a handler")
        .with_error("no such field: größe")
        .with_attempts(4)
        .with_failed_at(Timestamp::from_millis(1_700_000_111_456 + offset as i64))
}

/// A resolution for closing letters.
pub(super) fn redriven() -> Resolution {
    Resolution::redriven("the conformance suite")
}

impl Rig {
    pub(super) fn store(&self) -> Checked<Arc<dyn DeadLetterStore>> {
        self.backend()
    }

    pub(super) async fn bury(&self, letters: Vec<DeadLetter>) -> Checked {
        let (store, count) = (self.store()?, letters.len());
        let answers = self.within("answers to bury", store.bury(letters)).await?;
        self.note(format!("bury {count} letters: {} answers", answers.len()));
        same("answers to bury", count, answers.len())?;
        answers.into_iter().try_for_each(|answer| granted("bury", answer))
    }

    pub(super) async fn list(&self, query: &LetterQuery) -> Checked<Vec<DeadLetter>> {
        let store = self.store()?;
        let listed = self.within("a list", store.list(query)).await??;
        self.note(format!("listed {} letters", listed.len()));
        Ok(listed)
    }

    pub(super) fn keeps(&self, clause: Clause) -> Checked<bool> {
        Ok(self.store()?.guarantees().keeps(clause))
    }

    pub(super) async fn count(&self, query: &LetterQuery) -> Checked<u64> {
        let store = self.store()?;
        Ok(self.within("a count", store.count(query)).await??)
    }

    /// Returns all open letters of a service.
    pub(super) async fn of(&self, service: &Name) -> Checked<Vec<DeadLetter>> {
        self.list(&LetterQuery::default().with_service(service)).await
    }

    pub(super) async fn resolve(&self, letters: &[LetterId]) -> Checked<Vec<bool>> {
        let store = self.store()?;
        Ok(self.within("resolve", store.resolve(letters, &redriven())).await??)
    }
}

/// Compares each field of a letter, including contents that `Debug` hides.
fn same_letter(expected: &DeadLetter, came: &DeadLetter) -> Checked {
    same("the origin", &expected.origin, &came.origin)?;
    same("the offset", expected.record.offset, came.record.offset)?;
    same("the timestamp", expected.record.timestamp, came.record.timestamp)?;
    same("the key", &expected.record.key, &came.record.key)?;
    same(
        "the value's length",
        expected.record.value.as_ref().map(|v| v.len()),
        came.record.value.as_ref().map(|v| v.len()),
    )?;
    same("the headers", plain(expected), plain(came))?;
    same("the letter", expected, came)
}

/// Returns names and values of headers, which `Debug` shortens.
fn plain(letter: &DeadLetter) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    letter.record.headers.iter().map(|h| (h.name.to_vec(), h.value.as_ref().map(|v| v.to_vec()))).collect()
}

/// Buries one letter and compares what is listed.
async fn kept(rig: &Rig, change: impl FnOnce(&mut DeadLetter)) -> Checked {
    let service = rig.fresh("service");
    let mut expected = letter(&service, 77);
    change(&mut expected);
    rig.bury(vec![expected.clone()]).await?;
    match &rig.of(&service).await?[..] {
        [came] => same_letter(&expected, came),
        other => broken("one letter", other.len()),
    }
}

async fn d1_what_is_buried_is_listed(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    same("letters before", 0, rig.of(&service).await?.len())?;
    let letters: Vec<DeadLetter> = (0..5).map(|n| letter(&service, n)).collect();
    rig.bury(letters.clone()).await?;
    same("letters", letters, rig.of(&service).await?)
}

async fn d1_no_letter_has_no_answer(rig: &Rig) -> Checked {
    rig.bury(Vec::new()).await?;
    same("answers to resolve", 0, rig.resolve(&[]).await?.len())
}

/// More than a statement or a batch of a store takes.
async fn d1_hundreds_of_letters_in_one_call(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury((0..700).map(|n| letter(&service, n)).collect()).await?;
    let came: Vec<u64> = rig.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("offsets of letters", (0..700).collect(), came)
}

/// Dropped after each number of polls; each letter is then listed once.
async fn d1_a_dropped_bury_can_be_repeated(rig: &Rig) -> Checked {
    for times in 0..5 {
        let service = rig.fresh("service");
        let letters: Vec<DeadLetter> = (0..3).map(|n| letter(&service, n)).collect();
        let store = rig.store()?;
        drop(poll_times(times, store.bury(letters.clone())).await);
        rig.bury(letters.clone()).await?;
        same("letters, once each", 3, rig.of(&service).await?.len())?;
    }
    Ok(())
}

async fn d1_an_outage_is_told_and_forgets_nothing(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury(vec![letter(&service, 0)]).await?;
    rig.outage(true).await?;
    let store = rig.store()?;
    let answers = rig.within("an answer", store.bury(vec![letter(&service, 1)])).await;
    rig.outage(false).await?;
    for answer in answers? {
        match answer {
            Err(error) if error.is_retryable() => {}
            other => return broken("a retryable error during an outage", format!("{other:?}")),
        }
    }
    let after = rig.eventually("a list after the outage", || async {
        Ok(store.list(&LetterQuery::default().with_service(&service)).await.ok())
    });
    let offsets: Vec<u64> = after.await?.iter().map(|l| l.record.offset).collect();
    // A refused letter may be stored if its answer was lost; letters buried before must be.
    crate::case::holds(offsets.first() == Some(&0), "the letter from before the outage", offsets)
}

async fn d1_the_check_passes_where_letters_can_be_buried(rig: &Rig) -> Checked {
    let (service, store) = (rig.fresh("service"), rig.store()?);
    granted("check", rig.within("check", store.check(&["conformance".into()])).await?)?;
    rig.bury(vec![letter(&service, 1)]).await
}

async fn d2_the_original_is_kept_byte_for_byte(rig: &Rig) -> Checked {
    kept(rig, |_| {}).await
}

/// And empty ones, which are not null.
async fn d2_a_tombstone_without_key_and_headers_is_kept(rig: &Rig) -> Checked {
    kept(rig, |letter| {
        letter.record.key = None;
        letter.record.value = None;
        letter.record.headers = Headers::new();
    })
    .await?;
    // Empty is not null.
    kept(rig, |letter| {
        letter.record.key = Some("".into());
        letter.record.value = Some("".into());
    })
    .await
}

async fn d2_a_value_of_one_mebibyte_is_kept(rig: &Rig) -> Checked {
    let value: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    kept(rig, |letter| letter.record.value = Some(value.into())).await
}

/// With characters that a database may refuse.
async fn d2_the_longest_error_is_kept(rig: &Rig) -> Checked {
    kept(rig, |letter| *letter = letter.clone().with_error("é\n\0".repeat(DeadLetter::MAX_ERROR_TEXT))).await
}

async fn d2_why_it_was_buried_is_kept(rig: &Rig) -> Checked {
    let kinds = [ErrorKind::Failed, ErrorKind::TooLarge, ErrorKind::Invalid, ErrorKind::Undecodable];
    for kind in kinds {
        kept(rig, |letter| {
            letter.kind = kind;
            letter.attempts = u32::MAX >> 1;
            letter.handler = Name::default();
            letter.error = String::new();
        })
        .await?;
    }
    Ok(())
}

/// As after a crash between burying and committing.
async fn d3_a_letter_buried_twice_is_listed_once(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury(vec![letter(&service, 1), letter(&service, 2)]).await?;
    rig.bury(vec![letter(&service, 1).with_attempts(9)]).await?;
    let mut came: Vec<u64> = rig.of(&service).await?.iter().map(|l| l.record.offset).collect();
    came.sort_unstable();
    same("offsets of letters", vec![1, 2], came)
}

async fn d3_twins_within_one_call_are_listed_once(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury(vec![letter(&service, 1), letter(&service, 1), letter(&service, 2)]).await?;
    same("letters", 2, rig.of(&service).await?.len())
}

async fn d3_letters_differ_by_service_topic_partition_and_offset(rig: &Rig) -> Checked {
    let (service, other) = (rig.fresh("service"), rig.fresh("service"));
    let at = |topic: &str, partition| {
        let mut letter = letter(&service, 1);
        letter.origin = TopicPartition::new(topic, partition);
        letter
    };
    rig.bury(vec![at("one", 0), at("two", 0), at("one", 1), letter(&service, 2), letter(&other, 1)]).await?;
    same("letters of the one", 4, rig.of(&service).await?.len())?;
    same("letters of the other", 1, rig.of(&other).await?.len())
}

async fn d3_a_letter_is_resolved_once(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    let letters = [letter(&service, 1), letter(&service, 2)];
    rig.bury(letters.to_vec()).await?;
    let missing = letter(&service, 99).id();
    let ids = [letters[0].id(), missing, letters[0].id()];
    same("answers to resolve", vec![true, false, false], rig.resolve(&ids).await?)?;
    same("answers to resolving again", vec![false], rig.resolve(&ids[..1]).await?)?;
    let left: Vec<u64> = rig.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("letters that are open", vec![2], left)
}

async fn d3_a_resolved_letter_that_is_buried_again_stays_resolved(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury(vec![letter(&service, 1)]).await?;
    same("answers to resolve", vec![true], rig.resolve(&[letter(&service, 1).id()]).await?)?;
    // Like a service that crashed after burying and before committing: the letter was redriven already.
    rig.bury(vec![letter(&service, 1)]).await?;
    same("letters that are open", 0, rig.of(&service).await?.len())
}

/// Only one caller may believe that it closed the letter.
async fn d3_resolving_from_many_sides_is_granted_once(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury(vec![letter(&service, 1)]).await?;
    let mut resolving = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, id) = (rig.store()?, letter(&service, 1).id());
        resolving.spawn(async move { store.resolve(&[id], &redriven()).await });
    }
    let mut granted = 0;
    for answer in rig.within("all answers", resolving.join_all()).await? {
        granted += answer?.into_iter().filter(|resolved| *resolved).count();
    }
    // Two concurrent redrives must not both publish the letter.
    same("resolutions that count", 1, granted)
}

async fn d3_a_redriven_letter_that_fails_again_is_a_letter_again(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury(vec![letter(&service, 1)]).await?;
    same("answers to resolve", vec![true], rig.resolve(&[letter(&service, 1).id()]).await?)?;
    // A redriven record has an offset of its own.
    rig.bury(vec![letter(&service, 8)]).await?;
    let open: Vec<u64> = rig.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("letters that are open", vec![8], open)
}

/// The next page begins after a letter, so that letters closed meanwhile shift nothing.
async fn d3_letters_are_listed_in_the_order_of_burying_and_by_pages(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    let order = [5, 3, 9, 1, 7, 2];
    for offset in order {
        rig.bury(vec![letter(&service, offset)]).await?;
    }
    let mut query = LetterQuery::default().with_service(&service).with_limit(4);
    let first: Vec<LetterId> = rig.list(&query).await?.iter().map(DeadLetter::id).collect();
    same("the first page", order[..4].to_vec(), first.iter().map(|l| l.offset).collect())?;
    let Some(last) = first.last().cloned() else { return broken("a page", "none") };
    query = query.with_after(last);
    let second: Vec<u64> = rig.list(&query).await?.iter().map(|l| l.record.offset).collect();
    same("the second page", order[4..].to_vec(), second)
}

async fn d3_letters_are_listed_as_asked(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    let mut other_topic = letter(&service, 1);
    other_topic.origin.topic = "another".into();
    let mut other_kind = letter(&service, 2);
    other_kind.kind = ErrorKind::Failed;
    rig.bury(vec![other_topic, other_kind, letter(&service, 3)]).await?;
    let mine = || LetterQuery::default().with_service(&service);
    let offsets = async |query: LetterQuery| {
        let listed = rig.list(&query).await?;
        Ok::<Vec<u64>, crate::case::Broken>(listed.iter().map(|l| l.record.offset).collect())
    };
    same("of a topic", vec![1], offsets(mine().with_topic("another")).await?)?;
    same("of a kind", vec![2], offsets(mine().with_kind(ErrorKind::Failed)).await?)?;
    let mut since = mine();
    since.since = Some(letter(&service, 2).failed_at);
    same("since a time", vec![2, 3], offsets(since).await?)?;
    let mut until = mine();
    until.until = Some(letter(&service, 2).failed_at);
    same("until a time", vec![1], offsets(until).await?)?;
    let (two, three) = (letter(&service, 2).id(), letter(&service, 3).id());
    same("of identities", vec![3], offsets(mine().with_ids([three, letter(&service, 9).id()])).await?)?;
    same("of an identity, of a topic", 0, offsets(mine().with_ids([two]).with_topic("another")).await?.len())?;
    same("of no identity", 0, offsets(mine().with_ids([])).await?.len())
}

async fn d3_letters_are_selected_by_their_error_and_counted(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    let odd = letter(&service, 2).with_error("100% _odd_: Größe");
    rig.bury(vec![letter(&service, 1), odd, letter(&service, 3)]).await?;
    let mine = || LetterQuery::default().with_service(&service);
    for (text, expected) in [("% _odd_", 1), ("größe", 2), ("Größe", 1), ("nothing", 0)] {
        same("letters with a text in their error", expected, rig.list(&mine().with_error(text)).await?.len())?;
        same("their count", expected as u64, rig.count(&mine().with_error(text)).await?)?;
    }
    same(
        "the count, whatever the page",
        3,
        rig.count(&mine().with_limit(1).with_after(letter(&service, 1).id())).await?,
    )
}

async fn restart_letters_survive(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    let letters: Vec<DeadLetter> = (0..20).map(|n| letter(&service, n)).collect();
    rig.bury(letters.clone()).await?;
    drop(rig.reopen(rig.store()?).await?);
    same("letters after a restart", letters, rig.of(&service).await?)
}

async fn restart_resolutions_survive(rig: &Rig) -> Checked {
    let service = rig.fresh("service");
    rig.bury(vec![letter(&service, 1), letter(&service, 2)]).await?;
    same("answers to resolve", vec![true], rig.resolve(&[letter(&service, 1).id()]).await?)?;
    drop(rig.reopen(rig.store()?).await?);
    let open: Vec<u64> = rig.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("letters that are open after a restart", vec![2], open)?;
    same("resolving it again", vec![false], rig.resolve(&[letter(&service, 1).id()]).await?)
}

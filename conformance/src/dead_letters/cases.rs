//! D1: durable. D2: byte for byte. D3: once.

use tidings_core::{DeadLetter, DeadLetterStore, ErrorKind, Headers, LetterId, LetterQuery, Name, TopicPartition};

use super::fixture::{Fixture, kept, letter, redriven};
use crate::case::{Case, Checked, broken, cases, granted, same};
use crate::context::poll_times;

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

async fn d1_what_is_buried_is_listed(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    same("letters before", 0, fixture.of(&service).await?.len())?;
    let letters: Vec<DeadLetter> = (0..5).map(|n| letter(&service, n)).collect();
    fixture.bury(letters.clone()).await?;
    same("letters", letters, fixture.of(&service).await?)
}

async fn d1_no_letter_has_no_answer(fixture: &Fixture) -> Checked {
    fixture.bury(Vec::new()).await?;
    same("answers to resolve", 0, fixture.resolve(&[]).await?.len())
}

/// More than a statement or a batch of a store takes.
async fn d1_hundreds_of_letters_in_one_call(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury((0..700).map(|n| letter(&service, n)).collect()).await?;
    let came: Vec<u64> = fixture.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("offsets of letters", (0..700).collect(), came)
}

/// Dropped after each number of polls; each letter is then listed once.
async fn d1_a_dropped_bury_can_be_repeated(fixture: &Fixture) -> Checked {
    for times in 0..5 {
        let service = fixture.fresh("service");
        let letters: Vec<DeadLetter> = (0..3).map(|n| letter(&service, n)).collect();
        let store = fixture.store()?;
        drop(poll_times(times, store.bury(letters.clone())).await);
        fixture.bury(letters.clone()).await?;
        same("letters, once each", 3, fixture.of(&service).await?.len())?;
    }
    Ok(())
}

async fn d1_an_outage_is_told_and_forgets_nothing(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury(vec![letter(&service, 0)]).await?;
    fixture.outage(true).await?;
    let store = fixture.store()?;
    let answers = fixture.within("an answer", store.bury(vec![letter(&service, 1)])).await;
    fixture.outage(false).await?;
    for answer in answers? {
        match answer {
            Err(error) if error.is_retryable() => {}
            other => return broken("a retryable error during an outage", format!("{other:?}")),
        }
    }
    let after = fixture.eventually("a list after the outage", || async {
        Ok(store.list(&LetterQuery::default().with_service(&service)).await.ok())
    });
    let offsets: Vec<u64> = after.await?.iter().map(|l| l.record.offset).collect();
    // A refused letter may be stored if its answer was lost; letters buried before must be.
    crate::case::holds(offsets.first() == Some(&0), "the letter from before the outage", offsets)
}

async fn d1_the_check_passes_where_letters_can_be_buried(fixture: &Fixture) -> Checked {
    let (service, store) = (fixture.fresh("service"), fixture.store()?);
    granted("check", fixture.within("check", store.check(&["conformance".into()])).await?)?;
    fixture.bury(vec![letter(&service, 1)]).await
}

async fn d2_the_original_is_kept_byte_for_byte(fixture: &Fixture) -> Checked {
    kept(fixture, |_| {}).await
}

/// And empty ones, which are not null.
async fn d2_a_tombstone_without_key_and_headers_is_kept(fixture: &Fixture) -> Checked {
    kept(fixture, |letter| {
        letter.record.key = None;
        letter.record.value = None;
        letter.record.headers = Headers::new();
    })
    .await?;
    // Empty is not null.
    kept(fixture, |letter| {
        letter.record.key = Some("".into());
        letter.record.value = Some("".into());
    })
    .await
}

async fn d2_a_value_of_one_mebibyte_is_kept(fixture: &Fixture) -> Checked {
    let value: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    kept(fixture, |letter| letter.record.value = Some(value.into())).await
}

/// With characters that a database may refuse.
async fn d2_the_longest_error_is_kept(fixture: &Fixture) -> Checked {
    kept(fixture, |letter| *letter = letter.clone().with_error("é\n\0".repeat(DeadLetter::MAX_ERROR_TEXT))).await
}

async fn d2_why_it_was_buried_is_kept(fixture: &Fixture) -> Checked {
    let kinds = [ErrorKind::Failed, ErrorKind::TooLarge, ErrorKind::Invalid, ErrorKind::Undecodable];
    for kind in kinds {
        kept(fixture, |letter| {
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
async fn d3_a_letter_buried_twice_is_listed_once(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury(vec![letter(&service, 1), letter(&service, 2)]).await?;
    fixture.bury(vec![letter(&service, 1).with_attempts(9)]).await?;
    let mut came: Vec<u64> = fixture.of(&service).await?.iter().map(|l| l.record.offset).collect();
    came.sort_unstable();
    same("offsets of letters", vec![1, 2], came)
}

async fn d3_twins_within_one_call_are_listed_once(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury(vec![letter(&service, 1), letter(&service, 1), letter(&service, 2)]).await?;
    same("letters", 2, fixture.of(&service).await?.len())
}

async fn d3_letters_differ_by_service_topic_partition_and_offset(fixture: &Fixture) -> Checked {
    let (service, other) = (fixture.fresh("service"), fixture.fresh("service"));
    let at = |topic: &str, partition| {
        let mut letter = letter(&service, 1);
        letter.origin = TopicPartition::new(topic, partition);
        letter
    };
    fixture.bury(vec![at("one", 0), at("two", 0), at("one", 1), letter(&service, 2), letter(&other, 1)]).await?;
    same("letters of the one", 4, fixture.of(&service).await?.len())?;
    same("letters of the other", 1, fixture.of(&other).await?.len())
}

async fn d3_a_letter_is_resolved_once(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let letters = [letter(&service, 1), letter(&service, 2)];
    fixture.bury(letters.to_vec()).await?;
    let missing = letter(&service, 99).id();
    let ids = [letters[0].id(), missing, letters[0].id()];
    same("answers to resolve", vec![true, false, false], fixture.resolve(&ids).await?)?;
    same("answers to resolving again", vec![false], fixture.resolve(&ids[..1]).await?)?;
    let left: Vec<u64> = fixture.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("letters that are open", vec![2], left)
}

async fn d3_a_resolved_letter_that_is_buried_again_stays_resolved(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury(vec![letter(&service, 1)]).await?;
    same("answers to resolve", vec![true], fixture.resolve(&[letter(&service, 1).id()]).await?)?;
    // Like a service that crashed after burying and before committing: the letter was redriven already.
    fixture.bury(vec![letter(&service, 1)]).await?;
    same("letters that are open", 0, fixture.of(&service).await?.len())
}

/// Only one caller may believe that it closed the letter.
async fn d3_resolving_from_many_sides_is_granted_once(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury(vec![letter(&service, 1)]).await?;
    let mut resolving = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, id) = (fixture.store()?, letter(&service, 1).id());
        resolving.spawn(async move { store.resolve(&[id], &redriven()).await });
    }
    let mut granted = 0;
    for answer in fixture.within("all answers", resolving.join_all()).await? {
        granted += answer?.into_iter().filter(|resolved| *resolved).count();
    }
    // Two concurrent redrives must not both publish the letter.
    same("resolutions that count", 1, granted)
}

async fn d3_a_redriven_letter_that_fails_again_is_a_letter_again(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury(vec![letter(&service, 1)]).await?;
    same("answers to resolve", vec![true], fixture.resolve(&[letter(&service, 1).id()]).await?)?;
    // A redriven record has an offset of its own.
    fixture.bury(vec![letter(&service, 8)]).await?;
    let open: Vec<u64> = fixture.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("letters that are open", vec![8], open)
}

/// The next page begins after a letter, so that letters closed meanwhile shift nothing.
async fn d3_letters_are_listed_in_the_order_of_burying_and_by_pages(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let order = [5, 3, 9, 1, 7, 2];
    for offset in order {
        fixture.bury(vec![letter(&service, offset)]).await?;
    }
    let mut query = LetterQuery::default().with_service(&service).with_limit(4);
    let first: Vec<LetterId> = fixture.list(&query).await?.iter().map(DeadLetter::id).collect();
    same("the first page", order[..4].to_vec(), first.iter().map(|l| l.offset).collect())?;
    let Some(last) = first.last().cloned() else { return broken("a page", "none") };
    query = query.with_after(last);
    let second: Vec<u64> = fixture.list(&query).await?.iter().map(|l| l.record.offset).collect();
    same("the second page", order[4..].to_vec(), second)
}

async fn d3_letters_are_listed_as_asked(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let mut other_topic = letter(&service, 1);
    other_topic.origin.topic = "another".into();
    let mut other_kind = letter(&service, 2);
    other_kind.kind = ErrorKind::Failed;
    fixture.bury(vec![other_topic, other_kind, letter(&service, 3)]).await?;
    let mine = || LetterQuery::default().with_service(&service);
    let offsets = async |query: LetterQuery| {
        let listed = fixture.list(&query).await?;
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

async fn d3_letters_are_selected_by_their_error_and_counted(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let odd = letter(&service, 2).with_error("100% _odd_: Größe");
    fixture.bury(vec![letter(&service, 1), odd, letter(&service, 3)]).await?;
    let mine = || LetterQuery::default().with_service(&service);
    for (text, expected) in [("% _odd_", 1), ("größe", 2), ("Größe", 1), ("nothing", 0)] {
        same("letters with a text in their error", expected, fixture.list(&mine().with_error(text)).await?.len())?;
        same("their count", expected as u64, fixture.count(&mine().with_error(text)).await?)?;
    }
    same(
        "the count, whatever the page",
        3,
        fixture.count(&mine().with_limit(1).with_after(letter(&service, 1).id())).await?,
    )
}

async fn restart_letters_survive(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let letters: Vec<DeadLetter> = (0..20).map(|n| letter(&service, n)).collect();
    fixture.bury(letters.clone()).await?;
    drop(fixture.reopen(fixture.store()?).await?);
    same("letters after a restart", letters, fixture.of(&service).await?)
}

async fn restart_resolutions_survive(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    fixture.bury(vec![letter(&service, 1), letter(&service, 2)]).await?;
    same("answers to resolve", vec![true], fixture.resolve(&[letter(&service, 1).id()]).await?)?;
    drop(fixture.reopen(fixture.store()?).await?);
    let open: Vec<u64> = fixture.of(&service).await?.iter().map(|l| l.record.offset).collect();
    same("letters that are open after a restart", vec![2], open)?;
    same("resolving it again", vec![false], fixture.resolve(&[letter(&service, 1).id()]).await?)
}

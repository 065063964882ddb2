//! D3 by names and numbers: letters of similar identities are apart, and are found by each.

use bytes::Bytes;
use tidings_core::{
    DeadLetter, DeadLetterStore, Headers, Leased, LetterId, LetterLease, LetterQuery, Name, TopicPartition, headers,
};
use uuid::Uuid;

use super::fixture::{Fixture, LONG, letter};
use crate::case::{Case, Checked, cases, same};

pub(super) const CASES: &[Case<dyn DeadLetterStore>] = cases![
    d3_services_of_similar_names_are_apart,
    d3_topics_of_similar_names_are_apart,
    d3_offsets_and_partitions_of_any_size_are_apart,
    d3_letters_are_selected_by_the_type_of_their_event,
    d3_letters_are_selected_by_their_handler_and_key,
    d4_a_lease_is_its_letters_alone,
];

/// Returns names that a store may take for one another: by prefix, case, blanks, wildcards or separators.
fn similar(base: &str) -> Vec<Name> {
    let suffixes = ["", "-eu", "-EU", " ", "\u{e9}", "%", "/one", "/"];
    let mut names: Vec<String> = suffixes.into_iter().map(|suffix| format!("{base}{suffix}")).collect();
    names.extend([base.to_uppercase(), base.replace('-', "_"), base[..base.len() - 1].to_owned()]);
    names.extend(["a", "b"].map(|end| format!("{base}{}{end}", "x".repeat(200))));
    names.into_iter().map(Name::from).collect()
}

/// Creates a letter of this identity.
fn letter_of(id: &LetterId) -> DeadLetter {
    let mut letter = letter(&id.service, id.offset);
    letter.origin = id.origin.clone();
    letter
}

/// Services named `shop` and `shop-eu` fail at the same record.
async fn d3_services_of_similar_names_are_apart(fixture: &Fixture) -> Checked {
    let services = similar(&fixture.fresh("s"));
    let ids: Vec<_> = services.iter().map(|service| letter(service, 1).id()).collect();
    fixture.bury(ids.iter().map(letter_of).collect()).await?;
    let mine = |service: &Name| LetterQuery::default().with_service(service);
    for (service, id) in services.iter().zip(&ids) {
        let found: Vec<LetterId> = fixture.of(service).await?.iter().map(DeadLetter::id).collect();
        same(&format!("letters of {service:?}"), vec![id.clone()], found)?;
        same("their count", 1, fixture.count(&mine(service)).await?)?;
    }
    same("answers to resolve", vec![true], fixture.resolve(&ids[..1]).await?)?;
    for (at, service) in services.iter().enumerate() {
        same(&format!("open letters of {service:?}"), usize::from(at > 0), fixture.of(service).await?.len())?;
    }
    Ok(())
}

async fn d3_topics_of_similar_names_are_apart(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let topics = ["one", "one-eu", "ONE"];
    let ids = topics.map(|topic| LetterId::new(&service, TopicPartition::new(topic, 0), 1));
    fixture.bury(ids.iter().map(letter_of).collect()).await?;
    for (topic, id) in topics.iter().zip(&ids) {
        let query = LetterQuery::default().with_service(&service).with_topic(*topic);
        let found: Vec<LetterId> = fixture.list(&query).await?.iter().map(DeadLetter::id).collect();
        same(&format!("letters of the topic {topic}"), vec![id.clone()], found)?;
        same("their count", 1, fixture.count(&query).await?)?;
    }
    same("answers to resolve", vec![true], fixture.resolve(&ids[..1]).await?)?;
    let mut left: Vec<_> = fixture.of(&service).await?.iter().map(|letter| letter.origin.topic.to_string()).collect();
    left.sort_unstable();
    same("topics of open letters", vec!["ONE".to_owned(), "one-eu".to_owned()], left)
}

/// Numbers that a store may keep in too few bits, with a sign, or as a float.
async fn d3_offsets_and_partitions_of_any_size_are_apart(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let offsets = [0, 1, 256, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 53, (1 << 53) + 1, i64::MAX as u64];
    let partitions = [1, 255, 256, 257, 65_536, 65_537, 1 << 31, u32::MAX];
    let at = |partition, offset| LetterId::new(&service, TopicPartition::new("conformance", partition), offset);
    let ids: Vec<LetterId> =
        offsets.iter().map(|offset| at(0, *offset)).chain(partitions.iter().map(|p| at(*p, 0))).collect();
    fixture.bury(ids.iter().map(letter_of).collect()).await?;
    let open = async || Ok::<_, crate::case::Broken>(fixture.of(&service).await?.iter().map(DeadLetter::id).collect());
    same("the letters", ids.clone(), open().await?)?;
    let first: Vec<LetterId> = ids.iter().step_by(2).cloned().collect();
    let query = LetterQuery::default().with_service(&service).with_ids(first.clone());
    let found: Vec<LetterId> = fixture.list(&query).await?.iter().map(DeadLetter::id).collect();
    same("letters selected by identity", &first, &found)?;
    same("answers to resolve", vec![true; first.len()], fixture.resolve(&first).await?)?;
    let left: Vec<LetterId> = ids.iter().skip(1).step_by(2).cloned().collect();
    same("letters that are open", &left, &open().await?)?;
    let leased = fixture.lease(&ids, &LetterLease::new(LONG)).await?;
    let granted = leased.iter().filter(|answer| **answer == Leased::Granted).count();
    same("letters that are leased", left.len(), granted)
}

/// A type is compared in full, however long; a letter whose type cannot be read has none.
async fn d3_letters_are_selected_by_the_type_of_their_event(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let long = ["x".repeat(700), "x".repeat(701), format!("{}y", "x".repeat(700)), "\\0".repeat(400)];
    let types = ["order.placed", "order.placed.v2", "Order.placed", "order_placed", "", "\u{e9}'%\\"];
    let types: Vec<String> = types.into_iter().map(str::to_owned).chain(long).collect();
    let mut letters = vec![letter(&service, 99)];
    for (event_type, offset) in types.iter().zip(0..) {
        let mut letter = letter(&service, offset);
        letter.record.headers = Headers::new()
            .with(headers::CONTENT_TYPE, "application/vnd.conformance")
            .with(headers::EVENT_TYPE, event_type.clone())
            .with(headers::VERSION, "1.0")
            .with(headers::EVENT_ID, Uuid::now_v7().to_string());
        same("the type, as core reads it", Some(event_type.clone()), letter.event_type())?;
        letters.push(letter);
    }
    fixture.bury(letters).await?;
    let of_type = |event_type: &str| LetterQuery::default().with_service(&service).with_event_type(event_type);
    for (event_type, offset) in types.iter().zip(0..) {
        same(
            &format!("letters of the type {event_type:.20}"),
            vec![offset],
            fixture.offsets(&of_type(event_type)).await?,
        )?;
        same("their count", 1, fixture.count(&of_type(event_type)).await?)?;
    }
    same("letters of a type that none has", 0, fixture.list(&of_type("order")).await?.len())
}

/// Both are compared in full; no handler is an empty name, and no key is not the empty one.
async fn d3_letters_are_selected_by_their_handler_and_key(fixture: &Fixture) -> Checked {
    let service = fixture.fresh("service");
    let handlers = ["score", "score-v2", "Score", "", "\u{e9}'%\\"];
    let keys: [Option<&[u8]>; 5] = [Some(b"user-1"), Some(b"user-10"), Some(b""), None, Some(b"\0\xff\\")];
    let mut letters = Vec::new();
    for (offset, (handler, key)) in (0..).zip(handlers.into_iter().zip(keys)) {
        let mut letter = letter(&service, offset).with_handler(handler);
        letter.record.key = key.map(Bytes::copy_from_slice);
        letters.push(letter);
    }
    fixture.bury(letters).await?;
    let all = || LetterQuery::default().with_service(&service);
    for (offset, handler) in (0..).zip(handlers) {
        let query = all().with_handler(handler);
        same(&format!("letters of the handler {handler:?}"), vec![offset], fixture.offsets(&query).await?)?;
        same("their count", 1, fixture.count(&query).await?)?;
    }
    for (offset, key) in (0..).zip(keys) {
        let Some(key) = key else { continue };
        let query = all().with_key(key.to_vec());
        same(&format!("letters of the key {key:?}"), vec![offset], fixture.offsets(&query).await?)?;
        same("their count", 1, fixture.count(&query).await?)?;
    }
    let neither = all().with_handler("score").with_key("user-10");
    same("letters of a handler and the key of another", 0, fixture.list(&neither).await?.len())
}

async fn d4_a_lease_is_its_letters_alone(fixture: &Fixture) -> Checked {
    let (service, other) = (fixture.fresh("service"), fixture.fresh("service"));
    let at = |service: &Name, topic: &str, partition, offset| {
        LetterId::new(service, TopicPartition::new(topic, partition), offset)
    };
    let ids = [
        at(&service, "one", 0, 1),
        at(&other, "one", 0, 1),
        at(&service, "two", 0, 1),
        at(&service, "one", 1, 1),
        at(&service, "one", 0, 2),
    ];
    fixture.bury(ids.iter().map(letter_of).collect()).await?;
    let (one, another) = (LetterLease::new(LONG), LetterLease::new(LONG));
    same("a lease", vec![Leased::Granted], fixture.lease(&ids[..1], &one).await?)?;
    same("leases of the others", vec![Leased::Granted; 4], fixture.lease(&ids[1..], &another).await?)?;
    same("closing by the first lease", vec![true], fixture.resolve_leased(&ids[..1], &one).await?)?;
    fixture.end_lease(&ids, &one).await?;
    same(
        "closing by the other lease",
        vec![false, true, true, true, true],
        fixture.resolve_leased(&ids, &another).await?,
    )
}

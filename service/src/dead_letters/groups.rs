//! Groups of dead letters by what they have in common.

use std::collections::HashMap;

use tidings_core::{DeadLetter, DeadLetterStore, ErrorKind, LetterId, LetterQuery, Name, Result, Timestamp};

/// The limit of a cause in characters.
const MAX_CAUSE: usize = 160;

/// A property by which letters are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupBy {
    /// The service that could not handle them.
    Service,
    /// The topic of their records.
    Topic,
    /// The handler.
    Handler,
    /// The type of their events.
    EventType,
    /// The kind of the error, and its text without what differs from record to record: see [`LetterGroup::cause`].
    Cause,
    /// The hour (UTC) of the failure.
    Hour,
}

/// Letters that have the properties by which they were grouped in common.
///
/// A property that was not asked for is that of the first letter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LetterGroup {
    /// The service that could not handle them.
    pub service: Name,
    /// The topic of their records.
    pub topic: Name,
    /// The handler; empty if none was reached.
    pub handler: Name,
    /// The type of their events; `None` if it cannot be read.
    pub event_type: Option<String>,
    /// The kind of the error.
    pub kind: ErrorKind,
    /// The error with `#` for each word with a digit and `"…"` for each quoted text, truncated to 160 characters:
    /// letters of one fault have one cause, whichever account or time their errors name.
    pub cause: String,
    /// The number of letters.
    pub letters: u64,
    /// The time of the first failure.
    pub first: Timestamp,
    /// The time of the last failure.
    pub last: Timestamp,
    /// The highest number of redrives among them.
    pub redrives: u32,
    /// The first letter, as an example.
    pub example: LetterId,
}

/// The result of [`DeadLetters::groups`](super::DeadLetters::groups).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LetterGroups {
    /// The groups, the largest first.
    pub groups: Vec<LetterGroup>,
    /// The number of letters of further groups, beyond [`Self::MAX_GROUPS`].
    pub others: u64,
}

impl LetterGroups {
    /// The limit of [`Self::groups`].
    pub const MAX_GROUPS: usize = 1_000;

    /// Returns the number of all letters.
    pub fn letters(&self) -> u64 {
        self.groups.iter().map(|group| group.letters).sum::<u64>() + self.others
    }
}

/// The properties of a group; those that were not asked for are empty.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    service: Option<Name>,
    topic: Option<Name>,
    handler: Option<Name>,
    event_type: Option<Option<String>>,
    cause: Option<(&'static str, String)>,
    hour: Option<i64>,
}

impl Key {
    fn of(letter: &DeadLetter, by: &[GroupBy]) -> Self {
        let mut key = Self::default();
        for property in by {
            match property {
                GroupBy::Service => key.service = Some(letter.service.clone()),
                GroupBy::Topic => key.topic = Some(letter.origin.topic.clone()),
                GroupBy::Handler => key.handler = Some(letter.handler.clone()),
                GroupBy::EventType => key.event_type = Some(letter.event_type()),
                GroupBy::Cause => key.cause = Some((letter.kind.as_str(), cause(&letter.error))),
                GroupBy::Hour => key.hour = Some(letter.failed_at.millis().div_euclid(3_600_000)),
            }
        }
        key
    }
}

pub(super) async fn groups(store: &dyn DeadLetterStore, query: &LetterQuery, by: &[GroupBy]) -> Result<LetterGroups> {
    let mut query = query.clone().with_limit(LetterQuery::DEFAULT_PAGE);
    query.after = None;
    let (mut groups, mut others) = (HashMap::<Key, LetterGroup>::new(), 0);
    loop {
        let page = store.list(&query).await?;
        let is_last = page.len() < LetterQuery::DEFAULT_PAGE;
        query.after = page.last().map(DeadLetter::id);
        for letter in page {
            let key = Key::of(&letter, by);
            let full = groups.len() >= LetterGroups::MAX_GROUPS;
            match groups.get_mut(&key) {
                Some(group) => group.add(&letter),
                None if full => others += 1,
                None => drop(groups.insert(key, LetterGroup::new(letter))),
            }
        }
        if is_last {
            break;
        }
    }
    let mut groups: Vec<LetterGroup> = groups.into_values().collect();
    groups.sort_by(|a, b| b.letters.cmp(&a.letters).then_with(|| a.example.cmp(&b.example)));
    Ok(LetterGroups { groups, others })
}

impl LetterGroup {
    fn new(letter: DeadLetter) -> Self {
        Self {
            example: letter.id(),
            event_type: letter.event_type(),
            cause: cause(&letter.error),
            redrives: letter.redrives(),
            kind: letter.kind,
            letters: 1,
            first: letter.failed_at,
            last: letter.failed_at,
            service: letter.service,
            topic: letter.origin.topic,
            handler: letter.handler,
        }
    }

    /// Returns the [cause](Self::cause) of an error's text.
    ///
    /// ```
    /// use tidings_service::LetterGroup;
    ///
    /// assert_eq!(LetterGroup::cause_of("no such account 4711"), "no such account #");
    /// ```
    pub fn cause_of(error: &str) -> String {
        cause(error)
    }

    fn add(&mut self, letter: &DeadLetter) {
        self.letters += 1;
        self.first = self.first.min(letter.failed_at);
        self.last = self.last.max(letter.failed_at);
        self.redrives = self.redrives.max(letter.redrives());
    }
}

/// Removes from an error what differs from record to record.
fn cause(error: &str) -> String {
    let mut cause = String::new();
    let mut left = error.lines().next().unwrap_or_default();
    let mut length = 0;
    while !left.is_empty() && length < MAX_CAUSE {
        let (word, rest) = next_word(left);
        cause.push_str(word);
        length += word.chars().count();
        left = rest;
    }
    cause.truncate(cause.char_indices().nth(MAX_CAUSE).map_or(cause.len(), |(at, _)| at));
    cause
}

/// Returns the next word or separator, replaced if it differs from record to record, and the rest.
fn next_word(text: &str) -> (&str, &str) {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '@' | '.');
    let first = text.chars().next().unwrap_or(' ');
    if let quote @ ('"' | '\'' | '`') = first
        && let Some(end) = text[1..].find(quote)
    {
        return ("\"\u{2026}\"", &text[end + 2..]);
    }
    if !is_word(first) {
        return text.split_at(first.len_utf8());
    }
    let (word, rest) = text.split_at(text.find(|c| !is_word(c) && c != '\'').unwrap_or(text.len()));
    let differs = word.contains('@') || word.chars().any(|c| c.is_ascii_digit());
    (if differs { "#" } else { word }, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_core::{DeadLetterSink, StoredRecord, TopicPartition};
    use tidings_memory::MemoryDeadLetters;

    use super::*;

    fn letter(service: &'static str, offset: u64, error: &str) -> DeadLetter {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1));
        DeadLetter::new(service, TopicPartition::new("t", 0), record, ErrorKind::Failed).with_error(error)
    }

    #[test]
    fn the_cause_is_an_error_without_what_differs() {
        for (error, expected) in [
            ("no such account 4711", "no such account #"),
            ("user 018f-aa \"Ann\" is unknown: ann@example.com", "user # \"\u{2026}\" is unknown: #"),
            ("it isn't there, it won't be", "it isn't there, it won't be"),
            ("first line\nsecond line", "first line"),
            ("", ""),
        ] {
            assert_eq!(cause(error), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_bounded_cause(error in ".{0,400}") {
            prop_assert!(cause(&error).chars().count() <= MAX_CAUSE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn letters_of_one_fault_are_one_group() {
        let store = MemoryDeadLetters::new();
        let letters: Vec<_> = (0..2_500).map(|n| letter("shop", n, &format!("no such account {n}"))).collect();
        let other = letter("billing", 0, "down");
        for buried in store.bury(letters.into_iter().chain([other]).collect()).await {
            buried.unwrap();
        }
        let found = groups(&store, &LetterQuery::default(), &[GroupBy::Service, GroupBy::Cause]).await.unwrap();
        let shown: Vec<_> = found.groups.iter().map(|group| (&*group.service, &*group.cause, group.letters)).collect();
        assert_eq!(shown, [("shop", "no such account #", 2_500), ("billing", "down", 1)]);
        assert_eq!((found.letters(), found.others), (2_501, 0));
        let all = groups(&store, &LetterQuery::default(), &[]).await.unwrap();
        assert_eq!(all.groups.len(), 1);
    }
}

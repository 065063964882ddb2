//! `dead-letter count`.

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::LetterQuery;
use tidings_service::{DeadLetters, GroupBy, LetterGroup, LetterGroups};

use super::filter::{Filter, State};
use super::{open, show_id};
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::input::show_time;
use crate::output::{Table, View};

#[derive(Debug, Args)]
pub(crate) struct Count {
    #[command(flatten)]
    filter: Filter,
    /// State of the letters
    #[arg(long, value_enum, default_value = "open")]
    state: State,
    /// Properties that the letters of a group have in common
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PROPERTY,...")]
    by: Vec<By>,
}

/// A property by which letters are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Service,
    Topic,
    Handler,
    Type,
    Cause,
    Hour,
}

impl From<By> for GroupBy {
    fn from(by: By) -> Self {
        match by {
            By::Service => Self::Service,
            By::Topic => Self::Topic,
            By::Handler => Self::Handler,
            By::Type => Self::EventType,
            By::Cause => Self::Cause,
            By::Hour => Self::Hour,
        }
    }
}

/// The number of letters, and that of each group.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct CountedLetters {
    /// The number of letters.
    letters: u64,
    /// The groups, the largest first; none unless asked for.
    groups: Vec<CountedGroup>,
    /// The number of letters of further groups.
    others: u64,
    /// The number of records that cannot be read: at most this many letters are not counted.
    unreadable_records: u64,
    /// Their ranges, each with its cause; only the first ones if there are very many.
    unreadable: Vec<String>,
    #[serde(skip)]
    by: Vec<By>,
}

/// Letters with a property in common. What was not asked for is absent.
#[derive(Debug, Serialize, JsonSchema)]
struct CountedGroup {
    /// The number of letters.
    letters: u64,
    /// The service that could not handle them.
    service: Option<String>,
    /// The topic of their records.
    topic: Option<String>,
    /// The handler; empty if none was reached.
    handler: Option<String>,
    /// The type of their events; empty if it cannot be read.
    event_type: Option<String>,
    /// The kind of the error.
    kind: Option<String>,
    /// The error without what differs from record to record.
    cause: Option<String>,
    /// The time of the first failure (RFC 3339).
    first: String,
    /// The time of the last failure (RFC 3339).
    last: String,
    /// The highest number of redrives among them.
    redrives: u32,
    /// The identity of one of them.
    example: String,
}

impl CountedGroup {
    fn new(group: LetterGroup, by: &[By]) -> Self {
        let asked = |what: By, value: &str| by.contains(&what).then(|| value.to_owned());
        Self {
            letters: group.letters,
            service: asked(By::Service, &group.service),
            topic: asked(By::Topic, &group.topic),
            handler: asked(By::Handler, &group.handler),
            event_type: asked(By::Type, group.event_type.as_deref().unwrap_or_default()),
            kind: asked(By::Cause, group.kind.as_str()),
            cause: asked(By::Cause, &group.cause),
            first: show_time(group.first),
            last: show_time(group.last),
            redrives: group.redrives,
            example: show_id(&group.example),
        }
    }
}

impl Query for Count {
    type View = CountedLetters;

    async fn run(&self, cx: &Context) -> Result<CountedLetters, Failure> {
        let letters = open(cx, &self.filter.topics).await?;
        let mut counted = CountedLetters { by: self.by.clone(), ..CountedLetters::default() };
        let query = self.filter.query(self.state.into());
        let queries: Vec<LetterQuery> = match self.filter.topics.as_slice() {
            [] | [_] => vec![query],
            topics => topics.iter().map(|topic| query.clone().with_topic(topic.as_str())).collect(),
        };
        for query in queries {
            let found = self.count(&letters, &query).await?;
            counted.letters += found.letters();
            counted.others += found.others;
            if !self.by.is_empty() {
                counted.groups.extend(found.groups.into_iter().map(|group| CountedGroup::new(group, &self.by)));
            }
        }
        counted.groups.sort_by_key(|group| std::cmp::Reverse(group.letters));
        counted.unreadable_records = letters.store().unreadable_records();
        counted.unreadable = letters.store().unreadable().iter().map(tidings_core::Error::report).collect();
        letters.close().await?;
        Ok(counted)
    }
}

impl Count {
    async fn count(&self, letters: &DeadLetters, query: &LetterQuery) -> Result<LetterGroups, Failure> {
        let by: Vec<GroupBy> = self.by.iter().map(|by| (*by).into()).collect();
        if !by.is_empty() {
            return Ok(letters.groups(query, &by).await?);
        }
        let mut found = LetterGroups::default();
        found.others = letters.count(query).await?;
        Ok(found)
    }
}

impl View for CountedLetters {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        if self.by.is_empty() {
            let row = [self.letters, self.unreadable_records].map(|number| number.to_string());
            return vec![Table::new(&[">LETTERS", ">UNREADABLE"]).with_rows([row.to_vec()])];
        }
        let properties = [
            (By::Service, "SERVICE"),
            (By::Topic, "TOPIC"),
            (By::Handler, "HANDLER"),
            (By::Type, "TYPE"),
            (By::Cause, "KIND"),
            (By::Cause, "CAUSE"),
        ];
        let shown = properties.into_iter().filter(|(by, _)| self.by.contains(by));
        let mut columns = vec![">LETTERS"];
        columns.extend(shown.map(|(_, name)| name));
        columns.extend(["FIRST", "LAST", ">REDRIVES", "+EXAMPLE"]);
        let row = |group: &CountedGroup| {
            let CountedGroup { service, topic, handler, event_type, kind, cause, .. } = group;
            let mut cells = vec![group.letters.to_string()];
            cells.extend([service, topic, handler, event_type, kind, cause].into_iter().flatten().cloned());
            cells.extend([&group.first, &group.last].map(String::clone));
            cells.extend([group.redrives.to_string(), group.example.clone()]);
            cells
        };
        vec![Table::new(&columns).with_rows(self.groups.iter().map(row))]
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = match (self.by.is_empty(), self.others) {
            (true, _) => Vec::new(),
            (false, 0) => vec![format!("{} letters in {} groups.", self.letters, self.groups.len())],
            (false, others) => vec![format!("{} letters; {others} of them in further groups.", self.letters)],
        };
        if let Some(first) = self.unreadable.first() {
            notes.push(format!("{} records cannot be read and are not counted: {first}.", self.unreadable_records));
        }
        notes
    }
}

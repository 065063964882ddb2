//! `dead-letter list`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::{DeadLetter, LetterId, LetterQuery};
use tidings_service::LetterGroup;

use super::filter::{Filter, State};
use super::{open, parse_id, show_id};
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::input::show_time;
use crate::output::{Table, View, or_dash};

/// Default of `--limit`.
const LIMIT: usize = 100;

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    filter: Filter,
    /// State of the letters
    #[arg(long, value_enum, default_value = "open")]
    state: State,
    /// Number of letters to list at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
    /// The last letter of the page before
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    after: Option<LetterId>,
}

/// Letters, in the order of burying.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListedLetters {
    /// The letters.
    letters: Vec<ListedLetter>,
    /// Whether there are more.
    more: bool,
    /// The ranges that cannot be read, each with its cause; only the first ones if there are very many.
    unreadable: Vec<String>,
}

/// A letter, without its payload.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedLetter {
    /// The identity: service, topic, partition and offset of the record.
    id: String,
    /// The type of the event, if it can be read.
    event_type: Option<String>,
    /// The handler; empty if none was reached.
    handler: String,
    /// The kind of the error.
    kind: String,
    /// The error without what differs from record to record.
    cause: String,
    /// The number of attempts.
    attempts: u32,
    /// The number of redrives before.
    redrives: u32,
    /// The time of the final failure (RFC 3339).
    failed_at: String,
    /// `open`, `parked`, `redriven` or `discarded`.
    state: String,
}

impl From<&DeadLetter> for ListedLetter {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            id: show_id(&letter.id()),
            event_type: letter.event_type(),
            handler: letter.handler.as_str().to_owned(),
            kind: letter.kind.as_str().to_owned(),
            cause: LetterGroup::cause_of(&letter.error),
            attempts: letter.attempts,
            redrives: letter.redrives(),
            failed_at: show_time(letter.failed_at),
            state: state_of(letter).to_owned(),
        }
    }
}

/// Returns the name of a letter's state.
pub(super) fn state_of(letter: &DeadLetter) -> &'static str {
    letter.resolution.as_ref().map_or("open", |resolution| resolution.kind.as_str())
}

impl Query for List {
    type View = ListedLetters;

    async fn run(&self, cx: &Context) -> Result<ListedLetters, Failure> {
        let letters = open(cx, &self.filter.topics).await?;
        let mut query = self.filter.query(self.state.into());
        query.after.clone_from(&self.after);
        let mut listed = ListedLetters { letters: Vec::new(), more: false, unreadable: Vec::new() };
        loop {
            let page = letters.list(&query.clone().with_limit(LetterQuery::DEFAULT_PAGE)).await?;
            let is_last = page.len() < LetterQuery::DEFAULT_PAGE;
            query.after = page.last().map(DeadLetter::id);
            let selected = page.iter().filter(|letter| self.filter.selects(&letter.origin.topic));
            listed.letters.extend(selected.map(ListedLetter::from));
            listed.more = listed.letters.len() > self.limit;
            if is_last || listed.more {
                break;
            }
        }
        listed.letters.truncate(self.limit);
        listed.unreadable = letters.store().unreadable().iter().map(tidings_core::Error::report).collect();
        letters.close().await?;
        Ok(listed)
    }
}

impl View for ListedLetters {
    const ITEMS: Option<&'static str> = Some("letters");

    fn tables(&self) -> Vec<Table> {
        let row = |letter: &ListedLetter| {
            vec![
                letter.id.clone(),
                or_dash(letter.event_type.as_ref()),
                or_dash(Some(&letter.handler).filter(|handler| !handler.is_empty())),
                letter.kind.clone(),
                letter.cause.clone(),
                letter.attempts.to_string(),
                letter.redrives.to_string(),
                letter.failed_at.clone(),
                letter.state.clone(),
            ]
        };
        let columns = ["LETTER", "TYPE", "HANDLER", "KIND", "CAUSE", ">ATTEMPTS", ">REDRIVES", "FAILED", "+STATE"];
        vec![Table::new(&columns).with_rows(self.letters.iter().map(row))]
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            self.unreadable.iter().map(|cause| format!("Letters cannot be read: {cause}")).collect();
        match self.letters.last() {
            None => notes.push("No letters.".into()),
            Some(last) if self.more => notes.push(format!("There are more: --after {}, or --limit.", last.id)),
            Some(_) => {}
        }
        notes
    }
}

//! The selection of letters by arguments.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use tidings_core::{ErrorKind, LetterId, LetterQuery, LetterState, Timestamp};

use super::parse_id;
use crate::input;

/// Conditions; a letter is selected if it meets all of them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct Filter {
    /// Topics of the records; default: all that have a dead-letter topic
    #[arg(long = "topic", value_name = "TOPIC", value_delimiter = ',')]
    pub(crate) topics: Vec<String>,
    /// Service that could not handle them
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Handler
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Type of the events
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Key of the records
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Kind of the error; failed is that of a handler (rejected, timed out and panicked, too)
    #[arg(long, value_name = "KIND", value_parser = kind())]
    kind: Option<ErrorKind>,
    /// Text that the error contains
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Failures at this time or later: 2026-11-23T10:00:00Z, or 2h before now
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    since: Option<Timestamp>,
    /// Failures before this time
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    until: Option<Timestamp>,
    /// Single letters, as `dead-letter list` prints them
    #[arg(long = "id", value_name = "ID", value_delimiter = ',', value_parser = parse_id)]
    ids: Vec<LetterId>,
}

/// The state of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum State {
    /// Neither redriven nor discarded nor parked.
    #[default]
    Open,
    /// Set aside.
    Parked,
    /// Redriven or discarded.
    Closed,
    /// In any state.
    Any,
}

impl From<State> for LetterState {
    fn from(state: State) -> Self {
        match state {
            State::Open => Self::Open,
            State::Parked => Self::Parked,
            State::Closed => Self::Closed,
            State::Any => Self::Any,
        }
    }
}

impl Filter {
    /// Returns the query. Of several topics it selects letters by [`selects`](Self::selects) only.
    pub(crate) fn query(&self, state: LetterState) -> LetterQuery {
        let mut query = LetterQuery::default().with_state(state).with_times(self.since, self.until);
        query.service = self.service.as_deref().map(Into::into);
        query.handler = self.handler.as_deref().map(Into::into);
        query.event_type.clone_from(&self.event_type);
        query.key = self.key.as_ref().map(|key| key.clone().into_bytes().into());
        query.kind = self.kind;
        query.error.clone_from(&self.error);
        query.ids = (!self.ids.is_empty()).then(|| self.ids.iter().cloned().collect());
        if let [topic] = self.topics.as_slice() {
            query.topic = Some(topic.as_str().into());
        }
        query
    }

    /// Returns whether a letter of this topic is selected; a query names at most one.
    pub(crate) fn selects(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|wanted| wanted == topic)
    }
}

/// Parses the stable name of an error kind.
fn kind() -> impl TypedValueParser<Value = ErrorKind> {
    let names = ErrorKind::ALL.iter().map(|kind| kind.as_str());
    PossibleValuesParser::new(names).map(|name| ErrorKind::from_name(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_topics_each_is_selected() {
        let filter = Filter { topics: vec!["a".into(), "b".into()], ..Filter::default() };
        assert!(filter.query(LetterState::Open).topic.is_none());
        assert_eq!(["a", "b", "c"].map(|topic| filter.selects(topic)), [true, true, false]);
        let one = Filter { topics: vec!["a".into()], ..Filter::default() };
        assert_eq!(one.query(LetterState::Open).topic.as_deref(), Some("a"));
    }
}

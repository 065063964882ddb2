//! Plans about letters: each step pins the letters of one fault by their identities.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{DeadLetter, Error, ErrorKind, LetterId, LetterQuery, LetterState, Result, TopicPartition};
use tidings_service::{DeadLetters, LetterGroup};

use super::filter::Filter;
use crate::change::{Step, partly};
use crate::exit::Failure;

/// Maximum number of letters that are resolved between two checks for an interrupt.
const PART: usize = 500;

/// The letters of one fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LetterStep {
    /// The service that could not handle them.
    service: String,
    /// The topic of their records.
    topic: String,
    /// The handler; empty if none was reached.
    handler: String,
    /// The kind of the error.
    kind: String,
    /// The error without what differs from record to record.
    cause: String,
    /// Whether the letters are parked.
    parked: bool,
    /// Partition and offset of each record, in this order.
    letters: Vec<(u32, u64)>,
}

impl Step for LetterStep {
    const COLUMNS: &'static [&'static str] = &["SERVICE", "TOPIC", "HANDLER", "KIND", "CAUSE", ">LETTERS"];

    fn cells(&self) -> Vec<String> {
        let handler = if self.handler.is_empty() { "-" } else { &self.handler };
        let texts = [&*self.service, &*self.topic, handler, &*self.kind, &*self.cause];
        texts.into_iter().map(str::to_owned).chain([self.letters.len().to_string()]).collect()
    }
}

impl LetterStep {
    /// Returns the number of letters.
    pub(super) fn count(&self) -> usize {
        self.letters.len()
    }

    fn ids(&self) -> impl Iterator<Item = LetterId> {
        let id = |(partition, offset): &(u32, u64)| {
            LetterId::new(self.service.as_str(), TopicPartition::new(self.topic.as_str(), *partition), *offset)
        };
        self.letters.iter().map(id)
    }

    fn state(&self) -> LetterState {
        if self.parked { LetterState::Parked } else { LetterState::Open }
    }
}

/// The letters that a plan selects.
#[derive(Debug, Default)]
pub(super) struct Selected {
    pub(super) steps: Vec<LetterStep>,
    /// Letters left because they were redriven too often.
    pub(super) repeated: u64,
    /// Whether there are more letters than were asked for.
    pub(super) more: bool,
}

/// Selects letters in the order of their partitions and offsets, at most `max`.
pub(super) async fn select(
    letters: &DeadLetters,
    filter: &Filter,
    state: LetterState,
    max: usize,
    max_redrives: u32,
) -> Result<Selected> {
    let mut query = filter.query(state).with_limit(LetterQuery::DEFAULT_PAGE);
    let (mut selected, mut count) = (Selected::default(), 0);
    let mut steps = BTreeMap::<_, BTreeSet<(u32, u64)>>::new();
    'pages: loop {
        let page = letters.list(&query).await?;
        let is_last = page.len() < LetterQuery::DEFAULT_PAGE;
        query.after = page.last().map(DeadLetter::id);
        for letter in page.into_iter().filter(|letter| filter.selects(&letter.origin.topic)) {
            if letter.redrives() >= max_redrives {
                selected.repeated += 1;
                continue;
            }
            if count == max {
                selected.more = true;
                break 'pages;
            }
            count += 1;
            let cause = LetterGroup::cause_of(&letter.error);
            let of = (letter.service, letter.origin.topic, letter.handler, letter.kind.as_str(), cause);
            steps.entry(of).or_default().insert((letter.origin.partition, letter.record.offset));
        }
        if is_last {
            break;
        }
    }
    let step = |((service, topic, handler, kind, cause), letters): (_, BTreeSet<_>)| {
        let (service, topic, handler): (tidings_core::Name, tidings_core::Name, tidings_core::Name) =
            (service, topic, handler);
        LetterStep {
            service: service.as_str().to_owned(),
            topic: topic.as_str().to_owned(),
            handler: handler.as_str().to_owned(),
            kind: str::to_owned(kind),
            cause,
            parked: state == LetterState::Parked,
            letters: letters.into_iter().collect(),
        }
    };
    selected.steps = steps.into_iter().map(step).collect();
    Ok(selected)
}

/// Returns the query that selects exactly the letters of a plan that are not closed.
pub(super) fn query(steps: &[LetterStep]) -> LetterQuery {
    let state = steps.first().map_or(LetterState::Open, LetterStep::state);
    LetterQuery::default().with_state(state).with_ids(steps.iter().flat_map(LetterStep::ids))
}

/// Returns queries that select the letters of [`query`] in parts: an interrupt ends a run between two parts.
pub(super) fn parts(steps: &[LetterStep]) -> impl Iterator<Item = LetterQuery> {
    let (state, ids) =
        (steps.first().map_or(LetterState::Open, LetterStep::state), steps.iter().flat_map(LetterStep::ids));
    let mut ids = ids.peekable();
    std::iter::from_fn(move || {
        ids.peek()?;
        Some(LetterQuery::default().with_state(state).with_ids(ids.by_ref().take(PART)))
    })
}

/// Returns why a plan cannot be applied: none of its letters is left. Letters that were closed meanwhile are left out,
/// so that an interrupted plan can be repeated.
pub(super) async fn stale(letters: &DeadLetters, steps: &[LetterStep]) -> Result<Vec<String>> {
    let all: usize = steps.iter().map(|step| step.letters.len()).sum();
    let left = letters.count(&query(steps)).await?;
    let none = all > 0 && left == 0;
    Ok(none.then(|| format!("none of its {all} letters is open any more")).into_iter().collect())
}

/// Returns the result of each step by the letters that are left of it; `why` says what held them back.
pub(super) async fn results(
    letters: &DeadLetters,
    steps: &[LetterStep],
    why: impl Fn(&LetterId) -> Option<(ErrorKind, String)>,
) -> Vec<Result<()>> {
    let left = match left(letters, steps).await {
        Ok(left) => left,
        Err(error) => {
            let text = "read what is left of the letters";
            let unknown = |_| Err(Error::explained(ErrorKind::Indeterminate, text, &error));
            return steps.iter().map(unknown).collect();
        }
    };
    let result = |step: &LetterStep| {
        let stay: Vec<LetterId> = step.ids().filter(|id| left.contains(id)).collect();
        held(&stay, step.letters.len(), &why).map_or(Ok(()), Err)
    };
    steps.iter().map(result).collect()
}

/// Returns the error of a step of `all` letters of which some stay: indeterminate if one of them may be published.
fn held(stay: &[LetterId], all: usize, why: impl Fn(&LetterId) -> Option<(ErrorKind, String)>) -> Option<Error> {
    let (first, count) = (stay.first()?, stay.len());
    let known = stay.iter().filter_map(|id| why(id).map(|(kind, why)| (id, kind, why)));
    let (kind, because) = match known.min_by_key(|(_, kind, _)| *kind != ErrorKind::Indeterminate) {
        Some((id, kind, why)) => (kind, format!("{}: {why}", super::show_id(id))),
        None => (ErrorKind::Conflict, format!("{} and others: another run has them", super::show_id(first))),
    };
    let text = format!("{count} of {all} letters stay; {because}");
    Some(match kind {
        ErrorKind::Indeterminate => Error::new(kind, text),
        _ if count < all => partly(text),
        _ => Error::new(ErrorKind::Conflict, text),
    })
}

async fn left(letters: &DeadLetters, steps: &[LetterStep]) -> Result<BTreeSet<LetterId>> {
    let (mut query, mut left) = (query(steps).with_limit(LetterQuery::DEFAULT_PAGE), BTreeSet::new());
    loop {
        let page = letters.list(&query).await?;
        let is_last = page.len() < LetterQuery::DEFAULT_PAGE;
        query.after = page.last().map(DeadLetter::id);
        left.extend(page.iter().map(DeadLetter::id));
        if is_last {
            return Ok(left);
        }
    }
}

/// Returns the same failure for each step.
pub(super) fn all_failed(steps: &[LetterStep], failure: &Failure) -> Vec<Result<()>> {
    steps.iter().map(|_| Err(Error::new(ErrorKind::Unavailable, failure.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_whose_letter_may_be_published_is_indeterminate() {
        let stay = [0, 1].map(|offset| LetterId::new("shop", TopicPartition::new("orders", 0), offset));
        let why = |second: ErrorKind| {
            move |id: &LetterId| Some((if id.offset == 0 { ErrorKind::Denied } else { second }, "publish".to_owned()))
        };
        let unknown = held(&stay, 2, why(ErrorKind::Indeterminate)).unwrap();
        assert_eq!(unknown.kind(), ErrorKind::Indeterminate);
        assert!(unknown.report().contains("shop/orders/0/1"), "{}", unknown.report());
        assert_eq!(held(&stay, 2, why(ErrorKind::Denied)).unwrap().kind(), ErrorKind::Conflict);
        assert!(held(&[], 2, why(ErrorKind::Denied)).is_none());
    }
}

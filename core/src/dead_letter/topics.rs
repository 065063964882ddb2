//! Dead letters in topics, available to any transport through its publisher and admin.

use std::sync::Arc;

use async_trait::async_trait;

use super::{DeadLetter, DeadLetterSink};
use crate::{Admin, Error, ErrorKind, Guarantees, Name, Publisher, Result};

/// The suffix that a topic's name gets in the name of its dead-letter topic.
pub const DEAD_LETTER_SUFFIX: &str = "-dlq";

/// Returns the name of the dead-letter topic of `topic`: `<topic>-dlq`.
pub fn dead_letter_topic(topic: &str) -> Name {
    format!("{topic}{DEAD_LETTER_SUFFIX}").into()
}

/// The suffix that a dead-letter topic's name gets in the name of the topic of its letters' states.
pub const DEAD_LETTER_STATE_SUFFIX: &str = "-state";

/// Returns the name of the topic that records what became of the letters of `topic`: `<topic>-dlq-state`.
pub fn dead_letter_state_topic(topic: &str) -> Name {
    format!("{topic}{DEAD_LETTER_SUFFIX}{DEAD_LETTER_STATE_SUFFIX}").into()
}

/// Returns whether `topic` is a dead-letter topic or the topic of its letters' states, by its name.
pub fn is_dead_letter_topic(topic: &str) -> bool {
    topic.strip_suffix(DEAD_LETTER_STATE_SUFFIX).unwrap_or(topic).ends_with(DEAD_LETTER_SUFFIX)
}

/// Buries letters in `<topic>-dlq` through a transport's publisher.
#[derive(Debug, Clone)]
pub struct DeadLetterTopics {
    publisher: Arc<dyn Publisher>,
    admin: Arc<dyn Admin>,
}

impl DeadLetterTopics {
    /// Creates a sink that publishes through `publisher` and looks for missing topics through `admin`.
    pub fn new(publisher: Arc<dyn Publisher>, admin: Arc<dyn Admin>) -> Self {
        Self { publisher, admin }
    }
}

#[async_trait]
impl DeadLetterSink for DeadLetterTopics {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let count = letters.len();
        let records = letters.iter().map(|l| l.to_record(dead_letter_topic(&l.origin.topic))).collect();
        let mut answers: Vec<_> = self.publisher.publish(records).await.into_iter().map(|r| r.map(drop)).collect();
        // A publisher that breaks P1 must not make a letter appear buried.
        answers.resize_with(count, || Err(Error::new(ErrorKind::Indeterminate, "bury: the publisher gave no answer")));
        answers
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        let wanted: Vec<Name> = topics.iter().map(|topic| dead_letter_topic(topic)).collect();
        let mut missing = Vec::new();
        for (topic, found) in wanted.iter().zip(self.admin.describe_topics(&wanted).await?) {
            match found {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => missing.push(topic.as_str()),
                // This fails the start of a service, so its own text names the cause.
                Err(error) => {
                    let doing = format_args!("check that dead letters can go to the topic {topic}");
                    return Err(Error::explained(error.kind(), doing, &error));
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("missing dead-letter topics: {}", missing.join(", "))))
    }

    fn guarantees(&self) -> Guarantees {
        self.publisher.guarantees()
    }
}

//! The dead-letter sink: `<topic>-dlq` and the topic of its states, created on demand.

use std::sync::Arc;

use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterTopics, Guarantees, Name, Result, async_trait, dead_letter_state_topic,
    dead_letter_topic,
};

use crate::admin::MemoryAdmin;
use crate::broker::Broker;
use crate::publisher::MemoryPublisher;

#[derive(Debug)]
pub(crate) struct MemorySink {
    broker: Arc<Broker>,
    topics: DeadLetterTopics,
}

impl MemorySink {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        let publisher = Arc::new(MemoryPublisher::new(Arc::clone(&broker)));
        let admin = Arc::new(MemoryAdmin::new(Arc::clone(&broker)));
        Self { broker, topics: DeadLetterTopics::new(publisher, admin) }
    }
}

#[async_trait]
impl DeadLetterSink for MemorySink {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        if self.broker.faults.bury().is_err() {
            return letters.iter().map(|_| self.broker.faults.bury()).collect();
        }
        self.topics.bury(letters).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.broker.faults.bury()?;
        self.broker.faults.reach("check that dead letters can be buried")?;
        if self.broker.config.auto_create {
            for topic in topics {
                self.broker.topic_or_create("check that dead letters can be buried", &dead_letter_topic(topic))?;
                self.broker.topic_or_create("create the states of dead letters", &dead_letter_state_topic(topic))?;
            }
        }
        self.topics.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        self.topics.guarantees()
    }
}

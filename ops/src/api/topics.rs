//! Topics, the health of the broker, and what the endpoint offers.

use tidings_core::{CreatePartitionsOptions, Name, Result, Topic};
use tidings_ops_api::wire::{About, Alter, Answers, Create, Grow, Health, Kept, Names, Nothing, TopicState};

use super::Api;
use super::call::{Call, bounded, encode};

impl Api {
    pub(super) fn about(&self, call: &Call) -> Result<String> {
        let mut about = About::new();
        about.read_only = self.read_only;
        about.principal = call.caller.name.clone();
        about.role = call.caller.role.to_string();
        about.services = self.sources.labels();
        about.stores = self.backends.stores.keys().cloned().collect();
        about.dead_letters = self.backends.letters.keys().cloned().collect();
        if let Some((system, guarantees)) = self.backends.system() {
            about.system = Some(system.to_owned());
            about.guarantees.insert("transport".to_owned(), Kept::from(&guarantees));
        }
        encode(&about)
    }

    pub(super) async fn topics(&self, call: &Call) -> Result<String> {
        encode(&Names::of(&self.backends.admin(&call.caller).await?.list_topics().await?))
    }

    pub(super) async fn topic(&self, call: &Call) -> Result<String> {
        let topic = Name::from(call.name()?);
        let described = self.backends.admin(&call.caller).await?.describe_topics(&[topic]).await?;
        let described = described.into_iter().next().unwrap_or_else(|| Err(super::call::no_answer("describe a topic")));
        encode(&TopicState::from(described?))
    }

    pub(super) async fn describe_topics(&self, call: &Call) -> Result<String> {
        let topics = call.body::<Names>()?.into_names();
        bounded(topics.len(), "topics")?;
        let described = self.backends.admin(&call.caller).await?.describe_topics(&topics).await?;
        encode(&Answers::of(described, TopicState::from))
    }

    pub(super) async fn create_topics(&self, call: &Call) -> Result<String> {
        let topics = call.body::<Create>()?.topics;
        bounded(topics.len(), "topics")?;
        let topics = topics.into_iter().map(Topic::try_from).collect::<Result<Vec<_>>>()?;
        let created = self.backends.admin(&call.caller).await?.create_topics(&topics).await?;
        encode(&Answers::of(created, |()| Nothing::default()))
    }

    pub(super) async fn grow_topic(&self, call: &Call) -> Result<String> {
        let Grow { topic, partitions, allow_rekeying } = call.body()?;
        let mut options = CreatePartitionsOptions::default();
        options.allow_rekeying = allow_rekeying;
        self.backends.admin(&call.caller).await?.create_partitions(&topic.into(), partitions, options).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn alter_topic(&self, call: &Call) -> Result<String> {
        let Alter { resource, changes } = call.body()?;
        bounded(changes.len(), "changes")?;
        self.backends.admin(&call.caller).await?.alter_topic(&resource.into(), &changes).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn delete_topics(&self, call: &Call) -> Result<String> {
        let topics = call.body::<Names>()?.into_names();
        bounded(topics.len(), "topics")?;
        let deleted = self.backends.admin(&call.caller).await?.delete_topics(&topics).await?;
        encode(&Answers::of(deleted, |()| Nothing::default()))
    }

    pub(super) async fn health(&self, call: &Call) -> Result<String> {
        encode(&Health::from(self.backends.admin(&call.caller).await?.health().await?))
    }
}

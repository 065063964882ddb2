//! Shared by the tests of the audited wrappers: a backend that answers every change as it is told.

use std::sync::Arc;

use tidings_audit::{MemoryAudit, decode, verify};
use tidings_core::audit::{AuditOutcome, AuditPhase, AuditRecord};
use tidings_core::{
    Acl, AclFilter, Acls, Admin, Cluster, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, Consumer,
    ConsumerOptions, CreatePartitionsOptions, DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind,
    GroupDescription, Guarantees, Health, Leased, LetterId, LetterLease, LetterQuery, LogReader, Name,
    PartitionDescription, PartitionLag, PartitionReset, Publisher, ResetOffsetsOptions, ResetTo, Resolution, Result,
    Topic, TopicDescription, TopicPartition, Transport, async_trait,
};

/// How every change ends.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) failure: Option<(ErrorKind, String)>,
}

impl Fake {
    pub(crate) fn ok() -> Self {
        Self { failure: None }
    }

    pub(crate) fn failing(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { failure: Some((kind, text.into())) }
    }

    fn answer<T>(&self, value: T) -> Result<T> {
        match &self.failure {
            None => Ok(value),
            Some((kind, text)) => Err(Error::new(*kind, text.clone())),
        }
    }

    fn each<T, V: Clone>(&self, of: &[T], value: V) -> Result<Vec<Result<V>>> {
        Ok(of.iter().map(|_| self.answer(value.clone())).collect())
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "the fake does not offer it"))
}

#[async_trait]
impl Transport for Fake {
    fn system(&self) -> &'static str {
        "fake"
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        unused()
    }
    async fn consumer(&self, _: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        unused()
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        unused()
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(self.clone()))
    }
    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        unused()
    }
    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        Ok(Arc::new(self.clone()))
    }
    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        Ok(Arc::new(self.clone()))
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

#[async_trait]
impl Admin for Fake {
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        self.each(topics, ())
    }
    async fn list_topics(&self) -> Result<Vec<Name>> {
        Ok(Vec::new())
    }
    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        let describe = |name: &Name| {
            let mut topic = TopicDescription::new(name, vec![PartitionDescription::new(0, 2, 9)]);
            topic.settings = [("retention.ms", "1000"), ("sasl.password", "CANARY-OLD-SETTING")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
            Ok(topic)
        };
        Ok(topics.iter().map(describe).collect())
    }
    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        self.each(topics, ())
    }
    async fn create_partitions(&self, _: &Name, _: u32, _: CreatePartitionsOptions) -> Result<()> {
        self.answer(())
    }
    async fn alter_topic(&self, _: &Name, _: &[(String, Option<String>)]) -> Result<()> {
        self.answer(())
    }
    async fn list_groups(&self) -> Result<Vec<Name>> {
        Ok(Vec::new())
    }
    async fn describe_group(&self, _: &Name) -> Result<GroupDescription> {
        unused()
    }
    async fn group_lag(&self, _: &Name) -> Result<Vec<PartitionLag>> {
        Ok(vec![PartitionLag::new(TopicPartition::new("orders", 0), Some(5), 0, 9)])
    }
    async fn reset_offsets(
        &self,
        _: &Name,
        _: &[Name],
        _: ResetTo,
        _: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        self.answer(vec![PartitionReset::new(TopicPartition::new("orders", 0), Some(5), 0)])
    }
    async fn delete_group(&self, _: &Name) -> Result<()> {
        self.answer(())
    }
    async fn health(&self) -> Result<Health> {
        Ok(Health::default())
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

#[async_trait]
impl Acls for Fake {
    async fn list(&self, _: &AclFilter) -> Result<Vec<Acl>> {
        Ok(Vec::new())
    }
    async fn create(&self, acls: &[Acl]) -> Result<Vec<Result<()>>> {
        self.each(acls, ())
    }
    async fn delete(&self, acls: &[Acl]) -> Result<Vec<Result<bool>>> {
        self.each(acls, true)
    }
}

#[async_trait]
impl Cluster for Fake {
    async fn describe(&self) -> Result<ClusterDescription> {
        Ok(ClusterDescription::default())
    }
    async fn configs(&self, _: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        let entry = |name: &str, value: &str| ConfigEntry::new(name, value, ConfigSource::Broker);
        let mut held_back = entry("listener.extra", "CANARY-SENSITIVE-ENTRY");
        held_back.sensitive = true;
        Ok(vec![entry("log.retention.ms", "7"), entry("sasl.jaas.config", "CANARY-OLD-CONFIG"), held_back])
    }
    async fn alter_configs(&self, _: &ConfigResource, _: &[(String, Option<String>)]) -> Result<()> {
        self.answer(())
    }
}

#[async_trait]
impl DeadLetterSink for Fake {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        letters.iter().map(|_| self.answer(())).collect()
    }
    async fn check(&self, _: &[Name]) -> Result<()> {
        Ok(())
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

#[async_trait]
impl DeadLetterStore for Fake {
    async fn list(&self, _: &LetterQuery) -> Result<Vec<DeadLetter>> {
        Ok(Vec::new())
    }
    async fn resolve(&self, letters: &[LetterId], _: &Resolution) -> Result<Vec<bool>> {
        self.answer(vec![true; letters.len()])
    }
    async fn lease(&self, letters: &[LetterId], _: &LetterLease) -> Result<Vec<Leased>> {
        self.answer(vec![Leased::Granted; letters.len()])
    }
    async fn resolve_leased(&self, letters: &[LetterId], _: &LetterLease, _: &Resolution) -> Result<Vec<bool>> {
        self.answer(vec![true; letters.len()])
    }
    async fn end_lease(&self, _: &[LetterId], _: &LetterLease) -> Result<()> {
        self.answer(())
    }
    async fn note_refused(&self, _: &[(LetterId, String)], _: &str) -> Result<()> {
        self.answer(())
    }
}

/// All records of a sink, which must be intact.
pub(crate) async fn records(sink: &MemoryAudit) -> Vec<AuditRecord> {
    let verified = verify(sink, &[]).await.unwrap();
    assert!(verified.is_intact(), "{verified:?}");
    sink.records().iter().map(|stored| decode(stored).unwrap()).collect()
}

/// The status of a record's outcome; `intent` for an intent.
pub(crate) fn status(record: &AuditRecord) -> &'static str {
    record.outcome().map_or("intent", AuditOutcome::as_str)
}

/// The id of the intent that a result answers.
pub(crate) fn intent_of(record: &AuditRecord) -> Option<uuid::Uuid> {
    match &record.phase {
        AuditPhase::Result { intent, .. } => *intent,
        _ => None,
    }
}

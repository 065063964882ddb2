//! The admin of a remote broker.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tidings_core::{
    Admin, CreatePartitionsOptions, Error, ErrorKind, GroupDescription, Guarantees, Health, Name, PartitionLag,
    PartitionReset, ResetOffsetsOptions, ResetTo, Result, Topic, TopicDescription, TopicPartition, async_trait,
};

use super::call::Client;
use crate::wire::{
    Alter, AlterOffsets, Answers, Create, Each, Group, GroupNames, Grow, Lags, Names, Nothing, Reset, Resets,
    TopicState,
};
use crate::{MAX_NAMES, Route, wire};

/// An [`Admin`] that asks an endpoint.
#[derive(Debug)]
pub(super) struct RemoteAdmin {
    client: Arc<Client>,
    guarantees: Guarantees,
}

impl RemoteAdmin {
    pub(super) fn new(client: Arc<Client>, guarantees: Guarantees) -> Self {
        Self { client, guarantees }
    }

    async fn each<T, W, R>(
        &self,
        route: Route,
        things: &[T],
        body: impl Fn(&[T]) -> serde_json::Value,
        read: fn(W) -> R,
    ) -> Result<Vec<Result<R>>>
    where
        W: DeserializeOwned,
    {
        each(&self.client, route, things, body, |wire| Ok(read(wire))).await
    }
}

/// Asks about as many things at once as a request may name. If a request fails, the answer to all is its error: the
/// caller asks again.
pub(super) async fn each<T, W, R>(
    client: &Client,
    route: Route,
    things: &[T],
    body: impl Fn(&[T]) -> serde_json::Value,
    read: impl Fn(W) -> Result<R>,
) -> Result<Vec<Result<R>>>
where
    W: DeserializeOwned,
{
    let mut all = Vec::with_capacity(things.len());
    for things in things.chunks(MAX_NAMES) {
        let answers: Answers<W> = client.post(route, &body(things)).await?;
        let count = answers.answers.len();
        if count != things.len() {
            return Err(miscounted(route, things.len(), count));
        }
        all.extend(answers.answers.into_iter().map(Each::into_result).map(|answer| answer.and_then(&read)));
    }
    Ok(all)
}

/// Returns the error of an endpoint that answers about more or fewer things than it was asked.
pub(super) fn miscounted(route: Route, asked: usize, answered: usize) -> Error {
    let kind = if route.changes() { ErrorKind::Indeterminate } else { ErrorKind::Failed };
    Error::new(kind, format!("{}: {asked} were asked for, and {answered} answered", route.path()))
}

fn names(names: &[Name]) -> serde_json::Value {
    serde_json::to_value(Names::of(names)).unwrap_or_default()
}

fn nothing(_: Nothing) {}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for RemoteAdmin {
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        let body = |topics: &[Topic]| serde_json::to_value(Create::of(topics)).unwrap_or_default();
        self.each(Route::TopicsCreate, topics, body, nothing).await
    }

    async fn list_topics(&self) -> Result<Vec<Name>> {
        Ok(self.client.get::<Names>(Route::Topics).await?.into_names())
    }

    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        self.each(Route::TopicsDescribe, topics, names, |topic: TopicState| topic.into()).await
    }

    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        self.each(Route::TopicsDelete, topics, names, nothing).await
    }

    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()> {
        let grow = Grow { topic: topic.to_string(), partitions, allow_rekeying: options.allow_rekeying };
        self.client.post(Route::TopicsGrow, &grow).await.map(nothing)
    }

    async fn alter_topic(&self, topic: &Name, changes: &[(String, Option<String>)]) -> Result<()> {
        let alter = Alter { resource: topic.to_string(), changes: changes.to_vec() };
        self.client.post(Route::TopicsAlter, &alter).await.map(nothing)
    }

    async fn list_groups(&self) -> Result<Vec<Name>> {
        Ok(self.client.get::<Names>(Route::Groups).await?.into_names())
    }

    async fn describe_group(&self, group: &Name) -> Result<GroupDescription> {
        Ok(self.client.get_of::<Group>(Route::Group, group).await?.into())
    }

    async fn describe_groups(&self, groups: &[Name]) -> Result<Vec<Result<GroupDescription>>> {
        self.each(Route::GroupsDescribe, groups, names, |group: Group| group.into()).await
    }

    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>> {
        Ok(self.client.get_of::<Lags>(Route::GroupLag, group).await?.into_lags())
    }

    async fn group_lags(&self, groups: &[Name]) -> Result<Vec<Result<Vec<PartitionLag>>>> {
        self.each(Route::GroupsLag, groups, names, Lags::into_lags).await
    }

    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        let route = if options.dry_run { Route::GroupsPlanReset } else { Route::GroupsReset };
        let topics = topics.iter().map(Name::to_string).collect();
        let reset = Reset { group: group.to_string(), topics, to: to.try_into()? };
        Ok(self.client.post::<Resets>(route, &reset).await?.into_resets())
    }

    async fn alter_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        self.client.post(Route::GroupsAlterOffsets, &AlterOffsets::new(group, offsets)).await.map(nothing)
    }

    async fn delete_group(&self, group: &Name) -> Result<()> {
        self.client.post(Route::GroupsDelete, &GroupNames { group: group.to_string() }).await.map(nothing)
    }

    async fn health(&self) -> Result<Health> {
        Ok(self.client.get::<wire::Health>(Route::Health).await?.into())
    }

    fn guarantees(&self) -> Guarantees {
        self.guarantees.clone()
    }
}

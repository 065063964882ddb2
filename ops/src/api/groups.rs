//! Consumer groups and their offsets.

use tidings_core::{Name, ResetOffsetsOptions, Result};
use tidings_ops_api::wire::{AlterOffsets, Answers, Group, GroupNames, Lags, Names, Nothing, Reset, Resets};

use super::Api;
use super::call::{Call, bounded, encode};

impl Api {
    pub(super) async fn groups(&self, call: &Call) -> Result<String> {
        encode(&Names::of(&self.backends.admin(&call.caller).await?.list_groups().await?))
    }

    pub(super) async fn group(&self, call: &Call) -> Result<String> {
        encode(&Group::from(self.backends.admin(&call.caller).await?.describe_group(&call.name()?.into()).await?))
    }

    pub(super) async fn group_lag(&self, call: &Call) -> Result<String> {
        encode(&Lags::of(self.backends.admin(&call.caller).await?.group_lag(&call.name()?.into()).await?))
    }

    pub(super) async fn describe_groups(&self, call: &Call) -> Result<String> {
        let groups = call.body::<Names>()?.into_names();
        bounded(groups.len(), "groups")?;
        let described = self.backends.admin(&call.caller).await?.describe_groups(&groups).await?;
        encode(&Answers::of(described, Group::from))
    }

    pub(super) async fn group_lags(&self, call: &Call) -> Result<String> {
        let groups = call.body::<Names>()?.into_names();
        bounded(groups.len(), "groups")?;
        let lags = self.backends.admin(&call.caller).await?.group_lags(&groups).await?;
        encode(&Answers::of(lags, Lags::of))
    }

    pub(super) async fn reset(&self, call: &Call, dry_run: bool) -> Result<String> {
        let Reset { group, topics, to } = call.body()?;
        bounded(topics.len(), "topics")?;
        let mut options = ResetOffsetsOptions::default();
        options.dry_run = dry_run;
        let topics: Vec<Name> = topics.into_iter().map(Name::from).collect();
        let admin = self.backends.admin(&call.caller).await?;
        encode(&Resets::of(admin.reset_offsets(&group.into(), &topics, to.try_into()?, options).await?))
    }

    pub(super) async fn alter_offsets(&self, call: &Call) -> Result<String> {
        let request: AlterOffsets = call.body()?;
        bounded(request.offsets.len(), "offsets")?;
        let group = request.group.clone().into();
        let admin = self.backends.admin(&call.caller).await?;
        admin.alter_offsets(&group, &request.into_offsets()).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn delete_group(&self, call: &Call) -> Result<String> {
        let GroupNames { group } = call.body()?;
        self.backends.admin(&call.caller).await?.delete_group(&group.into()).await?;
        encode(&Nothing::default())
    }
}

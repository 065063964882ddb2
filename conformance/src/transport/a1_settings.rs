//! A1, settings of a topic, and groups by the dozen.
//!
//! A transport need not change settings: it then answers as unsupported, and the cases are ignored.

use tidings_core::{ErrorKind, Name, Topic, Transport};

use super::a1::describe;
use super::fixture::Fixture;
use crate::case::{Broken, Case, Checked, cases, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    a1_a_setting_is_altered_and_put_back,
    a1_altering_is_all_or_nothing,
    a1_altering_leaves_other_topics,
    a1_altering_a_missing_topic_is_told,
    a1_many_groups_are_described_as_each_one,
];

pub(super) type Changes<'a> = &'a [(&'a str, Option<&'a str>)];

pub(super) async fn try_alter(
    fixture: &Fixture,
    topic: &Name,
    changes: Changes<'_>,
) -> Checked<tidings_core::Result<()>> {
    let admin = fixture.admin().await?;
    let owned: Vec<_> = changes.iter().map(|(name, value)| ((*name).into(), value.map(Into::into))).collect();
    fixture.note(format!("alter {topic}: {changes:?}"));
    match fixture.within("alter", admin.alter_topic(topic, &owned)).await? {
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(Broken::Ignored(error.report())),
        answer => Ok(answer),
    }
}

async fn setting(fixture: &Fixture, topic: &Name, name: &str) -> Checked<Option<String>> {
    Ok(describe(fixture, topic).await?.settings.get(name).cloned())
}

async fn a1_a_setting_is_altered_and_put_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let before = describe(fixture, &topic).await?.settings;
    try_alter(fixture, &topic, &[("retention.ms", Some("3600000")), ("cleanup.policy", Some("compact"))]).await??;
    same("an altered setting", Some("3600000".into()), setting(fixture, &topic, "retention.ms").await?)?;
    same("another one", Some("compact".into()), setting(fixture, &topic, "cleanup.policy").await?)?;
    let kept = setting(fixture, &topic, "max.message.bytes").await?;
    same("a setting that was not named", before.get("max.message.bytes").cloned(), kept)?;
    try_alter(fixture, &topic, &[("retention.ms", None), ("cleanup.policy", None)]).await??;
    for name in ["retention.ms", "cleanup.policy"] {
        same(&format!("{name}, put back"), before.get(name).cloned(), setting(fixture, &topic, name).await?)?;
    }
    Ok(())
}

async fn a1_altering_is_all_or_nothing(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let before = setting(fixture, &topic, "retention.ms").await?;
    let wrong: [(&str, Option<&str>); 3] =
        [("retention.ms.of.nobody", Some("1")), ("retention.ms.of.nobody", None), ("retention.bytes", Some("many"))];
    for second in wrong {
        let answer = try_alter(fixture, &topic, &[("retention.ms", Some("3600000")), second]).await?;
        refused(&format!("alter {second:?}"), &[ErrorKind::Invalid], answer)?;
        same("the first setting", before.clone(), setting(fixture, &topic, "retention.ms").await?)?;
    }
    try_alter(fixture, &topic, &[]).await??;
    Ok(())
}

async fn a1_altering_leaves_other_topics(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let longer: Name = format!("{topic}-eu").into();
    fixture.create(Topic::new(&longer)).await?;
    let before = setting(fixture, &longer, "retention.ms").await?;
    try_alter(fixture, &topic, &[("retention.ms", Some("3600000"))]).await??;
    same("the setting of the other topic", before, setting(fixture, &longer, "retention.ms").await?)
}

async fn a1_altering_a_missing_topic_is_told(fixture: &Fixture) -> Checked {
    let missing = fixture.fresh("topic");
    for changes in [&[("retention.ms", Some("3600000"))][..], &[("retention.ms", None)]] {
        let answer = try_alter(fixture, &missing, changes).await?;
        refused("alter a missing topic", &[ErrorKind::NotFound], answer)?;
    }
    holds(!fixture.admin().await?.list_topics().await?.contains(&missing), "no topic is created", missing)
}

async fn a1_many_groups_are_described_as_each_one(fixture: &Fixture) -> Checked {
    let (topic, admin) = (fixture.topic(2).await?, fixture.admin().await?);
    fixture.fill(&topic, 0, 0, 4).await?;
    let mut names: Vec<Name> = (0..3).map(|_| fixture.fresh("group")).collect();
    for (shift, group) in names.iter().enumerate() {
        let to = tidings_core::ResetTo::Position(tidings_core::SeekTo::Offset(shift as u64));
        let reset = admin.reset_offsets(group, std::slice::from_ref(&topic), to, Default::default());
        fixture.within("reset", reset).await??;
    }
    names.insert(1, fixture.fresh("group"));
    names.push(names[0].clone());
    let described = fixture.within("describe groups", admin.describe_groups(&names)).await??;
    let lags = fixture.within("lags", admin.group_lags(&names)).await??;
    same("answers", (names.len(), names.len()), (described.len(), lags.len()))?;
    for ((name, described), lag) in names.iter().zip(described).zip(lags) {
        let one = admin.describe_group(name).await.map_err(|e| e.kind());
        same(&format!("the description of {name}"), one, described.map_err(|e| e.kind()))?;
        let one = admin.group_lag(name).await.map_err(|e| e.kind());
        same(&format!("the lag of {name}"), one, lag.map_err(|e| e.kind()))?;
    }
    let none: (usize, usize) = (admin.describe_groups(&[]).await?.len(), admin.group_lags(&[]).await?.len());
    same("answers for no group", (0, 0), none)
}

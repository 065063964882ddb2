//! Restart: what is acknowledged survives a restart.

use tidings_core::{ConsumerOptions, TopicPartition, Transport};

use super::fixture::{Fixture, same_records};
use crate::case::{Case, Checked, cases, same};

pub(super) const CASES: &[Case<dyn Transport>] =
    cases![restart_records_survive[Reopen], restart_commits_and_epochs_survive[Reopen],];

async fn restart_records_survive(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records = fixture.fill(&topic, 0, 0, 10).await?;
    drop(fixture.reopen(fixture.transport()?).await?);
    let members = fixture.read_all(&topic, 1, 10).await?;
    same_records("records after a restart", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
}

/// Epochs must grow across a restart: stores compare them with those from before.
async fn restart_commits_and_epochs_survive(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 10).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut first = fixture.join(options.clone()).await?;
    first.records(0, 10).await?;
    first[0].commit(&p, 4).await?;
    first.close(0).await?;
    drop(first);
    drop(fixture.reopen(fixture.transport()?).await?);
    // The member fails if its epoch is not above the one from before the restart.
    let mut second = fixture.join(options).await?;
    second.records(0, 6).await?;
    same("what is committed", Some(4), second[0].assignment(&p)?.committed)?;
    same_records("records after a restart", 4, &records[4..], second[0].of(&p))
}

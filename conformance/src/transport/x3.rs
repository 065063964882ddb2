//! X3: a newer transactor of an id fences the earlier one.

use tidings_core::{ErrorKind, TransactorOptions, Transport};

use super::c4::ten_read;
use super::fixture::{Fixture, numbered};
use crate::case::{Case, Checked, cases, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    x3_a_newer_transactor_fences_the_earlier,
    x3_a_fenced_transactor_commits_no_offsets,
    x3_ids_are_independent,
    x3_what_was_committed_before_stays,
];

const FENCED: &[ErrorKind] = &[ErrorKind::Fenced];

async fn x3_a_newer_transactor_fences_the_earlier(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let id = TransactorOptions::new(fixture.fresh("transactor"));
    let old = fixture.transactor_of(id.clone()).await?;
    fixture.put_numbered(&*old, &topic, 0, 3).await?;
    let new = fixture.transactor_of(id).await?;
    let answers = fixture.try_put(&*old, vec![numbered(&topic, 0, 3)]).await?;
    answers.into_iter().try_for_each(|answer| refused("publish by the earlier one", FENCED, answer))?;
    refused("commit by the earlier one", FENCED, fixture.try_end(&*old, None).await?)?;
    refused("abort by the earlier one", FENCED, fixture.within("abort", old.abort()).await?)?;
    let records = fixture.put_numbered(&*new, &topic, 5, 8).await?;
    fixture.end(&*new, None).await?;
    fixture.sees(&topic, &records).await
}

/// It learns of it by its commit.
async fn x3_a_fenced_transactor_commits_no_offsets(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    let topic = fixture.topic(1).await?;
    let id = TransactorOptions::new(fixture.fresh("transactor"));
    let old = fixture.transactor_of(id.clone()).await?;
    fixture.put_numbered(&*old, &topic, 0, 3).await?;
    let offsets = members.offsets(0, &p, 6).await??;
    let new = members.meanwhile("a transactor", fixture.transactor_of(id)).await??;
    let ended = members.meanwhile("commit", fixture.try_end(&*old, Some(offsets))).await??;
    refused("commit by the earlier one", FENCED, ended)?;
    let records = fixture.put_numbered(&*new, &topic, 5, 6).await?;
    members.meanwhile("commit", fixture.end(&*new, None)).await??;
    members.meanwhile("the records", fixture.sees(&topic, &records)).await??;
    same("what is committed", None, fixture.committed_offset(&members[0].options.group, &p).await?)
}

async fn x3_ids_are_independent(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let id = fixture.fresh("transactor");
    let first = fixture.transactor_of(TransactorOptions::new(id.clone())).await?;
    let mut records = fixture.put_numbered(&*first, &topic, 0, 2).await?;
    let longer = TransactorOptions::new(format!("{id}-2"));
    let second = fixture.transactor_of(longer).await?;
    records.extend(fixture.put_numbered(&*second, &topic, 2, 4).await?);
    fixture.end(&*first, None).await?;
    fixture.end(&*second, None).await?;
    fixture.sees(&topic, &records).await
}

async fn x3_what_was_committed_before_stays(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let id = TransactorOptions::new(fixture.fresh("transactor"));
    let mut records = Vec::new();
    for n in 0..3 {
        let transactor = fixture.transactor_of(id.clone()).await?;
        records.extend(fixture.put_numbered(&*transactor, &topic, 2 * n, 2 * n + 2).await?);
        fixture.end(&*transactor, None).await?;
    }
    fixture.sees(&topic, &records).await
}

//! X5: a transaction that is open for too long is aborted.

use std::time::Duration;

use tidings_core::{ErrorKind, TransactorOptions, Transport};

use super::fixture::{Fixture, numbered};
use crate::case::{Case, Checked, broken, cases};

pub(super) const CASES: &[Case<dyn Transport>] = cases![x5_a_transaction_beyond_its_timeout_is_aborted];

const TIMEOUT: Duration = Duration::from_secs(1);

/// Of a transactor that is gone, and of one that tries to commit later.
async fn x5_a_transaction_beyond_its_timeout_is_aborted(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let id = || TransactorOptions::new(fixture.fresh("transactor")).with_timeout(TIMEOUT);
    let (late_id, gone_id) = (id(), id());
    let (late, gone) = (fixture.transactor_of(late_id.clone()).await?, fixture.transactor_of(gone_id).await?);
    fixture.put_numbered(&*late, &topic, 0, 2).await?;
    fixture.put_numbered(&*gone, &topic, 2, 4).await?;
    let mut records = fixture.fill(&topic, 0, 4, 6).await?;
    fixture.note("the second transactor is dropped");
    drop(gone);
    let mut members = fixture.reader(&topic).await?;
    members.sees(&topic, &records).await?;
    let stored = fixture.try_put(&*late, vec![numbered(&topic, 0, 6)]).await?;
    match fixture.try_end(&*late, None).await? {
        Err(error) if error.kind() != ErrorKind::Indeterminate => {}
        other => return broken("an error of the commit: the transaction is aborted", format!("{other:?}, {stored:?}")),
    }
    drop(late);
    let next = fixture.transactor_of(late_id).await?;
    records.extend(fixture.put_numbered(&*next, &topic, 8, 9).await?);
    fixture.end(&*next, None).await?;
    members.sees(&topic, &records).await
}

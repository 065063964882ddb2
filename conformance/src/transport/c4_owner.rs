//! C4, commits of successive owners: no offset goes back after an assignment, and the last commit wins.

use tidings_core::{Commit, Transport};

use super::c4::{next_owner, ten_read};
use super::fixture::Fixture;
use crate::case::{Case, Checked, cases, granted, same};

pub(super) const CASES: &[Case<dyn Transport>] =
    cases![c4_a_lower_commit_of_the_next_owner_changes_nothing, c4_metadata_of_the_same_offset_is_replaced,];

/// An assignment that starts at the committed offset is not a seek: lower commits, as of an earlier owner, are stale.
async fn c4_a_lower_commit_of_the_next_owner_changes_nothing(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = ten_read(fixture).await?;
    let options = members[0].options.clone();
    members[0].commit(&p, 8).await?;
    members.close(0).await?;
    let mut next = fixture.join(options).await?;
    next.owns(0, &topic, 1).await?;
    for lower in [5, 7, 3] {
        next[0].commit(&p, lower).await?;
        let progress = fixture.within("progress", next.consumer(0).progress()).await??;
        same("what is committed by progress", Some(8), progress.first().and_then(|p| p.committed))?;
    }
    next.records(0, 2).await?;
    same("what is committed", Some(8), next_owner(fixture, next, &p).await?.committed)
}

/// The offset is the same, the metadata is newer.
async fn c4_metadata_of_the_same_offset_is_replaced(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    let epoch = members[0].epoch(&p)?;
    for note in [Some("first"), Some("second"), None, Some("third")] {
        let mut commit = Commit::new(p.clone(), epoch, 6);
        commit.metadata = note.map(str::to_owned);
        granted("commit the same offset", members[0].try_commit(commit).await?)?;
    }
    let next = next_owner(fixture, members, &p).await?;
    same("what is committed, and its note", (Some(6), Some("third".to_owned())), (next.committed, next.metadata))
}

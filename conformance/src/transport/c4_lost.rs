//! C4 and C1, failures while the broker can be reached: lost answers to commits, and failed reads.

use tidings_core::{Commit, ErrorKind, Transport};

use super::c4::{next_owner, ten_read};
use super::fixture::{Fixture, same_records};
use crate::case::{Case, Checked, cases, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c4_a_commit_whose_answer_is_lost_can_be_repeated[LostCommits],
    c4_a_commit_whose_answer_is_lost_is_no_refusal[LostCommits],
    c4_a_refused_commit_whose_answer_is_lost_commits_nothing[LostCommits],
    c1_reading_goes_on_after_failed_reads[FailedReads],
];

const UNKNOWN: &[ErrorKind] = &[ErrorKind::Indeterminate, ErrorKind::Unavailable];

async fn c4_a_commit_whose_answer_is_lost_can_be_repeated(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    let commit = Commit::new(p.clone(), members[0].epoch(&p)?, 6);
    fixture.lost_commits(true).await?;
    let lost = members[0].try_commit(commit.clone()).await;
    fixture.lost_commits(false).await?;
    refused("a commit whose answer is lost", UNKNOWN, lost?)?;
    members[0].try_commit(commit).await??;
    same("what is committed", Some(6), next_owner(fixture, members, &p).await?.committed)
}

/// The offset may be committed or not, and the next owner gets the one that the group reports.
async fn c4_a_commit_whose_answer_is_lost_is_no_refusal(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    members[0].commit(&p, 3).await?;
    let commit = Commit::new(p.clone(), members[0].epoch(&p)?, 6);
    fixture.lost_commits(true).await?;
    let lost = members[0].try_commit(commit).await;
    fixture.lost_commits(false).await?;
    refused("a commit whose answer is lost", UNKNOWN, lost?)?;
    let lag = fixture.within("lag", fixture.admin().await?.group_lag(&members[0].options.group)).await??;
    let committed = lag.first().and_then(|lag| lag.committed);
    holds([Some(3), Some(6)].contains(&committed), "the commit before, or the one whose answer was lost", committed)?;
    let next = next_owner(fixture, members, &p).await?;
    holds(next.committed >= committed && next.committed <= Some(6), "the same, or the later one", next)
}

async fn c4_a_refused_commit_whose_answer_is_lost_commits_nothing(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    members[0].commit(&p, 3).await?;
    let outdated = Commit::new(p.clone(), members[0].epoch(&p)?.wrapping_sub(1), 6);
    fixture.lost_commits(true).await?;
    let lost = members[0].try_commit(outdated).await;
    fixture.lost_commits(false).await?;
    refused("an outdated commit", &[UNKNOWN, &[ErrorKind::Fenced]].concat(), lost?)?;
    same("what is committed", Some(3), next_owner(fixture, members, &p).await?.committed)
}

/// Each record is returned once, in order, despite the failures.
async fn c1_reading_goes_on_after_failed_reads(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = ten_read(fixture).await?;
    let mut records: Vec<_> = (0..10).map(|n| super::fixture::numbered(&topic, 0, n)).collect();
    for round in 1..4 {
        // Dropped, so that the next call is a new one.
        members[0].pending = None;
        fixture.failed_reads(round).await?;
        records.extend(fixture.fill(&topic, 0, records.len(), records.len() + 5).await?);
        for _ in 0..round {
            let read = fixture.within("an answer to next", members.consumer(0).next()).await?;
            refused("a read that fails", &[ErrorKind::Unavailable, ErrorKind::Indeterminate], read)?;
        }
        members.records(0, records.len()).await?;
    }
    members.rest().await?;
    same_records("all records, once each", 0, &records, members[0].of(&p))?;
    same("what was lost", 0, members[0].lost.len())?;
    members[0].commit(&p, records.len() as u64).await
}

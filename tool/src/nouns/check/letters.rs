//! The check of dead letters.

use clap::Args;
use tidings_core::{
    DEAD_LETTER_SUFFIX, LetterQuery, LetterState, Name, PartitionDescription, dead_letter_topic, is_dead_letter_topic,
};
use tidings_service::DeadLetters;

use super::view::{CheckView, Status, Value};
use crate::context::Context;
use crate::exit::Failure;
use crate::nouns::dead_letter::open;

#[derive(Debug, Args)]
pub(super) struct Letters {
    /// Names of the topics whose dead letters are counted; by default all
    topics: Vec<String>,
    /// Number of open letters from which the status is warning
    #[arg(long, value_name = "N", default_value_t = 1)]
    warning: u64,
    /// Number of open letters from which the status is critical
    #[arg(long, value_name = "N")]
    critical: Option<u64>,
}

impl Letters {
    /// Counts open and parked letters. Dead-letter topics without records are not read.
    pub(super) async fn run(&self, cx: &Context) -> Result<CheckView, Failure> {
        let named = crate::nouns::topic::checked(&self.topics)?;
        let found = crate::nouns::topic::describe_each(cx.admin().await?.as_ref(), &named).await?;
        if let Some((missing, _)) = named.iter().zip(&found).find(|(_, found)| found.is_none()) {
            return Ok(CheckView::new(Status::Critical, format!("topic {missing} does not exist")));
        }
        if cx.letters().await?.is_some() {
            let letters = open(cx, &self.topics).await?;
            return self.count(letters, &named).await;
        }
        let filled = filled(cx, &named).await?;
        if filled.is_empty() {
            return Ok(self.found(0, 0).with_value(Value::new("unreadable", 0, None, None)));
        }
        let letters = open(cx, &filled).await?;
        self.count(letters, &[]).await
    }

    /// Counts the letters of `topics`, or all.
    async fn count(&self, letters: DeadLetters, topics: &[Name]) -> Result<CheckView, Failure> {
        let counted: tidings_core::Result<(u64, u64)> = async {
            let (mut open, mut parked) = (0, 0);
            let queries = match topics {
                [] => vec![LetterQuery::default()],
                topics => topics.iter().map(|topic| LetterQuery::default().with_topic(topic)).collect(),
            };
            for query in queries {
                open += letters.count(&query.clone().with_state(LetterState::Open)).await?;
                parked += letters.count(&query.with_state(LetterState::Parked)).await?;
            }
            Ok((open, parked))
        }
        .await;
        let (unreadable, records) = (letters.store().unreadable(), letters.store().unreadable_records());
        letters.close().await?;
        let (open, parked) = counted?;
        let view = self.found(open, parked).with_value(Value::new("unreadable", records, None, None));
        Ok(view.with_unreadable(&unreadable, records))
    }

    fn found(&self, open: u64, parked: u64) -> CheckView {
        let view = CheckView::new(Status::Ok, format!("{open} open letters, {parked} parked"));
        let view = view.with_value(Value::new("letters", open, Some(self.warning), self.critical));
        view.with_value(Value::new("parked", parked, None, None))
    }
}

/// Returns whether a partition may have records. Those of an offline one are not known: it is opened, which reports it.
fn may_hold(partition: &PartitionDescription) -> bool {
    partition.end > partition.start || partition.is_offline()
}

/// Returns those of `topics`, or of all if it is empty, whose dead-letter topic may have records.
async fn filled(cx: &Context, topics: &[Name]) -> Result<Vec<String>, Failure> {
    let admin = cx.admin().await?;
    let logs: Vec<Name> = match topics {
        [] => admin.list_topics().await?.into_iter().filter(|topic| is_dead_letter_topic(topic)).collect(),
        topics => topics.iter().map(|topic| dead_letter_topic(topic)).collect(),
    };
    let found = crate::nouns::topic::describe_each(admin.as_ref(), &logs).await?;
    let filled = found.into_iter().flatten().filter(|log| log.partitions.iter().any(may_hold));
    let of = |log: &str| log.strip_suffix(DEAD_LETTER_SUFFIX).unwrap_or(log).to_owned();
    Ok(filled.map(|log| of(log.name.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use tidings_core::{Error, ErrorKind};

    use super::*;
    use crate::exit::Exit;
    use crate::output::View;

    #[test]
    fn an_offline_partition_may_hold_letters() {
        let mut partition = PartitionDescription::new(0, 0, 0);
        assert!(!may_hold(&partition));
        partition.replicas = vec![1];
        assert!(may_hold(&partition));
    }

    #[test]
    fn letters_that_cannot_be_read_are_never_ok() {
        let found = |open| Letters { topics: Vec::new(), warning: 1, critical: Some(9) }.found(open, 0);
        let errors = [Error::new(ErrorKind::Failed, "read orders-dlq[0]")];
        let exit = |view: CheckView| view.nagios().unwrap().1;
        assert_eq!(exit(found(0).with_unreadable(&[], 0)), Exit::Ok);
        assert_eq!(exit(found(0).with_unreadable(&errors, 3)), Exit::NagiosUnknown);
        assert_eq!(exit(found(9).with_unreadable(&errors, 3)), Exit::NagiosCritical);
    }
}

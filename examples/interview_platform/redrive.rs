//! `--redrive`: lists the dead letters, and publishes them to their topics again.

use std::fmt::Write as _;
use std::sync::Arc;

use tidings::dead_letter::{DeadLetters, LetterQuery, RedriveOptions};
use tidings::{BoxError, Transport};

use crate::events::TOPICS;
use crate::report::thousands;

/// How many letters are shown.
const SHOWN: usize = 5;

/// Redrives all open letters of the platform's topics; the next run of the services handles them. Returns what to print.
pub(crate) async fn redrive(transport: &Arc<dyn Transport>) -> Result<String, BoxError> {
    let letters = DeadLetters::open(transport, TOPICS.map(|(topic, _)| topic)).await?.with_operator("the example");
    let all = LetterQuery::default();
    let mut text = format!("\n{} dead letters are open", thousands(letters.count(&all).await?));
    for letter in letters.list(&all.clone().with_limit(SHOWN)).await? {
        let (place, offset) = (&letter.origin, letter.record.offset);
        write!(text, "\n  {} could not handle {place}@{offset}: {}", letter.service, letter.error)?;
    }
    let report = letters.redrive(&all, &RedriveOptions::default().with_reason("--redrive")).await?;
    write!(text, "\n{} redriven, {} refused", thousands(report.redriven), report.refused.len())?;
    letters.close().await?;
    Ok(text)
}

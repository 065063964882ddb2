//! `dead-letter redrive`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use tidings_core::{Error, ErrorKind, LetterId, LetterState, REDRIVE_LEASE};
use tidings_service::{RedriveOptions, RedriveReport};

use super::filter::Filter;
use super::open;
use super::plan::{LetterStep, all_failed, query, results, select, stale};
use crate::change::{Change, ChangeOptions, Draft};
use crate::context::Context;
use crate::exit::Failure;
use crate::input;

/// Default of `--max-redrives`.
const MAX_REDRIVES: u32 = 3;

#[derive(Debug, Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    filter: Filter,
    /// Redrive parked letters instead of open ones
    #[arg(long)]
    parked: bool,
    /// Number of letters at most
    #[arg(long, value_name = "N", default_value_t = RedriveOptions::DEFAULT_LIMIT)]
    max: usize,
    /// Leave letters that were redriven this often before
    #[arg(long, value_name = "N", default_value_t = MAX_REDRIVES, value_parser = clap::value_parser!(u32).range(1..))]
    max_redrives: u32,
    /// Letters per second at most, such as 50 or 50/s; default: as fast as the broker accepts them
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<u32>,
    /// How long the letters of a run that crashes are kept from others
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    lease: Option<Duration>,
    /// Reason, for the records of who did what
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Change for Redrive {
    const VERB: &'static str = "dead-letter.redrive";
    type Step = LetterStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        Vec::new()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<LetterStep>, Failure> {
        let letters = open(cx, &self.filter.topics).await?;
        let state = if self.parked { LetterState::Parked } else { LetterState::Open };
        let selected = select(&letters, &self.filter, state, self.max, self.max_redrives).await;
        letters.close().await?;
        let selected = selected?;
        let mut draft = Draft::new(selected.steps)
            .with_note("Only the service of a letter handles its record again; others skip it.");
        if selected.repeated > 0 {
            let (count, times) = (selected.repeated, self.max_redrives);
            draft = draft.with_note(format!("{count} letters stay: redriven {times} times already (--max-redrives)."));
        }
        if selected.more {
            draft = draft.with_note(format!("There are more than {}: --max, or repeat the verb.", self.max));
        }
        Ok(draft)
    }

    async fn stale(&self, cx: &Context, steps: &[LetterStep]) -> Result<Vec<String>, Failure> {
        let letters = open(cx, &self.filter.topics).await?;
        let stale = stale(&letters, steps).await;
        letters.close().await?;
        Ok(stale?)
    }

    async fn apply(&self, cx: &Context, steps: &[LetterStep]) -> Vec<tidings_core::Result<()>> {
        let letters = match open(cx, &self.filter.topics).await {
            Ok(letters) => letters,
            Err(failure) => return all_failed(steps, &failure),
        };
        let all: u64 = steps.iter().map(|step| step.count() as u64).sum();
        let bar = crate::console::progress(&cx.console, all);
        let (shown, interrupt) = (bar.clone(), cx.interrupt());
        // No limit over all: many letters at a low rate take long. The store and the publisher bound each batch.
        let watch = move |report: &RedriveReport| {
            shown.set_position(report.redriven + report.skipped + report.behind + report.refused.len() as u64);
            match *interrupt.borrow() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let mut options = RedriveOptions::default().with_reason(&*self.reason).with_watch(watch);
        options.limit = usize::try_from(all).unwrap_or(usize::MAX).max(1);
        options.per_second = self.rate;
        options.lease = self.lease.unwrap_or(REDRIVE_LEASE);
        let report = letters.redrive(&query(steps), &options).await;
        bar.finish_and_clear();
        let results = match report {
            Ok(report) => {
                cx.console.note(&summary(&report, all));
                let refused: BTreeMap<LetterId, (ErrorKind, String)> =
                    report.refused.into_iter().map(|(id, error)| (id, (error.kind(), error.report()))).collect();
                let interrupted = || (ErrorKind::Conflict, "the run was interrupted".to_owned());
                let ended = cx.is_interrupted().then(interrupted);
                results(&letters, steps, |id| refused.get(id).or(ended.as_ref()).cloned()).await
            }
            Err(error) => results(&letters, steps, |_| Some((error.kind(), error.report()))).await,
        };
        // The plan is applied; a group that could not be left goes by itself.
        if let Err(error) = letters.close().await {
            cx.console.note(&format!("Note: {}", error.report()));
        }
        results
    }
}

fn summary(report: &RedriveReport, all: u64) -> String {
    let mut text = format!("Redriven {} of {all}", report.redriven);
    let others = [
        (report.skipped, "closed meanwhile, or held by another run"),
        (report.behind, "behind a letter of their key that stays"),
        (report.refused.len() as u64, "refused"),
    ];
    for (count, why) in others.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {why}"));
    }
    if let Some(first) = report.unreadable.first().map(Error::report) {
        let others = report.unreadable.len() - 1;
        let more = if others > 0 { format!(" (and {others} more ranges)") } else { String::new() };
        text.push_str(&format!("; cannot be read: {first}{more}"));
    }
    text + "."
}

/// Parses a rate: `50` or `50/s`.
fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number.filter(|rate| *rate > 0).ok_or_else(|| "expected letters per second, such as 50 or 50/s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_per_second() {
        assert_eq!((rate("50"), rate("50/s")), (Ok(50), Ok(50)));
        assert!(["0", "", "-1", "50/m", "fast"].into_iter().all(|text| rate(text).is_err()));
    }
}

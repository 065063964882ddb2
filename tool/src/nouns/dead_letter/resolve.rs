//! `dead-letter discard` and `dead-letter park`.

use clap::Args;
use tidings_core::{ErrorKind, LetterId, LetterState};
use tidings_service::DeadLetters;

use super::filter::Filter;
use super::open;
use super::plan::{LetterStep, all_failed, parts, results, select, stale};
use crate::change::{Change, ChangeOptions, Draft};
use crate::context::Context;
use crate::exit::Failure;

/// Default of `--max`.
const MAX: usize = 100_000;

#[derive(Debug, Args)]
struct Options {
    #[command(flatten)]
    filter: Filter,
    /// Number of letters at most
    #[arg(long, value_name = "N", default_value_t = MAX)]
    max: usize,
    /// Reason, for the records of who did what
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Discard {
    /// Discard parked letters instead of open ones
    #[arg(long)]
    parked: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
pub(crate) struct Park {
    #[command(flatten)]
    options: Options,
}

/// The way in which letters are resolved.
#[derive(Debug, Clone, Copy)]
enum How {
    Discard,
    Park,
}

impl Options {
    async fn plan(&self, cx: &Context, state: LetterState) -> Result<Draft<LetterStep>, Failure> {
        self.reason()?;
        let letters = open(cx, &self.filter.topics).await?;
        let selected = select(&letters, &self.filter, state, self.max, u32::MAX).await;
        letters.close().await?;
        let selected = selected?;
        let draft = Draft::new(selected.steps);
        Ok(match selected.more {
            true => draft.with_note(format!("There are more than {}: --max, or repeat the verb.", self.max)),
            false => draft,
        })
    }

    /// Returns the reason, which must say something.
    fn reason(&self) -> Result<&str, Failure> {
        let reason = self.reason.trim();
        let missing = || Failure::usage("--reason is empty").with_hint("say why, for those who ask later");
        if reason.is_empty() { Err(missing()) } else { Ok(reason) }
    }

    async fn stale(&self, cx: &Context, steps: &[LetterStep]) -> Result<Vec<String>, Failure> {
        self.reason()?;
        let letters = open(cx, &self.filter.topics).await?;
        let stale = stale(&letters, steps).await;
        letters.close().await?;
        Ok(stale?)
    }

    async fn apply(&self, cx: &Context, steps: &[LetterStep], how: How) -> Vec<tidings_core::Result<()>> {
        let opened = async { Ok::<_, Failure>((self.reason()?, open(cx, &self.filter.topics).await?)) };
        let (reason, letters) = match opened.await {
            Ok(opened) => opened,
            Err(failure) => return all_failed(steps, &failure),
        };
        let failed = self.apply_parts(cx, &letters, steps, how, reason).await;
        let results = results(&letters, steps, |_: &LetterId| failed.clone()).await;
        if let Err(error) = letters.close().await {
            cx.console.note(&format!("Note: {}", error.report()));
        }
        results
    }
}

impl Options {
    /// Resolves the letters in parts, until an interrupt. Returns the error that ended the run early.
    async fn apply_parts(
        &self,
        cx: &Context,
        letters: &DeadLetters,
        steps: &[LetterStep],
        how: How,
        reason: &str,
    ) -> Option<(ErrorKind, String)> {
        let all: u64 = steps.iter().map(|step| step.count() as u64).sum();
        let bar = crate::console::progress(&cx.console, all);
        let (mut done, mut least, mut failed) = (0, "", None);
        for part in parts(steps) {
            if cx.is_interrupted() {
                failed = Some((ErrorKind::Conflict, "the run was interrupted".to_owned()));
                break;
            }
            let resolved = match how {
                How::Discard => letters.discard(&part, reason).await,
                How::Park => letters.park(&part, reason).await,
            };
            match resolved {
                Ok(count) => done += count,
                Err(error) => {
                    (least, failed) = ("at least ", Some((error.kind(), error.report())));
                    break;
                }
            }
            bar.set_position(done);
        }
        bar.finish_and_clear();
        cx.console.note(&format!("{} {least}{done} of {all}.", how.past()));
        failed
    }
}

impl How {
    const fn past(self) -> &'static str {
        match self {
            Self::Discard => "Discarded",
            Self::Park => "Parked",
        }
    }
}

impl Change for Discard {
    const VERB: &'static str = "dead-letter.discard";
    type Step = LetterStep;

    fn options(&self) -> &ChangeOptions {
        &self.options.options
    }

    fn subjects(&self) -> Vec<String> {
        Vec::new()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<LetterStep>, Failure> {
        let state = if self.parked { LetterState::Parked } else { LetterState::Open };
        self.options.plan(cx, state).await
    }

    async fn stale(&self, cx: &Context, steps: &[LetterStep]) -> Result<Vec<String>, Failure> {
        self.options.stale(cx, steps).await
    }

    async fn apply(&self, cx: &Context, steps: &[LetterStep]) -> Vec<tidings_core::Result<()>> {
        self.options.apply(cx, steps, How::Discard).await
    }
}

impl Change for Park {
    const VERB: &'static str = "dead-letter.park";
    type Step = LetterStep;

    fn options(&self) -> &ChangeOptions {
        &self.options.options
    }

    fn subjects(&self) -> Vec<String> {
        Vec::new()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<LetterStep>, Failure> {
        self.options.plan(cx, LetterState::Open).await
    }

    async fn stale(&self, cx: &Context, steps: &[LetterStep]) -> Result<Vec<String>, Failure> {
        self.options.stale(cx, steps).await
    }

    async fn apply(&self, cx: &Context, steps: &[LetterStep]) -> Vec<tidings_core::Result<()>> {
        self.options.apply(cx, steps, How::Park).await
    }
}

//! `dead-letter discard` and `dead-letter park`.

use clap::Args;
use tidings_core::{Error, LetterState};

use super::filter::Filter;
use super::open;
use super::plan::{LetterStep, all_failed, query, results, select, stale};
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
        let resolved = match how {
            How::Discard => letters.discard(&query(steps), reason).await,
            How::Park => letters.park(&query(steps), reason).await,
        };
        let failed = resolved.err().map(|error: Error| (error.kind(), error.report()));
        let results = results(&letters, steps, |_| failed.clone()).await;
        if let Err(error) = letters.close().await {
            cx.console.note(&format!("Note: {}", error.report()));
        }
        results
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

//! The course of a change: plan, compare, apply, report.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::{Error, ErrorKind};

use super::{Change, Draft, Plan, Step, is_partly};
use crate::context::Context;
use crate::exit::{Exit, Failure, hint};
use crate::output::{Format, Table, View, schema};

/// The output of a verb that changes something.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangeReport<S> {
    /// The verb, such as `topic.create`.
    verb: String,
    /// The target, without secrets.
    target: String,
    /// Whether the plan was applied.
    executed: bool,
    /// SHA-256 of the plan.
    digest: String,
    /// The steps and their results.
    steps: Vec<StepReport<S>>,
    /// Remarks.
    notes: Vec<String>,
    #[serde(skip)]
    unsaved: bool,
    /// The next step after the first error.
    #[serde(skip)]
    hint: Option<&'static str>,
}

/// A step and its result.
#[derive(Debug, Serialize, JsonSchema)]
struct StepReport<S> {
    step: S,
    result: StepResult,
    /// Why the step failed.
    error: Option<String>,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum StepResult {
    /// Not applied: the plan is only shown.
    Planned,
    /// Applied.
    Done,
    /// Applied in part; the error names the rest.
    Partly,
    /// Refused: nothing of it was applied.
    Failed,
    /// It is not known whether it was applied.
    Unknown,
    /// Not begun, because of an earlier failure, the time limit or an interrupt.
    NotBegun,
}

impl Context {
    /// Plans a change, and applies the plan with `--execute`.
    pub(crate) async fn change<C: Change>(&self, change: &C) -> Result<Exit, Failure> {
        if self.globals.output == Format::Schema {
            return self.print(&schema::<ChangeReport<C::Step>>()).map(|()| Exit::Ok);
        }
        if self.globals.watch.is_some() {
            return Err(Failure::usage("--watch: only for verbs that change nothing"));
        }
        if !matches!(self.globals.output, Format::Table | Format::Wide | Format::Json | Format::Yaml | Format::Jsonl) {
            return Err(Failure::usage("-o nagios, prometheus: only the verbs of `check` have these formats"));
        }
        let options = change.options();
        let draft = self.within(self.draft(change)).await?;
        let plan = Plan::new(C::VERB, self.target().await?.name(), draft.steps)?;
        if let Some(path) = &options.plan {
            plan.save(path)?;
        }
        let answers = match options.execute {
            true => {
                let stale = self.within(change.stale(self, &plan.steps)).await?;
                refuse_stale(&stale, options.from_plan.as_deref())?;
                self.within(self.begin_trail(&plan.digest)).await?;
                let answers = change.apply(self, &plan.steps).await;
                self.end_trail().await;
                Some(answers)
            }
            false => None,
        };
        let report = ChangeReport::new(plan, draft.notes, answers, options.plan.is_none());
        let (executed, exit, summary) = (report.executed, report.exit(), report.summary());
        match self.output(&report) {
            // The exit code is that of the change, whatever became of its report.
            Err(failure) if executed => {
                let text = format!("{summary} The report could not be written: {failure}");
                self.console.fail(&Failure::failed(text));
                Ok(exit)
            }
            printed => printed,
        }
    }

    /// Makes the plan, or reads it.
    async fn draft<C: Change>(&self, change: &C) -> Result<Draft<C::Step>, Failure> {
        let Some(path) = &change.options().from_plan else { return change.plan(self).await };
        if let [first, ..] = change.subjects().as_slice() {
            let text = format!("--from-plan: the plan says what to change; leave {first:?} out");
            return Err(Failure::usage(text));
        }
        let plan = Plan::load(path, C::VERB, self.target().await?.name())?;
        let stale = change.stale(self, &plan.steps).await?;
        refuse_stale(&stale, Some(path))?;
        Ok(Draft::new(plan.steps))
    }
}

/// Refuses a plan that no longer fits the state, with the first reason.
fn refuse_stale(reasons: &[String], path: Option<&Path>) -> Result<(), Failure> {
    let Some(first) = reasons.first() else { return Ok(()) };
    let plan = path.map_or("the plan".to_owned(), |path| format!("plan {}", path.display()));
    let more = if reasons.len() > 1 { format!(" (and {} more)", reasons.len() - 1) } else { String::new() };
    Err(Failure::failed(format!("{plan} is stale, nothing was changed: {first}{more}")).with_hint("make a new plan"))
}

impl<S: Step> ChangeReport<S> {
    fn new(plan: Plan<S>, notes: Vec<String>, answers: Option<Vec<Result<(), Error>>>, unsaved: bool) -> Self {
        let executed = answers.is_some();
        let first = answers.iter().flatten().find_map(|answer| answer.as_ref().err());
        let hint = first.and_then(|error| hint(error.kind()));
        let mut answers = answers.unwrap_or_default().into_iter();
        let report = |step| {
            let (result, error) = match answers.next() {
                _ if !executed => (StepResult::Planned, None),
                Some(Ok(())) => (StepResult::Done, None),
                Some(Err(error)) if error.kind() == ErrorKind::Indeterminate => {
                    (StepResult::Unknown, Some(error.report()))
                }
                Some(Err(error)) if is_partly(&error) => (StepResult::Partly, Some(error.report())),
                Some(Err(error)) => (StepResult::Failed, Some(error.report())),
                None => (StepResult::NotBegun, None),
            };
            StepReport { step, result, error }
        };
        let steps = plan.steps.into_iter().map(report).collect();
        Self { verb: plan.verb, target: plan.target, executed, digest: plan.digest, steps, notes, unsaved, hint }
    }

    fn count(&self, result: StepResult) -> usize {
        self.steps.iter().filter(|step| step.result == result).count()
    }

    /// Says what was done, or how to do it.
    fn summary(&self) -> String {
        let all = self.steps.len();
        if all == 0 {
            return "Nothing to do.".to_owned();
        }
        if !self.executed {
            let saved = if self.unsaved { ", or save it: --plan FILE, then --from-plan FILE --execute" } else { "" };
            return format!("Plan only, nothing changed. Apply it: --execute{saved}.");
        }
        let counted = [
            ("done in part", self.count(StepResult::Partly)),
            ("failed", self.count(StepResult::Failed)),
            ("unknown", self.count(StepResult::Unknown)),
            ("not begun", self.count(StepResult::NotBegun)),
        ];
        let rest: Vec<String> =
            counted.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
        let rest = if rest.is_empty() { String::new() } else { format!(", {}", rest.join(", ")) };
        let hint = self.hint.map_or(String::new(), |hint| format!("; {hint}"));
        format!("{} of {all} done{rest}{hint}.", self.count(StepResult::Done))
    }
}

impl<S: Step> View for ChangeReport<S> {
    const ITEMS: Option<&'static str> = Some("steps");

    fn tables(&self) -> Vec<Table> {
        if self.steps.is_empty() {
            return Vec::new();
        }
        let mut columns = S::COLUMNS.to_vec();
        columns.push("RESULT");
        let rows = self.steps.iter().map(|step| {
            let result = serde_json::to_value(step.result).ok();
            let result = result.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            let error = step.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
            step.step.cells().into_iter().chain([result + &error]).collect()
        });
        vec![Table::new(&columns).with_rows(rows)]
    }

    fn notes(&self) -> Vec<String> {
        self.notes.iter().cloned().chain([self.summary()]).collect()
    }

    fn exit(&self) -> Exit {
        let (all, done) = (self.steps.len(), self.count(StepResult::Done));
        match (self.executed, self.count(StepResult::Unknown) + self.count(StepResult::Partly)) {
            (false, _) => Exit::Ok,
            (true, _) if done == all => Exit::Ok,
            (true, 0) if done == 0 => Exit::Failed,
            _ => Exit::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    struct One(u32);

    impl Step for One {
        const COLUMNS: &'static [&'static str] = &[">N"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_string()]
        }
    }

    fn report(answers: Option<Vec<Result<(), Error>>>) -> ChangeReport<One> {
        let plan = Plan::new("test.count", "kafka://a", vec![One(1), One(2)]).unwrap();
        ChangeReport::new(plan, Vec::new(), answers, true)
    }

    #[test]
    fn the_exit_code_says_how_much_was_applied() {
        let fail = |kind| Err(Error::new(kind, "count"));
        assert_eq!(report(None).exit(), Exit::Ok);
        assert_eq!(report(Some(vec![Ok(()), Ok(())])).exit(), Exit::Ok);
        assert_eq!(report(Some(vec![fail(ErrorKind::Denied), fail(ErrorKind::Denied)])).exit(), Exit::Failed);
        assert_eq!(report(Some(vec![])).exit(), Exit::Failed);
        assert_eq!(report(Some(vec![Ok(()), fail(ErrorKind::Denied)])).exit(), Exit::Partial);
        assert_eq!(report(Some(vec![fail(ErrorKind::Indeterminate)])).exit(), Exit::Partial);
        let partly = report(Some(vec![Err(super::super::partly("2 of 3 letters stay".into()))]));
        assert_eq!(
            (partly.exit(), partly.summary().as_str()),
            (Exit::Partial, "0 of 2 done, 1 done in part, 1 not begun.")
        );
    }

    #[test]
    fn the_summary_names_the_next_step_after_an_error() {
        let denied = report(Some(vec![Err(Error::new(ErrorKind::Denied, "create"))]));
        assert!(denied.summary().contains("1 failed, 1 not begun; check the user"), "{}", denied.summary());
    }

    #[test]
    fn the_summary_counts_what_was_not_done() {
        assert_eq!(report(Some(vec![Ok(())])).summary(), "1 of 2 done, 1 not begun.");
        assert!(report(None).summary().starts_with("Plan only, nothing changed."));
    }

    #[test]
    fn a_plan_is_read_as_it_was_saved_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plan.json");
        let plan = Plan::new("test.count", "kafka://a", vec![One(7)]).unwrap();
        plan.save(&path).unwrap();
        let load = |verb: &str, target: &str| Plan::<One>::load(&path, verb, target).map_err(|f| f.to_string());
        assert_eq!(load("test.count", "kafka://a").unwrap().steps[0].0, 7);
        assert!(load("topic.create", "kafka://a").unwrap_err().contains("one of test count, not of topic.create"));
        assert!(load("test.count", "kafka://b").unwrap_err().contains("made for kafka://a, not for kafka://b"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace('7', "8")).unwrap();
        assert!(load("test.count", "kafka://a").unwrap_err().contains("it was changed since"));
        std::fs::write(&path, "{").unwrap();
        assert!(load("test.count", "kafka://a").unwrap_err().contains("EOF"));
    }
}

//! One audited call: its intent, the call, its result.

use std::future::Future;

use tidings_core::audit::{AuditOutcome, AuditRecord, Principal};
use tidings_core::{Error, Name, Result, is_sensitive_config};

use crate::auditor::Auditor;

/// Stands for the value of a sensitive setting.
const HIDDEN: &str = "[hidden]";
/// The shortest secret that is looked for in the texts of errors: shorter ones would hide parts of words.
const SHORTEST_SECRET: usize = 4;

/// Who acts, and why: what all records of a wrapper have in common.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) auditor: Auditor,
    pub(super) principal: Principal,
    pub(super) reason: String,
    pub(super) correlation_id: Option<String>,
    pub(super) plan: Option<String>,
}

impl Actor {
    pub(super) fn new(auditor: Auditor) -> Self {
        let principal = Principal::new(auditor.source().as_str());
        Self { auditor, principal, reason: String::new(), correlation_id: None, plan: None }
    }

    /// Begins the description of a call.
    pub(super) fn call(&self, verb: &'static str) -> Call<'_> {
        let mut record = AuditRecord::intent(self.principal.clone(), Name::from_static(verb));
        record.reason.clone_from(&self.reason);
        record.correlation_id.clone_from(&self.correlation_id);
        record.plan.clone_from(&self.plan);
        Call { actor: self, record, secrets: Vec::new() }
    }
}

/// A call that is about to be made.
#[derive(Debug)]
pub(super) struct Call<'a> {
    actor: &'a Actor,
    pub(super) record: AuditRecord,
    /// Values that must not be in the text of an error.
    secrets: Vec<String>,
}

impl Call<'_> {
    /// Adds a resource.
    pub(super) fn on(mut self, resource: impl Into<String>) -> Self {
        self.record.resources.push(resource.into());
        self
    }

    /// Adds resources.
    pub(super) fn on_all(mut self, resources: impl IntoIterator<Item = String>) -> Self {
        self.record.resources.extend(resources);
        self
    }

    /// Adds what was before, where it is known.
    pub(super) fn before(mut self, values: impl IntoIterator<Item = (String, String)>) -> Self {
        self.record.before.extend(values);
        self
    }

    /// Adds what is asked for.
    pub(super) fn after(mut self, values: impl IntoIterator<Item = (String, String)>) -> Self {
        self.record.after.extend(values);
        self
    }

    /// Adds settings that are asked for; the values of sensitive ones are hidden, and `None` is the default.
    pub(super) fn settings<'s>(self, changes: impl IntoIterator<Item = (String, &'s str, Option<&'s str>)>) -> Self {
        self.settings_hiding(changes, is_sensitive_config)
    }

    /// As [`settings`](Self::settings), where the caller knows which are sensitive.
    pub(super) fn settings_hiding<'s>(
        mut self,
        changes: impl IntoIterator<Item = (String, &'s str, Option<&'s str>)>,
        is_sensitive: impl Fn(&str) -> bool,
    ) -> Self {
        for (prefix, name, value) in changes {
            let shown = match value {
                None => "(default)",
                Some(value) if is_sensitive(name) => {
                    self.secrets.push(value.to_owned());
                    HIDDEN
                }
                Some(value) => value,
            };
            self.record.after.insert(format!("{prefix}{name}"), shown.to_owned());
        }
        self
    }

    /// Makes a call that has one answer.
    pub(super) async fn one<T>(
        self,
        work: impl Future<Output = Result<T>>,
        describe: impl FnOnce(&mut AuditRecord, &T),
    ) -> Result<T> {
        let attempt = self.actor.auditor.begin(self.record.clone()).await?;
        let answer = work.await;
        let outcome = answer.as_ref().map_or_else(|error| self.outcome_of(error), |_| AuditOutcome::Ok);
        let mut result = self.record.result(outcome);
        if let Ok(value) = &answer {
            describe(&mut result, value);
        }
        attempt.finish(result).await;
        answer
    }

    /// Makes a call that has an answer per resource.
    pub(super) async fn each<T>(self, work: impl Future<Output = Result<Vec<Result<T>>>>) -> Result<Vec<Result<T>>> {
        self.each_with(work, |_, _| {}).await
    }

    /// As [`each`](Self::each), with something to add to the result.
    pub(super) async fn each_with<T>(
        self,
        work: impl Future<Output = Result<Vec<Result<T>>>>,
        describe: impl FnOnce(&mut AuditRecord, &[Result<T>]),
    ) -> Result<Vec<Result<T>>> {
        let attempt = self.actor.auditor.begin(self.record.clone()).await?;
        let answers = work.await;
        let result = match &answers {
            Err(error) => self.record.result(self.outcome_of(error)),
            Ok(answers) => {
                let mut result = self.result_of(answers);
                describe(&mut result, answers);
                result
            }
        };
        attempt.finish(result).await;
        answers
    }

    /// Sums up the answers of all resources: denied if all failed so.
    fn result_of<T>(&self, answers: &[Result<T>]) -> AuditRecord {
        let mut result = self.record.result(self.cleaned(AuditOutcome::of_each(answers)));
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        result.counts.insert("ok".to_owned(), (answers.len() - failed) as u64);
        result.counts.insert("failed".to_owned(), failed as u64);
        for (resource, answer) in self.record.resources.iter().zip(answers) {
            if let Err(error) = answer {
                result.failures.insert(resource.clone(), self.clean(format!("{}: {}", error.kind(), error.report())));
            }
        }
        result
    }

    fn outcome_of(&self, error: &Error) -> AuditOutcome {
        self.cleaned(AuditOutcome::of(error))
    }

    fn cleaned(&self, outcome: AuditOutcome) -> AuditOutcome {
        match outcome {
            AuditOutcome::Denied { error } => AuditOutcome::Denied { error: self.clean(error) },
            AuditOutcome::Failed { kind, error } => AuditOutcome::Failed { kind, error: self.clean(error) },
            outcome => outcome,
        }
    }

    /// Removes secrets from a text: a broker may repeat a value that it refuses.
    fn clean(&self, text: String) -> String {
        let secrets = self.secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.fold(text, |text, secret| text.replace(secret.as_str(), HIDDEN))
    }
}

//! `doctor`: looks for the causes of the four classic complaints, and names the remedy of each.

mod duplicates;
mod lag;
mod loss;
mod memory;
mod sample;

use std::time::Duration;

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::is_dead_letter_topic;
use tokio::time::Instant;

use self::sample::Sample;
use crate::context::{Context, Query};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Table, View};

/// Default of `--sample`.
const SAMPLE: &str = "5s";
/// Groups that readers of dead letters make for themselves.
const READERS: &str = "dead-letters-";

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Complaints to look for; default: all
    #[arg(value_enum, value_name = "COMPLAINT")]
    complaints: Vec<Complaint>,
    /// Groups to look at; default: all
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<String>,
    /// How long to watch the groups' progress
    #[arg(long, value_name = "DURATION", default_value = SAMPLE, value_parser = input::duration)]
    sample: Duration,
}

/// A complaint about an event system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Complaint {
    /// Groups fall behind.
    Lag,
    /// Events are handled more than once.
    Duplicates,
    /// Events are not handled at all.
    Loss,
    /// Services need more and more memory.
    Memory,
}

impl Complaint {
    const ALL: [Self; 4] = [Self::Lag, Self::Duplicates, Self::Loss, Self::Memory];

    fn name(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Duplicates => "duplicates",
            Self::Loss => "loss",
            Self::Memory => "memory",
        }
    }
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    /// Something is wrong.
    Problem,
    /// Something may go wrong, or explains a complaint.
    Hint,
}

/// A finding about one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
struct Finding {
    /// The complaint that it explains.
    complaint: Complaint,
    /// How much it matters.
    severity: Severity,
    /// A group, a topic or a partition.
    subject: String,
    /// The finding.
    finding: String,
    /// The remedy.
    remedy: String,
}

impl Finding {
    fn problem(complaint: Complaint, subject: impl Into<String>, finding: impl Into<String>, remedy: &str) -> Self {
        let (subject, finding) = (subject.into(), finding.into());
        Self { complaint, severity: Severity::Problem, subject, finding, remedy: remedy.to_owned() }
    }

    fn hint(complaint: Complaint, subject: impl Into<String>, finding: impl Into<String>, remedy: &str) -> Self {
        Self { severity: Severity::Hint, ..Self::problem(complaint, subject, finding, remedy) }
    }
}

/// All findings, the problems first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Diagnosis {
    /// The complaints that were looked for.
    complaints: Vec<Complaint>,
    /// The number of groups that were looked at.
    groups: usize,
    /// The number of topics that were looked at.
    topics: usize,
    /// The finding.
    findings: Vec<Finding>,
    /// Subjects that could not be looked at, each with the cause.
    unknown: Vec<String>,
}

impl Query for Doctor {
    type View = Diagnosis;

    async fn run(&self, cx: &Context) -> Result<Diagnosis, Failure> {
        let mut complaints = if self.complaints.is_empty() { Complaint::ALL.to_vec() } else { self.complaints.clone() };
        complaints.sort();
        complaints.dedup();
        let groups = self.groups(cx).await?;
        let begun = Instant::now();
        let before = Sample::take(cx, &groups).await?;
        let has = |complaint| complaints.contains(&complaint);
        let after = match has(Complaint::Lag) || has(Complaint::Duplicates) {
            true => {
                tokio::time::sleep_until(begun + self.sample).await;
                Sample::groups_of(cx, &groups, &before).await?
            }
            false => before.clone(),
        };
        let passed = begun.elapsed();
        let (mut findings, mut unknown) = (Vec::new(), after.unknown.clone());
        for complaint in &complaints {
            match complaint {
                Complaint::Lag => findings.extend(lag::findings(&before, &after, passed)),
                Complaint::Duplicates => {
                    findings.extend(duplicates::moved_back(&before, &after));
                    let (found, unread) = duplicates::repeated(cx, &after).await?;
                    findings.extend(found);
                    unknown.extend(unread);
                }
                Complaint::Loss => findings.extend(loss::findings(&after)),
                Complaint::Memory => findings.extend(memory::findings(&after)),
            }
        }
        findings.sort_by(|a, b| (a.severity, a.complaint, &a.subject).cmp(&(b.severity, b.complaint, &b.subject)));
        Ok(Diagnosis { complaints, groups: groups.len(), topics: after.topics.len(), findings, unknown })
    }
}

impl Doctor {
    /// Returns the groups to look at; those that were named must exist.
    async fn groups(&self, cx: &Context) -> Result<Vec<String>, Failure> {
        let all = cx.admin().await?.list_groups().await?;
        for group in &self.groups {
            if !all.iter().any(|known| known == group.as_str()) {
                return Err(cx.unknown("group", group).await);
            }
        }
        let of_services = all.iter().filter(|group| !group.starts_with(READERS)).map(|group| group.as_str().to_owned());
        Ok(if self.groups.is_empty() { of_services.collect() } else { self.groups.clone() })
    }
}

/// Returns whether a topic has events of users, and no letters or states of the library.
fn has_events(topic: &str) -> bool {
    !is_dead_letter_topic(topic) && !topic.ends_with("-dlq-state") && !topic.starts_with("__")
}

impl View for Diagnosis {
    const ITEMS: Option<&'static str> = Some("findings");

    fn tables(&self) -> Vec<Table> {
        let severity = |finding: &Finding| match finding.severity {
            Severity::Problem => "problem",
            Severity::Hint => "hint",
        };
        let row = |finding: &Finding| {
            let texts = [finding.complaint.name(), severity(finding), &finding.subject, &finding.finding];
            texts.into_iter().chain([&*finding.remedy]).map(str::to_owned).collect()
        };
        let table = Table::new(&["COMPLAINT", "SEVERITY", "SUBJECT", "FINDING", "REMEDY"]);
        if self.findings.is_empty() { Vec::new() } else { vec![table.with_rows(self.findings.iter().map(row))] }
    }

    fn notes(&self) -> Vec<String> {
        let unknown = self.unknown.iter().map(|cause| format!("Not looked at: {cause}"));
        let problems = self.findings.iter().filter(|finding| finding.severity == Severity::Problem).count();
        let looked = format!("{} groups and {} topics looked at: {problems} problems", self.groups, self.topics);
        let hints = format!("{looked}, {} hints.", self.findings.len() - problems);
        unknown.chain([hints]).collect()
    }

    fn exit(&self) -> Exit {
        let problem = self.findings.iter().any(|finding| finding.severity == Severity::Problem);
        if problem { Exit::CheckFailed } else { Exit::Ok }
    }
}

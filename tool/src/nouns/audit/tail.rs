//! `audit tail`.

use std::collections::{BTreeMap, VecDeque};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_audit::{decode, is_checkpoint};
use tidings_core::audit::{AuditPhase, AuditRecord, StoredAudit};

use super::open;
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::input::show_time;
use crate::output::{Table, View, list, or_dash};

/// Default of `--limit`.
const LIMIT: usize = 20;
/// The number of records that are read at once.
const PAGE: usize = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Number of records at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
    /// Show intents, too: by default only results
    #[arg(long)]
    intents: bool,
}

/// The last records of a trail.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AuditTail {
    /// The records, the oldest first.
    records: Vec<Recorded>,
}

/// A record.
#[derive(Debug, Serialize, JsonSchema)]
struct Recorded {
    /// The chain of its writer.
    chain: String,
    /// Its number in the chain.
    seq: u64,
    /// The time (RFC 3339).
    time: String,
    /// Who acted.
    principal: String,
    /// The verb, such as `topic.create`.
    verb: String,
    /// The things that it concerns.
    resources: Vec<String>,
    /// `ok`, `denied`, `failed` and so on; absent for an intent.
    outcome: Option<String>,
    /// The reason that was given.
    reason: String,
    /// The state before.
    before: BTreeMap<String, String>,
    /// The state after.
    after: BTreeMap<String, String>,
}

impl Recorded {
    fn new(stored: &StoredAudit, record: AuditRecord) -> Self {
        Self {
            chain: stored.chain.as_str().to_owned(),
            seq: stored.seq,
            time: show_time(record.time),
            outcome: record.outcome().map(|outcome| outcome.as_str().to_owned()),
            principal: record.principal.name,
            verb: record.verb.as_str().to_owned(),
            resources: record.resources,
            reason: record.reason,
            before: record.before,
            after: record.after,
        }
    }
}

impl Query for Tail {
    type View = AuditTail;

    async fn run(&self, cx: &Context) -> Result<AuditTail, Failure> {
        let sink = open(cx).await?;
        let (mut last, mut after) = (VecDeque::with_capacity(self.limit.min(PAGE)), None);
        loop {
            let page = sink.read(after.as_ref(), PAGE).await?;
            if page.records.is_empty() {
                return Ok(AuditTail { records: last.into() });
            }
            for stored in page.records.iter().filter(|stored| !is_checkpoint(stored)) {
                // Records of later versions are counted by `verify` only.
                let Ok(record) = decode(stored) else { continue };
                if self.intents || !matches!(record.phase, AuditPhase::Intent) {
                    last.push_back(Recorded::new(stored, record));
                    if last.len() > self.limit {
                        last.pop_front();
                    }
                }
            }
            after = Some(page.next);
        }
    }
}

impl View for AuditTail {
    const ITEMS: Option<&'static str> = Some("records");

    fn tables(&self) -> Vec<Table> {
        let row = |record: &Recorded| {
            vec![
                record.time.clone(),
                record.principal.clone(),
                record.verb.clone(),
                list(&record.resources),
                or_dash(record.outcome.as_ref()),
                record.reason.clone(),
                format!("{}@{}", record.chain, record.seq),
            ]
        };
        let columns = ["TIME", "WHO", "VERB", "ON", "OUTCOME", "REASON", "+RECORD"];
        vec![Table::new(&columns).with_rows(self.records.iter().map(row))]
    }
}

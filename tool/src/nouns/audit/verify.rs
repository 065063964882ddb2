//! `audit verify`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_audit::{ChainReport, Checkpoint, ProblemKind, verify};

use super::open;
use crate::context::{Context, Query};
use crate::exit::{Exit, Failure};
use crate::output::{Table, View, or_dash};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Checkpoints that were kept elsewhere: they show what was cut off at the end
    #[arg(long = "checkpoint", value_name = "CHAIN@SEQ:HASH", value_delimiter = ',', value_parser = checkpoint)]
    checkpoints: Vec<Checkpoint>,
    /// Accept that retention has deleted the oldest records: verify each chain from its first record that remains
    #[arg(long)]
    trimmed: bool,
}

/// Parses a checkpoint as `audit verify` and the log print it.
fn checkpoint(text: &str) -> Result<Checkpoint, String> {
    text.parse().map_err(|error: tidings_core::Error| error.report())
}

/// The verification of a trail.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Verified {
    /// Whether no chain has a problem.
    intact: bool,
    /// The number of records.
    records: u64,
    /// The chains, one for each writer.
    chains: Vec<VerifiedChain>,
    /// Whether `--trimmed` is given.
    #[serde(skip)]
    accepts_trimmed: bool,
}

/// A chain.
#[derive(Debug, Serialize, JsonSchema)]
struct VerifiedChain {
    /// Its name.
    chain: String,
    /// The number of its first record that is there.
    first: u64,
    /// The number of its records.
    records: u64,
    /// The number from which on it is verified.
    verified_from: u64,
    /// Its end, to be kept elsewhere; absent if it has none.
    checkpoint: Option<String>,
    /// The first problem: `altered`, `deleted`, `inserted`, `reordered`, `spliced`, `truncated` and so on.
    problem: Option<String>,
    /// The number at which the problem is.
    at: Option<u64>,
    /// Whether records before the first are missing, and no checkpoint covers the rest; `--trimmed` accepts this.
    trimmed: bool,
}

impl Verify {
    fn chain(&self, chain: &ChainReport) -> VerifiedChain {
        // A checkpoint from elsewhere that is too old stays a problem: the rest may be a chain that was written anew.
        let is_kept = self.checkpoints.iter().any(|kept| kept.chain == chain.chain);
        let is_unanchored = chain.problem.is_some_and(|problem| problem.kind == ProblemKind::Unanchored);
        let trimmed = self.trimmed && is_unanchored && !is_kept;
        let problem = chain.problem.filter(|_| !trimmed);
        VerifiedChain {
            chain: chain.chain.as_str().to_owned(),
            first: chain.first,
            records: chain.records,
            verified_from: if trimmed { chain.first } else { chain.verified_from },
            checkpoint: chain.head.as_ref().map(Checkpoint::to_string),
            problem: problem.map(|problem| problem.kind.to_string()),
            at: problem.map(|problem| problem.seq),
            trimmed,
        }
    }
}

impl Query for Verify {
    type View = Verified;

    async fn run(&self, cx: &Context) -> Result<Verified, Failure> {
        let found = verify(open(cx).await?.as_ref(), &self.checkpoints).await?;
        let chains: Vec<VerifiedChain> = found.chains.iter().map(|chain| self.chain(chain)).collect();
        let intact = chains.iter().all(|chain| chain.problem.is_none());
        Ok(Verified { intact, records: found.records, chains, accepts_trimmed: self.trimmed })
    }
}

impl View for Verified {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        let row = |chain: &VerifiedChain| {
            let problem = chain.problem.as_ref().zip(chain.at).map(|(problem, at)| format!("{problem} at {at}"));
            vec![
                chain.chain.clone(),
                chain.first.to_string(),
                chain.records.to_string(),
                chain.verified_from.to_string(),
                or_dash(problem),
                or_dash(chain.checkpoint.as_ref()),
            ]
        };
        let columns = ["CHAIN", ">FIRST", ">RECORDS", ">VERIFIED FROM", "PROBLEM", "+CHECKPOINT"];
        vec![Table::new(&columns).with_rows(self.chains.iter().map(row))]
    }

    fn notes(&self) -> Vec<String> {
        let text = match (self.intact, self.records) {
            (true, 0) => "there is nothing to verify; check the name of the trail",
            (true, _) => "no problem found",
            (false, _) => "the trail was tampered with, or lost records",
        };
        let trimmed = self.chains.iter().filter(|chain| chain.trimmed).map(|chain| {
            format!("{} is verified from record {}, the first that remains (--trimmed).", chain.chain, chain.first)
        });
        let is_unanchored = |chain: &VerifiedChain| chain.problem.as_deref() == Some(ProblemKind::Unanchored.as_str());
        let hint = self.chains.iter().find(|chain| is_unanchored(chain)).map(|chain| match self.accepts_trimmed {
            // The given checkpoint is older than what remains.
            true => {
                let (chain, last) = (&chain.chain, chain.first.saturating_sub(1));
                format!("unanchored: {chain} needs a checkpoint of record {last} or later (--checkpoint).")
            }
            false => "unanchored: the beginning is missing; if retention has deleted it, pass --trimmed.".to_owned(),
        });
        trimmed.chain(hint).chain([format!("{} records: {text}.", self.records)]).collect()
    }

    fn exit(&self) -> Exit {
        if self.intact { Exit::Ok } else { Exit::CheckFailed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(records: u64, accepts_trimmed: bool) -> String {
        let chain = VerifiedChain {
            chain: "a".to_owned(),
            first: 7,
            records,
            verified_from: 7,
            checkpoint: None,
            problem: Some(ProblemKind::Unanchored.to_string()),
            at: Some(7),
            trimmed: false,
        };
        let chains = if records == 0 { Vec::new() } else { vec![chain] };
        Verified { intact: chains.is_empty(), records, chains, accepts_trimmed }.notes().join(" ")
    }

    #[test]
    fn the_hint_of_an_unanchored_chain_is_what_is_missing() {
        assert!(notes(3, false).contains("pass --trimmed"));
        let older = notes(3, true);
        assert!(older.contains("a checkpoint of record 6 or later") && !older.contains("pass --trimmed"), "{older}");
        assert!(notes(0, false).contains("nothing to verify"));
    }
}

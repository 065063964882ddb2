//! Verification of chains.
//!
//! Each record is hashed again and compared with its links. Records of several chains may be mixed; those of one chain
//! must come in order. A chain that begins above number 0 was trimmed by retention, and is verified from its oldest
//! checkpoint.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use tidings_core::audit::{AuditHash, AuditSink, StoredAudit};
use tidings_core::{Name, Result};

use crate::chain::{BATCH, Checkpoint, hash};
use crate::cloud_event::{checkpoint_in, is_checkpoint};

/// The number of last records per chain that are recognised if they come again: at least those of one append, which is
/// sent again as a whole.
const REMEMBERED: usize = 4 * BATCH;
/// The records read at once.
const PAGE: usize = 1_000;

/// The kind of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The record's hash is not that of its contents.
    Altered,
    /// Records are missing before a later one of the chain.
    Deleted,
    /// A number is used again by another record.
    Inserted,
    /// The record comes after a later one of its chain.
    Reordered,
    /// The record does not follow the one before it: it belongs to another chain or another history.
    Spliced,
    /// Records up to a checkpoint that was kept elsewhere are missing at the end.
    Truncated,
    /// The chain differs from a checkpoint that was kept elsewhere: it was written anew.
    Rewritten,
    /// The chain's beginning is missing, and no checkpoint is left from which the remaining records could be verified; or
    /// a checkpoint that was kept elsewhere is older than what is left: pass a later one.
    Unanchored,
}

impl ProblemKind {
    /// Returns the stable name: `"altered"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Deleted => "deleted",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Spliced => "spliced",
            Self::Truncated => "truncated",
            Self::Rewritten => "rewritten",
            Self::Unanchored => "unanchored",
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first problem of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// The number of the first record that is bad or missing.
    pub seq: u64,
}

/// The findings about one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainReport {
    /// The chain.
    pub chain: Name,
    /// The number of the first record that is left; above 0, earlier ones are past the retention, or deleted.
    pub first: u64,
    /// The last record, to be kept elsewhere; `None` if no record is left.
    pub head: Option<Checkpoint>,
    /// The number of records, repeats not counted.
    pub records: u64,
    /// The number of identical repeats, as a writer leaves after an answer that was lost.
    pub repeats: u64,
    /// The number of checkpoints among the records.
    pub checkpoints: u64,
    /// The number from which on the chain is attested: 0, or, if its beginning was trimmed, that of the oldest checkpoint,
    /// or of the first record if a checkpoint that was kept elsewhere states the one before it.
    pub verified_from: u64,
    /// The first problem; `None` if the chain is intact.
    pub problem: Option<Problem>,
}

/// The result of verifying a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The chains, by name.
    pub chains: Vec<ChainReport>,
    /// The number of records of all chains.
    pub records: u64,
}

impl Verification {
    /// Returns whether no chain has a problem.
    pub fn is_intact(&self) -> bool {
        self.problems().next().is_none()
    }

    /// Iterates over the chains that have a problem.
    pub fn problems(&self) -> impl Iterator<Item = (&ChainReport, Problem)> {
        self.chains.iter().filter_map(|chain| Some((chain, chain.problem?)))
    }
}

/// Verifies all chains of a sink, and that none ends before, or differs from, the checkpoints that were kept elsewhere.
/// Of each chain, pass its latest checkpoint that is within the retention: where only older ones are passed, what is left
/// of a trimmed chain is reported as [`Unanchored`](ProblemKind::Unanchored).
///
/// Without a checkpoint from elsewhere, records that were removed at the end of a chain, or a chain that was removed or
/// written anew as a whole, are not found: a writer of the sink can write another intact chain.
///
/// # Errors
/// Those of [`AuditSink::read`].
///
/// # Cancel safety
/// Safe: it only reads.
pub async fn verify(sink: &dyn AuditSink, checkpoints: &[Checkpoint]) -> Result<Verification> {
    let mut verifier = Verifier::new(checkpoints);
    let mut after = None;
    loop {
        let page = sink.read(after.as_ref(), PAGE).await?;
        if page.records.is_empty() {
            return Ok(verifier.finish());
        }
        page.records.iter().for_each(|record| verifier.add(record));
        after = Some(page.next);
    }
}

/// Verifies records as they are read, for logs that are not read from a sink. Memory is bounded by the number of chains.
///
/// ```
/// use tidings_audit::Verifier;
/// use tidings_core::audit::StoredAudit;
///
/// fn first_bad(log: &[StoredAudit]) -> Option<u64> {
///     let mut verifier = Verifier::new(&[]);
///     log.iter().for_each(|record| verifier.add(record));
///     verifier.finish().problems().next().map(|(_, problem)| problem.seq)
/// }
/// # assert_eq!(first_bad(&[]), None);
/// ```
#[derive(Debug, Default)]
pub struct Verifier {
    chains: HashMap<Name, Progress>,
    kept: HashMap<Name, BTreeMap<u64, AuditHash>>,
}

/// A chain, as far as it was read.
#[derive(Debug)]
struct Progress {
    report: ChainReport,
    next: u64,
    prev: AuditHash,
    /// Numbers that were skipped first: if such a record comes later, it was reordered.
    gap: Option<(u64, u64)>,
    recent: VecDeque<(u64, AuditHash)>,
    anchored: bool,
}

impl Verifier {
    /// Creates a verifier with checkpoints that were kept elsewhere.
    pub fn new(checkpoints: &[Checkpoint]) -> Self {
        let mut kept: HashMap<Name, BTreeMap<u64, AuditHash>> = HashMap::new();
        for Checkpoint { chain, seq, hash } in checkpoints {
            kept.entry(chain.clone()).or_default().insert(*seq, *hash);
        }
        Self { chains: HashMap::new(), kept }
    }

    /// Adds the next record.
    pub fn add(&mut self, record: &StoredAudit) {
        let kept = self.kept.get(&record.chain);
        let chain = match self.chains.get_mut(&record.chain) {
            Some(chain) => chain,
            None => self.chains.entry(record.chain.clone()).or_insert_with(|| Progress::new(record, kept)),
        };
        let known = kept.and_then(|kept| kept.get(&record.seq));
        if known.is_some_and(|kept| *kept != record.hash) {
            chain.fail(ProblemKind::Rewritten, record.seq);
        }
        chain.anchored |= known.is_some();
        chain.add(record);
    }

    /// Returns the result.
    pub fn finish(self) -> Verification {
        let Self { mut chains, kept } = self;
        for (chain, checkpoints) in kept {
            let Some((&last, _)) = checkpoints.last_key_value() else { continue };
            let found = chains.entry(chain.clone()).or_insert_with(|| Progress::empty(chain));
            if last >= found.next {
                found.fail(ProblemKind::Truncated, found.next);
            } else if last.saturating_add(1) < found.report.first {
                // It attests nothing of what is left: that may be another history, with checkpoints of its own.
                found.fail(ProblemKind::Unanchored, found.report.first);
            }
        }
        let mut chains: Vec<_> = chains.into_values().map(Progress::finish).collect();
        chains.sort_by(|a, b| a.chain.cmp(&b.chain));
        let records = chains.iter().map(|chain| chain.records).sum();
        Verification { chains, records }
    }
}

impl Progress {
    fn empty(chain: Name) -> Self {
        let report = ChainReport {
            chain,
            first: 0,
            head: None,
            records: 0,
            repeats: 0,
            checkpoints: 0,
            verified_from: 0,
            problem: None,
        };
        Self { report, next: 0, prev: AuditHash::ZERO, gap: None, recent: VecDeque::new(), anchored: true }
    }

    /// A chain that begins with `record`: its beginning was trimmed, unless it is number 0. A checkpoint that was kept
    /// of the record before it attests what is left.
    fn new(record: &StoredAudit, kept: Option<&BTreeMap<u64, AuditHash>>) -> Self {
        let mut progress = Self::empty(record.chain.clone());
        let Some(before) = record.seq.checked_sub(1) else { return progress };
        progress.report.first = record.seq;
        (progress.next, progress.prev, progress.anchored) = (record.seq, record.prev, false);
        if let Some(hash) = kept.and_then(|kept| kept.get(&before)) {
            progress.anchored = true;
            progress.report.verified_from = record.seq;
            if *hash != record.prev {
                progress.fail(ProblemKind::Rewritten, record.seq);
            }
        }
        progress
    }

    fn fail(&mut self, kind: ProblemKind, seq: u64) {
        self.report.problem.get_or_insert(Problem { kind, seq });
    }

    fn add(&mut self, record: &StoredAudit) {
        if hash(&record.chain, record.seq, &record.prev, &record.bytes) != record.hash {
            // Named by the place where the chain continues: a number that was changed names no record.
            self.fail(ProblemKind::Altered, self.next);
        }
        if record.seq < self.next {
            return self.add_late(record);
        }
        if record.seq > self.next {
            self.gap.get_or_insert((self.next, record.seq));
            self.fail(ProblemKind::Deleted, self.next);
        } else if record.prev != self.prev {
            self.fail(ProblemKind::Spliced, record.seq);
        }
        if is_checkpoint(record) {
            self.add_checkpoint(record);
        }
        self.report.records += 1;
        (self.next, self.prev) = (record.seq.saturating_add(1), record.hash);
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((record.seq, record.hash));
    }

    /// Adds a record whose number was passed already.
    fn add_late(&mut self, record: &StoredAudit) {
        if self.recent.iter().any(|(seq, hash)| *seq == record.seq && *hash == record.hash) {
            self.report.repeats += 1;
            return;
        }
        self.report.records += 1;
        if record.seq < self.report.first {
            return self.fail(ProblemKind::Reordered, record.seq);
        }
        match (self.gap, &mut self.report.problem) {
            (Some((from, until)), Some(problem)) if (from..until).contains(&record.seq) => {
                if problem.kind == ProblemKind::Deleted && problem.seq == from {
                    problem.kind = ProblemKind::Reordered;
                }
            }
            _ => self.fail(ProblemKind::Inserted, record.seq),
        }
    }

    /// A checkpoint states the record before it.
    fn add_checkpoint(&mut self, record: &StoredAudit) {
        let stated = checkpoint_in(record);
        let before = record.seq.checked_sub(1).map(|seq| Checkpoint::new(record.chain.clone(), seq, record.prev));
        if stated.is_none() || stated != before {
            self.fail(ProblemKind::Altered, record.seq);
        }
        self.report.checkpoints += 1;
        if !self.anchored {
            self.anchored = true;
            self.report.verified_from = record.seq;
        }
    }

    fn finish(mut self) -> ChainReport {
        if !self.anchored {
            self.fail(ProblemKind::Unanchored, self.report.first);
        }
        if let Some(seq) = self.next.checked_sub(1).filter(|_| self.report.records > 0) {
            self.report.head = Some(Checkpoint::new(self.report.chain.clone(), seq, self.prev));
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;
    use crate::cloud_event::{checkpoint_record, encode};

    /// A chain of `count` records, with a checkpoint after each ten.
    fn log(name: &'static str, count: usize) -> Vec<StoredAudit> {
        let mut chain = Chain::new(name);
        let mut log = Vec::new();
        while log.len() < count {
            let bytes = match chain.head().filter(|_| log.len() % 11 == 10) {
                Some(head) => encode("test", &checkpoint_record("test", &head)).unwrap(),
                None => format!(r#"{{"record":{}}}"#, log.len()).into(),
            };
            log.push(chain.link(bytes));
        }
        log
    }

    fn check(log: &[StoredAudit], kept: &[Checkpoint]) -> Verification {
        let mut verifier = Verifier::new(kept);
        log.iter().for_each(|record| verifier.add(record));
        verifier.finish()
    }

    fn first(log: &[StoredAudit], kept: &[Checkpoint]) -> Option<(ProblemKind, u64)> {
        let verified = check(log, kept);
        verified.problems().next().map(|(_, problem)| (problem.kind, problem.seq))
    }

    fn kept(record: &StoredAudit) -> Checkpoint {
        Checkpoint::new(record.chain.clone(), record.seq, record.hash)
    }

    /// Links records anew, as one does who knows the hash.
    fn linked_anew(log: &mut [StoredAudit]) {
        let mut chain = Chain::new(log[0].chain.clone());
        for record in log {
            *record = chain.link(record.bytes.clone());
        }
    }

    #[test]
    fn an_intact_log_has_no_problem() {
        let log = log("a", 50);
        let verified = check(&log, &[kept(&log[0]), kept(&log[49])]);
        assert!(verified.is_intact(), "{verified:?}");
        let chain = &verified.chains[0];
        assert_eq!((chain.records, chain.first, chain.checkpoints, chain.verified_from), (50, 0, 4, 0));
        assert_eq!(chain.head, Some(kept(&log[49])));
    }

    #[test]
    fn each_flipped_bit_of_a_record_is_found() {
        let log = log("a", 30);
        for at in [0, 7, 29] {
            for bit in 0..log[at].bytes.len() * 8 {
                let mut flipped = log.clone();
                let mut bytes = flipped[at].bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                flipped[at].bytes = bytes.into();
                assert_eq!(first(&flipped, &[]), Some((ProblemKind::Altered, at as u64)));
            }
            for bit in 0..256 {
                let flip = |hash: AuditHash| {
                    let mut bytes = *hash.as_bytes();
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    AuditHash::new(bytes)
                };
                let (mut of_hash, mut of_prev) = (log.clone(), log.clone());
                of_hash[at].hash = flip(log[at].hash);
                of_prev[at].prev = flip(log[at].prev);
                assert_eq!(first(&of_hash, &[]), Some((ProblemKind::Altered, at as u64)));
                assert_eq!(first(&of_prev, &[]), Some((ProblemKind::Altered, at as u64)));
            }
            for bit in 0..64 {
                let mut of_seq = log.clone();
                of_seq[at].seq ^= 1 << bit;
                let (kind, seq) = first(&of_seq, &[]).unwrap();
                // The number of a chain's first record is where the chain seems to begin.
                let expected = if at == 0 { 1 << bit } else { at as u64 };
                assert_eq!((kind, seq), (ProblemKind::Altered, expected), "bit {bit} of {at}");
            }
        }
    }

    #[test]
    fn a_deletion_is_found() {
        let whole = log("a", 30);
        for at in 1..29 {
            let mut log = whole.clone();
            log.remove(at);
            assert_eq!(first(&log, &[]), Some((ProblemKind::Deleted, at as u64)));
        }
        // Also if the records behind it are numbered anew.
        let mut log = whole.clone();
        log.remove(5);
        log[5..].iter_mut().for_each(|record| record.seq -= 1);
        assert_eq!(first(&log, &[]), Some((ProblemKind::Altered, 5)));
    }

    #[test]
    fn an_insertion_is_found() {
        let whole = log("a", 30);
        for at in 1..30 {
            let mut log = whole.clone();
            let (seq, prev) = (at as u64, log[at - 1].hash);
            let forged = StoredAudit::new("a", seq, prev, hash("a", seq, &prev, b"{}"), &b"{}"[..]);
            log.insert(at, forged);
            let (kind, seq) = first(&log, &[]).unwrap();
            assert_eq!((kind, seq), (ProblemKind::Inserted, at as u64));
        }
    }

    #[test]
    fn a_reordering_is_found() {
        for at in 0..29 {
            let mut log = log("a", 30);
            log.swap(at, at + 1);
            assert_eq!(first(&log, &[]), Some((ProblemKind::Reordered, at as u64)));
        }
    }

    #[test]
    fn spliced_chains_are_found() {
        let (a, b) = (log("a", 30), log("b", 30));
        // As it is, the rest of the other chain is a chain without its beginning.
        let joined: Vec<_> = a[..12].iter().chain(&b[12..]).cloned().collect();
        let verified = check(&joined, &[kept(&a[29])]);
        let problems: Vec<_> = verified.problems().map(|(chain, p)| (chain.chain.as_str(), p.kind, p.seq)).collect();
        assert_eq!(problems, [("a", ProblemKind::Truncated, 12)]);
        // Under the first one's name.
        let mut renamed = joined.clone();
        renamed[12..].iter_mut().for_each(|record| record.chain = "a".into());
        assert_eq!(first(&renamed, &[]), Some((ProblemKind::Altered, 12)));
        // With hashes of that name.
        for record in &mut renamed[12..] {
            record.hash = hash("a", record.seq, &record.prev, &record.bytes);
        }
        assert_eq!(first(&renamed, &[]), Some((ProblemKind::Spliced, 12)));
        // Two histories of one chain.
        let mut other = a.clone();
        other[3].bytes = "{}".into();
        linked_anew(&mut other);
        let joined: Vec<_> = a[..12].iter().chain(&other[12..]).cloned().collect();
        assert_eq!(first(&joined, &[]), Some((ProblemKind::Spliced, 12)));
    }

    #[test]
    fn a_truncation_is_found_by_a_checkpoint_that_was_kept() {
        let log = log("a", 30);
        for end in 0..30 {
            assert_eq!(first(&log[..end], &[]), None, "nothing shows it without a checkpoint");
            assert_eq!(first(&log[..end], &[kept(&log[29])]), Some((ProblemKind::Truncated, end as u64)));
        }
    }

    #[test]
    fn a_chain_written_anew_is_found_by_a_checkpoint_that_was_kept() {
        let log = log("a", 30);
        let mut forged: Vec<_> = log.iter().filter(|record| !is_checkpoint(record)).cloned().collect();
        forged[3].bytes = "{}".into();
        linked_anew(&mut forged);
        assert_eq!(first(&forged, &[]), None, "nothing shows it without a checkpoint");
        assert_eq!(first(&forged, &[kept(&log[25])]), Some((ProblemKind::Rewritten, 25)));
    }

    #[test]
    fn a_trimmed_log_is_verified_from_its_oldest_checkpoint() {
        let log = log("a", 50);
        let verified = check(&log[13..], &[kept(&log[49])]);
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!((verified.chains[0].first, verified.chains[0].verified_from), (13, 21));
        // A change in what is left is found, before the checkpoint as well.
        for at in 13..50 {
            let mut log = log[13..].to_vec();
            log[at - 13].bytes = "{}".into();
            assert_eq!(first(&log, &[]), Some((ProblemKind::Altered, at as u64)));
        }
        assert_eq!(first(&log[11..20], &[]), Some((ProblemKind::Unanchored, 11)));
        assert_eq!(first(&log[11..20], &[kept(&log[15])]), None, "the checkpoint that was kept anchors it");
    }

    #[test]
    fn an_end_written_anew_behind_a_checkpoint_that_was_kept_is_found() {
        let log = log("a", 60);
        let mut prev = AuditHash::new([7; 32]);
        let forged: Vec<_> = (30..60)
            .map(|seq| {
                let stated = checkpoint_record("test", &Checkpoint::new("a", seq - 1, prev));
                let bytes = if seq == 35 { encode("test", &stated).unwrap() } else { "{}".into() };
                let record = StoredAudit::new("a", seq, prev, hash("a", seq, &prev, &bytes), bytes);
                prev = record.hash;
                record
            })
            .collect();
        assert_eq!(first(&forged, &[]), None, "nothing shows it without a checkpoint");
        assert_eq!(first(&forged, &[kept(&log[25])]), Some((ProblemKind::Unanchored, 30)));
        assert_eq!(first(&forged, &[kept(&log[29])]), Some((ProblemKind::Rewritten, 30)));
        assert_eq!(first(&forged, &[kept(&log[25]), kept(&log[45])]), Some((ProblemKind::Rewritten, 45)));
        // As retention leaves it, what is left follows the checkpoint.
        let verified = check(&log[22..30], &[kept(&log[21])]);
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!(verified.chains[0].verified_from, 22);
    }

    #[test]
    fn a_record_that_was_sent_again_is_a_repeat() {
        let mut log = log("a", 5);
        log.insert(3, log[2].clone());
        log.push(log[1].clone());
        let verified = check(&log, &[]);
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!((verified.records, verified.chains[0].repeats), (5, 2));
    }

    #[test]
    fn a_batch_that_was_sent_again_is_repeats() {
        let log = log("a", 256);
        let verified = check(&[&log[..], &log[..]].concat(), &[]);
        assert!(verified.is_intact(), "{verified:?}");
        assert_eq!((verified.records, verified.chains[0].repeats), (256, 256));
    }

    #[test]
    fn chains_are_verified_each_on_its_own() {
        let (a, b) = (log("a", 20), log("b", 20));
        let mixed: Vec<_> = a.iter().zip(&b).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        assert!(check(&mixed, &[]).is_intact());
    }

    #[test]
    fn a_checkpoint_that_states_another_end_is_found() {
        let mut chain = Chain::new("a");
        let first_record = chain.link("{}".into());
        let wrong = Checkpoint::new("a", 0, AuditHash::ZERO);
        let second = chain.link(encode("test", &checkpoint_record("test", &wrong)).unwrap());
        assert_eq!(first(&[first_record, second], &[]), Some((ProblemKind::Altered, 1)));
    }
}

//! An audit sink with a bug, and the cases that must catch it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidings_audit::MemoryAudit;
use tidings_conformance::{Setup, audit};
use tidings_core::audit::{AuditHash, AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Error, ErrorKind, Guarantees, Result, async_trait};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    LosesEveryTenthRecord,
    StoresBehindARefusal,
    SwallowsAFailure,
    GivesNoAnswerForAFailure,
    ForgetsTheHash,
    ForgetsThePrev,
    WritesJsonAnew,
    CutsTheBytes,
    ReplacesARecord,
    FoldsTheChain,
    RefusesARepeat,
    RefusesACallWithARepeat,
    RepeatsTheFirstOfAPage,
    SkipsOneBetweenPages,
    ListsBackwards,
    IgnoresAForeignPosition,
    IgnoresTheLimit,
    LosesWhatIsBehindAThousand,
    LosesWhatIsBehindFourMebibytes,
    ForgetsAtRestart,
    ForgetsPositionsAtRestart,
}

#[derive(Debug)]
struct Planted {
    inner: MemoryAudit,
    bug: Bug,
    /// Records that replace others.
    replaced: Mutex<Vec<StoredAudit>>,
    /// Whether the next position is not known.
    forgetful: AtomicBool,
}

impl Planted {
    fn new(inner: MemoryAudit, bug: Bug) -> Self {
        Self { inner, bug, replaced: Mutex::default(), forgetful: AtomicBool::new(false) }
    }

    fn knows(&self, record: &StoredAudit) -> bool {
        self.inner.records().contains(record)
    }

    fn mangled(&self, mut record: StoredAudit) -> StoredAudit {
        match self.bug {
            Bug::ForgetsTheHash => record.hash = AuditHash::ZERO,
            Bug::ForgetsThePrev => record.prev = AuditHash::ZERO,
            Bug::WritesJsonAnew => {
                record.bytes = String::from_utf8_lossy(&record.bytes).replace(": ", ":").into_bytes().into();
            }
            Bug::CutsTheBytes => record.bytes.truncate(64 << 10),
            Bug::FoldsTheChain => record.chain = record.chain.to_lowercase().into(),
            _ => {}
        }
        record
    }
}

#[async_trait]
impl AuditSink for Planted {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let count = records.len();
        let conflict = || Err(Error::new(ErrorKind::Conflict, "append: it is there already"));
        let has_repeat = records.iter().any(|record| self.knows(record));
        if self.bug == Bug::RefusesACallWithARepeat && has_repeat && count > 1 {
            return records.iter().map(|_| conflict()).collect();
        }
        let (mut answers, mut refused) = (Vec::new(), BTreeSet::new());
        for record in records {
            let record = self.mangled(record);
            if self.bug != Bug::StoresBehindARefusal && refused.contains(&record.chain) {
                answers.push(Err(Error::new(ErrorKind::Unavailable, "append: an earlier record is not stored")));
                continue;
            }
            if self.bug == Bug::RefusesARepeat && self.knows(&record) && count == 1 {
                answers.push(conflict());
                continue;
            }
            if self.bug == Bug::LosesEveryTenthRecord && record.seq % 10 == 9 {
                answers.push(Ok(()));
                continue;
            }
            let chain = record.chain.clone();
            let mut answer = self.inner.append(vec![record.clone()]).await.remove(0);
            if self.bug == Bug::ReplacesARecord && answer.is_err() {
                self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(record);
                answer = Ok(());
            }
            if answer.is_err() {
                refused.insert(chain);
            }
            answers.push(if self.bug == Bug::SwallowsAFailure { Ok(()) } else { answer });
        }
        if self.bug == Bug::GivesNoAnswerForAFailure {
            answers.retain(Result::is_ok);
        }
        answers
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        let foreign = after.is_some_and(|after| after.as_str().parse::<usize>().is_err());
        let after = match (self.bug, after) {
            (Bug::IgnoresAForeignPosition, Some(_)) if foreign => None,
            (_, Some(_)) if self.forgetful.swap(false, Ordering::Relaxed) => None,
            (_, Some(position)) if !foreign => {
                let at = position.as_str().parse::<usize>().unwrap_or_default();
                let at = match self.bug {
                    Bug::RepeatsTheFirstOfAPage if at < self.inner.records().len() => at.saturating_sub(1),
                    Bug::SkipsOneBetweenPages => at + 1,
                    _ => at,
                };
                Some(AuditPosition::new(at.to_string()))
            }
            (_, after) => after.cloned(),
        };
        let limit = if self.bug == Bug::IgnoresTheLimit { usize::MAX } else { limit };
        let mut page = self.inner.read(after.as_ref(), limit).await?;
        for replaced in self.replaced.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let is_it = |record: &&mut StoredAudit| record.chain == replaced.chain && record.seq == replaced.seq;
            if let Some(record) = page.records.iter_mut().find(is_it) {
                *record = replaced.clone();
            }
        }
        let most = match self.bug {
            Bug::LosesWhatIsBehindAThousand => 1_000,
            Bug::LosesWhatIsBehindFourMebibytes => {
                let ends = page.records.iter().scan(0, |bytes, record| {
                    *bytes += record.bytes.len();
                    Some(*bytes)
                });
                ends.take_while(|bytes| *bytes <= 4 << 20).count()
            }
            _ => usize::MAX,
        };
        page.records.truncate(most);
        if self.bug == Bug::ListsBackwards {
            page.records.reverse();
        }
        Ok(page)
    }

    fn guarantees(&self) -> Guarantees {
        // The reopen hook of these tests keeps the records, as a disk would.
        Guarantees::all()
    }
}

fn setup(bug: Bug) -> Setup<Planted> {
    Setup::new("planted", move || async move { Ok(Planted::new(MemoryAudit::new(), bug)) })
        .with_paused_clock()
        .with_outage(|sink: Arc<Planted>, down| async move {
            sink.inner.fail_with(down.then_some(ErrorKind::Unavailable));
            Ok(())
        })
        .with_reopen(|sink| async move {
            let sink = Arc::into_inner(sink).ok_or_else(|| Error::new(ErrorKind::Conflict, "it is still open"))?;
            let forgets = sink.bug == Bug::ForgetsAtRestart;
            let inner = if forgets { MemoryAudit::new() } else { sink.inner };
            let forgetful = AtomicBool::new(sink.bug == Bug::ForgetsPositionsAtRestart);
            Ok(Planted { forgetful, ..Planted::new(inner, sink.bug) })
        })
}

plants! { audit:
    records_lost: LosesEveryTenthRecord => t1_hundreds_of_records_in_one_call,
    records_stored_behind_a_refusal: StoresBehindARefusal => t1_nothing_is_stored_behind_a_refused_record_of_its_chain,
    a_failure_swallowed: SwallowsAFailure => t1_an_outage_is_told_and_forgets_nothing,
    a_failure_without_an_answer: GivesNoAnswerForAFailure => t1_an_outage_is_told_and_forgets_nothing,
    a_hash_forgotten: ForgetsTheHash => t2_records_are_kept_byte_for_byte,
    a_link_forgotten: ForgetsThePrev => t2_records_are_kept_byte_for_byte,
    json_written_anew: WritesJsonAnew => t2_records_are_kept_byte_for_byte,
    bytes_cut: CutsTheBytes => t2_a_record_of_256_kibibytes_is_kept,
    a_record_replaced: ReplacesARecord => t2_a_record_is_never_replaced,
    chains_folded: FoldsTheChain => t2_chains_differ_by_their_whole_name,
    a_repeat_refused: RefusesARepeat => t3_a_record_that_is_appended_again_is_taken,
    a_call_with_a_repeat_refused: RefusesACallWithARepeat => t3_records_that_are_appended_again_with_new_ones_are_taken,
    a_record_read_twice: RepeatsTheFirstOfAPage => t4_pages_yield_each_record_once,
    a_record_skipped_between_pages: SkipsOneBetweenPages => t4_pages_yield_each_record_once,
    records_listed_backwards: ListsBackwards => t4_each_chain_is_in_order,
    a_foreign_position_ignored: IgnoresAForeignPosition => t4_a_position_of_another_sink_is_refused,
    a_limit_ignored: IgnoresTheLimit => t4_pages_yield_each_record_once,
    a_large_page_cut: LosesWhatIsBehindAThousand => t4_more_than_a_thousand_records_are_read_by_pages_of_any_size,
    a_page_of_many_bytes_cut: LosesWhatIsBehindFourMebibytes => t4_pages_of_many_bytes_are_whole,
    all_forgotten_at_a_restart: ForgetsAtRestart => restart_records_survive,
    positions_forgotten_at_a_restart: ForgetsPositionsAtRestart => restart_positions_survive,
}

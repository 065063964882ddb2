//! Dead letters: lists, decisions, and redrives.

use tidings_audit::{MAX_RESOURCES, letter_resources};
use tidings_core::audit::{AuditOutcome, AuditRecord};
use tidings_core::{DeadLetter, DeadLetterStore, Error, ErrorKind, LetterId, LetterQuery, Name, Resolution, Result};
use tidings_ops_api::wire::{
    Answers, Buried, Checked, Count, Discard, Discarded, Grants, Kept, Leasing, Letter, Letters, LettersIn, Nothing,
    Query, Redrive, Redriven, Refusal, Refused, Resolve, Stores,
};
use tidings_ops_api::{ErrorBody, MAX_NAMES, MAX_RECORD_BYTES, Role, Route};
use tidings_service::{DeadLetters, RedriveOptions, RedriveReport};

use super::Api;
use super::audit::intent;
use super::call::{Call, bounded, encode};

/// The seconds for which one request redrives letters at a rate.
const REDRIVE_SECONDS: usize = 30;
/// The letters that are read from a store at once: their records are in memory together, for each request.
const PAGE: usize = 16;

impl Api {
    pub(super) fn letter_stores(&self) -> Result<String> {
        let kept = |(name, letters): (&String, &DeadLetters)| (name.clone(), Kept::from(&letters.store().guarantees()));
        encode(&Stores::of(self.backends.letters.iter().map(kept)))
    }

    /// Lists letters until the wanted number or the size of an answer is reached.
    pub(super) async fn list_letters(&self, call: &Call, whole: bool) -> Result<String> {
        let LettersIn { store, query } = call.body()?;
        let letters = self.backends.letters(&call.caller, &store)?;
        let store = letters.store();
        let mut query = selected(call, query)?;
        let wanted = query.limit.unwrap_or(LetterQuery::DEFAULT_PAGE);
        let (mut found, mut bytes) = (Letters::default(), 0);
        while found.letters.len() < wanted {
            query.limit = Some(PAGE.min(wanted - found.letters.len()));
            let page = store.list(&query).await?;
            let is_last = page.len() < query.limit.unwrap_or_default();
            for letter in page {
                bytes += letter.record.size();
                found.more = !found.letters.is_empty() && bytes > MAX_RECORD_BYTES || found.letters.len() >= MAX_NAMES;
                if found.more {
                    break;
                }
                query.after = Some(letter.id());
                found.letters.push(Letter::of(&letter, whole));
            }
            if is_last || found.more {
                break;
            }
        }
        if wanted == 0 {
            // For the errors of a query that the store cannot answer.
            store.list(&query).await?;
        }
        if whole {
            self.record_read(call, &found).await?;
        }
        found.unreadable = store.unreadable().iter().map(ErrorBody::from).collect();
        found.unreadable_records = store.unreadable_records();
        encode(&found)
    }

    /// Records the ids of whole letters of the policy's topics before they are returned.
    async fn record_read(&self, call: &Call, found: &Letters) -> Result<()> {
        let Some(auditor) = &self.backends.auditor else { return Ok(()) };
        let policy = &auditor.options().events;
        let ids = found.letters.iter().map(|letter| &letter.id).filter(|id| policy.records_read(&id.topic));
        let ids: Vec<LetterId> = ids.map(|id| LetterId::from(id.clone())).collect();
        let done = |resources: &[String]| {
            let mut done = intent(Route::LettersRead, &call.caller);
            done.resources = resources.to_vec();
            done
        };
        let mut done: Vec<AuditRecord> = letter_resources(&ids).chunks(MAX_RESOURCES).map(done).collect();
        let Some(first) = done.first_mut() else { return Ok(()) };
        first.counts.insert("letters".to_owned(), ids.len() as u64);
        auditor.record_all(&done, &AuditOutcome::Ok).await
    }

    pub(super) async fn count_letters(&self, call: &Call) -> Result<String> {
        let LettersIn { store, query } = call.body()?;
        let query = selected(call, query)?;
        let letters = self.backends.letters(&call.caller, &store)?;
        let count = letters.store().count(&query).await?;
        encode(&Count::new(count, &**letters.store()))
    }

    pub(super) async fn check_letters(&self, call: &Call) -> Result<String> {
        let Checked { store, topics } = call.body()?;
        bounded(topics.len(), "topics")?;
        let topics: Vec<Name> = topics.into_iter().map(Name::from).collect();
        self.backends.letters(&call.caller, &store)?.store().check(&topics).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn bury_letters(&self, call: &Call) -> Result<String> {
        let Buried { store, letters } = call.body()?;
        bounded(letters.len(), "letters")?;
        let letters = letters.into_iter().map(DeadLetter::try_from).collect::<Result<Vec<_>>>()?;
        let resources = letters
            .iter()
            .map(|letter| format!("letter:{}/{}@{}", letter.service, letter.origin, letter.record.offset));
        let mut intent = intent(Route::LettersBury, &call.caller);
        intent.resources = resources.collect();
        let store = self.backends.letters(&call.caller, &store)?;
        let buried = self.recorded_each(intent, store.store().bury(letters)).await?;
        encode(&Answers::of(buried, |()| Nothing::default()))
    }

    pub(super) async fn resolve_letters(&self, call: &Call, route: Route) -> Result<String> {
        let Resolve { store, ids, lease, resolution } = call.body()?;
        let letters = self.backends.letters(&call.caller, &store)?;
        let store = letters.store();
        let ids = letter_ids(ids)?;
        let mut resolution = Resolution::try_from(resolution)?;
        resolution.by = call.caller.decides(&resolution.by);
        let answers = match (route, lease) {
            (Route::LettersResolve, None) => store.resolve(&ids, &resolution).await?,
            (Route::LettersResolveLeased, Some(lease)) => {
                store.resolve_leased(&ids, &lease.try_into()?, &resolution).await?
            }
            _ => return Err(super::call::wrong_lease()),
        };
        encode(&Answers::of(answers.into_iter().map(Ok).collect(), |resolved: bool| resolved))
    }

    pub(super) async fn lease_letters(&self, call: &Call) -> Result<String> {
        let Leasing { store, ids, lease } = call.body()?;
        let answers =
            self.backends.letters(&call.caller, &store)?.store().lease(&letter_ids(ids)?, &lease.try_into()?).await?;
        encode(&Grants::of(&answers))
    }

    pub(super) async fn end_lease(&self, call: &Call) -> Result<String> {
        let Leasing { store, ids, lease } = call.body()?;
        self.backends.letters(&call.caller, &store)?.store().end_lease(&letter_ids(ids)?, &lease.try_into()?).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn note_refused(&self, call: &Call) -> Result<String> {
        let Refused { store, letters, by } = call.body()?;
        bounded(letters.len(), "letters")?;
        let refused: Vec<_> = letters.into_iter().map(|refusal| (refusal.id.into(), refusal.error)).collect();
        let by = call.caller.decides(&by);
        self.backends.letters(&call.caller, &store)?.store().note_refused(&refused, &by).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn redrive_letters(&self, call: &Call) -> Result<String> {
        let Redrive { store, query, reason, limit, per_second, max_redrives, dry_run } = call.body()?;
        let letters = self.backends.letters(&call.caller, &store)?.with_operator(call.caller.decides(""));
        let mut options = RedriveOptions::default().with_reason(reason).with_dry_run(dry_run);
        // A request ends in time: its answer says that there are more.
        let in_time = per_second.map_or(MAX_NAMES, |rate| (rate as usize).saturating_mul(REDRIVE_SECONDS));
        options.limit = limit.unwrap_or(MAX_NAMES).min(MAX_NAMES).min(in_time);
        (options.per_second, options.max_redrives) = (per_second, max_redrives);
        encode(&report(letters.redrive(&query.try_into()?, &options).await?))
    }

    pub(super) async fn discard_letters(&self, call: &Call) -> Result<String> {
        let Discard { store, query, reason, limit } = call.body()?;
        let letters = self.backends.letters(&call.caller, &store)?.with_operator(call.caller.decides(""));
        let limit = limit.unwrap_or(MAX_NAMES).min(MAX_NAMES);
        let (count, more) = letters.discard_up_to(&query.try_into()?, &reason, limit).await?;
        encode(&Discarded::new(count, more))
    }
}

/// Returns a query that the caller may ask: counts of letters with a guessed error or key would reveal it.
fn selected(call: &Call, query: Query) -> Result<LetterQuery> {
    let hidden = query.error.is_some() || query.key.is_some();
    if hidden && !call.caller.role.includes(Role::Operator) {
        let text = format!(
            "select letters by error or key: the role {} does not suffice, operator is needed",
            call.caller.role
        );
        return Err(Error::new(ErrorKind::Denied, text));
    }
    query.try_into()
}

fn letter_ids(ids: Vec<tidings_ops_api::wire::Id>) -> Result<Vec<LetterId>> {
    bounded(ids.len(), "letters")?;
    Ok(ids.into_iter().map(LetterId::from).collect())
}

fn report(report: RedriveReport) -> Redriven {
    let refusal = |(id, error): &(LetterId, Error)| Refusal { id: id.into(), error: error.report() };
    Redriven {
        redriven: report.redriven,
        skipped: report.skipped,
        behind: report.behind,
        refused: report.refused.iter().map(refusal).collect(),
        more: report.more,
        repeated: report.repeated,
        unreadable: report.unreadable.iter().map(ErrorBody::from).collect(),
        known_services: report.known_services.iter().map(Name::to_string).collect(),
    }
}

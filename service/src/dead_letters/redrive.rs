//! One run of redriving selected letters, batch by batch.

use std::time::Duration;

use tidings_core::{DeadLetter, Error, LetterId, LetterQuery, Redrive, RedriveOutcome, Result};
use tokio::time::{Instant, sleep};

use super::{DeadLetters, RedriveOptions, RedriveReport, unpaged};
use crate::logs;

pub(super) async fn run(letters: &DeadLetters, query: &LetterQuery, options: &RedriveOptions) -> Result<RedriveReport> {
    let mut report = RedriveReport::default();
    let worked = work(letters, query, options, &mut report).await;
    let (redriven, skipped, refused) = (report.redriven, report.skipped, report.refused.len());
    match worked {
        Ok(()) if options.dry_run => Ok(report),
        Ok(()) => {
            logs::Redriven { redriven: &redriven, skipped: &skipped, refused: &refused }.log();
            Ok(report)
        }
        Err(error) => {
            let done = format!(
                "redrive letters: {redriven} are redriven, {skipped} skipped, {refused} refused; the others stay"
            );
            let (redriven, skipped, refused) = (&redriven, &skipped, &refused);
            logs::RedriveStopped { redriven, skipped, refused, error: &error.report() }.log();
            Err(error.in_context(done))
        }
    }
}

async fn work(
    letters: &DeadLetters,
    query: &LetterQuery,
    options: &RedriveOptions,
    report: &mut RedriveReport,
) -> Result<()> {
    let repeats = options.max_redrives.unwrap_or(u32::MAX);
    let select = letters.select(query, options.limit, |letter| {
        let again = letter.redrives() < repeats;
        report.repeated += u64::from(!again);
        again.then(|| letter.id())
    });
    let (mut selected, more) = select.await?;
    (report.more, report.unreadable) = (more, letters.warn_unreadable());
    if selected.is_empty() && report.repeated == 0 {
        report.known_services = letters.known_services(query).await?;
    }
    if options.dry_run {
        report.redriven = selected.len() as u64;
        return Ok(());
    }
    // By partition and offset, which is the order of each key.
    selected.sort();
    let run = Redrive::new(&*letters.store, &*letters.publisher, &*letters.operator);
    let mut run = run.with_reason(&*options.reason).with_ttl(options.lease);
    let most = options.per_second.map_or(usize::MAX, |rate| rate as usize);
    for ids in selected.chunks(options.batch.min(most)) {
        let started = Instant::now();
        let batch = batch(letters, query, ids).await?;
        let outcomes = run.batch(&batch).await;
        report.skipped += (ids.len() - batch.len()) as u64;
        record(letters, &batch, outcomes, report).await?;
        let ends = options.watch.as_ref().is_some_and(|watch| !watch.goes_on(report));
        if ends || report.refused.len() >= RedriveReport::MAX_REFUSALS {
            report.more = true;
            break;
        }
        if let Some(rate) = options.per_second {
            let due = Duration::from_secs_f64(ids.len() as f64 / f64::from(rate));
            sleep(due.saturating_sub(started.elapsed())).await;
        }
    }
    Ok(())
}

/// Reads the letters of a batch again, those that still match, in the order of their identities.
async fn batch(letters: &DeadLetters, query: &LetterQuery, ids: &[LetterId]) -> Result<Vec<DeadLetter>> {
    let query = query.clone().with_ids(ids.iter().cloned()).with_limit(ids.len());
    let mut batch = letters.store.list(&unpaged(query)).await?;
    batch.sort_by_cached_key(DeadLetter::id);
    Ok(batch)
}

/// Adds the outcomes of a batch to the report.
///
/// # Errors
/// That of a broker or store that is down.
async fn record(
    letters: &DeadLetters,
    batch: &[DeadLetter],
    outcomes: Vec<RedriveOutcome>,
    report: &mut RedriveReport,
) -> Result<()> {
    let (mut refused, mut down) = (Vec::new(), None);
    for (letter, outcome) in batch.iter().zip(outcomes) {
        match outcome {
            RedriveOutcome::Redriven => report.redriven += 1,
            RedriveOutcome::Behind => report.behind += 1,
            RedriveOutcome::Failed(error) => {
                refused.push((letter.id(), error.report()));
                if error.is_infrastructure() {
                    let text = format!("redrive the letter {}@{}", letter.origin, letter.record.offset);
                    down = down.or(Some(Error::explained(error.kind(), text, &error)));
                } else {
                    report.refused.push((letter.id(), error));
                }
            }
            // Closed or held; later outcomes of core count here as well.
            _ => report.skipped += 1,
        }
    }
    for (letter, why) in &refused {
        let line = logs::LetterRefused {
            service: &letter.service.as_str(),
            topic: &letter.origin.topic.as_str(),
            partition: &letter.origin.partition,
            offset: &letter.offset,
            error: why,
        };
        line.log();
    }
    if let Err(error) = letters.store.note_refused(&refused, &letters.operator).await {
        logs::RefusalsNotKept { error: &error.report() }.log();
    }
    down.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tidings_core::{
        DeadLetter, DeadLetterSink, ErrorKind, LetterQuery, StoredRecord, Timestamp, Topic, TopicPartition, Transport,
    };
    use tidings_memory::{MemoryDeadLetters, MemoryTransport, PublishFault};

    use crate::{DeadLetters, RedriveOptions, RedriveReport};

    fn letter(service: &'static str, offset: u64) -> DeadLetter {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1)).with_value("v");
        DeadLetter::new(service, TopicPartition::new("t", 0), record, ErrorKind::Failed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_redrive_for_a_misspelt_service_names_the_known_ones() {
        let (store, publisher) = (MemoryDeadLetters::new(), MemoryTransport::new().publisher().await.unwrap());
        for buried in store.bury(vec![letter("shop", 1), letter("billing", 2), letter("shop", 3)]).await {
            buried.unwrap();
        }
        let (letters, options) = (DeadLetters::new(store, publisher), RedriveOptions::default());
        let of = |service: &'static str| LetterQuery::default().with_service(service);
        for options in [options.clone(), options.clone().with_dry_run(true)] {
            let report = letters.redrive(&of("biling"), &options).await.unwrap();
            assert_eq!((report.redriven, &report.known_services[..]), (0, &["billing".into(), "shop".into()][..]));
        }
        // The name of a service that has letters, open or not, is no mistake.
        for redriven in [1, 0] {
            let report = letters.redrive(&of("billing"), &options).await.unwrap();
            assert_eq!((report.redriven, &report.known_services[..]), (redriven, &[][..]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_after_the_batch_that_its_watch_ends() {
        let (store, publisher) = (MemoryDeadLetters::new(), MemoryTransport::new().publisher().await.unwrap());
        for buried in store.bury((0..5).map(|offset| letter("shop", offset)).collect()).await {
            buried.unwrap();
        }
        let letters = DeadLetters::new(store, publisher);
        let watch = |report: &RedriveReport| match report.redriven {
            4 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let options = RedriveOptions::default().with_batch(2).with_watch(watch);
        let report = letters.redrive(&LetterQuery::default(), &options).await.unwrap();
        assert_eq!((report.redriven, report.more), (4, true));
        assert_eq!(letters.count(&LetterQuery::default()).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_letter_that_was_redriven_too_often_stays_and_holds_back_no_other() {
        let (store, publisher) = (MemoryDeadLetters::new(), MemoryTransport::new().publisher().await.unwrap());
        let mut again = letter("shop", 1);
        again.record.headers = again.to_redrive().headers;
        for buried in store.bury(vec![again, letter("shop", 2)]).await {
            buried.unwrap();
        }
        let letters = DeadLetters::new(store, publisher);
        let (query, options) = (LetterQuery::default(), RedriveOptions::default());
        for (times, dry_run, expected) in [(1, true, (1, 1)), (1, false, (1, 1)), (2, false, (1, 0))] {
            let options = options.clone().with_max_redrives(times).with_dry_run(dry_run);
            let report = letters.redrive(&query, &options).await.unwrap();
            assert_eq!((report.redriven, report.repeated), expected, "{times} {dry_run}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_redrive_that_stops_says_how_far_it_came() {
        let (store, transport) = (MemoryDeadLetters::new(), MemoryTransport::new());
        for buried in store.bury((1..=3).map(|offset| letter("shop", offset)).collect()).await {
            buried.unwrap();
        }
        let publisher = transport.publisher().await.unwrap();
        transport.admin().await.unwrap().create_topics(&[Topic::new("t")]).await.unwrap();
        transport.faults().publish(PublishFault::new(ErrorKind::Unavailable).with_matching({
            let seen = AtomicU32::new(0);
            move |_| seen.fetch_add(1, Ordering::Relaxed) == 2
        }));
        let letters = DeadLetters::new(store, publisher);
        let options = RedriveOptions::default().with_batch(1);
        let error = letters.redrive(&LetterQuery::default(), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("2 are redriven"), "{error}");
    }
}

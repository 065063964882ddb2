//! One letter, one redrive: what takes letters at once waits, passes over, and never publishes one twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidings_core::{
    DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterLease, LetterQuery, Position, Publisher, Record,
    Redrive, RedriveOutcome, Resolution, Result,
};
use tidings_postgres::{PostgresConfig, PostgresStore};
use tidings_service::{DeadLetters, RedriveOptions};
use tidings_testbed::{BoxError, Postgres};

use super::{Broker, bury, id, letter, letters, store};

/// Letters whose numbers run against the order in which they are redriven.
async fn bury_backwards(store: &PostgresStore, letters: u64) {
    bury(store, (0..letters).rev().map(|n| letter(n, ["a", "b", "c"][n as usize % 3]))).await;
}

pub(super) async fn no_circle() -> std::result::Result<(), BoxError> {
    let url = Postgres::shared().await?.fresh_database().await?;
    let long = Duration::from_secs(60);
    let config = PostgresConfig::new(url).with_lock_timeout(long).with_statement_timeout(long);
    let store = PostgresStore::connect_with(config).await?;
    let broker = Broker::new();
    for _ in 0..15 {
        bury_backwards(&store, 300).await;
        let mut all = tokio::task::JoinSet::new();
        for by in ["ann", "bob"] {
            let letters = letters(&store, &broker).with_operator(by);
            let redriving = letters.clone();
            all.spawn(async move {
                let options = RedriveOptions::default().with_batch(120);
                let report = redriving.redrive(&LetterQuery::default(), &options).await?;
                Ok::<u64, Error>(report.redriven)
            });
            all.spawn(async move { letters.discard(&LetterQuery::default(), "test data").await });
        }
        let mut closed = 0;
        while let Some(done) = all.join_next().await {
            closed += done??;
        }
        // Letters that another had at that moment stay.
        closed += letters(&store, &broker).discard(&LetterQuery::default(), "test data").await?;
        assert_eq!(closed, 300, "each is closed once");
        assert_eq!(store.purge_closed_letters(Duration::ZERO).await?, 300);
    }
    Ok(())
}

pub(super) async fn leased() -> std::result::Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    bury(&store, (0..6).map(|n| letter(n, "k"))).await;
    let lease = LetterLease::new(Duration::from_secs(60));
    assert_eq!(store.lease(&[id(1), id(2)], &lease).await?, [Leased::Granted; 2]);
    let letters = letters(&store, &broker);
    assert_eq!(letters.discard(&LetterQuery::default().with_ids([id(1), id(3)]), "old").await?, 1);
    let options = RedriveOptions::default().with_batch(2);
    let report = letters.redrive(&LetterQuery::default(), &options).await?;
    // Later letters of its key stay behind a letter that another redrive has.
    assert_eq!((report.redriven, report.skipped, report.behind), (1, 1, 3));
    store.end_lease(&[id(1), id(2)], &lease).await?;
    assert_eq!(letters.redrive(&LetterQuery::default(), &options).await?.redriven, 4);
    assert_eq!(broker.values(), [0, 1, 2, 4, 5]);
    Ok(())
}

pub(super) async fn two_processes() -> std::result::Result<(), BoxError> {
    let url = Postgres::shared().await?.fresh_database().await?;
    let stores = [PostgresStore::connect(&url).await?, PostgresStore::connect(&url).await?];
    let broker = Broker::new();
    bury_backwards(&stores[0], 60).await;
    let listed = stores[0].list(&LetterQuery::default()).await?;
    assert!(stores[1].resolve(&[id(7)], &Resolution::discarded("cid", "old")).await?[0]);
    let mut all = tokio::task::JoinSet::new();
    for store in stores {
        let (broker, listed) = (Arc::clone(&broker), listed.clone());
        all.spawn(async move { Redrive::new(&store, &*broker, "ann").batch(&listed).await });
    }
    let answers: Vec<RedriveOutcome> = all.join_all().await.into_iter().flatten().collect();
    let mut values = broker.values();
    values.sort_unstable();
    assert_eq!(
        values,
        (0..60).filter(|n| *n != 7).collect::<Vec<_>>(),
        "each is published once, what is discarded never"
    );
    assert_eq!(answers.iter().filter(|outcome| outcome.is_redriven()).count(), 59);
    Ok(())
}

pub(super) async fn two_operators() -> std::result::Result<(), BoxError> {
    let url = Postgres::shared().await?.fresh_database().await?;
    let long = Duration::from_secs(60);
    let config = PostgresConfig::new(url).with_lock_timeout(long).with_statement_timeout(long);
    let config = config.with_idle_in_transaction_timeout(long);
    let (store, broker) = (PostgresStore::connect_with(config).await?, Broker::new());
    bury(&store, (0..200).map(|n| letter(n, ["a", "b"][n as usize % 2]))).await;
    let redrive = |by: &'static str| {
        let (letters, options) = (letters(&store, &broker).with_operator(by), RedriveOptions::default().with_batch(9));
        tokio::spawn(async move { letters.redrive(&LetterQuery::default(), &options).await })
    };
    let (ann, bob) = (redrive("ann"), redrive("bob"));
    let (ann, bob) = (ann.await??, bob.await??);
    assert_eq!(ann.redriven + bob.redriven, 200, "{ann:?} {bob:?}");
    let values = broker.values();
    assert_eq!(values.len(), 200, "some were published twice");
    for key in 0..2 {
        assert!(values.iter().filter(|n| *n % 2 == key).is_sorted());
    }
    Ok(())
}

pub(super) async fn crash() -> std::result::Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    bury(&store, [letter(1, "k"), letter(2, "k")]).await;
    let options = RedriveOptions::default().with_lease(Duration::from_secs(2));
    let redriving = {
        let (options, once) = (options.clone(), Arc::new(Once(Arc::clone(&broker))));
        let letters = DeadLetters::new(store.clone(), once);
        tokio::spawn(async move { letters.redrive(&LetterQuery::default(), &options).await })
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while broker.values().len() < 2 {
        assert!(Instant::now() < deadline, "the letters were not published");
        tokio::task::yield_now().await;
    }
    redriving.abort();
    assert!(redriving.await.unwrap_err().is_cancelled());
    // The letters that were published and not closed are leased for a while, then they are redriven again.
    let (mut redriven, mut skipped) = (0, 0);
    while redriven < 2 {
        assert!(Instant::now() < deadline, "the lease did not end");
        let report = letters(&store, &broker).redrive(&LetterQuery::default(), &options).await?;
        (redriven, skipped) = (redriven + report.redriven, skipped + report.skipped);
    }
    assert_eq!((redriven, skipped > 0), (2, true));
    assert_eq!(broker.values(), [1, 2, 1, 2]);
    let published = broker.published.lock().unwrap();
    assert_eq!(published[..2], published[2..], "the repeats are the same records, ids and all");
    Ok(())
}

/// Publishes each record, and never answers for the second.
#[derive(Debug)]
struct Once(Arc<Broker>);

#[async_trait]
impl Publisher for Once {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let is_second = !self.0.values().is_empty();
        let answers = self.0.publish(records).await;
        if is_second {
            std::future::pending::<()>().await;
        }
        answers
    }
    async fn close(&self, deadline: Duration) -> Result<()> {
        self.0.close(deadline).await
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

pub(super) async fn indeterminate() -> std::result::Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    bury(&store, [letter(1, "k")]).await;
    broker.in_doubt.store(true, Ordering::SeqCst);
    let all = LetterQuery::default();
    let error = letters(&store, &broker).redrive(&all, &RedriveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    // Its record may be on its way: it is not published again meanwhile, nor discarded.
    broker.in_doubt.store(false, Ordering::SeqCst);
    let report = letters(&store, &broker).redrive(&all, &RedriveOptions::default()).await?;
    assert_eq!((report.redriven, report.skipped), (0, 1));
    assert_eq!(letters(&store, &broker).discard(&all, "old").await?, 0);
    Ok(())
}

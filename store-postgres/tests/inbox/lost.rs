//! Commits whose answer, or which themselves, are lost on the way.

use std::sync::Arc;

use tidings_core::{BoxError, Claim, Failure, IdempotencyStore, Name, Outcome};
use tidings_postgres::{PostgresConfig, PostgresStore};
use tidings_testbed::{Cut, Framing, Proxy};
use uuid::Uuid;

use super::common::{TestResult, config, database, delivery, handle, written};
use super::{LONG, Sums, claimed, refs, tx, write_all};

/// A store whose handlers talk through a proxy, over one connection that is warm; and, for all other calls, the same store
/// without the proxy, which counts every connection's answers, also those to the pings of one that has been given back.
async fn proxied() -> TestResult<(PostgresStore, PostgresStore, Proxy)> {
    let url = database().await?;
    let config = config(url);
    let direct = PostgresStore::connect_with(config.clone()).await?;
    let (before, rest) = url.split_once('@').unwrap();
    let (target, name) = rest.split_once('/').unwrap();
    let proxy = Proxy::start(target, Framing::Chunks)?;
    let through = PostgresConfig::new(format!("{before}@{}/{name}", proxy.addr()));
    let store = PostgresStore::connect_with(through.with_schema(config.schema).with_max_connections(1)).await?;
    let warm = [(Uuid::now_v7(), 0)];
    let lease = claimed(&direct, LONG, &warm).await?;
    let handled = handle(&store, delivery(&lease, &warm), |delivery| async move {
        drop(tx(&delivery).await?);
        Ok(Outcome::handled())
    });
    handled.await?;
    Ok((store, direct, proxy))
}

/// Handles an event, and cuts the connection at this answer after the handler: 1 is that to the last statement, 2 that to
/// COMMIT.
async fn handle_cut(cut: Cut) -> TestResult<(Result<Outcome, BoxError>, Vec<i64>, Claim)> {
    let (store, direct, proxy) = proxied().await?;
    let sums = Sums::new(direct.pool()).await?;
    let events = [(Uuid::now_v7(), 1)];
    let lease = claimed(&direct, LONG, &events).await?;
    let (written_by, proxy) = (sums.clone(), Arc::new(proxy));
    let armed = Arc::clone(&proxy);
    let handled = handle(&store, delivery(&lease, &events), move |delivery| {
        let (sums, proxy) = (written_by.clone(), Arc::clone(&armed));
        async move {
            let outcome = write_all(sums, delivery).await;
            proxy.cut_at(cut);
            outcome
        }
    })
    .await;
    proxy.wait_for_cuts(1, LONG).await?;
    let other = direct.acquire_lease(&Name::from("orders"), LONG).await?;
    let claim = direct.claim(&other, &refs(&events)).await?.remove(0);
    Ok((handled, written(direct.pool(), &sums.table).await?, claim))
}

pub(crate) async fn answer() -> TestResult {
    let (handled, written, claim) = handle_cut(Cut::before_answer(2)).await?;
    assert!(handled.is_ok_and(|outcome| outcome.is_completed()), "the commit was made");
    assert_eq!((written, claim), (vec![1], Claim::Done));
    Ok(())
}

pub(crate) async fn commit() -> TestResult {
    let (handled, written, claim) = handle_cut(Cut::after_answer(1)).await?;
    let error = handled.unwrap_err();
    assert_eq!(Failure::of(error.as_ref()), Failure::Unavailable, "{error}");
    assert!(written.is_empty() && matches!(claim, Claim::Held { .. }), "{written:?} {claim:?}");
    Ok(())
}

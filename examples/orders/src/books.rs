//! Whether all sums agree.

use std::fmt;
use std::time::{Duration, Instant};

use sqlx::Row;
use tidings::BoxError;

use crate::shop::{BALANCE, Shop};

/// The books at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Books {
    pub(crate) orders: i64,
    pub(crate) payments: i64,
    pub(crate) confirmations: i64,
    /// The totals of the orders, of the payments, and of the withdrawals.
    ordered: i64,
    paid: i64,
    taken: i64,
    /// Events that are not published yet.
    waiting: u64,
}

impl Books {
    async fn read(shop: &Shop) -> Result<Self, BoxError> {
        let sums = "SELECT (SELECT count(*) FROM {}.orders), (SELECT count(*) FROM {}.payments),
            (SELECT coalesce(sum(confirmations), 0)::bigint FROM {}.orders),
            (SELECT coalesce(sum(amount), 0)::bigint FROM {}.orders),
            (SELECT coalesce(sum(amount), 0)::bigint FROM {}.payments),
            (SELECT coalesce(sum($1 - balance), 0)::bigint FROM {}.accounts)";
        let row = sqlx::query(shop.sql(sums)).bind(BALANCE).fetch_one(shop.pool()).await?;
        let waiting = shop.store.outbox("books").lag().await?.waiting;
        let sum = |at: usize| row.try_get::<i64, _>(at);
        let (orders, payments, confirmations) = (sum(0)?, sum(1)?, sum(2)?);
        Ok(Self { orders, payments, confirmations, ordered: sum(3)?, paid: sum(4)?, taken: sum(5)?, waiting })
    }

    fn is_balanced(&self) -> bool {
        let counts = self.orders == self.payments && self.orders == self.confirmations;
        counts && self.ordered == self.paid && self.paid == self.taken && self.waiting == 0
    }

    /// Waits until all is worked off.
    pub(crate) async fn balanced(shop: &Shop, patience: Duration) -> Result<Self, BoxError> {
        let deadline = Instant::now() + patience;
        loop {
            let books = Self::read(shop).await?;
            if books.is_balanced() {
                return Ok(books);
            }
            if Instant::now() > deadline {
                return Err(format!("the books do not balance: {books}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, payments, confirmations, ordered, paid, taken, waiting } = self;
        write!(f, "{orders} orders of {ordered}, {payments} payments of {paid}, {taken} taken from accounts, ")?;
        write!(f, "{confirmations} confirmations, {waiting} events waiting")
    }
}

//! The shop: its tables, its events, its services.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool};
use tidings::memory::MemoryTransport;
use tidings::postgres::{PostgresConfig, PostgresStore, Relay, RelayConfig, Tx};
use tidings::{BoxError, Event, Router, Service, ServiceHandle, State, Topic};
use uuid::Uuid;

/// How long the claims of a killed instance are waited for.
const TTL: Duration = Duration::from_secs(1);
const CUSTOMERS: i64 = 10;
/// The initial balance of each customer.
pub(crate) const BALANCE: i64 = 1_000_000;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.placed", key = "customer")]
struct OrderPlaced {
    order: i64,
    customer: i64,
    amount: i64,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "payments", type = "order.paid", key = "order")]
struct OrderPaid {
    order: i64,
}

pub(crate) fn topics() -> Vec<Topic> {
    [OrderPlaced::TOPIC, OrderPaid::TOPIC].map(|topic| Topic::new(topic).with_partitions(3)).to_vec()
}

/// The tables, in a schema of their own.
#[derive(Debug, Clone)]
pub(crate) struct Shop {
    pub(crate) store: PostgresStore,
    schema: Arc<str>,
}

impl Shop {
    pub(crate) async fn open(url: &str) -> Result<Self, BoxError> {
        let schema = format!("shop_{}", Uuid::now_v7().simple());
        let store = PostgresStore::connect_with(PostgresConfig::new(url).with_schema(&schema)).await?;
        let shop = Self { store, schema: schema.into() };
        let tables =
            "CREATE TABLE {}.orders (id bigint PRIMARY KEY, amount bigint NOT NULL, confirmations int NOT NULL);
            CREATE TABLE {}.payments (order_id bigint NOT NULL, amount bigint NOT NULL);
            CREATE TABLE {}.accounts (customer bigint PRIMARY KEY, balance bigint NOT NULL);";
        sqlx::raw_sql(shop.sql(tables)).execute(shop.pool()).await?;
        let accounts = shop.sql("INSERT INTO {}.accounts SELECT n, $2 FROM generate_series(0, $1 - 1) n");
        sqlx::query(accounts).bind(CUSTOMERS).bind(BALANCE).execute(shop.pool()).await?;
        Ok(shop)
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.store.pool()
    }

    /// `{}` is the schema.
    pub(crate) fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("{}", &self.schema))
    }

    /// Places orders: each in a transaction with the event that tells of it.
    pub(crate) async fn place(self, orders: i64) -> Result<(), BoxError> {
        let outbox = self.store.outbox("shop");
        for order in 0..orders {
            let event = OrderPlaced { order, customer: order % CUSTOMERS, amount: 1 + order % 7 };
            let mut tx = self.pool().begin().await?;
            let insert = sqlx::query(self.sql("INSERT INTO {}.orders VALUES ($1, $2, 0)"));
            insert.bind(order).bind(event.amount).execute(&mut *tx).await?;
            outbox.publish(&mut tx, &event).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    pub(crate) async fn remove(&self) -> Result<(), BoxError> {
        sqlx::raw_sql(self.sql("DROP SCHEMA {} CASCADE")).execute(self.pool()).await?;
        Ok(())
    }
}

/// Takes the money, and tells so.
async fn pay(event: OrderPlaced, State(shop): State<Shop>, mut tx: Tx) -> Result<OrderPaid, BoxError> {
    let take = sqlx::query(shop.sql("UPDATE {}.accounts SET balance = balance - $2 WHERE customer = $1"));
    take.bind(event.customer).bind(event.amount).execute(&mut **tx).await?;
    let note = sqlx::query(shop.sql("INSERT INTO {}.payments VALUES ($1, $2)"));
    note.bind(event.order).bind(event.amount).execute(&mut **tx).await?;
    Ok(OrderPaid { order: event.order })
}

async fn confirm(event: OrderPaid, State(shop): State<Shop>, mut tx: Tx) -> Result<(), BoxError> {
    let count = sqlx::query(shop.sql("UPDATE {}.orders SET confirmations = confirmations + 1 WHERE id = $1"));
    count.bind(event.order).execute(&mut **tx).await?;
    Ok(())
}

/// One process of the shop: two services and a relay, with connections of their own.
#[derive(Debug)]
pub(crate) struct Instance {
    _services: [ServiceHandle; 2],
    _relay: Relay,
}

impl Instance {
    pub(crate) async fn start(url: &str, shop: &Shop, transport: &MemoryTransport) -> Result<Self, BoxError> {
        let store = PostgresStore::connect_with(PostgresConfig::new(url).with_schema(&*shop.schema)).await?;
        let service = |name: &'static str, router: Router<Shop>| {
            let inbox = store.inbox().with_outbox(store.outbox(name));
            let router = router.layer(inbox).with_state(shop.clone());
            Service::new(name, router).with_idempotency(store.clone()).with_lease_ttl(TTL)
        };
        let payments = service("payments", Router::new().on(pay)).start(transport).await?;
        let orders = service("orders", Router::new().on(confirm)).start(transport).await?;
        let relay = Relay::start(&store, transport, RelayConfig::default())?;
        Ok(Self { _services: [payments, orders], _relay: relay })
    }
}

#![doc = include_str!("docs/testbed.md")]
mod blocking;
mod certs;
mod error;
mod held;
mod kafka;
mod ports;
mod postgres;
mod process;
mod proxy;
mod suite;
mod wire;

pub use certs::{Authority, Certificate, Identity};
pub use error::{Error, Result};
pub use held::{Claim, Held};
pub use kafka::{
    KAFKA_VARIABLE, Kafka, SharedKafka,
    node::Node,
    options::{KafkaOptions, Listener, START_TIMEOUT},
};
pub use postgres::{
    Backend, Postgres,
    options::{POSTGRES_START_TIMEOUT, PostgresOptions, Shutdown},
    shared::{POSTGRES_VARIABLE, SharedPostgres},
};
pub use proxy::{Counts, Cut, Framing, Proxy};
pub use suite::{BoxError, DEFAULT_TIMEOUT, REQUIRE_VARIABLE, Suite, ignored_because, servers_are_required};

//! Orders and payments that agree whatever happens: what a service writes, that its event is done, and the events that
//! follow commit together, by the inbox and the outbox of Postgres.
//!
//! `TIDINGS_POSTGRES=postgres://user:password@localhost/database cargo run --package orders`. It takes a schema of its own,
//! and removes it. Its test kills the instances at random points, and balances the books at the end.

mod books;
mod shop;

use std::process::ExitCode;
use std::time::Duration;

use tidings::admin::ensure_topics;
use tidings::memory::MemoryTransport;
use tidings::{BoxError, Transport};
use tracing_subscriber::EnvFilter;

use self::books::Books;
use self::shop::{Instance, Shop};

/// The server's URL.
const VARIABLE: &str = "TIDINGS_POSTGRES";
const ORDERS: i64 = 200;
/// How long the books may take to balance.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    log();
    let Ok(url) = std::env::var(VARIABLE) else {
        eprintln!("this example needs a Postgres server: set {VARIABLE} to postgres://user:password@host/database");
        eprintln!("`cargo xtask postgres up` starts one, and prints its URL");
        return ExitCode::from(2);
    };
    match run(&url, 0).await {
        Ok(books) => {
            println!("{books}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Places orders while this number of instances is killed, and balances the books.
async fn run(url: &str, kills: u32) -> Result<Books, BoxError> {
    let shop = Shop::open(url).await?;
    let transport = MemoryTransport::new();
    ensure_topics(transport.admin().await?.as_ref(), &shop::topics()).await?;
    let placing = tokio::spawn(shop.clone().place(ORDERS));
    // The memory broker outlives the instances, as a broker does.
    for _ in 0..kills {
        let instance = Instance::start(url, &shop, &transport).await?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..400))).await;
        // Dropped, all its work stops where it is: its transactions are rolled back, its claims are an expired lease's.
        drop(instance);
    }
    let _instance = Instance::start(url, &shop, &transport).await?;
    placing.await??;
    let balanced = Books::balanced(&shop, PATIENCE).await;
    shop.remove().await?;
    balanced
}

/// Logs to stderr, by RUST_LOG if that is set. Of the Kafka client, only the warnings are needed.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

#[cfg(test)]
mod tests {
    use tidings_testbed::{Postgres, ignored_because};

    use super::*;

    const KILLS: u32 = 6;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn killed_at_random_points_its_books_are_balanced() {
        let server = match Postgres::shared().await {
            Ok(server) => server,
            Err(error) => {
                println!("ignored: {}", ignored_because(&error).expect("a server is required"));
                return;
            }
        };
        let books = run(server.url(), KILLS).await.expect("balanced books");
        assert_eq!((books.orders, books.payments, books.confirmations), (ORDERS, ORDERS, ORDERS), "{books}");
    }
}

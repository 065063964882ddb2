//! The inbox on one connection next to pgbench, which sends the same statements to the same tables by C and libpq, and
//! batches next to single events: in turns, so that the load of the machine falls on all alike.
//!
//! It needs a server, as the tests do, and pgbench. Prints medians, and the ratios of the turns.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{TOPIC, config, database, delivery, effects, handle};
use sqlx::AssertSqlSafe;
use tidings_core::{BoxError, Delivery, EventRef, IdempotencyStore, Lease, Name, Outcome, StoredRecord};
use tidings_postgres::{PostgresStore, Tx};
use tidings_service::FromDelivery;
use tokio::runtime::Runtime;
use uuid::Uuid;

const SIZES: [usize; 2] = [100, 1];

struct Rig {
    store: PostgresStore,
    schema: String,
    url: String,
    lease: Lease,
    table: String,
}

impl Rig {
    async fn new() -> Self {
        let url = database().await.unwrap().to_owned();
        let config = config(&url).with_max_connections(1);
        let (store, schema) = (PostgresStore::connect_with(config.clone()).await.unwrap(), config.schema);
        let lease = store.acquire_lease(&Name::from("bench"), Duration::from_secs(3_600)).await.unwrap();
        let table = effects(store.pool()).await.unwrap();
        let parts = "(n int PRIMARY KEY, ids uuid[], types text[], numbers bigint[])";
        let create = format!("CREATE TABLE parts_{table} {parts}");
        sqlx::query(AssertSqlSafe(create)).execute(store.pool()).await.unwrap();
        Self { store, schema, url, lease, table }
    }

    /// Claims new events, in parts.
    async fn claimed(&self, count: usize, size: usize) -> Vec<Vec<(Uuid, i64)>> {
        let events: Vec<_> = (0..count * size).map(|_| (Uuid::now_v7(), 1)).collect();
        for events in events.chunks(1_000) {
            let refs: Vec<_> = events.iter().map(|(id, _)| EventRef::new(*id, "order.placed")).collect();
            self.store.claim(&self.lease, &refs).await.unwrap();
        }
        events.chunks(size).map(<[_]>::to_vec).collect()
    }

    /// Measures the inbox with deliveries of `size`.
    async fn ours(&self, count: usize, size: usize) -> Duration {
        let parts = self.claimed(count, size).await;
        let deliveries: Vec<_> = parts.iter().map(|events| delivery(&self.lease, events)).collect();
        let begun = Instant::now();
        for delivery in deliveries {
            let table = self.table.clone();
            handle(&self.store, delivery, move |delivery| write(table.clone(), delivery)).await.unwrap();
        }
        begun.elapsed() / u32::try_from(count).unwrap()
    }

    /// Measures pgbench with the same transaction.
    async fn theirs(&self, pgbench: &Path, count: usize, size: usize) -> Duration {
        let parts = self.claimed(count, size).await;
        let table = &self.table;
        let clear = AssertSqlSafe(format!("TRUNCATE parts_{table}"));
        sqlx::query(clear).execute(self.store.pool()).await.unwrap();
        for (n, events) in parts.iter().enumerate() {
            let (ids, numbers): (Vec<_>, Vec<_>) = events.iter().copied().unzip();
            let types = vec!["order.placed"; ids.len()];
            let part = sqlx::query(AssertSqlSafe(format!("INSERT INTO parts_{table} VALUES ($1, $2, $3, $4)")));
            let part = part.bind(i32::try_from(n).unwrap()).bind(ids).bind(types).bind(numbers);
            part.execute(self.store.pool()).await.unwrap();
        }
        let script = format!(
            "SELECT ids, types, numbers FROM parts_{table} WHERE n = :n \\gset\n\
             \\set n :n + 1\n\
             BEGIN;\n\
             INSERT INTO {table} SELECT unnest(:numbers::bigint[]);\n\
             SELECT verdict, xid FROM {}.settle('{}', 'bench', :ids, :types, 'bench', '{TOPIC}', 0, 0);\n\
             COMMIT;\n",
            self.schema, self.lease.id
        );
        let file = std::env::temp_dir().join(format!("{table}.sql"));
        std::fs::write(&file, script).unwrap();
        let mut command = Command::new(pgbench);
        command.args(["-n", "-c", "1", "-M", "prepared", "-r", "-D", "n=0", "-t", &count.to_string(), "-f"]);
        let run = tokio::task::spawn_blocking({
            let url = self.url.clone();
            move || command.arg(file).arg(url).output()
        });
        let run = run.await.unwrap().unwrap();
        let told = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{told}{}", String::from_utf8_lossy(&run.stderr));
        let done = format!("SELECT count(*) FROM {}.done WHERE event_id = $1", self.schema);
        let last = parts[count - 1][size - 1].0;
        let done: i64 = sqlx::query_scalar(AssertSqlSafe(done)).bind(last).fetch_one(self.store.pool()).await.unwrap();
        assert_eq!(done, 1, "it did the same");
        latency(&told)
    }
}

/// The latencies of the transaction's statements, without those that tell pgbench what to write.
fn latency(told: &str) -> Duration {
    let ours = ["BEGIN;", "INSERT INTO", "SELECT verdict", "COMMIT;"];
    let lines: Vec<&str> = told.lines().filter(|line| ours.iter().any(|ours| line.contains(ours))).collect();
    assert_eq!(lines.len(), ours.len(), "{told}");
    let milliseconds = |line: &&str| line.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    Duration::from_secs_f64(lines.iter().map(milliseconds).sum::<f64>() / 1_000.0)
}

async fn write(table: String, delivery: Delivery) -> Result<Outcome, BoxError> {
    let mut tx = Tx::from_delivery(&delivery, &()).await?;
    // Not by a JSON parser: pgbench is given the numbers as they are.
    let number = |record: &StoredRecord| -> i64 {
        let value = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
        let (_, number) = value.rsplit_once(r#""n":"#).unwrap();
        number.trim_end_matches('}').parse().unwrap()
    };
    let numbers: Vec<_> = delivery.records().map(number).collect();
    let insert = format!("INSERT INTO {table} SELECT unnest($1::bigint[])");
    sqlx::query(AssertSqlSafe(insert)).bind(numbers).execute(&mut **tx).await?;
    Ok(Outcome::handled())
}

/// In the folder of the newest version, or in `PATH`.
fn find() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin/pgbench")).filter(|program| program.is_file());
    found.max().unwrap_or_else(|| "pgbench".into())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // As a test it only has to run.
    let (turns, per_turn) = if std::env::args().any(|arg| arg == "--bench") { (9, 100) } else { (1, 2) };
    let pgbench = find();
    Runtime::new().unwrap().block_on(async {
        let rig = Rig::new().await;
        let (mut ours, mut theirs) = ([vec![], vec![]], [vec![], vec![]]);
        // The first turn warms up.
        for turn in 0..=turns {
            for (n, size) in SIZES.into_iter().enumerate() {
                let count = if size == 1 { per_turn * 5 } else { per_turn };
                let one = rig.ours(count, size).await.as_secs_f64();
                let other = rig.theirs(&pgbench, count, size).await.as_secs_f64();
                if turn > 0 {
                    ours[n].push(one);
                    theirs[n].push(other);
                }
            }
        }
        for (n, size) in SIZES.into_iter().enumerate() {
            let (one, other) = (median(ours[n].clone()), median(theirs[n].clone()));
            let ratio = median(theirs[n].iter().zip(&ours[n]).map(|(theirs, ours)| theirs / ours).collect());
            println!("batch of {size}: inbox {:.2} ms, pgbench {:.2} ms, {ratio:.2}x", one * 1e3, other * 1e3);
        }
        let gain = |times: &[Vec<f64>; 2]| {
            let pairs = times[0].iter().zip(&times[1]);
            median(pairs.map(|(batch, single)| single * SIZES[0] as f64 / batch).collect())
        };
        println!(
            "a batch of {} beside single events: inbox {:.1}x, pgbench {:.1}x",
            SIZES[0],
            gain(&ours),
            gain(&theirs)
        );
    });
}

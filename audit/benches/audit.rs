//! The cost of an audit trail: verifying a million records, next to their bare hashes; and publishing with a record of
//! each event, next to publishing without.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};
use tidings_audit::{Audited, Auditor, AuditorOptions, EventOperations, EventPolicy, MemoryAudit, Verifier};
use tidings_core::audit::{AuditOutcome, AuditRecord, Principal, StoredAudit};
use tidings_core::{Record, Topic, Transport};
use tidings_memory::MemoryTransport;
use tokio::runtime::Runtime;

const RECORDS: u64 = 1_000_000;
/// The records that are made once, and verified again and again.
const CHAIN: u64 = 10_000;
/// The events of a batch.
const BATCH: u64 = 500;

/// A chain as an auditor writes it.
fn chain(runtime: &Runtime) -> Vec<StoredAudit> {
    let sink = MemoryAudit::new();
    let auditor = Auditor::new(sink.clone());
    runtime.block_on(async {
        for n in 0..CHAIN / 2 {
            let intent = AuditRecord::intent(Principal::new("ann").with_authentication("token"), "topic.create")
                .with_resource(format!("topic:orders-{n}"))
                .with_after("partitions", "6")
                .with_reason("more load than the present topics can take");
            let attempt = auditor.begin(intent.clone()).await.unwrap();
            attempt.finish(intent.result(AuditOutcome::Ok)).await;
        }
    });
    sink.records()
}

fn verifying(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let chain = chain(&runtime);
    let mut group = criterion.benchmark_group("audit/verify");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10).sampling_mode(SamplingMode::Flat);
    let rounds = RECORDS / chain.len() as u64 + 1;
    group.bench_function(BenchmarkId::new("baseline", RECORDS), |bench| {
        bench.iter(|| {
            for record in chain.iter().cycle().take(usize::try_from(RECORDS).unwrap()) {
                black_box(Sha256::digest(&record.bytes));
            }
        });
    });
    group.bench_function(BenchmarkId::new("verify", RECORDS), |bench| {
        bench.iter(|| {
            for _ in 0..rounds {
                let mut verifier = Verifier::new(&[]);
                chain.iter().for_each(|record| verifier.add(record));
                assert!(verifier.finish().is_intact());
            }
        });
    });
    group.finish();
}

fn batch() -> Vec<Record> {
    let value = |n| {
        format!(
            r#"{{"eventId":"{}","eventType":"order.placed","timestamp":1,"source":"bench","version":"1.0","payload":{{"n":{n}}}}}"#,
            uuid::Uuid::now_v7()
        )
    };
    (0..BATCH).map(|n| Record::new("orders", value(n)).with_key(format!("{}", n % 64))).collect()
}

/// The bytes of a topic are bounded: old records go.
async fn transport() -> MemoryTransport {
    let transport = MemoryTransport::new();
    let topic = Topic::new("orders").with_partitions(4).with_retention_bytes(8 << 20);
    transport.admin().await.unwrap().create_topics(&[topic]).await.unwrap().remove(0).unwrap();
    transport
}

fn publishing(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("audit/publish-batch");
    group.throughput(Throughput::Elements(BATCH)).measurement_time(Duration::from_secs(5));
    let off = Auditor::new(MemoryAudit::new());
    let policy = EventPolicy::default().with_topic("orders", EventOperations::all());
    let options = AuditorOptions::default().with_events(policy);
    let on = Auditor::with_options(MemoryAudit::new(), options);
    let cases: [(&str, Option<Auditor>); 3] = [("baseline", None), ("off", Some(off)), ("on", Some(on))];
    for (name, auditor) in cases {
        let publisher = runtime.block_on(async {
            let transport = transport().await;
            match auditor {
                None => transport.publisher().await.unwrap(),
                Some(auditor) => Audited::new(transport, auditor).publisher().await.unwrap(),
            }
        });
        group.bench_function(BenchmarkId::new(name, BATCH), |bench| {
            let publish = |records| runtime.block_on(publisher.publish(records));
            bench.iter_batched(batch, publish, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, verifying, publishing);
criterion_main!(benches);

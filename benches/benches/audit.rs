//! The cost of auditing event operations: a pipeline of typed JSON events whose publishing and handling are recorded,
//! compared with the same pipeline without an audit, and with one whose policy names another topic.
//!
//! Measures the rate at full speed, and the processor time of all threads at 100,000 events a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings::audit::{Audited, Auditor, AuditorOptions, EventOperations, EventPolicy, TopicAudit};
use tidings::memory::{MemoryConfig, MemoryTransport};
use tidings::publisher::Publisher;
use tidings::record::{Name, Timestamp};
use tidings::{Envelope, Record, Router, Service, ServiceHandle, State, Topic, Transport, codec};
use tidings_benches::figures::{BenchResult, Figures, figure};
use tidings_benches::{IN_FLIGHT, Registered, Window, registered};
use tokio::runtime::Runtime;
use uuid::Uuid;

const ROUNDS: usize = 9;
const RECORDS: u64 = 200_000;
const GROUP: u64 = 128;
/// Interval between the groups of the second part.
const PACED_GROUP: u64 = 500;
const PACE: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audit {
    Off,
    OtherTopic,
    On,
}

impl Audit {
    const ALL: [Self; 3] = [Self::Off, Self::OtherTopic, Self::On];

    const fn name(self) -> &'static str {
        match self {
            Self::Off => "baseline",
            Self::OtherTopic => "other topic audited",
            Self::On => "audited",
        }
    }
}

fn main() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = Figures::default();
    let mut busy: [Vec<f64>; 3] = Default::default();
    // The cases take turns, and each round begins with another one. The first round is a warm-up.
    for round in 0..=ROUNDS {
        for turn in 0..Audit::ALL.len() {
            let case = (round + turn) % Audit::ALL.len();
            let (took, _) = run(&runtime, Audit::ALL[case], GROUP, None)?;
            let (paced, on_cores) = run(&runtime, Audit::ALL[case], PACED_GROUP, Some(PACE))?;
            if round > 0 {
                figures.add(Audit::ALL[case].name(), RECORDS, took);
                busy[case].push(on_cores.as_secs_f64() / paced.as_secs_f64());
            }
        }
    }
    figures.finish("audit/pipeline", Audit::Off.name())?;
    let [off, other, on] = busy.map(median);
    figure("audit/at 100,000 events a second/baseline", off * 100.0, "% of a core", None)?;
    figure("audit/at 100,000 events a second/other topic audited", other * 100.0, "% of a core", Some(off * 100.0))?;
    figure("audit/at 100,000 events a second/audited", on * 100.0, "% of a core", Some(off * 100.0))?;
    figure("audit/at 100,000 events a second/added by the audit", (on - off) * 100.0, "% of a core", None)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the processor time of all threads of this process.
fn on_cores() -> BenchResult<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

async fn take(event: Envelope<Registered>, State(window): State<Window>) {
    std::hint::black_box(event.payload.email.len());
    window.acknowledge(1);
}

fn record(n: u64) -> Record {
    let (event, source) = (registered(n), Name::from_static("bench"));
    let envelope =
        codec::EnvelopeRef::new(Uuid::from_u128(u128::from(n) + 1), Timestamp::from_millis(1), &source, &event);
    codec::encode(envelope, "").expect("it encodes")
}

struct Pipeline {
    service: ServiceHandle,
    publisher: Arc<dyn Publisher>,
    auditor: Option<Auditor>,
}

async fn open(audit: Audit, window: Window) -> tidings::Result<Pipeline> {
    let transport = MemoryTransport::open(MemoryConfig::new().with_retention_records(1_024))?;
    let topics = [Topic::new("bench").with_partitions(3), Topic::new("bench-dlq"), TopicAudit::topic("trail")];
    transport.admin().await?.create_topics(&topics).await?;
    let service = Service::new("bench", Router::new().on(take).with_state(window)).with_workers(1);
    let topic = match audit {
        Audit::Off => {
            let publisher = transport.publisher().await?;
            return Ok(Pipeline { service: service.start(&transport).await?, publisher, auditor: None });
        }
        Audit::OtherTopic => "other",
        Audit::On => "bench",
    };
    let policy = EventPolicy::default().with_topic(topic, EventOperations::all());
    let options = AuditorOptions::default().with_events(policy).with_max_events(1 << 20);
    let auditor = Auditor::with_options(TopicAudit::open(&transport, "trail").await?, options);
    let audited = Audited::new(transport, auditor.clone());
    let publisher = audited.publisher().await?;
    let service = service.with_observer(auditor.observer()).start(&audited).await?;
    Ok(Pipeline { service, publisher, auditor: Some(auditor) })
}

/// Returns the elapsed time, and the processor time.
fn run(runtime: &Runtime, audit: Audit, group: u64, pace: Option<Duration>) -> BenchResult<(Duration, Duration)> {
    let window = Window::default();
    let Pipeline { service, publisher, auditor } = runtime.block_on(open(audit, window.clone()))?;
    let (begun, before) = (Instant::now(), on_cores()?);
    runtime.block_on(publish(publisher, window, group, pace));
    if let Some(auditor) = auditor {
        runtime.block_on(auditor.flush())?;
        let status = auditor.status();
        if status.is_degraded() {
            return Err(format!("the audit lost events: {status:?}").into());
        }
    }
    let took = (begun.elapsed(), on_cores()? - before);
    runtime.block_on(service.shutdown(LIMIT))?;
    Ok(took)
}

async fn publish(publisher: Arc<dyn Publisher>, window: Window, group: u64, pace: Option<Duration>) {
    let task = tokio::spawn(async move {
        let mut published = 0;
        let mut pace = pace.map(tokio::time::interval);
        while published < RECORDS {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            // On a busy machine a paced publisher gets ahead of the service, too. Records that the log drops unread are
            // never acknowledged.
            window.room(published + group, IN_FLIGHT).await;
            for answer in publisher.publish((published..published + group).map(record).collect()).await {
                answer.expect("memory takes it");
            }
            published += group;
        }
        window.room(published, 0).await;
    });
    task.await.expect("no panic");
}

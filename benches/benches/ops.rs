//! The operations endpoint: how fast probes answer while handlers block all threads, and what it costs a pipeline to be
//! scraped ten times a second.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidings::memory::{MemoryConfig, MemoryTransport};
use tidings::ops::Ops;
use tidings::publisher::Publisher;
use tidings::record::Name;
use tidings::{Delivery, Record, Router, Service, State, Topic, Transport};
use tidings_benches::figures::{BenchResult, Figures, figure};
use tidings_benches::{IN_FLIGHT, Window, raw_key, raw_value};
use tokio::runtime::Runtime;

const PROBES: usize = 2_000;
const ROUNDS: usize = 9;
const RECORDS: u64 = 400_000;
const GROUP: u64 = 128;
const SCRAPE_INTERVAL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> BenchResult {
    probes()?;
    pipeline()
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Asks on a connection of its own, as kubelet does.
fn ask(address: SocketAddr, path: &str) -> BenchResult<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") { Ok(answer) } else { Err(answer.into()) }
}

type Wait = Arc<dyn Fn() + Send + Sync>;

fn probes() -> BenchResult {
    let runtime = runtime()?;
    let (release, held) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let held = Mutex::new(held);
    let wait: Wait = Arc::new(move || {
        let _ = begin.send(());
        let ended = held.lock().map(|held| held.recv_timeout(LIMIT));
        assert!(!matches!(ended, Ok(Err(RecvTimeoutError::Timeout))), "the bench releases its handlers");
    });
    let blocks = async |_: Delivery, State(wait): State<Wait>| wait();
    let service = runtime.block_on(async {
        let transport = MemoryTransport::open(MemoryConfig::new().with_partitions(4))?;
        let router = Router::new().on_topic("t", blocks).with_state(wait);
        let service = Service::new("bench", router).with_workers(2).start(&transport).await?;
        let records = (0..64).map(|n| Record::new("t", "1").with_key(raw_key(n))).collect();
        for answer in transport.publisher().await?.publish(records).await {
            answer?;
        }
        Ok::<_, tidings::Error>(service)
    })?;
    let ops = Ops::new().with_service(&service).serve("127.0.0.1:0")?;
    begun.recv_timeout(LIMIT)?;
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let asked = Instant::now();
        ask(ops.local_addr(), "/readyz")?;
        times.push(asked.elapsed());
    }
    times.sort();
    let millis = |share: usize| times[PROBES * share / 100].as_secs_f64() * 1_000.0;
    figure("ops/readyz while handlers block, p50", millis(50), "ms", None)?;
    figure("ops/readyz while handlers block, p99", millis(99), "ms", None)?;
    drop(release);
    runtime.block_on(service.shutdown(LIMIT))?;
    Ok(())
}

fn pipeline() -> BenchResult {
    let runtime = runtime()?;
    let mut figures = Figures::default();
    // In turns, and one to warm up.
    for round in 0..=ROUNDS {
        for scraped in [round % 2 == 0, round % 2 != 0] {
            let took = run(&runtime, scraped)?;
            if round > 0 {
                figures.add(if scraped { "scraped" } else { "baseline" }, RECORDS, took);
            }
        }
    }
    figures.finish("ops/pipeline", "baseline")
}

async fn take(delivery: Delivery, State(window): State<Window>) {
    std::hint::black_box(delivery.record().value.as_ref().map_or(0, Bytes::len));
    window.acknowledge(1);
}

fn run(runtime: &Runtime, scraped: bool) -> BenchResult<Duration> {
    let window = Window::default();
    let (service, publisher) = runtime.block_on(async {
        let transport = MemoryTransport::open(MemoryConfig::new().with_retention_records(IN_FLIGHT))?;
        let topics = [Topic::new("bench").with_partitions(3), Topic::new("bench-dlq")];
        transport.admin().await?.create_topics(&topics).await?;
        let router = Router::new().on_topic("bench", take).with_state(window.clone());
        let service = Service::new("bench", router).with_workers(1).start(&transport).await?;
        Ok::<_, tidings::Error>((service, transport.publisher().await?))
    })?;
    let ops = scraped.then(|| Ops::new().with_service(&service).serve("127.0.0.1:0")).transpose()?;
    let stop = Arc::new(AtomicBool::new(false));
    let scraper = ops.as_ref().map(|ops| {
        let (address, stop) = (ops.local_addr(), stop.clone());
        std::thread::spawn(move || -> Result<usize, String> {
            let mut bytes = 0;
            while !stop.load(Ordering::Relaxed) {
                bytes += ask(address, "/metrics").map_err(|error| error.to_string())?.len();
                std::thread::sleep(SCRAPE_INTERVAL);
            }
            Ok(bytes)
        })
    });
    let took = runtime.block_on(publish(publisher, window));
    stop.store(true, Ordering::Relaxed);
    if let Some(scraper) = scraper {
        scraper.join().map_err(|_| "the scraper panicked")??;
    }
    runtime.block_on(service.shutdown(LIMIT))?;
    Ok(took)
}

async fn publish(publisher: Arc<dyn Publisher>, window: Window) -> Duration {
    let begun = Instant::now();
    let task = tokio::spawn(async move {
        let mut published = 0;
        while published < RECORDS {
            window.room(published + GROUP, IN_FLIGHT).await;
            let records = published..published + GROUP;
            let record = |n| Record::new(Name::from_static("bench"), raw_value()).with_key(raw_key(n));
            for answer in publisher.publish(records.map(record).collect()).await {
                answer.expect("memory takes it");
            }
            published += GROUP;
        }
        window.room(published, 0).await;
    });
    task.await.expect("no panic");
    begun.elapsed()
}

//! The listener: its own thread, its limits, its stop, and what is wrong with an address.

#[path = "../../service/tests/common/bent.rs"]
#[expect(dead_code, reason = "only a part of it is needed here")]
mod bent;
mod common;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bent::Bent;
use common::{DEADLINE, connect, get, read, until};
use tidings_core::{Delivery, ErrorKind, PublisherExt, Record, TopicPartition, Transport};
use tidings_memory::MemoryTransport;
use tidings_ops::Ops;
use tidings_service::telemetry::HealthOptions;
use tidings_service::{HandlerExt, Router, Service, State};

type Wait = Arc<dyn Fn() + Send + Sync>;

/// Returns a function that blocks its thread until the sender is dropped, and tells when it begins.
fn blocking() -> (Wait, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (release, held) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let held = Mutex::new(held);
    let wait = Arc::new(move || {
        begin.send(()).expect("the test listens");
        // It ends when the sender is dropped.
        let _ = held.lock().expect("no panic").recv_timeout(DEADLINE);
    });
    (wait, release, begun)
}

#[test]
fn a_client_timeout_without_limit_is_none() {
    let ops = Ops::new().with_client_timeout(Duration::MAX).serve("127.0.0.1:0").unwrap();
    assert_eq!(get(ops.local_addr(), "/livez", &[]).code, 200);
}

#[test]
fn probes_answer_while_handlers_block_all_threads_and_name_the_reason() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (wait, release, begun) = blocking();
    let blocks = async |_: Delivery, State(wait): State<Wait>| wait();
    let router = Router::new().on_topic("t", blocks.named("blocks")).with_state(wait);
    let transport = MemoryTransport::new();
    let service = runtime.block_on(async {
        let service = Service::new("meter", router).start(&transport).await.unwrap();
        service.caught_up().await.unwrap();
        transport.publisher().await.unwrap().publish_one(Record::new("t", "1")).await.unwrap();
        service
    });
    let ops = Ops::new().with_service(&service).serve("127.0.0.1:0").unwrap();
    begun.recv_timeout(DEADLINE).unwrap();
    let asked = Instant::now();
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(get(ops.local_addr(), path, &[]).code, 200, "{path}");
    }
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    let mut ready = get(ops.local_addr(), "/readyz", &[]);
    until("the blocked handler is noticed", || {
        ready = get(ops.local_addr(), "/readyz", &[]);
        ready.body == "degraded: handler_blocked\n"
    });
    assert_eq!(ready.code, 200, "a handler that blocks is no reason for a restart of the fleet");
    assert_eq!(get(ops.local_addr(), "/livez", &[]).body, "ok\n");
    let status = get(ops.local_addr(), "/status", &[]).body;
    assert!(status.contains("\"handler\": \"blocks\""), "{status}");
    drop(release);
    runtime.block_on(service.shutdown(DEADLINE)).unwrap();
}

#[test]
fn only_an_engine_that_blocks_itself_is_not_live() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let transport = Bent::new(MemoryTransport::new());
    let router = Router::new().on_topic("t", async |_: Delivery| {});
    let service = runtime.block_on(async {
        let service = Service::new("meter", router).start(&transport).await.unwrap();
        service.caught_up().await.unwrap();
        service
    });
    let health = HealthOptions::default().with_live_after(Duration::from_millis(1_500));
    let ops = Ops::new().with_service(&service).with_health(health).serve("127.0.0.1:0").unwrap();
    assert_eq!(get(ops.local_addr(), "/livez", &[]).body, "ok\n");
    // The engine itself does not come back from a call.
    let release = transport.block("pause");
    service.pause_partitions([TopicPartition::new("t", 0)]).unwrap();
    let mut live = get(ops.local_addr(), "/livez", &[]);
    until("the engine is noticed to be blocked", || {
        live = get(ops.local_addr(), "/livez", &[]);
        live.code == 503
    });
    assert_eq!(live.body, "not live: engine_blocked\n");
    assert_eq!(get(ops.local_addr(), "/readyz", &[]).code, 503);
    drop(release);
    runtime.block_on(service.shutdown(DEADLINE)).unwrap();
}

#[test]
fn silent_and_slow_clients_keep_no_probe_out() {
    let ops = Ops::new().serve("127.0.0.1:0").unwrap();
    let address = ops.local_addr();
    let mut slow: Vec<TcpStream> = (0..2 * Ops::MAX_CONNECTIONS).map(|_| connect(address)).collect();
    for (number, stream) in slow.iter_mut().enumerate().filter(|(number, _)| number % 2 == 0) {
        // One that is closed already, as the oldest, may refuse it.
        let _ = stream.write_all(format!("GET /livez HTTP/1.1\r\nx-{number}: ").as_bytes());
    }
    for _ in 0..10 {
        assert_eq!(get(address, "/readyz", &[]).code, 200);
    }
    let first = read(slow.first_mut().unwrap());
    assert_eq!(first.code, 0, "the oldest was closed without an answer: {first:?}");
}

#[test]
fn a_client_that_sends_too_slowly_is_disconnected_and_so_is_an_idle_one() {
    let ops = Ops::new().with_client_timeout(Duration::from_millis(50)).serve("127.0.0.1:0").unwrap();
    let (mut silent, mut half) = (connect(ops.local_addr()), connect(ops.local_addr()));
    half.write_all(b"GET /livez HTT").unwrap();
    let mut idle = connect(ops.local_addr());
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_ne!(read(&mut silent).code, 200);
    assert_ne!(read(&mut half).code, 200);
    let answer = read(&mut idle);
    assert_eq!((answer.code, answer.body.as_str()), (200, "ok\n"), "it is answered, and closed later");
}

#[tokio::test]
async fn a_stop_answers_what_has_arrived_and_frees_the_address() {
    let ops = Ops::new().serve("127.0.0.1:0").unwrap();
    let address = ops.local_addr();
    let mut kept = connect(address);
    kept.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let begun = Instant::now();
    until("the first answer", || {
        let mut part = [0; 1];
        kept.peek(&mut part).is_ok_and(|length| length == 1)
    });
    ops.shutdown(DEADLINE).await.unwrap();
    assert!(begun.elapsed() < DEADLINE, "an idle connection does not hold it back");
    assert_eq!(read(&mut kept).body, "ok\n");
    TcpListener::bind(address).unwrap();
}

#[tokio::test]
async fn a_stop_cuts_off_what_is_not_done_by_its_deadline() {
    let ops = Ops::new().serve("127.0.0.1:0").unwrap();
    let mut half = connect(ops.local_addr());
    half.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    // The server has accepted it once a later connection is answered.
    assert_eq!(get(ops.local_addr(), "/livez", &[]).code, 200);
    let stopped = tokio::time::timeout(DEADLINE, ops.shutdown(Duration::from_millis(100))).await;
    stopped.expect("it does not wait for the client").unwrap();
    assert_eq!(read(&mut half).code, 0);
}

#[test]
fn a_dropped_handle_stops_the_endpoint() {
    let ops = Ops::new().serve("127.0.0.1:0").unwrap();
    let address = ops.local_addr();
    assert_eq!(get(address, "/livez", &[]).code, 200);
    drop(ops);
    until("it stops", || TcpStream::connect_timeout(&address, DEADLINE).is_err());
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_a_kind() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = Ops::new().serve(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().starts_with(&format!("serve operations on {address}: ")), "{error}");
    let error = Ops::new().serve("192.0.2.1:9400").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("192.0.2.1:9400"));
    let error = Ops::new().serve("no-port").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

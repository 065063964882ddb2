//! `Service::run` and shutdown signals.
//!
//! This file has one test: signals are sent to the whole process.
#![cfg(unix)]

#[path = "common/capture.rs"]
mod capture;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capture::Captured;
use tidings_core::{Delivery, ErrorKind, Record, Transport};
use tidings_memory::MemoryTransport;
use tidings_service::{Router, Service};
use tokio::sync::Notify;

fn terminate() {
    let id = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_signal_drains_and_the_second_stops_at_once() {
    let (transport, begun, log) = (MemoryTransport::new(), Arc::new(Notify::new()), Captured::log());
    let publisher = transport.publisher().await.unwrap();
    publisher.publish(vec![Record::new("t", "x")]).await.pop().unwrap().unwrap();
    let starting = begun.clone();
    let handler = move |_: Delivery| {
        starting.notify_one();
        std::future::pending::<()>()
    };
    let service =
        Service::new("s", Router::new().on_topic("t", handler)).with_shutdown_timeout(Duration::from_secs(600));
    let mut running = tokio::spawn(async move { service.run(&transport).await });
    begun.notified().await;

    terminate();
    let drained = tokio::time::timeout(Duration::from_millis(500), &mut running).await;
    assert!(drained.is_err(), "the delivery in flight may finish until the timeout");

    let signalled = log.only("s", "a signal arrived: the service shuts down");
    assert_eq!((signalled.level.as_str(), signalled.target), ("INFO", "tidings::service"));
    assert_eq!(signalled.get("timeout_ms"), Some("600000"));

    let since = Instant::now();
    terminate();
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await.expect("stops at once").unwrap();
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.to_string().contains("second signal"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(30));
}

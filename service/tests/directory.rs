//! The record of a service in a directory: written, refreshed and removed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::directory::{self, DIRECTORY_TOPIC, Directory, DirectoryEntry, DirectoryTopic};
use tidings_core::{Delivery, Error, ErrorKind, Name, Result, Timestamp, Transport, async_trait};
use tidings_memory::MemoryTransport;
use tidings_service::{DirectoryOptions, Router, Service};

/// A directory in memory that counts writes and can fail.
#[derive(Debug, Default)]
struct Entries {
    entries: Mutex<BTreeMap<(Name, String), DirectoryEntry>>,
    writes: Mutex<usize>,
    down: Mutex<bool>,
}

#[async_trait]
impl Directory for Entries {
    async fn put(&self, entry: &DirectoryEntry) -> Result<()> {
        *self.writes.lock().unwrap() += 1;
        if *self.down.lock().unwrap() {
            return Err(Error::new(ErrorKind::Unavailable, "it is down"));
        }
        self.entries.lock().unwrap().insert((entry.service.clone(), entry.instance.clone()), entry.clone());
        Ok(())
    }
    async fn remove(&self, service: &Name, instance: &str) -> Result<()> {
        self.entries.lock().unwrap().remove(&(service.clone(), instance.to_owned()));
        Ok(())
    }
    async fn entries(&self) -> Result<Vec<DirectoryEntry>> {
        Ok(self.entries.lock().unwrap().values().cloned().collect())
    }
}

fn service(directory: &Arc<Entries>, instance: &str, version: &str) -> Service {
    let options = DirectoryOptions::new("http://10.0.0.7:9400").with_directory(Arc::clone(directory));
    let router = Router::new().on_topic("orders", async |_: Delivery| {});
    Service::new("billing", router).with_directory(options.with_instance(instance).with_version(version))
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_written_refreshed_and_removed() {
    let (directory, transport) = (Arc::new(Entries::default()), MemoryTransport::new());
    let running = service(&directory, "a", "1.0").start(&transport).await.unwrap();
    tokio::time::sleep(DirectoryOptions::DEFAULT_TTL).await;
    let entry = directory.entries().await.unwrap().remove(0);
    assert_eq!((entry.service.as_str(), entry.instance.as_str(), entry.version.as_str()), ("billing", "a", "1.0"));
    assert_eq!((entry.group.as_str(), entry.state.as_str()), ("billing-group", "running"));
    assert_eq!(entry.ops_url.as_deref(), Some("http://10.0.0.7:9400"));
    let handlers: Vec<_> = entry.handlers.iter().map(|of| (of.topic.as_str(), of.name.as_str())).collect();
    assert_eq!(handlers, [("orders", "topic:orders")]);
    let writes = *directory.writes.lock().unwrap();
    assert!((3..=5).contains(&writes), "three times in the time that it is valid: {writes}");

    running.shutdown(Duration::from_secs(10)).await.unwrap();
    assert!(directory.entries().await.unwrap().is_empty(), "removed before the shutdown returns");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_dropped_is_removed_and_one_that_was_killed_expires() {
    let (directory, transport) = (Arc::new(Entries::default()), MemoryTransport::new());
    let running = service(&directory, "a", "1.0").start(&transport).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = directory.entries().await.unwrap().remove(0);
    drop(running);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(directory.entries().await.unwrap().is_empty());

    // As a process that was killed leaves it.
    directory.put(&left).await.unwrap();
    let ttl = DirectoryOptions::DEFAULT_TTL;
    let listing = directory::list(&directory, left.refreshed.saturating_add(ttl)).await.unwrap();
    assert_eq!((listing.live.len(), listing.expired.len()), (1, 0));
    let later = left.refreshed.saturating_add(ttl + Duration::from_millis(1));
    let listing = directory::list(&directory, later).await.unwrap();
    assert_eq!((listing.live.len(), listing.expired.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_down_keeps_no_service_from_working() {
    let (directory, transport) = (Arc::new(Entries::default()), MemoryTransport::new());
    *directory.down.lock().unwrap() = true;
    let running = service(&directory, "a", "1.0").start(&transport).await.unwrap();
    tokio::time::sleep(DirectoryOptions::DEFAULT_TTL).await;
    assert!(running.status().await.is_healthy());
    *directory.down.lock().unwrap() = false;
    tokio::time::sleep(DirectoryOptions::DEFAULT_TTL).await;
    assert_eq!(directory.entries().await.unwrap().len(), 1);
    running.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_versions_and_two_settings_are_shown() {
    let (directory, transport) = (Arc::new(Entries::default()), MemoryTransport::new());
    let one = service(&directory, "a", "1.0").start(&transport).await.unwrap();
    let two = service(&directory, "b", "1.1").with_concurrency(7).start(&transport).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let listing = directory::list(&directory, Timestamp::now()).await.unwrap();
    assert_eq!(listing.live.len(), 2);
    let drifts: Vec<_> = listing.drifts.iter().map(|drift| drift.kind.as_str()).collect();
    assert_eq!(drifts, ["version", "settings"], "the topology is the same");
    drop((one, two));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_option_fails_the_start() {
    let (directory, transport) = (Arc::new(Entries::default()), MemoryTransport::new());
    let options = DirectoryOptions::new("http://ann:secret@h").with_directory(directory);
    let router = Router::new().on_topic("orders", async |_: Delivery| {});
    let error = Service::new("billing", router).with_directory(options).start(&transport).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("start \"billing\"") && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn by_default_the_directory_is_a_topic_of_the_transport() {
    let transport = MemoryTransport::new();
    let start = |instance: &'static str| {
        let router = Router::new().on_topic("orders", async |_: Delivery| {});
        let options = DirectoryOptions::new("http://10.0.0.7:9400").with_instance(instance);
        Service::new("billing", router).with_directory(options)
    };
    let one = start("a").start(&transport).await.unwrap();
    let two = start("b").start(&transport).await.unwrap();
    tokio::time::sleep(DirectoryOptions::DEFAULT_TTL).await;
    let directory = DirectoryTopic::open(&transport, DIRECTORY_TOPIC).await.unwrap();
    let instances = async || {
        let listing = directory::list(&directory, Timestamp::now()).await.unwrap();
        listing.live.into_iter().map(|entry| entry.instance).collect::<Vec<_>>()
    };
    assert_eq!(instances().await, ["a", "b"]);
    let groups = transport.admin().await.unwrap().list_groups().await.unwrap();
    assert_eq!(groups, ["billing-group"], "it is read without a group");

    one.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(instances().await, ["b"]);
    two.shutdown(Duration::from_secs(10)).await.unwrap();
    assert!(instances().await.is_empty());
}

//! The directory of running instances.

use std::time::Duration;

use tidings_core::Timestamp;
use tidings_core::directory::{self, Directory, DirectoryEntry, DirectoryHandler};

use crate::common::TestResult;
use crate::open;

pub(super) async fn entries() -> TestResult {
    let (store, _) = open(|config| config).await?;
    let ttl = Duration::from_secs(600);
    let mut one = DirectoryEntry::new("billing\\", "a", ttl).with_version("1.0");
    one.state = "running".to_owned();
    let two = DirectoryEntry::new("billing\\", "b", ttl).with_version("1.1");
    let two = two.with_handler(DirectoryHandler::new("orders", "a name"));
    for entry in [&two, &one, &two] {
        store.put(entry).await?;
    }
    let listing = directory::list(&store, Timestamp::now()).await?;
    let found: Vec<_> = listing.live.iter().map(|of| (&*of.instance, &*of.version, &*of.state)).collect();
    assert_eq!(found, [("a", "1.0", "running"), ("b", "1.1", "")]);
    assert_eq!(listing.live[1].handlers, two.handlers);
    assert_eq!(listing.drifts.len(), 2, "versions and topologies: {:?}", listing.drifts);

    // An instance whose clock is years off is judged by the server's.
    let mut three = DirectoryEntry::new("shipping", "c", Duration::ZERO);
    three.refreshed = Timestamp::now().saturating_add(Duration::from_secs(1_000_000_000));
    store.put(&three).await?;
    store.remove(&"billing\\".into(), "a").await?;
    store.remove(&"billing\\".into(), "nobody").await?;
    let listing = directory::list(&store, Timestamp::now().saturating_add(Duration::from_millis(5))).await?;
    let names = |entries: &[DirectoryEntry]| entries.iter().map(|of| of.instance.clone()).collect::<Vec<_>>();
    assert_eq!((names(&listing.live), names(&listing.expired)), (vec!["b".to_owned()], vec!["c".to_owned()]));
    Ok(())
}

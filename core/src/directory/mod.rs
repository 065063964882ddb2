//! The directory of services: where each running instance keeps a record of itself.
//!
//! An operator who has only the URL of a broker finds by it which services run, in which version, and where their ops
//! endpoints are. A record expires by itself, so a directory needs no failure detector: an instance refreshes its record
//! while it lives and removes it when it ends.

mod record;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;

pub use self::record::{DirectoryEntry, DirectoryHandler};
pub use self::topic::{DIRECTORY_TOPIC, DirectoryTopic};
use crate::{Name, Result, Timestamp};

/// Keeps a record of each running instance of each service.
#[async_trait]
pub trait Directory: Debug + Send + Sync + 'static {
    /// Writes the entry of an instance, in place of its earlier one. Dropping the future may still write it.
    ///
    /// # Errors
    /// Those of [`Publisher::publish`](crate::Publisher::publish).
    async fn put(&self, entry: &DirectoryEntry) -> Result<()>;

    /// Removes the entry of an instance, if there is one. Dropping the future may still remove it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    async fn remove(&self, service: &Name, instance: &str) -> Result<()>;

    /// Returns all entries, sorted by service and instance, those that have expired as well. Has no effect.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`NotFound`](crate::ErrorKind::NotFound) if there is no directory.
    async fn entries(&self) -> Result<Vec<DirectoryEntry>>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Directory + ?Sized> Directory for Arc<D> {
    async fn put(&self, entry: &DirectoryEntry) -> Result<()> {
        (**self).put(entry).await
    }

    async fn remove(&self, service: &Name, instance: &str) -> Result<()> {
        (**self).remove(service, instance).await
    }

    async fn entries(&self) -> Result<Vec<DirectoryEntry>> {
        (**self).entries().await
    }
}

/// Lists the instances that live at `now`, and how those of one service differ.
///
/// ```
/// use tidings_core::directory::{self, Directory};
/// use tidings_core::{Result, Timestamp};
///
/// async fn show(directory: &dyn Directory) -> Result<()> {
///     let listing = directory::list(directory, Timestamp::now()).await?;
///     for entry in &listing.live {
///         println!("{} {} {}", entry.service, entry.instance, entry.ops_url.as_deref().unwrap_or("-"));
///     }
///     for drift in &listing.drifts {
///         println!("{drift}"); // "billing runs 2 versions: 1.4.0 (2 instances), 1.5.0 (1 instance)"
///     }
///     Ok(())
/// }
/// ```
///
/// # Errors
/// Those of [`Directory::entries`].
pub async fn list(directory: &dyn Directory, now: Timestamp) -> Result<Listing> {
    Ok(Listing::of(directory.entries().await?, now))
}

/// The instances in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The instances that live, by service and instance.
    pub live: Vec<DirectoryEntry>,
    /// The instances whose record has expired: they ended without removing it, or cannot write.
    pub expired: Vec<DirectoryEntry>,
    /// How instances of one service differ.
    pub drifts: Vec<Drift>,
}

impl Listing {
    /// Sorts entries into those that live at `now` and the others.
    pub fn of(mut entries: Vec<DirectoryEntry>, now: Timestamp) -> Self {
        entries.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        let (live, expired): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.is_live(now));
        let drifts = live.chunk_by(|a, b| a.service == b.service).flat_map(drifts).collect();
        Self { live, expired, drifts }
    }
}

/// In what instances of one service differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DriftKind {
    /// In the version of the program.
    Version,
    /// In the topics and handlers.
    Topology,
    /// In the settings.
    Settings,
}

impl DriftKind {
    /// Returns the stable name: `"version"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Topology => "topology",
            Self::Settings => "settings",
        }
    }
}

/// A difference between the live instances of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drift {
    /// The service.
    pub service: Name,
    /// In what they differ.
    pub kind: DriftKind,
    /// The instances by their version, or by the digest of their topology or settings.
    pub instances: BTreeMap<String, BTreeSet<String>>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = match self.kind {
            DriftKind::Version => "versions",
            DriftKind::Topology => "topologies",
            DriftKind::Settings => "settings",
        };
        write!(f, "{} runs {} {kinds}: ", self.service, self.instances.len())?;
        for (at, (value, instances)) in self.instances.iter().enumerate() {
            let (comma, plural) = (if at == 0 { "" } else { ", " }, if instances.len() == 1 { "" } else { "s" });
            write!(f, "{comma}{value} ({} instance{plural})", instances.len())?;
        }
        Ok(())
    }
}

/// Returns in what instances may differ.
type Value = fn(&DirectoryEntry) -> String;

/// Returns the differences between the instances of one service.
fn drifts(instances: &[DirectoryEntry]) -> Vec<Drift> {
    let kinds: [(DriftKind, Value); 3] = [
        (DriftKind::Version, |entry| entry.version.clone()),
        (DriftKind::Topology, DirectoryEntry::topology),
        (DriftKind::Settings, |entry| entry.settings.clone()),
    ];
    let drift = |(kind, value): (DriftKind, Value)| {
        let mut by_value: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in instances {
            by_value.entry(value(entry)).or_default().insert(entry.instance.clone());
        }
        let service = instances.first()?.service.clone();
        (by_value.len() > 1).then_some(Drift { service, kind, instances: by_value })
    };
    kinds.into_iter().filter_map(drift).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(service: &'static str, instance: &str, version: &str) -> DirectoryEntry {
        DirectoryEntry::new(service, instance, Duration::from_secs(30)).with_version(version)
    }

    #[test]
    fn entries_that_expired_are_apart_and_differences_are_shown() {
        let now = Timestamp::now();
        let mut gone = entry("billing", "c", "0.9");
        gone.refreshed = now.saturating_sub(Duration::from_secs(31));
        let handler = DirectoryHandler::new("orders", "charge");
        let all = vec![
            entry("shipping", "a", "2.0"),
            entry("billing", "b", "1.1"),
            entry("billing", "a", "1.0").with_handler(handler),
            gone,
        ];
        let listing = Listing::of(all, now);
        let names = |entries: &[DirectoryEntry]| {
            entries.iter().map(|entry| format!("{}/{}", entry.service, entry.instance)).collect::<Vec<_>>()
        };
        assert_eq!(names(&listing.live), ["billing/a", "billing/b", "shipping/a"]);
        assert_eq!(names(&listing.expired), ["billing/c"]);
        let kinds: Vec<_> = listing.drifts.iter().map(|drift| (drift.service.as_str(), drift.kind.as_str())).collect();
        assert_eq!(kinds, [("billing", "version"), ("billing", "topology")]);
        let text = listing.drifts[0].to_string();
        assert_eq!(text, "billing runs 2 versions: 1.0 (1 instance), 1.1 (1 instance)");
    }
}

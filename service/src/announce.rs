//! The service's record in a directory: written at the start, refreshed by one timer, removed at the end.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::directory::{DIRECTORY_TOPIC, Directory, DirectoryEntry, DirectoryTopic};
use tidings_core::{Error, ErrorKind, Name, Result, Timestamp, Transport};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::directory::DirectoryOptions;
use crate::engine::ServiceStats;
use crate::service::Service;
use crate::settings::Options;

/// The namespace of digests of settings. They are compared across programs, so it must not change.
const SETTINGS_NAMESPACE: Uuid = Uuid::from_u128(0x2b0e_5a17_43a6_4f0d_8f7e_5d1c_7c6b_90a4);
/// The number of refreshes within the time that an entry is valid.
const REFRESHES: u32 = 3;
/// The limit of the removal at the end; an entry that stays expires.
const REMOVAL_LIMIT: Duration = Duration::from_secs(2);

impl Service {
    /// Keeps a record of this instance in a directory, by which operators find all running instances: service,
    /// instance, version, handlers, state and the URL of its ops endpoint. Off by default.
    ///
    /// The record is written when the service has started, refreshed while it runs, and removed at its end; that of a
    /// process that was killed expires. A failure to write it is logged, and the service runs on. See
    /// [`DirectoryOptions`] for the version and for another directory than a topic.
    ///
    /// `start` fails if the directory cannot be opened, or if the URL contains a user or a password.
    ///
    /// ```no_run
    /// # use tidings_core::{Delivery, Transport};
    /// # use tidings_service::{DirectoryOptions, Router, Service};
    /// # async fn example<T: Transport + Clone>(transport: T) -> tidings_core::Result<()> {
    /// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
    /// let directory = DirectoryOptions::new("http://10.0.0.7:9400").with_version(env!("CARGO_PKG_VERSION"));
    /// let service = Service::new("meter", router).with_directory(directory).start(&transport).await?;
    /// # Ok(()) }
    /// ```
    pub fn with_directory(mut self, options: impl Into<DirectoryOptions>) -> Self {
        self.options.directory = Some(options.into());
        self
    }
}

/// An entry that is about to be written.
#[derive(Debug)]
pub(crate) struct Announcement {
    entry: DirectoryEntry,
    /// `None` stands for the topic of the service's transport.
    directory: Option<Arc<dyn Directory>>,
}

impl Announcement {
    /// Prepares the entry of a service, if it is to have one.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a wrong option.
    pub(crate) fn of(service: &Service) -> Result<Option<Self>> {
        let Some(options) = &service.options.directory else { return Ok(None) };
        let context = |error: Error| error.in_context(format_args!("start {:?}", service.name));
        options.check().map_err(context)?;
        let own = service.options.membership.instance_id.as_ref().map(Name::to_string);
        let instance = options.instance.clone().or(own).unwrap_or_else(|| Uuid::now_v7().to_string());
        let mut entry = DirectoryEntry::new(service.name.clone(), instance, options.ttl);
        entry.group = service.options.membership.group.clone();
        entry.version.clone_from(&options.version);
        entry.ops_url = Some(options.advertised_url.clone()).filter(|url| !url.is_empty());
        entry.settings = digest(&service.options);
        entry.handlers = service.router.directory_handlers(&service.options.topics.prefix);
        Ok(Some(Self { entry, directory: options.directory.clone() }))
    }

    /// Opens the directory.
    ///
    /// # Errors
    /// Those of opening or creating the topic.
    pub(crate) async fn open(self, transport: &dyn Transport) -> Result<Announcer> {
        let Self { entry, directory } = self;
        let directory = match directory {
            Some(directory) => directory,
            None => {
                let opened = open_topic(transport).await;
                opened.map_err(|error| error.in_context(format_args!("start {:?}", entry.service)))?
            }
        };
        Ok(Announcer { entry, directory })
    }
}

/// The writer of an entry.
#[derive(Debug)]
pub(crate) struct Announcer {
    entry: DirectoryEntry,
    directory: Arc<dyn Directory>,
}

impl Announcer {
    /// Starts to write the entry, until the service has ended.
    pub(crate) fn begin(self, stats: ServiceStats) -> JoinHandle<()> {
        tokio::spawn(self.run(stats))
    }

    async fn run(mut self, stats: ServiceStats) {
        let pause = self.entry.ttl / REFRESHES;
        let mut failing = false;
        loop {
            self.entry.state = stats.snapshot().state.to_string();
            self.entry.refreshed = Timestamp::now();
            let written = timeout(pause, self.directory.put(&self.entry)).await;
            let no_answer = |_| Error::new(ErrorKind::Unavailable, "write the directory entry: no answer in time");
            let written = written.unwrap_or_else(|elapsed| Err(no_answer(elapsed)));
            self.log(&written, failing);
            failing = written.is_err();
            if timeout(pause, stats.ended()).await.is_ok() {
                break;
            }
        }
        // An entry that stays expires.
        let _removed = timeout(REMOVAL_LIMIT, self.directory.remove(&self.entry.service, &self.entry.instance)).await;
    }

    /// Logs the first failure of several, and the end of them.
    fn log(&self, written: &Result<()>, failing: bool) {
        let service = self.entry.service.as_str();
        match written {
            Err(error) if !failing => tracing::warn!(
                target: "tidings::service",
                service,
                error = error.report(),
                "cannot write the directory entry; operators do not find this instance once it expires"
            ),
            Ok(()) if failing => {
                tracing::info!(target: "tidings::service", service, "the directory entry is written again")
            }
            _ => {}
        }
    }
}

async fn open_topic(transport: &dyn Transport) -> Result<Arc<dyn Directory>> {
    let directory = DirectoryTopic::open(transport, DIRECTORY_TOPIC).await?;
    directory.ensure().await?;
    Ok(Arc::new(directory))
}

/// Returns a digest of the settings that should be equal in all instances of a service.
fn digest(options: &Options) -> String {
    let Options { membership, claims, failures, topics, flow, shutdown_timeout, stall_after, .. } = options;
    let text = format!(
        "{:?}",
        (
            (&membership.group, membership.session_timeout, membership.revocation_deadline),
            (claims.store.is_some(), &claims.scope, claims.scope_per_topic, claims.lease_ttl),
            (&failures.retry, failures.unknown, &failures.breaker, failures.dead_letters.is_some()),
            (topics, flow, shutdown_timeout, stall_after),
        )
    );
    Uuid::new_v5(&SETTINGS_NAMESPACE, text.as_bytes()).simple().to_string()
}

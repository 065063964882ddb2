//! The brokers of a cluster, the leaders of partitions, and one connection to each broker.
//!
//! Metadata is requested over a separate connection, so that no long poll delays it. If no answer arrives there, all
//! brokers are queried, and the first answer is used.

mod backoff;
mod metadata;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use tidings_core::settings::Address;
use tidings_core::{Error, ErrorKind, Name, Result, TopicPartition};
use tokio::time::{sleep, timeout};

use self::backoff::Backoff;
pub(crate) use self::metadata::Leader;
use self::metadata::Metadata;
use super::connection::{Connection, Endpoint};
use crate::config::KafkaConfig;

/// Time after which the other brokers are queried, too, if the first has not answered.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time limit of a request for metadata, and of connecting to a single broker: one that hangs must not delay others for
/// longer.
const LIMIT: Duration = Duration::from_secs(3);
/// Number of brokers queried at once.
const AT_ONCE: usize = 16;

/// A cluster. Clones share its metadata and connections.
#[derive(Debug, Clone)]
pub(crate) struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<KafkaConfig>,
    state: Mutex<State>,
    /// The connection for metadata, locked during a request.
    control: tokio::sync::Mutex<Option<Connection>>,
}

#[derive(Debug, Default)]
struct State {
    metadata: Metadata,
    slots: HashMap<i32, Arc<tokio::sync::Mutex<Slot>>>,
}

/// The connection to a broker; locked while it is opened.
#[derive(Debug, Default)]
struct Slot {
    connection: Option<Connection>,
    backoff: Backoff,
}

impl Cluster {
    /// Connects to all configured brokers at once, and uses the first that answers.
    ///
    /// # Errors
    /// Those of [`Connection::open`], if no broker answers. A refusal takes precedence over a timeout.
    pub(crate) async fn connect(config: &KafkaConfig) -> Result<Self> {
        let cluster = Self::new(config);
        cluster.refresh(&[]).await?;
        Ok(cluster)
    }

    /// Creates a cluster of which nothing is known yet.
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        let config = Arc::new(config.clone());
        Self(Arc::new(Inner { config, state: Mutex::default(), control: tokio::sync::Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the configuration.
    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.0.config
    }

    /// Returns the leader of a partition, as last reported.
    pub(crate) fn leader(&self, at: &TopicPartition) -> Option<Leader> {
        self.lock().metadata.leader(at)
    }

    /// Records the leader that a broker names in an answer, unless it is older than the known leader.
    pub(crate) fn learn_leader(&self, at: &TopicPartition, leader: Leader) {
        self.lock().metadata.learn_leader(at, leader);
    }

    /// Returns the leaders of a topic's partitions, as last reported; `None` for one without a leader.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) and [`Denied`](ErrorKind::Denied), as the broker answered;
    /// [`Unavailable`](ErrorKind::Unavailable) for a topic that was not requested.
    pub(crate) fn leaders(&self, topic: &Name) -> Result<HashMap<u32, Option<i32>>> {
        self.lock().metadata.leaders(topic)
    }

    /// Requests the brokers, and the leaders of these topics. Topics that are no longer requested are removed.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if no broker answers; [`Denied`](ErrorKind::Denied) if one refuses the
    /// credentials and no other answers. The known leaders are kept.
    pub(crate) async fn refresh(&self, topics: &[Name]) -> Result<()> {
        let answer = self.ask(topics).await?;
        self.update(|metadata| metadata.update(&answer));
        Ok(())
    }

    fn update<T>(&self, update: impl FnOnce(&mut Metadata) -> T) -> T {
        let mut state = self.lock();
        let State { metadata, slots } = &mut *state;
        let updated = update(metadata);
        slots.retain(|broker, _| metadata.endpoint(*broker).is_some());
        updated
    }

    async fn ask(&self, topics: &[Name]) -> Result<MetadataResponse> {
        let request = metadata::request(topics);
        let mut control = self.0.control.lock().await;
        let answer = match self.ask_control(control.as_ref(), &request).await {
            Some(answer) => answer,
            None => {
                // Another caller, after this one was cancelled, must not wait for it again.
                *control = None;
                let (connection, answer) = self.ask_any(&request).await?;
                *control = Some(connection);
                answer
            }
        };
        Ok(answer)
    }

    /// Requests the leaders of these topics, and returns the number of partitions of each topic. Keeps the metadata of
    /// other topics. Topics that do not exist are [`NotFound`](ErrorKind::NotFound), and are not remembered.
    ///
    /// # Errors
    /// Those of [`refresh`](Self::refresh).
    pub(crate) async fn look_up(&self, topics: &[Name]) -> Result<Vec<(Name, Result<u32>)>> {
        let answer = self.ask(topics).await?;
        Ok(self.update(|metadata| metadata.merge(&answer)))
    }

    /// Closes the connections that no request uses. A later request opens them again.
    pub(crate) async fn disconnect(&self) {
        self.lock().slots.clear();
        *self.0.control.lock().await = None;
    }

    /// Returns the ids of the known brokers.
    pub(crate) fn brokers(&self) -> Vec<i32> {
        self.lock().metadata.brokers().collect()
    }

    /// Sends the request over the open connection; `None` without a connection, or without an answer in time.
    async fn ask_control(&self, control: Option<&Connection>, request: &MetadataRequest) -> Option<MetadataResponse> {
        let control = control.filter(|connection| connection.is_usable())?;
        let answer = timeout(PATIENCE, control.request(request, self.limit())).await.ok()?;
        answer
            .inspect_err(|error| {
                tracing::debug!(error = error.error().report(), "metadata request failed; querying the other brokers")
            })
            .ok()
    }

    fn limit(&self) -> Duration {
        self.0.config.request_timeout.min(LIMIT)
    }

    /// Connects to the configured and the known brokers, and returns the first answer.
    async fn ask_any(&self, request: &MetadataRequest) -> Result<(Connection, MetadataResponse)> {
        let ask = |endpoint: Endpoint| async move {
            let connection = Connection::open(&endpoint, &self.0.config, self.0.config.connect_timeout).await?;
            let answer = connection.request(request, self.limit()).await.map_err(Error::from)?;
            Result::Ok((connection, answer))
        };
        let mut answers = stream::iter(self.endpoints()?).map(ask).buffer_unordered(AT_ONCE);
        let mut failure: Option<Error> = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => return Ok(answer),
                // A refusal names the cause, a timeout does not.
                Err(error) if failure.as_ref().is_none_or(Error::is_retryable) => failure = Some(error),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "there is no broker to connect to")))
    }

    /// Returns the addresses of the configured brokers, followed by those of the others.
    fn endpoints(&self) -> Result<Vec<Endpoint>> {
        let configured = self.0.config.brokers.iter().map(|broker| {
            let address = Address::parse("brokers", broker).map_err(crate::config::in_context)?;
            let port = address.port().ok_or_else(|| Error::new(ErrorKind::Invalid, "brokers: a port is missing"))?;
            Ok(Endpoint { host: address.host().to_owned(), port })
        });
        let mut endpoints = configured.collect::<Result<Vec<_>>>()?;
        endpoints.extend(self.lock().metadata.endpoints().cloned());
        let mut seen = HashSet::new();
        endpoints.retain(|endpoint| seen.insert(endpoint.clone()));
        Ok(endpoints)
    }

    /// Returns the connection to a broker, and opens it if necessary.
    ///
    /// Attempts after a failure wait with exponential backoff and jitter, up to a second.
    ///
    /// # Errors
    /// Those of [`Connection::open`]; [`Unavailable`](ErrorKind::Unavailable) for a broker that the metadata do not
    /// contain.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn connection(&self, broker: i32) -> Result<Connection> {
        let (endpoint, slot) = {
            let mut state = self.lock();
            let unknown = || Error::new(ErrorKind::Unavailable, format!("connect to broker {broker}: it is unknown"));
            let endpoint = state.metadata.endpoint(broker).cloned().ok_or_else(unknown)?;
            (endpoint, Arc::clone(state.slots.entry(broker).or_default()))
        };
        let mut slot = slot.lock().await;
        if let Some(open) = slot.connection.as_ref().filter(|open| open.is_usable() && *open.endpoint() == endpoint) {
            return Ok(open.clone());
        }
        slot.connection = None;
        sleep(slot.backoff.left()).await;
        match Connection::open(&endpoint, &self.0.config, self.0.config.connect_timeout.min(LIMIT)).await {
            Ok(connection) => {
                slot.backoff.reset();
                slot.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                slot.backoff.failed();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_without_an_answer_is_not_used_again_even_if_its_caller_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let broker = listener.local_addr().expect("an address").to_string();
        let (cluster, (control, _socket)) = (Cluster::new(&KafkaConfig::new([broker])), Connection::unconnected());
        *cluster.0.control.lock().await = Some(control);
        let topics = ["t".into()];
        tokio::select! {
            _answer = cluster.look_up(&topics) => panic!("no broker answers"),
            _connected = listener.accept() => {}
        }
        assert!(cluster.0.control.lock().await.is_none());
    }
}

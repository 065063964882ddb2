//! Kafka clusters.

pub(crate) mod install;
pub(crate) mod node;
pub(crate) mod options;
pub(crate) mod properties;
mod token;

use crate::{
    blocking::blocking,
    certs::{Authority, Certificate, Identity},
    error::{Context, Error, Result},
    ports::Port,
    process::ServerDir,
    proxy::{Framing, Proxy},
};
use install::{Install, USERS};
use node::{Node, Parts};
use options::{KafkaOptions, Listener};
use properties::Addresses;
use std::{env, fs, path::Path, sync::Arc, time::Duration};

/// The bootstrap servers of a broker that is already there, for tests that any broker will do for.
pub const KAFKA_VARIABLE: &str = "TIDINGS_KAFKA";

/// A cluster of Apache Kafka brokers (KRaft) on loopback. Dropping the last clone ends it, and so does the end of this
/// process.
#[derive(Debug, Clone)]
pub struct Kafka {
    inner: Arc<Cluster>,
}

#[derive(Debug)]
struct Cluster {
    options: KafkaOptions,
    install: Install,
    // Before the folder, so that no broker writes to it when it is removed.
    nodes: Vec<Node>,
    authority: Authority,
    stranger: Authority,
    _dir: ServerDir,
}

impl Kafka {
    /// Starts a cluster and waits until all of its nodes know each other: some 4 s for a node, plus half a minute when
    /// the jars have to be fetched first.
    ///
    /// # Errors
    /// [Unavailable](Error::is_unavailable) without Java or Maven; failed when a node does not come up.
    pub async fn start(options: KafkaOptions) -> Result<Self> {
        blocking(move || Self::start_blocking(options)).await
    }

    fn start_blocking(options: KafkaOptions) -> Result<Self> {
        if options.nodes == 0 {
            return Err(Error::failed("nodes: expected 1 or more, got 0"));
        }
        let install = Install::find()?;
        let dir = ServerDir::new("kafka")?;
        let authority = Authority::generate("tidings testbed")?;
        let stranger = Authority::generate("tidings testbed stranger")?;
        if options.needs_certs() {
            write_certs(&authority, &dir.path().join("certs"))?;
        }
        let nodes = lay_out(&options, &install, dir.path())?;
        let kafka = Self { inner: Arc::new(Cluster { options, install, nodes, authority, stranger, _dir: dir }) };
        for node in kafka.nodes() {
            node.spawn()?;
        }
        let all = kafka.nodes().len();
        for node in kafka.nodes() {
            node.wait_until(|view| view.controller >= 0 && view.brokers.len() == all)?;
        }
        Ok(kafka)
    }

    /// The addresses of [`Listener::Plain`], separated by commas.
    pub fn bootstrap(&self) -> String {
        self.addresses(Listener::Plain)
    }

    /// The addresses of `listener`, separated by commas.
    ///
    /// # Errors
    /// When the options did not ask for it.
    pub fn bootstrap_on(&self, listener: Listener) -> Result<String> {
        if !self.inner.options.has(listener) {
            return Err(Error::failed(format!("the cluster was started without the listener {listener}")));
        }
        Ok(self.addresses(listener))
    }

    fn addresses(&self, listener: Listener) -> String {
        let addresses: Vec<_> = self.nodes().iter().filter_map(|node| node.address(listener)).collect();
        addresses.join(",")
    }

    /// What the cluster was started with.
    pub fn options(&self) -> &KafkaOptions {
        &self.inner.options
    }

    /// All nodes, the first one (id 1) first.
    pub fn nodes(&self) -> &[Node] {
        &self.inner.nodes
    }

    /// The node at `index`, whose id is `index + 1`.
    ///
    /// # Panics
    /// When there are fewer nodes.
    pub fn node(&self, index: usize) -> &Node {
        &self.inner.nodes[index]
    }

    /// The node with this id, as metadata and clients name it.
    pub fn node_with_id(&self, id: i32) -> Option<&Node> {
        self.nodes().iter().find(|node| node.id() == id)
    }

    /// The certificate of the authority that signed the servers' certificates.
    pub fn ca_pem(&self) -> String {
        self.inner.authority.pem()
    }

    /// The certificate of an authority that signed none of them.
    pub fn wrong_ca_pem(&self) -> String {
        self.inner.stranger.pem()
    }

    /// A client certificate that [`Listener::MutualTls`] takes; the principal is `User:CN=name`.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn client_cert(&self, name: &str) -> Result<Identity> {
        self.inner.authority.client(name)
    }

    /// A client certificate of the wrong authority, which [`Listener::MutualTls`] refuses.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn wrong_client_cert(&self, name: &str) -> Result<Identity> {
        self.inner.stranger.client(name)
    }

    /// The users that SASL knows, with their passwords: `admin` (the super user with ACLs), `alice` and `bob`.
    pub fn users() -> [(&'static str, &'static str); 3] {
        USERS
    }

    /// A bearer token for SASL's OAUTHBEARER, valid for `life`; with zero it is one that has expired. It is unsecured: the
    /// broker takes any subject.
    pub fn bearer_token(subject: &str, life: Duration) -> String {
        // One that has expired did so well before any clock skew that a broker might forgive.
        let age = if life.is_zero() { Duration::from_secs(600) } else { Duration::ZERO };
        token::unsecured(subject, age, life)
    }

    /// Waits until each running node sees exactly `count` brokers: after a kill, until the dead one is missed, which
    /// takes a broker's session (6 s).
    ///
    /// # Errors
    /// When that does not come true within [`START_TIMEOUT`](crate::START_TIMEOUT).
    pub async fn wait_for_brokers(&self, count: usize) -> Result<()> {
        let kafka = self.clone();
        blocking(move || {
            let mut running = kafka.nodes().iter().filter(|node| node.is_running());
            running.try_for_each(|node| node.wait_until(|view| view.brokers.len() == count))
        })
        .await
    }

    /// The id of the node whose controller leads the quorum: what is asked of KRaft itself, by Java's own tool.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn controller(&self) -> Result<i32> {
        let status = self
            .tool("org.apache.kafka.tools.MetadataQuorumCommand", &["--bootstrap-server", "@", "describe", "--status"])
            .await?;
        let leader = status.lines().find_map(|line| line.strip_prefix("LeaderId:"));
        leader
            .and_then(|id| id.trim().parse().ok())
            .ok_or_else(|| Error::failed(format!("no leader in the quorum's status: {status}")))
    }

    /// Lets `user` (`alice`, or `CN=name` of a client certificate) do `operation` on what `resource` names, in the
    /// words of Kafka's own tool: `allow("alice", "Read", &["--topic", "orders"])`. It takes a second or two.
    ///
    /// # Errors
    /// When the tool or the cluster refuses.
    pub async fn allow(&self, user: &str, operation: &str, resource: &[&str]) -> Result<()> {
        let principal = format!("User:{user}");
        let mut args =
            vec!["--bootstrap-server", "@", "--add", "--allow-principal", &principal, "--operation", operation];
        args.extend(resource);
        self.tool("org.apache.kafka.tools.AclCommand", &args).await.map(drop)
    }

    /// Runs the main class of one of Kafka's own command line tools and gives its output: a witness that shares no code
    /// with us. An argument `@` becomes [`bootstrap`](Self::bootstrap).
    ///
    /// # Errors
    /// When the tool ends with a failure; the error has its output.
    pub async fn tool(&self, class: &str, args: &[&str]) -> Result<String> {
        let resolve = |arg: &&str| if *arg == "@" { self.bootstrap() } else { (*arg).to_owned() };
        let args: Vec<_> = args.iter().map(resolve).collect();
        let (install, class) = (self.inner.install.clone(), class.to_owned());
        blocking(move || install.run_tool(&class, &args)).await
    }
}

fn write_certs(authority: &Authority, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).at(dir)?;
    let files = [
        ("ca.pem", authority.pem()),
        ("server.pem", authority.server(Certificate::Good)?.key_and_cert_pem()),
        ("expired.pem", authority.server(Certificate::Expired)?.key_and_cert_pem()),
        ("wrong-name.pem", authority.server(Certificate::WrongName)?.key_and_cert_pem()),
    ];
    for (name, pem) in files {
        let file = dir.join(name);
        fs::write(&file, pem).at(&file)?;
    }
    Ok(())
}

/// Gives each node its ports and its folder.
fn lay_out(options: &KafkaOptions, install: &Install, root: &Path) -> Result<Vec<Node>> {
    let mut addresses = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..options.nodes {
        let (address, held) = reserve(options)?;
        addresses.push(address);
        ports.push(held);
    }
    // The id of the cluster, which each node's folder repeats.
    let cluster_id = token::random_id();
    let mut texts = Vec::new();
    for index in 0..options.nodes {
        let dir = root.join(format!("node-{}", index + 1));
        prepare_data(install, &dir.join("data"), index + 1, &cluster_id)?;
        let text = properties::server(options, &addresses, index, &dir.join("data"), &root.join("certs"));
        let file = dir.join("server.properties");
        fs::write(&file, text).at(&file)?;
        texts.push(file);
    }
    let heap = if options.nodes == 1 { ["-Xms128m", "-Xmx512m"] } else { ["-Xms96m", "-Xmx400m"] };
    let parts = addresses.into_iter().zip(ports).zip(texts).enumerate();
    let nodes = parts.map(|(index, ((addresses, ports), properties))| {
        let proxy = proxy_before(&addresses)?;
        let log = properties.with_file_name("log.txt");
        let heap = heap.map(str::to_owned).into();
        let id = i32::try_from(index + 1).unwrap_or(i32::MAX);
        Ok(Node::new(install, Parts { id, addresses, properties, heap, log, proxy, ports }))
    });
    nodes.collect()
}

fn reserve(options: &KafkaOptions) -> Result<(Addresses, Vec<Port>)> {
    let controller = Port::reserve()?;
    let mut addresses = Addresses { bind: [].into(), advertised: [].into(), controller: controller.address() };
    let mut ports = vec![controller];
    for listener in options.listeners() {
        let port = Port::reserve()?;
        addresses.bind.insert(listener, port.address());
        addresses.advertised.insert(listener, port.address());
        ports.push(port);
        if listener == Listener::Proxied {
            let before = Port::reserve()?;
            addresses.advertised.insert(listener, before.address());
            ports.push(before);
        }
    }
    Ok((addresses, ports))
}

fn proxy_before(addresses: &Addresses) -> Result<Option<Proxy>> {
    let Some(target) = addresses.bind.get(&Listener::Proxied) else { return Ok(None) };
    let advertised = &addresses.advertised[&Listener::Proxied];
    Proxy::start_at(advertised, target.clone(), Framing::Kafka).map(Some)
}

/// Copies the formatted template and makes it this node's.
fn prepare_data(install: &Install, data: &Path, id: usize, cluster_id: &str) -> Result<()> {
    fs::create_dir_all(data).at(data)?;
    let template = install.template();
    for entry in fs::read_dir(&template).at(&template)? {
        let from = entry.at(&template)?.path();
        if let Some(name) = from.file_name().filter(|_| from.is_file()) {
            fs::copy(&from, data.join(name)).at(&from)?;
        }
    }
    let meta = data.join("meta.properties");
    let directory = token::random_id();
    let text = format!("version=1\nnode.id={id}\ncluster.id={cluster_id}\ndirectory.id={directory}\n");
    fs::write(&meta, text).at(&meta)
}

/// The broker that all test processes may use: its topics must be fresh ones, and nobody may kill it.
#[derive(Debug, Clone)]
pub struct SharedKafka {
    bootstrap: String,
}

impl SharedKafka {
    /// Its bootstrap servers.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

impl Kafka {
    /// The broker in [`KAFKA_VARIABLE`], which `cargo xtask test` sets; else a node that this process starts once and
    /// keeps to its end.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn shared() -> Result<SharedKafka> {
        static STARTED: tokio::sync::OnceCell<Kafka> = tokio::sync::OnceCell::const_new();
        if let Ok(bootstrap) = env::var(KAFKA_VARIABLE) {
            return Ok(SharedKafka { bootstrap });
        }
        let kafka = STARTED.get_or_try_init(|| Self::start(KafkaOptions::new())).await?;
        Ok(SharedKafka { bootstrap: kafka.bootstrap() })
    }
}

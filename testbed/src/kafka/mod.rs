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

/// Variable with the bootstrap servers of an existing broker, for tests that work with any broker.
pub const KAFKA_VARIABLE: &str = "TIDINGS_KAFKA";

/// A cluster of Apache Kafka brokers (KRaft) on loopback. It ends when the last clone is dropped or this process
/// ends.
#[derive(Debug, Clone)]
pub struct Kafka {
    inner: Arc<Cluster>,
}

#[derive(Debug)]
struct Cluster {
    options: KafkaOptions,
    install: Install,
    // Dropped before the folder, so that no broker writes to it when it is removed.
    nodes: Vec<Node>,
    authority: Authority,
    stranger: Authority,
    _dir: ServerDir,
}

impl Kafka {
    /// Starts a cluster and waits until all of its nodes know each other: about 4 s for a node, plus half a minute if
    /// the jars must be downloaded first.
    ///
    /// # Errors
    /// [Unavailable](Error::is_unavailable) without Java or Maven; failed if a node does not start.
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

    /// Returns the addresses of [`Listener::Plain`], separated by commas.
    pub fn bootstrap(&self) -> String {
        self.addresses(Listener::Plain)
    }

    /// Returns the addresses of `listener`, separated by commas.
    ///
    /// # Errors
    /// If the options do not include the listener.
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

    /// Returns the options of the cluster.
    pub fn options(&self) -> &KafkaOptions {
        &self.inner.options
    }

    /// Returns all nodes, beginning with id 1.
    pub fn nodes(&self) -> &[Node] {
        &self.inner.nodes
    }

    /// Returns the node at `index`, whose id is `index + 1`.
    ///
    /// # Panics
    /// If there are fewer nodes.
    pub fn node(&self, index: usize) -> &Node {
        &self.inner.nodes[index]
    }

    /// Returns the node with this id, as metadata and clients name it.
    pub fn node_with_id(&self, id: i32) -> Option<&Node> {
        self.nodes().iter().find(|node| node.id() == id)
    }

    /// Returns the certificate of the authority that signed the servers' certificates.
    pub fn ca_pem(&self) -> String {
        self.inner.authority.pem()
    }

    /// Returns the certificate of an authority that signed none of them.
    pub fn wrong_ca_pem(&self) -> String {
        self.inner.stranger.pem()
    }

    /// Creates a client certificate that [`Listener::MutualTls`] accepts; the principal is `User:CN=name`.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub fn client_cert(&self, name: &str) -> Result<Identity> {
        self.inner.authority.client(name)
    }

    /// Creates a client certificate of the wrong authority, which [`Listener::MutualTls`] refuses.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub fn wrong_client_cert(&self, name: &str) -> Result<Identity> {
        self.inner.stranger.client(name)
    }

    /// Returns the SASL users, with their passwords: `admin` (the super user with ACLs), `alice` and `bob`.
    pub fn users() -> [(&'static str, &'static str); 3] {
        USERS
    }

    /// Creates a bearer token for SASL's OAUTHBEARER, valid for `life`, or already expired if `life` is zero. It is
    /// unsecured: the broker accepts any subject.
    pub fn bearer_token(subject: &str, life: Duration) -> String {
        // An expired token expired well before any clock skew that a broker might tolerate.
        let age = if life.is_zero() { Duration::from_secs(600) } else { Duration::ZERO };
        token::unsecured(subject, age, life)
    }

    /// Waits until each running node sees exactly `count` brokers: after a kill, until the broker's session expires
    /// (6 s).
    ///
    /// # Errors
    /// If that does not happen within [`START_TIMEOUT`](crate::START_TIMEOUT).
    pub async fn wait_for_brokers(&self, count: usize) -> Result<()> {
        let kafka = self.clone();
        blocking(move || {
            let mut running = kafka.nodes().iter().filter(|node| node.is_running());
            running.try_for_each(|node| node.wait_until(|view| view.brokers.len() == count))
        })
        .await
    }

    /// Returns the id of the node whose controller leads the quorum, as reported by KRaft through Java's own tool.
    ///
    /// # Errors
    /// If no node answers.
    pub async fn controller(&self) -> Result<i32> {
        let status = self
            .tool("org.apache.kafka.tools.MetadataQuorumCommand", &["--bootstrap-server", "@", "describe", "--status"])
            .await?;
        let leader = status.lines().find_map(|line| line.strip_prefix("LeaderId:"));
        leader
            .and_then(|id| id.trim().parse().ok())
            .ok_or_else(|| Error::failed(format!("no leader in the quorum's status: {status}")))
    }

    /// Allows `user` (`alice`, or `CN=name` of a client certificate) to do `operation` on the resource, in the
    /// options of Kafka's own tool: `allow("alice", "Read", &["--topic", "orders"])`. It takes a second or two.
    ///
    /// # Errors
    /// If the tool or the cluster refuses.
    pub async fn allow(&self, user: &str, operation: &str, resource: &[&str]) -> Result<()> {
        let principal = format!("User:{user}");
        let mut args =
            vec!["--bootstrap-server", "@", "--add", "--allow-principal", &principal, "--operation", operation];
        args.extend(resource);
        self.tool("org.apache.kafka.tools.AclCommand", &args).await.map(drop)
    }

    /// Runs the main class of one of Kafka's own command line tools and returns its output: a witness that shares no
    /// code with us. An argument `@` becomes [`bootstrap`](Self::bootstrap).
    ///
    /// # Errors
    /// If the tool fails; the error has its output.
    pub async fn tool(&self, class: &str, args: &[&str]) -> Result<String> {
        let resolve = |arg: &&str| if *arg == "@" { self.bootstrap() } else { (*arg).to_owned() };
        let args: Vec<_> = args.iter().map(resolve).collect();
        let (install, class) = (self.inner.install.clone(), class.to_owned());
        blocking(move || install.run_tool(&class, &args)).await
    }

    /// Runs a Java program with Kafka's classes, without a cluster, and returns its output. The program is a main
    /// class, or the path of a `.java` source file.
    ///
    /// # Errors
    /// If there is no Java, or the program fails; the error has its output.
    pub async fn java(program: impl Into<String>, args: &[&str]) -> Result<String> {
        let (program, args) = (program.into(), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        blocking(move || Install::find()?.run_tool(&program, &args)).await
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

/// Assigns each node its ports and its folder.
fn lay_out(options: &KafkaOptions, install: &Install, root: &Path) -> Result<Vec<Node>> {
    let mut addresses = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..options.nodes {
        let (address, held) = reserve(options)?;
        addresses.push(address);
        ports.push(held);
    }
    // The id of the cluster, repeated in each node's folder.
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

/// Copies the formatted template and adapts it to this node.
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

/// The broker shared by all test processes: tests must use new topics, and must not kill it.
#[derive(Debug, Clone)]
pub struct SharedKafka {
    bootstrap: String,
}

impl SharedKafka {
    /// Returns its bootstrap servers.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

impl Kafka {
    /// Returns the broker in [`KAFKA_VARIABLE`], which `cargo xtask test` sets; otherwise a node that this process
    /// starts once and keeps until it ends.
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

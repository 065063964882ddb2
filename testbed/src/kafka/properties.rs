//! A node's `server.properties`.

use super::{
    install::USERS,
    options::{KafkaOptions, Listener},
};
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// Addresses of a node.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Addresses that the broker binds, by listener.
    pub(crate) bind: BTreeMap<Listener, String>,
    /// Addresses advertised to clients, by listener: the same, except for the proxied one.
    pub(crate) advertised: BTreeMap<Listener, String>,
    /// Address of the controller listener.
    pub(crate) controller: String,
}

/// Writes the properties of the node at `index` of `nodes`.
pub(crate) fn server(options: &KafkaOptions, nodes: &[Addresses], index: usize, data: &Path, certs: &Path) -> String {
    let mut lines = BTreeMap::new();
    cluster(&mut lines, options);
    small(&mut lines);
    listeners(&mut lines, options, nodes, index);
    lines.insert("log.dirs".to_owned(), data.display().to_string());
    for listener in options.listeners() {
        if let Some(file) = server_cert(listener) {
            tls(&mut lines, listener, certs, file);
        }
        if matches!(listener, Listener::Sasl | Listener::SaslTls) {
            sasl(&mut lines, listener);
        }
    }
    if options.acls {
        set(&mut lines, "authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
        set(&mut lines, "super.users", "User:admin;User:ANONYMOUS");
    }
    lines.extend(options.properties.clone());
    lines.iter().fold(String::new(), |mut text, (key, value)| {
        let _never_fails = writeln!(text, "{key}={value}");
        text
    })
}

/// Returns the file, in the folder of certificates, of the server certificate of `listener`.
pub(crate) fn server_cert(listener: Listener) -> Option<&'static str> {
    match listener {
        Listener::Plain | Listener::Sasl | Listener::Proxied => None,
        Listener::Tls | Listener::MutualTls | Listener::SaslTls => Some("server.pem"),
        Listener::ExpiredTls => Some("expired.pem"),
        Listener::WrongNameTls => Some("wrong-name.pem"),
    }
}

fn set(lines: &mut BTreeMap<String, String>, key: &str, value: impl ToString) {
    lines.insert(key.to_owned(), value.to_string());
}

fn cluster(lines: &mut BTreeMap<String, String>, options: &KafkaOptions) {
    let replicas = options.nodes.min(3);
    let in_sync = if replicas == 3 { 2 } else { 1 };
    for factor in [
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    ] {
        set(lines, factor, replicas);
    }
    for least in ["min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"] {
        set(lines, least, in_sync);
    }
    set(lines, "auto.create.topics.enable", false);
    set(lines, "group.coordinator.rebalance.protocols", "classic,consumer");
    set(lines, "group.initial.rebalance.delay.ms", 0);
    set(lines, "group.min.session.timeout.ms", 1_000);
    set(lines, "group.consumer.min.session.timeout.ms", 1_000);
    set(lines, "group.consumer.min.heartbeat.interval.ms", 200);
    set(lines, "group.consumer.session.timeout.ms", 10_000);
    set(lines, "group.consumer.heartbeat.interval.ms", 1_000);
    // How long after a crash a broker counts as failed: every client waits for it.
    set(lines, "broker.session.timeout.ms", 6_000);
    set(lines, "broker.heartbeat.interval.ms", 1_000);
    set(lines, "controlled.shutdown.enable", true);
    set(lines, "unclean.leader.election.enable", false);
}

/// Sets small numbers of threads, partitions and bytes, so that a cluster fits next to the tests that use it.
fn small(lines: &mut BTreeMap<String, String>) {
    for (key, value) in [
        ("offsets.topic.num.partitions", 4),
        ("transaction.state.log.num.partitions", 4),
        ("share.coordinator.state.topic.num.partitions", 4),
        ("num.network.threads", 2),
        ("num.io.threads", 2),
        ("num.replica.fetchers", 1),
        ("num.recovery.threads.per.data.dir", 1),
        ("background.threads", 2),
        ("log.cleaner.threads", 1),
        ("log.cleaner.dedupe.buffer.size", 4 << 20),
        ("log.segment.bytes", 64 << 20),
        ("log.index.size.max.bytes", 1 << 20),
        ("transaction.state.log.segment.bytes", 16 << 20),
        ("offsets.topic.segment.bytes", 16 << 20),
    ] {
        set(lines, key, value);
    }
}

fn listeners(lines: &mut BTreeMap<String, String>, options: &KafkaOptions, nodes: &[Addresses], index: usize) {
    let node = &nodes[index];
    let id = index + 1;
    let door = |addresses: &BTreeMap<Listener, String>| {
        let doors: Vec<_> = addresses.iter().map(|(listener, address)| format!("{listener}://{address}")).collect();
        doors.join(",")
    };
    let voters: Vec<_> = nodes.iter().enumerate().map(|(i, n)| format!("{}@{}", i + 1, n.controller)).collect();
    let protocols: Vec<_> = options.listeners().iter().map(|l| format!("{l}:{}", l.protocol())).collect();
    set(lines, "process.roles", "broker,controller");
    set(lines, "node.id", id);
    set(lines, "broker.rack", format!("rack-{id}"));
    set(lines, "controller.quorum.voters", voters.join(","));
    set(lines, "controller.listener.names", "CONTROLLER");
    set(lines, "inter.broker.listener.name", Listener::Plain);
    set(lines, "listeners", format!("CONTROLLER://{},{}", node.controller, door(&node.bind)));
    set(lines, "advertised.listeners", door(&node.advertised));
    set(lines, "listener.security.protocol.map", format!("CONTROLLER:PLAINTEXT,{}", protocols.join(",")));
}

fn tls(lines: &mut BTreeMap<String, String>, listener: Listener, certs: &Path, file: &str) {
    let prefix = format!("listener.name.{}.ssl", listener.name().to_lowercase());
    set(lines, &format!("{prefix}.keystore.type"), "PEM");
    set(lines, &format!("{prefix}.keystore.location"), certs.join(file).display());
    set(lines, &format!("{prefix}.truststore.type"), "PEM");
    set(lines, &format!("{prefix}.truststore.location"), certs.join("ca.pem").display());
    let client = if listener == Listener::MutualTls { "required" } else { "none" };
    set(lines, &format!("{prefix}.client.auth"), client);
}

fn sasl(lines: &mut BTreeMap<String, String>, listener: Listener) {
    let prefix = format!("listener.name.{}", listener.name().to_lowercase());
    let security = "org.apache.kafka.common.security";
    let users: String = USERS.iter().map(|(user, password)| format!(" user_{user}=\"{password}\"")).collect();
    set(lines, "sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER");
    let plain = format!("{security}.plain.PlainLoginModule required{users};");
    set(lines, &format!("{prefix}.plain.sasl.jaas.config"), plain);
    for mechanism in ["scram-sha-256", "scram-sha-512"] {
        let scram = format!("{security}.scram.ScramLoginModule required;");
        set(lines, &format!("{prefix}.{mechanism}.sasl.jaas.config"), scram);
    }
    let bearer =
        format!("{security}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"admin\";");
    set(lines, &format!("{prefix}.oauthbearer.sasl.jaas.config"), bearer);
}

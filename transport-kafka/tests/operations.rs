//! Access control, brokers and configurations, compared with what Kafka's own tools and KafkaJS show, and descriptions of
//! many topics and groups at once.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "kafkajs/peer.rs"]
mod peer;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use common::{TestResult, fresh, fresh_name, make};
use peer::peer;
use serde_json::{Value, json};
use tidings_core::{
    Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, AclResourceType, Acls, ConfigResource,
    ConfigSource, Error, ErrorKind, Name, ResetTo, SeekTo, Topic, Transport,
};
use tidings_kafka::{KafkaConfig, KafkaTransport, Sasl};
use tidings_testbed::{Kafka, KafkaOptions, Listener, Suite};
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// The value of a broker's secret, which nothing may show.
const CANARY: &str = "canary-7c1f";

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(Duration::from_secs(150))
        .with_case("entries_of_access_are_those_that_others_see", ours_are_seen)
        .with_case("entries_of_access_made_by_kafkas_tool_are_seen_and_deleted_exactly", theirs_are_seen)
        .with_case("entries_of_access_are_refused_with_the_reason", refusals)
        .with_case("a_cluster_is_described_as_by_kafkas_tools", described)
        .with_case("configurations_are_altered_as_kafkas_tool_shows", altered)
        .with_case("a_secret_of_a_broker_is_not_shown", secrets)
        .with_soak("soak_a_thousand_topics_and_five_hundred_groups", many)
        .run()
}

async fn guarded() -> TestResult<Kafka> {
    static CLUSTER: OnceCell<Kafka> = OnceCell::const_new();
    let options = KafkaOptions::new().with_sasl().with_acls().with_property("ssl.key.password", CANARY);
    Ok(CLUSTER.get_or_try_init(|| Kafka::start(options)).await?.clone())
}

async fn to(kafka: &Kafka) -> TestResult<KafkaTransport> {
    Ok(KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?)
}

async fn shared() -> TestResult<KafkaTransport> {
    Ok(KafkaTransport::connect(KafkaConfig::new(Kafka::shared().await?.bootstrap().split(','))).await?)
}

/// An entry in the words of Kafka's tool.
fn text(acl: &Acl) -> String {
    let upper = |name: &str| name.replace('-', "_").to_uppercase();
    let Acl { resource, principal, host, operation, permission, .. } = acl;
    let (kind, pattern) = (upper(resource.kind.as_str()), upper(resource.pattern.as_str()));
    let (operation, permission) = (upper(operation.as_str()), upper(permission.as_str()));
    format!("{kind} {} {pattern} {principal} {host} {operation} {permission}", resource.name)
}

/// The entries of a principal, as Kafka's tool lists them.
async fn told(kafka: &Kafka, principal: &str) -> TestResult<BTreeSet<String>> {
    let listed = kafka.tool("org.apache.kafka.tools.AclCommand", &["--bootstrap-server", "@", "--list"]).await?;
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=")).map(|(_, rest)| rest).unwrap_or_default();
        rest.split([',', ')', '`']).next().unwrap_or_default().to_owned()
    };
    let (mut resource, mut found) = (String::new(), BTreeSet::new());
    for line in listed.lines() {
        if line.contains("ResourcePattern(") {
            let part = |name| field(line, name);
            resource = format!("{} {} {}", part("resourceType"), part("name"), part("patternType"));
        } else if field(line, "principal") == principal {
            let part = |name| field(line, name);
            let rest = format!("{} {} {}", part("host"), part("operation"), part("permissionType"));
            found.insert(format!("{resource} {principal} {rest}"));
        }
    }
    Ok(found)
}

/// Entries of each type, pattern, operation and permission that a broker accepts.
fn entries(principal: &str) -> Vec<Acl> {
    let topic = |name: &str| AclResource::literal(AclResourceType::Topic, name);
    let of_topics =
        ["read", "write", "create", "delete", "alter", "describe", "describe-configs", "alter-configs", "all"];
    let mut all: Vec<Acl> = of_topics
        .iter()
        .filter_map(|name| name.parse().ok())
        .map(|operation| Acl::allow(principal, operation, topic("orders")))
        .collect();
    all.extend([
        Acl::allow(principal, AclOperation::Read, AclResource::prefixed(AclResourceType::Topic, "orders")),
        Acl::deny(principal, AclOperation::Write, topic("*")).with_host("10.0.0.7"),
        Acl::allow(principal, AclOperation::Read, AclResource::prefixed(AclResourceType::Group, "billing")),
        Acl::allow(principal, AclOperation::ClusterAction, AclResource::cluster()),
        Acl::allow(principal, AclOperation::IdempotentWrite, AclResource::cluster()),
        Acl::allow(principal, AclOperation::Write, AclResource::literal(AclResourceType::TransactionalId, "t")),
        Acl::allow(principal, AclOperation::Describe, AclResource::literal(AclResourceType::DelegationToken, "d")),
        Acl::allow(principal, AclOperation::CreateTokens, AclResource::literal(AclResourceType::User, "User:bob")),
        Acl::allow(principal, AclOperation::DescribeTokens, AclResource::literal(AclResourceType::User, "User:bob")),
    ]);
    all
}

async fn listed(acls: &dyn Acls, principal: &str) -> TestResult<BTreeSet<String>> {
    Ok(acls.list(&AclFilter::default().with_principal(principal)).await?.iter().map(text).collect())
}

async fn ours_are_seen() -> TestResult {
    let kafka = guarded().await?;
    let acls = to(&kafka).await?.acls().await?;
    let principal = format!("User:{}", fresh_name("ours"));
    let all = entries(&principal);
    for _ in 0..2 {
        acls.create(&all).await?.into_iter().collect::<Result<(), _>>()?;
        let wanted: BTreeSet<String> = all.iter().map(text).collect();
        assert_eq!(listed(&*acls, &principal).await?, wanted);
        assert_eq!(told(&kafka, &principal).await?, wanted);
    }
    let theirs = peer(&["acls", &kafka.bootstrap(), "-"], &json!([])).await?;
    let theirs = theirs.iter().filter(|acl| acl["principal"] == json!(principal)).map(numbers);
    // KafkaJS knows the protocol's numbers, with those of our names.
    let wanted: BTreeSet<String> = all.iter().map(|acl| numbers(&numbered(acl))).collect();
    assert_eq!(theirs.collect::<BTreeSet<_>>(), wanted);
    assert!(acls.delete(&all).await?.into_iter().collect::<Result<Vec<_>, _>>()?.iter().all(|there| *there));
    assert!(told(&kafka, &principal).await?.is_empty() && listed(&*acls, &principal).await?.is_empty());
    Ok(())
}

fn numbers(acl: &Value) -> String {
    let fields = ["resourceType", "resourceName", "resourcePatternType", "principal", "host", "operation"];
    let fields = fields.iter().chain(&["permissionType"]).map(|name| acl[name].to_string());
    fields.collect::<Vec<_>>().join(" ")
}

/// An entry in the numbers of Kafka's documentation.
fn numbered(acl: &Acl) -> Value {
    let at = |all: &[&str], name: &str, first: usize| all.iter().position(|known| *known == name).map(|at| at + first);
    let kinds = ["topic", "group", "cluster", "transactional-id", "delegation-token", "user"];
    let operations = [
        "all",
        "read",
        "write",
        "create",
        "delete",
        "alter",
        "describe",
        "cluster-action",
        "describe-configs",
        "alter-configs",
        "idempotent-write",
        "create-tokens",
        "describe-tokens",
    ];
    json!({
        "resourceType": at(&kinds, acl.resource.kind.as_str(), 2), "resourceName": acl.resource.name,
        "resourcePatternType": at(&["literal", "prefixed"], acl.resource.pattern.as_str(), 3),
        "principal": acl.principal, "host": acl.host,
        "operation": at(&operations, acl.operation.as_str(), 2),
        "permissionType": at(&["deny", "allow"], acl.permission.as_str(), 2),
    })
}

async fn theirs_are_seen() -> TestResult {
    let kafka = guarded().await?;
    let acls = to(&kafka).await?.acls().await?;
    let user = fresh_name("theirs");
    let principal = format!("User:{user}");
    kafka.allow(&user, "Read", &["--topic", "orders"]).await?;
    kafka.allow(&user, "Read", &["--topic", "orders", "--resource-pattern-type", "prefixed"]).await?;
    kafka.allow(&user, "Write", &["--topic", "other"]).await?;
    let read = |resource| Acl::allow(principal.clone(), AclOperation::Read, resource);
    let (literal, prefixed) = (
        read(AclResource::literal(AclResourceType::Topic, "orders")),
        read(AclResource::prefixed(AclResourceType::Topic, "orders")),
    );
    let of = |filter: AclFilter| filter.with_principal(principal.clone());
    let applies = acls.list(&of(AclFilter::matching(AclResourceType::Topic, "orders-eu"))).await?;
    assert_eq!(applies, std::slice::from_ref(&prefixed));
    let both = acls.list(&of(AclFilter::matching(AclResourceType::Topic, "orders"))).await?;
    assert_eq!(both, [literal.clone(), prefixed.clone()]);
    let mut filter = of(AclFilter::default());
    filter.pattern = Some(AclPattern::Prefixed);
    assert_eq!(acls.list(&filter).await?, std::slice::from_ref(&prefixed));
    assert_eq!(acls.list(&of(AclFilter::default()).with_permission(AclPermission::Deny)).await?, []);
    let gone: Vec<bool> =
        acls.delete(&[literal.clone(), literal.clone()]).await?.into_iter().collect::<Result<_, _>>()?;
    assert!(gone[0], "it existed");
    assert!(!acls.delete(std::slice::from_ref(&literal)).await?.remove(0)?, "it is gone");
    let left = told(&kafka, &principal).await?;
    assert!(left.len() == 2 && left.contains(&text(&prefixed)) && !left.contains(&text(&literal)), "{left:?}");
    Ok(())
}

async fn refusals() -> TestResult {
    let kafka = guarded().await?;
    let acls = to(&kafka).await?.acls().await?;
    let topic = AclResource::literal(AclResourceType::Topic, "orders");
    let principal = format!("User:{}", fresh_name("refused"));
    let mut unknown = Acl::allow(&*principal, AclOperation::Read, topic.clone());
    unknown.operation = AclOperation::Unknown;
    let good = Acl::allow(&*principal, AclOperation::Read, topic.clone());
    let asked = [Acl::allow("alice", AclOperation::Read, topic.clone()), good.clone(), unknown];
    let kinds: Vec<_> = acls.create(&asked).await?.into_iter().map(|answer| answer.err().map(|e| e.kind())).collect();
    assert_eq!(kinds, [Some(ErrorKind::Invalid), None, Some(ErrorKind::Invalid)]);
    assert_eq!(told(&kafka, &principal).await?.len(), 1);
    let config = KafkaConfig::new(kafka.bootstrap_on(Listener::Sasl)?.split(','));
    let alice = KafkaTransport::connect(config.with_sasl(Sasl::plain("alice", "alice-secret"))).await?;
    let kind = |error: Error| error.kind();
    let denied = alice.acls().await?;
    assert_eq!(denied.list(&AclFilter::default()).await.map_err(kind), Err(ErrorKind::Denied));
    assert_eq!(denied.create(&[good]).await?.remove(0).map_err(kind), Err(ErrorKind::Denied));
    let cluster = alice.cluster().await?;
    let broker = ConfigResource::Broker(cluster.describe().await?.brokers[0].id);
    assert_eq!(cluster.configs(&broker).await.map(drop).map_err(kind), Err(ErrorKind::Denied));
    assert_eq!(cluster.describe().await?.brokers[0].log_dirs, None, "they are not hers to see");
    // A cluster without an authorizer.
    let none = shared().await?.acls().await?.list(&AclFilter::default()).await;
    assert_eq!(none.map_err(kind), Err(ErrorKind::Unsupported));
    Ok(())
}

async fn described() -> TestResult {
    let kafka = guarded().await?;
    let cluster = to(&kafka).await?.cluster().await?.describe().await?;
    let tool = async |class: &str, args: &[&str]| {
        let class = format!("org.apache.kafka.tools.{class}");
        kafka.tool(&class, &[&["--bootstrap-server", "@"], args].concat()).await
    };
    let id = kafka.tool("org.apache.kafka.tools.ClusterTool", &["cluster-id", "--bootstrap-server", "@"]).await?;
    assert!(cluster.id.as_ref().is_some_and(|ours| id.contains(ours)), "{id} {cluster:?}");
    let features = tool("FeatureCommand", &["describe"]).await?;
    let version = cluster.version.as_ref().ok_or("a version")?;
    assert!(features.contains(&format!("FinalizedVersionLevel: {version}")), "{features} {version}");
    let broker = &cluster.brokers[0];
    assert_eq!(format!("{}:{}", broker.host, broker.port), kafka.bootstrap());
    assert!(cluster.controller.is_some() && !broker.fenced);
    let directories = broker.log_dirs.as_ref().ok_or("log directories")?;
    let dirs = tool("LogDirsCommand", &["--describe"]).await?;
    let (path, offline) = (&directories[0].path, &directories[0].offline);
    assert!(dirs.contains(path) && offline.is_none() && directories[0].total_bytes.is_some(), "{dirs} {directories:?}");
    Ok(())
}

/// The output of Kafka's tool about an entry.
async fn told_config(kafka: &Kafka, args: &[&str], name: &str) -> TestResult<String> {
    let args = [&["--bootstrap-server", "@", "--describe", "--all"], args].concat();
    let all = kafka.tool("org.apache.kafka.tools.ConfigCommand", &args).await;
    let all = match all {
        Ok(all) => all,
        // In Scala before Kafka 4.2.
        Err(_) => kafka.tool("kafka.admin.ConfigCommand", &args).await?,
    };
    let line = all.lines().find(|line| line.trim().starts_with(&format!("{name}=")));
    Ok(line.ok_or(format!("{name} in {all}"))?.trim().to_owned())
}

async fn altered() -> TestResult {
    let kafka = guarded().await?;
    let transport = to(&kafka).await?;
    let (cluster, admin) = (transport.cluster().await?, transport.admin().await?);
    let topic = fresh(&transport, "altered", 1).await?;
    let changes = |name: &str, value: Option<&str>| [(name.to_owned(), value.map(str::to_owned))];
    let entry = async |resource: &ConfigResource, name: &str| -> TestResult<_> {
        let entries = cluster.configs(resource).await?;
        Ok(entries.into_iter().find(|entry| entry.name == name).ok_or(format!("{name} of {resource}"))?)
    };
    let of_topic = ConfigResource::Topic(topic.clone());
    assert!(entry(&of_topic, "retention.ms").await?.is_default());
    cluster.alter_configs(&of_topic, &changes("retention.ms", Some("3600000"))).await?;
    admin.alter_topic(&topic, &changes("max.message.bytes", Some("2000000"))).await?;
    let ours = entry(&of_topic, "retention.ms").await?;
    assert_eq!((ours.value.as_deref(), ours.source), (Some("3600000"), ConfigSource::Resource));
    for (name, value) in [("retention.ms", "3600000"), ("max.message.bytes", "2000000")] {
        let line = told_config(&kafka, &["--topic", &topic], name).await?;
        assert!(line.contains(&format!("{name}={value} ")) && line.contains("DYNAMIC_TOPIC_CONFIG"), "{line}");
    }
    let id = cluster.describe().await?.brokers[0].id;
    let (broker, number) = (ConfigResource::Broker(id), id.to_string());
    cluster.alter_configs(&broker, &changes("log.cleaner.threads", Some("2"))).await?;
    let line = told_config(&kafka, &["--broker", &number], "log.cleaner.threads").await?;
    assert!(line.contains("log.cleaner.threads=2 ") && line.contains("DYNAMIC_BROKER_CONFIG"), "{line}");
    assert_eq!(entry(&broker, "log.cleaner.threads").await?.source, ConfigSource::Broker);
    cluster.alter_configs(&broker, &changes("log.cleaner.threads", None)).await?;
    assert_ne!(entry(&broker, "log.cleaner.threads").await?.source, ConfigSource::Broker);
    cluster.alter_configs(&ConfigResource::Cluster, &changes("message.max.bytes", Some("1500000"))).await?;
    assert_eq!(entry(&broker, "message.max.bytes").await?.source, ConfigSource::Cluster);
    cluster.alter_configs(&ConfigResource::Cluster, &changes("message.max.bytes", None)).await?;
    assert!(entry(&broker, "broker.id").await.map_or(true, |entry| entry.read_only));
    let kind = async |resource: ConfigResource, name: &str, value: Option<&str>| {
        let answer = cluster.alter_configs(&resource, &changes(name, value)).await;
        answer.err().map(|error| error.kind())
    };
    assert_eq!(kind(of_topic, "no.such.entry", None).await, Some(ErrorKind::Invalid));
    assert_eq!(kind(broker, "node.id", Some("7")).await, Some(ErrorKind::Invalid));
    assert_eq!(kind(ConfigResource::Broker(4_711), "log.cleaner.threads", None).await, Some(ErrorKind::NotFound));
    assert_eq!(kind(ConfigResource::Topic("missing".into()), "retention.ms", None).await, Some(ErrorKind::NotFound));
    Ok(())
}

async fn secrets() -> TestResult {
    let kafka = guarded().await?;
    let cluster = to(&kafka).await?.cluster().await?;
    let broker = ConfigResource::Broker(cluster.describe().await?.brokers[0].id);
    let entries = cluster.configs(&broker).await?;
    let secret = entries.iter().find(|entry| entry.name == "ssl.key.password").ok_or("the entry of the secret")?;
    assert!(secret.sensitive && secret.value.is_none() && !secret.is_default(), "{secret:?}");
    assert!(!format!("{entries:?}").contains(CANARY));
    Ok(())
}

const TOPICS: usize = 1_000;
const GROUPS: usize = 500;

/// Lists, descriptions and lags of many topics and groups, next to Kafka's own tool in the same run.
async fn many() -> TestResult {
    let kafka = Kafka::start(KafkaOptions::new()).await?;
    let transport = to(&kafka).await?;
    let admin = transport.admin().await?;
    let topics: Vec<Name> = (0..TOPICS).map(|n| format!("topic-{n:04}").into()).collect();
    for chunk in topics.chunks(100) {
        make(&transport, &chunk.iter().map(Topic::new).collect::<Vec<_>>()).await?;
    }
    let groups: Vec<Name> = (0..GROUPS).map(|n| format!("group-{n:03}").into()).collect();
    for (n, group) in groups.iter().enumerate() {
        let of: Vec<Name> = (0..4).map(|i| topics[(n * 4 + i) % TOPICS].clone()).collect();
        admin.reset_offsets(group, &of, ResetTo::Position(SeekTo::Earliest), Default::default()).await?;
    }
    let mut took = Vec::new();
    let began = Instant::now();
    assert_eq!(admin.list_topics().await?.len(), TOPICS);
    took.push(("list of topics", began.elapsed()));
    let began = Instant::now();
    assert_eq!(admin.list_groups().await?.len(), GROUPS);
    took.push(("list of groups", began.elapsed()));
    let began = Instant::now();
    assert!(admin.describe_topics(&topics).await?.iter().all(Result::is_ok));
    took.push(("descriptions of topics", began.elapsed()));
    let began = Instant::now();
    assert!(admin.describe_groups(&groups).await?.iter().all(Result::is_ok));
    took.push(("descriptions of groups", began.elapsed()));
    let began = Instant::now();
    let lags = admin.group_lags(&groups).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    took.push(("lags of groups", began.elapsed()));
    assert!(lags.iter().all(|lag| lag.len() == 4));
    let began = Instant::now();
    let one = admin.group_lag(&groups[0]).await?;
    took.push(("lag of one group", began.elapsed()));
    assert_eq!(one, lags[0]);
    let began = Instant::now();
    let args = ["--bootstrap-server", "@", "--describe", "--all-groups", "--timeout", "60000"];
    kafka.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &args).await?;
    let theirs = began.elapsed();
    took.push(("Kafka's tool: lags of groups", theirs));
    for (what, time) in &took {
        println!("{what}: {time:?}");
    }
    let ours = took.iter().find(|(what, _)| *what == "lags of groups").map_or(Duration::MAX, |(_, time)| *time);
    assert!(ours < theirs, "slower than Kafka's own tool: {ours:?}, {theirs:?}");
    Ok(())
}

//! Kafka clusters start, fail on request, recover, and never outlive their owner.

use krafka::{
    Kafka as Client,
    admin::{CreateTopicsOptions, NewTopic},
};
use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};
use tidings_testbed::{BoxError, Cut, KAFKA_VARIABLE, Kafka, KafkaOptions, Listener, POSTGRES_VARIABLE, Suite};

const POLL: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    Suite::new()
        .with_case("a_killed_node_is_gone_until_it_is_restarted", kills)
        .with_case("a_paused_node_does_not_answer_until_resumed", pauses)
        .with_case("three_nodes_miss_a_killed_one_and_take_it_back", misses_the_dead)
        .with_case("a_cut_before_the_answer_comes_after_the_work", cuts_before_an_answer)
        .with_case("a_broker_dies_with_a_killed_owner", dies_with_its_owner)
        .with_case("one_that_is_given_is_used", uses_what_is_given)
        .run()
}

/// Waits for a condition that a single short request cannot show: a node that has just recovered may be slow to
/// answer.
async fn becomes(what: &str, holds: impl AsyncFn() -> bool) -> Result<(), BoxError> {
    let polled = async {
        while !holds().await {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(DEADLINE, polled).await.map_err(|_| format!("the node never became {what}").into())
}

async fn kills() -> Result<(), BoxError> {
    let kafka = Kafka::start(KafkaOptions::new()).await?;
    let node = kafka.node(0);
    becomes("up", async || node.is_up().await).await?;
    node.kill()?;
    assert!(!node.is_running() && !node.is_up().await);
    assert!(node.pause().is_err(), "a dead node was paused");
    node.restart().await?;
    becomes("up after a restart", async || node.is_up().await).await?;
    Ok(())
}

async fn pauses() -> Result<(), BoxError> {
    let kafka = Kafka::start(KafkaOptions::new()).await?;
    let node = kafka.node(0);
    node.pause()?;
    assert!(node.is_running() && !node.is_up().await);
    TcpStream::connect(kafka.bootstrap())?;
    node.resume()?;
    becomes("up after a pause", async || node.is_up().await).await?;
    Ok(())
}

async fn misses_the_dead() -> Result<(), BoxError> {
    let kafka = Kafka::start(KafkaOptions::new().with_nodes(3)).await?;
    assert_eq!(kafka.bootstrap().split(',').count(), 3);
    let controller = kafka.controller().await?;
    let victim = kafka.node_with_id(controller).ok_or("the controller is a node")?;
    create_topic(&kafka.bootstrap(), "replicated", 3).await?;
    victim.kill()?;
    kafka.wait_for_brokers(2).await?;
    assert_ne!(kafka.controller().await?, controller, "the dead node still leads");
    victim.restart().await?;
    kafka.wait_for_brokers(3).await?;
    becomes("aware of all three", async || victim.sees().await == [1, 2, 3]).await?;
    kafka.node(0).stop().await?;
    assert!(!kafka.node(0).is_running());
    Ok(())
}

async fn cuts_before_an_answer() -> Result<(), BoxError> {
    const CREATE_TOPICS: i16 = 19;
    let kafka = Kafka::start(KafkaOptions::new().with_proxies()).await?;
    let proxy = kafka.node(0).proxy().ok_or("there is a proxy")?;
    proxy.cut_at(Cut::before_answer(1).to_api(CREATE_TOPICS));
    // The client may retry by itself and then get the answer that the topic exists: either way the first attempt
    // succeeded.
    let _cut_or_exists = create_topic(&kafka.bootstrap_on(Listener::Proxied)?, "made", 1).await;
    proxy.wait_for_cuts(1, DEADLINE).await?;
    let topics = kafka.tool("org.apache.kafka.tools.TopicCommand", &["--bootstrap-server", "@", "--list"]).await?;
    assert!(topics.lines().any(|topic| topic == "made"), "{topics}");
    Ok(())
}

async fn create_topic(bootstrap: &str, name: &str, replicas: i16) -> Result<(), BoxError> {
    let client = Client::builder(bootstrap).request_timeout(Duration::from_secs(10)).connect().await?;
    let topics =
        client.admin().create_topics([NewTopic::new(name, 3, replicas)?], CreateTopicsOptions::default()).await?;
    topics.into_values().collect::<Result<Vec<()>, _>>()?;
    Ok(())
}

async fn dies_with_its_owner() -> Result<(), BoxError> {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .arg("serve")
        .env(POSTGRES_VARIABLE, "postgres://given")
        .env_remove(KAFKA_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(owner.stdout.take().ok_or("it has an output")?).read_line(&mut line)?;
    let address = line.trim().strip_prefix("TIDINGS_KAFKA=").map(str::to_owned);
    let connected = address.as_deref().map(TcpStream::connect);
    owner.kill()?;
    owner.wait()?;
    let address = address.ok_or_else(|| tidings_testbed::Error::unavailable(line.trim()))?;
    connected.ok_or("there is an address")??;
    let gone = async {
        while TcpStream::connect(&address).is_ok() {
            tokio::time::sleep(POLL).await;
        }
    };
    Ok(tokio::time::timeout(DEADLINE, gone).await?)
}

async fn uses_what_is_given() -> Result<(), BoxError> {
    let shared = Kafka::shared().await?;
    if let Ok(given) = std::env::var(KAFKA_VARIABLE) {
        assert_eq!(shared.bootstrap(), given);
    }
    assert_eq!(Kafka::shared().await?.bootstrap(), shared.bootstrap());
    create_topic(shared.bootstrap(), &format!("testbed-{}", std::process::id()), 1).await
}

//! `service`.

use std::sync::Arc;
use std::time::Duration;

use tidings::directory::DirectoryOptions;
use tidings::handler::HandlerExt;
use tidings::ops::{Ops, Role, Tokens};
use tidings::tool::Exit;
use tidings::{Delivery, Record, Router, Service, ServiceHandle, State, Topic, TopicPolicy};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::rig::{Rig, TestResult, fresh};

/// Blocks the handler of a test until it has permits.
type Gate = Arc<Semaphore>;

/// How long a shutdown may take.
const LIMIT: Duration = Duration::from_secs(20);

fn service(name: &str, topic: &str) -> Service {
    let router = Router::new().on_topic(topic.to_owned(), async |_: Delivery| {});
    Service::new(name.to_owned(), router).with_topics(TopicPolicy::Create(vec![Topic::new(topic)]))
}

pub(crate) async fn instances_are_listed_by_their_directory(rig: Rig) -> TestResult {
    let (name, topic) = (fresh("shop"), fresh("listed"));
    let instance = |id: &str, version: &str| {
        let options = DirectoryOptions::new("http://10.0.0.7:9400").with_instance(id).with_version(version);
        service(&name, &topic).with_directory(options)
    };
    let one: ServiceHandle = instance("a", "1.0").start(&rig.transport).await?;
    let other = instance("b", "1.1").start(&rig.transport).await?;
    let found = rig.json(&["service", "instances", &name], Exit::Ok).await?;
    let ids: Vec<_> = found["instances"].as_array().ok_or("a list")?.iter().map(|one| &one["instance"]).collect();
    assert_eq!(ids, ["a", "b"], "{found}");
    assert_eq!(
        (&found["drifts"][0]["kind"], &found["instances"][0]["ops_url"]),
        (&"version".into(), &"http://10.0.0.7:9400".into())
    );
    rig.json(&["service", "instances", &name, "--check"], Exit::CheckFailed).await?;
    other.shutdown(LIMIT).await?;
    let found = rig.json(&["service", "instances", &name, "--check"], Exit::Ok).await?;
    assert_eq!(found["instances"].as_array().map(Vec::len), Some(1), "{found}");
    one.shutdown(LIMIT).await?;
    Ok(())
}

async fn waits(_: Delivery, State(gate): State<Gate>) {
    drop(gate.acquire().await);
}

pub(crate) async fn a_record_that_a_partition_waits_for_is_described(mut rig: Rig) -> TestResult {
    let (name, topic) = (fresh("meter"), fresh("waits"));
    let gate = Gate::new(Semaphore::new(0));
    let router = Router::new().on_topic(topic.clone(), waits.named("archive")).with_state(gate.clone());
    let service = Service::new(name.clone(), router);
    let service = service.with_topics(TopicPolicy::Create(vec![Topic::new(topic.as_str())]));
    let handle = service.start(&rig.transport).await?;
    for answer in rig.transport.publisher().await?.publish(vec![Record::new(topic.as_str(), "v")]).await {
        answer?;
    }
    let ops = Ops::new().with_service(&handle).serve("127.0.0.1:0")?;
    rig.variables = vec![("TIDINGS_URL".into(), format!("http://{}", ops.local_addr()))];
    let described = async {
        loop {
            let found = rig.json(&["service", "describe", &name], Exit::Ok).await?;
            match &found["partitions"][0]["holding"] {
                holding if holding["cause"] == "handler" => return TestResult::Ok(holding.clone()),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let holding = timeout(LIMIT, described).await??;
    assert_eq!((&holding["offset"], &holding["handler"]), (&0.into(), &"archive".into()), "{holding}");
    assert_eq!((&holding["attempt"], holding["error"].is_null()), (&1.into(), true), "{holding}");
    let table = rig.ok(&["service", "describe", &name]).await;
    let row = table.lines().skip_while(|line| !line.starts_with("WAITS")).nth(1).unwrap_or_default();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells, [&*format!("{topic}/0"), "0", "handler", "archive", "1", "-", "-"], "{table}");
    gate.add_permits(1);
    handle.caught_up().await?;
    handle.shutdown(LIMIT).await?;
    ops.shutdown(LIMIT).await?;
    Ok(())
}

pub(crate) async fn a_running_service_is_controlled_through_its_endpoint(mut rig: Rig) -> TestResult {
    let (name, topic) = (fresh("meter"), fresh("controlled"));
    let handle = service(&name, &topic).start(&rig.transport).await?;
    handle.caught_up().await?;
    let refused = rig.run(&["service", "list"]).await;
    let is_remote = rig.variables.iter().any(|(_, value)| value.starts_with("http"));
    assert!(is_remote || refused.err.contains("knows no running services"), "{refused:?}");
    let tokens = Tokens::new().with_token(Role::Operator, "an-operators-token-of-the-test")?;
    let ops = Ops::new().with_service(&handle).with_control(handle.control()).with_tokens(tokens);
    let ops = ops.serve("127.0.0.1:0")?;
    let url = format!("http://{}", ops.local_addr());
    rig.variables =
        vec![("TIDINGS_URL".into(), url), ("TIDINGS_TOKEN".into(), "an-operators-token-of-the-test".into())];
    let list = rig.json(&["service", "list"], Exit::Ok).await?;
    assert_eq!((&list["services"][0]["service"], &list["services"][0]["ready"]), (&name.as_str().into(), &true.into()));
    let pause = ["service", "pause", &*name, "--partition", &*format!("{topic}/0")];
    assert_eq!(rig.json(&pause, Exit::Ok).await?["executed"], false);
    rig.ok(&[&pause[..], &["--execute"]].concat()).await;
    let described = rig.json(&["service", "describe", &name], Exit::Ok).await?;
    assert_eq!(described["partitions"][0]["topic"], topic.as_str(), "{described}");
    rig.ok(&["service", "resume", &name, "--execute"]).await;
    let wrong = rig.fails(&["service", "pause", &name, "--partition", "elsewhere/0"], Exit::Failed).await;
    assert!(wrong.contains("has no partition elsewhere/0"), "{wrong}");
    let place = format!("{topic}/0");
    rig.ok(&["service", "seek", &name, "--partition", &place, "--to", "earliest", "--execute"]).await;
    rig.ok(&["service", "drain", &name, "--execute"]).await;
    handle.stopped().await?;
    handle.shutdown(LIMIT).await?;
    ops.shutdown(LIMIT).await?;
    Ok(())
}

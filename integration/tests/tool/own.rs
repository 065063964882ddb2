//! The tool in a program that declares its services: `describe`, and payloads by their types.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidings::dead_letter::DeadLetter;
use tidings::record::{StoredRecord, Timestamp, TopicPartition};
use tidings::tool::Exit;
use tidings::{Delivery, Envelope, ErrorKind, Event, Router, Service, Topic, TopicPolicy, Transport, codec};

use crate::rig::{Rig, TestResult, fresh};
use crate::topics::create;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.placed", key = "id", codec = "postcard")]
struct Placed {
    id: String,
    cents: u32,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.paid", key = "id")]
struct PaidV1 {
    id: String,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.paid", version = 2, key = "id", upcast_from = PaidV1)]
struct Paid {
    id: String,
    #[serde(default)]
    currency: Option<String>,
}

impl From<PaidV1> for Paid {
    fn from(old: PaidV1) -> Self {
        Self { id: old.id, currency: None }
    }
}

/// A service whose topic has a prefix that no other test uses.
fn service(prefix: &str) -> Service {
    let router =
        Router::new().on(async |_: Placed| {}).on(async |_: Paid| {}).on_topic("clicks", async |_: Delivery| {});
    let service = Service::new("shop", router).with_topic_prefix(prefix.to_owned());
    service.with_topics(TopicPolicy::Create(vec![Topic::new("orders").with_partitions(3)]))
}

pub(crate) async fn the_services_of_a_program_are_described(mut rig: Rig) -> TestResult {
    let none = rig.fails(&["describe", "--declared"], Exit::Usage).await;
    assert!(none.contains("declares no services"), "{none}");
    let prefix = format!("{}.", fresh("own"));
    create(&rig.transport, Topic::new(format!("{prefix}orders"))).await?;
    rig.services.push(service(&prefix).describe());
    let described = rig.json(&["describe", "--prefix", &prefix], Exit::Ok).await?;
    let shop = &described["services"][0];
    assert_eq!((&shop["group"], &shop["missing"]), (&json!("shop-group"), &json!([format!("{prefix}clicks")])));
    let handler = |n: usize, name: &str| shop["handlers"][n][name].clone();
    assert_eq!([handler(0, "event_type"), handler(1, "handler")], ["order.placed", "order.paid"]);
    assert_eq!((handler(0, "topic"), handler(0, "major")), (json!(format!("{prefix}orders")), json!(1)));
    assert_eq!((handler(1, "major"), handler(1, "older_majors")), (json!(2), json!([1])));
    assert_eq!((handler(2, "kind"), handler(2, "event_type")), (json!("topic"), Value::Null), "{shop}");
    assert_eq!(shop["creates"], json!([{ "topic": format!("{prefix}orders"), "partitions": 3 }]));
    assert_eq!(described["topics"][0]["name"], format!("{prefix}orders"), "{described}");
    let table = rig.run(&["describe", "--prefix", &prefix]).await;
    assert!(table.err.contains(&format!("shop reads topics that do not exist at the target: {prefix}clicks.")));

    // Without a target, and with one that is down, what is declared is shown.
    let declared = rig.json(&["--url", "kafka://127.0.0.1:1", "describe", "--declared"], Exit::Ok).await?;
    assert_eq!((&declared["target"], &declared["services"][0]["missing"]), (&Value::Null, &Value::Null));
    rig.variables = vec![("TIDINGS_CONTEXTS".into(), "/nowhere/contexts.toml".into())];
    let table = rig.ok(&["describe"]).await;
    assert!(table.contains("2.x, 1.x"), "{table}");
    assert!(table.contains("shop-group") && table.contains("order.placed") && !table.contains("READ BY"), "{table}");
    Ok(())
}

/// An event as a stored record of a topic with a prefix.
fn stored<E: Event>(event: E, prefix: &str) -> TestResult<(tidings::Record, StoredRecord)> {
    let record = codec::encode(Envelope::new(event).as_ref(), prefix)?;
    Ok((record.clone(), StoredRecord::from_record(record, 0, Timestamp::from_millis(1_000))))
}

pub(crate) async fn payloads_are_decoded_by_the_types_of_the_program(mut rig: Rig) -> TestResult {
    let prefix = format!("{}.", fresh("typed"));
    let topic = format!("{prefix}orders");
    tidings::admin::ensure_topics(&*rig.transport.admin().await?, &[Topic::new(topic.as_str())]).await?;
    let (placed, letter) = stored(Placed { id: "o1".into(), cents: 700 }, &prefix)?;
    // The handler takes it by an upcast.
    let (paid, _) = stored(PaidV1 { id: "o1".into() }, &prefix)?;
    let mut damaged = paid.clone();
    damaged.value =
        paid.value.as_deref().map(|value| String::from_utf8_lossy(value).replace("\"id\"", "\"di\"").into());
    for answer in rig.transport.publisher().await?.publish(vec![placed, paid, damaged]).await {
        answer?;
    }
    let letter = DeadLetter::new("shop", TopicPartition::new(topic.as_str(), 0), letter, ErrorKind::Failed);
    for answer in rig.transport.dead_letters().await?.bury(vec![letter.with_error("down")]).await {
        answer?;
    }
    rig.open_letters(&topic).await?;
    let get = ["event", "get", &*topic, "--offset", "0", "-n", "3"];
    let show = ["dead-letter", "show", &*format!("shop/{topic}/0/0"), "--payload"];
    let plain = (rig.json(&get, Exit::Ok).await?, rig.json(&show, Exit::Ok).await?);
    assert_eq!((&plain.0["events"][0]["payload"], &plain.1["payload"]["event"]), (&Value::Null, &Value::Null));

    rig.services.push(service(&prefix).describe());
    let got = rig.json(&get, Exit::Ok).await?;
    assert_eq!(got["events"][0]["payload"], json!({ "id": "o1", "cents": 700 }), "{got}");
    assert_eq!(got["events"][1]["payload"], json!({ "id": "o1", "currency": null }), "{got}");
    let why = got["events"][2]["undecodable"].as_str().ok_or("a reason")?;
    assert!(why.contains("missing field `id`"), "{why}");
    let tail = ["event", "tail", &*topic, "--from", "start", "--exit"];
    assert!(rig.ok(&tail).await.contains(r#"payload={"cents":700,"id":"o1"}"#));
    let bare = rig.ok(&[&tail[..], &["--no-payload", "-o", "jsonl"]].concat()).await;
    assert!(!bare.contains("o1") && !bare.contains("undecodable"), "nothing of the payload: {bare}");
    let shown = rig.json(&show, Exit::Ok).await?;
    assert_eq!(shown["payload"]["event"], json!({ "id": "o1", "cents": 700 }), "{shown}");
    let shown = rig.json(&show[..3], Exit::Ok).await?;
    assert_eq!(shown["payload"], Value::Null, "only if asked for: {shown}");
    Ok(())
}

pub(crate) async fn an_example_has_the_subcommand_tool(rig: Rig) -> TestResult {
    if rig.variables[0].1 != crate::rig::OWN {
        return Ok(()); // Once is enough.
    }
    let run = |words: &[&str]| {
        let mut command = tidings_integration::interview_platform();
        command.env("TIDINGS_CONTEXTS", "/nowhere/contexts.toml").env_remove("TIDINGS_URL").args(words).output()
    };
    let described = run(&["tool", "describe", "-o", "json"])?;
    let described: Value = serde_json::from_slice(&described.stdout)?;
    let groups: Vec<_> = described["services"].as_array().ok_or("services")?.iter().map(|one| &one["group"]).collect();
    assert_eq!(groups, ["user-service-group", "interview-service-group", "analytics-service-group"]);
    let wrong = run(&["tool", "topic", "descibe", "a"])?;
    let line = String::from_utf8_lossy(&wrong.stderr);
    assert!(line.starts_with("interview_platform tool: ") && line.contains("interview_platform tool topic --help"));
    assert_eq!(wrong.status.code(), Some(2));
    Ok(())
}

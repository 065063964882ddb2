//! A Kafka that checks passwords and entries of access control: wrong credentials, denials, and the verbs of `acl`.

use serde_json::json;
use tidings::tool::Exit;
use tidings_testbed::{Kafka, KafkaOptions, Listener};

use crate::rig::{CANARY, Rig, TestResult, fresh};
use crate::rights::each_command_needs_the_rights_of_the_guide;

/// The next step after an error of credentials or rights.
const HINT: &str = "check the user, its password or token, and what it is allowed to do";

pub(crate) async fn kafka() -> TestResult {
    let kafka = Kafka::start(KafkaOptions::new().with_sasl().with_acls()).await?;
    let mut rig = Rig::memory();
    let url = format!("kafka://{}", kafka.bootstrap_on(Listener::Sasl)?);
    let of = |user: &str, password: &str| {
        let all = [("TIDINGS_URL", url.as_str()), ("TIDINGS_USERNAME", user), ("TIDINGS_PASSWORD", password)];
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    wrong_credentials(&mut rig, of("alice", CANARY)).await?;
    rig.variables = of("admin", "admin-secret");
    let topic = fresh("guarded");
    rig.ok(&["topic", "create", &topic, "--execute"]).await;
    entries(&rig, &kafka, &topic).await?;
    denied(&mut rig, &topic, of("bob", "bob-secret")).await?;
    // The plain listener, whose users may do everything.
    rig.transport = tidings::connect(&format!("kafka://{}", kafka.bootstrap())).await?;
    each_command_needs_the_rights_of_the_guide(&mut rig, &of("admin", "admin-secret"), &of("bob", "bob-secret")).await
}

async fn wrong_credentials(rig: &mut Rig, variables: Vec<(String, String)>) -> TestResult {
    rig.variables = variables;
    for verb in [&["topic", "list"][..], &["acl", "list"], &["topic", "create", "a", "--execute"]] {
        let line = rig.fails(verb, Exit::Failed).await;
        assert!(line.contains(HINT), "{verb:?}: {line}");
    }
    rig.variables[1].1.clear();
    let half = rig.fails(&["topic", "list"], Exit::Usage).await;
    assert!(half.contains("TIDINGS_USERNAME"), "{half}");
    Ok(())
}

/// Returns the lines that Kafka's own tool lists for alice, sorted.
async fn told(kafka: &Kafka) -> TestResult<String> {
    let arguments = ["--bootstrap-server", "@", "--list", "--principal", "User:alice"];
    let listed = kafka.tool("org.apache.kafka.tools.AclCommand", &arguments).await?;
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

async fn entries(rig: &Rig, kafka: &Kafka, topic: &str) -> TestResult {
    let create = ["acl", "create", "--principal", "User:alice", "--operation", "read", "--operation", "describe"];
    let create = [&create[..], &["--topic", topic]].concat();
    let plan = rig.json(&create, Exit::Ok).await?;
    assert_eq!((&plan["executed"], plan["steps"].as_array().map(Vec::len)), (&json!(false), Some(2)), "{plan}");
    assert!(!told(kafka).await?.contains("operation="), "a plan changes nothing");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("plan.json").display().to_string();
    rig.ok(&[&create[..], &["--plan", &file]].concat()).await;
    let done = rig.json(&["acl", "create", "--from-plan", &file, "--execute"], Exit::Ok).await?;
    assert_eq!(done["steps"][1]["result"], "done", "{done}");
    let theirs = told(kafka).await?;
    assert!(theirs.contains("operation=READ") && theirs.contains("operation=DESCRIBE"), "{theirs}");
    let stale = rig.fails(&["acl", "create", "--from-plan", &file, "--execute"], Exit::Failed).await;
    assert!(stale.contains("is stale, nothing was changed") && stale.contains("exists now"), "{stale}");
    let again = rig.run(&create).await;
    assert!(again.err.contains("2 exist already.") && again.err.contains("Nothing to do."), "{again:?}");

    let list = ["acl", "list", "--principal", "User:alice"];
    let listed = rig.json(&list, Exit::Ok).await?;
    assert_eq!(listed["acls"].as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!((&listed["acls"][0]["name"], &listed["acls"][0]["permission"]), (&json!(topic), &json!("allow")));
    let none = rig.fails(&["acl", "delete"], Exit::Usage).await;
    assert!(none.contains("--all"), "{none}");
    let delete = ["acl", "delete", "--principal", "User:alice", "--operation", "read"];
    let plan = rig.json(&delete, Exit::Ok).await?;
    assert_eq!(plan["steps"].as_array().map(Vec::len), Some(1), "{plan}");
    assert_eq!(told(kafka).await?, theirs, "a plan changes nothing");
    rig.ok(&[&delete[..], &["--execute"]].concat()).await;
    let left = told(kafka).await?;
    assert!(!left.contains("operation=READ") && left.contains("operation=DESCRIBE"), "{left}");
    rig.ok(&["acl", "delete", "--topic", topic, "--execute"]).await;
    assert_eq!(rig.json(&list, Exit::Ok).await?["acls"], json!([]));
    Ok(())
}

/// A caller without rights is refused by each verb, and nothing changes.
async fn denied(rig: &mut Rig, topic: &str, variables: Vec<(String, String)>) -> TestResult {
    let admin = std::mem::replace(&mut rig.variables, variables);
    let verbs: [&[&str]; 5] = [
        &["acl", "list"],
        &["acl", "create", "--principal", "User:bob", "--operation", "all", "--topic", topic, "--execute"],
        &["acl", "delete", "--all", "--execute"],
        &["topic", "delete", topic, "--execute"],
        &["topic", "describe", topic],
    ];
    for verb in verbs {
        let run = rig.run(verb).await;
        let line = run.err.lines().last().unwrap_or_default();
        assert_eq!(run.exit, Exit::Failed, "{verb:?}: {run:?}");
        // A step that is refused has its reason in the table.
        assert!(line.contains(HINT) || line.contains("does not exist"), "{verb:?}: {run:?}");
    }
    rig.variables = admin;
    assert_eq!(rig.json(&["acl", "list"], Exit::Ok).await?["acls"], json!([]));
    rig.ok(&["topic", "describe", topic]).await;
    Ok(())
}

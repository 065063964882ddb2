//! `topic alter`, `cluster`, `check`, `describe`, `generate`, `context`.

use tidings::Topic;
use tidings::tool::Exit;

use crate::groups::{filled, idle};
use crate::rig::{CANARY, Rig, TestResult, fresh};
use crate::topics::{create, only_plans};

pub(crate) async fn a_setting_is_altered_as_planned(rig: Rig) -> TestResult {
    let topic = fresh("altered");
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    let arguments = ["topic", "alter", &topic, "--set", "retention.ms=86400000"];
    only_plans(&rig, &topic, &arguments).await?;
    rig.json(&[&arguments[..], &["--execute"]].concat(), Exit::Ok).await?;
    let described = rig.json(&["topic", "describe", &topic], Exit::Ok).await?;
    assert_eq!(described["topics"][0]["settings"]["retention.ms"], "86400000", "{described}");
    let again = rig.run(&arguments).await;
    assert!(again.err.contains("Nothing to do."), "{again:?}");
    let nothing = rig.fails(&["topic", "alter", &topic], Exit::Usage).await;
    assert!(nothing.contains("--set or --unset"), "{nothing}");
    Ok(())
}

pub(crate) async fn the_cluster_is_described_and_its_configs_altered(rig: Rig) -> TestResult {
    let topic = fresh("configured");
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    let cluster = rig.json(&["cluster", "describe"], Exit::Ok).await?;
    assert!(cluster["brokers"].as_array().is_some_and(|brokers| !brokers.is_empty()), "{cluster}");
    let resource = format!("topic:{topic}");
    let arguments = ["cluster", "alter", &resource, "--set", "retention.ms=86400000"];
    only_plans(&rig, &topic, &arguments).await?;
    rig.json(&[&arguments[..], &["--execute"]].concat(), Exit::Ok).await?;
    let configs = rig.json(&["cluster", "configs", &resource], Exit::Ok).await?;
    let set = configs["entries"].as_array().into_iter().flatten().find(|entry| entry["name"] == "retention.ms");
    assert_eq!(set.map(|entry| &entry["value"]), Some(&"86400000".into()), "{configs}");
    let wrong = rig.fails(&["cluster", "configs", "topik:a"], Exit::Usage).await;
    assert!(wrong.contains("topic:NAME"), "{wrong}");
    Ok(())
}

pub(crate) async fn checks_have_thresholds_and_the_formats_of_monitoring(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "checked").await?;
    idle(&rig, &group, &topic, 1).await?;
    rig.json(&["check", "connection"], Exit::Ok).await?;
    let check = rig.json(&["check", "group", &group, "--min-members", "0", "--warning", "3"], Exit::Ok).await?;
    assert_eq!((&check["status"], &check["values"][0]["value"]), (&"ok".into(), &2.into()));
    let limits = ["check", "group", &group, "--min-members", "0", "--warning", "1", "--critical", "2"];
    let critical = rig.json(&limits, Exit::CheckFailed).await?;
    assert_eq!(critical["status"], "critical");
    let nagios = rig.run(&[&limits[..], &["-o", "nagios"]].concat()).await;
    assert_eq!((nagios.exit, nagios.exit.code()), (Exit::NagiosCritical, 2));
    assert_eq!(nagios.out, format!("CRITICAL - group {group}: lag 2, 0 members | lag=2;1;2 members=0;;\n"));
    let metrics = rig.run(&[&limits[..], &["-o", "prometheus"]].concat()).await;
    assert!(metrics.out.contains(&format!("tidings_check_status{{check=\"group {group}\"}} 3\n")), "{metrics:?}");
    let idle = rig.json(&["check", "group", &group], Exit::CheckFailed).await?;
    assert!(idle["message"].as_str().is_some_and(|text| text.starts_with("0 members")), "{idle}");
    rig.json(&["check", "topic", &topic], Exit::Ok).await?;
    rig.json(&["check", "topic", &topic, "--min-partitions", "2"], Exit::CheckFailed).await?;
    rig.json(&["check", "topic", "no-such-topic"], Exit::CheckFailed).await?;
    rig.json(&["check", "dead-letters", &topic], Exit::Ok).await?;
    let down = rig.json(&["--url", "kafka://127.0.0.1:1", "check", "connection"], Exit::CheckFailed).await?;
    assert_eq!(down["status"], "critical");
    let store = rig.fails(&["check", "store"], Exit::Usage).await;
    assert!(store.contains("--store"), "{store}");
    Ok(())
}

pub(crate) async fn a_target_is_described_by_who_reads_what(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "read").await?;
    idle(&rig, &group, &topic, 1).await?;
    let described = rig.json(&["describe", "--prefix", &topic], Exit::Ok).await?;
    assert_eq!(described["topics"][0]["groups"], serde_json::json!([group]), "{described}");
    assert_eq!(described["groups"][0]["lag"], 2, "{described}");
    Ok(())
}

pub(crate) async fn a_dashboard_and_alerts_are_generated(rig: Rig) -> TestResult {
    let dashboard = rig.ok(&["generate", "dashboard"]).await;
    assert!(serde_json::from_str::<serde_json::Value>(&dashboard)?["panels"].is_array());
    assert!(rig.ok(&["generate", "alerts"]).await.contains("TidingsStoreDown"));
    Ok(())
}

pub(crate) async fn contexts_keep_targets_and_no_secrets(rig: Rig) -> TestResult {
    let directory = tempfile::tempdir()?;
    let (contexts, password) = (directory.path().join("contexts.toml"), directory.path().join("password"));
    std::fs::write(&password, format!("{CANARY}\n"))?;
    let (url, mut rig) = (rig.variables[0].1.clone(), rig);
    rig.variables =
        vec![("TIDINGS_CONTEXTS".into(), contexts.display().to_string()), ("SECRET".into(), CANARY.to_owned())];
    let file = password.display().to_string();
    rig.ok(&["context", "add", "here", "--url", &url]).await;
    rig.ok(&["context", "add", "there", "--url", "kafka://127.0.0.1:1", "--username", "u", "--password-file", &file])
        .await;
    rig.ok(&["context", "add", "token", "--url", "kafka://127.0.0.1:1?sasl=oauthbearer", "--token-env", "SECRET"])
        .await;
    // Any keyring, by the command that reads it.
    let command = format!("cat '{file}'");
    let keyring = ["context", "add", "keyring", "--url", "kafka://127.0.0.1:1", "--username", "u"];
    rig.ok(&[&keyring[..], &["--password-command", &command]].concat()).await;
    let kept = rig.json(&["context", "show", "keyring"], Exit::Ok).await?;
    assert_eq!(kept["password_in"], "command cat");
    let broken = ["context", "add", "broken", "--url", "http://127.0.0.1:1", "--token-command", "echo $SECRET; exit 1"];
    rig.ok(&broken).await;
    let failed = rig.fails(&["--context", "broken", "topic", "list"], Exit::Failed).await;
    assert!(failed.contains("token_command") && failed.contains("exit status: 1"), "{failed}");
    let list = rig.json(&["context", "list"], Exit::Ok).await?;
    assert_eq!(list["contexts"].as_array().map(Vec::len), Some(5));
    rig.json(&["context", "show", "there"], Exit::Ok).await?;
    rig.ok(&["context", "show", "token", "-o", "wide"]).await;
    let tested = rig.json(&["context", "test"], Exit::Ok).await?;
    assert_eq!(tested["name"], "here", "the first one is current");
    for context in ["there", "token", "keyring"] {
        rig.fails(&["--context", context, "topic", "list"], Exit::Failed).await;
    }
    rig.ok(&["context", "use", "there"]).await;
    rig.fails(&["topic", "list"], Exit::Failed).await;
    rig.ok(&["context", "remove", "there"]).await;
    let none = rig.fails(&["topic", "list"], Exit::Usage).await;
    assert!(none.contains("no target is given"), "{none}");
    assert!(!std::fs::read_to_string(&contexts)?.contains(CANARY));
    let refused = rig.fails(&["context", "add", "bad", "--url", &format!("kafka://u:{CANARY}@a")], Exit::Usage).await;
    assert!(refused.contains("--url"), "{refused}");
    Ok(())
}

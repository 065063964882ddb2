//! Mistakes: each is one line that names its subject, with the exit code of its kind.

use tidings::tool::Exit;

use crate::rig::{CANARY, Rig, TestResult};

pub(crate) async fn each_mistake_is_one_line_with_its_exit_code(rig: Rig) -> TestResult {
    let directory = tempfile::tempdir()?;
    let contexts = directory.path().join("contexts.toml");
    std::fs::write(&contexts, "[contexts.a]\nulr = \"kafka://a\"\n")?;
    let mut rig = rig;
    rig.variables.push(("TIDINGS_CONTEXTS".into(), contexts.display().to_string()));
    let password = format!("kafka://u:{CANARY}@127.0.0.1:1");
    let table: &[(&[&str], Exit, &[&str])] = &[
        (&["--url", "kafka://127.0.0.1:1", "topic", "list"], Exit::Failed, &["127.0.0.1:1", "check the address"]),
        (&["--url", "amqp://a", "topic", "list"], Exit::Usage, &["kafka://"]),
        (&["--url", "nonsense", "topic", "list"], Exit::Usage, &["the target's URL"]),
        (&["--url", "memory://", "topic", "list"], Exit::Usage, &["memory://", "ops endpoint"]),
        (&["--url", &password, "topic", "list"], Exit::Usage, &["--url", "TIDINGS_PASSWORD"]),
        (&["topic", "describe", "no-such-topic-at-all"], Exit::Failed, &["no-such-topic-at-all", "does not exist"]),
        (&["topic", "describe", "no such topic"], Exit::Usage, &["no such topic"]),
        (&["group", "lag", "no-such-group-at-all"], Exit::Failed, &["no-such-group-at-all"]),
        (&["topic", "descibe", "a"], Exit::Usage, &["descibe", "describe"]),
        (&["topik", "list"], Exit::Usage, &["topik", "topic"]),
        (&["topic", "create"], Exit::Usage, &["<TOPIC>", "tidings topic create --help"]),
        (&["topic", "list", "-o", "xml"], Exit::Usage, &["xml"]),
        (&["topic", "list", "-o", "nagios"], Exit::Usage, &["nagios", "check"]),
        (&["topic", "list", "--timeout", "5"], Exit::Usage, &["--timeout", "duration"]),
        (&["--context", "a", "topic", "list"], Exit::Usage, &["line 2", "ulr"]),
        (&["topic", "delete", "--from-plan", "/nowhere"], Exit::Usage, &["plan /nowhere"]),
    ];
    for (arguments, exit, parts) in table {
        let line = rig.fails(arguments, *exit).await;
        assert!(parts.iter().all(|part| line.contains(part)), "{arguments:?}: {line}");
    }
    Ok(())
}

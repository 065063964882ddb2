//! Mistakes: each is one line that names its subject, with the exit code of its kind.

use std::net::TcpListener;
use std::sync::Arc;

use tidings::memory::MemoryTransport;
use tidings::ops::{Ops, Role, Tokens};
use tidings::tool::Exit;

use crate::rig::{CANARY, Rig, TestResult, fresh};

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

/// A server that accepts connections and never answers: a listener without a call of `accept`.
pub(crate) async fn a_server_that_never_answers_times_out(rig: Rig) -> TestResult {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let topic = fresh("silent");
    for scheme in ["kafka", "http"] {
        let url = format!("{scheme}://{}", silent.local_addr()?);
        let target = ["--url", &*url, "--timeout", "700ms"];
        let verbs: [&[&str]; 4] = [
            &["topic", "list"],
            &["topic", "create", &topic, "--execute"],
            &["event", "tail", &topic],
            &["dead-letter", "redrive", "--execute"],
        ];
        for verb in verbs {
            let line = rig.fails(&[&target[..], verb].concat(), Exit::Failed).await;
            // The time limit of the verb or of the client, whichever ends first.
            let names = line.contains(silent.local_addr()?.to_string().as_str());
            assert!(names && (line.contains("--timeout") || line.contains("check the address")), "{verb:?}: {line}");
        }
        let checked = rig.json(&[&target[..], &["check", "connection"]].concat(), Exit::CheckFailed).await?;
        assert_eq!(checked["status"], "critical", "{checked}");
    }
    Ok(())
}

pub(crate) async fn a_wrong_token_is_one_line() -> TestResult {
    let mut rig = Rig::memory();
    let tokens = Tokens::new().with_token(Role::Viewer, "a-viewers-token-of-the-test")?;
    let ops = Ops::new().with_admin(Arc::new(MemoryTransport::new())).with_tokens(tokens).serve("127.0.0.1:0")?;
    let url = format!("http://{}", ops.local_addr());
    let with = |token: &str| vec![("TIDINGS_URL".into(), url.clone()), ("TIDINGS_TOKEN".into(), token.into())];
    rig.variables = with(CANARY);
    let create = ["topic", "create", "orders", "--execute"];
    let line = rig.fails(&create, Exit::Failed).await;
    assert!(line.contains("check the user, its password or token") && !line.contains(CANARY), "{line}");
    // A viewer may plan: the step is refused, with the role that it lacks.
    rig.variables = with("a-viewers-token-of-the-test");
    let refused = rig.run(&create).await;
    assert_eq!((refused.exit, refused.err.lines().count()), (Exit::Failed, 1), "{refused:?}");
    assert!(refused.out.contains("admin is needed") && refused.err.contains("check the user"), "{refused:?}");
    // A viewer may read.
    rig.ok(&["topic", "list"]).await;
    Ok(())
}

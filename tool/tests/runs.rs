//! Runs of the tool by its public API: how long they may take, what a mistake is answered, what a context keeps.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, ErrorKind, LetterQuery, Result, StoredRecord, Timestamp, Topic,
    TopicPartition, Transport, async_trait,
};
use tidings_memory::{MemoryDeadLetters, MemoryTransport};
use tidings_tool::{Connect, Exit, Tool};
use tokio::time::Instant;

/// A transport and letters of this process, whatever the URL is.
#[derive(Debug, Clone)]
struct Own(Arc<MemoryTransport>, Arc<MemoryDeadLetters>);

impl Own {
    fn new() -> Self {
        Self(Arc::new(MemoryTransport::new()), Arc::new(MemoryDeadLetters::new()))
    }
}

#[async_trait]
impl Connect for Own {
    async fn transport(&self, _: &str) -> Result<Arc<dyn Transport>> {
        Ok(self.0.clone())
    }

    async fn dead_letter_store(&self, _: &str) -> Result<Arc<dyn DeadLetterStore>> {
        Ok(self.1.clone())
    }
}

/// An output that is kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock()).into_owned()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a verb; returns its exit, its output and its errors.
async fn run(own: &Own, variables: &[(&str, &str)], words: &[&str]) -> (Exit, String, String) {
    let (out, err) = (Kept::default(), Kept::default());
    let tool = Tool::new(own.clone()).with_variables(variables.iter().copied()).with_output(out.clone(), err.clone());
    let exit = tool.run(words.iter().map(|word| (*word).to_owned())).await;
    (exit, out.text(), err.text())
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_rate_takes_does_not_count_as_a_timeout() {
    let own = Own::new();
    own.0.admin().await.unwrap().create_topics(&[Topic::new("t")]).await.unwrap();
    let letter = |offset| {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1)).with_value("v");
        DeadLetter::new("shop", TopicPartition::new("t", 0), record, ErrorKind::Failed)
    };
    for buried in own.1.bury((0..120).map(letter).collect()).await {
        buried.unwrap();
    }
    let begun = Instant::now();
    let words = ["tidings", "dead-letter", "redrive", "--rate", "2/s", "--timeout", "30s", "--execute"];
    let ran = run(&own, &[("TIDINGS_URL", "kafka://a"), ("TIDINGS_LETTERS", "own:a")], &words).await;
    let open = own.1.count(&LetterQuery::default()).await.unwrap();
    assert_eq!((ran.0, open), (Exit::Ok, 0), "{}", ran.2);
    assert!(begun.elapsed() > Duration::from_secs(50), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_mistake_points_to_the_help_of_its_command() {
    for (words, expected) in [
        (&["my-service tool", "group", "reset", "g", "--to", "soon"][..], "my-service tool group reset --help"),
        (&["target/debug/tidings", "topic", "list", "--timeout", "5"], "tidings topic list --help"),
        (&["tidings", "--context", "group", "-o", "json", "topic", "create"], "tidings topic create --help"),
        (&["tidings", "--watch", "dlq", "list", "--kind", "timed-out"], "tidings dead-letter list --help"),
        (&["tidings", "topik"], "tidings --help"),
        (&["tidings", "topic", "lst"], "tidings topic --help"),
    ] {
        let (exit, _, err) = run(&Own::new(), &[], words).await;
        assert_eq!(exit, Exit::Usage);
        assert!(err.trim_end().ends_with(&format!("see {expected}")), "{words:?}: {err}");
    }
}

#[tokio::test]
async fn an_unknown_kind_is_answered_by_the_kinds() {
    let (_, _, err) = run(&Own::new(), &[], &["tidings", "dead-letter", "list", "--kind", "timed-out"]).await;
    assert!(["failed", "invalid", "undecodable", "too-large"].iter().all(|kind| err.contains(kind)), "{err}");
}

#[tokio::test]
async fn a_position_has_the_same_words_in_each_verb() {
    for place in ["start", "end", "earliest", "latest", "17", "2h"] {
        for verb in [&["service", "seek", "s", "--partition", "t/0"][..], &["group", "reset", "g"]] {
            let words = [&["tidings"], verb, &["--to", place]].concat();
            let (exit, _, err) = run(&Own::new(), &[("TIDINGS_URL", "kafka://a")], &words).await;
            assert!(exit == Exit::Failed || err.contains("knows no running services"), "{words:?}: {err}");
        }
    }
}

#[tokio::test]
async fn a_context_keeps_its_audit_trail() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("contexts.toml").display().to_string();
    let variables = [("TIDINGS_CONTEXTS", &*file)];
    let add = ["tidings", "context", "add", "prod", "--url", "kafka://a", "--audit", "topic:trail"];
    let (exit, _, err) = run(&Own::new(), &variables, &add).await;
    assert!(exit == Exit::Ok && err.contains("It is the current context."), "{err}");
    let (_, out, _) = run(&Own::new(), &variables, &["tidings", "context", "show", "-o", "json"]).await;
    assert!(out.contains("\"audit\": \"topic:trail\"") || out.contains("\"audit\":\"topic:trail\""), "{out}");
    // The trail is that of the context: its topic does not exist, so nothing is changed.
    let create = ["tidings", "topic", "create", "orders", "--execute"];
    let (exit, _, err) = run(&Own::new(), &variables, &create).await;
    assert!(exit != Exit::Ok && err.contains("trail"), "{err}");
}

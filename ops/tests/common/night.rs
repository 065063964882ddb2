//! The view of an operator at night: the last lines of the log, by the filter that the guide recommends, and `/status`.

use std::fmt::{self, Debug, Write as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The lines an operator looks at.
const LAST: usize = 20;

/// All lines of the process, with their threads. `tracing` remembers for each call whether it is listened to, so one
/// subscriber is global.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(ThreadId, String)>>>);

impl Log {
    /// Returns the log of the process, which is captured from the first call on.
    pub(crate) fn captured() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            tracing::subscriber::set_global_default(log.clone()).expect("the only subscriber");
            log
        });
        log.clone()
    }

    /// Returns the last lines, of all threads, or of this one alone.
    pub(crate) fn last_lines(&self, of_this_thread: bool) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |thread: ThreadId| !of_this_thread || thread == thread::current().id();
        let lines: Vec<&str> = lines.iter().filter(|(thread, _)| of(*thread)).map(|(_, line)| line.as_str()).collect();
        lines[lines.len().saturating_sub(LAST)..].join("\n")
    }
}

/// A line in the making: its message, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Log {
    /// `info,krafka=warn`.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = if metadata.target().starts_with("krafka") { Level::WARN } else { Level::INFO };
        metadata.is_event() && *metadata.level() <= most
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let text = format!("{} {}: {}{}", metadata.level(), metadata.target(), line.message, line.fields);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((thread::current().id(), text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The view of an operator.
pub(crate) struct Seen {
    log: String,
    /// The only service.
    pub(crate) status: Value,
}

impl Seen {
    /// Takes the last lines of the log, and the text of `/status`. Neither has a payload.
    #[track_caller]
    pub(crate) fn new(log: String, status: &str) -> Self {
        assert!(!log.contains("secret-payload") && !status.contains("secret-payload"), "{log}{status}");
        let status: Value = serde_json::from_str(status).expect("JSON");
        Self { log, status: status["services"][0].clone() }
    }

    /// Returns whether a line of the log has all these words.
    pub(crate) fn has_line(&self, words: &[&str]) -> bool {
        self.log.lines().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Checks the reasons, and that a reason or note of the status has these words.
    #[track_caller]
    pub(crate) fn status(&self, reasons: &[&str], words: &[&str]) -> &Self {
        let all = self.status["reasons"].as_array().expect("reasons");
        let codes: Vec<&str> = all.iter().filter_map(|reason| reason["reason"].as_str()).collect();
        assert_eq!(codes, reasons, "{self}");
        let advice = format!("{}{}", self.status["reasons"], self.status["notes"]);
        for word in words {
            assert!(advice.contains(word), "{word:?} is not in the advice: {self}");
        }
        self
    }

    /// Checks that one line of the log has all these words.
    #[track_caller]
    pub(crate) fn log(&self, words: &[&str]) -> &Self {
        assert!(self.has_line(words), "no line has {words:?}: {self}");
        self
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}\n{:#}", self.log, self.status)
    }
}

//! No secret shows: not by an error, not by `Debug`, not in a trace at any level, the client's own included.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::fmt::{Debug, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use common::{TestResult, config, database};
use tidings_postgres::{PostgresConfig, PostgresStore};
use tidings_testbed::Suite;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SECRET: &str = "c4n4ry-p4ssw0rd";

fn main() -> ExitCode {
    Suite::new().with_case("no_secret_is_ever_shown", never_shown).run()
}

async fn never_shown() -> TestResult {
    let shown = Shown::default();
    tracing::subscriber::set_global_default(shown.clone())?;
    let url = database().await?;
    let (user, place) = url.rsplit_once('@').unwrap();
    let (name, right) = user.rsplit_once(':').unwrap();
    let store = PostgresStore::connect_with(config(url)).await?;
    shown.keep(format!("{store:?} {store:#?} {:?}", store.pool()));
    store.close().await;
    for wrong in [
        format!("{name}:{SECRET}@{place}"),
        format!("{name}:{SECRET}@127.0.0.1:1/x"),
        format!("{name}:12?{SECRET}@{place}"),
        format!("{name}:12#{SECRET}@{place}"),
        format!("{name}:12/{SECRET}@{place}"),
        format!("{name}:12?{SECRET}=1&x"),
        format!("{name}:12?{SECRET}=1"),
        format!("{name}@{place}?password={SECRET}&sslmode=disable"),
        format!("{name}@{place}?pasword={SECRET}"),
        format!("{name}@{place}?sslpassword={SECRET}"),
        format!("{name}@{place}?unknown={SECRET}"),
        format!("{name}:{SECRET}]"),
        format!("{name}:{SECRET}%zz@{place}"),
        format!("{name}:{SECRET}"),
    ] {
        let config = PostgresConfig::new(wrong);
        shown.keep(format!("{config:?} {config:#?}"));
        let error = PostgresStore::connect_with(config).await.map(drop).unwrap_err();
        shown.keep(format!("{error} {error:?} {error:#?} {}", error.report()));
    }
    let shown = shown.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(shown.len() > 28, "nothing was traced");
    let secret = shown.iter().find(|line| line.contains(SECRET) || line.contains(right));
    assert!(secret.is_none(), "a secret is shown: {secret:?}");
    Ok(())
}

/// Everything that was shown.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<String>>>);

impl Shown {
    fn keep(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn fields(&self, record: impl FnOnce(&mut Line)) {
        let mut line = Line(String::new());
        record(&mut line);
        self.keep(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _never_fails = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Shown {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.fields(|line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        self.fields(|line| values.record(line));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.fields(|line| event.record(line));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

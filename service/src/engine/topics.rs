//! The topics of a service when it starts: created, or reported as missing.

use tidings_core::{Admin, DeadLetterSink, Error, ErrorKind, Name, Result, Topic, Transport, ensure_topics};

use crate::logs;
use crate::settings::TopicPolicy;
use crate::table::prefixed;

/// Returns how missing topics can be created.
fn remedy(policy: &TopicPolicy) -> &'static str {
    match policy {
        TopicPolicy::Create(_) => "add them to the topics of `TopicPolicy::Create`, which lists others only",
        _ => "create them by `Service::with_topics(TopicPolicy::Create(..))`, `ensure_topics`, or a tool of the broker",
    }
}

/// Creates the missing topics, with the service's prefix.
pub(super) async fn create_missing(admin: &dyn Admin, topics: &[Topic], prefix: &str) -> Result<()> {
    let mut wanted = topics.to_vec();
    wanted.iter_mut().for_each(|topic| topic.name = prefixed(prefix, &topic.name));
    for found in ensure_topics(admin, &wanted).await?.different {
        let line = logs::TopicDiffers {
            topic: &found.topic.as_str(),
            what: &found.what,
            wanted: &found.wanted,
            found: &found.found,
        };
        line.log();
    }
    Ok(())
}

/// Replaces an error about one missing topic by an error that lists all of them, and how to create them.
pub(super) async fn all_missing(
    error: Error,
    transport: &dyn Transport,
    sink: &dyn DeadLetterSink,
    topics: &[Name],
    policy: &TopicPolicy,
) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    // A broker that does not answer this adds nothing to the first error.
    let Ok(missing) = missing(transport, topics).await else { return error };
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!("missing topics: {}", missing.join(", ")));
    }
    problems.extend(sink.check(topics).await.err().map(|letters| letters.report()));
    if problems.is_empty() {
        return error;
    }
    Error::new(ErrorKind::NotFound, format!("{}; {}", problems.join("; "), remedy(policy)))
}

async fn missing<'a>(transport: &dyn Transport, topics: &'a [Name]) -> Result<Vec<&'a str>> {
    let found = transport.admin().await?.describe_topics(topics).await?;
    let is_missing = |found: &Result<_>| found.as_ref().is_err_and(|error: &Error| error.kind() == ErrorKind::NotFound);
    Ok(topics.iter().zip(&found).filter(|(_, found)| is_missing(found)).map(|(topic, _)| topic.as_str()).collect())
}

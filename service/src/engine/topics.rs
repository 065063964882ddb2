//! The topics of a service when it starts: created, or reported as missing.

use tidings_core::{
    Admin, DeadLetterSink, Difference, Error, ErrorKind, Name, Result, Topic, Transport, ensure_topics,
    ensure_topics_alone,
};

use super::tiers::Tiers;
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
    report(ensure_topics(admin, &wanted).await?.different);
    Ok(())
}

/// Creates the missing retry topics of the `handled` topics, with as many partitions as these have.
pub(super) async fn create_retry_topics(
    admin: &dyn Admin,
    tiers: &Tiers,
    topics: &[Topic],
    prefix: &str,
    handled: &[Name],
) -> Result<()> {
    let mut wanted = Vec::new();
    for (name, found) in handled.iter().zip(admin.describe_topics(handled).await?) {
        // A missing topic is reported later, together with the others.
        let Ok(found) = found else { continue };
        let listed = topics.iter().find(|topic| prefixed(prefix, &topic.name) == *name);
        let mut topic = listed.cloned().unwrap_or_else(|| Topic::new(name.clone()));
        let size = found.settings.get("max.message.bytes").and_then(|bytes| bytes.parse().ok());
        topic.name = name.clone();
        topic.partitions = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX).max(1);
        topic.max_record_bytes = topic.max_record_bytes.or(size);
        wanted.extend(tiers.specs(&topic));
    }
    report(ensure_topics_alone(admin, &wanted).await?.different);
    Ok(())
}

fn report(different: Vec<Difference>) {
    for found in different {
        let line = logs::TopicDiffers {
            topic: &found.topic.as_str(),
            what: &found.what,
            wanted: &found.wanted,
            found: &found.found,
        };
        line.log();
    }
}

/// Replaces an error about one missing topic by an error that lists all missing topics, and how to create them: those
/// that are `read`, and the dead-letter topics of those that are `handled`.
pub(super) async fn all_missing(
    error: Error,
    transport: &dyn Transport,
    sink: &dyn DeadLetterSink,
    (read, handled): (&[Name], &[Name]),
    policy: &TopicPolicy,
) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    // A broker that does not answer this adds nothing to the first error.
    let Ok(missing) = missing(transport, read).await else { return error };
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!("missing topics: {}", missing.join(", ")));
    }
    problems.extend(sink.check(handled).await.err().map(|letters| letters.report()));
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

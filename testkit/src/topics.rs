//! The topics that a harness creates for its service.

use tidings_core::{ErrorKind, Name, Result, Topic, Transport, dead_letter_topic};
use tidings_service::{Service, TopicPolicy};

/// Returns those of `topics` that the service does not create itself.
pub(crate) fn missing_from_policy(service: &Service, topics: &[Name]) -> Vec<Name> {
    let prefix = service.topic_prefix();
    let created = |name: &Name| match service.topic_policy() {
        TopicPolicy::Create(created) => created.iter().any(|topic| format!("{prefix}{}", topic.name) == name.as_str()),
        _ => false,
    };
    topics.iter().filter(|name| !created(name)).cloned().collect()
}

/// Creates topics and their dead-letter topics, and retry topics, each with one partition, unless they exist.
pub(crate) async fn create_missing(transport: &impl Transport, topics: &[Name], retry: &[Name]) -> Result<()> {
    let admin = transport.admin().await?;
    let letters = topics.iter().map(|topic| dead_letter_topic(topic));
    let wanted: Vec<Topic> =
        topics.iter().cloned().chain(letters).chain(retry.iter().cloned()).map(Topic::new).collect();
    for answer in admin.create_topics(&wanted).await? {
        match answer {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

//! `event publish`.

use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, Headers, StoredRecord, Timestamp, TopicPartition, headers};
use uuid::Uuid;

use super::view::EventView;
use crate::change::{Change, ChangeOptions, Draft, Step, one_by_one};
use crate::context::Context;
use crate::exit::Failure;
use crate::input;

/// The largest value that is read from a file or standard input.
const MAX_VALUE: u64 = 64 << 20;

/// Publish a record; with --type an event in the JSON envelope that services read.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Name of the topic
    #[arg(required_unless_present = "from_plan")]
    topic: Option<String>,
    /// The value, or with --type the payload
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["file", "tombstone"])]
    value: Option<String>,
    /// File with the value, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "tombstone")]
    file: Option<PathBuf>,
    /// No value: the deletion of the key
    #[arg(long, requires = "key")]
    tombstone: bool,
    /// The key
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// A header; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = input::pair)]
    headers: Vec<(String, String)>,
    /// Partition; by default the key decides
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Type of the event: the value is a JSON payload, and gets the envelope
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "tombstone")]
    event_type: Option<String>,
    /// Version of the payload
    #[arg(long, value_name = "VERSION", default_value = "1.0", requires = "event_type")]
    version: String,
    /// Source of the event
    #[arg(long, value_name = "NAME", default_value = "tidings-cli", requires = "event_type")]
    source: String,
    #[command(flatten)]
    options: ChangeOptions,
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PublishStep {
    /// The record.
    record: EventView,
}

impl Step for PublishStep {
    const COLUMNS: &'static [&'static str] = &["PUBLISH TO", "TYPE", "KEY", "VALUE"];

    fn cells(&self) -> Vec<String> {
        let shown =
            |text: &Option<super::view::Text>| crate::output::or_dash(text.as_ref().map(super::view::Text::shown));
        let event_type = crate::output::or_dash(self.record.event_type.as_ref());
        vec![self.record.topic.clone(), event_type, shown(&self.record.key), shown(&self.record.value)]
    }
}

impl Publish {
    fn value(&self) -> Result<Option<Bytes>, Failure> {
        let Some(path) = &self.file else {
            if self.value.is_none() && !self.tombstone {
                return Err(Failure::usage("event publish: no value").with_hint("use --value, --file or --tombstone"));
            }
            return Ok(self.value.clone().map(Bytes::from));
        };
        let fail = |e: std::io::Error| Failure::usage(format!("read the value in {}: {e}", path.display()));
        let source: Box<dyn Read> = match path.as_os_str() == "-" {
            true => Box::new(std::io::stdin()),
            false => Box::new(std::fs::File::open(path).map_err(fail)?),
        };
        let mut value = Vec::new();
        source.take(MAX_VALUE + 1).read_to_end(&mut value).map_err(fail)?;
        if value.len() as u64 > MAX_VALUE {
            return Err(Failure::usage(format!("the value in {} is larger than 64 MiB", path.display())));
        }
        Ok(Some(value.into()))
    }

    /// Puts a payload into the envelope, in the body and in the headers that routers read.
    fn envelope(&self, event_type: &str, payload: &Bytes) -> Result<(Bytes, Headers), Failure> {
        let payload: serde_json::Value = serde_json::from_slice(payload)
            .map_err(|e| Failure::usage(format!("the payload is no JSON: line {}, column {}", e.line(), e.column())))?;
        let (id, now) = (Uuid::now_v7(), Timestamp::now().millis());
        let body = serde_json::json!({
            "eventId": id, "eventType": event_type, "timestamp": now, "source": self.source, "version": self.version,
            "payload": payload,
        });
        let all = Headers::new()
            .with(headers::EVENT_TYPE, event_type.to_owned())
            .with(headers::VERSION, self.version.clone())
            .with(headers::EVENT_ID, id.to_string());
        Ok((body.to_string().into(), all))
    }
}

impl Change for Publish {
    const VERB: &'static str = "event.publish";
    type Step = PublishStep;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.topic.iter().cloned().collect()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<PublishStep>, Failure> {
        let names = crate::nouns::topic::checked(self.topic.as_slice())?;
        let topics = crate::nouns::topic::describe_all(cx, &names).await?;
        let mut stored = StoredRecord::new(0, Timestamp::now());
        stored.value = self.value()?;
        if let (Some(event_type), Some(payload)) = (&self.event_type, &stored.value) {
            let (body, all) = self.envelope(event_type, payload)?;
            (stored.value, stored.headers) = (Some(body), all);
        }
        stored.key = self.key.clone().map(Bytes::from);
        for (name, value) in &self.headers {
            stored.headers = stored.headers.with(name.clone(), value.clone());
        }
        let mut steps = Vec::new();
        for topic in topics {
            let count = topic.partitions.len();
            if let Some(partition) = self.partition.filter(|partition| *partition as usize >= count) {
                return Err(Failure::usage(format!(
                    "topic {} has no partition {partition}: it has {count}",
                    topic.name
                )));
            }
            let mut record = EventView::new(&TopicPartition::new(topic.name, 0), &stored, true);
            (record.partition, record.offset, record.timestamp, record.time) = (self.partition, None, None, None);
            steps.push(PublishStep { record });
        }
        Ok(Draft::new(steps))
    }

    async fn stale(&self, cx: &Context, steps: &[PublishStep]) -> Result<Vec<String>, Failure> {
        let names: Vec<String> = steps.iter().map(|step| step.record.topic.clone()).collect();
        crate::nouns::topic::describe_all(cx, &crate::nouns::topic::checked(&names)?).await?;
        Ok(Vec::new())
    }

    async fn apply(&self, cx: &Context, steps: &[PublishStep]) -> Vec<tidings_core::Result<()>> {
        one_by_one(cx, steps, async |step: &PublishStep| {
            let record = step.record.record(None, true, false).map_err(|e| Error::new(ErrorKind::Invalid, e))?;
            let transport = cx.transport().await.map_err(|f| Error::new(ErrorKind::Unavailable, f.to_string()))?;
            let answer = transport.publisher().await?.publish(vec![record]).await.pop();
            let position = answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, "publish: no answer")))?;
            cx.console.note(&format!("{}[{}]@{}", step.record.topic, position.partition, position.offset));
            Ok(())
        })
        .await
    }
}

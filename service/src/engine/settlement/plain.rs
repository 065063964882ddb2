//! The settlement without transactions: each effect is made when it is due, and may be repeated.

use std::sync::Arc;

use tidings_core::{
    Commit, Consumer, DeadLetter, DeadLetterSink, Error, ErrorKind, Position, Publisher, Record, Result, async_trait,
};

use super::{Output, Settlement};
use crate::telemetry::PublisherStats;

/// Publishes, dead-letters and commits at once, in the order in which the engine asks for it.
#[derive(Debug)]
pub(crate) struct Plain {
    publisher: Arc<dyn Publisher>,
    published: PublisherStats,
    sink: Arc<dyn DeadLetterSink>,
    consumer: Arc<dyn Consumer>,
}

impl Plain {
    pub(crate) fn new(
        publisher: Arc<dyn Publisher>,
        published: PublisherStats,
        sink: Arc<dyn DeadLetterSink>,
        consumer: Arc<dyn Consumer>,
    ) -> Self {
        Self { publisher, published, sink, consumer }
    }
}

#[async_trait]
impl Settlement for Plain {
    async fn publish(&self, outputs: Vec<Output>) -> Vec<(Output, Result<()>)> {
        let records: Vec<_> = outputs.iter().flat_map(|output| output.records.iter().cloned()).collect();
        let answers = self.publisher.publish(records).await;
        self.published.count(&answers);
        let mut answers = answers.into_iter();
        outputs.into_iter().map(|output| published(output, &mut answers)).collect()
    }

    async fn forward(&self, records: Vec<Record>) -> Vec<Result<()>> {
        let count = records.len();
        let answers = self.publisher.publish(records).await.into_iter().map(|answer| answer.map(drop));
        let missing = std::iter::repeat_with(|| Err(unanswered()));
        answers.chain(missing).take(count).collect()
    }

    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        self.sink.bury(letters).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        self.consumer.commit(commits).await
    }
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Indeterminate, "the publisher gave no answer")
}

/// Takes the answers to an output's records; those that were not published are left in it.
fn published(mut output: Output, answers: &mut impl Iterator<Item = Result<Position>>) -> (Output, Result<()>) {
    let (mut left, mut refused, mut down) = (Vec::<Record>::new(), None, None);
    for record in std::mem::take(&mut output.records) {
        match answers.next() {
            Some(Ok(_)) => continue,
            Some(Err(error)) if error.is_infrastructure() => down = Some(error),
            Some(Err(error)) => refused = Some(error),
            None => {
                down.get_or_insert_with(unanswered);
            }
        }
        left.push(record);
    }
    output.records = left;
    let result = refused.or(down).map_or(Ok(()), Err);
    (output, result)
}

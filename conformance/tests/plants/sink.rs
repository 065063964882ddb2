//! A sink of dead letters with a bug.

use std::sync::Arc;

use tidings_core::{DeadLetter, DeadLetterSink, Guarantees, Headers, Name, Result, async_trait};

use crate::transport::Bug;

#[derive(Debug)]
pub(crate) struct PlantedSink {
    pub(crate) inner: Arc<dyn DeadLetterSink>,
    pub(crate) bug: Bug,
}

#[async_trait]
impl DeadLetterSink for PlantedSink {
    async fn bury(&self, mut letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        if self.bug == Bug::DropsALettersHeaders {
            letters.iter_mut().for_each(|letter| letter.record.headers = Headers::new());
        }
        let answers = self.inner.bury(letters).await;
        if self.bug == Bug::SwallowsAFailedDeadLetter { answers.iter().map(|_| Ok(())).collect() } else { answers }
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.inner.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

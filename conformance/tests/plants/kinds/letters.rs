//! A dead-letter sink with a bug.

use std::sync::Arc;

use tidings_core::{DeadLetter, DeadLetterSink, Error, ErrorKind, Guarantees, Name, Result, Timestamp, async_trait};

use super::Kind;

#[derive(Debug)]
pub(super) struct BentSink {
    pub(super) inner: Arc<dyn DeadLetterSink>,
    pub(super) kind: Kind,
}

impl BentSink {
    /// A letter as the bug has it.
    fn bent(&self, mut letter: DeadLetter) -> DeadLetter {
        let record = &mut letter.record;
        match self.kind {
            Kind::CutsALettersPartition => letter.origin.partition &= 0xff,
            Kind::KeepsALettersOffsetAsADouble => record.offset = record.offset as f64 as u64,
            Kind::KeepsAHundredHeadersOfALetter => {
                record.headers = std::mem::take(&mut record.headers).into_iter().take(100).collect();
            }
            Kind::TakesALettersEmptyKeyForNull => record.key = record.key.take().filter(|key| !key.is_empty()),
            Kind::DropsTheSignOfALettersTime => {
                record.timestamp = Timestamp::from_millis(record.timestamp.millis().abs());
            }
            _ => {}
        }
        letter
    }
}

#[async_trait]
impl DeadLetterSink for BentSink {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let count = letters.len();
        let mut letters: Vec<DeadLetter> = letters.into_iter().map(|letter| self.bent(letter)).collect();
        if self.kind == Kind::BuriesAHundred {
            letters.truncate(100);
        }
        let mut answers = Vec::new();
        for letter in letters {
            let down = self.kind == Kind::BuriesNoMoreAfterARefusal && answers.iter().any(Result::is_err);
            if down && answers.len() > 100 {
                answers.push(Err(Error::new(ErrorKind::NotFound, "a planted bug")));
            } else {
                answers.extend(self.inner.bury(vec![letter]).await);
            }
        }
        answers.resize_with(count, || Ok(()));
        answers
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.inner.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

//! Bugs of a full store.

use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, LetterId, LetterQuery, Resolution, Result,
};

use super::Bug;
use super::planted::Planted;

/// Limit of a small store.
pub(super) const FEW: usize = 4;

fn refused() -> Result<()> {
    Err(Error::new(ErrorKind::Unavailable, "a planted bug"))
}

impl Planted {
    /// Returns the answer to a letter as a store with a small limit gives it.
    pub(super) async fn in_a_full_store(&self, letter: DeadLetter, answer: Result<()>) -> Result<()> {
        let small = [
            Bug::DropsTheOldestWhenFull,
            Bug::CountsNoParkedLetters,
            Bug::RefusesRepeatsWhenFull,
            Bug::CountsClosedLetters,
        ];
        if !small.contains(&self.bug) {
            return answer;
        }
        let buried = {
            let mut known = self.known();
            known.buried += 1;
            known.buried
        };
        let open = self.inner.list(&LetterQuery::default()).await?;
        match self.bug {
            Bug::DropsTheOldestWhenFull if answer.is_err() => {
                let oldest: Vec<LetterId> = open.iter().take(1).map(DeadLetter::id).collect();
                self.inner.resolve(&oldest, &Resolution::discarded("store", "the store is full")).await?;
                self.inner.bury(vec![letter]).await.remove(0)
            }
            Bug::CountsNoParkedLetters if open.len() < FEW => Ok(()),
            Bug::RefusesRepeatsWhenFull if buried > FEW && open.len() >= FEW => refused(),
            Bug::CountsClosedLetters if buried > FEW => refused(),
            _ => answer,
        }
    }
}

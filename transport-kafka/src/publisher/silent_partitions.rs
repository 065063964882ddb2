//! How long calls wait for a record that is sent alone.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::producer::Target;

/// How long other records wait for the answer to a record that is sent alone.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// The same, while a partition is silent: its leader may lead others.
const SHORT_ANSWER_WAIT: Duration = Duration::from_millis(100);
/// How long a partition counts as silent after an answer did not come in time.
const SILENCE: Duration = Duration::from_secs(5);

/// Partitions that did not answer in time. No record is sent alone to any of them meanwhile: each would delay all
/// calls.
#[derive(Debug, Default)]
pub(super) struct SilentPartitions {
    until: HashMap<Target, Instant>,
}

impl SilentPartitions {
    /// Checks whether a partition recently failed to answer.
    pub(super) fn is_silent(&mut self, target: &Target) -> bool {
        let now = Instant::now();
        self.until.retain(|_, end| *end > now);
        self.until.contains_key(target)
    }

    /// Returns how long to wait for the next answer.
    pub(super) fn answer_wait(&self) -> Duration {
        if self.until.is_empty() { ANSWER_WAIT } else { SHORT_ANSWER_WAIT }
    }

    /// Records that an answer did not come in time.
    pub(super) fn note_silent(&mut self, target: Target) {
        self.until.insert(target, Instant::now() + SILENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_partition_is_left_alone_and_the_others_are_waited_for_shortly() {
        let mut silent = SilentPartitions::default();
        let [one, other] = [0, 1].map(|partition| Target { topic: "t".into(), partition });
        assert_eq!((silent.is_silent(&one), silent.answer_wait()), (false, ANSWER_WAIT));
        silent.note_silent(one.clone());
        assert_eq!(
            (silent.is_silent(&one), silent.is_silent(&other), silent.answer_wait()),
            (true, false, SHORT_ANSWER_WAIT)
        );
        tokio::time::advance(SILENCE).await;
        assert_eq!((silent.is_silent(&one), silent.answer_wait()), (false, ANSWER_WAIT));
    }
}

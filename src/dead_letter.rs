//! Dead letters: list, redrive, discard and park them.
//!
//! ```
//! use tidings::dead_letter::{DeadLetters, LetterQuery, RedriveOptions};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("memory://").await?;
//! let letters = DeadLetters::open(&transport, ["user-events"]).await?.with_operator("ann");
//! let query = LetterQuery::default().with_service("user-service").with_error("refused");
//! assert!(letters.list(&query).await?.is_empty());
//! assert_eq!(letters.redrive(&query, &RedriveOptions::default()).await?.redriven, 0);
//! letters.close().await
//! # }
//! ```

pub use tidings_core::{
    DEAD_LETTER_ROOM, DeadLetter, DeadLetterSink, DeadLetterStore, DeadLetterTopics, Leased, LetterEntry, LetterId,
    LetterKey, LetterLease, LetterQuery, LetterState, REDRIVE_LEASE, Redrive, RedriveOutcome, Redriven, Resolution,
    ResolutionKind, dead_letter_headers, dead_letter_state_topic, dead_letter_topic, is_dead_letter_header,
    is_dead_letter_topic,
};
pub use tidings_service::{
    DeadLetters, GroupBy, LetterGroup, LetterGroups, REDRIVE_GROUP_SUFFIX, RedriveOptions, RedriveReport,
    TopicDeadLetters,
};

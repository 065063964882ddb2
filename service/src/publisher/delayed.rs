//! Events that are published later, by transports that hold them back.

use std::time::Duration;

use tidings_core::{DelayedRecord, Due, EnvelopeRef, Event, PublishOptions, Result, Timestamp};
use tracing::{Instrument, field};
use uuid::Uuid;

use super::EventPublisher;

impl EventPublisher {
    /// Publishes `event` once `delay` has passed, and returns its id, by which it can be [cancelled](Self::cancel).
    ///
    /// The event is not published before, and takes its place in the order of its key when it is published. Its
    /// envelope has the time of this call. The broker's clock decides.
    ///
    /// The memory transport holds events back until the process ends. With Kafka the call fails as
    /// [`Unsupported`](tidings_core::ErrorKind::Unsupported): use the outbox of the Postgres store, which holds events
    /// back durably for any transport.
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish) and of [`Publisher::publish_delayed`](tidings_core::Publisher::publish_delayed).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::{EventPublisher, Router, Service};
    /// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    /// # #[event(crate = "tidings_core", topic = "reminders", type = "reminder.due", key = "user_id")]
    /// # struct ReminderDue { user_id: String }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let service = Service::new("mailer", Router::new().on(async |_: ReminderDue| {})).start(&transport).await?;
    /// let events = EventPublisher::new(&transport, "calendar");
    ///
    /// let hour = Duration::from_secs(3_600);
    /// events.publish_after(&ReminderDue { user_id: "u1".into() }, hour).await?;
    /// let second = events.publish_after(&ReminderDue { user_id: "u2".into() }, hour).await?;
    /// assert!(events.cancel(second).await?);
    ///
    /// tokio::time::sleep(2 * hour).await; // no time passes: the clock is paused
    /// assert_eq!(service.status().await.totals.handled, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_after<E: Event>(&self, event: &E, delay: Duration) -> Result<Uuid> {
        self.publish_later(event, delay, PublishOptions::default()).await
    }

    /// Publishes `event` at `time`, or at once if it has passed; otherwise as [`publish_after`](Self::publish_after).
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    ///
    /// # Errors
    /// As [`publish_after`](Self::publish_after).
    pub async fn publish_at<E: Event>(&self, event: &E, time: Timestamp) -> Result<Uuid> {
        self.publish_later(event, time, PublishOptions::default()).await
    }

    /// Publishes `event` when it is due, with options; otherwise as [`publish_after`](Self::publish_after).
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish). To repeat the event after a dropped future, set its id.
    ///
    /// # Errors
    /// As [`publish_after`](Self::publish_after), and those of the options, as [`publish_with`](Self::publish_with).
    pub async fn publish_later<E: Event>(
        &self,
        event: &E,
        due: impl Into<Due>,
        options: PublishOptions,
    ) -> Result<Uuid> {
        let id = options.id.unwrap_or_else(Uuid::now_v7);
        let timestamp = options.timestamp.unwrap_or_else(Timestamp::now);
        let due = due.into();
        let record = self.record(EnvelopeRef::new(id, timestamp, &self.source, event), &options);
        let span = self.span(E::TOPIC);
        span.record("messaging.message.id", field::display(id));
        let put = async {
            let delayed = DelayedRecord::new(id, record?, due);
            self.connection.open().await?.publish_delayed(delayed).await
        };
        let answer = put.instrument(span.clone()).await;
        self.connection.stats.count(std::slice::from_ref(&answer));
        if let Err(error) = &answer {
            span.record("error.type", error.kind().as_str());
        }
        answer.map(|()| id)
    }

    /// Cancels a delayed event that is not published yet, and returns whether there was one. `false` means that the
    /// event is published, or about to be, or unknown.
    ///
    /// # Cancel safety
    /// Dropping the future may still cancel the event.
    ///
    /// # Errors
    /// Those of [`Publisher::cancel_delayed`](tidings_core::Publisher::cancel_delayed).
    pub async fn cancel(&self, id: Uuid) -> Result<bool> {
        self.connection.open().await?.cancel_delayed(id).await
    }
}

//! Queries of an idempotency store.

use tidings_core::{EventRef, Name, Result};

use super::admin::miscounted;
use super::call::Client;
use crate::wire::{AreDone, Done, EventId};
use crate::{MAX_NAMES, Route};

pub(super) async fn done(client: &Client, store: &str, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
    let mut all = Vec::with_capacity(events.len());
    for events in events.chunks(MAX_NAMES) {
        let (store, scope) = (store.to_owned(), scope.to_string());
        let asked = Done { store, scope, events: events.iter().map(EventId::from).collect() };
        let AreDone { done } = client.post(Route::StoresDone, &asked).await?;
        if done.len() != events.len() {
            return Err(miscounted(Route::StoresDone, events.len(), done.len()));
        }
        all.extend(done);
    }
    Ok(all)
}

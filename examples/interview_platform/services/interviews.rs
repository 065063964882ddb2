//! The interview service: whom it may interview, and about which module.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings::{Router, State};

use crate::events::{UserProfileUpdated, UserRegistered};

/// The modules of each candidate.
#[derive(Debug, Default)]
pub(crate) struct Interviews(Mutex<HashMap<String, HashSet<String>>>);

pub(crate) fn router(interviews: Arc<Interviews>) -> Router {
    super::failing_on_poison(Router::new().on(registered).on(updated)).with_state(interviews)
}

async fn registered(event: UserRegistered, State(interviews): State<Arc<Interviews>>) {
    interviews.lock().entry(event.user_id).or_default().insert(event.profile.module);
}

async fn updated(event: UserProfileUpdated, State(interviews): State<Arc<Interviews>>) {
    interviews.lock().entry(event.user_id).or_default().insert(event.profile.module);
}

impl Interviews {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn summary(&self) -> String {
        let candidates = self.lock();
        let modules: HashSet<&String> = candidates.values().flatten().collect();
        format!("{} candidates for interviews about {} modules", candidates.len(), modules.len())
    }
}

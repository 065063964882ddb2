//! The analytics service: counts what happens, and derives how users do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings::handler::{BatchOptions, HandlerExt};
use tidings::{Batch, BoxError, Delivery, Event, Router, State, failed};

use crate::events::{
    InterviewCompleted, InterviewScored, InterviewStarted, Segment, UserActivityTracked, UserAuthenticated,
    UserBehaviorAnalyzed, UserLoggedOut, UserProfileUpdated, UserRegistered,
};

/// A user is analyzed each time this number of scores has arrived.
const SCORES_PER_ANALYSIS: u32 = 5;
/// Below this mean score a user is at risk: the pass mark of the input's modules.
const PASS_MARK: f64 = 40.0;
/// From this mean score on a user is excellent.
const EXCELLENT: f64 = 85.0;

/// The counts, and for each user the scores and the last segment.
#[derive(Debug, Default)]
pub(crate) struct Analytics(Mutex<Figures>);

#[derive(Debug, Default)]
struct Figures {
    by_type: BTreeMap<&'static str, u64>,
    users: HashMap<String, Scores>,
    segments: HashMap<String, Segment>,
}

#[derive(Debug, Default)]
struct Scores {
    count: u32,
    total: f64,
}

pub(crate) fn router(analytics: Arc<Analytics>) -> Router {
    let single = Router::new()
        .on(count::<UserAuthenticated>)
        .on(count::<UserRegistered>)
        .on(count::<UserLoggedOut>)
        .on(count::<UserProfileUpdated>)
        .on(count::<InterviewStarted>)
        .on(count::<InterviewCompleted>)
        .on(analyze)
        .on(remember);
    let batches = Router::new().on(track.batch(BatchOptions::new(256)));
    super::failing_on_poison(single).merge(batches).with_state(analytics)
}

async fn count<E: Event>(_: E, State(analytics): State<Arc<Analytics>>) {
    *analytics.lock().by_type.entry(E::TYPE).or_default() += 1;
}

/// Returned events are published before the score is settled, with ids that follow from the score's: a repeat publishes
/// the same event, and not another one.
async fn analyze(event: InterviewScored, State(analytics): State<Arc<Analytics>>) -> Option<UserBehaviorAnalyzed> {
    let mut figures = analytics.lock();
    *figures.by_type.entry(InterviewScored::TYPE).or_default() += 1;
    let scores = figures.users.entry(event.user_id.clone()).or_default();
    scores.count += 1;
    scores.total += event.score;
    let mean_score = scores.total / f64::from(scores.count);
    let segment = match mean_score {
        mean if mean < PASS_MARK => Segment::AtRisk,
        mean if mean < EXCELLENT => Segment::Steady,
        _ => Segment::Excellent,
    };
    let analysis = UserBehaviorAnalyzed { user_id: event.user_id, interviews: scores.count, mean_score, segment };
    (scores.count % SCORES_PER_ANALYSIS == 0).then_some(analysis)
}

async fn remember(event: UserBehaviorAnalyzed, State(analytics): State<Arc<Analytics>>) {
    let mut figures = analytics.lock();
    *figures.by_type.entry(UserBehaviorAnalyzed::TYPE).or_default() += 1;
    figures.segments.insert(event.user_id, event.segment);
}

/// Activity is the bulk of the input and not urgent: it is counted in batches.
async fn track(
    batch: Batch<UserActivityTracked>,
    State(analytics): State<Arc<Analytics>>,
    delivery: Delivery,
) -> Result<(), BoxError> {
    let places = delivery.records().enumerate().filter(|(_, record)| super::is_poison(record));
    let poison: Vec<usize> = places.map(|(place, _)| place).collect();
    let good = (batch.len() - poison.len()) as u64;
    *analytics.lock().by_type.entry(UserActivityTracked::TYPE).or_default() += good;
    if poison.is_empty() { Ok(()) } else { Err(failed(poison, "the event is poison").into()) }
}

impl Analytics {
    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn summary(&self) -> String {
        let figures = self.lock();
        let of = |event_type| figures.by_type.get(event_type).copied().unwrap_or_default();
        let segment = |wanted| figures.segments.values().filter(|segment| **segment == wanted).count();
        format!(
            "{} activities, {} analyses; of {} analyzed users {} at risk, {} steady, {} excellent",
            of(UserActivityTracked::TYPE),
            of(UserBehaviorAnalyzed::TYPE),
            figures.segments.len(),
            segment(Segment::AtRisk),
            segment(Segment::Steady),
            segment(Segment::Excellent),
        )
    }
}

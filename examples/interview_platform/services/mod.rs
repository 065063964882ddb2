//! The services that handle events: their groups, and how they are set up.

mod analytics;
mod interviews;
mod users;

use std::sync::Arc;
use std::time::Duration;

use tidings::handler::{Next, Outcome, from_fn};
use tidings::idempotency::IdempotencyStore;
use tidings::record::StoredRecord;
use tidings::{BoxError, Delivery, Result, Retry, Router, Service, ServiceHandle};

use self::analytics::Analytics;
use self::interviews::Interviews;
use self::users::Users;
use crate::audit::{AuditedTransport, GroupLog};
use crate::events::{INTERVIEW_EVENTS, USER_ANALYTICS, USER_EVENTS};
use crate::options::{Member, Options};

/// A header of records that are to end in the dead letters.
pub(crate) const POISON: &str = "poison";
/// Its value on those that handlers fail on: it stands for a bug that some events bring out.
pub(crate) const POISON_FAILS: &str = "fails";

/// A consumer group of the platform.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) member: Member,
    pub(crate) name: &'static str,
    pub(crate) topics: &'static [&'static str],
    /// The types that its service handles; it skips others.
    pub(crate) handles: &'static [&'static str],
}

pub(crate) const GROUPS: [Group; 3] = [
    Group {
        member: Member::UserService,
        name: "user-service-group",
        topics: &[USER_EVENTS, INTERVIEW_EVENTS],
        handles: &[
            "user.authenticated",
            "user.registered",
            "user.logged_out",
            "user.profile_updated",
            "interview.completed",
            "interview.scored",
        ],
    },
    Group {
        member: Member::InterviewService,
        name: "interview-service-group",
        topics: &[USER_EVENTS],
        handles: &["user.registered", "user.profile_updated"],
    },
    Group {
        member: Member::AnalyticsService,
        name: "analytics-service-group",
        topics: &[USER_EVENTS, INTERVIEW_EVENTS, USER_ANALYTICS],
        handles: &[
            "user.authenticated",
            "user.registered",
            "user.logged_out",
            "user.profile_updated",
            "interview.started",
            "interview.completed",
            "interview.scored",
            "user.activity_tracked",
            "user.behavior_analyzed",
        ],
    },
];

/// The state of the services, each its own.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    users: Arc<Users>,
    interviews: Arc<Interviews>,
    analytics: Arc<Analytics>,
}

impl Knowledge {
    /// Summarizes the state of a service in a line.
    pub(crate) fn summary(&self, member: Member) -> Option<String> {
        match member {
            Member::ApiGateway => None,
            Member::UserService => Some(self.users.summary()),
            Member::InterviewService => Some(self.interviews.summary()),
            Member::AnalyticsService => Some(self.analytics.summary()),
        }
    }

    fn router(&self, member: Member) -> Router {
        match member {
            Member::ApiGateway => Router::new(),
            Member::UserService => users::router(self.users.clone()),
            Member::InterviewService => interviews::router(self.interviews.clone()),
            Member::AnalyticsService => analytics::router(self.analytics.clone()),
        }
    }
}

/// Declares the services for the subcommand `tool`, which does not start them.
#[cfg(feature = "tool")]
pub(crate) fn declared() -> Vec<Service> {
    let knowledge = Knowledge::default();
    GROUPS.iter().map(|group| service(group, &knowledge)).collect()
}

fn service(group: &Group, knowledge: &Knowledge) -> Service {
    Service::new(group.member.name(), knowledge.router(group.member)).with_group(group.name)
}

/// Starts the service of `group`, which tells `log` what becomes of each record.
pub(crate) async fn start(
    group: &Group,
    knowledge: &Knowledge,
    options: &Options,
    store: Option<Arc<dyn IdempotencyStore>>,
    transport: &AuditedTransport,
    log: Arc<GroupLog>,
) -> Result<ServiceHandle> {
    let retry = Retry::exponential(Duration::from_millis(20)).with_cap(Duration::from_millis(200)).with_max_retries(3);
    let mut service = service(group, knowledge).with_retry(retry).with_observer(log);
    if !options.poison.is_zero() {
        // The breaker takes it for an outage when most deliveries fail, and so it must: but here we poison the topics
        // ourselves, in any share that is asked for. Even a small share fills its window near the end of the input, when
        // the good events are done and only the retries of the poison are left: probing them one by one, with backoff,
        // would take hours and protect nothing.
        service = service.with_breaker(None);
    }
    if let Some(store) = store {
        service = service.with_idempotency(store);
    }
    service.start(&transport.of(group.member.name())).await
}

/// Whether `record` is one that every handler fails on.
fn is_poison(record: &StoredRecord) -> bool {
    record.headers.get_str(POISON) == Some(POISON_FAILS)
}

/// A middleware that fails in place of the handler, for handlers of single events.
async fn fail_on_poison(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
    if delivery.records().any(is_poison) {
        return Err("the event is poison".into());
    }
    next.run(delivery).await
}

/// Wraps the handlers of `router` so that they fail on poison.
fn failing_on_poison<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.layer(from_fn(fail_on_poison))
}

//! The platform's nine event types, as its other services read and write them.

use serde::{Deserialize, Serialize};
use tidings::record::Position;
use tidings::{Event, EventPublisher, PublishOptions, Result};

pub(crate) const USER_EVENTS: &str = "user-events";
pub(crate) const INTERVIEW_EVENTS: &str = "interview-events";
pub(crate) const USER_ANALYTICS: &str = "user-analytics";

/// The topics, and how many partitions each has.
pub(crate) const TOPICS: [(&str, u32); 3] = [(USER_EVENTS, 3), (INTERVIEW_EVENTS, 3), (USER_ANALYTICS, 2)];

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "user-events", type = "user.authenticated", key = "user_id")]
pub(crate) struct UserAuthenticated {
    pub(crate) user_id: String,
    pub(crate) auth_method: String,
    pub(crate) session_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ip_address: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "user-events", type = "user.registered", key = "user_id")]
pub(crate) struct UserRegistered {
    pub(crate) user_id: String,
    pub(crate) email: String,
    pub(crate) profile: Profile,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "user-events", type = "user.logged_out", key = "user_id")]
pub(crate) struct UserLoggedOut {
    pub(crate) user_id: String,
    pub(crate) session_id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "user-events", type = "user.profile_updated", key = "user_id")]
pub(crate) struct UserProfileUpdated {
    pub(crate) user_id: String,
    pub(crate) profile: Profile,
}

/// A course that a user has enrolled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    pub(crate) module: String,
    pub(crate) presentation: String,
    pub(crate) enrolled_on: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "interview-events", type = "interview.started", key = "user_id")]
pub(crate) struct InterviewStarted {
    pub(crate) user_id: String,
    pub(crate) interview_id: String,
    pub(crate) kind: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "interview-events", type = "interview.completed", key = "user_id")]
pub(crate) struct InterviewCompleted {
    pub(crate) user_id: String,
    pub(crate) interview_id: String,
    pub(crate) kind: String,
    pub(crate) completed_on: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "interview-events", type = "interview.scored", key = "user_id")]
pub(crate) struct InterviewScored {
    pub(crate) user_id: String,
    pub(crate) interview_id: String,
    /// 0 to 100.
    pub(crate) score: f64,
    /// Its part of the final mark, in percent.
    pub(crate) weight: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "user-analytics", type = "user.activity_tracked", key = "user_id")]
pub(crate) struct UserActivityTracked {
    pub(crate) user_id: String,
    pub(crate) activity: String,
    pub(crate) module: String,
    /// Days from the start of the module; below 0 before it.
    pub(crate) day: i64,
}

/// Derived by the analytics service from a user's scores.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "camelCase")]
#[event(topic = "user-analytics", type = "user.behavior_analyzed", key = "user_id")]
pub(crate) struct UserBehaviorAnalyzed {
    pub(crate) user_id: String,
    pub(crate) interviews: u32,
    pub(crate) mean_score: f64,
    pub(crate) segment: Segment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Segment {
    AtRisk,
    Steady,
    Excellent,
}

/// An event that a service publishes of its own accord: all but the derived one.
#[derive(Debug)]
pub(crate) enum PlatformEvent {
    Authenticated(UserAuthenticated),
    Registered(UserRegistered),
    LoggedOut(UserLoggedOut),
    ProfileUpdated(UserProfileUpdated),
    Started(InterviewStarted),
    Completed(InterviewCompleted),
    Scored(InterviewScored),
    ActivityTracked(UserActivityTracked),
}

impl PlatformEvent {
    pub(crate) async fn publish(&self, by: &EventPublisher, options: PublishOptions) -> Result<Position> {
        match self {
            Self::Authenticated(event) => by.publish_with(event, options).await,
            Self::Registered(event) => by.publish_with(event, options).await,
            Self::LoggedOut(event) => by.publish_with(event, options).await,
            Self::ProfileUpdated(event) => by.publish_with(event, options).await,
            Self::Started(event) => by.publish_with(event, options).await,
            Self::Completed(event) => by.publish_with(event, options).await,
            Self::Scored(event) => by.publish_with(event, options).await,
            Self::ActivityTracked(event) => by.publish_with(event, options).await,
        }
    }

    /// Its topic, type and key: what a record needs whose value is not to be read.
    pub(crate) fn address(&self) -> (&'static str, &'static str, &str) {
        fn of<'a, E: Event>(_: &E, user_id: &'a str) -> (&'static str, &'static str, &'a str) {
            (E::TOPIC, E::TYPE, user_id)
        }
        match self {
            Self::Authenticated(event) => of(event, &event.user_id),
            Self::Registered(event) => of(event, &event.user_id),
            Self::LoggedOut(event) => of(event, &event.user_id),
            Self::ProfileUpdated(event) => of(event, &event.user_id),
            Self::Started(event) => of(event, &event.user_id),
            Self::Completed(event) => of(event, &event.user_id),
            Self::Scored(event) => of(event, &event.user_id),
            Self::ActivityTracked(event) => of(event, &event.user_id),
        }
    }
}

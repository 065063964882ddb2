//! The contents of an audit record.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{Error, ErrorKind, Name, Result, Timestamp};

/// The person or program that made a change.
///
/// ```
/// use tidings_core::audit::Principal;
///
/// let ann = Principal::new("ann").with_authentication("token").with_address("10.0.0.7");
/// assert_eq!((ann.name.as_str(), ann.authenticated_by.as_str()), ("ann", "token"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Principal {
    /// The name of the person, the service or the token; never the token itself.
    pub name: String,
    /// How it was authenticated, such as `token`, `tls` or `os-user`. Default: [`Principal::NOT_AUTHENTICATED`].
    pub authenticated_by: String,
    /// The client's address, if it is known.
    pub address: Option<String>,
    /// The instance of the program that acted, if it is known.
    pub instance: Option<String>,
}

impl Principal {
    /// How a principal was authenticated that only states its name.
    pub const NOT_AUTHENTICATED: &'static str = "none";

    /// Creates a principal that is not authenticated.
    pub fn new(name: impl Into<String>) -> Self {
        let authenticated_by = Self::NOT_AUTHENTICATED.to_owned();
        Self { name: name.into(), authenticated_by, address: None, instance: None }
    }

    /// Sets how it was authenticated.
    #[must_use]
    pub fn with_authentication(mut self, how: impl Into<String>) -> Self {
        self.authenticated_by = how.into();
        self
    }

    /// Sets the client's address.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Sets the instance of the program that acted.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }
}

/// Whether a record was written before or after its change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditPhase {
    /// Written before the change was tried. If no result follows, the outcome is unknown.
    Intent,
    /// Written after the change was tried.
    Result {
        /// The id of the intent's record; `None` for events, which have no intent.
        intent: Option<Uuid>,
        /// The outcome.
        outcome: AuditOutcome,
    },
}

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It was made.
    Ok,
    /// It was refused: the principal may not do it.
    Denied {
        /// The cause.
        error: String,
    },
    /// It failed, or a part of it did.
    Failed {
        /// The kind of the first error.
        kind: ErrorKind,
        /// The cause.
        error: String,
    },
    /// The caller gave up before there was an answer: it may or may not have been made.
    Unknown,
}

impl AuditOutcome {
    /// Returns the outcome of a change that failed: denied, unknown after
    /// [`Indeterminate`](ErrorKind::Indeterminate), else failed.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Denied => Self::Denied { error: error.report() },
            ErrorKind::Indeterminate => Self::Unknown,
            kind => Self::Failed { kind, error: error.report() },
        }
    }

    /// Returns the outcome of a change with an answer per part: denied if each part was, else that of the first error
    /// that is no denial; with denials alone, of some parts, failed.
    pub fn of_each<T>(answers: &[Result<T>]) -> Self {
        let errors = || answers.iter().filter_map(|answer| answer.as_ref().err());
        let denied = errors().count() == answers.len() && errors().all(|error| error.kind() == ErrorKind::Denied);
        let first = errors().find(|error| denied || error.kind() != ErrorKind::Denied).or_else(|| errors().next());
        match first.map(Self::of) {
            // Only a part of them was denied.
            Some(Self::Denied { error }) if !denied => Self::Failed { kind: ErrorKind::Denied, error },
            Some(outcome) => outcome,
            None => Self::Ok,
        }
    }

    /// Returns the stable name, as stored: `"ok"`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied { .. } => "denied",
            Self::Failed { .. } => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// An event in an audit record: its position and id, and nothing else of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AuditedEvent {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The event's id; `None` if it cannot be read.
    pub id: Option<Uuid>,
}

impl AuditedEvent {
    /// Creates an event at a position.
    pub const fn new(partition: u32, offset: u64, id: Option<Uuid>) -> Self {
        Self { partition, offset, id }
    }
}

/// One step of a change: who, what, on what, before and after, and with which result. It contains no payload and no
/// secret.
///
/// ```
/// use tidings_core::audit::{AuditRecord, Principal};
///
/// let record = AuditRecord::intent(Principal::new("ann"), "topic.create")
///     .with_resource("topic:orders")
///     .with_after("partitions", "6")
///     .with_reason("more load");
/// assert_eq!(record.verb, "topic.create");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// The record's id.
    pub id: Uuid,
    /// The time of writing, by the writer's clock.
    pub time: Timestamp,
    /// Whether it is an intent or a result.
    pub phase: AuditPhase,
    /// The principal that makes the change.
    pub principal: Principal,
    /// The operation, as `noun.verb`: `topic.create`.
    pub verb: Name,
    /// The resources, as `kind:name`: `topic:orders`. Bounded: see [`omitted`](Self::omitted).
    pub resources: Vec<String>,
    /// The number of resources and events that are left out, because there are too many.
    pub omitted: u64,
    /// The state before, by name.
    pub before: BTreeMap<String, String>,
    /// The state after, by name; of an intent, the requested one.
    pub after: BTreeMap<String, String>,
    /// The reason that the principal gave; may be empty.
    pub reason: String,
    /// Counts of a result, by name: `ok`, `failed`.
    pub counts: BTreeMap<String, u64>,
    /// The errors of resources that failed, by resource.
    pub failures: BTreeMap<String, String>,
    /// The id that the records of one request or command share.
    pub correlation_id: Option<String>,
    /// The digest of the plan that was executed.
    pub plan: Option<String>,
    /// Events, of an audit of event operations.
    pub events: Vec<AuditedEvent>,
}

impl AuditRecord {
    /// Creates an intent: a new record, of now, that the principal is about to do `verb`.
    pub fn intent(principal: Principal, verb: impl Into<Name>) -> Self {
        Self {
            id: Uuid::now_v7(),
            time: Timestamp::now(),
            phase: AuditPhase::Intent,
            principal,
            verb: verb.into(),
            resources: Vec::new(),
            omitted: 0,
            before: BTreeMap::new(),
            after: BTreeMap::new(),
            reason: String::new(),
            counts: BTreeMap::new(),
            failures: BTreeMap::new(),
            correlation_id: None,
            plan: None,
            events: Vec::new(),
        }
    }

    /// Returns the result of this intent: a new record, of now, that repeats what the intent states.
    #[must_use]
    pub fn result(&self, outcome: AuditOutcome) -> Self {
        let phase = AuditPhase::Result { intent: Some(self.id), outcome };
        Self { id: Uuid::now_v7(), time: Timestamp::now(), phase, ..self.clone() }
    }

    /// Returns the outcome; `None` for an intent.
    pub fn outcome(&self) -> Option<&AuditOutcome> {
        match &self.phase {
            AuditPhase::Intent => None,
            AuditPhase::Result { outcome, .. } => Some(outcome),
        }
    }

    /// Adds a resource.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.resources.push(resource.into());
        self
    }

    /// Adds what was before.
    #[must_use]
    pub fn with_before(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.before.insert(name.into(), value.into());
        self
    }

    /// Adds what is after.
    #[must_use]
    pub fn with_after(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.after.insert(name.into(), value.into());
        self
    }

    /// Sets the reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

//! The records that a handler takes, as it is added to a router.

use tidings_core::{Event, Name, codec};

/// The records that a handler was registered for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Events of a type and major versions in a topic: that of the handler's type, then those of its upcasts, descending.
    Event { topic: Name, event_type: Name, majors: Vec<u32> },
    /// Records of a topic that no other handler takes.
    Topic(Name),
    /// Tombstones of a topic, or of all topics without a tombstone handler.
    Tombstone(Option<Name>),
    /// Events of types without a handler.
    Fallback,
}

impl Target {
    /// Returns the target of the handlers of `E`: one per type and major version, of which each belongs to one handler.
    pub(crate) fn of_event<E: Event>() -> Self {
        Self::Event {
            topic: Name::from_static(E::TOPIC),
            event_type: Name::from_static(E::TYPE),
            majors: codec::majors::<E>(),
        }
    }

    /// Returns the topic that must be read for it, without the service's prefix.
    pub(crate) fn topic(&self) -> Option<&Name> {
        match self {
            Self::Event { topic, .. } | Self::Topic(topic) => Some(topic),
            Self::Tombstone(topic) => topic.as_ref(),
            Self::Fallback => None,
        }
    }

    /// Returns the name of a handler that was given none: that of a handler of its oldest version. It is part of
    /// derived ids, so it stays the same when a handler of that version is replaced by one of a newer version with an
    /// upcast.
    pub(crate) fn default_name(&self) -> Name {
        match self {
            Self::Event { event_type, majors, .. } => match majors.last() {
                None | Some(0 | 1) => event_type.clone(),
                Some(major) => format!("{event_type}:v{major}").into(),
            },
            Self::Topic(topic) => format!("topic:{topic}").into(),
            Self::Tombstone(Some(topic)) => format!("tombstone:{topic}").into(),
            Self::Tombstone(None) => Name::from_static("tombstone"),
            Self::Fallback => Name::from_static("fallback"),
        }
    }

    /// Returns the targets of one major version each, which no two handlers may share.
    pub(crate) fn parts(&self) -> Vec<Self> {
        match self {
            Self::Event { topic, event_type, majors } => {
                let part = |major: &u32| Self::Event {
                    topic: topic.clone(),
                    event_type: event_type.clone(),
                    majors: vec![*major],
                };
                majors.iter().map(part).collect()
            }
            Self::Topic(_) | Self::Tombstone(_) | Self::Fallback => vec![self.clone()],
        }
    }

    /// Describes the records, for messages: `user.registered 1.x of topic user-events`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Event { topic, event_type, majors } => {
                let majors: Vec<_> = majors.iter().map(|major| format!("{major}.x")).collect();
                format!("{event_type} {} of topic {topic}", majors.join(", "))
            }
            Self::Topic(topic) => format!("the records of topic {topic}"),
            Self::Tombstone(Some(topic)) => format!("the tombstones of topic {topic}"),
            Self::Tombstone(None) => "the tombstones of any topic".into(),
            Self::Fallback => "the fallback".into(),
        }
    }
}

//! Names of topics, event types, services and handlers: short text that is cheap to clone.
//!
//! Each record that is handled touches several names (its topic, its handler, its service), so a clone must not copy
//! text. A [`Name`] is either a `&'static str` or a shared text; it compares, hashes and derefs as the text.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// The longest name of a topic, in bytes: Kafka's limit, which every transport keeps.
pub const MAX_TOPIC_NAME_BYTES: usize = 249;

/// The rule of topic names and instance ids.
const NAME_RULE: &str = "1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', and is neither \".\" nor \"..\"";

/// The number of bytes of an invalid topic name that an error repeats.
const SHOWN_BYTES: usize = 80;

/// Checks that a name is valid for a topic.
///
/// Valid are 1 to [`MAX_TOPIC_NAME_BYTES`] of `a-z`, `A-Z`, `0-9`, `.`, `_` and `-`, except `.` and `..`.
///
/// ```
/// use tidings_core::{ErrorKind, check_topic_name};
///
/// assert!(check_topic_name("user-events").is_ok());
/// assert_eq!(check_topic_name("user events").map_err(|e| e.kind()), Err(ErrorKind::Invalid));
/// ```
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid), with the topic and the rule; of a long name only the beginning.
pub fn check_topic_name(name: &str) -> Result<()> {
    if is_legal(name) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("topic {}: a topic name has {NAME_RULE}", shown(name))))
}

/// Checks that a name is valid for a static member: brokers apply the rule of topic names.
pub(crate) fn check_instance_id(id: &str) -> Result<()> {
    if is_legal(id) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("expected {NAME_RULE}, found {}", shown(id))))
}

fn is_legal(name: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=MAX_TOPIC_NAME_BYTES).contains(&name.len()) && name.bytes().all(legal) && !matches!(name, "." | "..")
}

/// Quotes a name; of a long one only the beginning.
fn shown(name: &str) -> String {
    match name.len() {
        0..=MAX_TOPIC_NAME_BYTES => format!("{name:?}"),
        // Enough to show the suffix of a dead-letter topic, which is what exceeds the limit.
        long @ ..=1_000 => format!("{name:?} of {long} bytes"),
        long => format!("{:?}.. of {long} bytes", &name[..name.floor_char_boundary(SHOWN_BYTES)]),
    }
}

/// The name of a topic, an event type, a service or a handler.
///
/// A name from a `&'static str` (as `derive(Event)` uses) is never allocated; any other is shared, so that a clone
/// copies no text.
///
/// ```
/// use std::collections::HashMap;
/// use tidings_core::Name;
///
/// const TOPIC: Name = Name::from_static("user-events");
/// let same: Name = format!("{}-events", "user").into();
/// assert_eq!(TOPIC, same);
///
/// // A map by name is searched by text.
/// let partitions = HashMap::from([(TOPIC, 3)]);
/// assert_eq!(partitions.get("user-events"), Some(&3));
/// ```
#[derive(Clone)]
pub struct Name(Text);

/// A text of the program, which needs no count of references, or a shared one.
#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Name {
    /// Creates a name that lives as long as the program; usable in constants.
    ///
    /// ```
    /// use tidings_core::Name;
    ///
    /// const HANDLER: Name = Name::from_static("welcome");
    /// assert_eq!(HANDLER, "welcome");
    /// ```
    pub const fn from_static(text: &'static str) -> Self {
        Self(Text::Static(text))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::from_static("")
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Text::Shared(text.into()))
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(Text::Shared(text.into()))
    }
}

impl From<&String> for Name {
    fn from(text: &String) -> Self {
        Self(Text::Shared(text.as_str().into()))
    }
}

impl From<Arc<str>> for Name {
    fn from(text: Arc<str>) -> Self {
        Self(Text::Shared(text))
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Self {
        name.clone()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.as_str(), other.as_str());
        // They are usually clones of each other.
        std::ptr::eq(one, other) || one == other
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Name {
    // Hashes as `str` does, because of `Borrow<str>`.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A partition of a topic: the unit of order and of assignment.
///
/// ```
/// use tidings_core::TopicPartition;
///
/// assert_eq!(TopicPartition::new("user-events", 2).to_string(), "user-events[2]");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Name,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// Creates the partition `partition` of `topic`.
    pub fn new(topic: impl Into<Name>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_topic_can_have_is_invalid_and_shown_in_part() {
        for good in ["t", "a.b_c-D9", "...", &"x".repeat(MAX_TOPIC_NAME_BYTES)] {
            check_topic_name(good).unwrap();
        }
        for bad in ["", ".", "..", "a b", " a", "a\n", "ä", "a/b", "a\0", &"x".repeat(MAX_TOPIC_NAME_BYTES + 1)] {
            let error = check_topic_name(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
        let error = check_topic_name(&"é".repeat(33_000)).unwrap_err().to_string();
        assert!(error.len() < 400 && error.contains("66000 bytes"), "{error}");
    }
}

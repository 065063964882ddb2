//! Audit records.

mod sink;
mod trail;

pub(crate) use self::trail::{Trail, TrailPage};

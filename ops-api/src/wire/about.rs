//! The description of an endpoint.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tidings_core::{Clause, Guarantees};

/// The backends of an endpoint, and the role of the token that asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct About {
    /// The version of the endpoint.
    pub version: String,
    /// The messaging system of the transport, such as `kafka`; `None` without `Ops::with_admin`.
    pub system: Option<String>,
    /// Whether all changes are refused.
    pub read_only: bool,
    /// The name of the caller, as the audit has it.
    pub principal: String,
    /// The role of the caller.
    pub role: String,
    /// The services that the endpoint reports on.
    pub services: Vec<String>,
    /// The stores of dead letters, by name.
    pub dead_letters: Vec<String>,
    /// The idempotency stores, by name.
    pub stores: Vec<String>,
    /// The guarantees of the transport's parts, by `transport`, `publisher` and `admin`.
    pub guarantees: std::collections::BTreeMap<String, Kept>,
}

/// The guarantees of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kept {
    /// The clauses that it does not keep, with the reasons.
    pub not_kept: Vec<(String, String)>,
    /// Whether several processes share it.
    pub shared: bool,
}

impl From<&Guarantees> for Kept {
    fn from(guarantees: &Guarantees) -> Self {
        let not_kept = Clause::ALL.iter().filter_map(|clause| {
            let reason = guarantees.why_not(*clause)?;
            Some((clause.id().to_owned(), reason.to_owned()))
        });
        Self { not_kept: not_kept.collect(), shared: guarantees.is_shared() }
    }
}

impl From<Kept> for Guarantees {
    fn from(kept: Kept) -> Self {
        let all = Self::all().with_shared(kept.shared);
        kept.not_kept.into_iter().fold(all, |guarantees, (id, reason)| {
            // A clause of a later version says nothing to this one.
            match Clause::ALL.iter().find(|clause| clause.id() == id) {
                Some(clause) => guarantees.without(*clause, Cow::Owned(reason)),
                None => guarantees,
            }
        })
    }
}

impl About {
    /// Creates a description of this version, with nothing else.
    pub fn new() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), ..Self::default() }
    }
}

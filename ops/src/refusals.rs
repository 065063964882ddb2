//! Counts of the requests that were refused.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::access::Access;

/// Reason why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its token is missing or wrong.
    Unauthenticated,
    /// The role of its token does not suffice.
    Role,
    /// The endpoint is read-only.
    ReadOnly,
    /// No token is configured, and the request is not local.
    NotLocal,
    /// A web page sent it.
    WebPage,
}

impl Refused {
    const ALL: [Self; 5] = [Self::Unauthenticated, Self::Role, Self::ReadOnly, Self::NotLocal, Self::WebPage];

    /// Returns the reason of a refusal; `None` if access is granted.
    pub(crate) const fn of(access: Access) -> Option<Self> {
        match access {
            Access::Granted => None,
            Access::Unauthenticated => Some(Self::Unauthenticated),
            Access::Forbidden => Some(Self::Role),
            Access::NoTokens => Some(Self::NotLocal),
        }
    }

    /// Returns the value of the metric's label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Role => "role",
            Self::ReadOnly => "read_only",
            Self::NotLocal => "not_local",
            Self::WebPage => "web_page",
        }
    }
}

/// Numbers of refused requests by reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Refused::ALL.len()]);

impl Refusals {
    pub(crate) fn count(&self, refused: Refused) {
        let at = Refused::ALL.iter().position(|known| *known == refused);
        if let Some(count) = at.and_then(|at| self.0.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of each reason.
    pub(crate) fn read(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Refused::ALL.iter().map(|refused| refused.as_str()).zip(counts).collect()
    }
}

//! `audit`: reads and verifies an audit trail.

mod tail;
mod verify;

use std::sync::Arc;

use clap::Subcommand;
use tidings_core::audit::AuditSink;

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the last records: who changed what, and how it ended
    Tail(tail::Tail),
    /// Look for records that were altered, deleted, inserted or reordered
    Verify(verify::Verify),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Tail(verb) => cx.show(verb).await,
            Self::Verify(verb) => cx.show(verb).await,
        }
    }
}

/// Opens the trail that is given, or else that of an ops endpoint.
async fn open(cx: &Context) -> Result<Arc<dyn AuditSink>, Failure> {
    if let Some(sink) = cx.audit_sink().await? {
        return Ok(sink);
    }
    let missing =
        || Failure::usage("no audit trail is given").with_hint("use --audit or TIDINGS_AUDIT: topic:NAME, ..");
    cx.remote_audit().await?.ok_or_else(missing)
}

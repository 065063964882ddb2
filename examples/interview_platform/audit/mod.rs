//! The audit: who published and settled what, and whether that adds up.

mod check;
mod ledger;
mod letters;
mod transport;

pub(crate) use self::check::{Checked, Findings, check};
pub(crate) use self::ledger::{GroupLog, Ledger, Place};
pub(crate) use self::letters::Letters;
pub(crate) use self::transport::AuditedTransport;

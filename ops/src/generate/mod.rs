//! A dashboard and alerts, generated from the table of metrics.
//!
//! `deploy/` of the repository has the generated files; each is compared with the code by a test.

mod alerts;
mod dashboard;
mod panels;
mod query;

pub use self::alerts::alerts;
pub use self::dashboard::dashboard;

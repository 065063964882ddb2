//! Reading: fetch requests, and the records in their answers.
//!
//! [`fetch`] builds requests and splits answers by partition; [`FetchedBatches`] unpacks the batches of a partition
//! step by step. Where the next fetch begins is known from the headers of batches, before any record is decoded.

mod batches;
pub(crate) mod epochs;
pub(crate) mod fetch;

pub(crate) use self::batches::{FetchedBatches, UnpackLimits, Unreadable};

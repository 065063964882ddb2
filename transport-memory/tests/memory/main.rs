//! The memory transport and stores as their users see them, on a paused clock.

mod common;
mod consume;
mod faults;
mod groups;
mod operate;
mod publish;
mod store;
mod transactions;

//! The check of a group's lag.

use clap::Args;
use tidings_core::Name;

use super::missing;
use super::view::{CheckView, Status, Value};
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub(super) struct Group {
    /// Name of the group
    pub(super) group: String,
    /// Total lag from which the status is warning
    #[arg(long, value_name = "OFFSETS")]
    warning: Option<u64>,
    /// Total lag from which the status is critical
    #[arg(long, value_name = "OFFSETS")]
    critical: Option<u64>,
    /// Fewer members than this are critical
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_members: usize,
}

impl Group {
    pub(super) async fn run(&self, cx: &Context) -> Result<CheckView, Failure> {
        let (admin, name) = (cx.admin().await?, Name::from(self.group.as_str()));
        let found = match admin.describe_group(&name).await {
            Ok(found) => found,
            Err(error) => return missing(error, &format!("group {}", self.group)),
        };
        let lag = admin.group_lag(&name).await?;
        let unknown = lag.iter().filter(|lag| lag.lag().is_none()).count();
        let all: u64 = lag.iter().filter_map(tidings_core::PartitionLag::lag).sum();
        let members = found.members.len();
        let (status, message) = match (members < self.min_members, unknown) {
            (true, _) => (Status::Critical, format!("{members} members, fewer than {}; lag {all}", self.min_members)),
            (false, 0) => (Status::Ok, format!("lag {all}, {members} members")),
            (false, unknown) => (Status::Unknown, format!("lag {all}, and unknown on {unknown} partitions")),
        };
        let view = CheckView::new(status, message).with_value(Value::new("lag", all, self.warning, self.critical));
        Ok(view.with_value(Value::new("members", members as u64, None, None)))
    }
}

//! Topics, groups, brokers and access control of a cluster, for operators and start-up code.
//!
//! ```
//! use tidings::Topic;
//! use tidings::admin::{ensure_topics, inspect};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let admin = tidings::connect("memory://").await?.admin().await?;
//! let report = ensure_topics(admin.as_ref(), &[Topic::new("user-events").with_partitions(3)]).await?;
//! assert!(report.created.contains(&"user-events-dlq".into()), "with its dead-letter topic");
//!
//! let found = inspect(admin.as_ref(), &["user-events".into()], &[]).await?;
//! assert!(found.missing.is_empty() && found.health.is_healthy());
//! # Ok(())
//! # }
//! ```

pub use tidings_core::{
    Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, AclResourceType, Acls, Admin,
    BrokerDescription, Cleanup, Cluster, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource,
    CreatePartitionsOptions, Difference, EnsureReport, GroupDescription, GroupHealth, GroupState, Health, Inspection,
    LogDir, MemberDescription, PartitionDescription, PartitionLag, PartitionReset, ResetOffsetsOptions, ResetTo,
    TopicDescription, ensure_topics, ensure_topics_alone, inspect, is_sensitive_config,
};

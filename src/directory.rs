//! The directory of services: which instances run, in which version, and where their ops endpoints are.
//!
//! ```no_run
//! use tidings::directory::{self, DIRECTORY_TOPIC, DirectoryOptions, DirectoryTopic};
//! use tidings::record::Timestamp;
//! use tidings::{Delivery, Router, Service};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("kafka://localhost:9092").await?;
//! let entry = DirectoryOptions::new("http://10.0.0.7:9400").with_version("1.4.0");
//! let router = Router::new().on_topic("clicks", async |_: Delivery| {});
//! let service = Service::new("meter", router).with_directory(entry).start(&transport).await?;
//!
//! let directory = DirectoryTopic::open(&transport, DIRECTORY_TOPIC).await?;
//! let listing = directory::list(&directory, Timestamp::now()).await?;
//! for drift in &listing.drifts {
//!     println!("{drift}"); // "meter runs 2 versions: 1.3.0 (1 instance), 1.4.0 (2 instances)"
//! }
//! # service.stopped().await
//! # }
//! ```

pub use tidings_core::directory::{
    DIRECTORY_TOPIC, Directory, DirectoryEntry, DirectoryHandler, DirectoryTopic, Drift, DriftKind, Listing, list,
};
pub use tidings_service::DirectoryOptions;

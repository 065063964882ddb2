//! The command line.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::{CommandFactory, Parser, ValueEnum};
use tidings::idempotency::IdempotencyStore;
use tidings::transport::Secret;
use tidings::{BoxError, ErrorKind, Transport};

/// The directory of the stores, by default.
const STORES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/interview-platform");
/// The schema of the store's tables in a database.
const SCHEMA: &str = "interview_platform";
/// The input, by default.
const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/oulad-2013-student-events.ndjson.gz");
/// The broker, by default.
const URL: &str = "memory://";
/// The default broker of a steady load: each partition keeps its latest records only.
const BOUNDED_URL: &str = "memory://?retention_records=50000";
/// The ids that the default store of a steady load remembers.
const BOUNDED_STORE: usize = 500_000;

/// An interview platform in one process: three services publish, three groups handle, on real events.
///
/// Event ids are derived from the input: a second run handles nothing twice, and says so. Ctrl-C stops reading the
/// input, lets the services finish the published events, and prints the table.
#[derive(Debug, Clone, Parser)]
#[command(bin_name = "cargo run --release --example interview_platform --")]
pub(crate) struct Options {
    /// Reads events from this file, ndjson or ndjson.gz [default: examples/data/oulad-2013-student-events.ndjson.gz]
    #[arg(long, value_name = "FILE", default_value = INPUT, hide_default_value = true)]
    pub(crate) input: PathBuf,
    /// Broker: memory://, or kafka://HOST:PORT (with --features kafka)
    #[arg(long, value_name = "URL", default_value = URL)]
    pub(crate) url: String,
    /// Reads only the first N events of the input
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub(crate) limit: u64,
    /// Publishes, for this share of the events, another one that cannot be decoded or always fails: 0 to 100
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    pub(crate) poison: Percent,
    /// Publishes this share of the events twice: 0 to 100
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    pub(crate) duplicate: Percent,
    /// Store of handled events: sled:PATH, postgres://USER:PASSWORD@HOST:PORT/DATABASE (with --features postgres),
    /// memory, none [default: sled, in a directory below target/interview-platform for each url and list of services]
    #[arg(long = "store", value_name = "STORE")]
    store_text: Option<String>,
    #[arg(skip)]
    pub(crate) store: Store,
    /// Publishes N events per second, the input over and over, until Ctrl-C. The events are new in each round. No list
    /// of them is kept, so that memory stays bounded; by default the store is in memory, too
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<NonZeroU32>,
    /// Serves /livez, /readyz, /metrics and /status on this address while it works (with --features ops)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ops: Option<String>,
    /// Runs only these services
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = Member::ALL, hide_default_value = true)]
    pub(crate) services: Vec<Member>,
    /// Lists the dead letters at the end, and publishes them to their topics again, for the next run
    #[arg(long)]
    pub(crate) redrive: bool,
    /// Writes a line of JSON for each step of each event to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
}

impl Options {
    /// Reads the command line. Prints and exits if it asks for help or is wrong.
    pub(crate) fn from_args() -> Self {
        let mut options = Self::parse();
        options.store = match options.store_text.take() {
            None if options.rate.is_some() => Store::Memory,
            None => Store::by_default(&options.url, &options.services),
            // It may contain a password, so the error does not repeat it.
            Some(text) => match text.parse() {
                Ok(store) => store,
                Err(expected) => {
                    let text = format!("--store: expected {expected}");
                    Self::command().error(clap::error::ErrorKind::ValueValidation, text).exit()
                }
            },
        };
        options
    }

    /// Connects to the broker.
    pub(crate) async fn connect(&self) -> Result<Arc<dyn Transport>, BoxError> {
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if cfg!(not(feature = "kafka")) && matches!(scheme, "kafka" | "kafkas") {
            return Err(needs_feature("--url", &format!("{scheme}://.."), "kafka").into());
        }
        let url = if self.rate.is_some() && self.url == URL { BOUNDED_URL } else { &self.url };
        Ok(tidings::connect(url).await.map_err(|e| format!("--url: {}", e.report()))?)
    }

    pub(crate) fn runs(&self, member: Member) -> bool {
        self.services.contains(&member)
    }
}

/// A percentage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Percent(f64);

impl Percent {
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0.0
    }

    /// Returns whether an evenly distributed `lot` is within the percentage.
    pub(crate) fn hits(self, lot: u32) -> bool {
        f64::from(lot) < self.0 / 100.0 * f64::from(u32::MAX)
    }
}

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let percent = text.trim_end_matches('%').parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
        percent.map(Self).ok_or("must be a number from 0 to 100")
    }
}

/// A service of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Member {
    ApiGateway,
    UserService,
    InterviewService,
    AnalyticsService,
}

impl Member {
    pub(crate) const ALL: [Self; 4] =
        [Self::ApiGateway, Self::UserService, Self::InterviewService, Self::AnalyticsService];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ApiGateway => "api-gateway",
            Self::UserService => "user-service",
            Self::InterviewService => "interview-service",
            Self::AnalyticsService => "analytics-service",
        }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The store of handled events.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Store {
    Memory,
    #[default]
    None,
    /// By its URL.
    Postgres(Secret),
    Sled(PathBuf),
}

impl Store {
    /// Returns a directory for this broker and these services: events handled on one broker are not done on another,
    /// and a directory belongs to one process at a time.
    fn by_default(url: &str, services: &[Member]) -> Self {
        let broker: String = url.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let mut names = vec![broker.trim_matches('-')];
        if services.len() < Member::ALL.len() {
            names.extend(services.iter().map(|member| member.name()));
        }
        Self::Sled(Path::new(STORES).join(names.join("+")))
    }

    /// Opens the store. All services share it; each has its own scope. Under a steady load, one in memory is bounded.
    pub(crate) async fn open(&self, steady: bool) -> Result<Option<Arc<dyn IdempotencyStore>>, BoxError> {
        match self {
            Self::None => Ok(None),
            Self::Memory => {
                let store = tidings::memory::MemoryStore::new();
                Ok(Some(Arc::new(if steady { store.with_max_done(BOUNDED_STORE) } else { store })))
            }
            Self::Sled(path) => {
                let store = tidings_sled::SledStore::open(path).await;
                Ok(Some(Arc::new(store.map_err(|error| match error.kind() {
                    ErrorKind::Conflict => {
                        format!("--store: another run uses it; choose another one: {}", error.report())
                    }
                    _ => format!("--store: {}", error.report()),
                })?)))
            }
            Self::Postgres(url) => postgres(url).await.map(Some),
        }
    }

    /// Returns where a durable store is: it may know events of earlier runs.
    pub(crate) fn place(&self) -> Option<String> {
        match self {
            Self::Sled(path) => Some(path.display().to_string()),
            Self::Postgres(_) => Some(format!("the schema {SCHEMA} of the database")),
            Self::Memory | Self::None => None,
        }
    }
}

#[cfg(feature = "postgres")]
async fn postgres(url: &Secret) -> Result<Arc<dyn IdempotencyStore>, BoxError> {
    let config = tidings::postgres::PostgresConfig::new(url.clone()).with_schema(SCHEMA);
    let store = tidings::postgres::PostgresStore::connect_with(config).await;
    Ok(Arc::new(store.map_err(|error| format!("--store: {}", error.report()))?))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &Secret) -> Result<Arc<dyn IdempotencyStore>, BoxError> {
    Err(needs_feature("--store", "postgres://..", "postgres").into())
}

/// Returns the text of an error: the value of `option` needs a feature that this program lacks.
pub(crate) fn needs_feature(option: &str, value: &str, feature: &str) -> String {
    format!(
        "{option} {value}: this program was built without the feature {feature}; run it with \
         `cargo run --release --features {feature} --example interview_platform -- {option} {value}`"
    )
}

impl FromStr for Store {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            None if text == "none" => Ok(Self::None),
            Some(("sled", path)) if !path.is_empty() => Ok(Self::Sled(path.into())),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => Ok(Self::Postgres(text.into())),
            _ => Err("memory, none, sled:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
        }
    }
}

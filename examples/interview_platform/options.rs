//! The command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tidings::idempotency::IdempotencyStore;
use tidings::transport::Secret;
use tidings::{BoxError, ErrorKind, Transport};

pub(crate) const HELP: &str = "\
An interview platform in one process: three services that publish, three groups that handle, over real events.

Usage: cargo run --release --example interview_platform -- [OPTIONS]

Options:
  --input FILE         events to read, ndjson or ndjson.gz [default: examples/data/oulad-2013-student-events.ndjson.gz]
  --url URL            the broker: memory://, or kafka://HOST:PORT (with --features kafka) [default: memory://]
  --limit N            read only the first N events of the input
  --poison PERCENT     beside so many of the events, publish one that can't be read or always fails, 0 to 100 [default: 0]
  --duplicate PERCENT  publish so many of the events twice, 0 to 100 [default: 0]
  --store STORE        what was handled is remembered in: sled:PATH, postgres://USER:PASSWORD@HOST:PORT/DATABASE (with
                       --features postgres), memory, none [default: sled in a directory below
                       target/interview-platform, one for each url and choice of services]
  --services LIST      run only these, by commas: api-gateway, user-service, interview-service, analytics-service
  --ledger FILE        write a line of JSON for each thing that happens to an event
  --help               print this

Event ids follow from the input, so that a second run handles nothing twice, and says so.
Ctrl-C stops reading the input, lets the services finish what is published, and prints the table.";

/// Where stores lie if not said.
const STORES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/interview-platform");
/// The schema of the store's tables in a database.
const SCHEMA: &str = "interview_platform";
/// Where the input lies if not said.
const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/oulad-2013-student-events.ndjson.gz");

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) input: PathBuf,
    pub(crate) url: String,
    pub(crate) limit: u64,
    pub(crate) poison: Percent,
    pub(crate) duplicate: Percent,
    pub(crate) store: Store,
    pub(crate) services: Vec<Member>,
    pub(crate) ledger: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            input: INPUT.into(),
            url: "memory://".into(),
            limit: u64::MAX,
            poison: Percent::default(),
            duplicate: Percent::default(),
            store: Store::by_default("memory://", &Member::ALL),
            services: Member::ALL.to_vec(),
            ledger: None,
        }
    }
}

impl Options {
    /// Reads the command line; `None` if it asks for help.
    pub(crate) fn from_args() -> Result<Option<Self>, String> {
        Self::parse(lexopt::Parser::from_env())
    }

    fn parse(mut args: lexopt::Parser) -> Result<Option<Self>, String> {
        let (mut options, mut store) = (Self::default(), None);
        while let Some(arg) = args.next().map_err(|e| e.to_string())? {
            let lexopt::Arg::Long(flag) = arg else {
                return Err(if matches!(arg, lexopt::Arg::Short('h')) {
                    return Ok(None);
                } else {
                    arg.unexpected().to_string()
                });
            };
            let flag = flag.to_owned();
            match flag.as_str() {
                "help" => return Ok(None),
                "input" => options.input = value(&mut args, &flag)?,
                "url" => options.url = value(&mut args, &flag)?,
                "limit" => options.limit = value(&mut args, &flag)?,
                "poison" => options.poison = value(&mut args, &flag)?,
                "duplicate" => options.duplicate = value(&mut args, &flag)?,
                // It may hold a password, so it is not repeated when it is wrong.
                "store" => store = Some(text(&mut args, &flag)?.parse().map_err(|e| format!("--store: {e}"))?),
                "services" => options.services = value::<Members>(&mut args, &flag)?.0,
                "ledger" => options.ledger = Some(value(&mut args, &flag)?),
                _ => return Err(format!("--{flag}: no such option")),
            }
        }
        options.store = store.unwrap_or_else(|| Store::by_default(&options.url, &options.services));
        Ok(Some(options))
    }

    /// Connects to the broker.
    pub(crate) async fn connect(&self) -> Result<Arc<dyn Transport>, BoxError> {
        let scheme = self.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if cfg!(not(feature = "kafka")) && matches!(scheme, "kafka" | "kafkas") {
            return Err(needs_feature("--url", scheme, "kafka").into());
        }
        Ok(tidings::connect(&self.url).await.map_err(|e| format!("--url: {}", e.report()))?)
    }

    pub(crate) fn runs(&self, member: Member) -> bool {
        self.services.contains(&member)
    }
}

fn value<T: FromStr<Err: fmt::Display>>(args: &mut lexopt::Parser, flag: &str) -> Result<T, String> {
    let text = text(args, flag)?;
    text.parse().map_err(|e| format!("--{flag} {text}: {e}"))
}

fn text(args: &mut lexopt::Parser, flag: &str) -> Result<String, String> {
    let text = args.value().map_err(|_| format!("--{flag}: needs a value"))?;
    text.into_string().map_err(|_| format!("--{flag}: not UTF-8"))
}

/// A part of a hundred.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Percent(f64);

impl Percent {
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0.0
    }

    /// Whether something that drew `lot`, which is spread evenly, is among them.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

struct Members(Vec<Member>);

impl FromStr for Members {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let member = |name: &str| {
            let found = Member::ALL.into_iter().find(|member| member.name() == name.trim());
            found.ok_or_else(|| format!("{name:?} is none of {}", Member::ALL.map(Member::name).join(", ")))
        };
        text.split(',').map(member).collect::<Result<_, _>>().map(Self)
    }
}

/// Where is remembered what was handled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Store {
    Memory,
    None,
    /// By its URL.
    Postgres(Secret),
    Sled(PathBuf),
}

impl Store {
    /// What is handled on one broker is not done on another, and a directory is of one process at a time, of which there
    /// may be one for each service.
    fn by_default(url: &str, services: &[Member]) -> Self {
        let broker: String = url.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let mut names = vec![broker.trim_matches('-')];
        if services.len() < Member::ALL.len() {
            names.extend(services.iter().map(|member| member.name()));
        }
        Self::Sled(Path::new(STORES).join(names.join("+")))
    }

    /// Opens it. All services share it: each has its own scope in it.
    pub(crate) async fn open(&self) -> Result<Option<Arc<dyn IdempotencyStore>>, BoxError> {
        match self {
            Self::None => Ok(None),
            Self::Memory => Ok(Some(Arc::new(tidings::memory::MemoryStore::new()))),
            Self::Sled(path) => {
                let store = tidings_sled::SledStore::open(path).await;
                Ok(Some(Arc::new(store.map_err(|error| match error.kind() {
                    ErrorKind::Conflict => format!("--store: another run has it, take another one: {}", error.report()),
                    _ => format!("--store: {}", error.report()),
                })?)))
            }
            Self::Postgres(url) => postgres(url).await.map(Some),
        }
    }

    /// Where it lies, if it lasts, so that it may know events of earlier runs.
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
    Err(needs_feature("--store", "postgres", "postgres").into())
}

/// Says that the value of `option` needs a feature that this program lacks, with the command that has it.
fn needs_feature(option: &str, scheme: &str, feature: &str) -> String {
    format!(
        "{option} {scheme}://: this program was built without the feature {feature}; run it with \
         `cargo run --release --features {feature} --example interview_platform -- {option} {scheme}://..`"
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
            _ => Err("expected memory, none, sled:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
        }
    }
}

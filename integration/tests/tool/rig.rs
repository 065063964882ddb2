//! A target for the verbs, and runs of the command on it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tidings::dead_letter::DeadLetters;
use tidings::idempotency::IdempotencyStore;
use tidings::memory::MemoryTransport;
use tidings::ops::{Ops, OpsHandle};
use tidings::record::{Name, Timestamp};
use tidings::service::ServiceDescription;
use tidings::tool::{Connect, Exit, Facade, Generated, Tool};
use tidings::transport::async_trait;
use tidings::{BoxError, Result, Transport};
use tidings_testbed::Kafka;

pub(crate) type TestResult<T = ()> = std::result::Result<T, BoxError>;

/// Texts that no output may contain.
pub(crate) const CANARY: &str = "canary-s3cr3t";

/// A target, and the environment of the command.
#[derive(Debug, Clone)]
pub(crate) struct Rig {
    connect: Connector,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) variables: Vec<(String, String)>,
    /// The services that the program declares.
    pub(crate) services: Vec<ServiceDescription>,
    /// It serves as long as it lives.
    _ops: Option<Arc<OpsHandle>>,
}

/// Opens the transport of a rig for its URL, and everything else by the facade.
#[derive(Debug, Clone)]
struct Connector {
    own: Option<Arc<dyn Transport>>,
    store: Option<Arc<dyn IdempotencyStore>>,
}

#[async_trait]
impl Connect for Connector {
    async fn transport(&self, url: &str) -> Result<Arc<dyn Transport>> {
        match &self.own {
            Some(own) if url == OWN => Ok(Arc::clone(own)),
            _ => Facade.transport(url).await,
        }
    }

    async fn idempotency_store(&self, url: &str) -> Result<Arc<dyn IdempotencyStore>> {
        match &self.store {
            Some(store) => Ok(Arc::clone(store)),
            None => Facade.idempotency_store(url).await,
        }
    }

    fn generated(&self, what: Generated) -> Option<String> {
        Facade.generated(what)
    }
}

/// The URL that stands for the transport in this process.
pub(crate) const OWN: &str = "kafka://in-this-process:9092";

/// The end of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Rig {
    /// A transport in memory.
    pub(crate) fn memory() -> Self {
        Self::in_memory(&MemoryTransport::new())
    }

    /// Creates a rig on this memory transport.
    pub(crate) fn in_memory(memory: &MemoryTransport) -> Self {
        let transport: Arc<dyn Transport> = Arc::new(memory.clone());
        let variables = vec![("TIDINGS_URL".to_owned(), OWN.to_owned())];
        let connect = Connector { own: Some(Arc::clone(&transport)), store: None };
        Self { connect, transport, variables, services: Vec::new(), _ops: None }
    }

    /// A transport in memory behind an ops endpoint, which the command reaches over HTTP.
    pub(crate) async fn http() -> TestResult<Self> {
        Self::behind_http(&MemoryTransport::new())
    }

    /// Creates a rig on an ops endpoint that serves this memory transport.
    pub(crate) fn behind_http(memory: &MemoryTransport) -> TestResult<Self> {
        let memory: Arc<dyn Transport> = Arc::new(memory.clone());
        let ops = Ops::new().with_admin(Arc::clone(&memory)).serve("127.0.0.1:0")?;
        let url = format!("http://{}", ops.local_addr());
        let connect = Connector { own: None, store: None };
        let variables = vec![("TIDINGS_URL".to_owned(), url)];
        Ok(Self { connect, transport: memory, variables, services: Vec::new(), _ops: Some(Arc::new(ops)) })
    }

    /// A real Kafka.
    pub(crate) async fn kafka() -> TestResult<Self> {
        Self::on(Kafka::shared().await?.bootstrap()).await
    }

    /// A Kafka of these brokers.
    pub(crate) async fn on(brokers: &str) -> TestResult<Self> {
        let url = format!("kafka://{brokers}");
        let transport = tidings::connect(&url).await?;
        let connect = Connector { own: None, store: None };
        let variables = vec![("TIDINGS_URL".to_owned(), url)];
        Ok(Self { connect, transport, variables, services: Vec::new(), _ops: None })
    }

    /// Offers the letters of a topic at the ops endpoint, if there is one: an endpoint names the topics whose letters it
    /// has.
    pub(crate) async fn open_letters(&mut self, topic: &str) -> TestResult {
        if self._ops.is_none() {
            return Ok(());
        }
        let letters = DeadLetters::open(&self.transport, [topic]).await?;
        let ops = Ops::new().with_admin(Arc::clone(&self.transport)).with_dead_letters("topics", letters);
        let ops = ops.serve("127.0.0.1:0")?;
        self.variables[0].1 = format!("http://{}", ops.local_addr());
        self._ops = Some(Arc::new(ops));
        Ok(())
    }

    /// Opens this store for every `--store`.
    pub(crate) fn with_store(mut self, store: impl IdempotencyStore) -> Self {
        self.connect.store = Some(Arc::new(store));
        self
    }

    /// Runs the command.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Run {
        let (out, err) = (Buffer::default(), Buffer::default());
        let tool = Tool::new(self.connect.clone()).with_variables(self.variables.clone());
        let tool = self.services.iter().cloned().fold(tool, Tool::with_service);
        let tool = tool.with_output(out.clone(), err.clone());
        let exit = tool.run(["tidings"].iter().chain(arguments)).await;
        let run = Run { exit, out: out.text(), err: err.text() };
        assert!(!run.out.contains(CANARY) && !run.err.contains(CANARY), "{arguments:?}: {run:?}");
        run
    }

    /// Runs the command, which must end well, and returns its data.
    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments).await;
        assert_eq!(run.exit, Exit::Ok, "{arguments:?}: {run:?}");
        run.out
    }

    /// Runs the command, which must end as `exit` says with one line of error, and returns that line.
    pub(crate) async fn fails(&self, arguments: &[&str], exit: Exit) -> String {
        let run = self.run(arguments).await;
        assert_eq!(run.exit, exit, "{arguments:?}: {run:?}");
        assert!(run.out.is_empty() && run.err.starts_with("tidings: "), "{arguments:?}: {run:?}");
        assert_eq!(run.err.lines().count(), 1, "{arguments:?}: {}", run.err);
        run.err
    }

    /// Runs the command with `-o json`, checks the data against the command's own schema, and returns both.
    pub(crate) async fn json(&self, arguments: &[&str], exit: Exit) -> TestResult<Value> {
        let with = |format| arguments.iter().copied().chain(["-o", format]).collect::<Vec<_>>();
        let run = self.run(&with("json")).await;
        assert_eq!(run.exit, exit, "{arguments:?}: {run:?}");
        let value: Value = serde_json::from_str(&run.out)?;
        let schema: Value = serde_json::from_str(&self.ok(&with("schema")).await)?;
        validate(&schema, &value)?;
        Ok(value)
    }

    /// Returns what a verb could change: topics with partitions, offsets and settings, and groups with their commits.
    ///
    /// Only those whose name contains `mark`: other tests use the same broker.
    pub(crate) async fn state(&self, mark: &str) -> TestResult<String> {
        let admin = self.transport.admin().await?;
        let of_test = |all: Vec<Name>| all.into_iter().filter(|name| name.contains(mark)).collect::<Vec<_>>();
        let topics = of_test(admin.list_topics().await?);
        let mut state = format!("{:?}", admin.describe_topics(&topics).await?);
        for group in of_test(admin.list_groups().await?) {
            state.push_str(&format!("{:?}{:?}", admin.describe_group(&group).await, admin.group_lag(&group).await));
        }
        Ok(state)
    }
}

/// Checks a value against a schema with Python's jsonschema, an implementation that is not ours. A machine without it
/// checks nothing, and says so; in CI, that is a failure.
fn validate(schema: &Value, value: &Value) -> TestResult {
    let program = "import json, sys\n\
        both = json.load(sys.stdin)\n\
        try:\n    import jsonschema\nexcept ImportError:\n    sys.exit(77)\n\
        jsonschema.Draft202012Validator.check_schema(both['schema'])\n\
        jsonschema.Draft202012Validator(both['schema']).validate(both['value'])\n";
    let mut python = match Command::new("python3")
        .args(["-W", "ignore", "-c", program])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(python) => python,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return not_validated("python3"),
        Err(error) => return Err(error.into()),
    };
    let both = json!({ "schema": schema, "value": value }).to_string();
    python.stdin.take().ok_or("no stdin")?.write_all(both.as_bytes())?;
    let ended = python.wait_with_output()?;
    match ended.status.code() {
        Some(0) => return Ok(()),
        Some(77) => return not_validated("python3-jsonschema"),
        _ => {}
    }
    Err(format!("not by its schema: {}\n{value:#}", String::from_utf8_lossy(&ended.stderr)).into())
}

/// Reports what is missing for a validation.
fn not_validated(missing: &str) -> TestResult {
    let text = format!("no output is validated against its schema: there is no {missing}");
    if std::env::var_os("REQUIRE_BROKERS").is_some_and(|value| value == "1") {
        return Err(text.into());
    }
    eprintln!("{text}");
    Ok(())
}

/// A name that no other test uses.
pub(crate) fn fresh(what: &str) -> String {
    format!("{what}-{}-{}", std::process::id(), Timestamp::now().millis())
}

/// An output that is kept.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

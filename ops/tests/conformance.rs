//! The suites of publishers, admins, log readers and dead-letter stores, by HTTP in front of memory.
//!
//! There are no consumers over HTTP: the cases have those of the memory transport, and its own suite checks them.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidings_conformance::{Setup, Suites};
use tidings_core::PublisherExt;
use tidings_core::{
    Acls, Admin, Clause, Cluster, Consumer, ConsumerOptions, DeadLetter, DeadLetterSink, DeadLetterStore, Error,
    ErrorKind, Guarantees, Leased, LetterId, LetterLease, LetterQuery, LogReader, Name, Publisher, Record, Resolution,
    Result, Transactor, TransactorOptions, Transport, async_trait,
};
use tidings_memory::{Faults, MemoryConfig, MemoryDeadLetters, MemoryTransport, PublishFault};
use tidings_ops::{Ops, OpsHandle};
use tidings_ops_api::client::OpsTransport;
use tidings_service::DeadLetters;

/// Records that a publisher takes unanswered.
const BOUND: usize = 100;

/// What HTTP offers by HTTP, and the rest of memory.
#[derive(Debug)]
struct Remote {
    memory: MemoryTransport,
    http: OpsTransport,
    _ops: OpsHandle,
}

impl Remote {
    async fn open() -> Result<Self> {
        let config = MemoryConfig::new().with_auto_create(false).with_max_unanswered_records(BOUND);
        let memory = MemoryTransport::open(config)?;
        let ops = Ops::new().with_admin(memory.clone()).serve("127.0.0.1:0")?;
        let http = OpsTransport::connect(&format!("http://{}", ops.local_addr())).await?;
        Ok(Self { memory, http, _ops: ops })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for Remote {
    fn system(&self) -> &'static str {
        self.http.system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.http.publisher().await
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.memory.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.http.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.http.admin().await
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        self.http.log_reader().await
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        self.http.acls().await
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        self.http.cluster().await
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        self.http.transactor(options).await
    }

    fn writes_trace_context(&self) -> bool {
        self.http.writes_trace_context()
    }

    fn guarantees(&self) -> Guarantees {
        let consumers = || Clause::ALL.iter().copied().filter(|clause| clause.id().starts_with('c'));
        let why = "there are no consumers over HTTP";
        assert!(consumers().all(|clause| !self.http.guarantees().keeps(clause)), "{why}");
        let guarantees = consumers().fold(self.memory.guarantees(), |kept, clause| kept.without(clause, why));
        guarantees.without_transactions("there are no transactions over HTTP")
    }
}

fn transport() -> Setup<Remote> {
    Setup::new("http", Remote::open)
        .without_case(
            "a1_each_part_promises_what_its_transport_does",
            "the consumers are memory's, and keep their clauses",
        )
        .with_outage(|remote, down| async move {
            if down {
                remote.memory.faults().down()
            } else {
                remote.memory.faults().up()
            }
            Ok(())
        })
        .with_lost_answers(|remote, lost| async move {
            let unknown = PublishFault::unknown(true).with_times(Faults::UNTIL_HEALED);
            if lost {
                remote.memory.faults().publish(unknown)
            } else {
                remote.memory.faults().heal()
            }
            Ok(())
        })
        .with_deleted_records(|remote, partition, range| async move {
            if range.start > 0 {
                return Err(Error::new(ErrorKind::Unsupported, "the memory transport does not compact"));
            }
            remote.memory.faults().drop_records(&partition, range.end);
            Ok(())
        })
        .with_truncated_records(|remote, partition, end| async move {
            remote.memory.faults().truncate(&partition, end);
            Ok(())
        })
        .with_advanced_log(|remote, partition, offset| async move {
            let advanced = remote.memory.faults().advance(&partition, offset);
            advanced.then_some(()).ok_or_else(|| Error::new(ErrorKind::Failed, "advance a log that is not empty"))
        })
        .with_unreadable_records(|remote, partition| async move {
            let bytes = Record::new(&partition.topic, "bytes").with_partition(partition.partition);
            let at = remote.memory.publisher().await?.publish_one(bytes).await?.offset;
            remote.memory.faults().unreadable(&partition, at..at + 1);
            Ok(())
        })
}

/// The dead letters of memory, by HTTP.
#[derive(Debug)]
struct RemoteLetters {
    memory: MemoryDeadLetters,
    http: Arc<dyn DeadLetterStore>,
    _ops: OpsHandle,
}

impl RemoteLetters {
    async fn open() -> Result<Self> {
        let memory = MemoryDeadLetters::new();
        let publisher = MemoryTransport::new().publisher().await?;
        let ops = Ops::new().with_dead_letters("letters", DeadLetters::new(memory.clone(), publisher));
        let ops = ops.serve("127.0.0.1:0")?;
        let http = OpsTransport::connect(&format!("http://{}", ops.local_addr())).await?.letters("letters").await?;
        Ok(Self { memory, http, _ops: ops })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DeadLetterSink for RemoteLetters {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        self.http.bury(letters).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.http.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        DeadLetterSink::guarantees(&self.http)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DeadLetterStore for RemoteLetters {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        self.http.list(query).await
    }

    async fn count(&self, query: &LetterQuery) -> Result<u64> {
        self.http.count(query).await
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        self.http.resolve(letters, resolution).await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        self.http.lease(letters, lease).await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        self.http.resolve_leased(letters, lease, resolution).await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        self.http.end_lease(letters, lease).await
    }

    async fn note_refused(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        self.http.note_refused(refused, by).await
    }

    fn unreadable(&self) -> Vec<Error> {
        self.http.unreadable()
    }

    fn unreadable_records(&self) -> u64 {
        self.http.unreadable_records()
    }
}

fn letters() -> Setup<RemoteLetters> {
    Setup::new("http-letters", RemoteLetters::open).with_lifetime(Duration::from_secs(2)).with_outage(
        |remote, down| async move {
            if down {
                remote.memory.faults().down()
            } else {
                remote.memory.faults().up()
            }
            Ok(())
        },
    )
}

fn main() -> ExitCode {
    Suites::new().with_transport(transport()).with_dead_letters(letters()).run()
}

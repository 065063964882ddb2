//! A member in a separate process, to be killed or stopped. It records its actions in a file shared by all.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tidings_core::{BoxError, Delivery};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_memory::MemoryStore;
use tidings_service::{Router, Service, State};
use tokio::time::sleep;

use crate::common::TestResult;

const ROLE: &str = "TIDINGS_LEDGER_MEMBER";
/// Session timeout of the members and of their group. It exceeds the stalls of a busy machine: a member that is
/// fenced without having been killed duplicates work without an excuse.
pub(crate) const SESSION: Duration = Duration::from_secs(10);

/// Runs the parent's request, if this process is a member.
pub(crate) fn run() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    // It closes when the parent process ends.
    std::thread::spawn(|| {
        let _read = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    Some(match runtime.map_err(BoxError::from).and_then(|runtime| runtime.block_on(work(&role))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("member: {error}");
            ExitCode::FAILURE
        }
    })
}

#[derive(Debug)]
struct Desk {
    name: String,
    file: File,
}

impl Desk {
    /// Writes each line with one call, so that the lines of all processes are in the order of events.
    fn note(&self, what: &str, delivery: &Delivery, value: &str) -> std::io::Result<()> {
        let (partition, offset) = (delivery.partition(), delivery.record().offset);
        let line = format!("{what} {} {partition} {offset} {value}\n", self.name);
        (&self.file).write_all(line.as_bytes())
    }
}

async fn work(role: &str) -> TestResult {
    let [name, brokers, topic, file, protocol] = role.split('|').collect::<Vec<_>>()[..] else {
        return Err("a role that nobody has".into());
    };
    let protocol = if protocol == "classic" { GroupProtocol::Classic } else { GroupProtocol::Consumer };
    let config = KafkaConfig::new(brokers.split(',')).with_group_protocol(protocol);
    let transport = KafkaTransport::connect(config).await?;
    let desk = Desk { name: name.to_owned(), file: File::options().append(true).open(file)? };
    let handler = async |delivery: Delivery, State(desk): State<Arc<Desk>>| -> Result<(), BoxError> {
        let value = String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned();
        desk.note("begun", &delivery, &value)?;
        sleep(Duration::from_millis(1 + value.len() as u64 % 4)).await;
        desk.note("done", &delivery, &value)?;
        Ok(())
    };
    let router = Router::new().on_topic(topic.to_owned(), handler).with_state(Arc::new(desk));
    let service = Service::new(topic.to_owned(), router)
        .with_idempotency(MemoryStore::new())
        .with_lease_ttl(SESSION / 2)
        .with_session_timeout(SESSION);
    let running = service.start(&transport).await?;
    Ok(running.stopped().await?)
}

/// A member's process; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    process: Child,
}

impl Member {
    pub(crate) fn start(
        name: String,
        brokers: &str,
        topic: &str,
        file: &str,
        protocol: GroupProtocol,
    ) -> TestResult<Self> {
        let protocol = if protocol == GroupProtocol::Classic { "classic" } else { "consumer" };
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ROLE, [&*name, brokers, topic, file, protocol].join("|")).stdin(Stdio::piped());
        Ok(Self { process: command.spawn()?, name })
    }

    pub(crate) fn signal(&self, signal: Signal) -> TestResult {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).ok_or("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) -> TestResult {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Returns whether the process has not ended by itself.
    pub(crate) fn is_running(&mut self) -> TestResult<bool> {
        Ok(self.process.try_wait()?.is_none())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _gone = self.kill();
    }
}

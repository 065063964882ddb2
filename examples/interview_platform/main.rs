//! An interview platform in one process: the API gateway, the user service and the interview service publish; the groups
//! of the user, interview and analytics services handle. Run `cargo run --release --example interview_platform`, with
//! `-- --help` for its options.
//!
//! It records each step of each event in a ledger, and checks the ledger at the end.

mod audit;
mod events;
mod input;
mod ops;
mod options;
mod pace;
mod publish;
mod redrive;
mod report;
mod services;

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidings::admin::ensure_topics;
use tidings::{BoxError, ServiceHandle, Topic, Transport};
use tracing_subscriber::EnvFilter;

use crate::audit::{AuditedTransport, Checked, Findings, GroupLog, Ledger, Letters, check};
use crate::input::Progress;
use crate::options::{Member, Options};
use crate::report::{Lag, thousands};
use crate::services::{GROUPS, Knowledge};

/// The run fails when nothing was published or settled for this time.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// The time that each service has to stop.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);
/// The time that requests to the operations endpoint have to be answered.
const ENDPOINT_DEADLINE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // The subcommand `tool` is the `tidings` command with the types of these services: `tool describe`.
    #[cfg(feature = "tool")]
    if tidings::tool::is_called() {
        return tidings::tool::main(services::declared());
    }
    platform()
}

#[tokio::main]
async fn platform() -> ExitCode {
    log();
    let options = Options::from_args();
    match run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", tidings::error::report(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Logs to stderr, by RUST_LOG if that is set. Otherwise only errors: the input has records that fail, each of which is
/// a warning. Of the Kafka client, the warnings.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

/// Returns whether all checks passed.
async fn run(options: &Options) -> Result<bool, BoxError> {
    let progress = Progress::default();
    let lines = lines(options, &progress)?;
    let ledger = Arc::new(Ledger::create(options.ledger.as_deref(), options.rate.is_some())?);
    let broker = options.connect().await?;
    let transport = AuditedTransport::new(Arc::clone(&broker), ledger.clone());
    create_topics(&transport).await?;
    let letters = Letters::mark(&transport).await?;
    let (platform, logs) = start(options, &transport, &ledger).await?;
    let publishers = publish::publishers(options, &transport);
    let all = publishers.iter().map(|(_, publisher)| publisher.clone());
    let endpoint = options.ops.as_deref().map(|address| ops::serve(address, &platform.services, all)).transpose()?;

    let begun = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let work = async {
        let read = publish::publish_all(lines, options, &transport, publishers, stop.clone()).await?;
        caught_up(&platform.services).await?;
        Ok::<_, BoxError>(read)
    };
    let read = tokio::select! {
        read = work => read?,
        stalled = watch(&ledger, &logs, &platform.services), if options.rate.is_none() => return Err(stalled),
        never = interrupts(&stop) => return Err(never),
        () = report::draw(progress, ledger.clone(), logs.clone()) => 0,
    };
    let took = begun.elapsed();

    let lags = lags(&transport, &logs).await;
    for service in platform.services {
        service.shutdown(SHUTDOWN_DEADLINE).await?;
    }
    if let Some(endpoint) = endpoint {
        endpoint.shutdown(ENDPOINT_DEADLINE).await?;
    }
    let letters = if options.rate.is_some() { Vec::new() } else { letters.read(&transport).await? };
    let ended = Ended { read, took, interrupted: stop.load(Ordering::Relaxed), lags, letters };
    let good = ended.report(options, &platform.knowledge, &ledger, &logs, transport.system())?;
    if options.redrive {
        println!("{}", redrive::redrive(&broker).await?);
    }
    Ok(good)
}

type Lines = Box<dyn Iterator<Item = Result<input::Line, BoxError>> + Send>;

/// Opens the input: once, or over and over under a steady load.
fn lines(options: &Options, progress: &Progress) -> Result<Lines, BoxError> {
    let once = input::open(&options.input, progress)?;
    Ok(match options.rate {
        Some(_) => Box::new(input::over_and_over(options.input.clone(), progress.clone())),
        None => Box::new(once),
    })
}

/// The running services and their knowledge.
struct Platform {
    knowledge: Knowledge,
    services: Vec<ServiceHandle>,
}

async fn start(
    options: &Options,
    transport: &AuditedTransport,
    ledger: &Arc<Ledger>,
) -> Result<(Platform, Vec<Arc<GroupLog>>), BoxError> {
    let (knowledge, mut running, mut logs) = (Knowledge::default(), Vec::new(), Vec::new());
    let store = options.store.open(options.rate.is_some()).await?;
    for group in GROUPS.iter().filter(|group| options.runs(group.member)) {
        let log = Arc::new(GroupLog::new(group, ledger.clone()));
        running.push(services::start(group, &knowledge, options, store.clone(), transport, log.clone()).await?);
        logs.push(log);
    }
    Ok((Platform { knowledge, services: running }, logs))
}

/// Creates the missing topics, and their dead-letter topics.
async fn create_topics(transport: &impl Transport) -> Result<(), BoxError> {
    let topics = events::TOPICS.map(|(name, partitions)| Topic::new(name).with_partitions(partitions));
    ensure_topics(&*transport.admin().await?, &topics).await?;
    Ok(())
}

/// Waits until everything is settled: the analytics service first, as it publishes what it then handles itself.
async fn caught_up(services: &[ServiceHandle]) -> Result<(), BoxError> {
    for service in services.iter().rev() {
        service.caught_up().await?;
    }
    Ok(())
}

/// Returns an error with the state of the services when the run stalls.
async fn watch(ledger: &Ledger, logs: &[Arc<GroupLog>], services: &[ServiceHandle]) -> BoxError {
    let mut last = (0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let counts = logs.iter().map(|log| log.counts()).map(|counts| counts.settled() + counts.retried);
        let done = ledger.count() + counts.sum::<u64>();
        if done != last.0 {
            last = (done, Instant::now());
        } else if last.1.elapsed() >= STALLED_AFTER {
            break;
        }
    }
    let mut text = format!("nothing was published or settled for {} s", STALLED_AFTER.as_secs());
    for service in services {
        let status = service.status().await;
        text +=
            &format!("\n  {}: {}, lag {}, {}", service.name(), status.state, status.lag(), status.problems.join("; "));
    }
    text.into()
}

/// The first Ctrl-C stops reading, a second one ends the process.
async fn interrupts(stop: &AtomicBool) -> BoxError {
    loop {
        if let Err(error) = tokio::signal::ctrl_c().await {
            return format!("wait for Ctrl-C: {error}").into();
        }
        if stop.swap(true, Ordering::Relaxed) {
            return "interrupted twice: stopped with unfinished events".into();
        }
        eprintln!("\rinterrupted: finishing the published events; Ctrl-C again stops at once");
    }
}

async fn lags(transport: &impl Transport, logs: &[Arc<GroupLog>]) -> Vec<Lag> {
    let mut lags = Vec::new();
    for log in logs {
        let lag = async { transport.admin().await?.group_lag(&log.group.name.into()).await };
        lags.push(lag.await.ok().and_then(|partitions| partitions.iter().map(|partition| partition.lag()).sum()));
    }
    lags
}

/// The results of a run.
struct Ended {
    read: u64,
    took: Duration,
    interrupted: bool,
    lags: Vec<Lag>,
    letters: Vec<(tidings::record::Name, audit::Place)>,
}

impl Ended {
    /// Prints the results; returns whether all checks passed.
    fn report(
        self,
        options: &Options,
        knowledge: &Knowledge,
        ledger: &Ledger,
        logs: &[Arc<GroupLog>],
        system: &str,
    ) -> Result<bool, BoxError> {
        let mut out = String::new();
        let seconds = self.took.as_secs_f64();
        let published: Vec<_> =
            ledger.by_service().iter().map(|(name, count)| format!("{name} {}", thousands(*count))).collect();
        writeln!(
            out,
            "{}: {} events read, {} published in {seconds:.2} s ({}/s)\n  {}\n",
            options.url,
            thousands(self.read),
            thousands(ledger.count()),
            thousands((ledger.count() as f64 / seconds) as u64),
            published.join(", "),
        )?;
        writeln!(out, "{}\n", report::table(logs, &self.lags))?;
        for member in Member::ALL.into_iter().filter(|member| options.runs(*member)) {
            if let Some(summary) = knowledge.summary(member) {
                writeln!(out, "{}: {summary}", member.name())?;
            }
        }
        let mut findings = self.findings(options, ledger, logs, system);
        findings.problems.extend(ledger.flush().err().map(|e| format!("the ledger is incomplete: {e}")));
        let good = self.verdict(&mut out, options, logs, &findings)?;
        match io::stdout().write_all(out.as_bytes()) {
            // The reader closed the pipe: it has seen enough.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(good),
        }
    }

    fn findings(&self, options: &Options, ledger: &Ledger, logs: &[Arc<GroupLog>], system: &str) -> Findings {
        let run = Checked {
            once: options.store != options::Store::None,
            store_lasts: options.store.place().is_some(),
            // A durable broker may hold records of other runs and other processes.
            alone: system == "memory" && options.services.len() == Member::ALL.len(),
        };
        let logs: Vec<&GroupLog> = logs.iter().map(AsRef::as_ref).collect();
        let mut findings = check(ledger, &logs, &self.letters, run);
        for (log, lag) in logs.iter().zip(&self.lags) {
            let (settled, published) = (log.counts().settled(), ledger.count_of(log.group.topics));
            // With other brokers, records of earlier runs and other processes count, too.
            if ledger.counts_only() && run.alone && settled != published {
                let text = format!("{}: {published} records published, and {settled} settled", log.group.name);
                findings.problems.push(text);
            }
            match lag {
                Some(0) => {}
                Some(lag) => findings.problems.push(format!("{}: a lag of {lag} remains", log.group.name)),
                None => findings.problems.push(format!("{}: its lag is unknown", log.group.name)),
            }
        }
        findings
    }

    fn verdict(
        &self,
        out: &mut String,
        options: &Options,
        logs: &[Arc<GroupLog>],
        findings: &Findings,
    ) -> Result<bool, fmt::Error> {
        writeln!(out)?;
        if self.interrupted {
            writeln!(out, "Interrupted after {} events; all published events are settled.", thousands(self.read))?;
        }
        let handled: u64 = logs.iter().map(|log| log.counts().handled).sum();
        match (findings.known, handled) {
            (0, _) => {}
            (known, 0) => writeln!(
                out,
                "All {} deliveries were handled by an earlier run, as the store knows: nothing was handled twice.",
                thousands(known)
            )?,
            (known, new) => writeln!(
                out,
                "{} deliveries were handled by an earlier run, as the store knows, and {} were new: nothing was handled twice.",
                thousands(known),
                thousands(new),
            )?,
        }
        if let Some(place) = options.store.place() {
            writeln!(
                out,
                "Handled events are remembered in {place}; remove it to start anew, or run with --store memory."
            )?;
        }
        if findings.problems.is_empty() && options.rate.is_some() {
            writeln!(out, "Counted, and not checked event by event: no group has a lag.")?;
            return Ok(true);
        }
        if findings.problems.is_empty() {
            let letters = thousands(self.letters.len() as u64);
            writeln!(
                out,
                "Checked: each event was settled once by each group, in the order of its key; {letters} dead letters, all poison."
            )?;
            return Ok(true);
        }
        writeln!(out, "FAILED checks:")?;
        findings.problems.iter().try_for_each(|problem| writeln!(out, "  {problem}"))?;
        Ok(false)
    }
}

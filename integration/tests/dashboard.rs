//! A real Prometheus scrapes the interview platform while it works: each query of the dashboard returns data, and the
//! alerting rules are evaluated without an error. And it scrapes services in trouble: their alerts fire, and clear when
//! the trouble ends. Reported ignored without Prometheus, of Debian's package `prometheus`, or named by
//! `TIDINGS_PROMETHEUS`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidings::audit::{Auditor, MemoryAudit};
use tidings::memory::{MemoryStore, MemoryTransport};
use tidings::ops::{Ops, generate};
use tidings::telemetry::{HealthOptions, OutboxSnapshot, RelaySnapshot, RelayStats};
use tidings::{BoxError, Delivery, Record, Retry, Router, Service, ServiceHandle, State, Transport, reject};
use tidings_integration::{get, interview_platform};
use tidings_testbed::{Error, Suite};
use tokio::sync::Semaphore;

/// The time until all queries return data.
const DEADLINE: Duration = Duration::from_secs(60);
/// The time between two looks.
const PERIOD: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    let case = || async {
        let retries = with_retry_topics().await?;
        tokio::task::spawn_blocking(move || each_panel(&retries)).await?
    };
    Suite::new()
        .with_case("each_panel_of_the_dashboard_shows_data", case)
        .with_case("alerts_fire_in_trouble_and_clear_after_it", alerts_fire)
        .run()
}

/// A process that ends with its test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The platform has no outbox.
#[derive(Debug)]
struct Relay;

impl RelayStats for Relay {
    fn snapshot(&self) -> RelaySnapshot {
        let mut snapshot = RelaySnapshot::default();
        (snapshot.is_running, snapshot.outbox) = (true, Some(OutboxSnapshot::default()));
        snapshot
    }
}

/// Starts a service with a retry topic, which the platform does not have either.
async fn with_retry_topics() -> Result<ServiceHandle, BoxError> {
    let retry = Retry::default().then_topics([Duration::from_secs(30)]);
    let router = Router::new().on_topic("orders", async |_: Delivery| {});
    Ok(Service::new("billing", router).with_retry(retry).start(&MemoryTransport::new()).await?)
}

fn each_panel(retries: &ServiceHandle) -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let (_platform, platform) = started()?;
    let relay: Arc<dyn RelayStats> = Arc::new(Relay);
    // The platform has no audit trail either.
    let others = Ops::new().with_service(retries).with_relay(relay);
    let others = others.with_audit(Auditor::new(MemoryAudit::new())).serve("127.0.0.1:0")?;
    let targets = format!("['{platform}', '{}']", others.local_addr());
    let (_prometheus, address) = prometheus(directory.path(), &targets, &generate::alerts())?;

    let board: Value = serde_json::from_str(&generate::dashboard())?;
    let mut waiting = queries(&board);
    let begun = Instant::now();
    while !waiting.is_empty() {
        waiting.retain(|query| !has_data(&address, query));
        if begun.elapsed() > DEADLINE {
            return Err(format!("no data after {DEADLINE:?} for {waiting:#?}").into());
        }
        std::thread::sleep(PERIOD);
    }
    let rules = json(&address, "/api/v1/rules")?;
    let rules = rules["data"]["groups"][0]["rules"].as_array().ok_or("the rules are loaded")?.clone();
    let wrong: Vec<&Value> = rules.iter().filter(|rule| rule["health"] != "ok" || rule["state"] == "firing").collect();
    if rules.is_empty() || !wrong.is_empty() { Err(format!("{wrong:#?}").into()) } else { Ok(()) }
}

/// Starts the platform under a steady load with poison; returns its address.
fn started() -> Result<(Guard, String), BoxError> {
    let mut command = interview_platform();
    command.args(["--rate", "500", "--poison", "2", "--ops", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let errors = child.stderr.take();
    let guard = Guard(child);
    let mut lines = BufReader::new(errors.ok_or("it is piped")?).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.strip_prefix("--ops: http://")?.split_once('/')?.0.to_owned()));
    // A full pipe would stop it.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((guard, address.ok_or("it reports no address")?))
}

/// Starts a Prometheus that scrapes the targets, and evaluates the rules; returns its address.
fn prometheus(directory: &Path, targets: &str, rules: &str) -> Result<(Guard, String), BoxError> {
    let program = std::env::var_os("TIDINGS_PROMETHEUS").unwrap_or_else(|| "prometheus".into());
    let is_there = Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        return Err(Error::unavailable("no prometheus: install the package prometheus").into());
    }
    let address = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let config = directory.join("prometheus.yaml");
    std::fs::write(directory.join("rules.yaml"), rules)?;
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\n\
             scrape_configs: [{{job_name: tidings, static_configs: [{{targets: {targets}}}]}}]\n"
        ),
    )?;
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
    command.args([&format!("--web.listen-address={address}"), "--log.level=error"]);
    Ok((Guard(command.spawn()?), address))
}

/// Returns the queries of all panels, as Grafana sends them if nothing is selected.
fn queries(board: &Value) -> Vec<String> {
    let panels = board["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.filter_map(|target| target["expr"].as_str());
    let shown = |query: &str| {
        let all = ["$job", "$instance", "$group", "$topic"].iter();
        all.fold(query.replace("$__rate_interval", "5s"), |query, variable| query.replace(variable, ".*"))
    };
    queries.map(shown).collect()
}

/// Returns whether a query has a value that is a number.
fn has_data(address: &str, query: &str) -> bool {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let Ok(answer) = json(address, &format!("/api/v1/query?query={encoded}")) else { return false };
    let series = answer["data"]["result"].as_array().into_iter().flatten();
    series.filter_map(|series| series["value"][1].as_str()).any(|value| value != "NaN")
}

fn json(address: &str, path: &str) -> Result<Value, BoxError> {
    Ok(serde_json::from_str(&get(address, path)?.1)?)
}

/// Three services in trouble: a handler that does not return, poison records, and a store that is down.
struct Troubles {
    handler: Arc<Semaphore>,
    is_poisoned: Arc<AtomicBool>,
    store: MemoryStore,
    /// They end with their handles.
    services: Vec<ServiceHandle>,
}

impl Troubles {
    async fn begin() -> Result<Self, BoxError> {
        let transport = MemoryTransport::new();
        let (handler, is_poisoned) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(true)));
        let stalls = async |_: Delivery, State(free): State<Arc<Semaphore>>| drop(free.acquire().await);
        let poison = async |_: Delivery, State(poisoned): State<Arc<AtomicBool>>| {
            if poisoned.load(Ordering::Relaxed) { Err(BoxError::from(reject("it is bad"))) } else { Ok(()) }
        };
        let store = MemoryStore::new();
        let services = [
            Service::new("stalls", Router::new().on_topic("a", stalls).with_state(handler.clone())),
            Service::new("poison", Router::new().on_topic("a", poison).with_state(is_poisoned.clone())),
            Service::new("stores", Router::new().on_topic("a", async |_: Delivery| {})).with_idempotency(store.clone()),
        ];
        let mut started = Vec::new();
        for service in services {
            let service = service.with_stall_after(Duration::from_secs(1)).with_breaker(None).start(&transport).await?;
            service.caught_up().await?;
            started.push(service);
        }
        store.faults().down();
        let publisher = transport.publisher().await?;
        tokio::spawn(async move {
            // Until the process ends: rates need a steady load.
            loop {
                publisher.publish(vec![Record::new("a", "1")]).await;
                tokio::time::sleep(PERIOD).await;
            }
        });
        Ok(Self { handler, is_poisoned, store, services: started })
    }

    fn end(&self) {
        self.handler.add_permits(Semaphore::MAX_PERMITS);
        self.is_poisoned.store(false, Ordering::Relaxed);
        self.store.faults().up();
    }
}

/// The alerts of the troubles, by service.
const ALERTS: [(&str, &str); 4] = [
    ("TidingsDeadLetters", "poison"),
    ("TidingsNotReady", "stores"),
    ("TidingsPartitionStalled", "stalls"),
    ("TidingsStoreDown", "stores"),
];

/// Each alert of a trouble is pending, then fires, and clears when the trouble ends.
async fn alerts_fire() -> Result<(), BoxError> {
    let troubles = Troubles::begin().await?;
    let health = HealthOptions::default().with_unready_after(Duration::from_secs(1));
    let ops = troubles.services.iter().fold(Ops::new().with_health(health), Ops::with_service).serve("127.0.0.1:0")?;
    let target = format!("['{}']", ops.local_addr());
    let watched = tokio::task::spawn_blocking(move || {
        let directory = tempfile::tempdir()?;
        let (_prometheus, address) = prometheus(directory.path(), &target, &shortened(&generate::alerts()))?;
        let wanted: BTreeSet<_> = ALERTS.map(|(alert, service)| (alert.to_owned(), service.to_owned())).into();
        let mut pending = BTreeSet::new();
        until(&format!("{wanted:?} fire"), || {
            pending.extend(alerts(&address, "pending"));
            alerts(&address, "firing") == wanted
        })?;
        if !pending.is_superset(&wanted) {
            return Err(format!("only {pending:?} were pending before").into());
        }
        troubles.end();
        until("all alerts clear", || alerts(&address, "firing").is_empty() && alerts(&address, "pending").is_empty())
    });
    watched.await?
}

/// The rules with times for a test.
fn shortened(rules: &str) -> String {
    let minutes = ["1m", "2m", "5m"].iter();
    let rules = minutes.fold(rules.to_owned(), |rules, time| rules.replace(&format!("for: {time}"), "for: 2s"));
    rules.replace("[5m]", "[5s]")
}

/// Returns the alerts in this state, with their services.
fn alerts(address: &str, state: &str) -> BTreeSet<(String, String)> {
    // It may not listen yet.
    let answer = json(address, "/api/v1/alerts").unwrap_or_default();
    let alerts = answer["data"]["alerts"].as_array().into_iter().flatten().filter(|alert| alert["state"] == state);
    let text = |alert: &Value, label| alert["labels"][label].as_str().unwrap_or_default().to_owned();
    alerts.map(|alert| (text(alert, "alertname"), text(alert, "service"))).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), BoxError> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > DEADLINE {
            return Err(format!("not within {DEADLINE:?}: {what}").into());
        }
        std::thread::sleep(PERIOD);
    }
    Ok(())
}

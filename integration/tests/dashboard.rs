//! A real Prometheus scrapes the interview platform while it works: each query of the dashboard returns data, and the
//! alerting rules are evaluated without an error. It is reported ignored without Prometheus, of Debian's package
//! `prometheus`, or named by `TIDINGS_PROMETHEUS`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidings::BoxError;
use tidings::ops::{Ops, generate};
use tidings::telemetry::{OutboxSnapshot, RelaySnapshot, RelayStats};
use tidings_integration::interview_platform;
use tidings_testbed::{Error, Suite};

/// The time until all queries return data.
const DEADLINE: Duration = Duration::from_secs(60);
/// The time between two looks.
const PERIOD: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    let case = || async { tokio::task::spawn_blocking(each_panel).await? };
    Suite::new().with_case("each_panel_of_the_dashboard_shows_data", case).run()
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

fn each_panel() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let program = std::env::var_os("TIDINGS_PROMETHEUS").unwrap_or_else(|| "prometheus".into());
    let is_there = Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        return Err(Error::unavailable("no prometheus: install the package prometheus").into());
    }
    let (_platform, platform) = started()?;
    let relay: Arc<dyn RelayStats> = Arc::new(Relay);
    let outbox = Ops::new().with_relay(relay).serve("127.0.0.1:0")?;
    let targets = format!("['{platform}', '{}']", outbox.local_addr());
    let address = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let _prometheus = Guard(prometheus(program.as_ref(), directory.path(), &address, &targets)?);

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
    let rules = get(&address, "/api/v1/rules")?;
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

fn prometheus(program: &Path, directory: &Path, address: &str, targets: &str) -> Result<Child, BoxError> {
    let config = directory.join("prometheus.yaml");
    std::fs::write(directory.join("rules.yaml"), generate::alerts())?;
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
    Ok(command.spawn()?)
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
    let Ok(answer) = get(address, &format!("/api/v1/query?query={encoded}")) else { return false };
    let series = answer["data"]["result"].as_array().into_iter().flatten();
    series.filter_map(|series| series["value"][1].as_str()).any(|value| value != "NaN")
}

fn get(address: &str, path: &str) -> Result<Value, BoxError> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    // By this version the body is not in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    Ok(serde_json::from_str(body)?)
}

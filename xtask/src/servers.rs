//! The real servers next to which the tests run.
//!
//! They are started by the program `testbed` of the room of that name, as `testbed serve`. It writes to its standard
//! output a line per server, `NAME=VALUE` for an environment variable that tells tests where it is, or
//! `missing NAME: why`; then `ready`. It ends its servers and itself when its standard input closes, so nothing is left
//! behind even when this program is killed.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{cargo, run};
use crate::workspace::{root, target_directory};

/// The variables that tell tests where a server is. One that is set already is left as it is.
const KNOWN: [&str; 2] = ["TIDINGS_KAFKA", "TIDINGS_POSTGRES"];
/// The first start downloads Kafka.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// How long servers may take to end before their program is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Running servers, ended when dropped.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// The environment of the tests.
    pub(crate) variables: Vec<(String, String)>,
    /// The servers that do not run, and why.
    pub(crate) missing: Vec<String>,
    testbed: Option<Child>,
}

impl Servers {
    /// Starts what this machine can start and no variable names. Builds the testbed, unless it `is_built`.
    ///
    /// # Errors
    /// When testbed does not build. Servers that don't start are [`missing`](Self::missing), not an error.
    pub(crate) fn start(is_built: bool) -> Result<Self> {
        let mut servers = Self::default();
        if KNOWN.iter().all(|name| env::var_os(name).is_some()) {
            return Ok(servers);
        }
        if !is_built {
            run(cargo(["build", "--package=tidings-testbed", "--bin=testbed"]).current_dir(root()))?;
        }
        if let Err(failure) = servers.serve() {
            servers.missing.push(format!("testbed: {failure}"));
        }
        Ok(servers)
    }

    fn serve(&mut self) -> Result {
        let mut command = Command::new(target_directory().join("debug/testbed"));
        let mut child = command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take();
        self.testbed = Some(child);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(|line| line.ok())
            {
                // Read to the end even without a listener: a full pipe would stop testbed.
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return Ok(()),
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout) => return Err(format!("not ready within {START_DEADLINE:?}").into()),
                Err(RecvTimeoutError::Disconnected) => return Err("ended before it was ready".into()),
            }
        }
    }

    fn note(&mut self, line: &str) {
        println!("testbed: {line}");
        if let Some(missing) = line.strip_prefix("missing ") {
            self.missing.push(missing.to_owned());
        } else if let Some((name, value)) = line.split_once('=')
            && name.starts_with("TIDINGS_")
        {
            self.variables.push((name.to_owned(), value.to_owned()));
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let Some(mut testbed) = self.testbed.take() else { return };
        drop(testbed.stdin.take());
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if !matches!(testbed.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        eprintln!("testbed did not end within {STOP_DEADLINE:?} and is killed");
        let _ = testbed.kill();
        let _ = testbed.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn testbed_tells_what_runs_and_what_does_not() {
        let mut servers = Servers::default();
        servers.note("TIDINGS_KAFKA=127.0.0.1:9092");
        servers.note("missing Postgres: no initdb found");
        servers.note("PATH=/nowhere");
        assert_eq!(servers.variables, [("TIDINGS_KAFKA".to_owned(), "127.0.0.1:9092".to_owned())]);
        assert_eq!(servers.missing, ["Postgres: no initdb found"]);
    }
}

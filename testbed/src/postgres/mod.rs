//! Postgres servers.

mod disk;
pub(crate) mod install;
pub(crate) mod options;
mod processes;
pub(crate) mod shared;

use crate::{
    blocking::blocking,
    certs::Authority,
    error::{Context, Error, Result},
    ports::Port,
    process::{EndBy, ServerDir, Supervised, run, tail, wait_until},
};
use install::Install;
use options::{POSTGRES_START_TIMEOUT, PostgresOptions, Shutdown};
pub use processes::Backend;
use rustix::process::Signal;
use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Owner of the database, and super user.
const USER: &str = "tidings";
const PASSWORD: &str = "tidings-secret";
const DATABASE: &str = "tidings";

/// How long a fast shutdown may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A Postgres server on loopback, with a folder of its own. It ends when the last clone is dropped or this process
/// ends.
#[derive(Debug, Clone)]
pub struct Postgres {
    inner: Arc<Server>,
}

#[derive(Debug)]
struct Server {
    options: PostgresOptions,
    install: Install,
    // Dropped before the folder, so that no process writes to it when it is removed.
    process: Mutex<Option<Supervised>>,
    port: Port,
    authority: Authority,
    stranger: Authority,
    dir: ServerDir,
}

impl Postgres {
    /// Starts a new, empty server and waits until it answers: 2 to 4 s.
    ///
    /// # Errors
    /// [Unavailable](Error::is_unavailable) if Postgres is not installed, [forbidden](Error::is_forbidden) if a small
    /// disk is not possible; failed if the server does not start.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        blocking(move || {
            let postgres = Self::prepare(options)?;
            postgres.spawn()?;
            Ok(postgres)
        })
        .await
    }

    fn prepare(options: PostgresOptions) -> Result<Self> {
        let install = Install::find()?;
        let dir = ServerDir::new("postgres")?;
        // The user who runs the server must be able to reach its own folder in here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).at(dir.path())?;
        let authority = Authority::generate("tidings testbed")?;
        let stranger = Authority::generate("tidings testbed stranger")?;
        let (process, port) = (Mutex::new(None), Port::reserve()?);
        let server = Server { options, install, process, port, authority, stranger, dir };
        server.init()?;
        Ok(Self { inner: Arc::new(server) })
    }

    /// Returns the `postgres://` URL with user, password and database; the client chooses whether to use TLS.
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@{}/{database}", self.inner.port.address())
    }

    /// Returns the [`url`](Self::url), with full verification against [`ca_file`](Self::ca_file).
    pub fn tls_url(&self) -> String {
        format!("{}?sslmode=verify-full&sslrootcert={}", self.url(), self.ca_file().display())
    }

    /// Returns `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.inner.port.address()
    }

    /// Returns the folder, for a tablespace, that is on a [disk that fills up](PostgresOptions::with_small_disk).
    pub fn small_disk(&self) -> PathBuf {
        self.inner.dir.path().join("small")
    }

    /// Returns the certificate of the authority that signed the server's certificate.
    pub fn ca_pem(&self) -> String {
        self.inner.authority.pem()
    }

    /// Returns the path of a file with [`ca_pem`](Self::ca_pem).
    pub fn ca_file(&self) -> PathBuf {
        self.inner.dir.path().join("ca.pem")
    }

    /// Returns the certificate of an authority that did not sign it.
    pub fn wrong_ca_pem(&self) -> String {
        self.inner.stranger.pem()
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    /// If there is no psql, or the server refuses.
    pub async fn fresh_database(&self) -> Result<String> {
        let (install, url) = (self.inner.install.clone(), self.url());
        blocking(move || shared::fresh_database(&install.program("psql"), &url)).await
    }

    /// Runs SQL with psql, a witness that shares no code with us, and returns the rows, with columns separated by
    /// `|`.
    ///
    /// # Errors
    /// If there is no psql, or the server refuses; the error has its message.
    pub async fn sql(&self, sql: &str) -> Result<String> {
        let (psql, url, sql) = (self.inner.install.program("psql"), self.url(), sql.to_owned());
        blocking(move || shared::psql(&psql, &url, &sql)).await
    }

    /// Stops the server. Its data and port are kept for [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// If it has not ended within half a minute.
    pub async fn stop(&self, how: Shutdown) -> Result<()> {
        let postgres = self.clone();
        blocking(move || postgres.stop_blocking(how)).await
    }

    /// Starts a stopped server and waits until it answers, recovery included. It has no effect on a running server.
    ///
    /// # Errors
    /// If it does not answer within [`POSTGRES_START_TIMEOUT`].
    pub async fn start_again(&self) -> Result<()> {
        let postgres = self.clone();
        blocking(move || postgres.spawn()).await
    }

    /// Stops and starts the server.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start_again`](Self::start_again).
    pub async fn restart(&self, how: Shutdown) -> Result<()> {
        self.stop(how).await?;
        self.start_again().await
    }

    /// Returns the sessions of clients, according to the server's process titles.
    ///
    /// # Errors
    /// If the server is not running.
    pub fn backends(&self) -> Result<Vec<Backend>> {
        Ok(processes::backends(self.pid()?))
    }

    /// Ends one session with SIGTERM, as an administrator does; `pid` is the result of `pg_backend_pid()`.
    ///
    /// # Errors
    /// If `pid` is not a session of this server.
    pub fn terminate_backend(&self, pid: i32) -> Result<()> {
        processes::signal_backend(self.pid()?, pid, Signal::TERM)
    }

    /// Kills one session with SIGKILL: the server then ends all others too, and recovers as after a crash.
    ///
    /// # Errors
    /// If `pid` is not a session of this server.
    pub fn kill_backend(&self, pid: i32) -> Result<()> {
        processes::signal_backend(self.pid()?, pid, Signal::KILL)
    }

    /// Freezes the server and all its sessions (SIGSTOP): sockets stay open, but there are no answers.
    ///
    /// # Errors
    /// If the server is not running.
    pub fn pause(&self) -> Result<()> {
        processes::pause(self.pid()?)
    }

    /// Resumes a paused server (SIGCONT).
    ///
    /// # Errors
    /// If the server is not running.
    pub fn resume(&self) -> Result<()> {
        processes::resume(self.pid()?)
    }

    fn pid(&self) -> Result<rustix::process::Pid> {
        let process = self.inner.process();
        process.as_ref().map(Supervised::pid).ok_or_else(|| Error::failed("postgres is not running"))
    }

    fn stop_blocking(&self, how: Shutdown) -> Result<()> {
        let mut process = self.inner.process();
        if let Some(running) = process.as_mut() {
            running.signal(match how {
                Shutdown::Fast => Signal::INT,
                Shutdown::Immediate => Signal::QUIT,
            })?;
            running.wait(STOP_TIMEOUT)?;
        }
        *process = None;
        Ok(())
    }

    fn spawn(&self) -> Result<()> {
        let server = &self.inner;
        let mut process = server.process();
        if process.as_mut().is_some_and(Supervised::is_running) {
            return Ok(());
        }
        let args = ["-D".to_owned(), server.data().display().to_string()];
        let mut command = server.install.command("postgres", &args);
        if let Some(mebibytes) = server.options.small_disk {
            command = disk::on_small_disk(&server.install, &self.small_disk(), mebibytes, &command)?;
        }
        let started = process.insert(Supervised::spawn(&command, &server.log(), EndBy::Quit)?);
        let mut died = false;
        let up = wait_until(POSTGRES_START_TIMEOUT, || {
            died = !started.is_running();
            died || server.answers()
        });
        if up && !died {
            return Ok(());
        }
        let how = if died { "ended" } else { "did not answer in time" };
        Err(Error::failed(format!("postgres {how}; its log ends with:\n{}", tail(&server.log(), 20))))
    }
}

impl Server {
    fn process(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log.txt")
    }

    fn init(&self) -> Result<()> {
        let data = self.data();
        fs::create_dir(&data).at(&data)?;
        self.install.give(&data)?;
        let small = self.dir.path().join("small");
        fs::create_dir(&small).at(&small)?;
        let secret = self.dir.path().join("password");
        self.put(&secret, PASSWORD)?;
        let mut args = vec!["-D".to_owned(), data.display().to_string(), format!("--pwfile={}", secret.display())];
        args.push(format!("--username={USER}"));
        // The empty database need not survive a power failure; everything written later is synced.
        args.extend(["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--no-locale"].map(str::to_owned));
        let command = self.install.command("initdb", &args);
        run(Command::new(&command[0]).args(&command[1..]).current_dir("/"))?;
        let ca = self.dir.path().join("ca.pem");
        fs::write(&ca, self.authority.pem()).at(&ca)?;
        if let Some(certificate) = self.options.tls {
            let identity = self.authority.server(certificate)?;
            self.put(&data.join("server.crt"), identity.cert_pem())?;
            self.put(&data.join("server.key"), identity.key_pem())?;
        }
        self.put(&data.join("pg_hba.conf"), &self.host_rules())?;
        self.put(&data.join("postgresql.conf"), &self.settings())?;
        self.create_database(&data)
    }

    /// Creates the database in single-user mode: no port, no password, before the first start.
    fn create_database(&self, data: &Path) -> Result<()> {
        let args = ["--single", "-D", &data.display().to_string(), "postgres"].map(str::to_owned);
        let command = self.install.command("postgres", &args);
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("run postgres --single")?;
        if let Some(mut stdin) = child.stdin.take() {
            use std::io::Write as _;
            writeln!(stdin, "CREATE DATABASE {DATABASE} OWNER {USER}").context("write to postgres --single")?;
        }
        let status = child.wait().context("wait for postgres --single")?;
        status.success().then_some(()).ok_or_else(|| Error::failed(format!("postgres --single ended with {status}")))
    }

    /// Writes a file that only the server may read.
    fn put(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).at(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).at(path)?;
        self.install.give(path)
    }

    fn host_rules(&self) -> String {
        let kind = if self.options.tls_only { "hostssl" } else { "host" };
        format!("{kind} all all 127.0.0.1/32 scram-sha-256\n")
    }

    fn settings(&self) -> String {
        let port = self.port.address();
        let port = port.rsplit(':').next().unwrap_or_default();
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
             password_encryption = 'scram-sha-256'\nfsync = on\nshared_buffers = '32MB'\nmax_connections = 200\n\
             jit = off\n"
        );
        if self.options.tls.is_some() {
            text.push_str("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
        }
        for (name, value) in &self.options.settings {
            let _never_fails = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        }
        text
    }

    /// Returns whether it accepts sessions, which it does not while it recovers.
    fn answers(&self) -> bool {
        let address = self.port.address();
        let (host, port) = address.split_once(':').unwrap_or_default();
        let mut ready = Command::new(self.install.program("pg_isready"));
        ready.args(["-q", "-t", "2", "-h", host, "-p", port]).stdin(Stdio::null());
        ready.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Paused sessions could not end with their server.
        if let Some(process) = self.process().as_ref() {
            let _gone = processes::resume(process.pid());
        }
    }
}

//! Processes that are killed, run out of disk, or may not write: nothing that was acknowledged is lost, nothing is `Done`
//! that was not completed. The test program starts itself as the process to be killed.
//!
//! `TIDINGS_SOAK=1` kills 200 times instead of 50; so does the soak test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

#[expect(dead_code, reason = "other test programs use the rest")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::tempdir;
use tidings_core::{Claim, ErrorKind, EventRef, IdempotencyStore, Lease, Result};
use tidings_sled::{Clock, SledConfig, SledStore, SystemClock};
use uuid::Uuid;

use crate::common::{claim, event, fresh, granted, lease};

const ROLE: &str = "TIDINGS_SLED_ROLE";
const DIRECTORY: &str = "TIDINGS_SLED_DIRECTORY";
const AHEAD: &str = "TIDINGS_SLED_CLOCK_AHEAD";

/// The wall clock moves on by half of this over all rounds, so that parts of the store are begun, and none is dropped.
const RETENTION: Duration = Duration::from_secs(4_000);
/// How long anything that must come may take, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// After how many lines of a process its time runs in which it is killed, round by round: whenever it may be, while it opens
/// or before; with its first answer; and under load, where enough is acknowledged however slow the disk is.
const HEARD_FIRST: [usize; 4] = [0, 1, 100, 100];

const KILLS: u32 = 50;
const MORE_KILLS: u32 = 200;

/// A wall clock that is ahead.
#[derive(Debug)]
struct Later(SystemClock, Duration);

impl Clock for Later {
    fn wall(&self) -> tidings_core::Timestamp {
        self.0.wall().saturating_add(self.1)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

async fn open(directory: &Path, ahead: Duration) -> Result<SledStore> {
    let clock = Later(SystemClock::default(), ahead);
    SledStore::open_with(SledConfig::new(directory).with_retention(RETENTION).with_clock(clock)).await
}

/// Does what its parent wants; as a test of its own, nothing.
#[tokio::test]
async fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    match role.as_str() {
        "load" => load(Path::new(&directory)).await,
        "fill" => fill(Path::new(&directory)).await,
        "hold" => hold(Path::new(&directory)).await,
        "open" => {
            let error = SledStore::open(&directory).await.err();
            say(&format!("kind {:?}", error.map(|e| e.kind())));
        }
        other => panic!("no role {other}"),
    }
}

/// Tells the parent, in a way that outlives this process.
fn say(line: &str) {
    std::io::stdout().write_all(format!("@{line}\n").as_bytes()).unwrap();
}

fn say_all(what: &str, events: &[EventRef]) {
    let lines: String = events.iter().map(|e| format!("@{what} {}\n", e.id)).collect();
    std::io::stdout().write_all(lines.as_bytes()).unwrap();
}

async fn load(directory: &Path) {
    let ahead = Duration::from_secs(std::env::var(AHEAD).unwrap().parse().unwrap());
    let store = open(directory, ahead).await.unwrap();
    let one = lease(&store).await;
    let mut tasks = Vec::new();
    for size in [1, 1, 1, 2, 3, 8, 20, 50] {
        let (store, one) = (store.clone(), one.clone());
        tasks.push(tokio::spawn(async move {
            let error = loop {
                if let Err(error) = work(&store, &one, size).await {
                    break error;
                }
            };
            say(&format!("broke {}", error.report()));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Claims events and completes most of them, and says what was acknowledged.
async fn work(store: &SledStore, lease: &Lease, size: usize) -> Result<()> {
    let events: Vec<_> = (0..size).map(|_| event(Uuid::new_v4())).collect();
    let claims = store.claim(lease, &events).await?;
    assert!(claims.iter().all(|claim| *claim == granted(0, 0)), "{claims:?}");
    say_all("claimed", &events);
    let (done, _) = events.split_at(size - size / 4);
    say_all("completing", done);
    for answer in store.complete(lease, done).await? {
        answer?;
    }
    say_all("completed", done);
    Ok(())
}

async fn hold(directory: &Path) {
    let _store = SledStore::open(directory).await.unwrap();
    say("open");
    std::future::pending::<()>().await;
}

/// Works until no file may grow, and goes on when they may again.
async fn fill(directory: &Path) {
    let store = open(directory, Duration::ZERO).await.unwrap();
    let one = lease(&store).await;
    work(&store, &one, 50).await.unwrap();
    let limits = getrlimit(Resource::Fsize);
    let log = fs::metadata(directory.join("events-00000000/sled/db")).unwrap().len();
    setrlimit(Resource::Fsize, Rlimit { current: Some(log + (64 << 10)), ..limits }).unwrap();
    let error = loop {
        if let Err(error) = work(&store, &one, 50).await {
            break error;
        }
    };
    say(&format!("full {}", error.report()));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.claim(&one, &[fresh()]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    setrlimit(Resource::Fsize, limits).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = work(&store, &one, 50).await {
        assert!(error.is_retryable() && Instant::now() < deadline, "{}", error.report());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say("again");
    store.close().await;
}

fn command(program: &Path, role: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "role", "--nocapture"]);
    command.env(ROLE, role).env(DIRECTORY, directory).env("RUST_BACKTRACE", "0").stdout(Stdio::piped());
    command
}

/// The output of a process until it ends.
fn listen(child: &mut Child) -> Receiver<String> {
    let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
    // libtest writes lines too, and may leave one unfinished in front of ours.
    let said = |line: Vec<u8>| String::from_utf8(line).ok()?.split_once('@').map(|(_, said)| said.to_owned());
    let (said_to, heard) = channel();
    thread::spawn(move || {
        lines.map_while(std::io::Result::ok).filter_map(said).try_for_each(|line| said_to.send(line))
    });
    heard
}

/// The acknowledged operations, by event.
#[derive(Debug, Default)]
struct Book {
    claimed: BTreeSet<Uuid>,
    /// Completed perhaps.
    begun: BTreeSet<Uuid>,
    completed: BTreeSet<Uuid>,
}

impl Book {
    fn note(&mut self, line: &str) {
        let Some((what, id)) = line.split_once(' ') else { return };
        // The last line of a killed process may be cut off.
        let Ok(id) = id.parse() else { return };
        match what {
            "claimed" => self.claimed.insert(id),
            "completing" => self.begun.insert(id),
            "completed" => self.completed.insert(id),
            _ => false,
        };
    }

    /// Notes a line of a process whose store may not break.
    fn note_unbroken(&mut self, line: &str) {
        assert!(!line.starts_with("broke"), "{line}");
        self.note(line);
    }

    /// Claims all that the book has, compares, and gives everything back.
    async fn check(&self, store: &SledStore, crashes: u32) {
        let one = lease(store).await;
        let ids: Vec<_> = self.claimed.iter().copied().collect();
        for part in ids.chunks(1_000) {
            let events: Vec<_> = part.iter().map(|id| event(*id)).collect();
            let claims = store.claim(&one, &events).await.unwrap();
            for (id, claim) in part.iter().zip(claims) {
                let expected = granted(crashes, 0);
                let right = match claim {
                    Claim::Done => self.begun.contains(id),
                    other => other == expected && !self.completed.contains(id),
                };
                let completed = self.completed.contains(id);
                assert!(right, "{id}: {claim:?}, crashes {crashes}, acknowledged as done: {completed}");
            }
        }
        store.retire(&one).await.unwrap();
    }
}

/// So that a failure can be repeated: xorshift.
fn pseudo_random(seed: u32) -> u64 {
    let mut x = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    for _ in 0..4 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    kill(if std::env::var_os("TIDINGS_SOAK").is_some() { MORE_KILLS } else { KILLS }).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_nothing_acknowledged_is_lost_in_many_kills() {
    kill(MORE_KILLS).await;
}

async fn kill(rounds: u32) {
    let mut directory = tempdir().unwrap();
    // Left behind when this fails, to be looked at.
    directory.disable_cleanup(true);
    let program = std::env::current_exe().unwrap();
    let mut books = BTreeMap::new();
    for round in 0..rounds {
        let ahead = Duration::from_secs((RETENTION / 2 * round / rounds).as_secs());
        let mut command = command(&program, "load", directory.path());
        let mut child = command.env(AHEAD, ahead.as_secs().to_string()).spawn().unwrap();
        let said = listen(&mut child);
        let mut book = Book::default();
        for _ in 0..HEARD_FIRST[round as usize % HEARD_FIRST.len()] {
            book.note_unbroken(&said.recv_timeout(PATIENCE).unwrap());
        }
        thread::sleep(Duration::from_millis(pseudo_random(round) % 150));
        child.kill().unwrap();
        child.wait().unwrap();
        said.iter().for_each(|line| book.note_unbroken(&line));
        let store = open(directory.path(), ahead).await.unwrap_or_else(|e| panic!("round {round}: {}", e.report()));
        book.check(&store, 1).await;
        books.insert(round, book);
        store.close().await;
    }
    let store = open(directory.path(), RETENTION / 2).await.unwrap();
    for book in books.values() {
        // Still, after all the later crashes; and the crashes are remembered after the claims were given back.
        book.check(&store, 1).await;
    }
    let acknowledged: usize = books.values().map(|book| book.claimed.len() + book.completed.len()).sum();
    println!("{} kills, {acknowledged} claims and completions acknowledged", rounds);
    directory.disable_cleanup(false);
    assert!(acknowledged > 1_000, "only {acknowledged}: killed before they got to work");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_the_store_comes_back_by_itself() {
    let directory = tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    // A shell, because a process that grows a file beyond its limit is killed unless it was started with that ignored.
    let inner = command(&program, "fill", directory.path());
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(&program).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        shell.env(name, value.unwrap());
    }
    let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
    let said = listen(&mut child);
    assert!(child.wait().unwrap().success());
    let said: Vec<_> = said.iter().collect();
    assert!(said.iter().any(|line| line.starts_with("full")) && said.iter().any(|line| line == "again"));
    let mut book = Book::default();
    said.iter().for_each(|line| book.note(line));
    let store = open(directory.path(), Duration::ZERO).await.unwrap();
    book.check(&store, 1).await;
}

#[tokio::test]
async fn a_directory_that_another_process_has_open_is_refused_until_that_ends() {
    let directory = tempdir().unwrap();
    let mut child = command(&std::env::current_exe().unwrap(), "hold", directory.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("@open") {}
    let error = SledStore::open(directory.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    child.kill().unwrap();
    child.wait().unwrap();
    SledStore::open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_is_denied() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path().join("store")).await.unwrap();
    let one = lease(&store).await;
    claim(&store, &one, &fresh()).await;
    store.close().await;
    let program = directory.path().join("program");
    // By another process: a child that another test starts would inherit our file, and what is open for writing can't be run.
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap();
    assert!(copied.success());
    set_mode(directory.path(), 0o755);
    set_mode(&directory.path().join("store"), 0o555);
    let mut command = command(&program, "open", &directory.path().join("store"));
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere.
        command.uid(65_534).gid(65_534);
    }
    let mut child = command.spawn().unwrap();
    let said = listen(&mut child);
    child.wait().unwrap();
    set_mode(&directory.path().join("store"), 0o755);
    assert_eq!(said.iter().collect::<Vec<_>>(), ["kind Some(Denied)"]);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

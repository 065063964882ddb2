//! The two directions of one connection.

use super::{Counts, Cut, Framing, Mode};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    time::sleep,
};

const CHUNK: usize = 64 << 10;
const MAX_FRAME: usize = 128 << 20;

/// API keys of one connection's unanswered requests, by correlation id.
type Unanswered = Mutex<HashMap<i32, i16>>;

/// State shared by a proxy's connections and its owner.
#[derive(Debug)]
pub(crate) struct Shared {
    framing: Framing,
    mode: watch::Sender<Mode>,
    // Each value is one `cut_all`.
    cut_all: watch::Sender<u64>,
    counts: watch::Sender<Counts>,
    delay: Mutex<Duration>,
    armed: Mutex<Option<Cut>>,
}

/// How to treat an answer.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Forward,
    CutBefore,
    CutAfter,
}

impl Shared {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            mode: watch::Sender::new(Mode::Forward),
            cut_all: watch::Sender::new(0),
            counts: watch::Sender::new(Counts::default()),
            delay: Mutex::default(),
            armed: Mutex::default(),
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(crate) fn cut_all(&self) {
        self.cut_all.send_modify(|cut| *cut += 1);
    }

    pub(crate) fn arm(&self, cut: Cut) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some(cut);
    }

    pub(crate) fn disarm(&self) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner) = delay;
    }

    fn delay(&self) -> Duration {
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    pub(crate) fn watch_counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    /// Counts a cut. Called before the connection is closed: all counts change before their effects are visible from
    /// outside.
    fn count_cut(&self) {
        self.count(|counts| counts.cuts += 1);
    }

    fn judge(&self, api: Option<i16>) -> Verdict {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cut) = armed.as_mut() else { return Verdict::Forward };
        if cut.api.is_some() && cut.api != api {
            return Verdict::Forward;
        }
        cut.nth = cut.nth.saturating_sub(1);
        if cut.nth > 0 {
            return Verdict::Forward;
        }
        let verdict = if cut.after { Verdict::CutAfter } else { Verdict::CutBefore };
        if !cut.repeated {
            *armed = None;
        }
        verdict
    }

    /// Returns when bytes may pass.
    async fn open(&self) {
        let mut mode = self.mode.subscribe();
        let _proxy_is_gone = mode.wait_for(|mode| *mode != Mode::BlackHole).await;
    }
}

/// Connects `client` with `target` until either end closes or the connection is cut.
pub(crate) async fn run(client: TcpStream, target: &str, shared: &Arc<Shared>) {
    let mut cut_all = shared.cut_all.subscribe();
    let _nagle_stays = client.set_nodelay(true);
    let connected = async {
        // A black hole answers a connection attempt, as the partition may lie behind the proxy.
        shared.open().await;
        let server = TcpStream::connect(target).await?;
        server.set_nodelay(true)?;
        Ok::<_, io::Error>(server)
    };
    let server = tokio::select! {
        server = connected => server,
        _ = cut_all.changed() => return shared.count_cut(),
    };
    let Ok(server) = server else { return };
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let unanswered = Unanswered::default();
    let cut = async {
        let _proxy_is_gone = cut_all.changed().await;
        shared.count_cut();
    };
    tokio::select! {
        // Checked first, so that nothing passes after a cut is requested.
        biased;
        () = cut => {}
        _ = requests(client_reads, server_writes, shared, &unanswered) => {}
        _ = answers(server_reads, client_writes, shared, &unanswered) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    unanswered: &Unanswered,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while read(&mut from, &mut buffer, shared.framing).await? {
        if let (Framing::Kafka, Some((api, correlation))) = (shared.framing, request_ids(&buffer)) {
            unanswered.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation, api);
        }
        shared.open().await;
        shared.count(|counts| counts.requests += 1);
        to.write_all(&buffer).await?;
    }
    Ok(())
}

/// Forwards answers; ends with the server's last answer, or with a cut.
async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    unanswered: &Unanswered,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while read(&mut from, &mut buffer, shared.framing).await? {
        let api = answer_id(&buffer)
            .filter(|_| shared.framing == Framing::Kafka)
            .and_then(|id| unanswered.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        let verdict = shared.judge(api);
        if verdict == Verdict::CutBefore {
            shared.count_cut();
            return Ok(());
        }
        shared.open().await;
        let delay = shared.delay();
        if !delay.is_zero() {
            sleep(delay).await;
        }
        shared.count(|counts| counts.answers += 1);
        to.write_all(&buffer).await?;
        if verdict == Verdict::CutAfter {
            shared.count_cut();
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one frame, with its length, or one chunk; returns false at the end.
async fn read(from: &mut OwnedReadHalf, buffer: &mut Vec<u8>, framing: Framing) -> io::Result<bool> {
    match framing {
        Framing::Chunks => {
            buffer.resize(CHUNK, 0);
            let length = from.read(buffer).await?;
            buffer.truncate(length);
            Ok(length > 0)
        }
        Framing::Kafka => {
            let mut head = [0; 4];
            from.read_exact(&mut head).await?;
            let length = usize::try_from(i32::from_be_bytes(head)).map_err(io::Error::other)?;
            if length > MAX_FRAME {
                return Err(io::Error::other("not a frame of Kafka's protocol"));
            }
            buffer.clear();
            buffer.extend(head);
            buffer.resize(4 + length, 0);
            from.read_exact(&mut buffer[4..]).await?;
            Ok(true)
        }
    }
}

/// Returns the API key and the correlation id of a request.
fn request_ids(frame: &[u8]) -> Option<(i16, i32)> {
    let api = frame.get(4..6)?.try_into().ok()?;
    let correlation = frame.get(8..12)?.try_into().ok()?;
    Some((i16::from_be_bytes(api), i32::from_be_bytes(correlation)))
}

/// Returns the correlation id of an answer.
fn answer_id(frame: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?))
}

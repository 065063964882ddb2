//! The engine under simulation: seeded runs on the paused clock, with services that start, stop and crash, faults of
//! all their dependencies, and a checker that reads the history of each run.
//!
//! A failing seed is printed. `TIDINGS_SEED=n cargo test -p tidings-service --test simulation -- replay` runs it again
//! and prints its history.
#![expect(clippy::unwrap_used, reason = "what surrounds the simulated services does not fail")]

mod check;
mod ending;
mod faults;
mod history;
mod jobs;
mod planted;
mod plants;
mod setting;
mod tap;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use check::check;
use history::{History, Log};
use plants::Bug;

/// The number of seeds in each run of the tests.
const SEEDS: u64 = 200;
/// The number of failed seeds after which the test stops.
const MAX_FAILED: usize = 20;
/// The timeout of one run, which normally takes milliseconds: a longer run is in an endless loop, even on a busy
/// machine.
const HANGS_AFTER: Duration = Duration::from_secs(180);

/// Runs one seed on its own thread, so that a run that never yields is detected.
fn simulate(seed: u64) -> History {
    simulate_with(seed, Bug::None)
}

/// Runs one seed with a bug planted into the engine.
fn simulate_with(seed: u64, bug: Bug) -> History {
    let (sender, receiver) = mpsc::channel();
    let log = Arc::new(OnceLock::new());
    let written = log.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _ = sender.send(runtime.block_on(world::run(seed, bug, &written)));
    });
    receiver.recv_timeout(HANGS_AFTER).unwrap_or_else(|_| {
        let entries = log.get().map(|log: &Arc<Log>| log.entries()).unwrap_or_default();
        let last: Vec<_> = entries.iter().rev().take(40).rev().map(|e| format!("{:?} {:?}", e.at, e.what)).collect();
        panic!("seed {seed} hangs or panics:\n{}", last.join("\n"))
    })
}

fn report(seed: u64, history: &History) -> Option<String> {
    let anomalies = check(history);
    if anomalies.is_empty() {
        return None;
    }
    // The first of each kind: the others mostly follow from it.
    let mut first = BTreeMap::new();
    for anomaly in &anomalies {
        first.entry(anomaly.name).or_insert(&anomaly.text);
    }
    let lines: Vec<_> = first.iter().map(|(name, text)| format!("  {name}: {text}")).collect();
    Some(format!("seed {seed}, {} anomalies:\n{}", anomalies.len(), lines.join("\n")))
}

/// Silences the panics requested of handlers, which would fill the output.
fn silence_panics() {
    if std::env::var_os("TIDINGS_SEED").is_none() {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>().is_none_or(|text| *text != "as asked") {
                before(info);
            }
        }));
    }
}

/// Runs seeds from `first` while `goes_on` returns true, one per core at a time; returns their number, and the reports
/// of those that failed.
fn run_seeds(first: u64, goes_on: impl Fn(u64) -> bool + Sync) -> (u64, Vec<String>) {
    silence_panics();
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if !goes_on(seed) || failed.lock().unwrap().len() >= MAX_FAILED {
            return;
        }
        let reported = report(seed, &simulate(seed));
        failed.lock().unwrap().extend(reported);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let begun = next.load(Ordering::Relaxed) - first - threads as u64;
    (begun, failed.into_inner().unwrap())
}

#[test]
fn no_seed_breaks_a_promise() {
    let seeds = std::env::var("TIDINGS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let (_, failed) = run_seeds(0, |seed| seed < seeds);
    assert!(failed.is_empty(), "{}\nreplay with TIDINGS_SEED", failed.join("\n"));
}

/// An isolated record that waited for its handler was kept from starting by batches that waited for it.
#[test]
fn seeds_that_broke_a_promise_once_keep_it() {
    for seed in [176_798_103_536_247, 176_798_103_538_285] {
        let reported = report(seed, &simulate(seed));
        assert!(reported.is_none(), "{reported:?}");
    }
}

/// Runs the seed given by `TIDINGS_SEED`, and prints its history.
#[test]
fn replay() {
    let Ok(seed) = std::env::var("TIDINGS_SEED") else { return };
    let seed = seed.parse().expect("TIDINGS_SEED is a number");
    let history = simulate(seed);
    for entry in &history.entries {
        println!("{:>10.3} {:?}", entry.at.as_secs_f64(), entry.what);
    }
    for (place, held) in &history.log {
        let (key, value) = (held.key.as_deref().unwrap_or(b"-"), held.value.as_deref().unwrap_or(b"null"));
        let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        println!("{} {} {key} {:?} {value}", place.origin, place.offset, held.kind);
    }
    if let Some(report) = report(seed, &history) {
        panic!("{report}");
    }
}

/// Runs random seeds for `TIDINGS_SOAK_SECONDS`.
#[test]
#[ignore = "soak"]
fn soak_random_seeds() {
    let seconds = std::env::var("TIDINGS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(seconds);
    let first = std::env::var("TIDINGS_FIRST_SEED").ok().and_then(|text| text.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(1 << 32..1 << 48));
    let (count, failed) = run_seeds(first, |_| Instant::now() < end);
    println!("{count} seeds from {first} on");
    assert!(failed.is_empty(), "{}\nreplay with TIDINGS_SEED", failed.join("\n"));
}

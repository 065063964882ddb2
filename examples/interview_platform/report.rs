//! What a person sees: a bar while it works, a table at the end.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::Duration;

use crate::audit::{GroupLog, Ledger};
use crate::input::Progress;

const BAR_WIDTH: usize = 30;
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// Draws a bar until it is dropped; nothing where the output is no terminal.
pub(crate) async fn draw(input: Progress, ledger: Arc<Ledger>, logs: Vec<Arc<GroupLog>>) {
    if !stderr().is_terminal() {
        return std::future::pending().await;
    }
    let _clear = ClearLine;
    let mut ticks = tokio::time::interval(BAR_INTERVAL);
    loop {
        ticks.tick().await;
        let fraction = input.fraction().clamp(0.0, 1.0);
        let full = (fraction * BAR_WIDTH as f64) as usize;
        let settled: u64 = logs.iter().map(|log| log.counts().settled()).sum();
        // A bar that can't be drawn is no reason to stop.
        let _ = write!(
            stderr(),
            "\r\x1b[K[{}{}] {:3.0} % read, {} published, {} settled",
            "#".repeat(full),
            "-".repeat(BAR_WIDTH - full),
            fraction * 100.0,
            thousands(ledger.count()),
            thousands(settled),
        );
    }
}

struct ClearLine;

impl Drop for ClearLine {
    fn drop(&mut self) {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}

/// A group's lag, as its broker tells it.
pub(crate) type Lag = Option<u64>;

/// The table: a line per group.
pub(crate) fn table(logs: &[Arc<GroupLog>], lags: &[Lag]) -> String {
    let head = ["group", "handled", "duplicates", "retried", "dead-lettered", "skipped", "lag", "events/s"];
    let mut rows = vec![head.map(str::to_owned)];
    for (log, lag) in logs.iter().zip(lags) {
        let counts = log.counts();
        rows.push([
            log.group.name.to_owned(),
            thousands(counts.handled),
            thousands(counts.duplicates),
            thousands(counts.retried),
            thousands(counts.dead_lettered),
            thousands(counts.skipped),
            lag.map_or_else(|| "?".to_owned(), thousands),
            thousands(log.rate() as u64),
        ]);
    }
    let widths: Vec<usize> = (0..head.len()).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 8]| {
        let first = format!("{:<1$}", row[0], widths[0]);
        let rest = row.iter().zip(&widths).skip(1).map(|(cell, width)| format!("  {cell:>width$}"));
        format!("{first}{}", rest.collect::<String>())
    };
    let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, rule);
    lines.join("\n")
}

/// `n` as a person reads it: 1,234,567.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

//! The output for a person: a progress bar while the program works, a table at the end.

use std::sync::Arc;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::audit::{GroupLog, Ledger};
use crate::input::Progress;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// The length of the bar: parts per thousand of the input.
const BAR_LENGTH: u64 = 1_000;

/// Draws a progress bar until it is dropped; nothing if the output is no terminal.
pub(crate) async fn draw(input: Progress, ledger: Arc<Ledger>, logs: Vec<Arc<GroupLog>>) {
    let bar = Bar(ProgressBar::new(BAR_LENGTH));
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {percent:>3} % read, {msg}") {
        bar.0.set_style(style.progress_chars("##-"));
    }
    let mut ticks = tokio::time::interval(BAR_INTERVAL);
    loop {
        ticks.tick().await;
        let settled: u64 = logs.iter().map(|log| log.counts().settled()).sum();
        bar.0.set_position((input.fraction().clamp(0.0, 1.0) * BAR_LENGTH as f64) as u64);
        bar.0.set_message(format!("{} published, {} settled", thousands(ledger.count()), thousands(settled)));
    }
}

/// Clears the bar when the drawing is cancelled.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A group's lag as its broker reports it; `None` if it is unknown.
pub(crate) type Lag = Option<u64>;

/// Returns the table, with a line per group.
pub(crate) fn table(logs: &[Arc<GroupLog>], lags: &[Lag]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "group",
        "handled",
        "duplicates",
        "retried",
        "dead-lettered",
        "skipped",
        "lag",
        "events/s",
    ]);
    for (log, lag) in logs.iter().zip(lags) {
        let counts = log.counts();
        table.add_row([
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
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.trim_fmt()
}

/// Returns `n` with separators: 1,234,567.
pub(crate) fn thousands(n: u64) -> String {
    HumanCount(n).to_string()
}

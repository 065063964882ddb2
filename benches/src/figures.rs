//! Figures of benches that are not criterion's.

use std::io::Write;
use std::time::Duration;

use tidings::BoxError;

/// The result of a step of a bench.
pub type BenchResult<T = ()> = Result<T, BoxError>;

/// Measurements of alternatives, taken in turns, so that a busy moment of the machine affects all of them.
#[derive(Debug, Default)]
pub struct Figures(Vec<(String, Vec<f64>)>);

impl Figures {
    /// Notes a rate of `name`.
    pub fn add(&mut self, name: &str, count: u64, took: Duration) {
        let rate = count as f64 / took.as_secs_f64().max(1e-9);
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, rates)) => rates.push(rate),
            None => self.0.push((name.to_owned(), vec![rate])),
        }
    }

    /// Prints the medians, and appends them to the file of `cargo xtask bench`, each next to the one called `baseline`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish(mut self, group: &str, baseline: &str) -> BenchResult {
        for (_, rates) in &mut self.0 {
            rates.sort_by(f64::total_cmp);
        }
        let median = |rates: &[f64]| rates[rates.len() / 2];
        let bare = self.0.iter().find(|(name, _)| name == baseline).map(|(_, rates)| median(rates));
        for (name, rates) in &self.0 {
            let bare = bare.filter(|_| name != baseline);
            figure(&format!("{group}/{name}"), median(rates), "/s", bare)?;
        }
        Ok(())
    }
}

/// Prints a figure, and appends it to the file of `cargo xtask bench`.
///
/// # Errors
/// When the file can't be written.
pub fn figure(id: &str, value: f64, unit: &str, baseline: Option<f64>) -> BenchResult {
    let ratio = baseline.map_or(String::new(), |bare| format!("  {:.2}x", value / bare));
    println!("{id}: {value:.2} {unit}{ratio}");
    let Ok(path) = std::env::var("TIDINGS_BENCH_JSON") else { return Ok(()) };
    let line = serde_json::json!({ "id": id, "value": value, "unit": unit, "baseline": baseline });
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
    Ok(writeln!(file, "{line}")?)
}

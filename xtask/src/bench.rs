//! `cargo xtask bench`: runs the benches, and prints their figures next to the baselines of the same run.
//!
//! In a group, the function named `baseline` is the bare thing: a figure is compared to the baseline of its group with
//! the same parameter, or else to the one without a parameter. `ratio` is value / baseline, in the figure's own unit: of
//! a rate more is better, of a time less.
//!
//! A bench that is not criterion's appends lines of the same JSON to the file that `TIDINGS_BENCH_JSON` names.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::Result;
use crate::process::{cargo, picks_packages, run as run_command};
use crate::workspace::{packages, root, target_directory, text};

const BASELINE: &str = "baseline";
const PEERS: &str = "benches/peers";

/// Runs all benches, or those that `args` pick.
pub(crate) fn run(args: Vec<String>) -> Result {
    let options = Options::parse(args)?;
    let begun = SystemTime::now();
    let extra = target_directory().join("xtask-bench.ndjson");
    fs::create_dir_all(target_directory())?;
    File::create(&extra)?;
    if !options.peers && !packages()?.iter().any(|package| package.targets_of("bench").next().is_some()) {
        return Err("there are no benches yet".into());
    }
    let mut command = cargo(["bench"]);
    command.args(options.fixed());
    run_command(command.args(&options.rest).env("TIDINGS_BENCH_JSON", &extra).current_dir(root()))?;
    let results = if options.peers { root().join(PEERS).join("target") } else { target_directory() };
    let mut figures = compared(&measured(&results.join("criterion"), begun)?);
    for line in fs::read_to_string(&extra)?.lines() {
        figures.push(Figure::from_json(&serde_json::from_str(line)?)?);
    }
    println!("\n{}", table(&figures));
    if let Some(path) = options.json {
        let mut file = File::create(&path)?;
        figures.iter().try_for_each(|figure| writeln!(file, "{}", figure.json()))?;
        println!("\n{} figures written to {}", figures.len(), path.display());
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Options {
    json: Option<PathBuf>,
    peers: bool,
    rest: Vec<String>,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--json" => options.json = Some(args.next().ok_or("--json needs a file")?.into()),
                "--peers" => options.peers = true,
                _ => options.rest.push(arg),
            }
        }
        Ok(options)
    }

    /// The first arguments of `cargo bench`. Only bench targets: the others would be built to measure nothing.
    fn fixed(&self) -> Vec<&'static str> {
        let mut fixed =
            if self.peers { vec!["--manifest-path=benches/peers/Cargo.toml"] } else { vec!["--all-features"] };
        let rest = self.rest.iter().take_while(|arg| *arg != "--");
        if !rest.clone().any(|arg| arg.starts_with("--bench")) {
            fixed.push("--bench=*");
        }
        if !self.peers && !picks_packages(&self.rest) {
            fixed.push("--workspace");
        }
        fixed
    }
}

/// A measurement of criterion's for one function and parameter.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    group: String,
    function: String,
    parameter: String,
    value: f64,
    unit: &'static str,
}

impl Measured {
    /// From criterion's `benchmark.json` and `estimates.json`. The median: the mean of a shared machine is its worst
    /// moment.
    fn read(benchmark: &Value, estimates: &Value) -> Option<Self> {
        let nanoseconds = estimates["median"]["point_estimate"].as_f64().filter(|ns| *ns > 0.0)?;
        let throughput = &benchmark["throughput"];
        let elements = throughput["Elements"].as_f64().or(throughput["ElementsAndBytes"]["elements"].as_f64());
        let bytes = throughput["Bytes"].as_f64().or(throughput["BytesDecimal"].as_f64());
        let per_second = |amount: f64| amount * 1e9 / nanoseconds;
        let (value, unit) = match (elements, bytes) {
            (Some(elements), _) => (per_second(elements), "/s"),
            (None, Some(bytes)) => (per_second(bytes), "B/s"),
            (None, None) => (nanoseconds, "ns"),
        };
        Some(Self {
            group: text(&benchmark["group_id"]),
            function: text(&benchmark["function_id"]),
            parameter: text(&benchmark["value_str"]),
            value,
            unit,
        })
    }

    fn id(&self) -> String {
        let parts = [&self.group, &self.function, &self.parameter];
        parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/")
    }
}

/// All that criterion wrote below `directory` since `begun`; results of earlier runs stay there, and are not of this one.
fn measured(directory: &Path, begun: SystemTime) -> Result<Vec<Measured>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let estimates = directory.join("new/estimates.json");
        if fs::metadata(&estimates).and_then(|file| file.modified()).is_ok_and(|at| at >= begun) {
            let benchmark = fs::read_to_string(directory.join("new/benchmark.json"))?;
            let estimates = fs::read_to_string(estimates)?;
            found.extend(Measured::read(&serde_json::from_str(&benchmark)?, &serde_json::from_str(&estimates)?));
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() && entry.file_name() != "new" {
                open.push(entry.path());
            }
        }
    }
    found.sort_by_key(|one| natural(&one.id()));
    Ok(found)
}

/// Sorts `10` after `9`.
fn natural(id: &str) -> Vec<(String, u64)> {
    id.split('/').map(|part| part.parse().map_or_else(|_| (part.to_owned(), 0), |n| (String::new(), n))).collect()
}

/// A line of the table and of the file.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    id: String,
    value: f64,
    unit: String,
    baseline: Option<f64>,
}

impl Figure {
    fn from_json(line: &Value) -> Result<Self> {
        Ok(Self {
            id: text(&line["id"]),
            value: line["value"].as_f64().ok_or_else(|| format!("a figure without a value: {line}"))?,
            unit: text(&line["unit"]),
            baseline: line["baseline"].as_f64(),
        })
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.filter(|baseline| *baseline > 0.0).map(|baseline| self.value / baseline)
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id, "value": self.value, "unit": self.unit, "baseline": self.baseline, "ratio": self.ratio(),
        })
    }
}

fn compared(measured: &[Measured]) -> Vec<Figure> {
    let figure = |one: &Measured| Figure {
        id: one.id(),
        value: one.value,
        unit: one.unit.to_owned(),
        baseline: baseline_of(one, measured).map(|baseline| baseline.value),
    };
    measured.iter().map(figure).collect()
}

fn baseline_of<'a>(one: &Measured, all: &'a [Measured]) -> Option<&'a Measured> {
    let is_bare = |other: &&Measured| other.group == one.group && other.function == BASELINE && other.unit == one.unit;
    let bare: Vec<&Measured> = all.iter().filter(is_bare).filter(|_| one.function != BASELINE).collect();
    let same = bare.iter().find(|other| other.parameter == one.parameter);
    same.or_else(|| bare.iter().find(|other| other.parameter.is_empty())).copied()
}

fn table(figures: &[Figure]) -> String {
    let dash = || "-".to_owned();
    let head = ["id", "value", "unit", BASELINE, "ratio"].map(String::from);
    let rows = figures.iter().map(|figure| {
        let ratio = figure.ratio().map_or_else(dash, |ratio| format!("{ratio:.2}x"));
        let baseline = figure.baseline.map_or_else(dash, number);
        [figure.id.clone(), number(figure.value), figure.unit.clone(), baseline, ratio]
    });
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let [id, value, unit, baseline, ratio] = [0, 1, 2, 3, 4].map(width);
    let line = |[a, b, c, d, e]: &[String; 5]| format!("{a:<id$}  {b:>value$} {c:<unit$}  {d:>baseline$}  {e:>ratio$}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `1234567.8` as `1,234,568`; small numbers keep decimals.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(group: &str, function: &str, parameter: &str, throughput: &Value, nanoseconds: f64) -> Measured {
        let benchmark =
            json!({ "group_id": group, "function_id": function, "value_str": parameter, "throughput": throughput });
        let estimates = json!({ "median": { "point_estimate": nanoseconds } });
        Measured::read(&benchmark, &estimates).expect("it is complete")
    }

    #[test]
    fn a_figure_is_compared_to_the_baseline_of_its_group_and_parameter() {
        let elements = json!({ "Elements": 1_000 });
        let figures = compared(&[
            of("pipeline", "baseline", "1", &elements, 1e6),
            of("pipeline", "baseline", "100", &elements, 5e5),
            of("pipeline", "raw", "100", &elements, 1e6),
            of("codec", "baseline", "", &Value::Null, 200.0),
            of("codec", "json", "256", &Value::Null, 210.0),
            of("alone", "raw", "", &Value::Null, 10.0),
        ]);
        assert_eq!(
            table(&figures),
            "\
id                         value unit   baseline  ratio
pipeline/baseline/1    1,000,000 /s            -      -
pipeline/baseline/100  2,000,000 /s            -      -
pipeline/raw/100       1,000,000 /s    2,000,000  0.50x
codec/baseline               200 ns            -      -
codec/json/256               210 ns          200  1.05x
alone/raw                  10.00 ns            -      -"
        );
        assert_eq!(
            figures[2].json().to_string(),
            r#"{"baseline":2000000.0,"id":"pipeline/raw/100","ratio":0.5,"unit":"/s","value":1000000.0}"#
        );
    }

    #[test]
    fn what_a_bench_wrote_by_itself_is_read_back() {
        let line = json!({ "id": "latency/p99", "value": 3.5, "unit": "ms", "baseline": 2.0 });
        let figure = Figure::from_json(&line).expect("it is complete");
        assert_eq!(figure.ratio(), Some(1.75));
        assert!(Figure::from_json(&json!({ "id": "a" })).is_err());
    }

    #[test]
    fn all_benches_run_unless_some_are_picked() {
        let fixed = |text: &str| {
            let args = text.split_whitespace().map(String::from).collect();
            Options::parse(args).expect("it parses").fixed().join(" ")
        };
        assert_eq!(fixed("--json a -- baseline"), "--all-features --bench=* --workspace");
        assert_eq!(fixed("-p tidings-core --bench codecs"), "--all-features");
        assert_eq!(fixed("--peers"), "--manifest-path=benches/peers/Cargo.toml --bench=*");
    }

    #[test]
    fn parameters_are_sorted_as_numbers() {
        assert!(natural("a/b/9") < natural("a/b/10"));
    }

    #[test]
    fn results_of_earlier_runs_are_left_out() {
        let directory = target_directory().join("xtask-bench-test");
        let new = directory.join("group/raw/new");
        fs::create_dir_all(&new).expect("the target directory can be written");
        fs::write(new.join("benchmark.json"), r#"{"group_id":"group","function_id":"raw"}"#).expect("as above");
        fs::write(new.join("estimates.json"), r#"{"median":{"point_estimate":5}}"#).expect("as above");
        let written = fs::metadata(new.join("estimates.json")).and_then(|file| file.modified()).expect("just written");
        assert_eq!(measured(&directory, written).expect("it is read").len(), 1);
        let later = written + std::time::Duration::from_secs(1);
        assert_eq!(measured(&directory, later).expect("it is read"), []);
    }
}

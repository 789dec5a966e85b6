//! From samples to a table for people and a flat map for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use lockgate_tests::root;
use serde_json::{Value, json};

use super::Plan;
use super::gate::Figures;
use super::measure::Sample;

const OTHERS: &[&str] = &["direct", "haproxy", "pgbouncer"];
const BEGIN: &str = "<!-- begin: cargo xtask bench --docs -->";
const BEGIN_GATE: &str = "<!-- begin: cargo xtask bench --docs --only gate -->";
const END: &str = "<!-- end -->";

/// All samples of a run.
#[derive(Debug)]
pub struct Report {
    /// The machine.
    about: String,
    /// What is measured of each case.
    extent: String,
    /// The server's version.
    server: Option<String>,
    gate: Option<Figures>,
    /// case → contender → one sample per round.
    samples: BTreeMap<String, BTreeMap<&'static str, Vec<Sample>>>,
    /// The order in which cases came.
    cases: Vec<String>,
    idle_kib: BTreeMap<&'static str, f64>,
    /// Rows in bulk as they are, and masked.
    bulk: Vec<(Sample, Sample)>,
    /// Metrics of statements, by their names.
    reading: BTreeMap<String, f64>,
}

impl Report {
    pub fn new(plan: &Plan) -> Result<Self> {
        let cores = std::thread::available_parallelism()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let (rounds, duration) = (plan.rounds, plan.duration.as_secs());
        Ok(Self {
            about: format!("Linux {}, {cores} processors", kernel.trim()),
            extent: format!("{rounds} rounds of {duration} s, medians"),
            server: None,
            gate: None,
            samples: BTreeMap::new(),
            cases: Vec::new(),
            idle_kib: BTreeMap::new(),
            bulk: Vec::new(),
            reading: BTreeMap::new(),
        })
    }

    pub fn server(&mut self, version: String) {
        self.server = Some(version);
    }

    pub fn gate(&mut self, figures: Figures) {
        self.gate = Some(figures);
    }

    pub fn add(&mut self, case: &str, contender: &'static str, sample: Sample) {
        if !self.samples.contains_key(case) {
            self.cases.push(case.to_owned());
        }
        let of_case = self.samples.entry(case.to_owned()).or_default();
        of_case.entry(contender).or_default().push(sample);
    }

    pub fn idle(&mut self, contender: &'static str, kib: f64) {
        eprintln!("[bench] idle connection, {contender}: {kib:.1} KiB");
        self.idle_kib.insert(contender, kib);
    }

    /// One round of rows in bulk.
    pub fn bulk(&mut self, open: Sample, masked: Sample) {
        self.bulk.push((open, masked));
    }

    fn bulk_ratio(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let ratios = self.bulk.iter().map(|(open, masked)| of(masked) / of(open));
        median(ratios.collect())
    }

    pub fn reading(&mut self, metrics: BTreeMap<String, f64>) {
        self.reading = metrics;
    }

    /// `metrics`: from a dotted name to a number.
    pub fn json(&self) -> Value {
        let mut metrics = BTreeMap::new();
        for case in &self.cases {
            for contender in self.samples[case].keys() {
                let unit = match case.as_str() {
                    "copy_out" => "bytes_per_s",
                    "connect" => "connections_per_s",
                    _ => "tps",
                };
                let at = format!("pg.{case}.{contender}");
                metrics.insert(
                    format!("{at}.{unit}"),
                    self.median(case, contender, |s| s.rate),
                );
                metrics.insert(
                    format!("{at}.cpu_us"),
                    self.median(case, contender, |s| s.cpu_us),
                );
                let latency = self.median(case, contender, |s| s.latency_us.unwrap_or(f64::NAN));
                if latency.is_finite() {
                    metrics.insert(format!("{at}.latency_us"), latency);
                }
            }
            for other in OTHERS {
                let ratio = self.ratio(case, other, |s| s.rate);
                metrics.insert(format!("pg.{case}.throughput_vs_{other}"), ratio);
                let ratio = self.ratio(case, other, |s| s.latency_us.unwrap_or(f64::NAN));
                if ratio.is_finite() {
                    metrics.insert(format!("pg.{case}.latency_vs_{other}"), ratio);
                }
                if *other != "direct" {
                    let ratio = self.ratio(case, other, |s| s.cpu_us);
                    metrics.insert(format!("pg.{case}.cpu_vs_{other}"), ratio);
                }
            }
        }
        for (contender, kib) in &self.idle_kib {
            let name = match *contender {
                "lockgate" => "pg.idle_kib".to_owned(),
                other => format!("pg.idle_kib_{other}"),
            };
            metrics.insert(name, *kib);
        }
        let bulk = [
            ("pg.bulk_masked_vs_unmasked", self.bulk_ratio(|s| s.rate)),
            (
                "pg.bulk_masked_cpu_vs_unmasked",
                self.bulk_ratio(|s| s.cpu_us),
            ),
        ];
        metrics.extend(bulk.map(|(name, ratio)| (name.to_owned(), ratio)));
        metrics.extend(self.reading.clone());
        metrics.extend(self.gate.iter().flat_map(Figures::metrics));
        // JSON has no infinity: a ratio to nothing is left out.
        metrics.retain(|_, value| value.is_finite());
        json!({ "about": self.about(), "metrics": metrics })
    }

    fn about(&self) -> String {
        match &self.server {
            Some(version) => format!("PostgreSQL {version}, {}; {}", self.about, self.extent),
            None => self.about.clone(),
        }
    }

    /// What there is, for people.
    pub fn text(&self) -> String {
        let gate = self.gate_table().unwrap_or_default();
        match self.server {
            Some(_) => format!("{gate}\n{}", self.table()),
            None => gate,
        }
    }

    /// Puts the tables where docs/benchmarks.md has their places.
    pub fn write_docs(&self) -> Result<()> {
        if let Some(table) = self.gate_table() {
            replace(BEGIN_GATE, &table)?;
        }
        if self.server.is_some() {
            replace(BEGIN, &self.table())?;
        }
        Ok(())
    }

    fn gate_table(&self) -> Option<String> {
        let figures = self.gate.as_ref()?;
        Some(format!("{}.\n\n{}", self.about, figures.table()))
    }

    /// Markdown.
    fn table(&self) -> String {
        let mut text = format!(
            "{}.\n\n\
             | | direct | HAProxy TCP | PgBouncer session | lockgate | of HAProxy's rate | of HAProxy's CPU |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            self.about()
        );
        for case in &self.cases {
            let cells: Vec<String> = ["direct", "haproxy", "pgbouncer", "lockgate"]
                .map(|c| self.cell(case, c))
                .into();
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.2} |",
                title(case),
                cells.join(" | "),
                self.ratio(case, "haproxy", |s| s.rate),
                self.ratio(case, "haproxy", |s| s.cpu_us)
            );
        }
        let idle = |name| {
            self.idle_kib
                .get(name)
                .map_or("–".into(), |kib| format!("{kib:.1}"))
        };
        let _ = writeln!(
            text,
            "| KiB per idle connection | – | {} | {} | {} | – | – |",
            idle("haproxy"),
            idle("pgbouncer"),
            idle("lockgate")
        );
        let (rate, cpu) = (self.bulk_ratio(|s| s.rate), self.bulk_ratio(|s| s.cpu_us));
        if rate.is_finite() {
            let _ = writeln!(
                text,
                "\nTwo of ten text columns masked, 2,000 rows a query, 2 clients: {rate:.2} of the rate and {cpu:.2} of\nthe processor time of the same rows unmasked through lockgate."
            );
        }
        text
    }

    fn cell(&self, case: &str, contender: &str) -> String {
        let rate = self.median(case, contender, |s| s.rate);
        let cpu = self.median(case, contender, |s| s.cpu_us);
        let latency = self.median(case, contender, |s| s.latency_us.unwrap_or(f64::NAN));
        let (rate, cpu) = match case {
            "copy_out" => (
                format!("{:.0} MB/s", rate / 1e6),
                format!("{:.2} s/GB", cpu * 1e3),
            ),
            _ if rate < 10_000.0 => (format!("{rate:.0}/s"), format!("{cpu:.1} µs")),
            _ => (format!("{:.1} k/s", rate / 1e3), format!("{cpu:.1} µs")),
        };
        let mut cell = rate;
        if case.ends_with(".c1") {
            let _ = write!(cell, ", {latency:.0} µs");
        }
        if contender != "direct" {
            let _ = write!(cell, " / {cpu}");
        }
        cell
    }

    fn of(&self, case: &str, contender: &str) -> &[Sample] {
        self.samples
            .get(case)
            .and_then(|c| c.get(contender))
            .map_or(&[], Vec::as_slice)
    }

    fn median(&self, case: &str, contender: &str, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.of(case, contender).iter().map(of).collect())
    }

    /// lockgate's in relation to another's, round by round.
    fn ratio(&self, case: &str, other: &str, of: impl Fn(&Sample) -> f64) -> f64 {
        let pairs = self.of(case, "lockgate").iter().zip(self.of(case, other));
        median(pairs.map(|(ours, theirs)| of(ours) / of(theirs)).collect())
    }
}

fn title(case: &str) -> String {
    match case {
        "connect" => "connect and ask once, 8 clients".into(),
        "copy_out" => "COPY out, 97 MB".into(),
        _ => match case.split_once(".c") {
            Some((mode, "1")) => format!("{mode}, 1 client"),
            Some((mode, clients)) => format!("{mode}, {clients} clients"),
            None => case.into(),
        },
    }
}

/// The middle one; no number for none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

fn replace(begin: &str, table: &str) -> Result<()> {
    let path = root().join("docs/benchmarks.md");
    let text = fs::read_to_string(&path)?;
    let (head, rest) = text
        .split_once(begin)
        .context("docs/benchmarks.md has no place for it")?;
    let (_, tail) = rest
        .split_once(END)
        .context("docs/benchmarks.md has no end for it")?;
    fs::write(path, format!("{head}{begin}\n{table}{END}{tail}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}

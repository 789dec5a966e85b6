use std::fmt;
use std::time::Duration;

/// What was measured of the redirect.
#[derive(Debug, Default)]
pub struct Figures {
    /// socket(2) and connect(2), to what is not protected.
    pub unprotected: Compared,
    /// The same, to what is.
    pub connected: Compared,
    /// From then to the server's first byte.
    pub answered: Compared,
    /// Connections that were all open at once.
    pub live: usize,
    /// What each of them took of memory.
    pub memory_kib: f64,
    /// Connections that were made, served and ended in a second.
    pub per_second: f64,
    /// Processor time of the three for each of these.
    pub cpu_us: f64,
    /// Of all that were tried.
    pub failed: u64,
}

impl Figures {
    /// By their names.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        [
            ("connect_added_us_p50", self.answered.added_us(0.5)),
            ("connect_added_us_p99", self.answered.added_us(0.99)),
            ("connect_call_added_us_p50", self.connected.added_us(0.5)),
            (
                "unprotected_added_us",
                self.unprotected.added_us_in_rounds(),
            ),
            ("live_connections", self.live as f64),
            ("memory_per_connection_kib", self.memory_kib),
            ("connects_per_s", self.per_second),
            ("connect_cpu_us", self.cpu_us),
            ("connects_failed", self.failed as f64),
        ]
        .map(|(name, value)| (format!("gate.{name}"), value))
        .into()
    }

    /// Markdown.
    pub fn table(&self) -> String {
        let row = |what: &str, of: &Compared, at: f64, added: f64| {
            let (without, with) = of.us(at);
            format!("| {what} | {without:.1} µs | {with:.1} µs | {added:.1} µs |\n")
        };
        let plain = |what: &str, of: &Compared, at: f64| row(what, of, at, of.added_us(at));
        format!(
            "| | direct | lockgate | added |\n| --- | --- | --- | --- |\n{}{}{}{}\
             | connections open at once | – | {} | – |\n\
             | memory for each | – | {:.1} KiB | – |\n\
             | connections made, served and ended | – | {:.0}/s, {:.0} µs of CPU each | – |\n\
             | connections that failed | – | {} | – |\n",
            row(
                "connect(2), not protected, median",
                &self.unprotected,
                0.5,
                self.unprotected.added_us_in_rounds()
            ),
            plain("connect(2), protected, median", &self.connected, 0.5),
            plain("to the server's first byte, median", &self.answered, 0.5),
            plain("to the server's first byte, p99", &self.answered, 0.99),
            self.live,
            self.memory_kib,
            self.per_second,
            self.cpu_us,
            self.failed
        )
    }
}

/// Times without lockgate's programs and with them, taken in turns.
#[derive(Debug, Default)]
pub struct Compared {
    without: Vec<Duration>,
    with: Vec<Duration>,
    /// The difference of the medians, in each round.
    added: Vec<f64>,
}

impl Compared {
    /// One round.
    pub fn add(&mut self, without: &[Duration], with: &[Duration]) {
        self.without.extend(without);
        self.with.extend(with);
        self.added
            .push(quantile_us(with, 0.5) - quantile_us(without, 0.5));
    }

    fn us(&self, at: f64) -> (f64, f64) {
        (quantile_us(&self.without, at), quantile_us(&self.with, at))
    }

    fn added_us(&self, at: f64) -> f64 {
        let (without, with) = self.us(at);
        with - without
    }

    /// The median over rounds, for differences that are smaller than what the
    /// machine's own pace changes from one round to the next.
    fn added_us_in_rounds(&self) -> f64 {
        crate::bench::report::median(self.added.clone())
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((without, with), (without99, with99)) = (self.us(0.5), self.us(0.99));
        let added = self.added_us_in_rounds();
        write!(
            f,
            "{without:.2} µs without, {with:.2} with; p99 {without99:.1} and {with99:.1}; \
             {added:.2} more in the median round"
        )
    }
}

fn quantile_us(times: &[Duration], at: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len() as f64 * at) as usize;
    let time = sorted.get(index.min(sorted.len().saturating_sub(1)));
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let names = Figures::default().metrics().into_iter().map(|it| it.0);
        let names: std::collections::BTreeSet<String> = names.collect();
        assert_eq!(names.len(), 9);
        assert!(names.iter().all(|name| name.starts_with("gate.")));
    }

    #[test]
    fn quantiles() {
        let times: Vec<_> = (0..100).rev().map(Duration::from_micros).collect();
        assert_eq!(quantile_us(&times, 0.5).round(), 50.0);
        assert_eq!(quantile_us(&times, 0.99).round(), 99.0);
        assert!(quantile_us(&[], 0.5).is_nan());
    }

    #[test]
    fn a_difference_is_that_of_the_median_round() {
        let mut compared = Compared::default();
        for (without, with) in [(10, 11), (30, 33), (20, 22)] {
            let us = Duration::from_micros;
            compared.add(&[us(without)], &[us(with)]);
        }
        assert_eq!(compared.added_us_in_rounds().round(), 2.0);
    }
}

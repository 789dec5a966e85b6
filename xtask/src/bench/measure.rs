//! One measurement.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::contender::{Contender, Stand};

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Queries, connections or bytes per second.
    pub rate: f64,
    /// How long a client waited, on average; none where that is no question.
    pub latency_us: Option<f64>,
    /// Processor time of the proxy for one query, connection or byte.
    pub cpu_us: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, CPU {:.3} µs each", self.rate, self.cpu_us)
    }
}

/// pgbench, select-only, for `duration`; with `connect`, each query has a
/// connection of its own.
pub fn pgbench(
    _stand: &Stand,
    contender: &Contender,
    mode: &str,
    clients: u32,
    duration: Duration,
    connect: bool,
) -> Result<Sample> {
    let mut arguments = vec!["-S", "-M", mode];
    if connect {
        arguments.push("-C");
    }
    timed(contender, &arguments, clients, duration)
}

/// Two thousand rows of ten texts at a time, from `table`.
pub fn bulk(contender: &Contender, table: &str, duration: Duration) -> Result<Sample> {
    let mut script = tempfile::NamedTempFile::new()?;
    writeln!(script, "select * from {table} where id <= 2000;")?;
    let path = script.path().display().to_string();
    timed(contender, &["-f", &path], 2, duration)
}

fn timed(
    contender: &Contender,
    arguments: &[&str],
    clients: u32,
    duration: Duration,
) -> Result<Sample> {
    let mut command = contender.client("pgbench");
    command
        .args(["-n", "-c", &clients.to_string()])
        .args(arguments)
        .args([
            "-j",
            &clients.min(2).to_string(),
            "-T",
            &duration.as_secs().to_string(),
        ])
        .args([
            "-h",
            &contender.host,
            "-p",
            &contender.port.to_string(),
            "-U",
            "app_rw",
            "shop",
        ]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // pgbench logs in first, which is not what is measured: processor time is
    // taken from the last part of its run.
    let mut seen = Vec::new();
    while child.try_wait()?.is_none() {
        seen.push((Instant::now(), cpu(&contender.pids)?));
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "pgbench failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let rate = number(&text, "tps = ")?;
    let latency = number(&text, "latency average = ")?;
    let (end, used_at_end) = *seen.last().context("pgbench ended at once")?;
    let from = end - duration.mul_f64(0.8);
    let (begin, used_at_begin) = *seen
        .iter()
        .find(|(at, _)| *at >= from)
        .context("pgbench ended too early")?;
    let queries = rate * (end - begin).as_secs_f64();
    // What was put off until there was time for it is this run's, too.
    let later = quiet(&contender.pids)?.saturating_sub(used_at_end);
    let used = used_at_end - used_at_begin + later.mul_f64(0.8);
    let cpu_us = used.as_secs_f64() * 1e6 / queries;
    Ok(Sample {
        rate,
        latency_us: Some(latency * 1e3),
        cpu_us,
    })
}

/// A table of a million rows to a client that drops them.
pub fn copy_out(stand: &Stand, contender: &Contender) -> Result<Sample> {
    let mut command = contender.client("psql");
    command
        .args([
            "-Xq",
            "-h",
            &contender.host,
            "-p",
            &contender.port.to_string(),
            "-U",
            "app_rw",
        ])
        .args(["-d", "shop", "-c", "copy pgbench_accounts to stdout"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let used = cpu(&contender.pids)?;
    let begun = Instant::now();
    let status = command.status()?;
    let took = begun.elapsed();
    if !status.success() {
        bail!("psql failed");
    }
    let bytes = stand.copied_bytes() as f64;
    let used = cpu(&contender.pids)? - used;
    Ok(Sample {
        rate: bytes / took.as_secs_f64(),
        latency_us: None,
        cpu_us: used.as_secs_f64() * 1e6 / bytes,
    })
}

const HOLD: &str = "
import psycopg, sys
host, port, count = sys.argv[1:]
held = []
for _ in range(int(count)):
    c = psycopg.connect(host=host, port=port, dbname='shop', user='app_rw', autocommit=True)
    c.execute('select 1').fetchone()
    held.append(c)
print('held', flush=True)
sys.stdin.read()
";

/// Memory of the proxy for each idle connection that has seen one query, in KiB.
pub fn idle(_stand: &Stand, contender: &Contender, count: u32) -> Result<f64> {
    // One connection first: what the first one brings is not per connection.
    hold(contender, 1, || Ok(()))?;
    let before = resident_kib(&contender.pids)?;
    let mut after = 0;
    hold(contender, count, || {
        after = resident_kib(&contender.pids)?;
        Ok(())
    })?;
    Ok(after.saturating_sub(before) as f64 / f64::from(count))
}

fn hold(contender: &Contender, count: u32, during: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut child = contender
        .client(lockgate_tests::python())
        .args([
            "-c",
            HOLD,
            &contender.host,
            &contender.port.to_string(),
            &count.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe was asked for")?).read_line(&mut line)?;
    let result = if line.trim() == "held" {
        during()
    } else {
        bail!("no connections")
    };
    drop(child.stdin.take());
    child.wait()?;
    result
}

/// The number after `label` in what pgbench printed.
fn number(text: &str, label: &str) -> Result<f64> {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(label)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("no `{label}` in: {text}"))
}

/// Processor time of `pids` once they do nothing any more.
pub fn quiet(pids: &[u32]) -> Result<Duration> {
    let mut used = cpu(pids)?;
    for _ in 0..300 {
        std::thread::sleep(Duration::from_millis(150));
        let now = cpu(pids)?;
        if now.saturating_sub(used) <= Duration::from_millis(10) {
            return Ok(now);
        }
        used = now;
    }
    bail!("a proxy is still busy 45 s after its last query")
}

/// Processor time of `pids`, all their threads.
pub fn cpu(pids: &[u32]) -> Result<Duration> {
    // The unit of /proc is USER_HZ, which is 100 on all Linux that there is.
    const TICK: Duration = Duration::from_millis(10);
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} has gone"))?;
        // The name in parentheses may have blanks in it.
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let both = fields.get(11..13).context("/proc/PID/stat")?;
        ticks += both[0].parse::<u32>()? + both[1].parse::<u32>()?;
    }
    Ok(TICK * ticks)
}

fn resident_kib(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        sum += status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse::<u64>()
                    .ok()
            })
            .context("no VmRSS")?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn pgbench_is_read() {
        let text = "latency average = 0.061 ms\ninitial connection time = 5.1 ms\n\
                    tps = 16343.871 (without initial connection time)\n";
        assert_eq!(number(text, "tps = ").unwrap(), 16343.871);
        assert_eq!(number(text, "latency average = ").unwrap(), 0.061);
        assert!(number("pgbench: error", "tps = ").is_err());
    }
}

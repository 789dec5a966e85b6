//! One boot of a guest, from its start to its end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::suites::Sum;

/// How long a kernel may take to its first process: seconds, even where every
/// instruction is emulated on a busy machine.
const BOOT: Duration = Duration::from_secs(90);
const CONSOLE: &str = "console.log";

/// What a guest is started with.
pub struct Guest<'a> {
    /// The program, and what it is always given.
    pub qemu: &'a [String],
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    /// For its console's log.
    pub folder: &'a Path,
    /// Words for the kernel's command line.
    pub settings: &'a str,
    /// How long its tests may take.
    pub limit: Duration,
}

impl Guest<'_> {
    /// Passes on what the tests print; the kernel's version and their sum.
    pub fn run(&self) -> Result<(String, Sum)> {
        let mut machine = self.start()?;
        let lines = lines(machine.0.stdout.take().context("a pipe was asked for")?);
        let told = follow(&lines, BOOT, self.limit);
        // On every way out, so that none is left over.
        drop(machine);
        told.map_err(|why| anyhow!("{why:#}; its console's last lines:\n{}", self.console()))
    }

    fn start(&self) -> Result<Machine> {
        let console = self.folder.join(CONSOLE);
        fs::write(&console, "")?;
        let mut command = Command::new(&self.qemu[0]);
        command.args(&self.qemu[1..]);
        if has_kvm() {
            command.args(["-accel", "kvm", "-cpu", "host"]);
        } else {
            command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        }
        command
            .args(["-smp", "2", "-m", "2048"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none"])
            // The kernel's messages, and the tests' by themselves.
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initrd)
            .args([
                "-append",
                &format!("console=ttyS0 panic=-1 {}", self.settings),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn().context("qemu cannot be started")?;
        Ok(Machine(child))
    }

    fn console(&self) -> String {
        let text = fs::read(self.folder.join(CONSOLE)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// A running qemu, ended when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// /dev/kvm is also there where the processor has nothing for it.
fn has_kvm() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = processor
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    able && fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

/// What a serial line says, line by line.
fn lines(from: ChildStdout) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line);
            if send.send(line.trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Reads until the guest has said how its tests ended.
fn follow(lines: &Receiver<String>, boot: Duration, limit: Duration) -> Result<(String, Sum)> {
    let mut version: Option<String> = None;
    let mut sum = Sum::default();
    let mut until = Instant::now() + boot;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let line = match lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) if version.is_none() => {
                bail!("it did not come up within {boot:?}")
            }
            Err(RecvTimeoutError::Timeout) => bail!("its tests took more than {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended before its tests did"),
        };
        let Some(up) = &version else {
            if let Some(up) = line.strip_prefix("guest up ") {
                version = Some(up.to_owned());
                // It ends them itself at the limit, and says so.
                until = Instant::now() + limit + Duration::from_secs(10);
            }
            continue;
        };
        if let Some(code) = line.strip_prefix("guest exit ") {
            // Tests that died have no result line.
            if code != "0" && sum.failed == 0 {
                sum.failed = 1;
            }
            return Ok((up.clone(), sum));
        }
        println!("{up}: {line}");
        sum.add(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &[&str]) -> Result<(String, Sum)> {
        let (send, lines) = channel();
        for line in said {
            send.send((*line).to_owned()).unwrap();
        }
        drop(send);
        follow(&lines, Duration::from_secs(5), Duration::from_secs(5))
    }

    #[test]
    fn only_tests_that_ran_and_passed_count() {
        let result = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let good = told(&["guest up 6.1.0", result, "guest exit 0"]).unwrap();
        assert_eq!(
            (good.0.as_str(), good.1.passed, good.1.failed),
            ("6.1.0", 3, 0)
        );
        assert!(good.1.verdict().is_ok());
        for bad in [
            &["guest up 6.1.0", result, "guest exit 101"][..],
            &["guest up 6.1.0", "guest exit 127"],
            &["guest up 6.1.0", "guest exit 0"],
        ] {
            assert!(told(bad).unwrap().1.verdict().is_err(), "{bad:?}");
        }
        assert!(told(&["guest up 6.1.0", result]).is_err(), "it died");
        assert!(told(&[]).is_err(), "it did not come up");
        let (_open, silent) = channel();
        let soon = Duration::from_millis(10);
        assert!(follow(&silent, soon, soon).is_err(), "it says nothing");
    }
}

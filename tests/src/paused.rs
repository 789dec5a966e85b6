use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result};

use crate::{Workload, python};

/// A Python program that waits for its test in the middle, by
/// `sys.stdin.readline()`. It is ended with the test.
#[derive(Debug)]
pub struct Paused {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Paused {
    /// Starts `program`, which has `psycopg`, `sys` and `dsn`, in a workload.
    pub fn start(workload: &Workload, program: &str, dsn: &str) -> Result<Self> {
        let program = format!("import psycopg, sys\ndsn = sys.argv[1]\n{program}");
        let mut child = workload
            .command(python())
            .args(["-uc", &program, dsn])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("a pipe was asked for")?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        Ok(Self {
            child,
            input,
            lines: BufReader::new(output).lines(),
        })
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the program has ended")??)
    }

    /// Lets it go on.
    pub fn go_on(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"\n")?)
    }

    /// All further lines, once it has ended.
    pub fn rest(mut self) -> Result<Vec<String>> {
        let rest = self.lines.by_ref().collect::<Result<_, _>>()?;
        self.child.wait()?;
        Ok(rest)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // One that has ended has nothing to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

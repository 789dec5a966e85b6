//! What reading new statements costs, apart from any connection.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};
use lockgate_tests::{root, run as output};

use crate::step;

/// Names and numbers, as the example `reading_cost` of the crate gives them.
pub fn cost() -> Result<BTreeMap<String, f64>> {
    let mut build = Command::new("cargo");
    build.args([
        "build",
        "--release",
        "--workspace",
        "--example",
        "reading_cost",
    ]);
    step::quiet(build.current_dir(root()))?;
    let program = root().join("target/release/examples/reading_cost");
    let said = output(Command::new(&program).arg("--json"))?;
    serde_json::from_str(&said.stdout).with_context(|| program.display().to_string())
}

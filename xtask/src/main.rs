//! `cargo xtask`: everything a contributor runs. Each task makes sure of what
//! it needs, so that two commands on a fresh machine are enough:
//! `cargo xtask demo` and `cargo xtask test`.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod demo;
mod dist;
mod ebpf;
mod fuzz;
mod setup;
mod step;
mod suites;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lockgate_tests::root;

use crate::suites::Suite;

/// Everything a contributor runs. As root: eBPF and namespaces need it.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing to build and test all of it
    Setup,
    /// Build the kernel side
    Ebpf,
    /// Build everything in the release profile
    Build,
    /// Show the main job with a real PostgreSQL, psql and psycopg
    Demo {
        /// Leave it running for a psql of one's own, until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
    /// Run the tests
    Test {
        /// Which of them
        #[arg(default_value = "all")]
        suite: Suite,
    },
    /// Compare with a direct connection, HAProxy and PgBouncer
    Bench {
        /// Write the numbers to this file, too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Shorter rounds, about two minutes in all
        #[arg(long)]
        quick: bool,
        /// Write the tables into docs/benchmarks.md
        #[arg(long)]
        docs: bool,
        /// Only cases whose name has this in it: prepared.c8, connect, idle …;
        /// gate: what the redirect costs
        #[arg(long, value_name = "PART")]
        only: Option<String>,
    },
    /// Feed random input to what reads hostile input
    Fuzz {
        /// How long, for each target
        #[arg(long, default_value_t = 1)]
        minutes: u32,
    },
    /// Kill its processes at random under load, and let many others live briefly
    Soak {
        /// How long
        #[arg(long, default_value_t = 10)]
        minutes: u32,
    },
    /// Other kernels than this machine's, in qemu
    Vm {
        #[command(subcommand)]
        task: VmTask,
    },
    /// Pack the binary and what belongs to it into target/dist
    Dist,
}

#[derive(Debug, Subcommand)]
enum VmTask {
    /// Run the kernel's tests on each of them
    Test(vm::Plan),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let downloads = setup::run()?;
    if let Task::Setup = task {
        return downloads.finish();
    }
    step::timed("the kernel side", || ebpf::build(&root()).map(drop))?;
    lockgate_tests::sweep();
    match task {
        Task::Setup | Task::Ebpf => downloads.finish(),
        Task::Build => {
            suites::build_all()?;
            downloads.finish()
        }
        Task::Demo { keep } => {
            dist::build_binary()?;
            downloads.finish()?;
            demo::run(keep)
        }
        Task::Test { suite } => suites::run(suite, downloads),
        Task::Bench {
            json,
            quick,
            docs,
            only,
        } => {
            dist::build_binary()?;
            downloads.finish()?;
            bench::run(&bench::Plan::new(quick, only), json.as_deref(), docs)
        }
        Task::Soak { minutes } => suites::soak(minutes, downloads),
        Task::Fuzz { minutes } => fuzz::run(minutes),
        Task::Vm {
            task: VmTask::Test(plan),
        } => vm::test(&plan),
        Task::Dist => dist::run(),
    }
}

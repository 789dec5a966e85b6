//! The `lockgate` binary: the command line, and the parent of the three
//! processes.
//!
//! ```text
//! cli         what can be typed
//! commands    what each command does
//! checked     configuration, workloads and policies, checked together
//! supervisor  `lockgate run`: starts, watches and configures the three
//! control     the socket that `status`, `reload` and `stop` talk to
//! role        `lockgate internal`: one of the three, in its sandbox
//! sandbox     what each role gives up
//! ```
#![deny(unsafe_code)]

mod checked;
mod cli;
mod commands;
mod control;
mod exit;
mod log;
mod role;
mod sandbox;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli.command) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("lockgate: {error:#}");
            exit::Exit::of(&error).into()
        }
    }
}

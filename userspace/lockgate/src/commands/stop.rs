use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;

use super::Whereabouts;
use crate::control::{Request, ask};
use crate::exit::{AgentAway, Exit};

/// Magic number of a bpf file system (statfs(2)).
const BPF_FS: i64 = 0xcafe_4a11;

/// Stops the agent, or releases what one left in the kernel.
pub(crate) fn stop(config: &Path, release: bool) -> anyhow::Result<Exit> {
    let at = Whereabouts::of(config)?;
    match ask(&at.agent.run_dir, &Request::Stop { release }) {
        Ok(_) => {}
        Err(error) if release && error.is::<AgentAway>() => return release_alone(&at, error),
        Err(error) => return Err(error),
    }
    println!(
        "{}",
        match release {
            true => "stopping; nothing is protected any more",
            false =>
                "stopping; protected destinations stay refused (`lockgate stop --release` lifts that)",
        }
    );
    Ok(Exit::Yes)
}

/// Without an agent: the pins alone hold the programs in the kernel.
fn release_alone(at: &Whereabouts, away: anyhow::Error) -> anyhow::Result<Exit> {
    let pins = &at.kernel.pins;
    if !pins.exists() {
        return Err(away.context(format!(
            "nothing is left in the kernel ({} is not there)",
            pins.display()
        )));
    }
    // One that starts or hangs holds this, and would not know.
    if let Ok(lock) = File::open(at.agent.run_dir.join("lock"))
        && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    {
        bail!("an agent runs but does not answer; end it first, then release");
    }
    let kind = rustix::fs::statfs(pins).with_context(|| pins.display().to_string())?;
    if kind.f_type as i64 & 0xffff_ffff != BPF_FS {
        bail!(
            "kernel.pins ({}) is not on a bpf file system",
            pins.display()
        );
    }
    std::fs::remove_dir_all(pins).with_context(|| pins.display().to_string())?;
    println!("no agent was running; released: nothing is protected any more");
    Ok(Exit::Yes)
}

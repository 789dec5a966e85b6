use std::io;
use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use lockgate_abi::Process;
use rustix::event::{PollFd, PollFlags, poll};

use crate::attest::Attestor;
use crate::kernel::{Kernel, read_exec};
use crate::sys;

/// Looks at each new image as soon as the kernel tells of it, from a thread of
/// its own, so that a process that ends before its connection is accepted was
/// seen. `seen` is told of its process before, and must be quick. Once per
/// kernel.
///
/// # Errors
/// When no thread can be made.
pub fn watch_execs(
    kernel: &mut Kernel,
    attestor: Arc<Attestor>,
    seen: impl Fn(u32) + Send + 'static,
) -> io::Result<()> {
    let still = kernel.processes();
    let Some(mut execs) = kernel.take_execs() else {
        return Ok(());
    };
    std::thread::Builder::new()
        .name("execs".into())
        .spawn(move || {
            sys::go_first();
            loop {
                wait(&execs);
                take_all(&mut execs, &attestor, &still, &seen);
            }
        })?;
    Ok(())
}

fn take_all(
    execs: &mut RingBuf<MapData>,
    attestor: &Attestor,
    still: &impl Fn(u32) -> Option<Process>,
    seen: &impl Fn(u32),
) {
    while let Some(item) = execs.next() {
        let exec = read_exec(&item);
        // Room for the next one before files are read.
        drop(item);
        if let Some(exec) = exec {
            seen(exec.tgid);
            attestor.executed(&exec, still);
        }
    }
}

fn wait(execs: &RingBuf<MapData>) {
    let second = rustix::time::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    // Whatever it says, the buffer is looked at next.
    let _ = poll(&mut [PollFd::new(execs, PollFlags::IN)], Some(&second));
}

//! The programs that run in the kernel. What they share with userspace is in
//! `lockgate_abi`; how they are built and what they need is in `ebpf/README.md`.
//!
//! ```text
//! connect  connect4/6, sendmsg4/6: redirect, or refuse
//! flow     sockops: the client's port is known, file the origin under it
//! peer     getpeername4/6: the client sees the address it asked for
//! bind     bind4/6, post_bind4/6: nobody takes the listener's port
//! packet   egress: nothing begins towards a protected destination past connect
//! socket   sock_create: no multipath, no raw TCP
//! process  fork, exec, exit: which execution of which process
//! ```
#![no_std]
#![no_main]

mod bind;
mod connect;
mod flow;
mod maps;
mod packet;
mod peer;
mod process;
mod refusal;
mod socket;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier admits no path that panics.
    loop {}
}

/// Some helpers are for programs of a compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

//! getpeername(2): the client sees the address it asked for.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use lockgate_abi::{INET, Origin};

use crate::connect::ALLOW;
use crate::maps::ORIGINS;

#[cgroup_sock_addr(getpeername4)]
pub fn lockgate_peer4(ctx: SockAddrContext) -> i32 {
    if let Some(origin) = origin(&ctx) {
        // SAFETY: stores to the context that the verifier has checked.
        unsafe {
            (*ctx.sock_addr).user_ip4 = word(&origin, 0);
            (*ctx.sock_addr).user_port = u32::from(origin.port.to_be());
        }
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn lockgate_peer6(ctx: SockAddrContext) -> i32 {
    if let Some(origin) = origin(&ctx) {
        let words = match origin.family {
            INET => [
                0,
                0,
                u32::from_ne_bytes([0, 0, 0xff, 0xff]),
                word(&origin, 0),
            ],
            _ => [
                word(&origin, 0),
                word(&origin, 4),
                word(&origin, 8),
                word(&origin, 12),
            ],
        };
        // SAFETY: stores to the context that the verifier has checked; one
        // word at a time, since only these widths are allowed.
        unsafe {
            let ip = &raw mut (*ctx.sock_addr).user_ip6;
            core::ptr::write_volatile((ip as *mut u32).add(0), words[0]);
            core::ptr::write_volatile((ip as *mut u32).add(1), words[1]);
            core::ptr::write_volatile((ip as *mut u32).add(2), words[2]);
            core::ptr::write_volatile((ip as *mut u32).add(3), words[3]);
            (*ctx.sock_addr).user_port = u32::from(origin.port.to_be());
        }
    }
    ALLOW
}

fn origin(ctx: &SockAddrContext) -> Option<Origin> {
    // SAFETY: the socket of the context is valid while the program runs; the
    // record is copied.
    unsafe { ORIGINS.get_ptr_mut(ctx).as_ref().copied() }
}

#[inline(always)]
fn word(origin: &Origin, at: usize) -> u32 {
    let a = &origin.address;
    u32::from_ne_bytes([a[at], a[at + 1], a[at + 2], a[at + 3]])
}

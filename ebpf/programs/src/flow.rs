//! sockops: the origin is filed under what the listener will see of the
//! client, before the SYN leaves.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use lockgate_abi::{Flow, INET, INET6, Origin};

use crate::bind::is_listeners;
use crate::connect::{MAPPED, write_word};
use crate::maps::{FLOWS, ORIGINS};

#[sock_ops]
pub fn lockgate_flow(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_TCP_CONNECT_CB {
        file(&ctx);
    }
    1
}

fn file(ctx: &SockOpsContext) {
    // SAFETY: loads from the context that the verifier has checked.
    let sk: *mut bpf_sock = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return;
    }
    // SAFETY: `sk` is not null; no value is made where there is none.
    let origin = unsafe {
        bpf_sk_storage_get(
            (&raw const ORIGINS).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            0,
        )
    }
    .cast::<Origin>();
    if origin.is_null() {
        return forget(ctx);
    }
    // SAFETY: not null, and a record of this type.
    let origin = unsafe { *origin };
    let flow = flow(
        ctx,
        origin.netns_cookie,
        origin.family,
        origin.socket_family,
    );
    // Overwrites what an earlier connection left under the same address. If it
    // fails, the listener finds nothing and resets.
    let _ = FLOWS.insert(flow, origin, 0);
}

/// Whoever comes to a listener by himself must not be taken for an earlier one
/// who had his address and was not accepted.
fn forget(ctx: &SockOpsContext) {
    // As the context has it: sixteen bits in network order, in the upper half.
    if !is_listeners(u32::from_be(ctx.remote_port()) as u16) {
        return;
    }
    let socket_family = ctx.family() as u16;
    let mut family = socket_family;
    if socket_family == INET6 {
        // SAFETY: a load from the context that the verifier has checked.
        let third = unsafe {
            let words = &raw const (*ctx.ops).remote_ip6;
            core::ptr::read_volatile((words as *const u32).add(2))
        };
        if third == MAPPED {
            family = INET;
        }
    }
    // SAFETY: the context is one the helper takes.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let _ = FLOWS.remove(flow(ctx, cookie, family, socket_family));
}

/// What the listener will see of the client.
#[inline(always)]
fn flow(ctx: &SockOpsContext, netns_cookie: u64, family: u16, socket_family: u16) -> Flow {
    let mut address = [0u8; 16];
    if family == INET {
        // A v4-mapped socket has its address in the last word of the IPv6 one.
        // SAFETY: loads from the context that the verifier has checked.
        let ip = match socket_family {
            INET6 => unsafe {
                let words = &raw const (*ctx.ops).local_ip6;
                core::ptr::read_volatile((words as *const u32).add(3))
            },
            _ => unsafe { (*ctx.ops).local_ip4 },
        };
        write_word(&mut address, 0, ip);
    } else {
        // SAFETY: as above; one word at a time, as the verifier wants it.
        let words = unsafe {
            let ip = &raw const (*ctx.ops).local_ip6;
            let load = |index: usize| core::ptr::read_volatile((ip as *const u32).add(index));
            [load(0), load(1), load(2), load(3)]
        };
        write_word(&mut address, 0, words[0]);
        write_word(&mut address, 4, words[1]);
        write_word(&mut address, 8, words[2]);
        write_word(&mut address, 12, words[3]);
    }
    Flow {
        netns_cookie,
        address,
        family,
        port: ctx.local_port() as u16,
        reserved: 0,
    }
}

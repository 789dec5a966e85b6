//! bind(2): nobody but the gate may have a listener's port. While lockgate is
//! down, somebody else there would receive what clients send.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use lockgate_abi::{INET, exempt, reason};

use crate::connect::{ALLOW, DENY, Destination, is_exempt};
use crate::maps::{EXEMPT, LISTENER_PORTS};
use crate::refusal::refuse;

#[cgroup_sock_addr(bind4)]
pub fn lockgate_bind4(ctx: SockAddrContext) -> i32 {
    bind(&ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn lockgate_bind6(ctx: SockAddrContext) -> i32 {
    bind(&ctx)
}

/// After a bind to port 0, which could come upon the port by luck.
#[cgroup_sock(post_bind4)]
pub fn lockgate_post_bind4(ctx: SockContext) -> i32 {
    bound(&ctx)
}

#[cgroup_sock(post_bind6)]
pub fn lockgate_post_bind6(ctx: SockContext) -> i32 {
    bound(&ctx)
}

fn bind(ctx: &SockAddrContext) -> i32 {
    // SAFETY: a load from the context that the verifier has checked.
    let port = u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16);
    if !is_listeners(port) || is_exempt(ctx) {
        return ALLOW;
    }
    refused(ctx, port)
}

fn bound(ctx: &SockContext) -> i32 {
    // SAFETY: a load from the context that the verifier has checked; in host
    // order, unlike in the address hooks.
    let port = unsafe { (*ctx.sock).src_port } as u16;
    if !is_listeners(port) {
        return ALLOW;
    }
    let sk: *mut bpf_sock = ctx.sock;
    // SAFETY: the socket of the context is valid; no value is made where there
    // is none.
    let found = unsafe {
        bpf_sk_storage_get(
            (&raw const EXEMPT).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            0,
        )
        .cast::<u8>()
        .as_ref()
    };
    if found == Some(&exempt::GATE) {
        return ALLOW;
    }
    refused(ctx, port)
}

pub fn is_listeners(port: u16) -> bool {
    // SAFETY: only whether there is an entry is looked at.
    unsafe { LISTENER_PORTS.get(u32::from(port)) }.is_some()
}

fn refused<C: EbpfContext>(ctx: &C, port: u16) -> i32 {
    refuse(
        ctx,
        reason::BIND,
        &Destination {
            family: INET,
            port,
            address: [0; 16],
        },
        0,
    );
    DENY
}

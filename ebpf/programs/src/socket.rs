//! socket(2): kinds of sockets that reach a TCP port but not the connect hook.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use lockgate_abi::{INET, INET6, MPTCP, reason};

use crate::connect::{ALLOW, DENY, Destination};
use crate::refusal::refuse;

const SOCK_RAW: u32 = 3;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_RAW: u32 = 255;

/// Multipath TCP connects by subflows whose cookies are not the socket's; raw
/// TCP needs no connect at all. Both are refused everywhere: who may open a raw
/// socket can reach anything.
#[cgroup_sock(sock_create)]
pub fn lockgate_socket(ctx: SockContext) -> i32 {
    // SAFETY: loads from the context that the verifier has checked.
    let (family, kind, protocol) =
        unsafe { ((*ctx.sock).family, (*ctx.sock).type_, (*ctx.sock).protocol) };
    if family != u32::from(INET) && family != u32::from(INET6) {
        return ALLOW;
    }
    let around = protocol == MPTCP
        || (kind == SOCK_RAW && (protocol == IPPROTO_TCP || protocol == IPPROTO_RAW));
    if !around {
        return ALLOW;
    }
    refuse(
        &ctx,
        reason::SOCKET,
        &Destination {
            family: family as u16,
            port: 0,
            address: [0; 16],
        },
        0,
    );
    DENY
}

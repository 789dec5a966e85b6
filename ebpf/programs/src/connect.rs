//! connect(2) and sendmsg(2): a protected destination is redirected to the
//! listener of the caller's own network namespace, or refused. Never let
//! through.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_ktime_get_ns, bpf_sk_storage_delete,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use lockgate_abi::{INET, INET6, Key4, Key6, Origin, Process, VERSION, exempt, reason};

use crate::maps::{EXEMPT, LEASE, LISTENERS, ORIGINS, PROCESSES, PROTECTED4, PROTECTED6};
use crate::refusal::refuse;

pub const ALLOW: i32 = 1;
pub const DENY: i32 = 0;

pub const IPPROTO_TCP: u32 = 6;
const ANY_PORT: [u8; 2] = [0, 0];

/// Where somebody wants to go.
#[derive(Clone, Copy)]
pub struct Destination {
    pub family: u16,
    pub port: u16,
    pub address: [u8; 16],
}

#[cgroup_sock_addr(connect4)]
pub fn lockgate_connect4(ctx: SockAddrContext) -> i32 {
    let to = destination4(&ctx, bound4(&ctx));
    if !is_protected(&to) || is_exempt(&ctx) {
        forget(&ctx);
        return ALLOW;
    }
    let ports = redirect(&ctx, &to, INET);
    if ports == REFUSED {
        return DENY;
    }
    set_port(&ctx, ports as u16);
    // SAFETY: the verifier has checked that the context allows this store.
    unsafe { (*ctx.sock_addr).user_ip4 = LOOPBACK4 };
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn lockgate_connect6(ctx: SockAddrContext) -> i32 {
    let to = destination6(&ctx, bound4(&ctx), is_bound_to_mapped(&ctx));
    if !is_protected(&to) || is_exempt(&ctx) {
        forget(&ctx);
        return ALLOW;
    }
    let ports = redirect(&ctx, &to, INET6);
    if ports == REFUSED {
        return DENY;
    }
    let port6 = (ports >> 16) as u16;
    if to.family == INET {
        set_port(&ctx, ports as u16);
        set_ip6(&ctx, [0, 0, MAPPED, LOOPBACK4]);
    } else {
        if port6 == 0 {
            refuse(&ctx, reason::NAMESPACE, &to, netns_cookie(&ctx));
            return DENY;
        }
        set_port(&ctx, port6);
        set_ip6(&ctx, LOOPBACK6);
    }
    ALLOW
}

#[cgroup_sock_addr(sendmsg4)]
pub fn lockgate_sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: a load from the context that the verifier has checked.
    let source = unsafe { (*ctx.sock_addr).msg_src_ip4 };
    let source = if source == 0 { bound4(&ctx) } else { source };
    datagram(&ctx, &destination4(&ctx, source))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn lockgate_sendmsg6(ctx: SockAddrContext) -> i32 {
    datagram(
        &ctx,
        &destination6(&ctx, bound4(&ctx), is_bound_to_mapped(&ctx)),
    )
}

/// 127.0.0.1, ::1, and the word before a v4-mapped address, in network order.
pub const LOOPBACK4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
pub const LOOPBACK6: [u32; 4] = [0, 0, 0, 1u32.to_be()];
pub const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// There is nothing a datagram to a protected port could be but a way around.
fn datagram(ctx: &SockAddrContext, to: &Destination) -> i32 {
    if !is_protected(to) {
        return ALLOW;
    }
    refuse(ctx, reason::NOT_TCP, to, netns_cookie(ctx));
    DENY
}

/// What [`redirect`] returns when it has refused, and said so.
const REFUSED: u32 = 0;

/// Keeps the origin and says where the caller's namespace has its listener:
/// the port for IPv4 in the low half, that for IPv6 in the high one. One plain
/// word: of an Option the compiler leaves parts unset that the verifier then
/// finds.
fn redirect(ctx: &SockAddrContext, to: &Destination, socket_family: u16) -> u32 {
    let cookie = netns_cookie(ctx);
    // SAFETY: a load from the context that the verifier has checked.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    if protocol != IPPROTO_TCP {
        refuse(ctx, reason::NOT_TCP, to, cookie);
        return REFUSED;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    match LEASE.get(0) {
        Some(until) if *until > now => {}
        _ => {
            refuse(ctx, reason::DOWN, to, cookie);
            return REFUSED;
        }
    }
    // SAFETY: entries are only ever replaced as a whole, by the gate.
    let Some(listener) = (unsafe { LISTENERS.get(cookie) }) else {
        refuse(ctx, reason::NAMESPACE, to, cookie);
        return REFUSED;
    };
    let (port4, port6) = (listener.port4, listener.port6);
    let mut origin = origin(ctx, to, socket_family, cookie, now);
    // SAFETY: the socket of the context is valid while the program runs.
    let stored = unsafe { ORIGINS.get_or_insert_ptr_mut(ctx, Some(&mut origin)) };
    if stored.is_null() {
        refuse(ctx, reason::STORAGE, to, cookie);
        return REFUSED;
    }
    // A socket that connected before keeps its record, so write it anew.
    // SAFETY: not null, and a record of this type.
    unsafe { *stored = origin };
    debug!(
        ctx,
        "tgid {} redirected, port {}, namespace {}", origin.tgid, to.port, cookie
    );
    u32::from(port6) << 16 | u32::from(port4)
}

fn origin(
    ctx: &SockAddrContext,
    to: &Destination,
    socket_family: u16,
    netns_cookie: u64,
    connected_ns: u64,
) -> Origin {
    let tgid = ctx.tgid();
    // SAFETY: a copy of a small record; a torn one would name another exec and
    // so attest nothing.
    let process = match unsafe { PROCESSES.get(tgid) } {
        Some(process) => *process,
        None => Process {
            start_ns: 0,
            exec_ns: 0,
            exec_tgid: 0,
            reserved: 0,
        },
    };
    Origin {
        version: VERSION,
        reserved: 0,
        family: to.family,
        socket_family,
        port: to.port,
        address: to.address,
        tgid,
        tid: ctx.pid(),
        uid: ctx.uid(),
        gid: ctx.gid(),
        // SAFETY: the helper has no preconditions.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        netns_cookie,
        connected_ns,
        start_ns: process.start_ns,
        exec_ns: process.exec_ns,
        exec_tgid: process.exec_tgid,
        reserved_end: 0,
        comm: ctx.command().unwrap_or([0; 16]),
    }
}

/// Where an IPv4 address leads. The kernel takes the unspecified one for that
/// of the socket, of its device or for loopback, only after this hook; so it is
/// replaced here, and what is looked up is what is connected to.
fn destination4(ctx: &SockAddrContext, source: u32) -> Destination {
    // SAFETY: loads from and a store to the context that the verifier has checked.
    let (ip, port) = unsafe {
        let addr = ctx.sock_addr;
        if (*addr).user_ip4 == 0 {
            (*addr).user_ip4 = or_loopback(source);
        }
        ((*addr).user_ip4, (*addr).user_port)
    };
    let mut address = [0; 16];
    write_word(&mut address, 0, ip);
    Destination {
        family: INET,
        port: u16::from_be(port as u16),
        address,
    }
}

/// As [`destination4`]. `source` is the IPv4 address the socket is bound to;
/// `mapped` says that it is bound to a v4-mapped one, which turns `::` into
/// IPv4, too.
fn destination6(ctx: &SockAddrContext, source: u32, mapped: bool) -> Destination {
    // SAFETY: loads from the context that the verifier has checked; one word
    // at a time, since only these widths are allowed.
    let (words, port) = unsafe {
        let raw: *const bpf_sock_addr = ctx.sock_addr;
        let ip = &raw const (*raw).user_ip6;
        let word = |index: usize| core::ptr::read_volatile((ip as *const u32).add(index));
        ([word(0), word(1), word(2), word(3)], (*raw).user_port)
    };
    let port = u16::from_be(port as u16);
    let mut address = [0; 16];
    if words[0] == 0 && words[1] == 0 && (words[2] == MAPPED || words[2] | words[3] == 0) {
        if words[3] != 0 {
            write_word(&mut address, 0, words[3]);
            return Destination {
                family: INET,
                port,
                address,
            };
        }
        if words[2] == MAPPED || mapped {
            // `::` of a socket that is bound to a mapped address is loopback,
            // whatever that address is.
            let ip = if mapped && words[2] != MAPPED {
                LOOPBACK4
            } else {
                or_loopback(source)
            };
            set_ip6(ctx, [0, 0, MAPPED, ip]);
            write_word(&mut address, 0, ip);
            return Destination {
                family: INET,
                port,
                address,
            };
        }
        set_ip6(ctx, LOOPBACK6);
        write_word(&mut address, 12, LOOPBACK6[3]);
        return Destination {
            family: INET6,
            port,
            address,
        };
    }
    write_word(&mut address, 0, words[0]);
    write_word(&mut address, 4, words[1]);
    write_word(&mut address, 8, words[2]);
    write_word(&mut address, 12, words[3]);
    Destination {
        family: INET6,
        port,
        address,
    }
}

fn or_loopback(source: u32) -> u32 {
    if source == 0 { LOOPBACK4 } else { source }
}

/// The IPv4 address the socket is bound to; 0 for none.
fn bound4(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the socket of the context is valid while the program runs.
    unsafe { (*(*ctx.sock_addr).__bindgen_anon_1.sk).src_ip4 }
}

/// Whether the socket is bound to a v4-mapped address.
fn is_bound_to_mapped(ctx: &SockAddrContext) -> bool {
    // SAFETY: the socket of the context is valid while the program runs; one
    // word, since only this width is allowed.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        let words = (&raw const (*sk).src_ip6).cast::<u32>();
        core::ptr::read_volatile(words.add(2)) == MAPPED
    }
}

#[inline(always)]
pub fn write_word(address: &mut [u8; 16], at: usize, word: u32) {
    let bytes = word.to_ne_bytes();
    address[at] = bytes[0];
    address[at + 1] = bytes[1];
    address[at + 2] = bytes[2];
    address[at + 3] = bytes[3];
}

pub fn is_protected(to: &Destination) -> bool {
    let port = to.port.to_be_bytes();
    if to.family == INET {
        let address = [to.address[0], to.address[1], to.address[2], to.address[3]];
        PROTECTED4
            .get(&Key::new(48, Key4 { port, address }))
            .is_some()
            || PROTECTED4
                .get(&Key::new(
                    48,
                    Key4 {
                        port: ANY_PORT,
                        address,
                    },
                ))
                .is_some()
    } else {
        let address = to.address;
        PROTECTED6
            .get(&Key::new(144, Key6 { port, address }))
            .is_some()
            || PROTECTED6
                .get(&Key::new(
                    144,
                    Key6 {
                        port: ANY_PORT,
                        address,
                    },
                ))
                .is_some()
    }
}

/// Only until it is connected: what a socket that was dialled keeps is for its
/// packets.
pub fn is_exempt(ctx: &SockAddrContext) -> bool {
    // SAFETY: the socket of the context is valid while the program runs; a
    // value of one byte.
    unsafe { EXEMPT.get_ptr_mut(ctx).as_ref() == Some(&exempt::GATE) }
}

/// A socket that was redirected before and goes elsewhere now is nobody's
/// client any more: its record would name it where it comes by itself.
fn forget(ctx: &SockAddrContext) {
    // SAFETY: the socket of the context is valid while the program runs.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        bpf_sk_storage_delete((&raw const ORIGINS).cast_mut().cast(), sk.cast());
    }
}

pub fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is one the helper takes.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

fn set_port(ctx: &SockAddrContext, port: u16) {
    // SAFETY: a store to the context that the verifier has checked.
    unsafe { (*ctx.sock_addr).user_port = u32::from(port.to_be()) };
}

fn set_ip6(ctx: &SockAddrContext, words: [u32; 4]) {
    // SAFETY: as in `destination6`.
    unsafe {
        let ip = &raw mut (*ctx.sock_addr).user_ip6;
        core::ptr::write_volatile((ip as *mut u32).add(0), words[0]);
        core::ptr::write_volatile((ip as *mut u32).add(1), words[1]);
        core::ptr::write_volatile((ip as *mut u32).add(2), words[2]);
        core::ptr::write_volatile((ip as *mut u32).add(3), words[3]);
    }
}

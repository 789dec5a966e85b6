//! What leaves for a protected destination by another way than connect(2):
//! datagrams and handshakes of raw sockets, and of those whose destination a
//! namespace's root has rewritten after connect.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_socket_uid, bpf_sk_storage_get};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use lockgate_abi::{INET, INET6, reason};

use crate::bind::is_listeners;
use crate::connect::{
    ALLOW, DENY, Destination, IPPROTO_TCP, LOOPBACK4, LOOPBACK6, is_protected, write_word,
};
use crate::maps::EXEMPT;
use crate::refusal::tell;

/// Protocols beside TCP whose header begins with the two ports.
const DATAGRAMS: [u32; 4] = [17, 33, 132, 136];

/// IPv6 headers that another one follows, and the one of fragments.
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const FRAGMENT: u32 = 44;
const DESTINATION: u32 = 60;

/// How many of them are read. No socket of the kernel's own makes more.
const MOST_HEADERS: usize = 8;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Runs after routing and after the namespace's own rewriting of addresses, so
/// that this is where the packet goes.
#[cgroup_skb(egress)]
pub fn lockgate_packet(ctx: SkBuffContext) -> i32 {
    // What is too short to be read is too short to reach anybody.
    verdict(&ctx).unwrap_or(ALLOW)
}

fn verdict(ctx: &SkBuffContext) -> Result<i32, i64> {
    let first: u8 = load(ctx, 0)?;
    match first >> 4 {
        4 => verdict4(ctx, usize::from(first & 0xf) * 4),
        6 => verdict6(ctx),
        _ => Ok(ALLOW),
    }
}

fn verdict4(ctx: &SkBuffContext, header: usize) -> Result<i32, i64> {
    let protocol = u32::from(load::<u8>(ctx, 9)?);
    let fragment = u16::from_be(load(ctx, 6)?) & 0x3fff != 0;
    if fragment && protocol == IPPROTO_TCP {
        return Ok(cut());
    }
    let Some(port) = port(ctx, protocol, header)? else {
        return Ok(ALLOW);
    };
    let ip: u32 = load(ctx, 16)?;
    let mut address = [0; 16];
    write_word(&mut address, 0, ip);
    let to = Destination {
        family: INET,
        port,
        address,
    };
    Ok(decide(ctx, &to, ip == LOOPBACK4))
}

fn verdict6(ctx: &SkBuffContext) -> Result<i32, i64> {
    let mut protocol = u32::from(load::<u8>(ctx, 6)?);
    let mut header = 40;
    for _ in 0..MOST_HEADERS {
        match protocol {
            FRAGMENT => return Ok(cut()),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                protocol = u32::from(load::<u8>(ctx, header)?);
                header += usize::from(load::<u8>(ctx, header + 1)?) * 8 + 8;
            }
            _ => break,
        }
    }
    if matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT) {
        // More of them, so that what is behind is not known.
        return Ok(cut());
    }
    let Some(port) = port(ctx, protocol, header)? else {
        return Ok(ALLOW);
    };
    let words: [u32; 4] = [
        load(ctx, 24)?,
        load(ctx, 28)?,
        load(ctx, 32)?,
        load(ctx, 36)?,
    ];
    let mut address = [0; 16];
    write_word(&mut address, 0, words[0]);
    write_word(&mut address, 4, words[1]);
    write_word(&mut address, 8, words[2]);
    write_word(&mut address, 12, words[3]);
    let to = Destination {
        family: INET6,
        port,
        address,
    };
    let loopback = words[0] | words[1] | words[2] == 0 && words[3] == LOOPBACK6[3];
    Ok(decide(ctx, &to, loopback))
}

/// The kernel cuts packets into fragments only after this, and puts few headers
/// before another: these were made by hand, so that no port is read in them.
fn cut() -> i32 {
    let to = Destination {
        family: INET,
        port: 0,
        address: [0; 16],
    };
    tell(reason::PACKET, &to, 0, 0, 0);
    DENY
}

/// The port of a packet that begins something. None for all others: without its
/// beginning a connection does not come about, and those that were there before
/// are ended by the gate.
#[inline(always)]
fn port(ctx: &SkBuffContext, protocol: u32, header: usize) -> Result<Option<u16>, i64> {
    if protocol == IPPROTO_TCP {
        let flags: u8 = load(ctx, header + 13)?;
        if flags & (SYN | ACK) != SYN {
            return Ok(None);
        }
    } else if !DATAGRAMS.contains(&protocol) {
        return Ok(None);
    }
    Ok(Some(u16::from_be(load(ctx, header + 2)?)))
}

/// `loopback`: it goes to 127.0.0.1 or ::1, where the listeners are; their ports
/// may be protected elsewhere.
#[inline(always)]
fn decide(ctx: &SkBuffContext, to: &Destination, loopback: bool) -> i32 {
    if !is_protected(to) || (loopback && is_listeners(to.port)) || is_gates(ctx) {
        return ALLOW;
    }
    // SAFETY: the context is one the helper takes.
    let uid = unsafe { bpf_get_socket_uid(ctx.skb.skb) };
    tell(reason::PACKET, to, 0, 0, uid);
    DENY
}

/// Whether the gate has dialled, or dials, by the packet's socket.
#[inline(always)]
fn is_gates(ctx: &SkBuffContext) -> bool {
    // SAFETY: a load from the context that the verifier has checked.
    let sk: *mut bpf_sock = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return false;
    }
    // SAFETY: `sk` is not null; no value is made where there is none.
    let exempt = unsafe {
        bpf_sk_storage_get(
            (&raw const EXEMPT).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    !exempt.is_null()
}

#[inline(always)]
fn load<T>(ctx: &SkBuffContext, offset: usize) -> Result<T, i64> {
    ctx.load(offset).map_err(i64::from)
}

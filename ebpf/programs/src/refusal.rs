use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_log_ebpf::debug;
use lockgate_abi::{Refusal, VERSION, lost};

use crate::connect::Destination;
use crate::maps::{LOST, REFUSALS};

/// Tells the gate that something was refused. A full buffer is counted; it
/// changes nothing about the refusal.
pub fn refuse<C: EbpfContext>(ctx: &C, reason: u8, to: &Destination, netns_cookie: u64) {
    debug!(
        ctx,
        "tgid {} refused, reason {}, port {}",
        ctx.tgid(),
        reason,
        to.port
    );
    tell(reason, to, netns_cookie, ctx.tgid(), ctx.uid());
}

/// As [`refuse`], where nobody is known to be behind it: what is sent again is
/// sent by whoever the timer interrupts.
pub fn tell(reason: u8, to: &Destination, netns_cookie: u64, tgid: u32, uid: u32) {
    let Some(mut entry) = REFUSALS.reserve_untyped::<Refusal>(0) else {
        return count_lost(lost::REFUSALS);
    };
    entry.write(Refusal {
        version: VERSION,
        reason,
        family: to.family,
        port: to.port,
        reserved: 0,
        address: to.address,
        tgid,
        uid,
        netns_cookie,
        // SAFETY: the helper has no preconditions.
        at_ns: unsafe { bpf_ktime_get_ns() },
    });
    entry.submit(0);
}

/// Counts a record that found its buffer full.
pub fn count_lost(kind: u32) {
    if let Some(count) = LOST.get_ptr_mut(kind) {
        // SAFETY: this processor's own counter.
        unsafe { *count += 1 };
    }
}

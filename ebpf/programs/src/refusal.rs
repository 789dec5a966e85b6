use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use lockgate_abi::{Refusal, VERSION};

use crate::connect::Destination;
use crate::maps::{LOST, REFUSALS};

/// Tells the gate that something was refused. A full buffer is counted; it
/// changes nothing about the refusal.
pub fn refuse<C: EbpfContext>(ctx: &C, reason: u8, to: &Destination, netns_cookie: u64) {
    let Some(mut entry) = REFUSALS.reserve_untyped::<Refusal>(0) else {
        if let Some(lost) = LOST.get_ptr_mut(0) {
            // SAFETY: this processor's own counter.
            unsafe { *lost += 1 };
        }
        return;
    };
    entry.write(Refusal {
        version: VERSION,
        reason,
        family: to.family,
        port: to.port,
        reserved: 0,
        address: to.address,
        tgid: ctx.tgid(),
        uid: ctx.uid(),
        netns_cookie,
        // SAFETY: the helper has no preconditions.
        at_ns: unsafe { bpf_ktime_get_ns() },
    });
    entry.submit(0);
}

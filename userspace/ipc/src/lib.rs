//! What gate, proxy, keeper and their parent say to each other.
//!
//! Each pair shares one `SOCK_SEQPACKET` socket: a packet is one [`Packet`]
//! in postcard behind a version byte, with at most one descriptor (SCM_RIGHTS).
//! What is large travels as a sealed memfd. A peer that sends what cannot be
//! read is closed.
//!
//! ```text
//!            parent
//!          /    |    \          Order / Report; Look / Looked with keeper
//!      gate -- proxy -- keeper  GateToProxy, ProxyToGate, ProxyToKeeper, KeeperToProxy
//!        \______________/       GateToKeeper, KeeperToGate
//! ```
#![forbid(unsafe_code)]

mod channel;
mod gate;
mod keeper;
mod look;
mod memfd;
mod parent;
mod secret;

pub use channel::{Channel, ChannelError, pair};
pub use gate::{GateToKeeper, GateToProxy, KeeperToGate, ProxyToGate};
pub use keeper::{
    Dialogue, KeeperToProxy, LeafKey, LoginPlan, ProxyToKeeper, Reply, SegmentId, UpstreamAuth,
};
pub use look::{Look, Looked, Wanted};
pub use memfd::{from_memfd, to_memfd};
pub use parent::{Order, Report, Role};
pub use secret::SecretBytes;

//! TLS on both sides: lockgate stands for the target towards the client, and
//! for itself towards the target, which it verifies.

mod binding;
mod downstream;

pub(crate) use binding::server_end_point;
pub(crate) use downstream::{AcceptError, accept};
pub(crate) use lockgate_tls::{Upstream, UpstreamTlsError};

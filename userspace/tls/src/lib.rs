//! TLS towards targets: what is verified, and how. The proxy and keeper's
//! catalogue connections verify a server in the same way, by this crate.
#![forbid(unsafe_code)]

mod upstream;

pub use upstream::{Upstream, UpstreamTlsError};

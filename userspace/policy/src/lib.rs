//! Cedar policies: load, check, decide.
//!
//! [`Policies`] is one accepted set. It knows which workload asks, for what,
//! at which target; it never knows where the request came from.
#![forbid(unsafe_code)]

mod author;
mod finding;
mod set;

pub use author::{AuthorError, allow_policy};
pub use finding::{Finding, Severity};
pub use set::{Decision, Policies};

/// The Cedar schema that every policy is validated against, in strict mode:
/// `policies/lockgate.cedarschema`.
pub const SCHEMA: &str = include_str!("../../../policies/lockgate.cedarschema");

//! Cedar policies: load, check, decide.
//!
//! [`Policies`] is one accepted set. It knows which workload asks, for what,
//! at which target; it never knows where the request came from, and it reads
//! no clock and no other context, so that a verdict holds as long as its set.
#![forbid(unsafe_code)]

mod author;
mod check;
mod decision;
mod entities;
mod explain;
mod finding;
mod lint;
mod names;
mod pack;
mod read;
mod scope;
mod set;
mod slice;
mod vocabulary;

pub use author::{AuthorError, Authored, allow_policies, allow_policy};
pub use check::closest;
pub use decision::Decision;
pub use explain::{Deciding, Explanation};
pub use finding::{Finding, Severity};
pub use names::Missing;
pub use pack::{PACKS, Pack, STARTER};
pub use set::Policies;

/// The Cedar schema that every policy is validated against, in strict mode:
/// `policies/lockgate.cedarschema`.
pub const SCHEMA: &str = include_str!("../../../policies/lockgate.cedarschema");

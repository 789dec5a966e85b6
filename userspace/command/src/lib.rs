//! The boundary that all protocols share: a [`Command`] goes in, a [`Ruling`]
//! comes out, an [`Outcome`] closes it.
//!
//! A protocol says what a command does, in [`Access`]es, and never how that is
//! decided; a policy decides and never sees a protocol. Everything here is
//! plain data. The one trait, [`Judge`], is what a protocol adapter is given.
#![forbid(unsafe_code)]

mod command;
mod judge;
mod names;
mod resource;
mod verb;

pub use command::{Command, Refusal, Shown, Statement, TextId};
pub use judge::{Denial, Judge, Outcome, PolicyRef, Ruling, Ticket, Verdict};
pub use names::{ConnectionId, TargetName, WorkloadName};
pub use resource::{Access, Resource, ResourceKind};
pub use verb::Verb;

//! What is shown in the place of a value that may not be seen.
//!
//! The arithmetic of each mask (`text`, `number`, `date`, `hash`) knows no
//! protocol. [`postgres`] reads and writes values as PostgreSQL sends them, in
//! text and in binary.
//!
//! A mask that cannot be certain of a value (another form, out of range, not
//! valid in its encoding) shows less, never more: NULL, or a text that is all
//! hidden.
#![forbid(unsafe_code)]

mod date;
mod hash;
mod number;
pub mod postgres;
mod text;

pub use hash::Key;

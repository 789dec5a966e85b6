//! The crate from outside: golden bytes, a model server, a real one.

mod interleavings;
mod message;
mod model;
mod session;

//! The crate from outside: golden bytes, a model server, a real one.

mod bounds;
mod cuts;
mod fuzzed;
mod interleavings;
mod login;
mod masking;
mod message;
mod model;
mod real_server;
mod relay;
mod session;
mod startup;

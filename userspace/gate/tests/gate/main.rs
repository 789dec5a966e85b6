//! The programs in this kernel and the gate above them, each test in a cgroup,
//! a pin folder and, where it needs one, a network namespace of its own. Needs
//! root.

mod attest;
mod bypass;
mod disguise;
mod field;
mod others;
mod preflight;
mod redirect;
mod service;
mod takeover;

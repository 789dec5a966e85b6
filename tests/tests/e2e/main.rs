//! The running agent between real clients and real servers. Each test has a
//! host of its own: a cgroup, network namespaces, a server, an agent.

mod authority;
mod bypass;
mod clients;
mod continuing;
mod crash;
mod denial;
mod evasions;
mod main_job;
mod masking;
mod misfortune;
mod names;
mod namespaces;
mod policy;
mod reading;
mod stage;
mod tagged;
mod trust;

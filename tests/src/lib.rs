//! What tests, the demo and the benchmark stand on: real servers, network
//! namespaces, an agent of their own, workloads in cgroups. Each thing is
//! removed when it is dropped. All but a [`Cluster`] needs root.
#![forbid(unsafe_code)]

mod agent;
mod clickhouse;
mod cluster;
mod namespace;
mod paused;
mod postgres;
mod shell;
mod sweep;
mod wire;
mod workload;

pub use agent::{Agent, AgentConfig};
pub use clickhouse::ClickHouse;
pub use cluster::Cluster;
pub use namespace::Namespace;
pub use paused::Paused;
pub use postgres::{Postgres, PostgresConfig};
pub use shell::{Output, root, run, sh};
pub use sweep::sweep;
pub use wire::{Answer, Wire, bind, execute, message, parse, query, sync, text};
pub use workload::{Cgroup, Joined, Workload, python};

//! keeper as its parent, gate and a proxy see it, with a real PostgreSQL and a
//! real ClickHouse behind a gate that is the test's own.
#![allow(missing_docs)]

mod agent;
mod catalogue;
mod clickhouse;
mod login;
mod look;
mod postgres;
mod record;
mod service;
mod upstream;

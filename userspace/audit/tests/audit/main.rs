//! The record from the writer's memory to the auditor's question, with real
//! processes, a real disk and a real ClickHouse.
#![allow(missing_docs)]

mod arbitrary;
mod clickhouse;
mod crash;
mod frozen;
mod sample;
mod sealing;
mod search;
mod server;
mod spool;

//! The configuration: `/etc/lockgate/lockgate.toml` and the files it names.
//!
//! [`Config`] is the file's shape; unknown keys are errors. A [`Bundle`] is
//! what gate, proxy and keeper are handed: the configuration, the policies and
//! the public certificates, read once by the parent. [`Secrets`] go to keeper
//! alone.
#![forbid(unsafe_code)]

mod bundle;
mod check;
mod finding;
mod guarded;
mod load;
mod model;
mod place;
mod text;

pub use bundle::{Bundle, PolicyFile, Secrets};
pub use finding::{Finding, Severity};
pub use load::{Loaded, load, load_and, resolve};
pub use model::{
    Agent, Audit, ClickHouse, Config, Credential, Durability, Kernel, Limits, LogFormat, Mask,
    Masks, Metrics, Mode, Precision, Protocol, SecretSource, Source, Tag, Target, TargetTls,
    UpstreamTls, WhenFull, Workload,
};
pub use place::{Host, Place};
pub use text::{Position, Text};

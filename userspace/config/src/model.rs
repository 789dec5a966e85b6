use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Place;

/// `lockgate.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Users and folders of the agent.
    pub agent: Agent,
    /// Where the eBPF programs attach.
    pub kernel: Kernel,
    /// The record.
    pub audit: Audit,
    /// The Prometheus endpoint.
    pub metrics: Metrics,
    /// What masks share.
    pub mask: Masks,
    /// Bounds on what a client may send.
    pub limits: Limits,
    /// What is protected.
    #[serde(rename = "target")]
    pub targets: Vec<Target>,
    /// Who may call.
    #[serde(rename = "workload")]
    pub workloads: Vec<Workload>,
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// Spool, SQLite store and host CA. Default `/var/lib/lockgate`.
    pub state_dir: PathBuf,
    /// Control socket and public CA certificate. Default `/run/lockgate`.
    pub run_dir: PathBuf,
    /// Cedar files, `*.cedar`. Default `/etc/lockgate/policies`.
    pub policies: PathBuf,
    /// The user that reads hostile bytes. Default `lockgate-proxy`.
    pub proxy_user: String,
    /// The user that holds secrets. Default `lockgate-keeper`.
    pub keeper_user: String,
    /// Threads of the proxy; 0 for one per processor.
    pub workers: usize,
    /// How log lines look.
    pub log: LogFormat,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/lockgate".into(),
            run_dir: "/run/lockgate".into(),
            policies: "/etc/lockgate/policies".into(),
            proxy_user: "lockgate-proxy".into(),
            keeper_user: "lockgate-keeper".into(),
            workers: 0,
            log: LogFormat::Text,
        }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[kernel]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// The cgroup (v2) whose processes are intercepted; by default the root of
    /// the hierarchy, so all of the host. Paths of units are read below it.
    pub cgroup: Option<PathBuf>,
    /// Where programs, links and maps are pinned, on a bpf file system.
    pub pins: PathBuf,
    /// Network namespaces beside the host's whose clients are served, as files
    /// (`/run/netns/NAME`). Clients of any other namespace are refused.
    pub namespaces: Vec<PathBuf>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            cgroup: None,
            pins: "/sys/fs/bpf/lockgate".into(),
            namespaces: Vec::new(),
        }
    }
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// What a command waits for before it leaves.
    pub durability: Durability,
    /// What happens when the spool is full.
    pub when_full: WhenFull,
    /// Size of one spool segment in MiB.
    pub segment_mib: u32,
    /// How many segments may wait to be sealed.
    pub max_segments: u32,
    /// Where else the record goes.
    pub clickhouse: Option<ClickHouse>,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            durability: Durability::FsyncWrites,
            when_full: WhenFull::Strict,
            segment_mib: 8,
            max_segments: 32,
            clickhouse: None,
        }
    }
}

/// What a command waits for before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// The event is in shared memory: survives a crash of lockgate.
    Write,
    /// As `write`; commands that change data wait for the disk.
    FsyncWrites,
    /// All commands wait for the disk: survives a crash of the host.
    Fsync,
}

/// What happens when the spool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Commands are refused.
    Strict,
    /// Events are dropped and counted.
    BestEffort,
}

/// `audit.clickhouse`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    /// HTTP interface, such as `http://10.0.9.1:8123`.
    pub url: String,
    /// Created if it is missing.
    #[serde(default = "default_database")]
    pub database: String,
    /// User name; `default` if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<SecretSource>,
}

fn default_database() -> String {
    "lockgate".into()
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address of the Prometheus endpoint `/metrics`; off if absent.
    pub listen: Option<SocketAddr>,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Time from accept to an authenticated session, in seconds.
    pub startup_s: u32,
    /// Largest text of a statement, in bytes.
    pub statement_bytes: u32,
    /// Largest message of a client apart from COPY data, in bytes.
    pub message_bytes: u32,
    /// Most connections at a time.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            startup_s: 15,
            statement_bytes: 64 * 1024,
            message_bytes: 16 * 1024 * 1024,
            connections: 20_000,
        }
    }
}

/// `[[target]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Unique; policies name it.
    pub name: String,
    /// How its bytes are read.
    pub protocol: Protocol,
    /// Where its servers are.
    #[serde(rename = "match")]
    pub places: Vec<Place>,
    /// Whether verdicts are enforced.
    #[serde(default)]
    pub mode: Mode,
    /// TLS on both sides.
    #[serde(default)]
    pub tls: TargetTls,
    /// Namespace that upstream is dialled in.
    #[serde(default)]
    pub source: Source,
    /// Sensitive columns.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Who logs in as whom.
    #[serde(default)]
    pub credentials: Vec<Credential>,
}

/// How a target's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// PostgreSQL's frontend/backend protocol 3.
    Postgres,
    /// Opaque bytes: decided and recorded per connection.
    Tcp,
}

/// Whether verdicts are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Decide and record; forward everything that can be framed. Every event
    /// says so.
    Observe,
    /// A denied command does not reach the server.
    #[default]
    Enforce,
}

/// Namespace that upstream is dialled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The client's own network namespace: its routes and filters hold.
    #[default]
    Client,
    /// The host's.
    Host,
}

/// `target.tls`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetTls {
    /// Towards the server.
    pub upstream: UpstreamTls,
    /// PEM file with the CAs the server's certificate must lead to.
    pub ca: Option<PathBuf>,
    /// Name the server's certificate must carry, where the target is matched
    /// by address only.
    pub server_name: Option<String>,
    /// PEM file with the target's own certificate chain to show clients;
    /// together with `key`. Without them, a leaf from the host CA is shown.
    pub certificate: Option<PathBuf>,
    /// PEM file with the key of `certificate`. Held by keeper.
    pub key: Option<PathBuf>,
}

/// TLS towards the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTls {
    /// Never. Only for loopback and trusted links: cleartext and md5 logins
    /// are refused then.
    #[default]
    Disable,
    /// Chain verified, name not.
    VerifyCa,
    /// Chain and name verified.
    VerifyFull,
}

/// `target.tags`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// `schema.table.column`, or `database.schema.table.column`.
    pub columns: String,
    /// The tag, as policies name it.
    pub tag: String,
    /// What is shown to those without `view`.
    #[serde(default)]
    pub mask: Option<Mask>,
}

/// What is shown in the place of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// NULL.
    Null,
    /// `[redacted]`.
    Redact,
    /// The first n characters stay, of a short value at most half of it.
    KeepFirst(u32),
    /// The last n characters stay, of a short value at most half of it.
    KeepLast(u32),
    /// A keyed hash, equal for equal values: HMAC-SHA-256 with `mask.key`, cut
    /// to 128 bits.
    Hash,
    /// The beginning of the year, month or day.
    Truncate(Precision),
    /// The largest multiple of n that is not above the value.
    Bucket(u64),
}

/// What stays of a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// The year.
    Year,
    /// Year and month.
    Month,
    /// The date.
    Day,
}

impl fmt::Display for Mask {
    /// As the configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Redact => f.write_str("redact"),
            Self::KeepFirst(count) => write!(f, "{{ keep_first = {count} }}"),
            Self::KeepLast(count) => write!(f, "{{ keep_last = {count} }}"),
            Self::Hash => f.write_str("hash"),
            Self::Truncate(Precision::Year) => f.write_str("{ truncate = \"year\" }"),
            Self::Truncate(Precision::Month) => f.write_str("{ truncate = \"month\" }"),
            Self::Truncate(Precision::Day) => f.write_str("{ truncate = \"day\" }"),
            Self::Bucket(width) => write!(f, "{{ bucket = {width} }}"),
        }
    }
}

/// `[mask]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Masks {
    /// The key of `mask = "hash"`, of 32 characters or more. Hashes are compared
    /// and joined across hosts that have the same one.
    pub key: Option<SecretSource>,
}

/// `target.credentials`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// A `[[workload]]`.
    pub workload: String,
    /// The role lockgate logs in as at the server.
    pub user: String,
    /// Its password; absent where the server asks for none.
    #[serde(default)]
    pub password: Option<SecretSource>,
}

/// Where a secret is read from. Never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretSource {
    /// A file; one trailing line break is dropped. Must not be readable by others.
    File(PathBuf),
}

/// `[[workload]]`: at least one of unit, container and user; the rest narrows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Unique; policies name it. `unknown` is taken.
    pub name: String,
    /// A *system* unit: the process is in the cgroup `/system.slice/UNIT` (any
    /// slice below `/system.slice`), or below it. A value with a `/` is the
    /// full cgroup path itself.
    pub unit: Option<String>,
    /// A container id (hex, 12 characters or more), as the cgroup path carries it.
    pub container: Option<String>,
    /// A user name or uid.
    pub user: Option<String>,
    /// Full path of the executable.
    pub executable: Option<PathBuf>,
    /// SHA-256 of the executable, hex.
    pub sha256: Option<String>,
    /// Full path of the executable of some ancestor process.
    pub ancestor: Option<PathBuf>,
}

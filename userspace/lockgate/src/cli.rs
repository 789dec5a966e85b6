use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Transparent interception proxy for hosts that execute things on their own.
///
/// eBPF redirects what programs send to protected databases and servers into
/// lockgate, which knows which process is calling, decides each command by
/// policy, holds the credentials, and keeps the record. No client is changed.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Begin here:
  lockgate init                     write a commented configuration and starter policies
  lockgate check                    find what is wrong with them
  lockgate run                      protect this host
  lockgate policy allow nightly-report read orders-db/shop
  lockgate audit search --verdict deny --since 1h

Exit codes: 0 yes or fine, 1 no, 2 usage or configuration, 3 agent or server not reached.";

/// Which configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigFile {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOCKGATE_CONFIG",
        default_value = "/etc/lockgate/lockgate.toml"
    )]
    pub(crate) config: PathBuf,
}

/// For scripts.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Json {
    /// Print JSON: one object, or one object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Protect this host until stopped.
    Run(ConfigFile),
    /// Check configuration and policies.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        json: Json,
    },
    /// Write a commented configuration and starter policies.
    Init {
        /// Where to.
        #[arg(long, value_name = "FOLDER", default_value = "/etc/lockgate")]
        dir: PathBuf,
        /// Overwrite what is there.
        #[arg(long)]
        force: bool,
    },
    /// Write policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Take a changed configuration into use; refused as a whole if it is wrong.
    Reload {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        json: Json,
    },
    /// Show live sessions, verdicts, spool and kernel state.
    Status {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        json: Json,
    },
    /// Stop. Protected destinations stay refused.
    Stop {
        #[command(flatten)]
        config: ConfigFile,
        /// Detach from the kernel, too: nothing is protected any more.
        #[arg(long)]
        release: bool,
    },
    /// Say what this host has, lacks and leaves open.
    Doctor {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        json: Json,
    },
    /// Search and verify the record.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// What `lockgate run` starts.
    #[command(hide = true)]
    Internal(Internal),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Let a workload do something at a target.
    #[command(
        after_help = "VERB is a verb (select, delete, truncate …) or a group of verbs (read, write, schema, admin …)."
    )]
    Allow {
        /// A [[workload]] of the configuration.
        workload: String,
        /// A verb or a group of verbs.
        verb: String,
        /// TARGET[/DATABASE[/SCHEMA[/TABLE]]]
        resource: String,
        #[command(flatten)]
        config: ConfigFile,
        /// Print the policy instead of writing it.
        #[arg(long)]
        print: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Find events, the newest first.
    Search(Box<Search>),
    /// Verify the hash chains of the record.
    Verify {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Search {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    #[command(flatten)]
    pub(crate) json: Json,
    /// Of this workload.
    #[arg(long)]
    pub(crate) workload: Option<String>,
    /// At this target.
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// allow, deny or hold.
    #[arg(long)]
    pub(crate) verdict: Option<String>,
    /// That do this, such as delete.
    #[arg(long)]
    pub(crate) verb: Option<String>,
    /// To this object, such as public.orders.
    #[arg(long)]
    pub(crate) object: Option<String>,
    /// As this database user.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Whose text holds this.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Of this connection (16 hex digits).
    #[arg(long)]
    pub(crate) connection: Option<String>,
    /// Not before: RFC 3339, or an age such as 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before: as --since.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
}

#[derive(Args, Debug)]
pub(crate) struct Internal {
    /// gate, proxy, keeper, or probe.
    pub(crate) what: String,
    /// JSON for the role.
    pub(crate) setup: String,
}

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Transparent interception proxy for hosts that execute things on their own.
///
/// eBPF redirects what programs send to protected databases and servers into
/// lockgate, which knows which process is calling, decides each command by
/// policy, holds the credentials, and keeps the record. No client is changed.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    help_template = TEMPLATE,
    after_help = EXAMPLES,
    subcommand_help_heading = "Commands"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands by what they are for; clap would list them in one heap.
const TEMPLATE: &str = "{about-with-newline}
{usage-heading} {usage}

Set up:
  init           Write a commented configuration and starter policies
  check          Check configuration and policies
  doctor         Say what this host has, lacks and leaves open
  target prepare Say what a target's server needs, and what is too much

Say who may do what:
  policy allow   Let a workload do something at a target
  policy explain Say what the policies say of a statement, and why
  policy pack    List, show and install ready-made policies

Run:
  run            Protect this host until stopped
  status         Show live sessions, verdicts, spool and kernel state
  reload         Take a changed configuration into use; all of it or none
  stop           Stop; protected destinations stay refused

Ask the record:
  audit search   Find events
  audit verify   Verify the hash chains

Options:
{options}{after-help}
";

const EXAMPLES: &str = "Begin here:
  lockgate init && lockgate doctor
  lockgate check
  lockgate run
  lockgate policy allow nightly-report read orders-db/shop && lockgate reload
  lockgate policy explain --workload nightly-report --target orders-db 'delete from orders'
  lockgate audit search --verdict deny --since 1h

`lockgate help COMMAND` has more. All commands but init and `policy allow --print` read
/etc/lockgate/lockgate.toml, or the file of --config or LOCKGATE_CONFIG.

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
    ///
    /// Starts gate, proxy and keeper, says what is protected, and starts again
    /// whichever ends. SIGHUP is `lockgate reload`; SIGTERM ends it, with ten
    /// seconds for open sessions. Needs root.
    #[command(after_help = "LOCKGATE_LOG filters the log: info, debug, lockgate_proxy=debug …")]
    Run(ConfigFile),
    /// Check configuration and policies.
    ///
    /// Each finding has its file, line, reason and what to do. With --target,
    /// the running agent asks the target's server whether it has what policies
    /// and tags name: a forbid on a mistyped table is valid, and forbids
    /// nothing. Exits with 0 if there is no finding, 1 if there is any, 2 if the
    /// file cannot be read, 3 if the server cannot be asked.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        json: Json,
        /// Look the names up at this target's server, too.
        #[arg(long)]
        target: Option<String>,
        #[command(flatten)]
        asked: AskedServer,
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
    /// Write policies, and ask what they say.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Prepare servers.
    #[command(subcommand)]
    Target(TargetCommand),
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
    ///
    /// Open sessions have ten seconds. The programs stay in the kernel and
    /// refuse what is protected, until the agent runs again or --release.
    Stop {
        #[command(flatten)]
        config: ConfigFile,
        /// Detach from the kernel, too: nothing is protected any more. Works
        /// without a running agent.
        #[arg(long)]
        release: bool,
    },
    /// Say what this host has, lacks and leaves open.
    ///
    /// Exits with 1 if lockgate cannot run here as it is.
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
        after_help = "VERB is a verb (select, delete, truncate …) or a group of verbs (read, write, schema, admin …).

Examples:
  lockgate policy allow nightly-report read orders-db
  lockgate policy allow nightly-report insert orders-db/shop/public/reports
  lockgate policy allow deploy schema orders-db/shop --file deploy.cedar"
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
        /// The file in the policies folder that it is written to.
        #[arg(long, value_name = "NAME", default_value = "allowed.cedar")]
        file: String,
        /// Print the policy instead of writing it.
        #[arg(long, conflicts_with = "file")]
        print: bool,
    },
    /// Say what the policies say of a statement, and why.
    ///
    /// Reads the policies as they are on disk now. Where the agent runs, names
    /// are those of the target's server; else those of policies and tags, and
    /// the answer says so. Nothing is run. Exits with 0 if it is allowed, 1 if
    /// it is denied, 3 if --live and the server cannot be asked.
    #[command(after_help = "Examples:
  lockgate policy explain --workload nightly-report --target orders-db 'delete from orders'
  lockgate policy explain --workload app --target orders-db --database shop 'table orders' --json
  lockgate policy explain --workload unknown --target orders-db")]
    Explain(Box<Explain>),
    /// List, show and install ready-made policies.
    #[command(subcommand)]
    Pack(PackCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PackCommand {
    /// List the packs.
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Print a pack: as it is, or for a workload at a target.
    Show {
        /// As `list` has it.
        name: String,
        /// In the place of WORKLOAD.
        #[arg(long, requires = "target")]
        workload: Option<String>,
        /// In the place of TARGET.
        #[arg(long, requires = "workload")]
        target: Option<String>,
    },
    /// Write a pack for a workload at a target into the policies folder.
    Install {
        /// As `list` has it.
        name: String,
        /// A [[workload]] of the configuration.
        #[arg(long)]
        workload: String,
        /// A [[target]] of the configuration.
        #[arg(long)]
        target: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// What is asked of the policies.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Who: a [[workload]] of the configuration, or `unknown`.
    #[arg(long)]
    pub(crate) workload: String,
    /// Where: a [[target]] of the configuration.
    #[arg(long)]
    pub(crate) target: String,
    /// In which database. Not needed where policies speak of one only.
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// Of which server of the target, where it is a range.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) server: Option<std::net::SocketAddr>,
    /// Do not have the running agent ask the server for its names.
    #[arg(long, conflicts_with = "live")]
    pub(crate) offline: bool,
    /// Answer by the server's names or not at all.
    #[arg(long)]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    #[command(flatten)]
    pub(crate) json: Json,
    /// The statement, or several with `;` between them. None: may it connect?
    pub(crate) sql: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Say what a target's server needs, and what is too much.
    ///
    /// Prints SQL that makes the database role of each workload with no more
    /// rights than its policies permit: the second lock. Where the agent runs,
    /// it looks at what the roles may do now. Exits with 1 if that is too much.
    Prepare {
        /// A [[target]] of the configuration.
        target: String,
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        json: Json,
        #[command(flatten)]
        asked: AskedServer,
    },
}

/// Where names and rights are looked up.
#[derive(Args, Clone, Debug)]
pub(crate) struct AskedServer {
    /// In this database; in all that policies and tags name, without it.
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// Of which server of the target, where it is a range.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) server: Option<std::net::SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Find events, the newest first.
    ///
    /// Exits with 1 if there is none.
    #[command(after_help = "Examples:
  lockgate audit search --verdict deny --since 1h
  lockgate audit search --workload nightly-report --verb delete --json
  lockgate audit search --object public.customers --since 2026-01-31T08:00:00Z")]
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_every_command() {
        let help = Cli::command().render_help().to_string();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let listed = help
                .lines()
                .any(|line| line.starts_with(&format!("  {name} ")));
            assert_eq!(listed, !command.is_hide_set(), "{name}");
            for below in command.get_subcommands() {
                let line = format!("  {name} {} ", below.get_name());
                assert!(help.contains(&line), "{line}");
            }
        }
    }
}

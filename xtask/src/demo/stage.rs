//! What the demo happens on.

use std::process::{Child, Command, Stdio};

use anyhow::Result;
use lockgate_tests::{
    Agent, AgentConfig, ClickHouse, Output, Postgres, PostgresConfig, Workload, python, run,
};

use super::page::Page;

/// The user that clients ask for; the server has none of that name.
pub const USER: &str = "jane";

pub const POLICIES: &str = r#"
@id("report-reads-orders")
permit (
  principal == Workload::"nightly-report",
  action in Action::"read",
  resource in Table::"orders-db/shop/public/orders"
);

@id("report-connects")
permit (
  principal == Workload::"nightly-report",
  action in Action::"use",
  resource in Target::"orders-db"
);

@id("support-reads-and-writes")
permit (
  principal == Workload::"support",
  action in [Action::"use", Action::"read", Action::"write"],
  resource in Target::"orders-db"
);
"#;

/// Asked of ClickHouse, and its answer shown.
pub const QUESTION: &str = "SELECT workload, verdict, arrayStringConcat(verbs, ', ') AS verbs, \
                            count() AS commands FROM lockgate.events_latest WHERE kind = 'command' \
                            GROUP BY ALL ORDER BY ALL";

/// How its answer looks.
pub const LOOKS: &str =
    "FORMAT PrettyCompactMonoBlock SETTINGS output_format_pretty_row_numbers = 0";

/// The same in a number that can be compared.
pub const COUNT: &str =
    "SELECT count() FROM lockgate.events_latest WHERE kind = 'command' AND verdict = 'deny'";

/// Servers, an agent, a neighbour on a port that is not protected.
#[derive(Debug)]
pub struct Stage {
    // Dropped in this order: the agent before what it talks to.
    pub agent: Agent,
    pub clickhouse: ClickHouse,
    neighbour: Child,
    pub postgres: Postgres,
    config: AgentConfig,
}

impl Stage {
    /// All but the agent's start.
    pub fn build() -> Result<Self> {
        let clickhouse = ClickHouse::start()?;
        let postgres = Postgres::start(&PostgresConfig {
            settings: "log_connections = on\nlog_statement = 'all'\n".into(),
            ..PostgresConfig::default()
        })?;
        let neighbour = neighbour(&postgres)?;
        let config = config(&postgres, &clickhouse);
        let agent = Agent::prepare(&config)?;
        Ok(Self {
            agent,
            clickhouse,
            neighbour,
            postgres,
            config,
        })
    }

    /// Starts the agent.
    pub fn launch(&mut self) -> Result<()> {
        self.agent.launch()
    }

    /// Waits until the agent has reached ClickHouse.
    pub fn await_clickhouse(&self) -> Result<()> {
        self.agent.wait_until("in touch with ClickHouse", |status| {
            let record = &status["keeper"]["record"];
            record["clickhouse_error"].is_null() && record["unshipped"] == 0
        })
    }

    /// The part of the configuration that a person would write.
    pub fn configuration(&self) -> String {
        self.config
            .body
            .replace("SECRETS", "/etc/lockgate/secrets")
            .trim()
            .to_owned()
    }

    pub fn address(&self) -> &str {
        self.postgres.address()
    }

    /// The connection string that clients have always had.
    pub fn dsn(&self) -> String {
        format!(
            "host={} dbname=shop user={USER} password=outdated",
            self.address()
        )
    }

    /// psql in the unit of `job`, shown.
    pub fn psql(&self, page: &Page, job: &str, commands: &[&str]) -> Result<Output> {
        // Both streams as one, as a terminal shows them.
        let mut psql = self.job(job)?.command("sh");
        psql.args([
            "-c",
            "exec \"$@\" 2>&1",
            "sh",
            "psql",
            "-X",
            "-h",
            self.address(),
        ]);
        psql.args(["-U", USER, "shop"])
            .env("PGPASSWORD", "outdated");
        let mut line = format!("psql -h {} -U {USER} shop", self.address());
        for command in commands {
            psql.args(["-c", command]);
            line.push_str(&format!(" -c \"{command}\""));
        }
        page.command(job, &line);
        let output = run(&mut psql)?;
        page.output(&output);
        Ok(output)
    }

    /// A Python program in the unit of `job`, shown.
    pub fn python(
        &self,
        page: &Page,
        job: &str,
        name: &str,
        program: &str,
        argument: &str,
    ) -> Result<Output> {
        page.command(job, &format!("python3 {name} \"{argument}\""));
        let output = run(self
            .job(job)?
            .command(python())
            .args(["-c", program, argument]))?;
        page.output(&output);
        Ok(output)
    }

    fn job(&self, name: &str) -> Result<Workload> {
        self.agent.cgroup.unit(&format!("{name}.service"))
    }

    /// How a person runs psql as `job`.
    pub fn by_hand(&self, job: &str) -> String {
        let cgroup = self
            .agent
            .cgroup
            .path()
            .join(format!("system.slice/{job}.service"));
        format!(
            "sh -c 'echo $$ > {}/cgroup.procs; exec psql -h {} -U {USER} shop'",
            cgroup.display(),
            self.address()
        )
    }

    /// How a person asks this agent.
    pub fn cli(&self) -> String {
        let binary = lockgate_tests::root().join("target/release/lockgate");
        format!(
            "{} status --config {}",
            binary.display(),
            self.agent.config().display()
        )
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.neighbour.kill();
        let _ = self.neighbour.wait();
    }
}

fn config(postgres: &Postgres, clickhouse: &ClickHouse) -> AgentConfig {
    let address = postgres.address();
    let body = format!(
        r#"
[[target]]
name = "orders-db"
protocol = "postgres"
match = ["{address}:5432"]
tags = [{{ columns = "public.customers.ssn", tag = "pii", mask = {{ keep_last = 4 }} }}]
credentials = [
  {{ workload = "nightly-report", user = "report_ro", password = {{ file = "SECRETS/report_ro" }} }},
  {{ workload = "support", user = "app_rw", password = {{ file = "SECRETS/app_rw" }} }},
]

[[workload]]
name = "nightly-report"
unit = "nightly-report.service"

[[workload]]
name = "support"
unit = "support.service"
"#
    );
    let secret = |role: &str| (role.to_owned(), format!("s3cret-{role}"));
    AgentConfig {
        body,
        policies: POLICIES.into(),
        secrets: vec![secret("report_ro"), secret("app_rw")],
        audit: format!("clickhouse = {{ url = \"{}\" }}", clickhouse.url()),
        ..AgentConfig::default()
    }
}

/// Says hello to who connects, by the address it sees.
fn neighbour(postgres: &Postgres) -> Result<Child> {
    let program = "import socket\n\
                   s = socket.create_server(('', 5433))\n\
                   print('up', flush=True)\n\
                   while True:\n\
                   \x20   c, (a, *_) = s.accept()\n\
                   \x20   c.sendall(f'hello, {a}'.encode())\n\
                   \x20   c.close()\n";
    let mut child = Command::new("ip")
        .args([
            "netns",
            "exec",
            postgres.namespace().name(),
            "python3",
            "-c",
            program,
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(stdout) = &mut child.stdout {
        // Until it listens.
        std::io::Read::read_exact(stdout, &mut [0; 3])?;
    }
    Ok(child)
}

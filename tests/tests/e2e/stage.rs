use lockgate_tests::{Agent, AgentConfig, Output, Postgres, PostgresConfig, Workload};

/// A server, an agent in front of it, and two workloads: `report` may read,
/// `app` may read and write.
pub struct Stage {
    pub agent: Agent,
    pub postgres: Postgres,
    pub report: Workload,
    pub app: Workload,
}

pub const POLICIES: &str = r#"
@id("report-reads")
permit (principal == Workload::"report", action in [Action::"use", Action::"read"], resource in Target::"orders-db");
@id("app-reads-and-writes")
permit (principal == Workload::"app", action in [Action::"use", Action::"read", Action::"write"], resource in Target::"orders-db");
@id("owner-does-all")
permit (principal == Workload::"owner", action, resource in Target::"orders-db");
"#;

/// The configuration that stands for [`Stage`], with `more` in the target.
pub fn config(postgres: &Postgres, more: &str) -> AgentConfig {
    let body = format!(
        "[[target]]\nname = \"orders-db\"\nprotocol = \"postgres\"\n\
         match = [\"{}:5432\", \"[{}]:5432\"]\n{more}\n\
         credentials = [\n\
         {{ workload = \"report\", user = \"report_ro\", password = {{ file = \"SECRETS/report\" }} }},\n\
         {{ workload = \"app\", user = \"app_rw\", password = {{ file = \"SECRETS/app\" }} }},\n\
         {{ workload = \"owner\", user = \"owner\", password = {{ file = \"SECRETS/owner\" }} }},\n]\n\
         [[workload]]\nname = \"report\"\nunit = \"report.service\"\n\
         [[workload]]\nname = \"app\"\nunit = \"app.service\"\n\
         [[workload]]\nname = \"owner\"\nunit = \"owner.service\"\n",
        postgres.address(),
        postgres.address6()
    );
    AgentConfig {
        body,
        policies: POLICIES.into(),
        secrets: vec![
            ("report".into(), "s3cret-report_ro".into()),
            ("app".into(), "s3cret-app_rw".into()),
            ("owner".into(), "s3cret-owner".into()),
        ],
        ..AgentConfig::default()
    }
}

impl Stage {
    pub fn new() -> Self {
        Self::with("", &PostgresConfig::default())
    }

    /// With `more` in the target, and a server set up so.
    pub fn with(more: &str, server: &PostgresConfig) -> Self {
        let postgres = Postgres::start(server).unwrap();
        let agent = Agent::start(&config(&postgres, more)).unwrap();
        Self::over(agent, postgres)
    }

    pub fn over(agent: Agent, postgres: Postgres) -> Self {
        let report = agent.cgroup.unit("report.service").unwrap();
        let app = agent.cgroup.unit("app.service").unwrap();
        Self {
            agent,
            postgres,
            report,
            app,
        }
    }

    /// A connection string; user and password are whatever the client believes.
    pub fn dsn(&self, more: &str) -> String {
        let address = self.postgres.address();
        format!("host={address} dbname=shop user=whoever password=outdated {more}")
    }

    pub fn psql(&self, workload: &Workload, commands: &[&str]) -> Output {
        workload.psql(&self.dsn(""), commands).unwrap()
    }

    pub fn python(&self, workload: &Workload, program: &str) -> Output {
        let head = "import psycopg, sys\ndsn = sys.argv[1]\n";
        workload
            .python(&format!("{head}{program}"), &[&self.dsn("")])
            .unwrap()
    }
}

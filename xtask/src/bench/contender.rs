//! What is measured, and what all of it leads to.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lockgate_tests::{Agent, AgentConfig, Postgres, PostgresConfig, Workload};

/// A way to the server.
#[derive(Debug)]
pub struct Contender {
    /// `direct`, `haproxy`, `pgbouncer`, `lockgate`.
    pub name: &'static str,
    /// Where clients connect to.
    pub host: String,
    /// On which port.
    pub port: u16,
    /// The proxy's processes; none for `direct`.
    pub pids: Vec<u32>,
    /// The unit that clients run in; none for outside of lockgate's reach.
    workload: Option<Workload>,
}

impl Contender {
    /// A client program of this contender's.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.workload {
            Some(workload) => workload.command(program),
            None => Command::new(program),
        };
        command.env("PGPASSWORD", "s3cret-app_rw");
        // lockgate offers TLS to whoever would like it, and others here do not:
        // that would compare two things.
        command.env("PGSSLMODE", "disable");
        command
    }
}

/// The server and everything in front of it.
#[derive(Debug)]
pub struct Stand {
    contenders: Vec<Contender>,
    others: Vec<Child>,
    // Dropped in this order: the agent before its server.
    agent: Agent,
    postgres: Postgres,
    _dir: tempfile::TempDir,
}

const TABLES: &str = "
create table pgbench_accounts(aid int primary key, bid int, abalance int, filler char(84));
insert into pgbench_accounts select g, 1, 0, '' from generate_series(1, 1000000) g;
create table pgbench_branches(bid int primary key, bbalance int, filler char(88));
insert into pgbench_branches select g, 0, '' from generate_series(1, 10) g;
create table pgbench_tellers(tid int primary key, bid int, tbalance int, filler char(84));
insert into pgbench_tellers select g, 1, 0, '' from generate_series(1, 100) g;
create table pgbench_history(tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
create table bulk_open(id int primary key, a text, b text, c text, d text, e text, f text, g text, h text, i text);
insert into bulk_open select g, md5(g::text), 'b' || g, md5(g::text), 'd' || g, md5(g::text), 'f' || g, md5(g::text), 'h' || g, md5(g::text)
    from generate_series(1, 2000) g;
create table bulk_tagged(like bulk_open including all);
insert into bulk_tagged select * from bulk_open;
grant select on all tables in schema public to app_rw;
analyze;
";

impl Stand {
    /// Starts it all.
    pub fn build() -> Result<Self> {
        let postgres = Postgres::start(&PostgresConfig {
            settings: "max_connections = 500\nshared_buffers = 512MB\n".into(),
            ..PostgresConfig::default()
        })?;
        postgres.admin("shop", TABLES)?;
        let dir = tempfile::Builder::new()
            .prefix("lockgate-bench-")
            .tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let agent = Agent::start(&agent_config(&postgres))?;
        let mut stand = Self {
            contenders: Vec::new(),
            others: Vec::new(),
            agent,
            postgres,
            _dir: dir,
        };
        stand.line_up()?;
        Ok(stand)
    }

    fn line_up(&mut self) -> Result<()> {
        let address = self.postgres.address().to_owned();
        let dir = self._dir.path().to_owned();
        let direct = |name, pids, workload| Contender {
            name,
            host: address.clone(),
            port: 5432,
            pids,
            workload,
        };
        let agent = &self.agent;
        let mut pids = vec![];
        for role in ["gate", "proxy", "keeper"] {
            pids.push(agent.pid(role)?);
        }
        let workload = agent.cgroup.unit("app.service")?;
        let lockgate = direct("lockgate", pids, Some(workload));
        let direct = direct("direct", Vec::new(), None);
        let (haproxy, haproxy_port) = haproxy(&dir, &address)?;
        let haproxy_pid = haproxy.id();
        self.others.push(haproxy);
        let (pgbouncer, pgbouncer_port) = pgbouncer(&dir, &address)?;
        let pgbouncer_pid = pgbouncer.id();
        self.others.push(pgbouncer);
        let local = |name, port, pid| Contender {
            name,
            host: "127.0.0.1".into(),
            port,
            pids: vec![pid],
            workload: None,
        };
        self.contenders = vec![
            direct,
            local("haproxy", haproxy_port, haproxy_pid),
            local("pgbouncer", pgbouncer_port, pgbouncer_pid),
            lockgate,
        ];
        Ok(())
    }

    pub fn contenders(&self) -> &[Contender] {
        &self.contenders
    }

    /// The one that it is about.
    pub fn lockgate(&self) -> Result<&Contender> {
        self.contenders.last().context("they were lined up")
    }

    /// The last of what lockgate logged.
    pub fn log(&self) -> String {
        let log = self.agent.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// What the server says it is.
    pub fn server_version(&self) -> Result<String> {
        self.postgres.admin("shop", "show server_version")
    }

    /// Size of what COPY moves, in bytes, as text.
    pub fn copied_bytes(&self) -> u64 {
        // `aid`, three tabs, `1`, `0`, 84 blanks and a line break, a million times.
        6_888_896 + 1_000_000 * (3 + 1 + 1 + 84 + 1)
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for other in &mut self.others {
            let _ = other.kill();
            let _ = other.wait();
        }
    }
}

fn agent_config(postgres: &Postgres) -> AgentConfig {
    let body = format!(
        "[[target]]\nname = \"bench\"\nprotocol = \"postgres\"\nmatch = [\"{}:5432\"]\n\
         tags = [\n{{ columns = \"public.bulk_tagged.a\", tag = \"pii\", mask = {{ keep_last = 4 }} }},\n\
         {{ columns = \"public.bulk_tagged.f\", tag = \"pii\", mask = {{ keep_first = 2 }} }},\n]\n\
         credentials = [{{ workload = \"app\", user = \"app_rw\", \
         password = {{ file = \"SECRETS/app\" }} }}]\n\
         [[workload]]\nname = \"app\"\nunit = \"app.service\"\n",
        postgres.address()
    );
    AgentConfig {
        body,
        policies: "@id(\"app-reads\") permit (principal == Workload::\"app\", \
                   action in [Action::\"use\", Action::\"read\"], resource in Target::\"bench\");"
            .into(),
        secrets: vec![("app".into(), "s3cret-app_rw".into())],
        log: Some("info"),
        ..AgentConfig::default()
    }
}

fn haproxy(dir: &Path, address: &str) -> Result<(Child, u16)> {
    let port = free_port()?;
    let config = dir.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
         timeout client 1h\n  timeout server 1h\nfrontend f\n  bind 127.0.0.1:{port}\n  \
         default_backend b\nbackend b\n  server s {address}:5432\n"
    );
    fs::write(&config, text)?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(&config);
    start(command, dir.join("haproxy.log"), port)
}

fn pgbouncer(dir: &Path, address: &str) -> Result<(Child, u16)> {
    let port = free_port()?;
    let config = dir.join("pgbouncer.ini");
    let users = dir.join("users.txt");
    fs::write(&users, "\"app_rw\" \"s3cret-app_rw\"\n")?;
    let text = format!(
        "[databases]\nshop = host={address} port=5432 dbname=shop\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n\
         auth_file = {}\npool_mode = session\nmax_client_conn = 1000\ndefault_pool_size = 400\n\
         log_connections = 0\nlog_disconnections = 0\n",
        users.display()
    );
    fs::write(&config, text)?;
    // It refuses to run as root.
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "/usr/sbin/pgbouncer",
    ]);
    command.arg(&config);
    start(command, dir.join("pgbouncer.log"), port)
}

fn start(mut command: Command, log: PathBuf, port: u16) -> Result<(Child, u16)> {
    let out = fs::File::create(&log)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline || child.try_wait()?.is_some() {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "{command:?} does not listen: {}",
                fs::read_to_string(log).unwrap_or_default()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((child, port))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use lockgate_tests::{Agent, Output, Postgres, PostgresConfig, Workload, python, root, run};
use serde_json::Value;

use crate::stage;

/// What a user would write: who reports reads, an application reads and
/// writes, and a deployment also changes the schema.
pub const POLICIES: &str = r#"
@id("reports-read")
permit (principal == Workload::"report", action in [Action::"use", Action::"read"], resource in Target::"orders-db");
@id("app-reads-and-writes")
permit (principal == Workload::"app", action in [Action::"use", Action::"read", Action::"write"], resource in Target::"orders-db");
@id("deployment-migrates")
permit (principal == Workload::"owner", action in [Action::"use", Action::"read", Action::"write", Action::"schema"], resource in Target::"orders-db");
"#;

/// Whom a client works for: the workload, and the role it has at the server.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    Report,
    App,
    Owner,
}

impl Who {
    fn role(self) -> &'static str {
        match self {
            Self::Report => "report_ro",
            Self::App => "app_rw",
            Self::Owner => "owner",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Report => "report.service",
            Self::App => "app.service",
            Self::Owner => "owner.service",
        }
    }
}

/// A server with the database that the clients work on, which can be had anew,
/// and an agent before it for workloads in its cgroup.
pub struct Host {
    pub agent: Agent,
    pub postgres: Postgres,
    /// How often clients ran behind lockgate: each has connected.
    runs: AtomicUsize,
}

impl Host {
    pub fn new() -> Self {
        Self::with(POLICIES, "")
    }

    /// With other policies, and `more` in the target.
    pub fn with(policies: &str, more: &str) -> Self {
        let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
        postgres
            .admin("postgres", "create database pristine")
            .unwrap();
        postgres
            .admin("pristine", &fs::read_to_string(file("shop.sql")).unwrap())
            .unwrap();
        renew(&postgres);
        let mut config = stage::config(&postgres, more);
        config.policies = policies.into();
        let agent = Agent::start(&config).unwrap();
        let runs = AtomicUsize::new(0);
        Self {
            agent,
            postgres,
            runs,
        }
    }

    /// Runs a client without lockgate.
    pub fn direct(&self, client: &Client, who: Who) -> Output {
        let password = format!("s3cret-{}", who.role());
        let mut command = Command::new(&client.program);
        self.run(client, &mut command, who, &password)
    }

    /// Runs a client behind lockgate, with a password that is worth nothing.
    pub fn intercepted(&self, client: &Client, who: Who) -> Output {
        let mut command = self.workload(who).command(&client.program);
        self.runs.fetch_add(1, Relaxed);
        self.run(client, &mut command, who, "outdated")
    }

    pub fn workload(&self, who: Who) -> Workload {
        self.agent.cgroup.unit(who.unit()).unwrap()
    }

    fn run(&self, client: &Client, command: &mut Command, who: Who, password: &str) -> Output {
        command
            .args(&client.arguments)
            .envs(client.environment.iter().cloned())
            .env("PGHOST", self.postgres.address())
            .env("PGUSER", who.role())
            .env("PGPASSWORD", password)
            .env("PGDATABASE", "shop")
            .env("HOME", "/nonexistent")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(match &client.stdin {
                Some(path) => File::open(path).unwrap().into(),
                None => Stdio::null(),
            });
        run(command).unwrap()
    }

    /// The database as it was at first.
    pub fn renew(&self) {
        renew(&self.postgres);
    }

    /// Runs each client in turn, directly and behind lockgate, on databases
    /// that are alike: they say the same, and lockgate denies nothing.
    pub fn works_the_same(&self, clients: &[(&Client, Who)]) {
        let direct: Vec<_> = clients
            .iter()
            .map(|(client, who)| self.direct(client, *who))
            .collect();
        self.renew();
        for ((client, who), direct) in clients.iter().zip(direct) {
            assert!(direct.ok(), "{direct:?}");
            let intercepted = self.intercepted(client, *who);
            let differences = differences(
                &client.comparable(&direct),
                &client.comparable(&intercepted),
            );
            assert!(
                differences.is_empty() && intercepted.ok(),
                "{differences}\n{:#?}",
                self.denials()
            );
        }
        let denials = self.denials();
        assert!(denials.is_empty(), "{denials:#?}");
    }

    /// Runs the client's forbidden script; what it prints is `expected`, and
    /// the server has kept what was to be removed.
    pub fn is_told(&self, client: &Client, expected: &str) {
        self.renew();
        let output = self.intercepted(client, Who::App);
        assert_eq!(output.stdout.trim(), expected.trim(), "{output:?}");
        assert_eq!(self.postgres.count("sale_lines").unwrap(), 120);
    }

    /// What was denied or refused so far, once every connection has ended.
    pub fn denials(&self) -> Vec<Value> {
        let events = self.events();
        events
            .into_iter()
            .filter(|event| event["verdict"] == "deny" || event["kind"] == "refused")
            .collect()
    }

    /// The record, once every client's connection is in it, and its end.
    pub fn events(&self) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let events = self.agent.events(&[], 1).unwrap();
            let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
            let connected = of("connected");
            if connected >= self.runs.load(Relaxed) && connected == of("closed") {
                return events;
            }
            assert!(Instant::now() < deadline, "connections go on: {events:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn renew(postgres: &Postgres) {
    postgres
        .admin("postgres", "drop database shop with (force)")
        .unwrap();
    postgres
        .admin("postgres", "create database shop template pristine")
        .unwrap();
}

/// How a client is started.
#[derive(Clone, Debug)]
pub struct Client {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Option<PathBuf>,
    /// Lines that differ by their nature have this in them.
    volatile: &'static [&'static str],
}

impl Client {
    pub fn new(program: impl AsRef<Path>, arguments: &[&str]) -> Self {
        Self {
            program: program.as_ref().into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: Vec::new(),
            stdin: None,
            volatile: &[],
        }
    }

    /// A Python script of the clients' folder.
    pub fn python(script: &str, arguments: &[&str]) -> Self {
        let mut client = Self::new(python(), &[]);
        client.arguments.push(file(script).into());
        client
            .arguments
            .extend(arguments.iter().map(OsString::from));
        client
    }

    /// A JavaScript of the clients' folder.
    pub fn node(script: &str, arguments: &[&str]) -> Self {
        let mut client = Self::new("node", &[]);
        client.arguments.push(file(script).into());
        client
            .arguments
            .extend(arguments.iter().map(OsString::from));
        let modules = root().join("target/tools/node/node_modules");
        client
            .environment
            .push(("NODE_PATH".into(), modules.into()));
        client
    }

    pub fn reads(mut self, script: &str) -> Self {
        self.stdin = Some(file(script));
        self
    }

    pub fn volatile(mut self, lines: &'static [&'static str]) -> Self {
        self.volatile = lines;
        self
    }

    fn comparable(&self, output: &Output) -> Vec<String> {
        let all = output.all();
        let volatile = |line: &str| self.volatile.iter().any(|part| line.contains(part));
        let lines = all.lines().filter(|line| !volatile(line));
        lines.map(str::to_owned).collect()
    }
}

/// The first lines that are not the same.
fn differences(direct: &[String], intercepted: &[String]) -> String {
    let count = direct.len().max(intercepted.len());
    let line = |lines: &[String], number: usize| {
        let line = lines.get(number);
        line.map_or("(nothing)", String::as_str).to_owned()
    };
    let pairs = (0..count).map(|number| (line(direct, number), line(intercepted, number)));
    let differing = pairs.filter(|(direct, intercepted)| direct != intercepted);
    differing
        .take(5)
        .map(|(direct, intercepted)| format!("directly:    {direct}\nintercepted: {intercepted}\n"))
        .collect()
}

/// A file of the clients' folder.
pub fn file(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Cgroup, Output, root, run};

/// What an agent of a test is told.
#[derive(Clone, Debug, Default)]
pub struct AgentConfig {
    /// `[[target]]` and `[[workload]]` sections. `SECRETS` stands for the folder
    /// of secrets.
    pub body: String,
    /// Cedar text.
    pub policies: String,
    /// Name and content of secrets.
    pub secrets: Vec<(String, String)>,
    /// Lines of `[audit]`.
    pub audit: String,
    /// Lines of `[limits]`.
    pub limits: String,
    /// Further network namespaces.
    pub namespaces: Vec<PathBuf>,
    /// A capability that it does not get, as setpriv(1) calls it.
    pub without: Option<&'static str>,
    /// What it logs, where LOCKGATE_LOG does not say; all of it without.
    pub log: Option<&'static str>,
}

/// A running agent with everything its own: cgroup, pins, state.
#[derive(Debug)]
pub struct Agent {
    process: Option<Child>,
    dir: TempDir,
    /// Where its workloads run.
    pub cgroup: Cgroup,
    pins: PathBuf,
    metrics: u16,
    without: Option<&'static str>,
    log_level: &'static str,
}

/// The binary under test.
pub fn binary() -> PathBuf {
    root().join("target/release/lockgate")
}

impl Agent {
    /// Starts one; ready when this returns.
    pub fn start(config: &AgentConfig) -> Result<Self> {
        let mut agent = Self::prepare(config)?;
        agent.launch()?;
        Ok(agent)
    }

    /// Writes its files but does not start it.
    pub fn prepare(config: &AgentConfig) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("lockgate-agent-")
            .tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let cgroup = Cgroup::new()?;
        let name = cgroup.path().file_name().context("a cgroup has a name")?;
        let pins = Path::new("/sys/fs/bpf").join(name);
        let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let agent = Self {
            process: None,
            cgroup,
            pins,
            metrics,
            log_level: config.log.unwrap_or("debug"),
            without: config.without,
            dir,
        };
        for folder in ["policies", "secrets"] {
            fs::create_dir_all(agent.path(folder))?;
        }
        for (name, secret) in &config.secrets {
            agent.write_secret(name, secret)?;
        }
        agent.write(config)?;
        Ok(agent)
    }

    /// Writes configuration and policies anew.
    pub fn write(&self, config: &AgentConfig) -> Result<()> {
        let at = self.dir.path().display();
        let namespaces: Vec<String> = config
            .namespaces
            .iter()
            .map(|path| format!("{:?}", path.display().to_string()))
            .collect();
        let text = format!(
            "[agent]\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\npolicies = \"{at}/policies\"\n\
             [kernel]\ncgroup = \"{}\"\npins = \"{}\"\nnamespaces = [{}]\n\
             [metrics]\nlisten = \"127.0.0.1:{}\"\n\
             [audit]\n{}\n[limits]\n{}\n{}",
            self.cgroup.path().display(),
            self.pins.display(),
            namespaces.join(", "),
            self.metrics,
            config.audit,
            config.limits,
            config.body.replace("SECRETS", &format!("{at}/secrets"))
        );
        fs::write(self.config(), text)?;
        fs::write(self.path("policies/test.cedar"), &config.policies)?;
        Ok(())
    }

    /// Writes a secret.
    pub fn write_secret(&self, name: &str, secret: &str) -> Result<()> {
        let path = self.path("secrets").join(name);
        fs::write(&path, format!("{secret}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Starts it and waits until it is ready.
    pub fn launch(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))?;
        let mut command = match self.without {
            None => Command::new(binary()),
            Some(capability) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--bounding-set=-{capability}"));
                command.arg(format!("--inh-caps=-{capability}"));
                command.arg(binary());
                command
            }
        };
        let process = command
            .args(["run", "--config"])
            .arg(self.config())
            .env(
                "LOCKGATE_LOG",
                std::env::var("LOCKGATE_LOG").unwrap_or_else(|_| self.log_level.into()),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("target/release/lockgate; run `cargo build --release`")?;
        self.process = Some(process);
        self.wait_until("ready", |status| status["gate"]["lease_held"] == true)
    }

    /// Waits until its status is as `wanted`, for ten seconds.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Ok(status) = self.status()
                && wanted(&status)
            {
                return Ok(());
            }
            // One that cannot start says so at once.
            if self.has_ended() || Instant::now() > deadline {
                bail!("the agent is not {what}; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Whether it waits to be reaped.
    fn has_ended(&self) -> bool {
        let stat = |process: &Child| fs::read_to_string(format!("/proc/{}/stat", process.id()));
        let stat = self.process.as_ref().and_then(|process| stat(process).ok());
        stat.is_some_and(|stat| stat.contains(") Z "))
    }

    /// Its file.
    pub fn config(&self) -> PathBuf {
        self.path("lockgate.toml")
    }

    /// Something in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Port of its metrics endpoint.
    pub fn metrics_port(&self) -> u16 {
        self.metrics
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs a command of the binary with its configuration.
    pub fn lockgate(&self, arguments: &[&str]) -> Result<Output> {
        run(Command::new(binary())
            .args(arguments)
            .arg("--config")
            .arg(self.config()))
    }

    /// Its status.
    pub fn status(&self) -> Result<Value> {
        let output = self.lockgate(&["status", "--json"])?;
        Ok(serde_json::from_str(&output.stdout)?)
    }

    /// pid of one of the three.
    pub fn pid(&self, role: &str) -> Result<u32> {
        let pid = self.status()?[role]["pid"].as_u64();
        pid.map(|pid| pid as u32)
            .with_context(|| format!("{role} is not there"))
    }

    /// Kills one of the three, as hard as can be.
    pub fn kill(&self, role: &str) -> Result<()> {
        let pid = self.pid(role)?;
        crate::sh(&format!("kill -9 {pid}")).map(drop)
    }

    /// Kills the parent.
    pub fn kill_parent(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Events of the record that match, once at least `least` are there.
    pub fn events(&self, arguments: &[&str], least: usize) -> Result<Vec<Value>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let output = self.lockgate(
                &[
                    &["audit", "search", "--json", "--limit", "100000"],
                    arguments,
                ]
                .concat(),
            )?;
            let events: Vec<Value> = output
                .stdout
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            if events.len() >= least {
                return Ok(events);
            }
            if Instant::now() > deadline {
                bail!("{} events, not {least}: {}", events.len(), output.all());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let pid = process.id();
            // Orderly first, so that nothing of it is left in the kernel.
            let _ = run(Command::new(binary())
                .args(["stop", "--release", "--config"])
                .arg(self.dir.path().join("lockgate.toml")));
            for _ in 0..100 {
                if matches!(process.try_wait(), Ok(Some(_))) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = crate::sh(&format!("kill -9 {pid} 2>/dev/null || true"));
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.pins);
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the agent's log ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lockgate_config::{Bundle, Config};
use lockgate_ipc::{Channel, Order, Report, Role, pair, to_memfd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use super::host::HostSetup;
use crate::role::Setup;

/// How long a child may take for an answer. Loading programs and migrating a
/// store are the longest.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of the three processes.
pub(super) struct Child {
    role: Role,
    pid: u32,
    channel: Channel,
    started: Instant,
}

/// A child has ended.
pub(super) struct Ended {
    pub(super) role: Role,
    pub(super) pid: u32,
    pub(super) status: ExitStatus,
}

impl Child {
    /// Starts this binary again in `role`.
    pub(super) fn spawn(
        role: Role,
        host: &HostSetup,
        config: &Config,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> anyhow::Result<Self> {
        let (near, far) = pair()?;
        let metrics = match role {
            Role::Keeper => host.metrics_listener()?,
            Role::Gate | Role::Proxy => None,
        };
        for fd in [Some(&far), metrics.as_ref()].into_iter().flatten() {
            // For this one child; nothing else is started meanwhile.
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        let setup = Setup {
            channel: far.as_raw_fd(),
            parent: std::process::id(),
            user: host.user_of(role),
            state_dir: config.agent.state_dir.clone(),
            metrics: metrics.as_ref().map(AsRawFd::as_raw_fd),
            host: host.name.clone(),
            boot: host.boot,
            log: config.agent.log,
        };
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command
            .args(["internal", role.as_str(), &serde_json::to_string(&setup)?])
            .env_clear()
            .stdin(std::process::Stdio::null());
        for name in ["LOCKGATE_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut process = command
            .spawn()
            .context("this binary cannot be started again")?;
        drop((far, metrics));
        let pid = process.id().context("it ended at once")?;
        tokio::spawn(async move {
            if let Ok(status) = process.wait().await {
                // The agent may be ending itself.
                let _ = ended.send(Ended { role, pid, status });
            }
        });
        Ok(Self {
            role,
            pid,
            channel: Channel::new(near)?,
            started: Instant::now(),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) async fn send(&self, order: &Order, fd: Option<OwnedFd>) -> anyhow::Result<()> {
        self.channel
            .send(order, fd)
            .await
            .with_context(|| format!("{} takes no orders", self.role.as_str()))
    }

    async fn report(&self) -> anyhow::Result<Report> {
        let report = tokio::time::timeout(PATIENCE, self.channel.receive::<Report>()).await;
        let who = self.role.as_str();
        match report {
            Err(_) => bail!("{who} did not answer within {} s", PATIENCE.as_secs()),
            Ok(Err(error)) => {
                // It closes its channel before it says why.
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(error).with_context(|| format!("{who} ended; its log lines are above"))
            }
            Ok(Ok((Report::Fatal(why), _))) => bail!("{who}: {why}"),
            Ok(Ok((report, _))) => Ok(report),
        }
    }

    pub(super) async fn expect_ready(&self) -> anyhow::Result<()> {
        match self.report().await? {
            Report::Ready => Ok(()),
            other => bail!("{} said {other:?} before it was ready", self.role.as_str()),
        }
    }

    /// Hands over a configuration to be checked.
    pub(super) async fn prepare(&self, bundle: &Bundle) -> anyhow::Result<Result<(), String>> {
        let fd = to_memfd("bundle", &serde_json::to_vec(bundle)?)?;
        self.send(&Order::Prepare, Some(fd)).await?;
        match self.report().await? {
            Report::Prepared(result) => Ok(result),
            other => bail!("{} said {other:?} to a configuration", self.role.as_str()),
        }
    }

    /// What was prepared is used from now.
    pub(super) async fn commit(&self) -> anyhow::Result<()> {
        self.send(&Order::Commit, None).await?;
        match self.report().await? {
            Report::Committed => Ok(()),
            other => bail!("{} said {other:?} to a commit", self.role.as_str()),
        }
    }

    pub(super) async fn status(&self) -> anyhow::Result<serde_json::Value> {
        self.send(&Order::Status, None).await?;
        match self.report().await? {
            Report::Status(status) => Ok(serde_json::from_str(&status)?),
            other => bail!("{} said {other:?} for its status", self.role.as_str()),
        }
    }

    pub(super) fn kill(&self) {
        // It may have ended already.
        let _ = kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL);
    }
}

/// Waits between restarts: 300 ms, doubling to 5 s; from the beginning after
/// ten seconds of life.
#[derive(Default)]
pub(super) struct Backoff {
    restarts: u32,
}

impl Backoff {
    pub(super) fn lived(&mut self, age: Duration) {
        if age >= Duration::from_secs(10) {
            self.restarts = 0;
        }
    }

    pub(super) fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(300) * 2u32.pow(self.restarts.min(5));
        self.restarts += 1;
        wait.min(Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_seconds_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..6).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [300, 600, 1200, 2400, 4800, 5000]);
        backoff.lived(Duration::from_secs(1));
        assert_eq!(backoff.next().as_millis(), 5000);
        backoff.lived(Duration::from_secs(10));
        assert_eq!(backoff.next().as_millis(), 300);
    }
}

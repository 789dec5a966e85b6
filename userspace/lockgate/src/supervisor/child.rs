use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lockgate_config::{Bundle, Secrets};
use lockgate_ipc::{Channel, Order, Report, Role, pair, to_memfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::Event;
use super::host::HostSetup;
use crate::role::Setup;

/// How long a child may take to start or to change its configuration. Loading
/// programs and migrating a store are the longest.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a child may take to say how it is.
const STATUS: Duration = Duration::from_secs(2);

/// One of the three processes. Ends with this.
pub(super) struct Child {
    role: Role,
    pid: u32,
    /// Of this process and no later one of the same number.
    pidfd: OwnedFd,
    channel: Channel,
    /// Answers that came too late and are to be passed over.
    late: Cell<u32>,
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
        events: mpsc::UnboundedSender<Event>,
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
            state_dir: host.agent.state_dir.clone(),
            metrics: metrics.as_ref().map(AsRawFd::as_raw_fd),
            host: host.name.clone(),
            boot: host.boot,
            log: host.agent.log,
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
        let own = Pid::from_raw(pid as i32).context("a pid is not 0")?;
        // Nobody has waited for it yet, so the number is still its own.
        let pidfd = pidfd_open(own, PidfdFlags::empty())?;
        tokio::spawn(async move {
            if let Ok(status) = process.wait().await {
                // The agent may be ending itself.
                let _ = events.send(Event::Ended(Ended { role, pid, status }));
            }
        });
        Ok(Self {
            role,
            pid,
            pidfd,
            channel: Channel::new(near)?,
            late: Cell::new(0),
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

    async fn report(&self, patience: Duration) -> anyhow::Result<(Report, Option<OwnedFd>)> {
        let who = self.role.as_str();
        let next = async {
            while self.late.get() > 0 {
                self.channel.receive::<Report>().await?;
                self.late.set(self.late.get() - 1);
            }
            self.channel.receive::<Report>().await
        };
        match tokio::time::timeout(patience, next).await {
            Err(_) => {
                self.late.set(self.late.get() + 1);
                bail!("{who} did not answer within {} s", patience.as_secs())
            }
            Ok(Err(error)) => {
                // It closes its channel before it says why.
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(error).with_context(|| format!("{who} ended; its log lines are above"))
            }
            Ok(Ok((Report::Fatal(why), _))) => bail!("{who}: {why}"),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    pub(super) async fn expect_ready(&self) -> anyhow::Result<()> {
        match self.report(PATIENCE).await?.0 {
            Report::Ready => Ok(()),
            other => bail!("{} said {other:?} before it was ready", self.role.as_str()),
        }
    }

    /// Hands over a configuration to be checked, and the secrets that it needs.
    /// The inner error is the child's refusal.
    pub(super) async fn prepare(
        &self,
        bundle: &Bundle,
        secrets: &Secrets,
    ) -> anyhow::Result<Result<(), String>> {
        let own = match self.role {
            Role::Keeper => Some(Zeroizing::new(serde_json::to_vec(secrets)?)),
            Role::Proxy => secrets.mask_key(),
            Role::Gate => None,
        };
        if let Some(own) = own {
            let fd = to_memfd("secrets", &own)?;
            self.send(&Order::Secrets, Some(fd)).await?;
        }
        let fd = to_memfd("bundle", &serde_json::to_vec(bundle)?)?;
        self.send(&Order::Prepare, Some(fd)).await?;
        match self.report(PATIENCE).await?.0 {
            Report::Prepared(result) => Ok(result),
            other => bail!("{} said {other:?} to a configuration", self.role.as_str()),
        }
    }

    /// What was prepared is used from now.
    pub(super) async fn commit(&self) -> anyhow::Result<()> {
        self.send(&Order::Commit, None).await?;
        match self.report(PATIENCE).await?.0 {
            Report::Committed => Ok(()),
            other => bail!("{} said {other:?} to a commit", self.role.as_str()),
        }
    }

    pub(super) async fn status(&self) -> anyhow::Result<serde_json::Value> {
        self.send(&Order::Status, None).await?;
        let (report, fd) = self.report(STATUS).await?;
        match report.into_status(fd)? {
            Some(status) => Ok(serde_json::from_str(&status)?),
            None => bail!("{} said something else for its status", self.role.as_str()),
        }
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits between restarts: 50 ms, doubling to 800 ms; from the beginning after
/// three seconds of life.
#[derive(Default)]
pub(super) struct Backoff {
    restarts: u32,
}

impl Backoff {
    pub(super) fn lived(&mut self, age: Duration) {
        if age >= Duration::from_secs(3) {
            self.restarts = 0;
        }
    }

    pub(super) fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(50) * 2u32.pow(self.restarts.min(4));
        self.restarts += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..6).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 800]);
        backoff.lived(Duration::from_secs(1));
        assert_eq!(backoff.next().as_millis(), 800);
        backoff.lived(Duration::from_secs(3));
        assert_eq!(backoff.next().as_millis(), 50);
    }
}

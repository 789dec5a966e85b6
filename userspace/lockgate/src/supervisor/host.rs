use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::{Context, bail};
use lockgate_config::Config;
use lockgate_ipc::Role;
use nix::mount::{MsFlags, mount};
use nix::unistd::User;
use rustix::fs::FlockOperation;
use uuid::Uuid;

/// What the parent finds or makes on the host before it starts anything.
pub(super) struct HostSetup {
    pub(super) name: String,
    pub(super) boot: Uuid,
    proxy: (u32, u32),
    keeper: (u32, u32),
    metrics: Option<TcpListener>,
    /// Held as long as the agent runs: one for each state folder.
    _lock: File,
}

impl HostSetup {
    /// Checks that this process may do what it must, mounts what is missing,
    /// and makes the folders.
    pub(super) fn prepare(config: &Config) -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "`lockgate run` needs root: it loads eBPF programs and enters network namespaces"
            );
        }
        for (kind, at) in [("bpf", "/sys/fs/bpf"), ("tracefs", "/sys/kernel/tracing")] {
            mount_if_missing(kind, at)?;
        }
        let agent = &config.agent;
        let (proxy, keeper) = (user(&agent.proxy_user)?, user(&agent.keeper_user)?);
        if proxy.0 == keeper.0 {
            bail!(
                "agent.proxy_user and agent.keeper_user must be two users: who reads hostile bytes must not hold secrets"
            );
        }
        folder(&agent.run_dir, 0o755, None)?;
        folder(&agent.state_dir, 0o700, Some(keeper))?;
        let lock = File::create(agent.run_dir.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("another agent runs with this agent.run_dir; `lockgate stop` ends it")?;
        let metrics = match config.metrics.listen {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address).with_context(|| format!("metrics.listen {address}"))?,
            ),
        };
        Ok(Self {
            name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .parse()?,
            proxy,
            keeper,
            metrics,
            _lock: lock,
        })
    }

    /// uid and gid of a role; none for root.
    pub(super) fn user_of(&self, role: Role) -> Option<(u32, u32)> {
        match role {
            Role::Gate => None,
            Role::Proxy => Some(self.proxy),
            Role::Keeper => Some(self.keeper),
        }
    }

    /// The metrics listener, for one more keeper.
    pub(super) fn metrics_listener(&self) -> anyhow::Result<Option<OwnedFd>> {
        Ok(match &self.metrics {
            Some(listener) => Some(listener.try_clone()?.into()),
            None => None,
        })
    }

    /// Tells systemd that the host is protected (sd_notify(3)).
    pub(super) fn notify_ready(&self) {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return;
        };
        let sent =
            UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", Path::new(&path)));
        if let Err(error) = sent {
            tracing::warn!(%error, "systemd was not told that lockgate is ready");
        }
    }
}

fn mount_if_missing(kind: &str, at: &str) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let there = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(at) && fields.next() == Some(kind)
    });
    if !there {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("{at} is missing and cannot be mounted"))?;
    }
    Ok(())
}

fn user(name: &str) -> anyhow::Result<(u32, u32)> {
    match User::from_name(name)? {
        Some(user) if user.uid.is_root() => bail!("user `{name}` is root; it must have no rights"),
        Some(user) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        None => bail!(
            "there is no user `{name}`; make it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`"
        ),
    }
}

fn folder(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> anyhow::Result<()> {
    let make = || {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if let Some((uid, gid)) = owner {
            chown(path, Some(uid), Some(gid))?;
        }
        std::io::Result::Ok(())
    };
    make().with_context(|| path.display().to_string())
}

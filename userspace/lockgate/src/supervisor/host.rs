use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use anyhow::{Context, bail};
use lockgate_config::{Agent, Config};
use lockgate_ipc::Role;
use nix::mount::{MsFlags, mount};
use nix::unistd::User;
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use uuid::Uuid;

/// What the parent finds or makes on the host before it starts anything.
pub(super) struct HostSetup {
    pub(super) name: String,
    pub(super) boot: Uuid,
    /// As at the start: folders and users do not change while it runs.
    pub(super) agent: Agent,
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
            agent: agent.clone(),
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

    /// Tells systemd, if it asked to be told (sd_notify(3)).
    pub(super) fn notify(&self, state: &str) {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return;
        };
        if let Err(error) = send_to(&path, state.as_bytes()) {
            tracing::warn!(%error, state, "systemd was not told");
        }
    }

    /// The CA's certificate is public; keeper's folder is not.
    pub(super) fn publish_ca(&self) {
        if let Err(error) = publish_ca(&self.agent) {
            tracing::warn!(
                error = format!("{error:#}"),
                "the host CA's certificate is not published"
            );
        }
    }
}

fn send_to(path: &OsStr, state: &[u8]) -> io::Result<()> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state, &address)?;
    Ok(())
}

fn publish_ca(agent: &Agent) -> anyhow::Result<()> {
    /// Largest file that is taken for a certificate, in bytes.
    const MAX: u64 = 64 * 1024;
    // keeper writes there. Whatever it has become, it must not have root read
    // another file out to all: no links, nothing but certificates.
    let state = rustix::fs::open(
        &agent.state_dir,
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let from = rustix::fs::openat2(
        &state,
        "ca/host-ca.pem",
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
    .context("ca/host-ca.pem")?;
    let mut pem = String::new();
    File::from(from).take(MAX).read_to_string(&mut pem)?;
    let begins = pem.starts_with("-----BEGIN CERTIFICATE-----");
    if !begins || pem.contains("PRIVATE KEY") {
        bail!("ca/host-ca.pem holds no certificate");
    }
    let fresh = agent.run_dir.join("host-ca.pem.new");
    fs::write(&fresh, pem)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644))?;
    fs::rename(&fresh, agent.run_dir.join("host-ca.pem"))?;
    Ok(())
}

fn mount_if_missing(kind: &str, at: &str) -> anyhow::Result<()> {
    if is_mounted(kind, at)? {
        return Ok(());
    }
    let mounted = mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>);
    // Somebody else may have been quicker.
    if mounted.is_err() && is_mounted(kind, at)? {
        return Ok(());
    }
    mounted.with_context(|| format!("{at} is missing and cannot be mounted"))
}

fn is_mounted(kind: &str, at: &str) -> anyhow::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(at) && fields.next() == Some(kind)
    }))
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

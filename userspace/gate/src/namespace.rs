use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};

use crate::kernel::{Exemptions, KernelError};
use crate::sys;

/// Connections that may wait for accept.
const BACKLOG: i32 = 4096;

/// A network namespace that clients are served in.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: PathBuf,
    /// None for the host's, in which the gate itself is.
    file: Option<Arc<File>>,
    cookie: u64,
    inode: u64,
    is_roots: bool,
}

/// Why a namespace cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// It cannot be entered, or has no usable loopback.
    #[error(
        "network namespace {name}: {source}; it must exist and have its loopback up (`ip -n NAME link set lo up`)"
    )]
    Unusable {
        /// Which.
        name: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody was quicker.
    #[error("the network namespace is served already")]
    Served,
    /// The kernel side failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Namespace {
    /// The gate's own.
    pub fn host() -> Result<Self, NamespaceError> {
        Self::with("host".into(), None)
    }

    /// By a file such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let file = File::open(path).map_err(|source| NamespaceError::Unusable {
            name: path.into(),
            source,
        })?;
        Self::with(path.into(), Some(Arc::new(file)))
    }

    /// That of a process.
    pub(crate) fn of(tgid: u32) -> Result<Self, NamespaceError> {
        let path = PathBuf::from(format!("/proc/{tgid}/ns/net"));
        let open = || {
            let file = File::open(&path)?;
            let name = format!("net:[{}]", file.metadata()?.ino());
            Ok((name, file))
        };
        match open() {
            Ok((name, file)) => Self::with(name.into(), Some(Arc::new(file))),
            Err(source) => Err(NamespaceError::Unusable { name: path, source }),
        }
    }

    /// Those of all processes there are, by inode, each with one process.
    pub(crate) fn inhabited() -> HashMap<u64, u32> {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let of_process = |entry: std::fs::DirEntry| {
            let tgid = entry.file_name().to_str()?.parse().ok()?;
            // One that has gone has none.
            Some((inode_of(&entry.path()).ok()?, tgid))
        };
        processes.filter_map(of_process).collect()
    }

    fn with(name: PathBuf, file: Option<Arc<File>>) -> Result<Self, NamespaceError> {
        let unusable = |source| NamespaceError::Unusable {
            name: name.clone(),
            source,
        };
        let (inode, is_roots) = match &file {
            Some(file) => (
                file.metadata().map_err(unusable)?.ino(),
                sys::is_made_by_root(file).map_err(unusable)?,
            ),
            None => (inode_of(Path::new("/proc/self")).map_err(unusable)?, true),
        };
        let mut namespace = Self {
            name,
            file,
            cookie: 0,
            inode,
            is_roots,
        };
        let cookie = namespace
            .socket(Domain::IPV4)
            .and_then(|socket| sys::netns_cookie(&socket))
            .map_err(|source| namespace.unusable(source))?;
        namespace.cookie = cookie;
        Ok(namespace)
    }

    /// Its cookie.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Of its file in /proc.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether root has made it, rather than somebody in a user namespace.
    pub(crate) fn is_roots(&self) -> bool {
        self.is_roots
    }

    /// As configured, `host`, or by its number.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// A TCP socket that belongs to this namespace, wherever it is used.
    pub fn socket(&self, domain: Domain) -> io::Result<Socket> {
        self.inside(|| Socket::new(domain, Type::STREAM, None))
    }

    /// Runs `make` inside the namespace.
    pub(crate) fn inside<T: Send>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let Some(file) = &self.file else {
            return make();
        };
        // A thread that ends in the namespace need not find its way back.
        let entered = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("namespace".into())
                .spawn_scoped(scope, || {
                    setns(file, CloneFlags::CLONE_NEWNET)?;
                    make()
                })
                .map(|thread| thread.join())
        })?;
        entered.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }

    fn unusable(&self, source: io::Error) -> NamespaceError {
        NamespaceError::Unusable {
            name: self.name.clone(),
            source,
        }
    }
}

/// The network namespace of a process, by its folder in /proc.
pub(crate) fn inode_of(process: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(process.join("ns/net"))?.ino())
}

/// The listeners of one namespace, on ports that nobody else gets.
#[derive(Debug)]
pub struct Listeners {
    /// On 127.0.0.1.
    pub v4: TcpListener,
    /// On ::1; none where the namespace has no IPv6.
    pub v6: Option<TcpListener>,
}

impl Listeners {
    /// Listens in `namespace`. Its sockets are exempt, so that they may bind
    /// what nobody else may; the ports are never shared (no SO_REUSEPORT).
    pub fn open(namespace: &Namespace, exemptions: &Exemptions) -> Result<Self, NamespaceError> {
        let v4 = listen(namespace, exemptions, Domain::IPV4)?;
        // Without IPv6 in the namespace there is no client of IPv6 either.
        let v6 = match listen(namespace, exemptions, Domain::IPV6) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::info!(namespace = %namespace.name.display(), %error, "no listener for IPv6");
                None
            }
        };
        Ok(Self { v4, v6 })
    }

    /// For the kernel's map.
    pub fn ports(&self) -> io::Result<lockgate_abi::Listener> {
        let port6 = match &self.v6 {
            Some(listener) => listener.local_addr()?.port(),
            None => 0,
        };
        Ok(lockgate_abi::Listener {
            port4: self.v4.local_addr()?.port(),
            port6,
        })
    }
}

fn listen(
    namespace: &Namespace,
    exemptions: &Exemptions,
    domain: Domain,
) -> Result<TcpListener, NamespaceError> {
    let unusable = |source| namespace.unusable(source);
    let socket = namespace.socket(domain).map_err(unusable)?;
    exemptions.grant(&socket)?;
    let ip: IpAddr = match domain {
        Domain::IPV4 => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    if domain == Domain::IPV6 {
        socket.set_only_v6(true).map_err(unusable)?;
    }
    let chosen = namespace.inside(chosen_ports).map_err(unusable)?;
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for port in candidates(&chosen) {
        result = socket.bind(&SocketAddr::new(ip, port).into());
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    result.map_err(unusable)?;
    socket.listen(BACKLOG).map_err(unusable)?;
    socket.set_nonblocking(true).map_err(unusable)?;
    Ok(socket.into())
}

/// What listen(2) and connect(2) choose from for a socket that was not bound.
/// No bind hook sees that, so one who waits for a listener's port to become
/// free would get it.
pub(crate) fn chosen_ports() -> io::Result<RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ends = text.split_ascii_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Ports for a listener, the best first: above what is chosen from, where few
/// services are; below it; and, where that leaves nothing, the kernel's choice.
/// The same in every namespace, since a listener's port is refused in all.
pub(crate) fn candidates(chosen: &RangeInclusive<u16>) -> impl Iterator<Item = u16> {
    /// Up to here a port needs a right of its own.
    const PRIVILEGED: u16 = 1023;
    let above = chosen.end().checked_add(1).map(|first| first..=u16::MAX);
    let below = (PRIVILEGED + 1..*chosen.start()).rev();
    above.into_iter().flatten().chain(below).chain([0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_not_where_the_kernel_chooses_ports() {
        let first = |range| candidates(&range).next();
        assert_eq!(first(32768..=60999), Some(61000));
        assert_eq!(first(32768..=65535), Some(32767));
        assert_eq!(first(1024..=65535), Some(0), "there is no other");
        assert_eq!(candidates(&(32768..=60999)).count(), 4536 + 31744 + 1);
    }
}

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use lockgate_config::{Bundle, Host, Source};
use socket2::Domain;
use tokio::net::{TcpSocket, TcpStream};

use crate::kernel::Exemptions;
use crate::namespace::Namespace;

/// How long connect(2) to one address may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Dials upstream, past the redirect.
#[derive(Clone)]
pub(crate) struct Dialler {
    exemptions: Exemptions,
}

/// Why a dial failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Of connect(2); 0 where it was something else.
    pub(crate) errno: i32,
    /// Address, namespace, reason.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(
        address: impl std::fmt::Display,
        namespace: &Namespace,
        error: &std::io::Error,
    ) -> Self {
        let namespace = namespace.name().display();
        Self {
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("{address} from network namespace {namespace}: {error}"),
        }
    }

    /// For a connection that is not known, or before there is a configuration.
    pub(crate) fn unknown() -> Self {
        Self {
            errno: libc::ENOTCONN,
            message: "the connection is not known".into(),
        }
    }
}

impl Dialler {
    pub(crate) fn new(exemptions: Exemptions) -> Self {
        Self { exemptions }
    }

    /// Connects from `namespace` to `address`. The socket is exempt only until
    /// it is connected, so that whoever gets it cannot take it anywhere else.
    pub(crate) async fn dial(
        &self,
        namespace: &Namespace,
        address: SocketAddr,
    ) -> Result<OwnedFd, Failure> {
        let failed = |error: std::io::Error| Failure::new(address, namespace, &error);
        let exempt = |result: Result<(), crate::KernelError>| {
            result.map_err(|why| failed(std::io::Error::other(why)))
        };
        let socket = namespace
            .socket(Domain::for_address(address))
            .map_err(failed)?;
        exempt(self.exemptions.grant(&socket))?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.set_tcp_nodelay(true).map_err(failed)?;
        let connecting = TcpSocket::from_std_stream(socket.into()).connect(address);
        let stream: TcpStream = match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(connected) => connected.map_err(failed)?,
            Err(_) => return Err(failed(std::io::Error::from_raw_os_error(libc::ETIMEDOUT))),
        };
        exempt(self.exemptions.settle(&stream))?;
        Ok(OwnedFd::from(stream.into_std().map_err(failed)?))
    }

    /// Connects to the first address of `host` that answers.
    pub(crate) async fn dial_host(
        &self,
        namespace: &Namespace,
        host: &str,
        port: u16,
    ) -> Result<OwnedFd, Failure> {
        let failed = |error: std::io::Error| Failure::new(host, namespace, &error);
        let addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(failed)?;
        let mut last = failed(std::io::ErrorKind::NotFound.into());
        for address in addresses.take(MAX_ADDRESSES) {
            match self.dial(namespace, address).await {
                Ok(fd) => return Ok(fd),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }
}

/// From where the target of `address` is dialled. The gate need not know the
/// exact target: where targets overlap and differ in this, the client's own
/// namespace is right for all.
pub(crate) fn source_of(bundle: &Bundle, address: SocketAddr) -> Source {
    let mut found = bundle.config.targets.iter().filter(|target| {
        target.places.iter().any(|place| {
            let named = match &place.host {
                Host::Name(name) => bundle
                    .names
                    .get(name)
                    .is_some_and(|ips| ips.contains(&address.ip())),
                host => host.contains(address.ip()),
            };
            place.port == address.port() && named
        })
    });
    match found.next() {
        Some(first) if found.all(|other| other.source == first.source) => first.source,
        _ => Source::Client,
    }
}

/// Closes with RST: the client must not take it for a clean end.
pub(crate) fn reset(stream: impl AsFd) {
    // Without it the client sees an end instead.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

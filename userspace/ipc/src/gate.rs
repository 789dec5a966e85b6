use lockgate_command::{ConnectionId, WorkloadName};
use lockgate_identity::Origin;
use serde::{Deserialize, Serialize};

/// gate → proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum GateToProxy {
    /// A client was accepted; the descriptor is its socket.
    Accepted {
        /// Names the connection on every channel.
        connection: ConnectionId,
        /// Who calls.
        workload: WorkloadName,
        /// Attested facts.
        origin: Box<Origin>,
    },
    /// The answer to [`ProxyToGate::Dial`]; the descriptor is connected.
    Dialled {
        /// The number the proxy gave.
        dial: u64,
    },
    /// The answer to [`ProxyToGate::Dial`] when it failed.
    DialFailed {
        /// The number the proxy gave.
        dial: u64,
        /// errno of connect(2), such as ECONNREFUSED.
        errno: i32,
        /// For people: address, namespace, reason.
        message: String,
    },
}

/// proxy → gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ProxyToGate {
    /// Dial the original address of `connection`, and no other, in the
    /// namespace its target's `source` says.
    Dial {
        /// For the answer.
        dial: u64,
        /// For which connection.
        connection: ConnectionId,
    },
    /// The connection has ended.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
}

/// gate → keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum GateToKeeper {
    /// Sent before the proxy hears of the connection, so that keeper can check
    /// what the proxy asks for.
    Attested {
        /// Which connection.
        connection: ConnectionId,
        /// Who calls.
        workload: WorkloadName,
        /// Where to.
        original: std::net::SocketAddr,
    },
    /// The connection has ended; its credential requests are refused from now.
    Released {
        /// Which connection.
        connection: ConnectionId,
    },
    /// The answer to [`KeeperToGate::Dial`] or [`KeeperToGate::DialFor`]; the
    /// descriptor is connected.
    Dialled {
        /// The number keeper gave.
        dial: u64,
    },
    /// The answer when it failed.
    DialFailed {
        /// The number keeper gave.
        dial: u64,
        /// errno of connect(2).
        errno: i32,
        /// For people.
        message: String,
    },
}

/// keeper → gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum KeeperToGate {
    /// Dial a host by name or address from the host's namespace: ClickHouse.
    Dial {
        /// For the answer.
        dial: u64,
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Dial the original address of a connection, as for the proxy: the
    /// catalogue connection.
    DialFor {
        /// For the answer.
        dial: u64,
        /// For which connection.
        connection: ConnectionId,
    },
}

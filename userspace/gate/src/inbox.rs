use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use lockgate_command::ConnectionId;
use lockgate_identity::Origin;
use lockgate_ipc::{Channel, ChannelError, KeeperToGate, Order, ProxyToGate, Role};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::namespace::{Listeners, Namespace, NamespaceError};

/// Everything that happens to the gate, in one queue.
pub(crate) enum Event {
    Order(Order, Option<OwnedFd>),
    ParentGone,
    ProxySays(Arc<Channel>, ProxyToGate),
    KeeperSays(Arc<Channel>, KeeperToGate),
    PeerGone(Role, Arc<Channel>),
    /// In the namespace of this cookie.
    Accepted(u64, TcpStream, SocketAddr),
    Attested(TcpStream, Box<Origin>),
    NotHandedOver(ConnectionId),
    /// A process has a new image in a namespace that is not served.
    Seen(u32),
    /// What came of entering the namespace of a process that was met.
    Entered(u32, Result<(Namespace, Listeners), NamespaceError>),
    /// Namespaces that have processes.
    Inhabited(HashSet<u64>),
}

pub(crate) async fn accept(
    listener: TcpListener,
    cookie: u64,
    events: mpsc::UnboundedSender<Event>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                if events
                    .send(Event::Accepted(cookie, stream, client))
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed.
                tracing::error!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

pub(crate) async fn read_orders(channel: Arc<Channel>, events: mpsc::UnboundedSender<Event>) {
    loop {
        let event = match channel.receive::<Order>().await {
            Ok((order, fd)) => Event::Order(order, fd),
            Err(error) => {
                if !matches!(error, ChannelError::Closed) {
                    tracing::error!(%error, "the parent's orders cannot be read");
                }
                Event::ParentGone
            }
        };
        let last = matches!(event, Event::ParentGone);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

pub(crate) async fn read_proxy(channel: Arc<Channel>, events: mpsc::UnboundedSender<Event>) {
    while let Ok((message, _)) = channel.receive::<ProxyToGate>().await {
        if events
            .send(Event::ProxySays(channel.clone(), message))
            .is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::PeerGone(Role::Proxy, channel));
}

pub(crate) async fn read_keeper(channel: Arc<Channel>, events: mpsc::UnboundedSender<Event>) {
    while let Ok((message, _)) = channel.receive::<KeeperToGate>().await {
        if events
            .send(Event::KeeperSays(channel.clone(), message))
            .is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::PeerGone(Role::Keeper, channel));
}

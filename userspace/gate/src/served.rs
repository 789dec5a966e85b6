use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use lockgate_abi::Listener;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::inbox::{Event, accept};
use crate::kernel::Kernel;
use crate::namespace::{Listeners, Namespace};

/// Namespaces that are served at a time, besides those of the configuration.
const MOST: usize = 1024;

/// Of these, those that somebody made who need not be root: everybody can make
/// as many as he likes.
const MOST_OF_USERS: usize = 256;

/// The network namespaces that clients are served in: the host's, those of the
/// configuration, and those that lockgate has met, for as long as there are
/// processes in them.
pub(crate) struct Served {
    host: Namespace,
    by_cookie: HashMap<u64, Entry>,
    known: Known,
    events: mpsc::UnboundedSender<Event>,
}

struct Entry {
    namespace: Namespace,
    ports: Listener,
    accepting: Vec<AbortHandle>,
    /// Stays without processes.
    is_configured: bool,
    /// No process was in it when it was looked at last.
    is_empty: bool,
}

/// Inodes of what is served, for a look from another thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<RwLock<HashSet<u64>>>);

impl Known {
    pub(crate) fn has(&self, inode: u64) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.contains(&inode)
    }
}

/// Why a namespace that was met is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error("{MOST} network namespaces are served already")]
    All,
    #[error("{MOST_OF_USERS} network namespaces that users made are served already")]
    OfUsers,
}

impl Served {
    /// Serves none yet.
    pub(crate) fn new(host: Namespace, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            host,
            by_cookie: HashMap::new(),
            known: Known::default(),
            events,
        }
    }

    /// The gate's own, from which it dials for itself.
    pub(crate) fn host(&self) -> &Namespace {
        &self.host
    }

    pub(crate) fn get(&self, cookie: u64) -> Option<&Namespace> {
        self.by_cookie.get(&cookie).map(|entry| &entry.namespace)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Namespace> {
        self.by_cookie.values().map(|entry| &entry.namespace)
    }

    /// Whether there is any that will be released.
    pub(crate) fn has_met(&self) -> bool {
        self.by_cookie.values().any(|entry| !entry.is_configured)
    }

    pub(crate) fn known(&self) -> Known {
        self.known.clone()
    }

    /// Whether there is room for one more that was met.
    pub(crate) fn has_room(&self, namespace: &Namespace) -> Result<(), NoRoom> {
        let met = || self.by_cookie.values().filter(|entry| !entry.is_configured);
        let of_users = met().filter(|entry| !entry.namespace.is_roots());
        if met().count() >= MOST {
            return Err(NoRoom::All);
        }
        if !namespace.is_roots() && of_users.count() >= MOST_OF_USERS {
            return Err(NoRoom::OfUsers);
        }
        Ok(())
    }

    /// Accepts from `listeners`, and then has the kernel redirect to them. One
    /// that is served already stays as it is.
    ///
    /// # Errors
    /// When the runtime or the kernel does not take them.
    pub(crate) fn serve(
        &mut self,
        kernel: &mut Kernel,
        namespace: Namespace,
        listeners: Listeners,
        is_configured: bool,
    ) -> anyhow::Result<()> {
        let cookie = namespace.cookie();
        if self.by_cookie.contains_key(&cookie) {
            return Ok(());
        }
        let ports = listeners.ports()?;
        let mut accepting = Vec::new();
        for listener in [Some(listeners.v4), listeners.v6].into_iter().flatten() {
            let listener = TcpListener::from_std(listener)?;
            let task = tokio::spawn(accept(listener, cookie, self.events.clone()));
            accepting.push(task.abort_handle());
        }
        let entry = Entry {
            namespace,
            ports,
            accepting,
            is_configured,
            is_empty: false,
        };
        self.by_cookie.insert(cookie, entry);
        self.tell(kernel)
    }

    /// Releases those that nobody is in any more. `living`: inodes of the
    /// namespaces of all processes. Twice, since a process may be on its way.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub(crate) fn release(
        &mut self,
        kernel: &mut Kernel,
        living: &HashSet<u64>,
    ) -> anyhow::Result<()> {
        let mut gone = Vec::new();
        self.by_cookie.retain(|_, entry| {
            let was_empty = entry.is_empty;
            entry.is_empty = !entry.is_configured && !living.contains(&entry.namespace.inode());
            let stays = !(was_empty && entry.is_empty);
            if !stays {
                gone.append(&mut entry.accepting);
            }
            stays
        });
        if gone.is_empty() {
            return Ok(());
        }
        // Nobody is sent there any more when its listeners close.
        self.tell(kernel)?;
        gone.iter().for_each(AbortHandle::abort);
        Ok(())
    }

    /// Accepts nothing new.
    pub(crate) fn close(&mut self) {
        for entry in self.by_cookie.values_mut() {
            entry.accepting.drain(..).for_each(|task| task.abort());
        }
    }

    fn tell(&self, kernel: &mut Kernel) -> anyhow::Result<()> {
        let wanted: Vec<_> = self
            .by_cookie
            .iter()
            .map(|(cookie, entry)| (*cookie, entry.ports))
            .collect();
        kernel.listen(&wanted)?;
        let inodes = self.all().map(Namespace::inode).collect();
        *self.known.0.write().unwrap_or_else(PoisonError::into_inner) = inodes;
        Ok(())
    }
}

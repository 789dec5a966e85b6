use std::iter;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use lockgate_config::Bundle;
use lockgate_identity::Workloads;
use lockgate_ipc::from_memfd;
use tokio::sync::mpsc;

use crate::attest::Attestor;
use crate::cgroup::Attached;
use crate::dial::Dialler;
use crate::earlier::Earlier;
use crate::execs::watch_execs;
use crate::inbox::Event;
use crate::kernel::Kernel;
use crate::lease::Lease;
use crate::namespace::{Listeners, Namespace, inode_of};
use crate::protected::Protected;
use crate::served::{Known, Served};

/// What exists from the first configuration on.
pub(crate) struct Running {
    pub(crate) bundle: Bundle,
    pub(crate) workloads: Workloads,
    pub(crate) kernel: Kernel,
    pub(crate) cgroup: Arc<Attached>,
    pub(crate) lease: Lease,
    pub(crate) attestor: Arc<Attestor>,
    pub(crate) dialler: Dialler,
    pub(crate) served: Served,
    /// Connections that were there before their destination was protected.
    pub(crate) ended: usize,
}

impl Running {
    /// Loads the programs and listens.
    pub(crate) fn start(
        prepared: Prepared,
        events: &mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<Self> {
        let Prepared {
            bundle,
            workloads,
            protected,
            namespaces,
        } = prepared;
        let settings = &bundle.config.kernel;
        let cgroup = Arc::new(Attached::open(settings.cgroup.as_deref())?);
        let mut kernel = Kernel::load(&cgroup, &settings.pins, &protected)?;
        // What an earlier gate protected and is not wanted any more.
        kernel.protect(&protected)?;
        let lease = kernel.take_lease().context("the lease was taken before")?;
        let lease = Lease::start(lease)?;
        let attestor = Arc::new(Attestor::new());
        attestor.look_for(&workloads);
        let mut served = Served::new(Namespace::host()?, events.clone());
        for namespace in iter::once(served.host().clone()).chain(namespaces) {
            let listeners = Listeners::open(&namespace, &kernel.exemptions())?;
            served.serve(&mut kernel, namespace, listeners, true)?;
        }
        let seen = unknown_to(served.known(), cgroup.clone(), events.clone());
        // Those that are there; later ones come as they run something.
        Namespace::inhabited().into_values().for_each(&seen);
        watch_execs(&mut kernel, attestor.clone(), seen)?;
        let dialler = Dialler::new(kernel.exemptions());
        let mut running = Self {
            bundle,
            workloads,
            kernel,
            cgroup,
            lease,
            attestor,
            dialler,
            served,
            ended: 0,
        };
        running.end_earlier();
        Ok(running)
    }

    /// Uses another configuration from now.
    pub(crate) fn change_to(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        let Prepared {
            bundle,
            workloads,
            protected,
            namespaces: _,
        } = prepared;
        let is_more = !self.kernel.protected().holds(&protected);
        self.kernel.protect(&protected)?;
        if is_more {
            self.end_earlier();
        }
        // Also where the entries are the same: a user may have another uid.
        self.attestor.look_for(&workloads);
        if self.bundle.config.kernel != bundle.config.kernel {
            tracing::warn!("changes of [kernel] take effect at the next start");
        }
        self.bundle = bundle;
        self.workloads = workloads;
        Ok(())
    }

    /// Ends connections that the hooks did not see. One that cannot be ended
    /// stays direct, which is said.
    fn end_earlier(&mut self) {
        let earlier = Earlier {
            protected: self.kernel.protected(),
            exemptions: &self.kernel.exemptions(),
            cgroup: &self.cgroup,
        };
        let host = self.served.host();
        let others = Namespace::inhabited()
            .into_iter()
            .filter(|(inode, _)| *inode != host.inode())
            .filter_map(|(_, tgid)| Namespace::of(tgid).ok());
        let mut ended = 0;
        for namespace in iter::once(host.clone()).chain(others) {
            match earlier.end(&namespace) {
                Ok(count) => ended += count,
                Err(error) => tracing::warn!(
                    namespace = %namespace.name().display(),
                    %error,
                    "connections from before cannot be ended; end their programs"
                ),
            }
        }
        if ended > 0 {
            tracing::warn!(
                ended,
                "connections that were open before their destination was protected"
            );
        }
        self.ended += ended;
    }
}

/// Tells of processes whose network namespace is not served yet.
fn unknown_to(
    known: Known,
    cgroup: Arc<Attached>,
    events: mpsc::UnboundedSender<Event>,
) -> impl Fn(u32) + Send + 'static {
    move |tgid| {
        let inode = inode_of(&Path::new("/proc").join(tgid.to_string()));
        // One that has gone needs none.
        if inode.is_ok_and(|inode| !known.has(inode)) && cgroup.has(tgid) {
            // At the end of the gate nobody listens any more.
            let _ = events.send(Event::Seen(tgid));
        }
    }
}

/// A configuration that was checked.
pub(crate) struct Prepared {
    pub(crate) bundle: Bundle,
    pub(crate) workloads: Workloads,
    pub(crate) protected: Protected,
    /// Those of the configuration.
    pub(crate) namespaces: Vec<Namespace>,
}

impl Prepared {
    /// Reads and checks a bundle; the text says what is wrong with it.
    pub(crate) fn read(fd: OwnedFd) -> Result<Self, String> {
        let bytes = from_memfd(fd).map_err(|why| why.to_string())?;
        let bundle: Bundle = serde_json::from_slice(&bytes).map_err(|why| why.to_string())?;
        let workloads =
            Workloads::load(&bundle.config.workloads, &bundle.uids).map_err(|errors| {
                errors
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            })?;
        let protected = Protected::from_bundle(&bundle).map_err(|why| why.to_string())?;
        let namespaces = &bundle.config.kernel.namespaces;
        let namespaces = namespaces
            .iter()
            .map(|path| Namespace::open(path))
            .collect::<Result<_, _>>()
            .map_err(|why| why.to_string())?;
        Ok(Self {
            bundle,
            workloads,
            protected,
            namespaces,
        })
    }
}

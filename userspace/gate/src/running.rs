use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context;
use lockgate_config::Bundle;
use lockgate_identity::Workloads;
use lockgate_ipc::from_memfd;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::attest::Attestor;
use crate::cgroup::Attached;
use crate::dial::Dialler;
use crate::earlier::Earlier;
use crate::execs::watch_execs;
use crate::inbox::{Event, accept};
use crate::kernel::Kernel;
use crate::lease::Lease;
use crate::namespace::{Listeners, Namespace};
use crate::protected::Protected;

/// What exists from the first configuration on.
pub(crate) struct Running {
    pub(crate) bundle: Bundle,
    pub(crate) workloads: Workloads,
    pub(crate) kernel: Kernel,
    pub(crate) cgroup: Attached,
    pub(crate) lease: Lease,
    pub(crate) attestor: Arc<Attestor>,
    pub(crate) dialler: Dialler,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) listening: Vec<tokio::task::AbortHandle>,
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
        let cgroup = Attached::open(settings.cgroup.as_deref())?;
        let mut kernel = Kernel::load(&cgroup, &settings.pins, &protected)?;
        // What an earlier gate protected and is not wanted any more.
        kernel.protect(&protected)?;
        let lease = kernel.take_lease().context("the lease was taken before")?;
        let lease = Lease::start(lease)?;
        let attestor = Arc::new(Attestor::new());
        attestor.look_for(&bundle.config.workloads);
        watch_execs(&mut kernel, attestor.clone())?;
        let dialler = Dialler::new(kernel.exemptions());
        let mut running = Self {
            bundle,
            workloads,
            kernel,
            cgroup,
            lease,
            attestor,
            dialler,
            namespaces,
            listening: Vec::new(),
            ended: 0,
        };
        running.listen(events)?;
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
        if self.bundle.config.workloads != bundle.config.workloads {
            self.attestor.look_for(&bundle.config.workloads);
        }
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
        let host = self.namespaces.first().cloned();
        let mut ended = 0;
        for namespace in host.into_iter().chain(Namespace::of_processes()) {
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

    /// Opens the listeners of every namespace and tells the kernel of them.
    fn listen(&mut self, events: &mpsc::UnboundedSender<Event>) -> anyhow::Result<()> {
        let mut ports = Vec::new();
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let listeners = Listeners::open(namespace, &self.kernel.exemptions())?;
            ports.push((namespace.cookie(), listeners.ports()?));
            for listener in [Some(listeners.v4), listeners.v6].into_iter().flatten() {
                let listener = TcpListener::from_std(listener)?;
                let task = tokio::spawn(accept(listener, index, events.clone()));
                self.listening.push(task.abort_handle());
            }
        }
        self.kernel.listen(&ports)?;
        Ok(())
    }
}

/// A configuration that was checked.
pub(crate) struct Prepared {
    pub(crate) bundle: Bundle,
    pub(crate) workloads: Workloads,
    pub(crate) protected: Protected,
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
        let namespaces = std::iter::once(Namespace::host())
            .chain(
                bundle
                    .config
                    .kernel
                    .namespaces
                    .iter()
                    .map(|path| Namespace::open(path)),
            )
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

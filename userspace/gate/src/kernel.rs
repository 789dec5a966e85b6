use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf, SkStorage};
use aya::{Ebpf, EbpfLoader};
use lockgate_abi::{
    Exec, Flow, Key4, Key6, Listener, Origin, Process, VERSION, exempt, globals, lost, maps,
};

use crate::attach::{attach_all, fork_child_pid, pin_all};
use crate::cgroup::Attached;
use crate::protected::Protected;
use crate::sys::monotonic_ns;
use crate::trace::{LEVEL, Trace};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lockgate.bpf.o"));

/// Maps that outlive the gate, so that what is protected stays protected.
const PINNED: [&str; 10] = [
    maps::PROTECTED4,
    maps::PROTECTED6,
    maps::LEASE,
    maps::LISTENERS,
    maps::LISTENER_PORTS,
    maps::EXEMPT,
    maps::ORIGINS,
    maps::FLOWS,
    maps::PROCESSES,
    maps::LOST,
];

/// Names of folders below the one for pins.
const MAPS: &str = "maps-v";
const LINKS: &str = "links";

/// Why the kernel side does not stand.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The programs were refused.
    #[error(
        "the kernel refused the eBPF programs: {0}; `lockgate doctor` says what this host lacks"
    )]
    Load(String),
    /// A map operation failed.
    #[error("eBPF map {map}: {source}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// The pin folder cannot be used.
    #[error(
        "{path} cannot be used for pins: {source}; mount a bpf file system (`mount -t bpf bpf /sys/fs/bpf`)"
    )]
    Pins {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tracepoint's form cannot be read.
    #[error(
        "the form of sched_process_fork cannot be read; mount tracefs (`mount -t tracefs tracefs /sys/kernel/tracing`)"
    )]
    Tracefs,
}

/// The programs and maps in the kernel.
pub struct Kernel {
    protected4: LpmTrie<MapData, Key4, u8>,
    protected6: LpmTrie<MapData, Key6, u8>,
    listeners: HashMap<MapData, u64, Listener>,
    listener_ports: HashMap<MapData, u32, u8>,
    exemptions: Exemptions,
    flows: HashMap<MapData, Flow, Origin>,
    processes: Arc<HashMap<MapData, u32, Process>>,
    /// The same map, to be written.
    missed: HashMap<MapData, u32, Process>,
    lost: PerCpuArray<MapData, u64>,
    refusals: RingBuf<MapData>,
    execs: Option<RingBuf<MapData>>,
    lease: Option<Array<MapData, u64>>,
    trace: Option<Trace>,
    protected: Protected,
    links: usize,
    pins: PathBuf,
}

impl Kernel {
    /// As [`Kernel::load`], to a cgroup by its path; none for the root of the
    /// hierarchy.
    ///
    /// # Errors
    /// As [`Kernel::load`].
    pub fn attach(
        cgroup: Option<&Path>,
        pins: &Path,
        wanted: &Protected,
    ) -> Result<Self, KernelError> {
        let attached = Attached::open(cgroup).map_err(|why| load_error(&why))?;
        Self::load(&attached, pins, wanted)
    }

    /// Loads the programs, attaches them to `cgroup` and pins them below
    /// `pins`. Maps of this version that are pinned there are taken over;
    /// programs that are pinned there are detached once the new ones stand. The
    /// maps hold `wanted`, besides what an earlier gate protected, before
    /// anything is attached, so that at no moment anything goes directly.
    ///
    /// # Errors
    /// What the host lacks, and what to do about it.
    pub(crate) fn load(
        cgroup: &Attached,
        pins: &Path,
        wanted: &Protected,
    ) -> Result<Self, KernelError> {
        let folder = |name: &str| {
            let path = pins.join(name);
            match std::fs::create_dir_all(&path) {
                Ok(()) => Ok(path),
                Err(source) => Err(KernelError::Pins { path, source }),
            }
        };
        let map_pins = folder(&format!("{MAPS}{VERSION}"))?;
        let link_pins = folder(LINKS)?;
        let mut loader = EbpfLoader::new();
        let child_pid = fork_child_pid()?;
        loader.override_global(globals::FORK_CHILD_PID, &child_pid, true);
        let level = Trace::level();
        loader.override_global(LEVEL, &level, true);
        for name in PINNED {
            loader.map_pin_path(name, map_pins.join(name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|why| load_error(&why))?;
        let mut kernel = Self::with_maps(&mut ebpf, pins)?.resume()?;
        kernel.add(wanted)?;
        let links = attach_all(&mut ebpf, cgroup)?;
        kernel.links = links.len();
        pin_all(links, &link_pins)?;
        kernel.forget_other_versions(&map_pins);
        // After the tracepoints, so that no process falls in between.
        seed(&mut kernel.missed);
        Ok(kernel)
    }

    fn with_maps(ebpf: &mut Ebpf, pins: &Path) -> Result<Self, KernelError> {
        macro_rules! open {
            ($kind:ident, $name:expr) => {
                $kind::try_from(take(ebpf, $name)?)
                    .map_err(|source| KernelError::Map { map: $name, source })?
            };
        }
        let failed = |source| KernelError::Map {
            map: maps::PROCESSES,
            source,
        };
        let processes = take(ebpf, maps::PROCESSES)?;
        let missed = again(&processes).map_err(failed)?;
        Ok(Self {
            protected4: open!(LpmTrie, maps::PROTECTED4),
            protected6: open!(LpmTrie, maps::PROTECTED6),
            listeners: open!(HashMap, maps::LISTENERS),
            listener_ports: open!(HashMap, maps::LISTENER_PORTS),
            exemptions: Exemptions::new(take(ebpf, maps::EXEMPT)?)?,
            flows: open!(HashMap, maps::FLOWS),
            processes: Arc::new(HashMap::try_from(processes).map_err(failed)?),
            missed: HashMap::try_from(missed).map_err(failed)?,
            lost: open!(PerCpuArray, maps::LOST),
            refusals: open!(RingBuf, maps::REFUSALS),
            execs: Some(open!(RingBuf, maps::EXECS)),
            lease: Some(open!(Array, maps::LEASE)),
            trace: Trace::of(ebpf),
            protected: Protected::default(),
            links: 0,
            pins: pins.to_owned(),
        })
    }

    /// Reads what an earlier gate protected.
    fn resume(mut self) -> Result<Self, KernelError> {
        let failed = |map| move |source| KernelError::Map { map, source };
        for key in self.protected4.keys() {
            let key = key.map_err(failed(maps::PROTECTED4))?;
            let data = key.data();
            self.protected.v4.insert((
                (key.prefix_len() - 16) as u8,
                u16::from_be_bytes(data.port),
                data.address,
            ));
        }
        for key in self.protected6.keys() {
            let key = key.map_err(failed(maps::PROTECTED6))?;
            let data = key.data();
            self.protected.v6.insert((
                (key.prefix_len() - 16) as u8,
                u16::from_be_bytes(data.port),
                data.address,
            ));
        }
        Ok(self)
    }

    /// The map for a [`crate::Lease`]; once.
    pub fn take_lease(&mut self) -> Option<Array<MapData, u64>> {
        self.lease.take()
    }

    /// Protects exactly `wanted`: adds what is new before it removes what is
    /// not wanted any more.
    ///
    /// # Errors
    /// When a map cannot be written; then more is protected than is wanted.
    pub fn protect(&mut self, wanted: &Protected) -> Result<(), KernelError> {
        self.add(wanted)?;
        let failed = |map| move |source| KernelError::Map { map, source };
        for entry in self.protected.v4.difference(&wanted.v4) {
            self.protected4
                .remove(&key4(entry))
                .map_err(failed(maps::PROTECTED4))?;
        }
        for entry in self.protected.v6.difference(&wanted.v6) {
            self.protected6
                .remove(&key6(entry))
                .map_err(failed(maps::PROTECTED6))?;
        }
        self.protected = wanted.clone();
        Ok(())
    }

    /// Protects `wanted`, too.
    fn add(&mut self, wanted: &Protected) -> Result<(), KernelError> {
        let failed = |map| move |source| KernelError::Map { map, source };
        for entry in wanted.v4.difference(&self.protected.v4) {
            self.protected4
                .insert(&key4(entry), 1, 0)
                .map_err(failed(maps::PROTECTED4))?;
        }
        for entry in wanted.v6.difference(&self.protected.v6) {
            self.protected6
                .insert(&key6(entry), 1, 0)
                .map_err(failed(maps::PROTECTED6))?;
        }
        self.protected.v4.extend(&wanted.v4);
        self.protected.v6.extend(&wanted.v6);
        Ok(())
    }

    /// Redirects clients of the namespaces in `wanted`, by cookie, and of no
    /// other. Ports of listeners that are gone stay refused to everybody for as
    /// long as a client could still be sent there, that is until the next call.
    pub fn listen(&mut self, wanted: &[(u64, Listener)]) -> Result<(), KernelError> {
        let failed = |map| move |source| KernelError::Map { map, source };
        let ports: BTreeSet<u32> = wanted
            .iter()
            .flat_map(|(_, listener)| [listener.port4, listener.port6])
            .filter(|port| *port != 0)
            .map(u32::from)
            .collect();
        let old_ports: Vec<u32> = self.listener_ports.keys().flatten().collect();
        for port in &ports {
            self.listener_ports
                .insert(port, 1, 0)
                .map_err(failed(maps::LISTENER_PORTS))?;
        }
        let old: Vec<u64> = self.listeners.keys().flatten().collect();
        for (cookie, listener) in wanted {
            self.listeners
                .insert(cookie, listener, 0)
                .map_err(failed(maps::LISTENERS))?;
        }
        for cookie in old {
            if !wanted.iter().any(|(known, _)| *known == cookie) {
                self.listeners
                    .remove(&cookie)
                    .map_err(failed(maps::LISTENERS))?;
            }
        }
        for port in old_ports {
            if !ports.contains(&port) {
                self.listener_ports
                    .remove(&port)
                    .map_err(failed(maps::LISTENER_PORTS))?;
            }
        }
        Ok(())
    }

    /// For sockets of the gate's own; from any thread.
    pub fn exemptions(&self) -> Exemptions {
        self.exemptions.clone()
    }

    /// Takes the origin of a connection that a listener accepted. None: it came
    /// by another way than the redirect.
    pub fn take_origin(&mut self, flow: &Flow) -> Option<Origin> {
        let origin = self.flows.get(flow, 0).ok()?;
        // It is overwritten by the next one anyway.
        let _ = self.flows.remove(flow);
        (origin.version == VERSION).then_some(origin)
    }

    /// What the tracepoints know of a process at the time of the call; from
    /// any thread.
    pub fn processes(&self) -> impl Fn(u32) -> Option<Process> + Send + use<> {
        let processes = self.processes.clone();
        move |tgid| processes.get(&tgid, 0).ok()
    }

    /// Learns anew of a process that fell out of the tracepoints' map, which
    /// makes room where there are too many. What it did so far stays unattested,
    /// since it cannot be told which process that was; if it has gone and another
    /// has its pid by now, the tracepoints have seen that one.
    pub fn learn(&mut self, tgid: u32) {
        let now = monotonic_ns();
        let process = Process {
            start_ns: now,
            exec_ns: now,
            exec_tgid: tgid,
            reserved: 0,
        };
        // It may be there again.
        let _ = self.missed.insert(tgid, process, BPF_NOEXIST);
    }

    /// Passes on what the programs have logged, if they log.
    pub fn pass_on_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.pass_on();
        }
    }

    /// The next thing the kernel refused, if there is one.
    pub fn next_refusal(&mut self) -> Option<lockgate_abi::Refusal> {
        let item = self.refusals.next()?;
        read_refusal(&item)
    }

    /// The buffer that tells of each execve; once.
    pub(crate) fn take_execs(&mut self) -> Option<RingBuf<MapData>> {
        self.execs.take()
    }

    /// Refusals that were counted but not told.
    pub fn lost_refusals(&self) -> u64 {
        self.lost_of(lost::REFUSALS)
    }

    /// Executions that were counted but not told: what they ran is not known
    /// if they end before their connection is looked at.
    pub fn lost_execs(&self) -> u64 {
        self.lost_of(lost::EXECS)
    }

    fn lost_of(&self, kind: u32) -> u64 {
        self.lost
            .get(&kind, 0)
            .map(|counts| counts.iter().sum())
            .unwrap_or(0)
    }

    /// How many programs are attached.
    pub fn links(&self) -> usize {
        self.links
    }

    /// What is protected now.
    pub fn protected(&self) -> &Protected {
        &self.protected
    }

    /// Detaches and forgets everything: nothing is protected any more.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn release(self) -> Result<(), KernelError> {
        // Only what is lockgate's: the folder may hold others' pins.
        let mut own = vec![self.pins.join(LINKS)];
        own.extend(self.map_folders());
        for path in own {
            std::fs::remove_dir_all(&path).map_err(|source| KernelError::Pins { path, source })?;
        }
        // It stays where there is something else in it.
        let _ = std::fs::remove_dir(&self.pins);
        Ok(())
    }

    /// Maps of another version serve nobody once its programs are detached.
    fn forget_other_versions(&self, current: &Path) {
        for path in self.map_folders() {
            if path != current
                && let Err(error) = std::fs::remove_dir_all(&path)
            {
                tracing::warn!(path = %path.display(), %error, "pins of another version stay");
            }
        }
    }

    fn map_folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.pins).into_iter().flatten();
        let named = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(MAPS);
        entries
            .flatten()
            .filter(|entry| named(&entry.file_name()))
            .map(|entry| entry.path())
            .collect()
    }
}

/// Marks sockets as the gate's own: they bind a listener's port and reach
/// protected destinations. The mark is the kernel's, on the socket; nobody
/// without the map can make it.
#[derive(Clone)]
pub struct Exemptions {
    map: Arc<Mutex<SkStorage<MapData, u8>>>,
    /// The same map, for asking the kernel which sockets are in it.
    fd: Arc<OwnedFd>,
}

impl Exemptions {
    fn new(map: aya::maps::Map) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Map {
            map: maps::EXEMPT,
            source,
        };
        let aya::maps::Map::SkStorage(data) = &map else {
            return Err(KernelError::Load("EXEMPT is no map of sockets".into()));
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            fd: Arc::new(fd.map_err(|why| load_error(&why))?),
            map: Arc::new(Mutex::new(SkStorage::try_from(map).map_err(failed)?)),
        })
    }

    /// Exempts `socket`.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn grant(&self, socket: &impl AsRawFd) -> Result<(), KernelError> {
        self.set(socket, exempt::GATE)
    }

    /// Leaves it the connection that it has, so that whoever gets the socket
    /// cannot connect it again to anywhere else.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn settle(&self, socket: &impl AsRawFd) -> Result<(), KernelError> {
        self.set(socket, exempt::DIALLED)
    }

    fn set(&self, socket: &impl AsRawFd, state: u8) -> Result<(), KernelError> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(socket, state, 0)
            .map_err(|source| KernelError::Map {
                map: maps::EXEMPT,
                source,
            })
    }
}

impl AsRawFd for Exemptions {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

fn key4(&(prefix, port, address): &(u8, u16, [u8; 4])) -> Key<Key4> {
    let port = port.to_be_bytes();
    Key::new(u32::from(prefix) + 16, Key4 { port, address })
}

fn key6(&(prefix, port, address): &(u8, u16, [u8; 16])) -> Key<Key6> {
    let port = port.to_be_bytes();
    Key::new(u32::from(prefix) + 16, Key6 { port, address })
}

/// Of bpf(2): only what is not there.
const BPF_NOEXIST: u64 = 1;

/// When a process was made and executed that was there before the tracepoints.
pub(crate) const SEEDED: u64 = 1;

/// Learns of the processes that were there before the tracepoints.
fn seed(processes: &mut HashMap<MapData, u32, Process>) {
    let there = Process {
        start_ns: SEEDED,
        exec_ns: SEEDED,
        exec_tgid: 0,
        reserved: 0,
    };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) {
            // One that the tracepoints have seen is known better.
            let _ = processes.insert(pid, there, BPF_NOEXIST);
        }
    }
}

pub(crate) fn load_error(error: &dyn std::error::Error) -> KernelError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    KernelError::Load(text)
}

/// None for a record of another version or length.
pub(crate) fn read_exec(bytes: &[u8]) -> Option<Exec> {
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let exec = Exec {
        version: *bytes.first()?,
        reserved: [0; 3],
        tgid: u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?),
        start_ns: long(8)?,
        exec_ns: long(16)?,
    };
    (exec.version == VERSION).then_some(exec)
}

fn read_refusal(bytes: &[u8]) -> Option<lockgate_abi::Refusal> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let refusal = lockgate_abi::Refusal {
        version: *bytes.first()?,
        reason: *bytes.get(1)?,
        family: half(2)?,
        port: half(4)?,
        reserved: 0,
        address: bytes.get(8..24)?.try_into().ok()?,
        tgid: word(24)?,
        uid: word(28)?,
        netns_cookie: long(32)?,
        at_ns: long(40)?,
    };
    (refusal.version == VERSION).then_some(refusal)
}

/// The same map once more.
fn again(map: &aya::maps::Map) -> Result<aya::maps::Map, aya::maps::MapError> {
    let aya::maps::Map::LruHashMap(data) = map else {
        return Err(aya::maps::MapError::InvalidMapType { map_type: 0 });
    };
    let info = data.info()?;
    MapData::from_id(info.id()).map(aya::maps::Map::LruHashMap)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(name)
        .ok_or_else(|| KernelError::Load(format!("the object has no map {name}")))
}

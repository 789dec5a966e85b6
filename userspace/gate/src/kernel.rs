use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf, SkStorage};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, SockOps, TracePoint};
use aya::{Ebpf, EbpfLoader};
use lockgate_abi::{Flow, Key4, Key6, Listener, Origin, Process, VERSION, globals, maps};

use crate::cgroup::Attached;
use crate::protected::Protected;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lockgate.bpf.o"));

/// Programs that attach to the cgroup.
const CGROUP: [&str; 12] = [
    "lockgate_bind4",
    "lockgate_bind6",
    "lockgate_post_bind4",
    "lockgate_post_bind6",
    "lockgate_peer4",
    "lockgate_peer6",
    "lockgate_sendmsg4",
    "lockgate_sendmsg6",
    "lockgate_socket",
    // What files an origin must be there before what makes one.
    "lockgate_flow",
    "lockgate_connect4",
    "lockgate_connect6",
];

/// Programs that attach to tracepoints of the category `sched`.
const TRACEPOINTS: [(&str, &str); 3] = [
    ("lockgate_fork", "sched_process_fork"),
    ("lockgate_exec", "sched_process_exec"),
    ("lockgate_exit", "sched_process_exit"),
];

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
    exempt: SkStorage<MapData, u8>,
    flows: HashMap<MapData, Flow, Origin>,
    processes: Arc<HashMap<MapData, u32, Process>>,
    lost: PerCpuArray<MapData, u64>,
    refusals: RingBuf<MapData>,
    lease: Option<Array<MapData, u64>>,
    protected: Protected,
    links: usize,
    pins: PathBuf,
    _ebpf: Ebpf,
}

impl Kernel {
    /// As [`Kernel::load`], to a cgroup by its path.
    pub fn attach(cgroup: Option<&Path>, pins: &Path) -> Result<Self, KernelError> {
        let attached = Attached::open(cgroup).map_err(|why| load_error(&why))?;
        Self::load(&attached, pins)
    }

    /// Loads the programs, attaches them to `cgroup` and pins them below
    /// `pins`. Maps that are pinned there are taken over; programs that are
    /// pinned there are detached once the new ones stand, so that at no moment
    /// nothing is attached.
    pub(crate) fn load(cgroup: &Attached, pins: &Path) -> Result<Self, KernelError> {
        let folder = |name: &str| {
            let path = pins.join(name);
            match std::fs::create_dir_all(&path) {
                Ok(()) => Ok(path),
                Err(source) => Err(KernelError::Pins { path, source }),
            }
        };
        let map_pins = folder(&format!("maps-v{VERSION}"))?;
        let link_pins = folder("links")?;
        let mut loader = EbpfLoader::new();
        let child_pid = fork_child_pid()?;
        loader.override_global(globals::FORK_CHILD_PID, &child_pid, true);
        for name in PINNED {
            loader.map_pin_path(name, map_pins.join(name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|why| load_error(&why))?;
        let links = attach_all(&mut ebpf, cgroup)?;
        let count = links.len();
        pin_all(links, &link_pins)?;
        let kernel = Self {
            protected4: lpm(&mut ebpf, maps::PROTECTED4)?,
            protected6: lpm(&mut ebpf, maps::PROTECTED6)?,
            listeners: hash(&mut ebpf, maps::LISTENERS)?,
            listener_ports: hash(&mut ebpf, maps::LISTENER_PORTS)?,
            exempt: SkStorage::try_from(take(&mut ebpf, maps::EXEMPT)?).map_err(|source| {
                KernelError::Map {
                    map: maps::EXEMPT,
                    source,
                }
            })?,
            flows: hash(&mut ebpf, maps::FLOWS)?,
            processes: Arc::new(seeded(hash(&mut ebpf, maps::PROCESSES)?)),
            lost: PerCpuArray::try_from(take(&mut ebpf, maps::LOST)?).map_err(|source| {
                KernelError::Map {
                    map: maps::LOST,
                    source,
                }
            })?,
            refusals: RingBuf::try_from(take(&mut ebpf, maps::REFUSALS)?).map_err(|source| {
                KernelError::Map {
                    map: maps::REFUSALS,
                    source,
                }
            })?,
            lease: Some(
                Array::try_from(take(&mut ebpf, maps::LEASE)?).map_err(|source| {
                    KernelError::Map {
                        map: maps::LEASE,
                        source,
                    }
                })?,
            ),
            protected: Protected::default(),
            links: count,
            pins: pins.to_owned(),
            _ebpf: ebpf,
        };
        kernel.resume()
    }

    /// Reads what an earlier gate protected.
    fn resume(mut self) -> Result<Self, KernelError> {
        for key in self.protected4.keys() {
            let key = key.map_err(|source| KernelError::Map {
                map: maps::PROTECTED4,
                source,
            })?;
            let data = key.data();
            self.protected.v4.insert((
                (key.prefix_len() - 16) as u8,
                u16::from_be_bytes(data.port),
                data.address,
            ));
        }
        for key in self.protected6.keys() {
            let key = key.map_err(|source| KernelError::Map {
                map: maps::PROTECTED6,
                source,
            })?;
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
    pub fn protect(&mut self, wanted: &Protected) -> Result<(), KernelError> {
        let failed = |map| move |source| KernelError::Map { map, source };
        let key4 = |&(prefix, port, address): &(u8, u16, [u8; 4])| {
            Key::new(
                u32::from(prefix) + 16,
                Key4 {
                    port: port.to_be_bytes(),
                    address,
                },
            )
        };
        let key6 = |&(prefix, port, address): &(u8, u16, [u8; 16])| {
            Key::new(
                u32::from(prefix) + 16,
                Key6 {
                    port: port.to_be_bytes(),
                    address,
                },
            )
        };
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

    /// Lets `socket` bind a listener's port and reach protected destinations.
    pub fn exempt(&mut self, socket: &impl AsRawFd) -> Result<(), KernelError> {
        self.exempt
            .insert(socket, 1, 0)
            .map_err(|source| KernelError::Map {
                map: maps::EXEMPT,
                source,
            })
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

    /// The next thing the kernel refused, if there is one.
    pub fn next_refusal(&mut self) -> Option<lockgate_abi::Refusal> {
        let item = self.refusals.next()?;
        read_refusal(&item)
    }

    /// Refusals that were counted but not told.
    pub fn lost(&self) -> u64 {
        self.lost
            .get(&0, 0)
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
    pub fn release(self) -> Result<(), KernelError> {
        let path = self.pins.clone();
        std::fs::remove_dir_all(&path).map_err(|source| KernelError::Pins { path, source })
    }
}

/// Learns of the processes that were there before the tracepoints.
fn seeded(mut processes: HashMap<MapData, u32, Process>) -> HashMap<MapData, u32, Process> {
    const BPF_NOEXIST: u64 = 1;
    let there = Process {
        start_ns: 1,
        exec_ns: 1,
    };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) {
            // One that the tracepoints have seen is known better.
            let _ = processes.insert(pid, there, BPF_NOEXIST);
        }
    }
    processes
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

fn load_error(error: &dyn std::error::Error) -> KernelError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    KernelError::Load(text)
}

fn attach_all(
    ebpf: &mut Ebpf,
    cgroup: &Attached,
) -> Result<Vec<(&'static str, FdLink)>, KernelError> {
    let mut links = Vec::new();
    for (name, tracepoint) in TRACEPOINTS {
        links.push((name, attach_tracepoint(ebpf, name, tracepoint)?));
    }
    for name in CGROUP {
        links.push((name, attach_cgroup(ebpf, name, cgroup)?));
    }
    Ok(links)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, KernelError> {
    ebpf.program_mut(name)
        .ok_or_else(|| KernelError::Load(format!("the object has no program {name}")))
}

fn attach_tracepoint(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<FdLink, KernelError> {
    let attach = |program: &mut TracePoint| {
        program.load()?;
        let id = program.attach("sched", tracepoint)?;
        program.take_link(id)
    };
    let program: &mut TracePoint = program(ebpf, name)?
        .try_into()
        .map_err(|why: aya::programs::ProgramError| load_error(&why))?;
    let link = attach(program).map_err(|why| load_error(&why))?;
    FdLink::try_from(link).map_err(|why| load_error(&why))
}

fn attach_cgroup(ebpf: &mut Ebpf, name: &str, cgroup: &Attached) -> Result<FdLink, KernelError> {
    // A link attaches beside others' programs whatever the mode says; the
    // flag for several is refused on this path.
    let mode = CgroupAttachMode::Single;
    let folder = cgroup.folder();
    macro_rules! attach {
        ($program:ident) => {{
            let link = (|| {
                $program.load()?;
                let id = $program.attach(folder, mode)?;
                $program.take_link(id)
            })()
            .map_err(|why: aya::programs::ProgramError| load_error(&why))?;
            FdLink::try_from(link).map_err(|why| load_error(&why))
        }};
    }
    match program(ebpf, name)? {
        Program::CgroupSockAddr(program) => {
            let program: &mut CgroupSockAddr = program;
            attach!(program)
        }
        Program::CgroupSock(program) => {
            let program: &mut CgroupSock = program;
            attach!(program)
        }
        Program::SockOps(program) => {
            let program: &mut SockOps = program;
            attach!(program)
        }
        _ => Err(KernelError::Load(format!(
            "program {name} is of another type"
        ))),
    }
}

/// Pins the new links, then removes those that were there before.
fn pin_all(links: Vec<(&'static str, FdLink)>, folder: &Path) -> Result<(), KernelError> {
    let pins = |source| KernelError::Pins {
        path: folder.to_owned(),
        source,
    };
    let before: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(pins)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let generation = crate::sys::monotonic_ns();
    for (name, link) in links {
        let path = folder.join(format!("{name}-{generation}"));
        let _pinned: PinnedLink = link.pin(&path).map_err(|why| load_error(&why))?;
    }
    for path in before {
        std::fs::remove_file(&path).map_err(pins)?;
    }
    Ok(())
}

/// Offset of `child_pid` in the record of sched_process_fork.
fn fork_child_pid() -> Result<u32, KernelError> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|mount| {
            let path = format!("{mount}/events/sched/sched_process_fork/format");
            let format = std::fs::read_to_string(path).ok()?;
            let field = format.lines().find(|line| line.contains(" child_pid;"))?;
            field
                .split_once("offset:")?
                .1
                .split(';')
                .next()?
                .parse()
                .ok()
        })
        .ok_or(KernelError::Tracefs)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(name)
        .ok_or_else(|| KernelError::Load(format!("the object has no map {name}")))
}

fn lpm<K: aya::Pod>(
    ebpf: &mut Ebpf,
    map: &'static str,
) -> Result<LpmTrie<MapData, K, u8>, KernelError> {
    LpmTrie::try_from(take(ebpf, map)?).map_err(|source| KernelError::Map { map, source })
}

fn hash<K: aya::Pod, V: aya::Pod>(
    ebpf: &mut Ebpf,
    map: &'static str,
) -> Result<HashMap<MapData, K, V>, KernelError> {
    HashMap::try_from(take(ebpf, map)?).map_err(|source| KernelError::Map { map, source })
}

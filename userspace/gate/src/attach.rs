use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Program, SockOps,
    TracePoint,
};

use crate::cgroup::Attached;
use crate::kernel::{KernelError, load_error};

/// Programs that attach to the cgroup.
const CGROUP: [&str; 13] = [
    "lockgate_bind4",
    "lockgate_bind6",
    "lockgate_post_bind4",
    "lockgate_post_bind6",
    "lockgate_peer4",
    "lockgate_peer6",
    "lockgate_sendmsg4",
    "lockgate_sendmsg6",
    "lockgate_socket",
    "lockgate_packet",
    // What files an origin must be there before what makes one.
    "lockgate_flow",
    "lockgate_connect4",
    "lockgate_connect6",
];

/// Programs that attach to tracepoints of the category `sched`.
const TRACEPOINTS: [(&str, &str); 4] = [
    // Only where the kernel has it (6.10); first, so that no execve that is
    // told of by the others goes without it.
    ("lockgate_prepare", "sched_prepare_exec"),
    ("lockgate_fork", "sched_process_fork"),
    ("lockgate_exec", "sched_process_exec"),
    ("lockgate_exit", "sched_process_exit"),
];

/// The tracepoint that older kernels lack.
const PREPARE: &str = "sched_prepare_exec";
const NO_PREPARE: &str = "this kernel (before 6.10) does not say when an execve begins; for some microseconds of it a process is attested by its new image";

/// Loads and attaches every program this kernel has a place for.
pub(crate) fn attach_all(
    ebpf: &mut Ebpf,
    cgroup: &Attached,
) -> Result<Vec<(&'static str, FdLink)>, KernelError> {
    let mut links = Vec::new();
    for (name, tracepoint) in TRACEPOINTS {
        if tracepoint == PREPARE && !tells_of_execves() {
            tracing::info!("{}", NO_PREPARE);
            continue;
        }
        links.push((name, attach_tracepoint(ebpf, name, tracepoint)?));
    }
    for name in CGROUP {
        links.push((name, attach_cgroup(ebpf, name, cgroup)?));
    }
    Ok(links)
}

/// Whether this kernel says when an execve begins.
pub(crate) fn tells_of_execves() -> bool {
    tracefs().is_ok_and(|tracing| tracing.join("events/sched").join(PREPARE).exists())
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
        ($program:ident $(, $direction:expr)?) => {{
            let link = (|| {
                $program.load()?;
                let id = $program.attach(folder, $($direction,)? mode)?;
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
        Program::CgroupSkb(program) => {
            let program: &mut CgroupSkb = program;
            attach!(program, CgroupSkbAttachType::Egress)
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
pub(crate) fn pin_all(
    links: Vec<(&'static str, FdLink)>,
    folder: &Path,
) -> Result<(), KernelError> {
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
pub(crate) fn fork_child_pid() -> Result<u32, KernelError> {
    let path = tracefs()?.join("events/sched/sched_process_fork/format");
    let format = std::fs::read_to_string(path).map_err(|_| KernelError::Tracefs)?;
    format
        .lines()
        .find(|line| line.contains(" child_pid;"))
        .and_then(|field| {
            let offset = field.split_once("offset:")?.1.split(';').next()?;
            offset.parse().ok()
        })
        .ok_or(KernelError::Tracefs)
}

fn tracefs() -> Result<&'static Path, KernelError> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(Path::new)
        .find(|mount| mount.join("events/sched/sched_process_fork").exists())
        .ok_or(KernelError::Tracefs)
}

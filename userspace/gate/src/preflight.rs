//! What `lockgate doctor` looks at before the kernel is asked for anything.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::attach::tells_of_execves;
use crate::earlier::can_end;
use crate::namespace::{candidates, chosen_ports};
use crate::others;

/// One look at the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What it means, and what to do where something is to be done.
    pub advice: String,
}

/// How a [`Check`] came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Good,
    /// Works, but something beside it does not, or a way around is open to who
    /// has rights that a workload needs not have.
    Limited,
    /// Works, but a way around is open to a process without rights.
    Open,
    /// lockgate cannot run.
    Broken,
}

/// Looks at the kernel side of this host. Needs no right for most of it.
pub fn checks() -> Vec<Check> {
    vec![
        kernel(),
        btf(),
        capabilities(),
        cgroup(),
        bpffs(),
        tracefs(),
        ptrace(),
        mptcp(),
        closed(),
        ports(),
        earlier(),
        packets(),
        guests(),
        beside(),
        filters(),
        lsm(),
    ]
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // The version counts where tracefs is not mounted yet.
    let tells = version >= (6, 10) || tells_of_execves();
    Check {
        name: "kernel",
        state: match version {
            (0..5, _) | (5, 0..15) => State::Broken,
            _ if tells => State::Good,
            _ => State::Open,
        },
        found: match tells {
            true => release,
            false => format!("{release}, which does not say when an execve begins"),
        },
        advice: "lockgate needs Linux 5.15 or newer; before 6.10 a process that is looked at while it calls execve can, for some microseconds, be taken for the image that follows".into(),
    }
}

fn btf() -> Check {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    Check {
        name: "BTF",
        state: if there { State::Good } else { State::Broken },
        found: if there { "present" } else { "missing" }.into(),
        advice: "maps that belong to sockets need a kernel built with CONFIG_DEBUG_INFO_BTF".into(),
    }
}

/// What the gate needs of root, in the order of the kernel's numbers.
const CAPABILITIES: [(u32, &str); 5] = [
    (2, "CAP_DAC_READ_SEARCH"),
    (12, "CAP_NET_ADMIN"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (23, "CAP_SYS_NICE"),
];

fn capabilities() -> Check {
    let effective = effective("self");
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(number, _)| effective >> number & 1 == 0)
        .map(|(_, name)| *name)
        .collect();
    Check {
        name: "capabilities",
        state: if missing.is_empty() {
            State::Good
        } else {
            State::Broken
        },
        found: if missing.is_empty() {
            "all that is needed".into()
        } else {
            format!("without {}", missing.join(", "))
        },
        advice: "run as root, and in a container with these capabilities added".into(),
    }
}

/// Effective capabilities of a process, by its name in /proc.
fn effective(tgid: &str) -> u64 {
    let status = read(&format!("/proc/{tgid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn cgroup() -> Check {
    /// Inode of the root of every kernfs.
    const ROOT: u64 = 1;
    match crate::v2_root() {
        Ok(root) if std::fs::metadata(&root).is_ok_and(|it| it.ino() != ROOT) => Check {
            name: "cgroup v2",
            state: State::Open,
            found: format!("{} is not the root of the hierarchy", root.display()),
            advice: "processes outside are not intercepted, nor are sockets that they made: run lockgate on the host, or in its cgroup namespace (--cgroupns=host)".into(),
        },
        Ok(root) => Check {
            name: "cgroup v2",
            state: State::Good,
            found: root.display().to_string(),
            advice: "programs attach here; every process below is intercepted".into(),
        },
        Err(error) => Check {
            name: "cgroup v2",
            state: State::Broken,
            found: "not mounted".into(),
            advice: error.to_string(),
        },
    }
}

fn bpffs() -> Check {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    let found = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("bpf"));
    Check {
        name: "bpf file system",
        state: if found.is_some() {
            State::Good
        } else {
            State::Limited
        },
        found: found
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or("not mounted")
            .into(),
        advice: "`lockgate run` mounts /sys/fs/bpf where it is missing".into(),
    }
}

fn tracefs() -> Check {
    let there = Path::new("/sys/kernel/tracing/events/sched").exists()
        || Path::new("/sys/kernel/debug/tracing/events/sched").exists();
    Check {
        name: "tracefs",
        state: if there { State::Good } else { State::Limited },
        found: if there { "mounted" } else { "not mounted" }.into(),
        advice: "`lockgate run` mounts /sys/kernel/tracing where it is missing".into(),
    }
}

fn ptrace() -> Check {
    let scope = read("/proc/sys/kernel/yama/ptrace_scope");
    let restricted = scope.as_deref().is_some_and(|scope| scope != "0");
    Check {
        name: "ptrace",
        state: if restricted { State::Good } else { State::Open },
        found: scope.map_or("no Yama".into(), |scope| format!("ptrace_scope {scope}")),
        advice: "without kernel.yama.ptrace_scope=1 a process can borrow the identity of another of its user".into(),
    }
}

fn mptcp() -> Check {
    let enabled = read("/proc/sys/net/mptcp/enabled").as_deref() == Some("1");
    Check {
        name: "multipath TCP",
        state: State::Good,
        found: if enabled { "enabled" } else { "off" }.into(),
        advice: "multipath sockets are refused while lockgate is attached".into(),
    }
}

/// What needs nothing of the host but the programs.
fn closed() -> Check {
    Check {
        name: "ways around",
        state: State::Good,
        found: "closed while lockgate is attached: Fast Open, io_uring, reconnected and passed sockets, raw TCP, handshakes and datagrams by raw sockets, NAT within a namespace".into(),
        advice: "SECURITY.md lists all ways, each with its test".into(),
    }
}

fn ports() -> Check {
    let chosen = chosen_ports();
    let is_free = chosen
        .as_ref()
        .is_ok_and(|chosen| candidates(chosen).next() != Some(0));
    Check {
        name: "listeners' ports",
        state: if is_free { State::Good } else { State::Open },
        found: match chosen {
            Ok(chosen) => format!("the kernel chooses from {} to {}", chosen.start(), chosen.end()),
            Err(error) => format!("ip_local_port_range: {error}"),
        },
        advice: "where the kernel chooses from all ports, a process can wait for a listener's: set net.ipv4.ip_local_port_range to leave some, such as \"32768 60999\"".into(),
    }
}

fn earlier() -> Check {
    let can = can_end();
    Check {
        name: "earlier connections",
        state: match can {
            Ok(true) => State::Good,
            _ => State::Open,
        },
        found: match can {
            Ok(true) => "are ended when their destination is protected".into(),
            Ok(false) => "cannot be ended by this kernel".into(),
            Err(error) => format!("unknown ({error})"),
        },
        advice: "what is connected before lockgate starts stays so until its program ends: start lockgate first, or use a kernel with CONFIG_INET_DIAG_DESTROY".into(),
    }
}

/// Containers whose root can send what no hook of cgroups sees.
fn packets() -> Check {
    /// CAP_NET_ADMIN and CAP_NET_RAW.
    const RIGHTS: u64 = 1 << 12 | 1 << 13;
    const SHOWN: usize = 3;
    let namespace = |tgid: &str, kind: &str| {
        let link = format!("/proc/{tgid}/ns/{kind}");
        std::fs::read_link(link).ok()
    };
    let of = |kind: &str| namespace("self", kind);
    let (net, user) = (of("net"), of("user"));
    let mut able: BTreeMap<PathBuf, String> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let tgid = entry.file_name().to_string_lossy().into_owned();
        // Rights of a user namespace are none over a network that leads out.
        let (Some(own), true) = (namespace(&tgid, "net"), namespace(&tgid, "user") == user) else {
            continue;
        };
        if Some(&own) != net.as_ref() && effective(&tgid) & RIGHTS != 0 {
            let name = read(&format!("/proc/{tgid}/comm")).unwrap_or_default();
            able.entry(own)
                .or_insert(format!("{tgid} ({})", name.escape_debug()));
        }
    }
    let shown: Vec<&str> = able.values().take(SHOWN).map(String::as_str).collect();
    Check {
        name: "packets by hand",
        state: if able.is_empty() {
            State::Good
        } else {
            State::Limited
        },
        found: match able.len() {
            0 => "no process with CAP_NET_RAW or CAP_NET_ADMIN in a network namespace beside the host's".into(),
            count => format!(
                "CAP_NET_RAW or CAP_NET_ADMIN in {count} network namespaces beside the host's: process {}",
                shown.join(", ")
            ),
        },
        advice: "AF_PACKET, TUN devices and tunnels pass no hook: start containers with --cap-drop NET_RAW (in Kubernetes: capabilities.drop), and give none NET_ADMIN in a network that leads to a protected server".into(),
    }
}

/// Machines and sandboxes on this host whose packets come from no socket of its
/// kernel's.
fn guests() -> Check {
    /// Beginnings of the names of what runs them, as the kernel cuts them.
    const MONITORS: [&str; 8] = [
        "kvm",
        "qemu-kvm",
        "firecracker",
        "qemu-system-",
        "cloud-hyperviso",
        "crosvm",
        "runsc",
        "VBoxHeadless",
    ];
    const SHOWN: usize = 3;
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = processes.filter_map(|entry| {
        let tgid = entry.file_name().to_string_lossy().into_owned();
        let name = read(&format!("/proc/{tgid}/comm"))?;
        let is_monitor = MONITORS.iter().any(|monitor| name.starts_with(monitor));
        is_monitor.then(|| format!("{tgid} ({})", name.escape_debug()))
    });
    let found: Vec<String> = named.collect();
    let shown: Vec<&str> = found.iter().take(SHOWN).map(String::as_str).collect();
    Check {
        name: "guests",
        state: match found.is_empty() {
            true => State::Good,
            false => State::Open,
        },
        found: match found.len() {
            0 => "no virtual machine and no gVisor".into(),
            count => format!("{count} run here: process {}", shown.join(", ")),
        },
        advice: "what a guest sends passes no hook of this host: install lockgate inside it, or let the server refuse its address".into(),
    }
}

/// What others' programs do to destinations after lockgate has looked at them.
fn beside() -> Check {
    let root = crate::v2_root().unwrap_or_default();
    let advice = "a load balancer in connect(2) that runs after lockgate may lead to a protected destination past the redirect, where its packets are dropped: start lockgate after it, so that lockgate sees what it has chosen".into();
    let (state, found) = match others::behind(&root) {
        Ok(names) if names.is_empty() => (
            State::Good,
            "no program looks at connect(2) after lockgate".into(),
        ),
        Ok(names) => (
            State::Limited,
            format!("after lockgate, connect(2) is seen by {}", names.join(", ")),
        ),
        Err(error) => (State::Limited, format!("unknown ({error})")),
    };
    Check {
        name: "other programs",
        state,
        found,
        advice,
    }
}

/// Filters that take lockgate's listener for the destination.
fn filters() -> Check {
    const SHOWN: usize = 5;
    let (state, found) = match others::filtering(&crate::v2_root().unwrap_or_default()) {
        Ok(cgroups) if cgroups.is_empty() => (State::Good, "no cgroup filters packets".into()),
        Ok(cgroups) => {
            let shown: Vec<&str> = cgroups.iter().take(SHOWN).map(String::as_str).collect();
            let count = cgroups.len();
            let found = format!("{count} cgroups filter packets: {}", shown.join(", "));
            (State::Limited, found)
        }
        Err(error) => (State::Limited, format!("unknown ({error})")),
    };
    Check {
        name: "address filters",
        state,
        found,
        advice: "a redirected connection goes to 127.0.0.1 or ::1 for such a filter: where it is systemd's IPAddressDeny=, add IPAddressAllow=localhost; what it denies of the server's address, deny by policy".into(),
    }
}

fn lsm() -> Check {
    let list = read("/sys/kernel/security/lsm").unwrap_or_default();
    let landlock = list.split(',').any(|name| name == "landlock");
    Check {
        name: "Landlock",
        state: if landlock || list.is_empty() {
            State::Good
        } else {
            State::Limited
        },
        found: if list.is_empty() {
            "unknown (securityfs is not mounted)".into()
        } else {
            list
        },
        advice: "where the kernel has Landlock, proxy and keeper lose their file systems by it"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_on_which_the_programs_load_is_not_called_broken() {
        for check in checks() {
            assert_ne!(check.state, State::Broken, "{check:?}");
            assert!(
                !check.found.is_empty() && !check.advice.is_empty(),
                "{check:?}"
            );
        }
    }
}

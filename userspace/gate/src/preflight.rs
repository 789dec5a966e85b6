//! What `lockgate doctor` looks at before the kernel is asked for anything.

use std::path::Path;

use serde::Serialize;

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
    /// Works, but a way around stays open.
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
    Check {
        name: "kernel",
        state: if version >= (5, 15) {
            State::Good
        } else {
            State::Broken
        },
        found: release,
        advice: "lockgate needs Linux 5.15 or newer; from 6.10 on it also sees an execve begin, so that no connection can be taken for one of the image that follows".into(),
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
const CAPABILITIES: [(u32, &str); 6] = [
    (2, "CAP_DAC_READ_SEARCH"),
    (12, "CAP_NET_ADMIN"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

fn capabilities() -> Check {
    let status = read("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
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

fn cgroup() -> Check {
    match crate::v2_root() {
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
            State::Open
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
        state: if there { State::Good } else { State::Open },
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

fn lsm() -> Check {
    let list = read("/sys/kernel/security/lsm").unwrap_or_default();
    let landlock = list.split(',').any(|name| name == "landlock");
    Check {
        name: "Landlock",
        state: if landlock || list.is_empty() {
            State::Good
        } else {
            State::Open
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

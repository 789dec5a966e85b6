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
        advice: "lockgate needs Linux 5.15 or newer; it is tested on the kernel of its CI".into(),
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

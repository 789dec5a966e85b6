//! Each role tries, from within its sandbox, all that it must not be able to
//! do, and what it must. Needs root.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use serde_json::Value;

/// uid and gid `nobody`: they own nothing but what these tests give them.
const NOBODY: u32 = 65534;

/// What is known of a role from outside, while it sits in its sandbox.
struct Seen {
    attempts: Vec<Value>,
    status: String,
    limits: String,
    /// Owner of its /proc files: root's, if it is not dumpable.
    owner: u32,
}

fn look_at(role: &str) -> Seen {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(dir.path().join("beside"), "x").unwrap();
    let user = match role {
        "gate" => Value::Null,
        _ => {
            chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
            serde_json::json!([NOBODY, NOBODY])
        }
    };
    let setup = serde_json::json!({
        "channel": 0,
        "parent": std::process::id(),
        "user": user,
        "state_dir": state,
        "metrics": null,
        "host": "probe",
        "boot": "00000000-0000-0000-0000-000000000000",
        "log": "text",
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .args(["internal", &format!("probe-{role}"), &setup.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut attempts: Vec<Value> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let attempt: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let last = attempt["attempt"] == LAST;
        attempts.push(attempt);
        if last {
            break;
        }
    }
    assert!(!attempts.is_empty(), "{role} printed nothing");
    let proc = format!("/proc/{}", child.id());
    let seen = Seen {
        attempts,
        status: fs::read_to_string(format!("{proc}/status")).unwrap(),
        limits: fs::read_to_string(format!("{proc}/limits")).unwrap(),
        owner: fs::metadata(format!("{proc}/environ")).unwrap().uid(),
    };
    drop(child.stdin.take());
    let wrong: Vec<&Value> = seen
        .attempts
        .iter()
        .filter(|attempt| attempt["right"] != true)
        .collect();
    assert!(wrong.is_empty(), "{role}: {wrong:#?}");
    assert!(child.wait().unwrap().success());
    seen
}

/// The last thing that is tried.
const LAST: &str = "run tokio, pass a descriptor";

impl Seen {
    fn status(&self, key: &str) -> &str {
        let line = self
            .status
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}:")));
        line.unwrap_or_else(|| panic!("no {key}")).trim()
    }

    fn attempt(&self, name: &str) -> &Value {
        let found = self.attempts.iter().find(|tried| tried["attempt"] == name);
        found.unwrap_or_else(|| panic!("`{name}` was not tried"))
    }

    fn is_closed(&self) {
        assert_eq!(self.status("NoNewPrivs"), "1");
        assert_eq!(self.status("Seccomp"), "2");
        let core = self
            .limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
}

#[test]
fn proxy_can_neither_open_nor_connect_nor_start_anything() {
    let seen = look_at("proxy");
    seen.is_closed();
    assert_eq!(seen.status("Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(seen.status("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(seen.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(seen.owner, 0, "others of its user can look into it");
    for forbidden in [
        "socket IPv4",
        "connect",
        "bind",
        "listen",
        "accept",
        "execve",
        "fork",
        "ptrace",
        "bpf",
        "io_uring_setup",
        "read /etc/passwd",
        "write the state folder",
        "map executable memory",
    ] {
        assert_eq!(seen.attempt(forbidden)["denied"], true, "{forbidden}");
    }
    for needed in [
        "map a file it was handed",
        "use a connection it was handed",
        "start a thread",
        LAST,
    ] {
        assert_eq!(seen.attempt(needed)["errno"], 0, "{needed}");
    }
}

#[test]
fn keeper_has_its_state_folder_and_no_socket_of_its_own() {
    let seen = look_at("keeper");
    seen.is_closed();
    assert_eq!(seen.status("Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(seen.status("CapEff"), "0000000000000000");
    assert_eq!(seen.owner, 0, "others of its user can look into it");
    for forbidden in [
        "socket IPv4",
        "connect",
        "execve",
        "ptrace",
        "read /etc/passwd",
        "read beside the state folder",
        "link in the state folder",
    ] {
        assert_eq!(seen.attempt(forbidden)["denied"], true, "{forbidden}");
    }
    for needed in ["write the state folder", "read the state folder", LAST] {
        assert_eq!(seen.attempt(needed)["errno"], 0, "{needed}");
    }
}

#[test]
fn gate_writes_no_file_and_starts_no_program() {
    let seen = look_at("gate");
    seen.is_closed();
    // sys_admin, sys_ptrace, sys_nice, sys_resource, net_admin,
    // dac_read_search, perfmon, bpf.
    let allowed = 0x0000_00c0_01a8_1004_u64;
    let effective = u64::from_str_radix(seen.status("CapEff"), 16).unwrap();
    assert_eq!(effective & !allowed, 0, "{effective:x}");
    for forbidden in [
        "execve",
        "fork",
        "ptrace",
        "kill",
        "mount",
        "init_module",
        "write a temporary file",
        "write the state folder",
        "map executable memory",
    ] {
        assert_eq!(seen.attempt(forbidden)["denied"], true, "{forbidden}");
    }
    for needed in ["read /etc/passwd", "see another's executable", LAST] {
        assert_eq!(seen.attempt(needed)["errno"], 0, "{needed}");
    }
    for needed in ["bpf", "setns", "socket IPv4"] {
        assert_eq!(seen.attempt(needed)["denied"], false, "{needed}");
    }
}

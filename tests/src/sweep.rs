use std::fs;
use std::path::Path;

use crate::cluster::end;
use crate::sh;
use crate::workload::{remove, v2_root};

/// Removes what runs that were killed have left behind: network namespaces and
/// what runs in them, cgroups, pinned programs. Their names hold the pid of the
/// run; whose process lives is left alone.
pub fn sweep() {
    for name in names("/run/netns") {
        if let Some(pid) = pid_of_namespace(&name)
            && !alive(pid)
        {
            // Servers of a run that is gone, in a namespace that was its own.
            let _ = sh(&format!(
                "for pid in $(ip netns pids {name}); do kill -9 $pid; done
                 ip netns del {name}; ip link del lgh{} 2>/dev/null || true",
                &name[2..]
            ));
        }
    }
    for name in names("/sys/fs/bpf") {
        if pid_of_agent(&name).is_some_and(|pid| !alive(pid)) {
            // Unpinned, programs are detached: their links were all that held them.
            let _ = fs::remove_dir_all(Path::new("/sys/fs/bpf").join(name));
        }
    }
    let temporary = std::env::temp_dir();
    for name in names(&temporary) {
        if pid_of_server(&name).is_some_and(|pid| !alive(pid)) {
            let folder = temporary.join(name);
            end(&folder);
            let _ = fs::remove_dir_all(folder);
        }
    }
    let Ok(root) = v2_root() else { return };
    for name in names(&root) {
        if pid_of_agent(&name).is_some_and(|pid| !alive(pid)) {
            let _ = remove(&Path::new(&root).join(name));
        }
    }
}

fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// `lg` and the pid, shifted by six bits, in hex.
fn pid_of_namespace(name: &str) -> Option<u32> {
    let unique = u32::from_str_radix(name.strip_prefix("lg")?, 16).ok()?;
    Some(unique >> 6).filter(|pid| *pid > 1)
}

/// `lockgate-PID-NUMBER`, or `lockgate-gate-PID-NUMBER` of gate's own tests.
fn pid_of_agent(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("lockgate-")?;
    let (pid, number) = rest.strip_prefix("gate-").unwrap_or(rest).split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// `lockgate-pg-PID-` or `lockgate-pg-template-PID-`, and what makes it unique.
fn pid_of_server(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("lockgate-pg-")?;
    let (pid, _) = rest
        .strip_prefix("template-")
        .unwrap_or(rest)
        .split_once('-')?;
    pid.parse().ok()
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::{pid_of_agent, pid_of_namespace, pid_of_server};

    #[test]
    fn only_what_a_run_names_is_swept() {
        assert_eq!(pid_of_agent("lockgate-4711-3"), Some(4711));
        assert_eq!(pid_of_agent("lockgate-gate-4711-3"), Some(4711));
        for other in [
            "lockgate",
            "lockgate-x-1",
            "lockgate-1",
            "lockgate-test-4",
            "systemd",
        ] {
            assert_eq!(pid_of_agent(other), None, "{other}");
        }
        assert_eq!(
            pid_of_namespace(&format!("lg{:x}", (4711 << 6) + 5)),
            Some(4711)
        );
        assert_eq!(pid_of_server("lockgate-pg-4711-x1Y2"), Some(4711));
        assert_eq!(pid_of_server("lockgate-pg-template-4711-x1Y2"), Some(4711));
        for other in ["lockgate-pg-x1Y2", "lockgate-agent-4711-x"] {
            assert_eq!(pid_of_server(other), None, "{other}");
        }
        for other in ["lgpg", "office", "lg", "lg3"] {
            assert_eq!(pid_of_namespace(other), None, "{other}");
        }
    }
}

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockgate_abi::{INET, Process};
use lockgate_identity::{Ancestor, ExecKey, Executable, Origin};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

/// Largest executable that is hashed.
const MAX_EXECUTABLE: u64 = 512 << 20;

/// Longest time a hash may take. A file system can answer as slowly as it
/// likes; what takes longer is not attested.
const MAX_HASHING: Duration = Duration::from_secs(2);

/// How far up the ancestors are looked at.
const MAX_ANCESTORS: usize = 16;

/// How much of the argument vector is kept, in bytes.
const MAX_ARGV: u64 = 4096;

/// Executions whose facts are kept.
const KEPT: usize = 8192;

/// Turns what the kernel recorded into an origin: reads /proc while the
/// process is still the one that connected, and never after.
pub(crate) struct Attestor {
    known: Cache<ExecKey, Arc<Facts>>,
    hashes: Cache<FileKey, [u8; 32]>,
    hashing: Mutex<()>,
    /// Whether some workload asks for hashes.
    with_hash: std::sync::atomic::AtomicBool,
}

/// What /proc says of one execution.
#[derive(Clone, Debug, Default)]
struct Facts {
    executable: Option<Executable>,
    ancestors: Vec<Ancestor>,
    argv: Vec<String>,
}

/// Names the content of a file, as far as a file system can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FileKey {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

impl Attestor {
    pub(crate) fn new() -> Self {
        Self {
            known: Cache::new(KEPT),
            hashes: Cache::new(1024),
            hashing: Mutex::new(()),
            with_hash: false.into(),
        }
    }

    /// Whether executables are hashed from now.
    pub(crate) fn set_with_hash(&self, with_hash: bool) {
        let before = self
            .with_hash
            .swap(with_hash, std::sync::atomic::Ordering::SeqCst);
        if before != with_hash {
            self.known.clear();
        }
    }

    /// Attests one connection. `still` looks a process up in the tracepoints'
    /// map at the time of the call. May read files; not for a runtime's thread.
    pub(crate) fn attest(
        &self,
        record: &lockgate_abi::Origin,
        client: SocketAddr,
        cgroup: Option<String>,
        still: impl Fn(u32) -> Option<Process>,
    ) -> Origin {
        let exec = ExecKey {
            tgid: record.tgid,
            start_ns: record.start_ns,
            exec_ns: record.exec_ns,
        };
        let facts = self.facts(exec, still);
        let comm_end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(16);
        Origin {
            original: original(record),
            client,
            tgid: record.tgid,
            tid: record.tid,
            uid: record.uid,
            gid: record.gid,
            cgroup_id: record.cgroup_id,
            cgroup,
            netns_cookie: record.netns_cookie,
            connected_ns: record.connected_ns,
            exec,
            executable: facts.executable.clone(),
            ancestors: facts.ancestors.clone(),
            argv: facts.argv.clone(),
            comm: String::from_utf8_lossy(&record.comm[..comm_end]).into_owned(),
        }
    }

    fn facts(&self, exec: ExecKey, still: impl Fn(u32) -> Option<Process>) -> Arc<Facts> {
        // A process that the tracepoints do not know could be any.
        if exec.exec_ns == 0 {
            return Arc::default();
        }
        if let Some(facts) = self.known.get(&exec) {
            return facts;
        }
        let is_same = || {
            still(exec.tgid)
                .is_some_and(|now| (now.start_ns, now.exec_ns) == (exec.start_ns, exec.exec_ns))
        };
        let facts = Facts {
            executable: self.executable(exec.tgid),
            ancestors: ancestors(exec.tgid),
            argv: argv(exec.tgid),
        };
        // What was read counts only if it was the same execution all the while.
        if !is_same() {
            return Arc::default();
        }
        let facts = Arc::new(facts);
        self.known.insert(exec, facts.clone());
        facts
    }

    fn executable(&self, tgid: u32) -> Option<Executable> {
        let link = format!("/proc/{tgid}/exe");
        let path = readable(std::fs::read_link(&link).ok()?);
        let sha256 = match self.with_hash.load(std::sync::atomic::Ordering::SeqCst) {
            true => self.hash(&link),
            false => None,
        };
        Some(Executable { path, sha256 })
    }

    /// Through /proc, so that it is the file that runs, whatever stands at its
    /// path by now.
    fn hash(&self, link: &str) -> Option<[u8; 32]> {
        let file = File::open(link).ok()?;
        let meta = file.metadata().ok()?;
        let key = FileKey {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            size: meta.size(),
        };
        if let Some(hash) = self.hashes.get(&key) {
            return Some(hash);
        }
        if key.size > MAX_EXECUTABLE {
            return None;
        }
        // One at a time: a slow file must not take every thread. Who finds it
        // taken for too long goes on without.
        let deadline = Instant::now() + MAX_HASHING;
        let _hashing = loop {
            match self.hashing.try_lock() {
                Ok(guard) => break guard,
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return None,
            }
        };
        let hash = hash_file(file, Instant::now() + MAX_HASHING)?;
        self.hashes.insert(key, hash);
        Some(hash)
    }
}

/// Reads in a thread of its own, since a read can hang for ever; that thread
/// then hangs alone.
fn hash_file(mut file: File, deadline: Instant) -> Option<[u8; 32]> {
    let (send, receive) = std::sync::mpsc::channel();
    let reading = std::thread::Builder::new()
        .name("hash".into())
        .spawn(move || {
            let mut hasher = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) if Instant::now() < deadline => hasher.update(&buffer[..count]),
                    Ok(_) | Err(_) => return,
                }
            }
            // Who asked may have given up.
            let _ = send.send(hasher.finalize().into());
        });
    reading.ok()?;
    receive
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .ok()
}

fn original(record: &lockgate_abi::Origin) -> SocketAddr {
    let ip = match record.family {
        INET => {
            let [a, b, c, d, ..] = record.address;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => IpAddr::V6(Ipv6Addr::from(record.address)),
    };
    SocketAddr::new(ip, record.port)
}

fn ancestors(tgid: u32) -> Vec<Ancestor> {
    let mut found = Vec::new();
    let mut child = tgid;
    while found.len() < MAX_ANCESTORS {
        let Some(parent) = parent(child).filter(|parent| *parent != 0) else {
            break;
        };
        let executable = std::fs::read_link(format!("/proc/{parent}/exe"))
            .ok()
            .map(readable);
        found.push(Ancestor {
            tgid: parent,
            executable,
        });
        child = parent;
    }
    found
}

/// Records and policies are text. A path that is not UTF-8 gets replacement
/// characters, and so equals no path that a configuration can name.
fn readable(path: PathBuf) -> PathBuf {
    match path.into_os_string().into_string() {
        Ok(text) => text.into(),
        Err(other) => other.to_string_lossy().into_owned().into(),
    }
}

fn parent(tgid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{tgid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn argv(tgid: u32) -> Vec<String> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{tgid}/cmdline")) {
        // Half an argument vector is still a claim.
        let _ = file.take(MAX_ARGV).read_to_end(&mut bytes);
    }
    let mut arguments = bytes
        .split(|byte| *byte == 0)
        .filter(|argument| !argument.is_empty());
    let program = arguments
        .next()
        .map(|name| String::from_utf8_lossy(name).into_owned());
    program
        .into_iter()
        .chain(arguments.map(without_values))
        .collect()
}

/// An argument as it may be kept: statements and passwords are given on command
/// lines, so that only names of options and paths of files stay.
fn without_values(argument: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(argument) else {
        return "…".into();
    };
    if let Some(long) = text.strip_prefix("--") {
        return format!("--{}", long.split_once('=').map_or(long, |(name, _)| name));
    }
    if text.starts_with('-') {
        // A short option may have its value behind it.
        return text.chars().take(2).collect();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    let is_path = text.starts_with(['/', '.']) && text.contains('/') && text.chars().all(plain);
    if is_path {
        text.to_owned()
    } else {
        "…".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Process = Process {
        start_ns: 7,
        exec_ns: 8,
    };

    fn record() -> lockgate_abi::Origin {
        lockgate_abi::Origin {
            version: lockgate_abi::VERSION,
            reserved: 0,
            family: INET,
            socket_family: INET,
            port: 5432,
            address: [10, 0, 3, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            tgid: std::process::id(),
            tid: std::process::id(),
            uid: 0,
            gid: 0,
            cgroup_id: 1,
            netns_cookie: 1,
            connected_ns: 1,
            start_ns: ME.start_ns,
            exec_ns: ME.exec_ns,
            comm: *b"me\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    fn attest(attestor: &Attestor, now: Option<Process>) -> Origin {
        attestor.attest(&record(), "127.0.0.1:4000".parse().unwrap(), None, |_| now)
    }

    #[test]
    fn a_process_that_is_still_itself_is_attested() {
        let attestor = Attestor::new();
        attestor.set_with_hash(true);
        let origin = attest(&attestor, Some(ME));
        let executable = origin.executable.unwrap();
        assert_eq!(executable.path, std::env::current_exe().unwrap());
        let content = std::fs::read(&executable.path).unwrap();
        assert_eq!(executable.sha256, Some(Sha256::digest(content).into()));
        assert_eq!(origin.original, "10.0.3.14:5432".parse().unwrap());
        assert_eq!(origin.comm, "me");
        assert!(!origin.ancestors.is_empty());
    }

    #[test]
    fn another_execution_attests_nothing() {
        for now in [
            None,
            Some(Process { exec_ns: 9, ..ME }),
            Some(Process { start_ns: 9, ..ME }),
        ] {
            let origin = attest(&Attestor::new(), now);
            assert_eq!(origin.executable, None, "{now:?}");
            assert!(origin.argv.is_empty() && origin.ancestors.is_empty());
        }
    }

    #[test]
    fn arguments_are_kept_without_their_values() {
        for (argument, kept) in [
            ("--password=hunter2", "--password"),
            ("-phunter2", "-p"),
            ("-c", "-c"),
            ("select 'hunter2'", "…"),
            ("postgres://me:hunter2@db/shop", "…"),
            ("hunter2", "…"),
            ("/srv/jobs/nightly.py", "/srv/jobs/nightly.py"),
            ("./job.sh", "./job.sh"),
            ("/x?password=hunter2", "…"),
        ] {
            assert_eq!(without_values(argument.as_bytes()), kept);
        }
    }

    #[test]
    fn what_was_attested_outlives_the_process() {
        let attestor = Attestor::new();
        attest(&attestor, Some(ME));
        assert!(attest(&attestor, None).executable.is_some());
    }
}

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use lockgate_abi::{Exec, INET, Process};
use lockgate_identity::{Ancestor, ExecKey, Executable, Origin, Workloads};
use quick_cache::sync::Cache;

use crate::claim::Claims;
use crate::hash::Hashes;
use crate::image::{FileKey, Image};
use crate::kernel::SEEDED;
use crate::proc;
use crate::sys::monotonic_ns;

/// Executions whose facts are kept.
const KEPT: usize = 8192;

/// Turns what the kernel recorded into an origin: reads /proc while the
/// process is still the one that connected, and never after.
pub struct Attestor {
    known: Cache<ExecKey, Arc<Facts>>,
    /// By who called execve and when: what children share with that process.
    images: Cache<(u32, u64), Arc<Facts>>,
    digests: Cache<ExecKey, [u8; 32]>,
    hashes: Hashes,
    looked_for: ArcSwap<LookedFor>,
    claims: Claims,
    said: Cache<ExecKey, Arc<[String]>>,
}

/// What workloads are named by.
#[derive(Default)]
struct LookedFor {
    workloads: Workloads,
    executables: HashSet<PathBuf>,
}

/// What /proc says of one execution.
#[derive(Clone, Debug, Default)]
struct Facts {
    executable: Option<Executable>,
    /// The file that this is.
    file: Option<FileKey>,
    ancestors: Vec<Ancestor>,
}

impl Default for Attestor {
    fn default() -> Self {
        Self::new()
    }
}

impl Attestor {
    /// Knows nothing yet and hashes nothing.
    pub fn new() -> Self {
        Self {
            known: Cache::new(KEPT),
            images: Cache::new(KEPT),
            digests: Cache::new(KEPT),
            hashes: Hashes::new(),
            looked_for: ArcSwap::default(),
            claims: Claims::default(),
            said: Cache::new(KEPT),
        }
    }

    /// Looks from now at what these workloads are named by: executables are
    /// hashed only where a workload depends on it, and paths that a workload
    /// names are believed only where they are what they seem.
    pub fn look_for(&self, workloads: &Workloads) {
        let executables: HashSet<_> = workloads.executables().map(PathBuf::from).collect();
        let same = self.looked_for.load().executables == executables;
        self.looked_for.store(Arc::new(LookedFor {
            workloads: workloads.clone(),
            executables,
        }));
        // What was read at execve is the best that there will ever be.
        if !same {
            self.known.clear();
            self.images.clear();
        }
    }

    /// Looks at a new image while it runs, so that it is known when its process
    /// has gone. `still` as in [`Attestor::attest`].
    pub fn executed(&self, exec: &Exec, still: impl Fn(u32) -> Option<Process>) {
        let key = ExecKey {
            tgid: exec.tgid,
            start_ns: exec.start_ns,
            exec_ns: exec.exec_ns,
        };
        if let Some(facts) = self.read(key, still) {
            self.images.insert((key.tgid, key.exec_ns), facts.clone());
            self.known.insert(key, facts);
        }
    }

    /// Attests one connection. `still` looks a process up in the tracepoints'
    /// map at the time of the call. May read files; not for a runtime's thread.
    pub fn attest(
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
        let facts = self.facts(exec, record.exec_tgid, &still);
        let comm_end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(16);
        let mut origin = Origin {
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
            argv: self.argv(exec, &still),
            comm: String::from_utf8_lossy(&record.comm[..comm_end]).into_owned(),
        };
        let asked = self.looked_for.load().workloads.asks_sha256_of(&origin);
        if asked && let Some(executable) = &mut origin.executable {
            executable.sha256 = self.sha256(exec, facts.file, &still);
        }
        origin
    }

    /// The argument vector; empty where it is not certain whose it is.
    fn argv(&self, exec: ExecKey, still: impl Fn(u32) -> Option<Process>) -> Vec<String> {
        if let Some(known) = self.said.get(&exec) {
            return known.to_vec();
        }
        let argv = self.claims.argv(exec.tgid);
        if !is_still(exec, still) {
            return Vec::new();
        }
        self.said.insert(exec, argv.clone().into());
        argv
    }

    /// Digest of what an execution runs; none where it is not certain.
    fn sha256(
        &self,
        exec: ExecKey,
        file: Option<FileKey>,
        still: impl Fn(u32) -> Option<Process>,
    ) -> Option<[u8; 32]> {
        if let Some(known) = self.digests.get(&exec) {
            return Some(known);
        }
        let executed = (exec.exec_ns != SEEDED).then(|| {
            let ago = monotonic_ns().saturating_sub(exec.exec_ns);
            SystemTime::now() - Duration::from_nanos(ago)
        });
        match self.hashes.of(exec.tgid, file?, executed) {
            Ok(digest) => is_still(exec, still).then(|| {
                self.digests.insert(exec, digest);
                digest
            }),
            Err(reason) => {
                tracing::debug!(tgid = exec.tgid, %reason, "an executable has no digest");
                None
            }
        }
    }

    fn facts(
        &self,
        exec: ExecKey,
        exec_tgid: u32,
        still: impl Fn(u32) -> Option<Process>,
    ) -> Arc<Facts> {
        // A process that the tracepoints do not know could be any.
        if exec.exec_ns == 0 {
            return Arc::default();
        }
        if let Some(known) = self.known.get(&exec) {
            return known;
        }
        match self.read(exec, still) {
            Some(facts) => {
                self.known.insert(exec, facts.clone());
                facts
            }
            None => self.inherited(exec, exec_tgid),
        }
    }

    /// What a process that has gone had from the one that called execve.
    fn inherited(&self, exec: ExecKey, exec_tgid: u32) -> Arc<Facts> {
        let Some(image) = self.images.get(&(exec_tgid, exec.exec_ns)) else {
            return Arc::default();
        };
        let mut facts = Facts::clone(&image);
        if exec_tgid != exec.tgid {
            // Whoever was in between is not known; they all had this image.
            let parent = Ancestor {
                tgid: exec_tgid,
                executable: facts.executable.as_ref().map(|own| own.path.clone()),
            };
            facts.ancestors.insert(0, parent);
            facts.ancestors.truncate(proc::MAX_ANCESTORS);
        }
        Arc::new(facts)
    }

    /// None if the process is not, or was not all the while, this execution.
    fn read(&self, exec: ExecKey, still: impl Fn(u32) -> Option<Process>) -> Option<Arc<Facts>> {
        // Not held by a lock: what is read here need not answer.
        let looked_for = self.looked_for.load_full();
        let named = &looked_for.executables;
        // What was read at execve comes first: a process may change what /proc
        // shows later (PR_SET_MM_MAP, as root of a user namespace).
        let image = |tgid| {
            let process = still(tgid)?;
            self.images.get(&(process.exec_tgid, process.exec_ns))
        };
        let (executable, file) = match image(exec.tgid) {
            Some(image) => (image.executable.clone(), image.file),
            None => {
                let path = proc::executable(exec.tgid, named);
                let file = Image::of(exec.tgid).ok().map(|image| image.key());
                (path.map(|path| Executable { path, sha256: None }), file)
            }
        };
        let path_of = |tgid| match image(tgid) {
            Some(image) => image.executable.as_ref().map(|own| own.path.clone()),
            None => proc::executable(tgid, named),
        };
        let facts = Facts {
            executable,
            file,
            ancestors: proc::ancestors(exec.tgid, path_of),
        };
        is_still(exec, &still).then(|| Arc::new(facts))
    }
}

/// Whether that process still is that execution.
fn is_still(exec: ExecKey, still: impl Fn(u32) -> Option<Process>) -> bool {
    still(exec.tgid).is_some_and(|now| (now.start_ns, now.exec_ns) == (exec.start_ns, exec.exec_ns))
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

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn workloads(text: &str) -> Workloads {
        let text = format!("[[workload]]\nname = 'w'\nuser = '0'\n{text}");
        let config: lockgate_config::Config = toml::from_str(&text).unwrap();
        Workloads::load(&config.workloads, &Default::default()).unwrap()
    }

    fn asking_for_a_digest() -> Workloads {
        workloads(&format!("sha256 = '{}'", "0".repeat(64)))
    }

    /// Executed just now, so that its file has not changed since.
    const ME: Process = Process {
        start_ns: 7,
        exec_ns: 1 << 62,
        exec_tgid: 9,
        reserved: 0,
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
            exec_tgid: ME.exec_tgid,
            reserved_end: 0,
            comm: *b"me\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    fn attest(attestor: &Attestor, now: Option<Process>) -> Origin {
        attestor.attest(&record(), "127.0.0.1:4000".parse().unwrap(), None, |_| now)
    }

    #[test]
    fn a_process_that_is_still_itself_is_attested() {
        let attestor = Attestor::new();
        attestor.look_for(&asking_for_a_digest());
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
    fn what_was_attested_outlives_the_process() {
        let attestor = Attestor::new();
        attest(&attestor, Some(ME));
        assert!(attest(&attestor, None).executable.is_some());
    }

    #[test]
    fn a_new_image_is_known_when_its_process_has_gone() {
        let attestor = Attestor::new();
        let exec = Exec {
            version: lockgate_abi::VERSION,
            reserved: [0; 3],
            tgid: record().tgid,
            start_ns: ME.start_ns,
            exec_ns: ME.exec_ns,
        };
        attestor.executed(&exec, |_| Some(ME));
        assert!(attest(&attestor, None).executable.is_some());
        // A child that went before it could be looked at has its parent's image.
        let child = lockgate_abi::Origin {
            tgid: 1 << 30,
            start_ns: 70,
            exec_tgid: exec.tgid,
            ..record()
        };
        let client = "127.0.0.1:4000".parse().unwrap();
        let origin = attestor.attest(&child, client, None, |_| None);
        assert_eq!(
            origin.executable.unwrap().path,
            std::env::current_exe().unwrap()
        );
        assert_eq!(origin.ancestors[0].tgid, exec.tgid);
        // Not the image of another time.
        let other = lockgate_abi::Origin {
            exec_ns: ME.exec_ns + 1,
            ..child
        };
        assert_eq!(
            attestor.attest(&other, client, None, |_| None).executable,
            None
        );
    }

    #[test]
    fn a_hash_is_not_made_up_when_the_process_has_gone() {
        let attestor = Attestor::new();
        attestor.look_for(&asking_for_a_digest());
        let exec = Exec {
            version: lockgate_abi::VERSION,
            reserved: [0; 3],
            tgid: record().tgid,
            start_ns: ME.start_ns,
            exec_ns: ME.exec_ns,
        };
        attestor.executed(&exec, |_| Some(ME));
        assert_eq!(attest(&attestor, None).executable.unwrap().sha256, None);
        assert!(
            attest(&attestor, Some(ME))
                .executable
                .unwrap()
                .sha256
                .is_some()
        );
    }
}

//! A real PostgreSQL for a test.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A server of its own, over a unix socket only; gone when dropped.
pub struct Postgres {
    directory: tempfile::TempDir,
    child: Child,
}

impl Postgres {
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("wire")
            .tempdir()
            .expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("its mode");
        let user = user_of_server();
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).expect("its owner");
        }
        let command = |program: &str| {
            let mut command = Command::new(Path::new(BIN).join(program));
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
                .current_dir(directory.path())
                .env_clear()
                .env("LC_ALL", "C.UTF-8");
            command
        };
        let data = directory.path().join("data");
        let made = command("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "-D",
            ])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let log = File::create(directory.path().join("log")).expect("a log");
        let child = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        let server = Self { directory, child };
        let patience = Instant::now() + Duration::from_secs(60);
        // The last line of this file says what the server is at.
        let state = || fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        while !state().trim_end().ends_with("ready") {
            assert!(Instant::now() < patience, "{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.5432")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: the server ends its children and frees its shared
        // memory. Should it not, the kill comes too late to be reported.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let patience = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// PostgreSQL does not run as root. None if these tests do not, either.
fn user_of_server() -> Option<(u32, u32)> {
    let id = |flag| {
        let out = Command::new("id")
            .args([flag, "postgres"])
            .output()
            .expect("id runs");
        String::from_utf8_lossy(&out.stdout).trim().parse().ok()
    };
    let root = fs::metadata("/proc/self").map(|self_| std::os::unix::fs::MetadataExt::uid(&self_));
    match root {
        Ok(0) => Some((id("-u")?, id("-g")?)),
        _ => None,
    }
}

use std::path::{Component, Path};

use super::Check;
use crate::guarded::read_secret;
use crate::{Agent, Audit, Kernel, Limits, SecretSource};

/// Folders of the system, which must not become one user's.
const SYSTEM: &[&str] = &[
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run",
    "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/run",
    "/var/tmp",
];

impl Check<'_> {
    pub(super) fn agent(&mut self, agent: &Agent) {
        for (key, path) in [("state_dir", &agent.state_dir), ("run_dir", &agent.run_dir)] {
            let at = ["agent", key];
            let climbs = path.components().any(|part| part == Component::ParentDir);
            if self.absolute(&at, path)
                && (climbs || SYSTEM.iter().any(|folder| Path::new(folder) == path))
            {
                let message = format!("{} is not a folder for one program", path.display());
                self.error(&at, message, "lockgate changes its owner and its mode; name one of its own, such as /var/lib/lockgate");
            }
        }
        if agent.state_dir.starts_with(&agent.run_dir)
            || agent.run_dir.starts_with(&agent.state_dir)
        {
            let message = "`state_dir` and `run_dir` lie in each other".to_owned();
            let fix = "keep them apart: one is keeper's alone, the other is open to all";
            self.error(&["agent", "run_dir"], message, fix);
        }
        if agent.proxy_user == agent.keeper_user {
            let message = "`proxy_user` and `keeper_user` are the same".to_owned();
            let fix = "who reads hostile bytes must not hold secrets: name two users";
            self.error(&["agent", "keeper_user"], message, fix);
        }
        if agent.workers > 1024 {
            let message = format!("{} workers are too many", agent.workers);
            self.error(&["agent", "workers"], message, "0 is one per processor");
        }
    }

    pub(super) fn kernel(&mut self, kernel: &Kernel) {
        self.absolute(&["kernel", "pins"], &kernel.pins);
        if let Some(cgroup) = &kernel.cgroup {
            self.absolute(&["kernel", "cgroup"], cgroup);
        }
        for (index, path) in kernel.namespaces.iter().enumerate() {
            let at = ["kernel", "namespaces", &index.to_string()];
            if self.absolute(&at, path) && !path.exists() {
                let message = format!("there is no network namespace {}", path.display());
                self.warning(&at, message, "`ip netns list` shows those with a name; `lockgate run` does not start without it");
            }
        }
    }

    pub(super) fn audit(&mut self, audit: &Audit) {
        let at_least = [
            ("segment_mib", audit.segment_mib, 1),
            ("max_segments", audit.max_segments, 2),
        ];
        for (key, value, least) in at_least {
            if value < least {
                let message = format!("`{key}` is {value}");
                self.error(&["audit", key], message, &format!("set {least} or more"));
            }
        }
        if audit.segment_mib > 1024 {
            let message = format!("`segment_mib` is {}", audit.segment_mib);
            self.error(&["audit", "segment_mib"], message, "set 1024 or less");
        }
        let Some(clickhouse) = &audit.clickhouse else {
            return;
        };
        let host = clickhouse.url.strip_prefix("http://");
        if host.is_none_or(|host| host.trim_end_matches('/').is_empty()) {
            let message = format!("`{}` is not an http:// address", clickhouse.url);
            let fix = "write http://HOST:8123; for HTTPS, put a TLS proxy in front of ClickHouse";
            self.error(&["audit", "clickhouse", "url"], message, fix);
        }
        let name = &clickhouse.database;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            let message = format!("`{name}` is no name for a database");
            let fix = "use letters, digits and _";
            self.error(&["audit", "clickhouse", "database"], message, fix);
        }
        if let Some(SecretSource::File(file)) = &clickhouse.password {
            let at = ["audit", "clickhouse", "password", "file"];
            if self.absolute(&at, file) {
                match read_secret(file) {
                    Ok(secret) => self.secrets.clickhouse = Some(secret),
                    Err(complaint) => self.complain(&at, complaint),
                }
            }
        }
    }

    pub(super) fn limits(&mut self, limits: &Limits) {
        let values = [
            ("startup_s", limits.startup_s, 1, 3600),
            ("statement_bytes", limits.statement_bytes, 1024, 16 << 20),
            ("message_bytes", limits.message_bytes, 4096, 1 << 30),
            ("connections", limits.connections, 1, 1 << 19),
        ];
        for (key, value, least, most) in values {
            if !(least..=most).contains(&value) {
                let message = format!("`{key}` is {value}");
                let fix = format!("set a number from {least} to {most}");
                self.error(&["limits", key], message, &fix);
            }
        }
        if limits.message_bytes < limits.statement_bytes {
            let message = "`message_bytes` is below `statement_bytes`".to_owned();
            let fix = "a statement travels in one message: raise it";
            self.error(&["limits", "message_bytes"], message, fix);
        }
    }
}

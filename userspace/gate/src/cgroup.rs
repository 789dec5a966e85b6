use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::sys;

/// Why the cgroup hierarchy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup v2 is mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified` or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    /// It cannot be opened.
    #[error("cgroup {path} cannot be opened: {source}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Where the cgroup v2 hierarchy is mounted, from /proc/self/mountinfo: the
/// place differs between unified and hybrid hosts.
pub fn v2_root() -> Result<PathBuf, CgroupError> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .find_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            (source.split(' ').next() == Some("cgroup2"))
                .then(|| mount.split(' ').nth(4))
                .flatten()
                .map(PathBuf::from)
        })
        .ok_or(CgroupError::NotMounted)
}

/// The cgroup lockgate is attached to.
#[derive(Debug)]
pub(crate) struct Attached {
    path: PathBuf,
    folder: File,
    /// Below the root of the hierarchy; none for the root, which nothing is
    /// outside of.
    within: Option<PathBuf>,
}

impl Attached {
    /// Opens the configured cgroup, or the root of the hierarchy.
    pub(crate) fn open(configured: Option<&Path>) -> Result<Self, CgroupError> {
        let path = match configured {
            Some(path) => path.to_owned(),
            None => v2_root()?,
        };
        let folder = File::open(&path).map_err(|source| CgroupError::Open {
            path: path.clone(),
            source,
        })?;
        let within = match v2_root() {
            Ok(root) if root == path => None,
            Ok(root) => Some(path.strip_prefix(root).unwrap_or(&path).to_owned()),
            Err(_) => Some(path.clone()),
        };
        Ok(Self {
            path,
            folder,
            within,
        })
    }

    /// Whether programs that are attached here see sockets of the cgroup `id`.
    pub(crate) fn covers(&self, id: u64) -> bool {
        self.within.is_none() || self.path_of(id).is_some()
    }

    /// Whether a process is in it, or below.
    pub(crate) fn has(&self, tgid: u32) -> bool {
        let Some(own) = &self.within else { return true };
        let of_process = std::fs::read_to_string(format!("/proc/{tgid}/cgroup"));
        let of_process = of_process.unwrap_or_default();
        let mut lines = of_process.lines();
        // The line of version 2.
        lines
            .find_map(|line| line.strip_prefix("0::/"))
            .is_some_and(|path| Path::new(path).starts_with(own))
    }

    /// For attaching programs.
    pub(crate) fn folder(&self) -> &File {
        &self.folder
    }

    /// Path of the cgroup `id` below this one, beginning with `/`; none if it
    /// is gone, or not below.
    pub(crate) fn path_of(&self, id: u64) -> Option<String> {
        let folder = sys::open_cgroup(&self.folder, id).ok()?;
        let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let path = std::fs::read_link(link).ok()?;
        let below = path.strip_prefix(&self.path).ok()?.to_str()?;
        // As the kernel shows a folder that was removed.
        if below.ends_with(" (deleted)") {
            return None;
        }
        Some(format!("/{below}"))
    }
}

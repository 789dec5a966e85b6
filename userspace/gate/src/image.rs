use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp, openat, openat2,
    statx,
};

use crate::sys;

/// How far the clock that files are stamped by may be behind.
const TICK: Duration = Duration::from_millis(10);

/// The file that a process runs, looked at without asking the file system that
/// it is on: that may be anybody's, and need not answer.
pub(crate) struct Image {
    file: OwnedFd,
    stat: Statx,
}

/// Names the content of a file on a file system that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    device: (u32, u32),
    inode: u64,
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Image {
    /// Of process `tgid`: through /proc, so that it is the file that runs,
    /// whatever stands at its path by now.
    pub(crate) fn of(tgid: u32) -> io::Result<Self> {
        let file = openat(
            CWD,
            format!("/proc/{tgid}/exe"),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = what_is_known(&file)?;
        Ok(Self { file, stat })
    }

    /// Whether `path` of the host leads to the same file.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let there = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS);
        there.is_ok_and(|there| self.key().is_same_file(&FileKey::of(&there)))
    }

    /// Whether `path` leads to the same file from `root`, without links.
    pub(crate) fn is_below(&self, root: &OwnedFd, path: &Path) -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let within =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let there = openat2(root, path, flags, Mode::empty(), within);
        let there = there.map_err(io::Error::from);
        let there = there.and_then(|there| what_is_known(&there));
        there.is_ok_and(|there| self.key().is_same_file(&FileKey::of(&there)))
    }

    pub(crate) fn key(&self) -> FileKey {
        FileKey::of(&self.stat)
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.stat.stx_size
    }

    /// Opens it to be read, which its file system has to answer.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Whether it has not changed since `since`, by the clock that stamps files.
    /// What changed within a tick of it may have changed afterwards.
    pub(crate) fn is_unchanged_since(&self, since: SystemTime) -> bool {
        let changed = |stamp: StatxTimestamp| {
            let seconds = Duration::from_secs(u64::try_from(stamp.tv_sec).unwrap_or(0));
            SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(stamp.tv_nsec.into())
        };
        changed(self.stat.stx_ctime) + TICK <= since
    }

    /// Whether it is still as it was when this was made.
    pub(crate) fn is_as_it_was(&self) -> bool {
        what_is_known(&self.file).is_ok_and(|stat| FileKey::of(&stat) == self.key())
    }

    /// What root has mounted that it is on, if the kernel itself answers for that.
    /// Everybody can mount a file system in a user namespace of his own, one that
    /// he answers for himself (FUSE) among them, and that says one thing to the
    /// kernel that runs the file and another to who reads it.
    pub(crate) fn mount_of_root(&self, tgid: u32) -> Option<Mount> {
        let (major, minor) = self.key().device;
        let device = format!("{major}:{minor}");
        let own = || -> io::Result<Option<Mount>> {
            // Opened first: it stays that of the namespace that the process is in
            // now, and nobody gets back from one of his own into one of root's.
            let mounts = Mounts::of(tgid)?;
            let by_root = sys::is_made_by_root(File::open(format!("/proc/{tgid}/ns/mnt"))?)?;
            let id = self.stat.stx_mnt_id.to_string();
            Ok(by_root
                .then(|| mounts.find(|fields| fields[0] == id))
                .flatten())
        };
        // A file system of the host is the same one in everybody's namespace.
        let of_host = || Mounts::of(1).ok()?.find(|fields| fields[2] == device);
        own().ok().flatten().or_else(of_host)
    }
}

/// What the kernel knows of a file without asking its file system.
fn what_is_known(file: &OwnedFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    Ok(statx(file, c"", flags, wanted)?)
}

impl FileKey {
    fn of(stat: &Statx) -> Self {
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A file system, by what its time stamps are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    /// Whatever changes a file changes its ctime.
    Stamps,
    /// Not what is written through a mapping (tmpfs), or not certainly.
    Other,
}

impl Mount {
    /// None where a process answers for it: fuse, fuseblk, fuse.sshfs …
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "ext4" | "xfs" | "btrfs" => Some(Self::Stamps),
            kind if kind.starts_with("fuse") => None,
            _ => Some(Self::Other),
        }
    }
}

/// /proc/PID/mountinfo; see proc_pid_mountinfo(5).
struct Mounts<R>(R);

impl Mounts<BufReader<File>> {
    /// Of the namespace that the process is in now.
    fn of(tgid: u32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{tgid}/mountinfo"))?;
        Ok(Self(BufReader::new(file)))
    }
}

impl<R: BufRead> Mounts<R> {
    /// The first one whose first fields are `wanted`.
    fn find(self, wanted: impl Fn([&str; 3]) -> bool) -> Option<Mount> {
        // What cannot be read is not there. A line at a time: there may be many.
        self.0.lines().map_while(Result::ok).find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut fields = mount.split(' ');
            let fields = [fields.next()?, fields.next()?, fields.next()?];
            let kind = file_system.split(' ').next()?;
            wanted(fields).then(|| Mount::of(kind)).flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_processes_answer_for_do_not_count() {
        let text = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
             30 22 0:26 / /home/a\\040b/m rw,nosuid - fuse.sshfs host: rw\n\
             31 22 0:27 / /mnt rw - fuse program rw\n\
             32 22 0:28 / /run/o rw - overlay overlay rw,lowerdir=/x";
        let id = |id: &str| Mounts(text.as_bytes()).find(|fields| fields[0] == id);
        assert_eq!(id("22"), Some(Mount::Stamps));
        assert_eq!(id("32"), Some(Mount::Other));
        assert_eq!([id("30"), id("31"), id("2")], [None; 3]);
        let device = |device: &str| Mounts(text.as_bytes()).find(|fields| fields[2] == device);
        assert_eq!(device("0:28"), Some(Mount::Other));
        assert_eq!([device("0:26"), device("0:2")], [None; 2]);
    }

    #[test]
    fn the_own_executable_is_what_it_is() {
        let own = std::process::id();
        let image = Image::of(own).unwrap();
        let path = std::env::current_exe().unwrap();
        assert!(image.is_at(&path) && !image.is_at(Path::new("/usr/bin/env")));
        assert!(image.mount_of_root(own).is_some());
        assert!(image.is_as_it_was());
        assert!(image.is_unchanged_since(SystemTime::now()));
        assert!(!image.is_unchanged_since(SystemTime::UNIX_EPOCH));
        let content = image.open().unwrap().metadata().unwrap();
        assert_eq!(content.len(), image.size());
    }
}

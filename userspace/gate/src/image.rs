use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, openat, statx};

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

    /// Whether `path` leads to the same file. The path is asked for in full:
    /// for one that root alone has put there.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let flags = AtFlags::empty();
        let there = statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::INO);
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

    /// Whether root has mounted what it is on, and the kernel itself answers for
    /// that. Everybody can mount a file system in a user namespace of his own,
    /// one that he answers for himself (FUSE) among them, and that says one thing
    /// to the kernel that runs the file and another to who reads it.
    pub(crate) fn is_on_a_mount_of_root(&self, tgid: u32) -> bool {
        let (major, minor) = self.key().device;
        let device = format!("{major}:{minor}");
        let by_root = || -> io::Result<bool> {
            let namespace = File::open(format!("/proc/{tgid}/ns/mnt"))?;
            let own = Mounts::of(tgid)?;
            Ok(sys::is_made_by_root(namespace)? && own.has_id(self.stat.stx_mnt_id))
        };
        // A file system of the host is the same one in everybody's namespace.
        let of_host = || Ok::<_, io::Error>(Mounts::of(1)?.has_device(&device));
        by_root().unwrap_or(false) || of_host().unwrap_or(false)
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

/// The text of /proc/PID/mountinfo; see proc_pid_mountinfo(5).
struct Mounts(String);

impl Mounts {
    fn of(tgid: u32) -> io::Result<Self> {
        std::fs::read_to_string(format!("/proc/{tgid}/mountinfo")).map(Self)
    }

    fn has_id(&self, id: u64) -> bool {
        self.answered_by_the_kernel()
            .any(|fields| fields[0].parse() == Ok(id))
    }

    fn has_device(&self, device: &str) -> bool {
        self.answered_by_the_kernel()
            .any(|fields| fields[2] == device)
    }

    /// The first fields of each mount that is not of a process's file system.
    fn answered_by_the_kernel(&self) -> impl Iterator<Item = [&str; 3]> {
        self.0.lines().filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut fields = mount.split(' ');
            let fields = [fields.next()?, fields.next()?, fields.next()?];
            // fuse, fuseblk, fuse.sshfs …
            (!file_system.starts_with("fuse")).then_some(fields)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_processes_answer_for_do_not_count() {
        let mounts = Mounts(
            "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
             30 22 0:26 / /home/a\\040b/m rw,nosuid - fuse.sshfs host: rw\n\
             31 22 0:27 / /mnt rw - fuse program rw\n\
             32 22 0:28 / /run/o rw - overlay overlay rw,lowerdir=/x"
                .into(),
        );
        let ids: Vec<u64> = (0..40).filter(|id| mounts.has_id(*id)).collect();
        assert_eq!(ids, [22, 32]);
        assert!(mounts.has_device("254:1") && mounts.has_device("0:28"));
        assert!(!mounts.has_device("0:26") && !mounts.has_device("0:2"));
    }

    #[test]
    fn the_own_executable_is_what_it_is() {
        let own = std::process::id();
        let image = Image::of(own).unwrap();
        let path = std::env::current_exe().unwrap();
        assert!(image.is_at(&path) && !image.is_at(Path::new("/usr/bin/env")));
        assert!(image.is_on_a_mount_of_root(own));
        assert!(image.is_as_it_was());
        assert!(image.is_unchanged_since(SystemTime::now()));
        assert!(!image.is_unchanged_since(SystemTime::UNIX_EPOCH));
        let content = image.open().unwrap().metadata().unwrap();
        assert_eq!(content.len(), image.size());
    }
}

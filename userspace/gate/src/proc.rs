//! What /proc says of a process. Whoever asks must know from elsewhere that it
//! was the same process all the while.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lockgate_identity::Ancestor;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::image::Image;
use crate::sys;

/// How far up the ancestors are looked at.
pub(crate) const MAX_ANCESTORS: usize = 16;

/// How much of the argument vector is kept, in bytes.
const MAX_ARGV: u64 = 4096;

/// Before the path of an executable that is not the file that root has put
/// there, so that it equals no path of a configuration.
const ELSEWHERE: &str = "(elsewhere)";

/// Path of what `tgid` runs. One of `named` is believed only if it is that file
/// in the host's mount namespace or in one that root has made: everybody can
/// make a mount namespace and put what he likes at any path there, and /proc
/// shows that path as if it were the host's.
pub(crate) fn executable(tgid: u32, named: &HashSet<PathBuf>) -> Option<PathBuf> {
    let path = readable(std::fs::read_link(format!("/proc/{tgid}/exe")).ok()?);
    // Only paths of the configuration are looked up: others may lead to file
    // systems that never answer.
    if named.contains(&path) && !is_that_file(tgid, &path) {
        return Some(format!("{ELSEWHERE}{}", path.display()).into());
    }
    Some(path)
}

/// Parent first; `path_of` says what each of them runs.
pub(crate) fn ancestors(tgid: u32, path_of: impl Fn(u32) -> Option<PathBuf>) -> Vec<Ancestor> {
    let mut found = Vec::new();
    let mut child = tgid;
    while found.len() < MAX_ANCESTORS {
        let Some(parent) = parent(child).filter(|parent| *parent != 0) else {
            break;
        };
        found.push(Ancestor {
            tgid: parent,
            executable: path_of(parent),
        });
        child = parent;
    }
    found
}

/// The argument vector; a claim.
pub(crate) fn argv(tgid: u32) -> Vec<String> {
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

fn is_that_file(tgid: u32, path: &Path) -> bool {
    let Ok(runs) = Image::of(tgid) else {
        return false;
    };
    runs.is_at(path) || root_of(tgid).is_ok_and(|root| runs.is_below(&root, path))
}

/// The root that `tgid` looks paths up from, if root alone has said what it finds
/// there: neither its mount namespace nor, by chroot, its root is of its own
/// making.
fn root_of(tgid: u32) -> std::io::Result<OwnedFd> {
    let of = |kind: &str| format!("/proc/{tgid}/ns/{kind}");
    // Opened before it is asked whose it is: nobody gets back into a namespace of
    // root's from one of his own, so what holds afterwards held here.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{tgid}/root"), flags, Mode::empty())?;
    let is_ours = std::fs::read_link(of("user"))? == std::fs::read_link("/proc/self/ns/user")?;
    if !is_ours || !sys::is_made_by_root(File::open(of("mnt"))?)? {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    Ok(root)
}

/// Records and policies are text. A path that is not UTF-8 gets replacement
/// characters, and so equals no path that a configuration can name.
fn readable(path: PathBuf) -> PathBuf {
    match path.into_os_string().into_string() {
        Ok(text) => text.into(),
        Err(other) => other.to_string_lossy().into_owned().into(),
    }
}

/// From `status`, which does not look at each thread, as `stat` does.
fn parent(tgid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tgid}/status")).ok()?;
    // What the process calls itself comes before, with line breaks written out.
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

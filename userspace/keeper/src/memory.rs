use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::mm::{MlockAllFlags, mlockall};

/// Keeps this process out of swap, so that no password is written to a disk.
///
/// Only where RLIMIT_MEMLOCK is unlimited (`LimitMEMLOCK=infinity` in the
/// unit): under a limit, an allocation above it would fail at any later moment.
/// Returns whether it is done; without it, use encrypted swap or none.
pub(crate) fn lock_in() -> bool {
    // Not rustix's, which takes for granted that the call is allowed; a sandbox
    // may refuse it.
    if !getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(now, _)| now == RLIM_INFINITY) {
        return false;
    }
    // On fault: spool segments are mapped whole but touched page by page.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_locked_only_without_a_limit() {
        let (now, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        let status = || std::fs::read_to_string("/proc/self/status").unwrap();
        let unlocked = || {
            status()
                .lines()
                .any(|line| line.starts_with("VmLck:\t       0 kB"))
        };
        assert!(unlocked(), "nothing is locked before");
        assert!(!lock_in() || now == RLIM_INFINITY);
        assert!(
            now == RLIM_INFINITY || unlocked(),
            "nothing is locked under a limit"
        );
    }
}

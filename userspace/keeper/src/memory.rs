use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

/// Keeps this process out of swap, so that no password is written to a disk.
///
/// Only where RLIMIT_MEMLOCK is unlimited (`LimitMEMLOCK=infinity` in the
/// unit): under a limit, an allocation above it would fail at any later moment.
/// Returns whether it is done; without it, use encrypted swap or none.
pub(crate) fn lock_in() -> bool {
    let limit = getrlimit(Resource::Memlock);
    if limit.current.is_some() {
        return false;
    }
    // On fault: spool segments are mapped whole but touched page by page.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).is_ok()
}

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aya::maps::{Array, MapData};

use crate::sys::monotonic_ns;

/// How long the kernel redirects without hearing from the gate.
const VALID: Duration = Duration::from_secs(2);

/// How often it hears.
const RENEWED: Duration = Duration::from_millis(500);

/// Says to the kernel that lockgate is alive: a time until which it may
/// redirect. Whatever stops the gate, the kernel refuses soon after; it needs
/// nobody to say so.
#[derive(Clone)]
pub struct Lease {
    shared: Arc<Shared>,
}

struct Shared {
    map: Mutex<Array<MapData, u64>>,
    held: AtomicBool,
}

impl Lease {
    /// Begins to renew, from a thread of its own with raised priority, as soon
    /// as the lease is held.
    pub fn start(map: Array<MapData, u64>) -> io::Result<Self> {
        let lease = Self {
            shared: Arc::new(Shared {
                map: Mutex::new(map),
                held: AtomicBool::new(false),
            }),
        };
        let shared = Arc::downgrade(&lease.shared);
        std::thread::Builder::new()
            .name("lease".into())
            .spawn(move || {
                // A busy host must not look like a dead gate. Without the right to
                // it, the thread renews four times as often as it has to anyway.
                let _ = rustix::process::setpriority_process(None, -15);
                while let Some(shared) = shared.upgrade() {
                    shared.renew();
                    drop(shared);
                    std::thread::sleep(RENEWED);
                }
            })?;
        Ok(lease)
    }

    /// Redirect from now, or refuse from now.
    pub fn hold(&self, held: bool) {
        if self.shared.held.swap(held, SeqCst) != held {
            self.shared.renew();
        }
    }

    /// Whether the kernel redirects.
    pub fn is_held(&self) -> bool {
        self.shared.held.load(SeqCst)
    }
}

impl Shared {
    fn renew(&self) {
        let mut map = self
            .map
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // Read under the lock, so that a late renewal does not undo a refusal.
        let until = match self.held.load(SeqCst) {
            true => monotonic_ns() + VALID.as_nanos() as u64,
            false => 0,
        };
        if let Err(error) = map.set(0, until, 0) {
            tracing::error!(%error, "the lease cannot be written; the kernel will refuse");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.held.store(false, SeqCst);
        self.renew();
    }
}

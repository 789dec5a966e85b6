use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use lockgate_audit::SpoolSync;
use tokio::sync::watch;

/// Many commands wait for one fdatasync. A thread of its own does it, so that
/// the disk never stops a worker's other connections.
pub(super) struct GroupCommit {
    shared: Arc<Progress>,
    wake: mpsc::Sender<()>,
    synced: watch::Receiver<Result<u64, io::ErrorKind>>,
}

#[derive(Default)]
struct Progress {
    /// Position of the last appended event.
    written: AtomicU64,
    /// Segments with events that may not be on disk. The last is the one being
    /// written.
    segments: Mutex<Vec<SpoolSync>>,
}

impl GroupCommit {
    pub(super) fn start(worker: u32) -> io::Result<Self> {
        let shared = Arc::new(Progress::default());
        let (wake, woken) = mpsc::channel();
        let (publish, synced) = watch::channel(Ok(0));
        let progress = shared.clone();
        std::thread::Builder::new()
            .name(format!("sync-{worker}"))
            .spawn(move || {
                while woken.recv().is_ok() {
                    // All who asked until now are served by this one.
                    while woken.try_recv().is_ok() {}
                    let result = progress.sync().map_err(|why| why.kind());
                    if publish.send(result).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            shared,
            wake,
            synced,
        })
    }

    /// A new segment is written from now. The one before is synced and let go
    /// of, so that keeper sees that its writer has finished.
    pub(super) fn opened(&self, segment: SpoolSync) {
        self.shared.lock().push(segment);
        // If the thread has ended, whoever waits for it will hear.
        let _ = self.wake.send(());
    }

    /// An event was appended.
    pub(super) fn wrote(&self, position: u64) {
        self.shared.written.store(position, SeqCst);
    }

    /// Returns when everything up to `position` is on disk.
    pub(super) async fn wait(&self, position: u64) -> io::Result<()> {
        let gone = || io::Error::other("the thread that syncs the spool has ended");
        let mut synced = self.synced.clone();
        loop {
            // Marked as seen before the request, so that its answer is a change.
            match *synced.borrow_and_update() {
                Ok(done) if done >= position => return Ok(()),
                _ => {}
            }
            self.wake.send(()).map_err(|_| gone())?;
            synced.changed().await.map_err(|_| gone())?;
            if let Err(kind) = *synced.borrow() {
                return Err(kind.into());
            }
        }
    }
}

impl Progress {
    fn sync(&self) -> io::Result<u64> {
        let written = self.written.load(SeqCst);
        let segments: Vec<SpoolSync> = self.lock().clone();
        for segment in &segments {
            segment.sync()?;
        }
        // Those behind the current one take no more events.
        let mut all = self.lock();
        let done = segments.len().saturating_sub(1);
        all.drain(..done);
        Ok(written)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SpoolSync>> {
        self.segments
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

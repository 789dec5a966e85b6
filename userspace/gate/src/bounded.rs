use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Threads for what may never return, each for one thing, so that it hangs
/// alone.
#[derive(Clone)]
pub(crate) struct Bounded {
    running: Arc<AtomicUsize>,
    most: usize,
}

impl Bounded {
    /// No more than `most` at a time, those included that hang.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            running: Arc::default(),
            most,
        }
    }

    /// What `work` returns; none if there are too many already or it takes longer
    /// than `patience`.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        name: &str,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let running = Running(self.running.clone());
        if self.running.fetch_add(1, SeqCst) >= self.most {
            return None;
        }
        let (send, receive) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.into());
        let thread = thread.spawn(move || {
            let result = work();
            drop(running);
            // Who asked may have given up.
            let _ = send.send(result);
        });
        thread.ok()?;
        receive.recv_timeout(patience).ok()
    }
}

/// One of those that run.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_not_waited_for_and_takes_no_more_than_its_share() {
        let bounded = Bounded::new(2);
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let short = Duration::from_millis(20);
        for _ in 0..2 {
            let wait = wait.clone();
            let hangs = move || drop(wait.lock().map(|wait| wait.recv()));
            assert!(bounded.run("hangs", short, hangs).is_none());
        }
        assert_eq!(bounded.run("one more", short, || 1), None);
        drop(release);
        let answers = |_| {
            std::thread::sleep(short);
            bounded.run("again", Duration::from_secs(5), || 1)
        };
        assert_eq!((0..100).find_map(answers), Some(1));
    }
}

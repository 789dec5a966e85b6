use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::oneshot;

/// Questions that wait for an answer, by number. Numbers start at 1.
///
/// A plain mutex: it is held for one insertion or removal and never over an
/// await, and only when connections begin.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    waiting: Mutex<(u64, HashMap<u64, oneshot::Sender<T>>)>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new((0, HashMap::new())),
        }
    }
}

impl<T> Pending<T> {
    /// A new number, and where its answer will arrive.
    pub(crate) fn ask(&self) -> (u64, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self
            .waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        waiting.0 += 1;
        let number = waiting.0;
        waiting.1.insert(number, sender);
        (number, receiver)
    }

    /// Hands `answer` to whoever asked; an unknown number is dropped.
    pub(crate) fn answer(&self, number: u64, answer: T) {
        let mut waiting = self
            .waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(sender) = waiting.1.remove(&number) {
            // Who asked may have given up.
            let _ = sender.send(answer);
        }
    }

    /// Lets everyone who waits know that no answer will come.
    pub(crate) fn fail_all(&self) {
        self.waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .1
            .clear();
    }
}

use std::collections::HashMap;

use bytes::Bytes;
use smallvec::SmallVec;

/// What names stand for at the server: prepared statements, portals.
///
/// A client may use a name before the server has confirmed it, so a name has
/// what is confirmed and what is not yet, and stands for any of it: all of it
/// must be permitted. Whatever of it the server will refuse does no harm.
#[derive(Debug)]
pub(super) struct Names<V> {
    known: HashMap<Bytes, Meanings<V>>,
}

#[derive(Debug)]
struct Meanings<V> {
    confirmed: Option<V>,
    /// In the order of sending.
    pending: SmallVec<[V; 1]>,
}

impl<V> Default for Names<V> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<V: Clone> Names<V> {
    /// Everything `name` may stand for, the newest first.
    pub(super) fn candidates(&self, name: &[u8]) -> SmallVec<[V; 1]> {
        match self.known.get(name) {
            None => SmallVec::new(),
            Some(meanings) => {
                meanings.pending.iter().rev().chain(&meanings.confirmed).cloned().collect()
            }
        }
    }

    /// Sent to the server under `name`.
    pub(super) fn sent(&mut self, name: Bytes, value: V) {
        let meanings = self
            .known
            .entry(name)
            .or_insert_with(|| Meanings { confirmed: None, pending: SmallVec::new() });
        meanings.pending.push(value);
    }

    /// The server confirmed the oldest that was sent under `name`.
    pub(super) fn confirmed(&mut self, name: &[u8]) {
        if let Some(meanings) = self.known.get_mut(name)
            && !meanings.pending.is_empty()
        {
            meanings.confirmed = Some(meanings.pending.remove(0));
        }
    }

    /// The server refused or read over the oldest that was sent under `name`.
    pub(super) fn refused(&mut self, name: &[u8]) {
        if let Some(meanings) = self.known.get_mut(name) {
            if !meanings.pending.is_empty() {
                meanings.pending.remove(0);
            }
            self.forget_if_empty(name);
        }
    }

    /// The server has closed `name`.
    pub(super) fn closed(&mut self, name: &[u8]) {
        if let Some(meanings) = self.known.get_mut(name) {
            meanings.confirmed = None;
            self.forget_if_empty(name);
        }
    }

    fn forget_if_empty(&mut self, name: &[u8]) {
        if self.known.get(name).is_some_and(|m| m.confirmed.is_none() && m.pending.is_empty()) {
            self.known.remove(name);
        }
    }
}

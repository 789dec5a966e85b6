use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::ProtocolError;

/// Longest name that the server tells from every other (NAMEDATALEN - 1). It
/// cuts longer ones, so that two of them could mean one thing.
const MAX_NAME: usize = 63;

/// Names of one kind that a session may have at a time.
const MAX_NAMES: usize = 16_384;

/// Meanings of one name that come from other than the protocol's messages.
const MAX_BESIDES: usize = 16;

/// What names stand for at the server: prepared statements, portals.
///
/// A client may use a name before the server has confirmed it, so a name has
/// what is confirmed and what is not yet, and stands for any of it: all of it
/// must be permitted. Whatever of it the server will refuse does no harm.
#[derive(Debug)]
pub(super) struct Names<V> {
    unnamed: Meanings<V>,
    named: HashMap<Bytes, Meanings<V>>,
    /// Number of what is sent next.
    next: u64,
}

#[derive(Debug)]
struct Meanings<V> {
    confirmed: Option<V>,
    /// In the order of sending.
    pending: VecDeque<Pending<V>>,
    /// What the name may have been given by other than the protocol's messages.
    besides: Vec<V>,
}

#[derive(Debug)]
struct Pending<V> {
    number: u64,
    batch: u64,
    value: V,
}

impl<V> Default for Meanings<V> {
    fn default() -> Self {
        Self {
            confirmed: None,
            pending: VecDeque::new(),
            besides: Vec::new(),
        }
    }
}

impl<V> Default for Names<V> {
    fn default() -> Self {
        Self {
            unnamed: Meanings::default(),
            named: HashMap::new(),
            next: 0,
        }
    }
}

impl<V: Clone> Names<V> {
    /// Takes `name` for own. A copy: the message it came in is not to be kept
    /// for as long as the name is.
    ///
    /// # Errors
    /// 54000 for a name the server would cut.
    pub(super) fn own(name: &[u8]) -> Result<Bytes, ProtocolError> {
        match name.len() {
            0 => Ok(Bytes::new()),
            1..=MAX_NAME => Ok(Bytes::copy_from_slice(name)),
            _ => Err(ProtocolError::limit(format!(
                "names of prepared statements and portals end at {MAX_NAME} bytes; the server would cut this one"
            ))),
        }
    }

    /// Whether there is room for `name`.
    ///
    /// # Errors
    /// 54000 if there is not.
    pub(super) fn check_room(&self, name: &[u8]) -> Result<(), ProtocolError> {
        if name.is_empty() || self.named.len() < MAX_NAMES || self.named.contains_key(name) {
            return Ok(());
        }
        Err(ProtocolError::limit(format!(
            "over {MAX_NAMES} prepared statements or portals in one session; close those that are done with"
        )))
    }

    /// Everything `name` may stand for when a message of `batch` uses it, the
    /// newest first.
    ///
    /// What was sent under the name in the same batch is all it can be: had
    /// the server refused that, it would read over the user, too.
    pub(super) fn candidates(&self, name: &[u8], batch: u64) -> SmallVec<[V; 1]> {
        let Some(meanings) = self.meanings(name) else {
            return SmallVec::new();
        };
        match meanings.pending.back() {
            Some(newest) if newest.batch == batch => {
                let newest = std::iter::once(&newest.value);
                newest.chain(&meanings.besides).cloned().collect()
            }
            _ => meanings.all().cloned().collect(),
        }
    }

    /// Everything `name` may stand for, whatever was sent when.
    pub(super) fn all(&self, name: &[u8]) -> SmallVec<[V; 1]> {
        let meanings = self.meanings(name).into_iter();
        meanings.flat_map(Meanings::all).cloned().collect()
    }

    /// `name` may stand for `value`, too, from now on. False if there is no
    /// room to remember that.
    #[must_use]
    pub(super) fn may_be(&mut self, name: &[u8], value: V) -> bool {
        if name.len() > MAX_NAME || self.check_room(name).is_err() {
            return false;
        }
        let name = Bytes::copy_from_slice(name);
        let besides = &mut self.named.entry(name).or_default().besides;
        if besides.len() < MAX_BESIDES {
            besides.push(value);
            return true;
        }
        false
    }

    /// What the server has confirmed under `name`.
    pub(super) fn current(&self, name: &[u8]) -> Option<&V> {
        self.meanings(name)?.confirmed.as_ref()
    }

    /// Sent to the server under `name`, in `batch`. The number is for
    /// [`Names::confirmed`] and [`Names::refused`].
    pub(super) fn sent(&mut self, name: &Bytes, batch: u64, value: V) -> u64 {
        let number = self.next;
        self.next += 1;
        let meanings = match name.is_empty() {
            true => &mut self.unnamed,
            false => self.named.entry(name.clone()).or_default(),
        };
        meanings.pending.push_back(Pending {
            number,
            batch,
            value,
        });
        number
    }

    /// The server confirmed what was sent as `number`; gives what it replaced.
    pub(super) fn confirmed(&mut self, name: &[u8], number: u64) -> Option<V> {
        let meanings = self.meanings_mut(name)?;
        // It is not there if it was forgotten meanwhile.
        let front = meanings
            .pending
            .pop_front_if(|front| front.number == number)?;
        meanings.confirmed.replace(front.value)
    }

    /// The server refused or read over what was sent as `number`.
    pub(super) fn refused(&mut self, name: &[u8], number: u64) {
        if let Some(meanings) = self.meanings_mut(name) {
            meanings
                .pending
                .pop_front_if(|front| front.number == number);
            self.forget_if_empty(name);
        }
    }

    /// The server has closed `name`; gives what it stood for.
    pub(super) fn closed(&mut self, name: &[u8]) -> Option<V> {
        let closed = self.meanings_mut(name)?.confirmed.take();
        self.forget_if_empty(name);
        closed
    }

    /// The server has closed everything it had confirmed.
    pub(super) fn all_closed(&mut self) {
        self.unnamed.confirmed = None;
        self.named.retain(|_, meanings| {
            meanings.confirmed = None;
            !meanings.is_empty()
        });
    }

    /// From now on nothing that was sent before is known.
    pub(super) fn forget(&mut self) {
        self.unnamed = Meanings::default();
        self.named.clear();
    }

    fn meanings(&self, name: &[u8]) -> Option<&Meanings<V>> {
        if name.is_empty() {
            Some(&self.unnamed)
        } else {
            self.named.get(name)
        }
    }

    fn meanings_mut(&mut self, name: &[u8]) -> Option<&mut Meanings<V>> {
        if name.is_empty() {
            Some(&mut self.unnamed)
        } else {
            self.named.get_mut(name)
        }
    }

    fn forget_if_empty(&mut self, name: &[u8]) {
        if self.named.get(name).is_some_and(Meanings::is_empty) {
            self.named.remove(name);
        }
    }
}

impl<V> Meanings<V> {
    /// The newest first.
    fn all(&self) -> impl Iterator<Item = &V> {
        let pending = self.pending.iter().rev().map(|pending| &pending.value);
        pending.chain(&self.confirmed).chain(&self.besides)
    }

    fn is_empty(&self) -> bool {
        self.confirmed.is_none() && self.pending.is_empty() && self.besides.is_empty()
    }
}

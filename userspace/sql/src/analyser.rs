use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use equivalent::Equivalent;
use lockgate_command::Refusal;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::{Analysis, Reading, template};

/// Stack that reading a text needs, in bytes. The pre-scan bounds the depth of
/// a tree so that reading, walking and dropping it fit with room to spare.
pub const STACK: usize = 64 << 20;

/// Longest text that [`Analyser::analyse_here`] reads, in bytes. Reading one
/// costs less than waking a parse thread and being woken by it.
const SHORT: usize = 512;

/// Texts that wait for a parse thread, in bytes; more are refused.
const QUEUE_BYTES: usize = 64 << 20;

/// What [`Analyser::new`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct AnalyserSettings {
    /// The longest text that is read, in bytes; a longer one is refused.
    pub statement_bytes: usize,
    /// Memory of the cache in bytes, about.
    pub cache_bytes: usize,
    /// Parse threads.
    pub threads: usize,
}

/// Reads texts, and remembers what it read.
///
/// A text that was read before costs a hash and a comparison on the caller's
/// thread. A new one is parsed on a thread of its own kind, so that it delays
/// no other connection, unless it is short.
#[derive(Debug)]
pub struct Analyser {
    shared: Arc<Shared>,
}

impl Analyser {
    /// Starts the parse threads. They end when this is dropped.
    ///
    /// # Panics
    /// When the system gives no threads.
    pub fn new(settings: AnalyserSettings) -> Self {
        // The estimate only sizes the cache's tables.
        let items = settings.cache_bytes / 1024;
        let shared = Arc::new(Shared {
            statement_bytes: settings.statement_bytes,
            cache: Cache::with_weighter(items.max(16), settings.cache_bytes as u64, Bytes),
            queue: Mutex::new(Queue::default()),
            waiting: Condvar::new(),
        });
        for index in 0..settings.threads.max(1) {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("parse-{index}"))
                .stack_size(STACK)
                .spawn(move || shared.work())
                .expect("the system gives a thread");
        }
        Self { shared }
    }

    /// What `text` does, if it was read before, or one that differs from it in
    /// the values of literals only and so does the same. Takes no lock that a
    /// parse holds, and allocates nothing.
    pub fn cached(&self, text: &[u8], reading: Reading) -> Option<Arc<Analysis>> {
        let exact = Borrowed {
            text,
            reading,
            template: false,
        };
        if let Some(analysis) = self.shared.cache.get(&exact) {
            return Some(analysis);
        }
        if !self.shared.may_have_template(text, reading) {
            return None;
        }
        TEMPLATE.with_borrow_mut(|template| {
            template.clear();
            let key = Borrowed {
                text: template_of(text, template)?,
                reading,
                template: true,
            };
            self.shared.cache.get(&key)
        })
    }

    /// Reads a short text on the caller's own thread, whose stack must be of
    /// [`STACK`] bytes. None for a longer one: that is for
    /// [`Analyser::analyse`].
    pub fn analyse_here(&self, text: &[u8], reading: Reading) -> Option<Arc<Analysis>> {
        (text.len() <= SHORT).then(|| self.shared.read(text, reading))
    }

    /// Has `text` read, and gives what it does to `done`, on a parse thread.
    /// When too much waits already, `done` is called at once, with a refusal.
    pub fn analyse(
        &self,
        text: &[u8],
        reading: Reading,
        done: Box<dyn FnOnce(Arc<Analysis>) + Send>,
    ) {
        let mut queue = self.shared.queue();
        if queue.bytes + text.len() > QUEUE_BYTES {
            drop(queue);
            return done(Arc::new(Analysis::refused(Refusal {
                construct: "a new statement while too many new statements wait to be read".into(),
                hint: "send it again in a moment".into(),
            })));
        }
        queue.bytes += text.len();
        queue.jobs.push_back(Job {
            text: text.into(),
            reading,
            done,
        });
        drop(queue);
        self.shared.waiting.notify_one();
    }
}

impl Drop for Analyser {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.waiting.notify_all();
    }
}

struct Shared {
    statement_bytes: usize,
    cache: Cache<Key, Arc<Analysis>, Bytes>,
    queue: Mutex<Queue>,
    waiting: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

struct Job {
    text: Box<[u8]>,
    reading: Reading,
    done: Box<dyn FnOnce(Arc<Analysis>) + Send>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock; the queue is whole anyway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(Job {
            text,
            reading,
            done,
        }) = self.next()
        {
            let known = self.cache.get(&Borrowed {
                text: &text,
                reading,
                template: false,
            });
            let analysis = known.unwrap_or_else(|| self.read(&text, reading));
            // A receiver that panics must not take the thread with it.
            let _ = catch_unwind(AssertUnwindSafe(|| done(analysis)));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.bytes -= job.text.len();
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self
                .waiting
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&self, text: &[u8], reading: Reading) -> Arc<Analysis> {
        let bytes = self.statement_bytes;
        let read = || Analysis::read(text, reading, bytes);
        let analysis = catch_unwind(read).unwrap_or_else(|_| {
            Analysis::refused(Refusal {
                construct: "a statement that lockgate failed to read".into(),
                hint: "this is a fault of lockgate; report it with the statement".into(),
            })
        });
        let of_template = self.may_have_template(text, reading) && analysis.is_of_template(text);
        let analysis = Arc::new(analysis);
        if text.len() <= self.statement_bytes {
            let text: Box<[u8]> = match of_template {
                true => {
                    let mut template = Vec::with_capacity(text.len());
                    template_of(text, &mut template).unwrap_or(text).into()
                }
                false => text.into(),
            };
            let key = Key {
                text,
                reading,
                template: of_template,
            };
            self.cache.insert(key, analysis.clone());
        }
        analysis
    }

    /// Whether the bytes alone can tell where a literal of `text` ends, and
    /// none of its texts is over the limit.
    fn may_have_template(&self, text: &[u8], reading: Reading) -> bool {
        reading.standard_conforming_strings && text.len() <= self.statement_bytes
    }
}

thread_local! {
    /// Reused, so that a lookup allocates nothing.
    static TEMPLATE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(template::LONGEST));
}

fn template_of<'a>(text: &[u8], template: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    template::of(text, template, |_| {}).then_some(&template[..])
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("statement_bytes", &self.statement_bytes)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Key {
    text: Box<[u8]>,
    reading: Reading,
    /// Whether it is the text's template, and so stands for many texts.
    template: bool,
}

/// The key as a caller has it.
struct Borrowed<'a> {
    text: &'a [u8],
    reading: Reading,
    template: bool,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrowed {
            text: &self.text,
            reading: self.reading,
            template: self.template,
        }
        .hash(state);
    }
}

impl Hash for Borrowed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.text);
        let Reading {
            standard_conforming_strings,
            utf8,
            utf8_names,
        } = self.reading;
        let flags = [standard_conforming_strings, utf8, utf8_names, self.template];
        state.write_u8(flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag)));
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.reading == other.reading && self.template == other.template && self.text == other.text
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.reading == key.reading && self.template == key.template && *self.text == *key.text
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<Analysis>> for Bytes {
    fn weight(&self, key: &Key, analysis: &Arc<Analysis>) -> u64 {
        (key.text.len() + analysis.memory()) as u64
    }
}

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockgate_command::{ConnectionId, TargetName};
use lockgate_ipc::{Dialogue, Reply, from_memfd};
use lockgate_sql::{
    Analysis, Catalogue, Resolved, SearchPath, SessionNames, Tags, resolve, resolve_executing,
};
use quick_cache::unsync::Cache;

use crate::links::{KeeperError, KeeperLink};

/// Oldest catalogue a decision may rest on. A change made past lockgate is
/// seen after this time at the latest; one made through it, at once.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Databases and scopes kept per thread.
const KEPT: usize = 256;

/// Meanings kept per scope.
const MEANINGS: usize = 4096;

/// The catalogues a thread knows, and what statements mean under them.
pub(crate) struct Databases {
    databases: RefCell<Cache<(TargetName, String), Rc<Database>>>,
    scopes: RefCell<Cache<ScopeKey, Rc<Scope>>>,
}

impl Default for Databases {
    fn default() -> Self {
        Self {
            databases: RefCell::new(Cache::new(KEPT)),
            scopes: RefCell::new(Cache::new(KEPT)),
        }
    }
}

impl Databases {
    /// The database `name` at `target`.
    pub(super) fn database(&self, target: &TargetName, name: &str) -> Rc<Database> {
        let key = (target.clone(), name.to_owned());
        let mut databases = self.databases.borrow_mut();
        if let Some(database) = databases.get(&key) {
            return database.clone();
        }
        let database = Rc::new(Database {
            target: target.clone(),
            name: name.to_owned(),
            catalogue: RefCell::new(None),
            asked_at: Cell::new(None),
            reading: tokio::sync::Mutex::new(()),
        });
        databases.insert(key, database.clone());
        database
    }

    /// What statements mean for `names` under `catalogue`.
    pub(super) fn scope(
        &self,
        target: &TargetName,
        epoch: u64,
        catalogue: &Arc<Catalogue>,
        names: &SessionNames,
    ) -> Rc<Scope> {
        let key = ScopeKey {
            target: target.clone(),
            epoch,
            catalogue: Arc::as_ptr(catalogue) as usize,
            database: names.database.clone(),
            user: names.user.clone(),
            search_path: match &names.search_path {
                SearchPath::Known(path) => Some(path.clone()),
                SearchPath::Unknown => None,
            },
        };
        let mut scopes = self.scopes.borrow_mut();
        if let Some(scope) = scopes.get(&key) {
            return scope.clone();
        }
        let scope = Rc::new(Scope {
            catalogue: catalogue.clone(),
            names: names.clone(),
            meanings: RefCell::new(Cache::new(MEANINGS)),
        });
        scopes.insert(key, scope.clone());
        scope
    }
}

/// One database, and its catalogue as keeper read it last.
pub(super) struct Database {
    target: TargetName,
    name: String,
    catalogue: RefCell<Option<Arc<Catalogue>>>,
    /// When the catalogue was asked for that is here.
    asked_at: Cell<Option<Instant>>,
    reading: tokio::sync::Mutex<()>,
}

impl Database {
    /// The catalogue, if it is new enough to decide by.
    pub(super) fn fresh(&self) -> Option<Arc<Catalogue>> {
        let fresh = self
            .asked_at
            .get()
            .is_some_and(|asked| asked.elapsed() < MAX_AGE);
        if fresh {
            self.catalogue.borrow().clone()
        } else {
            None
        }
    }

    /// The catalogue, not older than this call if `anew`, else as
    /// [`Database::fresh`]. Asks keeper once for all who wait.
    pub(super) async fn read(
        &self,
        keeper: &KeeperLink,
        connection: ConnectionId,
        anew: bool,
    ) -> Result<Arc<Catalogue>, KeeperError> {
        let called = Instant::now();
        let _reading = self.reading.lock().await;
        let served = match anew {
            // Someone before us in the queue may have asked after our call.
            true if self.asked_at.get().is_some_and(|asked| asked > called) => {
                self.catalogue.borrow().clone()
            }
            true => None,
            false => self.fresh(),
        };
        if let Some(catalogue) = served {
            return Ok(catalogue);
        }
        let asked = Instant::now();
        let ask = Dialogue::Catalogue {
            connection,
            target: self.target.clone(),
            database: self.name.clone(),
            max_age_ms: if anew { 0 } else { 1000 },
        };
        let (epoch, fd) = match keeper.ask(ask).await? {
            (Reply::Catalogue { epoch }, Some(fd)) => (epoch, fd),
            _ => return Err(KeeperError::Unexpected),
        };
        let known = self
            .catalogue
            .borrow()
            .clone()
            .filter(|known| known.epoch == epoch);
        let catalogue = match known {
            Some(known) => known,
            None => {
                let unreadable = |why: String| KeeperError::Refused(why);
                let bytes = from_memfd(fd).map_err(|why| unreadable(why.to_string()))?;
                let catalogue = postcard::from_bytes::<Catalogue>(&bytes)
                    .map_err(|why| unreadable(why.to_string()))?;
                Arc::new(catalogue)
            }
        };
        self.catalogue.replace(Some(catalogue.clone()));
        self.asked_at.set(Some(asked));
        Ok(catalogue)
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ScopeKey {
    target: TargetName,
    epoch: u64,
    /// Address; the scope holds the catalogue, so it is not used again.
    catalogue: usize,
    database: String,
    user: String,
    search_path: Option<Vec<String>>,
}

/// By the analysis's address: the entry holds it, so that the address is not
/// used again while the entry lives.
type Meanings = Cache<usize, (Arc<Analysis>, Rc<Resolved>)>;

/// What statements mean: one catalogue, one set of name rules, one set of tags.
pub(super) struct Scope {
    catalogue: Arc<Catalogue>,
    names: SessionNames,
    meanings: RefCell<Meanings>,
}

impl Scope {
    /// What `analysis` does here. What it runs by EXECUTE is the session's own
    /// affair, so such a text is resolved each time.
    pub(super) fn resolve(
        &self,
        analysis: &Arc<Analysis>,
        executed: Option<&[Arc<Analysis>]>,
        tags: &Tags,
    ) -> Rc<Resolved> {
        if executed.is_some() {
            let (catalogue, names) = (&self.catalogue, &self.names);
            return Rc::new(resolve_executing(
                analysis, executed, catalogue, names, tags,
            ));
        }
        let key = Arc::as_ptr(analysis) as usize;
        let mut meanings = self.meanings.borrow_mut();
        if let Some((_, resolved)) = meanings.get(&key) {
            return resolved.clone();
        }
        let resolved = Rc::new(resolve(analysis, &self.catalogue, &self.names, tags));
        meanings.insert(key, (analysis.clone(), resolved.clone()));
        resolved
    }
}

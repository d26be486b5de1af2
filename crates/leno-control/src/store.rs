//! What outlives the process: one redb database.
//!
//! State lives in memory ([`crate::registry`]); the database is its log of record. A change is applied in memory and
//! handed to the store's own thread in the same critical section, so that the order on disk is the order in memory;
//! whoever asked for it is answered after the commit. So `kill -9` at any moment loses nothing that was acknowledged.
//! Commits of one burst are shared: the thread takes everything that waits into one transaction.
//!
//! A store that fails (disk full, file gone) ends the process with its reason: a control plane that can no longer keep
//! its promises must not give any. Proxies serve on from what they hold.

mod record;

pub(crate) use record::{
    AuthorityRecord, MemberRecord, Reach, RoleRecord, StoredToken, decode_authority, decode_member,
    decode_token, owned,
};

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use leno_core::spec::ServiceSpec;
use leno_wire::Known;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{oneshot, watch};

use crate::error::StoreError;

/// One change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Sets it.
    Put(Table, String, Vec<u8>),
    /// Removes it.
    Delete(Table, String),
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Schema version, authority, generation.
    Meta,
    /// Join tokens by id.
    Tokens,
    /// Services declared through the API, by name.
    Services,
    /// Instances and gateways' proxies, by service and name.
    Members,
}

/// Everything that the database held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Certificate and key.
    pub(crate) authority: Option<AuthorityRecord>,
    /// Generations up to here may have been given out.
    pub(crate) generation: u64,
    /// Join tokens.
    pub(crate) tokens: Vec<StoredToken>,
    /// Services declared through the API.
    pub(crate) services: Vec<ServiceSpec>,
    /// Instances and gateways' proxies.
    pub(crate) members: Vec<MemberRecord>,
}

/// The way to the store's thread; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// To the thread; at most [`JOBS_MAX`] wait.
    jobs: mpsc::SyncSender<Job>,
    /// Why the store failed, once it has; set by the thread, or by whoever finds that it does not keep up.
    failed: Arc<watch::Sender<Option<StoreError>>>,
    /// The file, for messages.
    path: Arc<Path>,
}

/// Changes that belong together.
struct Job {
    /// In order.
    ops: Vec<Op>,
    /// Told after the commit.
    done: oneshot::Sender<()>,
}

/// The promise that changes are on disk.
#[derive(Debug)]
#[must_use = "what is acknowledged before it is on disk may be lost"]
pub(crate) struct Receipt(Option<oneshot::Receiver<()>>);

/// What the process was asked to do is not on disk, and the process is about to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotKept;

impl Store {
    /// Opens (or makes) the database in the directory `state`, in memory for `None`, and reads all of it. The returned
    /// handle ends the thread when every clone of the store is gone; join it to know that the file is closed.
    pub(crate) fn open(
        state: Option<&Path>,
    ) -> Result<(Self, Loaded, std::thread::JoinHandle<()>), StoreError> {
        let database = match state {
            Some(directory) => open_file(&directory.join(FILE_NAME))?,
            None => Database::builder()
                .create_with_backend(redb::backends::InMemoryBackend::new())
                .map_err(|error| StoreError::of(Path::new("memory"), error))?,
        };
        let path = state.map_or_else(|| PathBuf::from("memory"), |directory| directory.join(FILE_NAME));
        Self::start(database, &path)
    }

    /// Reads all of `database`, which is called `path`, and starts the thread that writes it.
    fn start(
        database: Database,
        path: &Path,
    ) -> Result<(Self, Loaded, std::thread::JoinHandle<()>), StoreError> {
        let loaded = load(&database, path)?;
        let (jobs, queue) = mpsc::sync_channel(JOBS_MAX);
        let failed = Arc::new(watch::Sender::new(None));
        let store = Self { jobs, failed: failed.clone(), path: path.into() };
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                if let Err(error) = work(&database, &queue) {
                    failed.send_replace(Some(StoreError::of(&path, error)));
                }
            })
            .map_err(|error| StoreError::of(Path::new("its thread"), redb::StorageError::Io(error)))?;
        Ok((store, loaded, thread))
    }

    /// Hands changes to the thread, without waiting.
    pub(crate) fn keep(&self, ops: Vec<Op>) -> Receipt {
        if ops.is_empty() {
            return Receipt(None);
        }
        let (done, receipt) = oneshot::channel();
        // When the thread is gone or hopelessly behind, the job and with it `done` are dropped: the receipt says so.
        // What is in memory is then ahead of what is on disk, which must not go on.
        if let Err(mpsc::TrySendError::Full(_)) = self.jobs.try_send(Job { ops, done }) {
            self.failed.send_replace(Some(StoreError::Stalled(self.path.to_path_buf())));
        }
        Receipt(Some(receipt))
    }

    /// Ends when the store has failed, with its reason.
    pub(crate) async fn failed(&self) -> StoreError {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(error) = failed.borrow_and_update().clone() {
                return error;
            }
            // The sender is our own: it cannot be gone.
            let _ = failed.changed().await;
        }
    }
}

impl Receipt {
    /// Ends when the changes are on disk.
    pub(crate) async fn kept(self) -> Result<(), NotKept> {
        match self.0 {
            None => Ok(()),
            Some(receipt) => receipt.await.map_err(|_| NotKept),
        }
    }
}

/// The database file, made with mode 0600 before anything secret can get into it.
fn open_file(path: &Path) -> Result<Database, StoreError> {
    let io = |error| StoreError::of(path, redb::StorageError::Io(error));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(io)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    drop(file);
    Database::create(path).map_err(|error| StoreError::of(path, error))
}

/// Reads everything; makes the tables and the schema's version on first use.
fn load(database: &Database, path: &Path) -> Result<Loaded, StoreError> {
    let failed = |error: redb::Error| StoreError::of(path, error);
    let write = database.begin_write().map_err(|error| failed(error.into()))?;
    for table in Table::ALL {
        write.open_table(table.definition()).map_err(|error| failed(error.into()))?;
    }
    write.commit().map_err(|error| failed(error.into()))?;

    let read = database.begin_read().map_err(|error| failed(error.into()))?;
    let mut loaded = Loaded::default();
    let mut schema = None;
    for table in Table::ALL {
        let rows = read.open_table(table.definition()).map_err(|error| failed(error.into()))?;
        for row in rows.iter().map_err(|error| failed(error.into()))? {
            let (key, value) = row.map_err(|error| failed(error.into()))?;
            let (key, value) = (key.value(), value.value());
            let broken = |why: String| StoreError::Record { path: path.to_owned(), key: key.to_owned(), why };
            match (table, key) {
                (Table::Meta, SCHEMA_KEY) => schema = Some(value.to_vec()),
                (Table::Meta, AUTHORITY_KEY) => {
                    loaded.authority = Some(decode_authority(value).map_err(broken)?);
                }
                (Table::Meta, GENERATION_KEY) => {
                    let bytes = value.try_into().map_err(|_| broken("it is no number".to_owned()))?;
                    loaded.generation = u64::from_be_bytes(bytes);
                }
                (Table::Meta, _) => return Err(broken("this version of Leno does not know it".to_owned())),
                (Table::Tokens, _) => loaded.tokens.push(decode_token(value).map_err(broken)?),
                (Table::Services, _) => match Known::parse(leno_core::index::Kind::Service, value) {
                    Ok(Known::Service(spec)) => loaded.services.push(spec),
                    Ok(_) => return Err(broken("it is no service".to_owned())),
                    Err(error) => return Err(broken(error.to_string())),
                },
                (Table::Members, _) => loaded.members.push(decode_member(value).map_err(broken)?),
            }
        }
    }
    drop(read);
    match schema {
        Some(version) if version == SCHEMA_VERSION.to_be_bytes() => Ok(loaded),
        Some(version) => Err(StoreError::Schema { path: path.to_owned(), found: version }),
        None => {
            let op = Op::Put(Table::Meta, SCHEMA_KEY.to_owned(), SCHEMA_VERSION.to_be_bytes().to_vec());
            commit(database, &[op]).map_err(failed)?;
            Ok(loaded)
        }
    }
}

/// The thread: one transaction for everything that waits, until the last [`Store`] is gone.
fn work(database: &Database, queue: &mpsc::Receiver<Job>) -> Result<(), redb::Error> {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(COMMIT_JOBS_MAX));
        let ops: Vec<Op> = jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.ops)).collect();
        commit(database, &ops)?;
        for job in jobs {
            // Whoever asked may be gone.
            let _ = job.done.send(());
        }
    }
    Ok(())
}

/// One transaction, synced to disk.
fn commit(database: &Database, ops: &[Op]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    for op in ops {
        match op {
            Op::Put(table, key, value) => {
                write.open_table(table.definition())?.insert(key.as_str(), value.as_slice())?;
            }
            Op::Delete(table, key) => {
                write.open_table(table.definition())?.remove(key.as_str())?;
            }
        }
    }
    write.commit()?;
    Ok(())
}

impl Table {
    /// Every table.
    const ALL: [Self; 4] = [Self::Meta, Self::Tokens, Self::Services, Self::Members];

    /// Its name in the database.
    const fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Meta => "meta",
            Self::Tokens => "tokens",
            Self::Services => "services",
            Self::Members => "members",
        })
    }
}

/// The database's name in the state directory.
pub(crate) const FILE_NAME: &str = "leno.redb";
/// Key of the authority in [`Table::Meta`].
pub(crate) const AUTHORITY_KEY: &str = "authority";
/// Key of the reserved generation in [`Table::Meta`].
pub(crate) const GENERATION_KEY: &str = "generation";
/// Key of the layout's version in [`Table::Meta`].
const SCHEMA_KEY: &str = "schema";
/// The layout that this version of Leno reads and writes.
const SCHEMA_VERSION: u32 = 1;
/// Most jobs that wait for the thread: far more than a burst of registrations; beyond it the disk has stalled.
const JOBS_MAX: usize = 16_384;
/// Most further jobs that share a commit, which bounds how long the first one waits.
const COMMIT_JOBS_MAX: usize = 1023;

#[cfg(test)]
mod tests;

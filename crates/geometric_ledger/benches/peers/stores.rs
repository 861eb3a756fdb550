//! The stores that are measured, each as it is best used for the same: transfers that are on disk when they are
//! acknowledged. The others read each account of a batch once and write it once, and have no receipts, which
//! the ledger has.

use crate::rocksdb::{self, RocksDb};
use geometric_ledger::{Account, GeometricLedger, Key, Options, Transfer};
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// The bytes of an account in the other stores: as many as it has in the ledger.
type Value = [u8; 56];

pub trait Store: Sync {
    /// Puts accounts into a store that is new, in the order of their keys.
    fn load(&self, accounts: &mut dyn Iterator<Item = Vec<(Key, i128)>>);
    /// Does transfers, all or none; they are on disk afterwards.
    fn transfer(&self, transfers: &[Transfer]);
    fn balance(&self, key: &Key) -> Option<i128>;
}

pub const NAMES: [&str; 5] = ["geometric_ledger", "redb", "fjall", "LMDB", "RocksDB"];

/// The disk alone: as many bytes as the ledger's log takes for a batch, written and synced. Nothing that
/// acknowledges each batch for itself is faster.
pub struct Bare {
    file: std::fs::File,
    next: AtomicU64,
}

/// Bytes of a record, and of a transfer in it.
const RECORD: usize = 256;
const TRANSFER: usize = 240;
const FILE: u64 = 64 << 20;

impl Bare {
    pub fn new(path: &Path) -> Self {
        let file = std::fs::File::create(path).unwrap();
        // Written before, so that a sync has no metadata to write.
        file.write_all_at(&vec![1; FILE as usize], 0).unwrap();
        file.sync_all().unwrap();
        Bare {
            file,
            next: AtomicU64::new(0),
        }
    }

    pub fn transfer(&self, transfers: &[Transfer]) {
        let bytes = vec![7; RECORD + TRANSFER * transfers.len()];
        let len = bytes.len() as u64;
        let at = self.next.fetch_add(len, Ordering::Relaxed) % (FILE - len);
        self.file.write_all_at(&bytes, at).unwrap();
        self.file.sync_data().unwrap();
    }
}

/// What a store may keep in memory beside the page cache.
#[derive(Clone, Copy)]
pub struct Memory {
    pub bytes: u64,
}

/// Opens a store by its name; `None` where the system does not have it.
pub fn open(name: &str, path: &Path, memory: Memory) -> Option<Box<dyn Store>> {
    std::fs::create_dir_all(path).unwrap();
    Some(match name {
        "geometric_ledger" => Box::new(Ours::open(path, memory)),
        "redb" => Box::new(Redb::open(path, memory)),
        "fjall" => Box::new(Fjall::open(path, memory)),
        "LMDB" => Box::new(Lmdb::open(path)),
        "RocksDB" => Box::new(Rocks::open(rocksdb::library()?, path, memory)),
        _ => panic!("there is no store {name}"),
    })
}

fn value(balance: i128) -> Value {
    let mut value = [0; 56];
    value[..16].copy_from_slice(&balance.to_le_bytes());
    value
}

fn balance(value: &[u8]) -> i128 {
    i128::from_le_bytes(value[..16].try_into().unwrap())
}

/// What a batch makes of its accounts, each read once.
fn apply(transfers: &[Transfer], mut read: impl FnMut(&Key) -> Value) -> HashMap<Key, Value> {
    let mut accounts = HashMap::with_capacity(2 * transfers.len());
    let mut change = |key: &Key, amount: i128| {
        let found = accounts.entry(*key).or_insert_with(|| read(key));
        let after = balance(found) + amount;
        assert!(after >= 0);
        found[..16].copy_from_slice(&after.to_le_bytes());
    };
    for transfer in transfers {
        change(&transfer.debit, -(transfer.amount as i128));
        change(&transfer.credit, transfer.amount as i128);
    }
    accounts
}

/// Locks of accounts, for stores whose writers do not exclude each other.
struct Stripes(Vec<Mutex<()>>);

impl Stripes {
    fn new() -> Self {
        Stripes((0..1_024).map(|_| Mutex::new(())).collect())
    }

    fn lock(&self, transfers: &[Transfer]) -> Vec<MutexGuard<'_, ()>> {
        let stripe = |key: &Key| usize::from(key[0]) << 2 | usize::from(key[1] & 3);
        let mut stripes: Vec<_> = transfers
            .iter()
            .flat_map(|transfer| [stripe(&transfer.debit), stripe(&transfer.credit)])
            .collect();
        stripes.sort_unstable();
        stripes.dedup();
        stripes
            .into_iter()
            .map(|stripe| self.0[stripe].lock().unwrap())
            .collect()
    }
}

struct Ours {
    ledger: GeometricLedger,
    next: AtomicU64,
}

impl Ours {
    fn open(path: &Path, memory: Memory) -> Self {
        let options = Options::new()
            .resident_bytes(memory.bytes)
            .dirty_bytes(memory.bytes.min(2 << 30));
        let ledger = options.open(path).unwrap();
        Ours {
            next: AtomicU64::new(ledger.view().sequence() << 20),
            ledger,
        }
    }
}

impl Store for Ours {
    fn load(&self, accounts: &mut dyn Iterator<Item = Vec<(Key, i128)>>) {
        for batch in accounts {
            let batch: Vec<_> = batch
                .into_iter()
                .map(|(key, balance)| (key, Account::with_balance(balance)))
                .collect();
            self.ledger
                .submit_update_batch(&batch)
                .unwrap()
                .wait()
                .unwrap();
        }
        self.ledger.checkpoint().unwrap();
    }

    fn transfer(&self, transfers: &[Transfer]) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = u128::from(number).to_le_bytes();
        self.ledger.transfer_batch(&key, transfers).unwrap();
    }

    fn balance(&self, key: &Key) -> Option<i128> {
        let account = self.ledger.get(key).unwrap();
        account.map(|account| account.balance)
    }
}

const TABLE: redb::TableDefinition<[u8; 32], [u8; 56]> = redb::TableDefinition::new("accounts");

struct Redb(redb::Database);

impl Redb {
    fn open(path: &Path, memory: Memory) -> Self {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(memory.bytes as usize);
        Redb(builder.create(path.join("accounts")).unwrap())
    }
}

impl Store for Redb {
    fn load(&self, accounts: &mut dyn Iterator<Item = Vec<(Key, i128)>>) {
        for batch in accounts {
            let mut transaction = self.0.begin_write().unwrap();
            transaction.set_durability(redb::Durability::None).unwrap();
            let mut table = transaction.open_table(TABLE).unwrap();
            for (key, balance) in batch {
                table.insert(key, value(balance)).unwrap();
            }
            drop(table);
            transaction.commit().unwrap();
        }
        self.0.begin_write().unwrap().commit().unwrap();
    }

    fn transfer(&self, transfers: &[Transfer]) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            use redb::ReadableTable;
            let found = apply(transfers, |key| table.get(key).unwrap().unwrap().value());
            for (key, value) in found {
                table.insert(key, value).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn balance(&self, key: &Key) -> Option<i128> {
        use redb::ReadableDatabase;
        let transaction = self.0.begin_read().unwrap();
        let table = transaction.open_table(TABLE).unwrap();
        let found = table.get(key).unwrap();
        found.map(|value| balance(&value.value()))
    }
}

struct Fjall {
    keyspace: fjall::Keyspace,
    partition: fjall::Partition,
    stripes: Stripes,
}

impl Fjall {
    fn open(path: &Path, memory: Memory) -> Self {
        let config = fjall::Config::new(path).cache_size(memory.bytes);
        let keyspace = config.open().unwrap();
        let partition = keyspace
            .open_partition("accounts", Default::default())
            .unwrap();
        Fjall {
            keyspace,
            partition,
            stripes: Stripes::new(),
        }
    }
}

impl Store for Fjall {
    fn load(&self, accounts: &mut dyn Iterator<Item = Vec<(Key, i128)>>) {
        for batch in accounts {
            let mut writes = self.keyspace.batch();
            for (key, balance) in batch {
                writes.insert(&self.partition, key, value(balance));
            }
            writes.commit().unwrap();
        }
        self.keyspace.persist(fjall::PersistMode::SyncAll).unwrap();
    }

    fn transfer(&self, transfers: &[Transfer]) {
        {
            let _locked = self.stripes.lock(transfers);
            let read = |key: &Key| {
                (*self.partition.get(key).unwrap().unwrap())
                    .try_into()
                    .unwrap()
            };
            let mut writes = self.keyspace.batch();
            for (key, value) in apply(transfers, read) {
                writes.insert(&self.partition, key, value);
            }
            writes.commit().unwrap();
        }
        self.keyspace.persist(fjall::PersistMode::SyncData).unwrap();
    }

    fn balance(&self, key: &Key) -> Option<i128> {
        let found = self.partition.get(key).unwrap();
        found.map(|value| balance(&value))
    }
}

struct Lmdb {
    environment: heed::Env,
    table: heed::Database<heed::types::Bytes, heed::types::Bytes>,
}

impl Lmdb {
    fn open(path: &Path) -> Self {
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(64 << 30);
        // SAFETY: the flag says that pages are not read ahead, which changes no promise; nobody else changes
        // the files.
        let environment = unsafe {
            options.flags(heed::EnvFlags::NO_READ_AHEAD);
            options.open(path).unwrap()
        };
        let mut transaction = environment.write_txn().unwrap();
        let table = environment.create_database(&mut transaction, None).unwrap();
        transaction.commit().unwrap();
        Lmdb { environment, table }
    }
}

impl Store for Lmdb {
    fn load(&self, accounts: &mut dyn Iterator<Item = Vec<(Key, i128)>>) {
        for batch in accounts {
            let mut transaction = self.environment.write_txn().unwrap();
            for (key, balance) in batch {
                let value = value(balance);
                self.table
                    .put_with_flags(&mut transaction, heed::PutFlags::APPEND, &key, &value)
                    .unwrap();
            }
            transaction.commit().unwrap();
        }
    }

    fn transfer(&self, transfers: &[Transfer]) {
        let mut transaction = self.environment.write_txn().unwrap();
        let found = apply(transfers, |key| {
            let found = self.table.get(&transaction, key).unwrap().unwrap();
            found.try_into().unwrap()
        });
        for (key, value) in found {
            self.table.put(&mut transaction, &key, &value).unwrap();
        }
        transaction.commit().unwrap();
    }

    fn balance(&self, key: &Key) -> Option<i128> {
        let transaction = self.environment.read_txn().unwrap();
        self.table.get(&transaction, key).unwrap().map(balance)
    }
}

struct Rocks {
    database: RocksDb,
    stripes: Stripes,
}

impl Rocks {
    fn open(library: libloading::Library, path: &Path, memory: Memory) -> Self {
        Rocks {
            database: RocksDb::open(library, path, memory.bytes as usize),
            stripes: Stripes::new(),
        }
    }
}

impl Store for Rocks {
    fn load(&self, accounts: &mut dyn Iterator<Item = Vec<(Key, i128)>>) {
        for batch in accounts {
            let items = batch.iter().map(|(key, balance)| (key, value(*balance)));
            self.database.write(items, false);
        }
        self.database.write(std::iter::empty(), true);
    }

    fn transfer(&self, transfers: &[Transfer]) {
        let _locked = self.stripes.lock(transfers);
        let found = apply(transfers, |key| self.database.get(key).unwrap());
        let items = found.iter().map(|(key, value)| (key, *value));
        self.database.write(items, true);
    }

    fn balance(&self, key: &Key) -> Option<i128> {
        let found: Option<Value> = self.database.get(key);
        found.map(|value| balance(&value))
    }
}

//! The ledger: its parts, how they are opened, and what a crash left is recovered.

use crate::account::Key;
use crate::batches::Batches;
use crate::checkpoint::{self, Checkpointer};
use crate::commit::Writer;
use crate::disk::{self, Disk, DiskFile, Nothing};
use crate::error::Error;
use crate::keeper::Keeper;
use crate::look_up::Piece;
use crate::options::{Durability, Options};
use crate::recovery::Recovery;
use crate::region::{Memory, PAGE, Region};
use crate::seal::{Seal, Secret, unwrap, wrap};
use crate::service::Service;
use crate::shard::{Expected, Identity, KeyHash, Shard, State};
use crate::slot::{Kind, MAX_EPOCH};
use crate::superblock::{FORMAT, Superblock};
use crate::telemetry;
use crate::wal::Wal;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A store of accounts, each under a 32-byte key. See the [crate's documentation](crate).
///
/// It may be shared between threads: reads never wait for writes, and writes queue.
pub struct GeometricLedger {
    pub(crate) core: Arc<Core>,
    pub(crate) directory: Option<PathBuf>,
    recovery: Recovery,
    keeper: Option<Keeper>,
    pub(crate) service: Option<Service>,
}

/// What a ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its random name.
    pub id: [u8; 16],
    /// The version of its files' format.
    pub format: u32,
    pub shards: u16,
    pub encrypted: bool,
    /// How often it was opened for writing.
    pub opened: u32,
    /// The last batch that a checkpoint has brought to the files.
    pub checkpoint: u64,
}

pub(crate) struct Core {
    pub disk: Arc<dyn Disk>,
    pub options: Options,
    pub shards: Vec<Shard>,
    pub seal: Arc<Seal>,
    pub hasher: SipHasher13,
    /// Memory of the pieces of batches past.
    pub spare: Mutex<Vec<Piece>>,
    pub wal: Wal,
    pub batches: Batches,
    pub writer: Mutex<Writer>,
    /// Readers see the batches up to this one.
    pub visible: AtomicU64,
    /// States before this batch cannot be asked for.
    pub oldest: AtomicU64,
    /// What readers hold on to: how many at which sequence.
    pub pins: Mutex<BTreeMap<u64, usize>>,
    pub checkpointer: Mutex<Checkpointer>,
    pub signal: crate::keeper::Signal,
    /// Only batches of another ledger are taken.
    pub following: AtomicBool,
}

impl Drop for GeometricLedger {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(%error, "the ledger was not closed cleanly; opening it will recover");
        }
    }
}

impl GeometricLedger {
    /// Opens the ledger in a directory with the default [`Options`], creating it if it is not there.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn new(path: impl AsRef<Path>) -> Result<Self, Error> {
        Options::default().open(path)
    }

    /// Opens the ledger in a directory with other options.
    pub fn builder() -> Options {
        Options::default()
    }

    /// What the ledger is.
    pub fn info(&self) -> Info {
        let checkpointer = self.core.checkpointer.lock().unwrap();
        let block = &checkpointer.block;
        Info {
            id: block.id,
            format: block.format,
            shards: self.core.account_shards().len() as u16,
            encrypted: self.core.seal.encrypts(),
            opened: block.epoch,
            checkpoint: block.sequence,
        }
    }

    /// Makes a checkpoint, so that the next opening has nothing to do, and closes.
    ///
    /// # Errors
    /// If the checkpoint cannot be written; opening the ledger recovers it then.
    pub fn close(mut self) -> Result<(), Error> {
        self.shut()
    }

    /// Brings what is in memory to the files, so that a crash from now on has less to replay. The
    /// ledger does this by itself after [`Options::checkpoint_bytes`].
    ///
    /// # Errors
    /// If the files cannot be written; the ledger stops then, and recovers when it is opened again.
    pub fn checkpoint(&self) -> Result<(), Error> {
        let result = self.core.checkpoint(false);
        result.inspect_err(|error| self.core.wal.stop(&error.to_string()))
    }

    /// What opening this ledger had to do.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Another handle, for reading: it leaves closing to this one.
    pub(crate) fn handle(&self) -> Self {
        GeometricLedger {
            core: self.core.clone(),
            directory: None,
            recovery: self.recovery,
            keeper: None,
            service: None,
        }
    }

    fn shut(&mut self) -> Result<(), Error> {
        self.service = None;
        match self.keeper.take() {
            Some(keeper) => {
                drop(keeper);
                self.core.wal.check()?;
                self.core.checkpoint(true)
            }
            None => Ok(()),
        }
    }

    #[tracing::instrument(skip_all, name = "open")]
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Self, Error> {
        let start = Instant::now();
        let writable = !options.read_only;
        let names = disk.list().map_err(Error::io("the ledger's directory"))?;
        if !names.iter().any(|name| name == "ledger") {
            disk::not_without_ledger(&names)?;
        }
        let file = disk.open("ledger", writable).map_err(Error::io("ledger"))?;
        let copies = Superblock::read(&file)?;
        let mut repaired = !copies.dead.is_empty();
        let block = match copies.newest {
            Some(block) => {
                for copy in &copies.dead {
                    tracing::warn!(copy, "a copy of the superblock is damaged");
                }
                if writable && (repaired || copies.differ) {
                    block.repair(&file, &copies.dead)?;
                }
                if writable {
                    // What a killed process had not synced yet must not be built upon.
                    file.sync().map_err(Error::io("ledger"))?;
                }
                block
            }
            None => {
                repaired = false;
                disk::not_without_ledger(&names)?;
                if !writable {
                    return Err(Error::Format("it was never written to".into()));
                }
                create(&options, &*disk, &file)?
            }
        };
        let created = block.checkpoint == 0;
        if created && !writable {
            return Err(Error::Format("it was never written to".into()));
        }
        if block.epoch >= MAX_EPOCH {
            return Err(Error::Format(
                "it was opened too often; restore it from a snapshot".into(),
            ));
        }
        let (seal, hash_secret) = keys(&block, options.key.as_ref())?;
        let seal = Arc::new(seal);
        let mut block = block;
        let (shards, pages) = open_shards(&*disk, &mut block, &options)?;
        let wal = Wal::open(disk.clone(), options.segment_bytes)?;
        if created && wal.record_at(wal.oldest(), &seal)?.is_some() {
            return Err(Error::damaged(
                "ledger",
                "the file",
                "it is of a ledger without batches, but there are some",
            ));
        }
        let (batches, tree_rebuilt) = Batches::open(disk.clone(), seal.clone(), &block, writable)?;
        let writer = Writer::new(&block);
        let core = Core {
            visible: AtomicU64::new(0),
            oldest: AtomicU64::new(block.oldest),
            writer: Mutex::new(writer),
            pins: Mutex::default(),
            signal: Default::default(),
            following: AtomicBool::new(false),
            checkpointer: Mutex::new(Checkpointer::new(file, block.clone())),
            disk,
            options,
            shards,
            seal,
            hasher: SipHasher13::new_with_key(&hash_secret),
            spare: Mutex::default(),
            wal,
            batches,
        };
        let mut recovery = core.recover(&block)?;
        recovery.pages = pages;
        recovery.superblock_repaired = repaired;
        recovery.tree_rebuilt = tree_rebuilt;
        if writable {
            block.epoch += 1;
            core.begin(block.epoch, created || recovery.indexes_rebuilt > 0)?;
        }
        if core.options.huge_pages {
            core.promote(usize::MAX);
        }
        recovery.duration = start.elapsed();
        telemetry::opened(&recovery);
        tracing::info!(?recovery, "the ledger is open");
        let core = Arc::new(core);
        let keeper = match writable {
            true => Some(Keeper::start(&core)?),
            false => None,
        };
        Ok(GeometricLedger {
            core,
            directory: None,
            recovery,
            keeper,
            service: None,
        })
    }

    /// Seals the ledger's data keys under another user's key, and takes a new data key for all that
    /// is written from the next opening on. Takes a moment, whatever the size.
    ///
    /// # Errors
    /// [`Error::Key`] if the ledger is not encrypted or `old` is not its key.
    pub fn rotate_key(path: impl AsRef<Path>, old: &Secret, new: &Secret) -> Result<(), Error> {
        let ledger = Options::default().key(old.clone()).open(path)?;
        let mut checkpointer = ledger.core.checkpointer.lock().unwrap();
        let block = &mut checkpointer.block;
        let mut data_keys = Vec::new();
        for (epoch, wrapped) in &block.data_keys {
            data_keys.push((*epoch, wrap(&unwrap(wrapped, old)?, new)?));
        }
        data_keys.push((block.epoch + 1, wrap(&Secret::random()?, new)?));
        block.data_keys = data_keys;
        checkpointer.write()
    }
}

/// Opens the shards as the checkpoint left them, finishing what it had begun. Also says how many pages
/// that were.
fn open_shards(
    disk: &dyn Disk,
    block: &mut Superblock,
    options: &Options,
) -> Result<(Vec<Shard>, u64), Error> {
    let writable = !options.read_only;
    let created = block.checkpoint == 0;
    let memory = match writable {
        true => Memory::Mapped,
        false => Memory::Fixed,
    };
    let last = block.shards.len().saturating_sub(1);
    let identities: Vec<_> = (0..=last)
        .map(|number| Identity {
            ledger: block.id,
            number: number as u16,
            receipts: number == last,
        })
        .collect();
    // Only an index can be made again, and a new ledger has nothing yet.
    let open = |name: &str, create: bool| match disk.open(name, create && writable) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "it is missing; restore a snapshot";
            Err(Error::damaged(name, "the file", what))
        }
        result => result.map_err(Error::io(name)),
    };
    let known = |shard: u16| match identities.get(usize::from(shard)) {
        Some(identity) => Ok(identity.index_name()),
        None => {
            let what = format!("there is no shard {shard}");
            Err(Error::damaged("journal", "its pages", what))
        }
    };
    let mut pages = Ok(0);
    // The journal sets pages of the index that the checkpoint before left, and of no other.
    let mut rebuild = vec![false; identities.len()];
    if block.journal && block.checkpoint > 1 {
        for (identity, rebuild) in identities.iter().zip(&mut rebuild) {
            let name = identity.index_name();
            let file = disk::existing(disk, &name).map_err(Error::io(&name))?;
            let stamped = file.is_some_and(|file| identity.stamped(&*file, block.checkpoint));
            *rebuild = !stamped;
        }
    }
    if block.journal && writable {
        pages = checkpoint::read_journal(disk, block.checkpoint, |shard, page, image| {
            let name = known(shard)?;
            let offset = page * PAGE as u64;
            open(&name, true)?
                .write_at(image, offset)
                .map_err(Error::io(name))
        });
        for name in identities.iter().map(Identity::index_name) {
            open(&name, true)?.sync().map_err(Error::io(name))?;
        }
    }
    let region = |name: String, create: bool| {
        let file = match open(&name, create) {
            Err(Error::Damaged { .. }) if create => Ok(Arc::new(Nothing) as Arc<dyn DiskFile>),
            result => result,
        };
        Region::open(file?, memory).map_err(Error::io(name))
    };
    let regions = identities
        .iter()
        .map(|identity| {
            let slots = region(identity.slots_name(), created)?;
            Ok((slots, region(identity.index_name(), true)?))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    if block.journal && !writable {
        pages = checkpoint::read_journal(disk, block.checkpoint, |shard, page, image| {
            known(shard)?;
            let (_, index) = &regions[usize::from(shard)];
            index.restore(page, image).map_err(Error::io("journal"))
        });
    }
    block.journal &= !writable;
    if let Err(error) = &pages {
        tracing::warn!(%error, "the journal is damaged, so all indexes are made again");
    }
    let shards = identities
        .into_iter()
        .zip(regions)
        .enumerate()
        .map(|(number, (identity, (slots, index)))| {
            let expected = Expected {
                state: block.shards[number],
                checkpoint: block.checkpoint,
                rebuild: pages.is_err() || rebuild[number],
            };
            Shard::open(identity, slots, index, expected)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((shards, pages.unwrap_or(0)))
}

/// Begins a ledger: its superblock is durable before there is any other file, so that the other files
/// without it are always those of a ledger that lost it.
fn create(
    options: &Options,
    disk: &dyn Disk,
    file: &Arc<dyn DiskFile>,
) -> Result<Superblock, Error> {
    let random = Secret::random()?.0;
    let data_keys = match &options.key {
        Some(key) => vec![(0, wrap(&Secret::random()?, key)?)],
        None => Vec::new(),
    };
    let mut block = Superblock {
        format: FORMAT,
        generation: 0,
        id: random[..16].try_into().unwrap(),
        hash_secret: match data_keys.is_empty() {
            true => random[16..].try_into().unwrap(),
            false => [0; 16],
        },
        data_keys,
        epoch: 0,
        clean: true,
        checkpoint: 0,
        journal: false,
        sequence: 0,
        position: 0,
        segment: (0, 0),
        time: 0,
        oldest: 0,
        accounts: 0,
        minted: [0; 16],
        burned: [0; 16],
        root: *merkle_tree::EMPTY_ROOT.as_bytes(),
        shards: vec![State::default(); usize::from(options.shards) + 1],
    };
    block.write(file)?;
    disk.sync().map_err(Error::io("the ledger's directory"))?;
    Ok(block)
}

pub(crate) fn keys(block: &Superblock, key: Option<&Secret>) -> Result<(Seal, [u8; 16]), Error> {
    match (block.data_keys.as_slice(), key) {
        ([], None) => Ok((Seal::plain(), block.hash_secret)),
        ([], Some(_)) => Err(Error::Key(
            "the ledger is not encrypted, so it takes none".into(),
        )),
        (_, None) => Err(Error::Key(
            "the ledger is encrypted, and no key was given".into(),
        )),
        (wrapped, Some(key)) => {
            let data = wrapped
                .iter()
                .map(|(epoch, wrapped)| Ok((*epoch, unwrap(wrapped, key)?)))
                .collect::<Result<Vec<_>, Error>>()?;
            let secret =
                blake3::derive_key("geometric_ledger 2026-11-21 hash secret", &data[0].1.0);
            Ok((Seal::encrypted(data), secret[..16].try_into().unwrap()))
        }
    }
}

impl Core {
    /// The hash of an account's key.
    #[inline]
    pub fn hash(&self, key: &Key) -> KeyHash {
        KeyHash::account(&self.hasher, key)
    }

    #[inline]
    pub fn hash_of(&self, key: &Key, kind: Kind) -> KeyHash {
        KeyHash::new(&self.hasher, key, kind)
    }

    #[inline]
    pub fn shard(&self, hash: KeyHash) -> &Shard {
        &self.shards[hash.shard(self.shards.len())]
    }

    /// The shards of accounts.
    pub fn account_shards(&self) -> &[Shard] {
        &self.shards[..self.shards.len() - 1]
    }

    /// The shard of receipts.
    pub fn receipts(&self) -> &Shard {
        self.shards.last().expect("there is one")
    }

    /// Starts writing in a new epoch; with a checkpoint, if memory has what the files do not.
    fn begin(&self, epoch: u32, checkpoint: bool) -> Result<(), Error> {
        // What a crash left half written after the last whole record is never read again.
        self.wal.forget_after(self.wal.segment_end())?;
        if self.wal.present().is_none() {
            self.wal.prepare_next()?;
        }
        self.writer.lock().unwrap().epoch = epoch;
        let mut checkpointer = self.checkpointer.lock().unwrap();
        checkpointer.block.epoch = epoch;
        checkpointer.block.clean = false;
        if checkpoint {
            drop(checkpointer);
            return self.checkpoint(false);
        }
        checkpointer.write()
    }

    pub fn durability(&self) -> Durability {
        self.options.durability
    }
}

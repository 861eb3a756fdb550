//! The ledger: its parts, how they are opened, and what a crash left is recovered.

use crate::engine::checkpoint;
use crate::engine::maintenance::Maintenance;
use crate::engine::recovery::Recovery;
use crate::engine::state::{Core, Writer, now};
use crate::engine::telemetry;
use crate::error::Error;
use crate::options::Options;
use crate::storage::batches::Batches;
use crate::storage::disk::{self, Disk, DiskFile, EmptyFile};
use crate::storage::encryption::{Secret, wrap};
use crate::storage::layout::{Identity, Layout};
use crate::storage::region::{Memory, PAGE, Region};
use crate::storage::shard::{Expected, Shard, State};
use crate::storage::slot::MAX_EPOCH;
use crate::storage::superblock::{FORMAT, Superblock, SuperblockFile};
use crate::storage::wal::Wal;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::io::ErrorKind;
use std::path::PathBuf;
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
    maintenance: Option<Maintenance>,
    /// Threads that work on handles of the ledger; dropping them ends them.
    companions: Vec<Box<dyn Send + Sync>>,
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

impl Drop for GeometricLedger {
    fn drop(&mut self) {
        if let Err(error) = self.close_cleanly() {
            tracing::error!(%error, "the ledger was not closed cleanly; opening it will recover");
        }
    }
}

impl GeometricLedger {
    /// What the ledger is.
    pub fn info(&self) -> Info {
        let superblock = self.core.superblock.lock().unwrap();
        let block = &superblock.block;
        Info {
            id: block.id,
            format: block.format,
            shards: self.core.account_shards().len() as u16,
            encrypted: self.core.encryption.encrypts(),
            opened: block.epoch,
            checkpoint: block.sequence,
        }
    }

    /// Makes a checkpoint, so that the next opening has nothing to do, and closes.
    ///
    /// # Errors
    /// If the checkpoint cannot be written; opening the ledger recovers it then.
    pub fn close(mut self) -> Result<(), Error> {
        self.close_cleanly()
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

    /// Keeps threads that have handles of the ledger until it is closed.
    pub(crate) fn accompany(&mut self, companion: impl Send + Sync + 'static) {
        self.companions.push(Box::new(companion));
    }

    /// Another handle, for reading: it leaves closing to this one.
    pub(crate) fn handle(&self) -> Self {
        GeometricLedger {
            core: self.core.clone(),
            directory: None,
            recovery: self.recovery,
            maintenance: None,
            companions: Vec::new(),
        }
    }

    fn close_cleanly(&mut self) -> Result<(), Error> {
        self.companions.clear();
        match self.maintenance.take() {
            Some(maintenance) => {
                drop(maintenance);
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
            disk::refuse_orphaned_files(&names)?;
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
                disk::refuse_orphaned_files(&names)?;
                if !writable {
                    return Err(Error::Format("it was never written to".into()));
                }
                Superblock::refuse_others(&file)?;
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
        let (encryption, hash_secret) = block.keys(options.key.as_ref())?;
        let encryption = Arc::new(encryption);
        let mut block = block;
        let layout = block.layout();
        let known = block.shards.len();
        let converted = block.convert();
        let (shards, pages) = open_shards(&*disk, &mut block, known, &options)?;
        let wal = Wal::open(disk.clone(), options.segment_bytes)?;
        if created && wal.record_at(wal.oldest(), &encryption)?.is_some() {
            return Err(Error::damaged(
                "ledger",
                "the file",
                "it is of a ledger without batches, but there are some",
            ));
        }
        let (batches, tree_rebuilt) =
            Batches::open(disk.clone(), encryption.clone(), &block, writable)?;
        let writer = Writer::new(&block);
        let core = Core {
            visible: AtomicU64::new(0),
            oldest: AtomicU64::new(block.oldest),
            writer: Mutex::new(writer),
            pins: Mutex::default(),
            signal: Default::default(),
            submissions: Default::default(),
            following: AtomicBool::new(options.following),
            superblock: Mutex::new(SuperblockFile::new(file, block.clone())),
            disk,
            options,
            layout,
            shards,
            encryption,
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
            let checkpoint = created || converted || recovery.indexes_rebuilt > 0;
            core.start_epoch(block.epoch, checkpoint)?;
        }
        if core.options.huge_pages {
            core.promote(usize::MAX);
        }
        recovery.duration = start.elapsed();
        telemetry::opened(recovery.batches, recovery.duration, now());
        tracing::info!(?recovery, "the ledger is open");
        let core = Arc::new(core);
        let maintenance = match writable {
            true => Some(Maintenance::start(&core)?),
            false => None,
        };
        Ok(GeometricLedger {
            core,
            directory: None,
            recovery,
            maintenance,
            companions: Vec::new(),
        })
    }
}

/// Opens the shards as the checkpoint left them, finishing what it had begun; those that it did not know
/// are new. Also says how many pages were set.
fn open_shards(
    disk: &dyn Disk,
    block: &mut Superblock,
    known: usize,
    options: &Options,
) -> Result<(Vec<Shard>, u64), Error> {
    let writable = !options.read_only;
    let created = block.checkpoint == 0;
    let memory = match writable {
        true => Memory::Mapped,
        false => Memory::Fixed,
    };
    let identities = block.layout().identities(block.id);
    let is_new = |number: usize| created || number >= known;
    // Only an index can be made again, and a new ledger has nothing yet.
    let open = |name: &str, create: bool| match disk.open(name, create && writable) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "it is missing; restore a snapshot";
            Err(Error::damaged(name, "the file", what))
        }
        result => result.map_err(Error::io(name)),
    };
    let index_of = |shard: u16| match identities.get(usize::from(shard)) {
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
            let name = index_of(shard)?;
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
            Err(Error::Damaged { .. }) if create => Ok(Arc::new(EmptyFile) as Arc<dyn DiskFile>),
            result => result,
        };
        Region::open(file?, memory).map_err(Error::io(name))
    };
    let regions = identities
        .iter()
        .enumerate()
        .map(|(number, identity)| {
            let slots = region(identity.slots_name(), is_new(number))?;
            Ok((slots, region(identity.index_name(), true)?))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    if block.journal && !writable {
        pages = checkpoint::read_journal(disk, block.checkpoint, |shard, page, image| {
            index_of(shard)?;
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
                checkpoint: match is_new(number) {
                    true => 0,
                    false => block.checkpoint,
                },
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
        pruned: 0,
        account_shards: options.shards,
        shards: vec![State::default(); Layout::new(options.shards).shards()],
    };
    block.write(file)?;
    disk.sync().map_err(Error::io("the ledger's directory"))?;
    Ok(block)
}

impl Core {
    /// Starts writing in a new epoch; with a checkpoint, if memory has what the files do not.
    fn start_epoch(&self, epoch: u32, checkpoint: bool) -> Result<(), Error> {
        // What a crash left half written after the last whole record is never read again.
        self.wal.segments.remove_after(self.wal.segment_end())?;
        if self.wal.present().is_none() {
            self.wal.prepare_next()?;
        }
        self.writer.lock().unwrap().epoch = epoch;
        let mut superblock = self.superblock.lock().unwrap();
        superblock.block.epoch = epoch;
        superblock.block.clean = false;
        if checkpoint {
            drop(superblock);
            return self.checkpoint(false);
        }
        superblock.write()
    }
}

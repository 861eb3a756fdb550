//! The file `ledger`: what the ledger is, and the state that its last checkpoint left.
//!
//! There are two copies of 64 KiB. Each write puts the same content into both, one after the other, and
//! syncs each. So whatever was built upon a write is described by both copies: one that is damaged
//! changes nothing, and only an interrupted write leaves copies that differ. A copy is a BLAKE3 hash, a
//! length, and CBOR.

use crate::error::Error;
use crate::storage::disk::DiskFile;
use crate::storage::encryption::{Encryption, Secret, unwrap};
use crate::storage::layout::Layout;
use crate::storage::record::Totals;
use crate::storage::shard::State;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;

/// The format of all files of a ledger.
pub const FORMAT: u32 = 4;
/// Formats before, which are converted when they are opened for writing: 2 had no recorded transfers, and
/// in 3 all batches were kept.
const FORMAT_2: u32 = 2;
const FORMAT_3: u32 = 3;
const COPY: usize = 64 << 10;
/// The name of the first field, as CBOR; it is among the first bytes of a copy, which are written as one.
const FIRST: &[u8; 7] = b"fformat";
const HEAD: usize = 64;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Superblock {
    pub format: u32,
    pub generation: u64,
    pub id: [u8; 16],
    /// The secret of the keys' hash; of an encrypted ledger it is derived from the first data key.
    pub hash_secret: [u8; 16],
    /// Data keys, each from its epoch on, encrypted under the user's key.
    pub data_keys: Vec<(u32, Vec<u8>)>,
    /// The epoch of the last opening for writing.
    pub epoch: u32,
    /// Whether nothing was written after the checkpoint.
    pub clean: bool,
    /// Counts checkpoints; 0 while the ledger is being created and has no batch.
    pub checkpoint: u64,
    /// Whether pages of this checkpoint may still have to be copied from the journal.
    pub journal: bool,
    pub sequence: u64,
    /// Where in the write-ahead log what follows the checkpoint begins.
    pub position: u64,
    /// The segment of the write-ahead log that has this position: its start and its length.
    pub segment: (u64, u64),
    pub time: i64,
    /// No earlier state than after this batch can be asked for.
    pub oldest: u64,
    pub accounts: u64,
    pub minted: [u8; 16],
    pub burned: [u8; 16],
    /// The root of the batches so far.
    pub root: [u8; 32],
    /// How many of the first batches were pruned.
    #[serde(default)]
    pub pruned: u64,
    /// How many of the shards are of accounts; what the others are follows from it.
    #[serde(default)]
    pub account_shards: u16,
    /// The shards, in the order of [`Layout`].
    pub shards: Vec<State>,
}

/// The two copies as they are on disk.
pub struct Copies {
    pub newest: Option<Superblock>,
    /// Which copies cannot be read.
    pub dead: Vec<usize>,
    /// Both copies are whole, and an interrupted write left them different.
    pub differ: bool,
}

/// What every format has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Superblock {
    pub fn totals(&self) -> Totals {
        Totals {
            accounts: self.accounts,
            minted: u128::from_le_bytes(self.minted),
            burned: u128::from_le_bytes(self.burned),
        }
    }

    /// Which shards there are.
    pub fn layout(&self) -> Layout {
        Layout::new(match self.format {
            FORMAT_2 => self.shards.len().saturating_sub(1) as u16,
            _ => self.account_shards,
        })
    }

    /// Makes it one of the present format, and says whether it was not. One of format 2 gets more shards,
    /// which are empty.
    pub fn convert(&mut self) -> bool {
        if self.format == FORMAT_2 {
            let layout = self.layout();
            self.account_shards = self.shards.len().saturating_sub(1) as u16;
            self.shards.resize(layout.shards(), State::default());
        }
        std::mem::replace(&mut self.format, FORMAT) != FORMAT
    }

    /// Reads both copies; the whole one of the higher generation counts.
    pub fn read(file: &Arc<dyn DiskFile>) -> Result<Copies, Error> {
        let size = file.size().map_err(Error::io("ledger"))?;
        let (mut whole, mut dead) = (Vec::new(), Vec::new());
        for copy in 0..2 {
            let mut bytes = vec![0; COPY];
            let offset = (copy * COPY) as u64;
            // The last copy may end where its content does.
            let len = size.saturating_sub(offset).min(COPY as u64) as usize;
            if len > 0 {
                file.read_at(&mut bytes[..len], offset)
                    .map_err(Error::io("ledger"))?;
            }
            match decode(&bytes)? {
                Some(block) => whole.push(block),
                None => dead.push(copy),
            }
        }
        let differ = matches!(&whole[..], [one, other] if one != other);
        let newest = whole.into_iter().max_by_key(|block| block.generation);
        Ok(Copies {
            newest,
            dead,
            differ,
        })
    }

    /// Fails if a file without a whole copy is not what an interrupted creation leaves, but somebody's own:
    /// that is not to be overwritten.
    pub fn refuse_others(file: &Arc<dyn DiskFile>) -> Result<(), Error> {
        let size = file.size().map_err(Error::io("ledger"))?;
        let mut head = vec![0; size.min(HEAD as u64) as usize];
        file.read_at(&mut head, 0).map_err(Error::io("ledger"))?;
        let ours = head.windows(FIRST.len()).any(|bytes| bytes == FIRST);
        match ours || head.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Error::Format(
                "its file `ledger` is something else, which is not overwritten".into(),
            )),
        }
    }

    /// Writes the next generation into both copies, durably.
    pub fn write(&mut self, file: &Arc<dyn DiskFile>) -> Result<(), Error> {
        self.generation += 1;
        [0, 1]
            .into_iter()
            .try_for_each(|copy| self.write_copy(file, copy))
    }

    /// Makes both copies the same again. Those that cannot be read are written first: the last whole
    /// one is not touched before there is another.
    pub fn repair(&self, file: &Arc<dyn DiskFile>, dead: &[usize]) -> Result<(), Error> {
        let others = (0..2).filter(|copy| !dead.contains(copy));
        dead.iter()
            .copied()
            .chain(others)
            .try_for_each(|copy| self.write_copy(file, copy))
    }

    fn write_copy(&self, file: &Arc<dyn DiskFile>, copy: usize) -> Result<(), Error> {
        let cbor = serde_cbor::to_vec(self).map_err(|error| Error::Format(error.to_string()))?;
        if cbor.len() > COPY - 36 {
            return Err(Error::Format("there are too many shards".into()));
        }
        let mut bytes = vec![0; COPY];
        bytes[32..36].copy_from_slice(&(cbor.len() as u32).to_le_bytes());
        bytes[36..36 + cbor.len()].copy_from_slice(&cbor);
        let hash = blake3::hash(&bytes[32..36 + cbor.len()]);
        bytes[..32].copy_from_slice(hash.as_bytes());
        let offset = (copy * COPY) as u64;
        let mut read_back = vec![0; COPY];
        file.write_at(&bytes, offset)
            .and_then(|()| file.sync())
            .and_then(|()| file.read_at(&mut read_back, offset))
            .and_then(|()| match read_back == bytes {
                true => Ok(()),
                false => Err(io::Error::other("what was written is not what is read")),
            })
            .map_err(Error::io("ledger"))
    }

    /// The encryption of the ledger's files under the user's key, and the secret of the keys' hash.
    pub fn keys(&self, key: Option<&Secret>) -> Result<(Encryption, [u8; 16]), Error> {
        match (self.data_keys.as_slice(), key) {
            ([], None) => Ok((Encryption::plain(), self.hash_secret)),
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
                Ok((
                    Encryption::encrypted(data),
                    secret[..16].try_into().unwrap(),
                ))
            }
        }
    }
}

/// The file and what was last written to it.
pub struct SuperblockFile {
    file: Arc<dyn DiskFile>,
    pub block: Superblock,
}

impl SuperblockFile {
    pub fn new(file: Arc<dyn DiskFile>, block: Superblock) -> Self {
        SuperblockFile { file, block }
    }

    pub fn write(&mut self) -> Result<(), Error> {
        self.block.write(&self.file)
    }

    /// Which copies cannot be read.
    pub fn dead_copies(&self) -> Result<Vec<usize>, Error> {
        Ok(Superblock::read(&self.file)?.dead)
    }
}

/// A copy's content; `None` if it is not whole.
fn decode(bytes: &[u8]) -> Result<Option<Superblock>, Error> {
    let len = u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    let Some(content) = bytes.get(32..36 + len) else {
        return Ok(None);
    };
    if blake3::hash(content).as_bytes()[..] != bytes[..32] {
        return Ok(None);
    }
    match serde_cbor::from_slice::<Version>(&content[4..]) {
        Ok(Version { format }) if !is_readable(format) => Err(Error::Format(format!(
            "its files are of format {format}, and this version reads formats {FORMAT_2} to {FORMAT}; \
             export the accounts with the version that wrote them, and import them into a new ledger"
        ))),
        _ => Ok(serde_cbor::from_slice(&content[4..]).ok()),
    }
}

/// Whether files of a format, a snapshot for example, can be read.
pub fn is_readable(format: u32) -> bool {
    [FORMAT_2, FORMAT_3, FORMAT].contains(&format)
}

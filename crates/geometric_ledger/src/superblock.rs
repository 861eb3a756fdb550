//! The file `ledger`: what the ledger is, and the state that its last checkpoint left.
//!
//! Two copies of 64 KiB are written in turn, so that one is whole at any time; the one of the higher
//! generation counts. A copy is a BLAKE3 hash, a length, and CBOR.

use crate::disk::DiskFile;
use crate::error::Error;
use crate::record::Totals;
use crate::shard::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The format of all files of a ledger. A later version of the program opens every earlier one.
pub const FORMAT: u32 = 1;
const COPY: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Superblock {
    pub format: u32,
    pub generation: u64,
    pub id: [u8; 16],
    /// The secret of the keys' hash; of an encrypted ledger it is derived from the first data key.
    pub hash_secret: [u8; 16],
    /// Data keys, each from its epoch on, sealed under the user's key.
    pub data_keys: Vec<(u32, Vec<u8>)>,
    /// The epoch of the last opening for writing.
    pub epoch: u32,
    /// Whether nothing was written after the checkpoint.
    pub clean: bool,
    pub checkpoint: u64,
    /// Whether pages of this checkpoint may still have to be copied from the journal.
    pub journal: bool,
    pub sequence: u64,
    /// Where in the write-ahead log what follows the checkpoint begins.
    pub position: u64,
    pub time: i64,
    /// No earlier state than after this batch can be asked for.
    pub oldest: u64,
    pub accounts: u64,
    pub minted: [u8; 16],
    pub burned: [u8; 16],
    /// The root of the batches so far.
    pub root: [u8; 32],
    pub shards: Vec<State>,
}

impl Superblock {
    pub fn totals(&self) -> Totals {
        Totals {
            accounts: self.accounts,
            minted: u128::from_le_bytes(self.minted),
            burned: u128::from_le_bytes(self.burned),
        }
    }

    /// The newest whole copy; `None` if the file is empty.
    pub fn read(file: &Arc<dyn DiskFile>) -> Result<Option<Self>, Error> {
        let io = Error::io("ledger");
        let len = match file.size() {
            Ok(len) => len,
            Err(error) => return Err(io(error)),
        };
        if len == 0 {
            return Ok(None);
        }
        let copies = [0, COPY as u64].map(|offset| Self::copy(file, offset));
        let newest = copies
            .into_iter()
            .flatten()
            .max_by_key(|copy| copy.generation);
        match newest {
            Some(block) if block.format != FORMAT => {
                Err(Error::Format(format!("its format is {}", block.format)))
            }
            Some(block) => Ok(Some(block)),
            // A ledger that was being created has nothing else yet.
            None if len < 2 * COPY as u64 => Ok(None),
            None => Err(Error::damaged("ledger", "both copies", "no copy is whole")),
        }
    }

    fn copy(file: &Arc<dyn DiskFile>, offset: u64) -> Option<Self> {
        let mut bytes = vec![0; COPY];
        file.read_at(&mut bytes, offset).ok()?;
        decode(&bytes)
    }

    /// Writes the next generation in place of the older copy, durably.
    pub fn write(&mut self, file: &Arc<dyn DiskFile>) -> Result<(), Error> {
        self.generation += 1;
        let cbor = serde_cbor::to_vec(self).map_err(|error| Error::Format(error.to_string()))?;
        let mut bytes = vec![0; COPY];
        if cbor.len() > COPY - 36 {
            return Err(Error::Format("there are too many shards".into()));
        }
        bytes[32..36].copy_from_slice(&(cbor.len() as u32).to_le_bytes());
        bytes[36..36 + cbor.len()].copy_from_slice(&cbor);
        let hash = blake3::hash(&bytes[32..36 + cbor.len()]);
        bytes[..32].copy_from_slice(hash.as_bytes());
        let offset = self.generation % 2 * COPY as u64;
        file.write_at(&bytes, offset)
            .and_then(|()| file.sync())
            .map_err(Error::io("ledger"))
    }
}

fn decode(bytes: &[u8]) -> Option<Superblock> {
    let len = u32::from_le_bytes(bytes.get(32..36)?.try_into().unwrap()) as usize;
    let content = bytes.get(32..36usize.checked_add(len)?)?;
    if blake3::hash(content).as_bytes()[..] != bytes[..32] {
        return None;
    }
    serde_cbor::from_slice(&content[4..]).ok()
}

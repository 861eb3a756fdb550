//! The file of a snapshot: a header (CBOR), then blocks of at most a mebibyte, each with a tag and a
//! number. An empty block ends a run of blocks.

use crate::error::Error;
use crate::storage::encryption::{Encryption, Nonce, Purpose, Tag};
use crate::storage::superblock::is_readable;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"GLSNAP1\n";
const BLOCK: usize = 1 << 20;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub format: u32,
    /// The ledger's random name.
    pub ledger: [u8; 16],
    /// The snapshot it adds to, by its sequence; 0 for a full one.
    pub base: u64,
    /// The batch it was taken after.
    pub sequence: u64,
    /// The root over all batches by then.
    pub root: [u8; 32],
    /// How many of the first batches it does not have, because they were pruned.
    #[serde(default)]
    pub pruned: u64,
    /// The hashes of their frontier.
    #[serde(default)]
    pub(crate) frontier: Vec<u8>,
    pub(crate) salt: [u8; 32],
    pub(crate) data_keys: Vec<(u32, Vec<u8>)>,
}

/// A snapshot being written.
pub struct SnapshotWriter<'a> {
    out: &'a mut dyn Write,
    encryption: Encryption,
    number: u64,
    block: Vec<u8>,
    name: &'a str,
}

impl<'a> SnapshotWriter<'a> {
    pub fn create(
        out: &'a mut dyn Write,
        name: &'a str,
        info: &SnapshotInfo,
        encryption: Encryption,
    ) -> Result<Self, Error> {
        let header =
            serde_cbor::to_vec(info).map_err(|error| Error::Snapshot(error.to_string()))?;
        let mut blocks = SnapshotWriter {
            out,
            encryption,
            number: 0,
            block: Vec::with_capacity(BLOCK),
            name,
        };
        let hash = blake3::hash(&header);
        for bytes in [
            &MAGIC[..],
            &(header.len() as u32).to_le_bytes(),
            &header,
            hash.as_bytes(),
        ] {
            blocks.write(bytes)?;
        }
        Ok(blocks)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::io(self.name))
    }

    pub fn push(
        &mut self,
        entry: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        entry(&mut self.block)?;
        match self.block.len() >= BLOCK - 256 {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut block = std::mem::take(&mut self.block);
        let tag = self.encryption.encrypt(
            Purpose::Snapshot,
            nonce(self.number),
            &number(self.number),
            &mut block,
        );
        self.number += 1;
        self.write(&(block.len() as u32).to_le_bytes())?;
        self.write(&tag)?;
        self.write(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    /// Ends a run of blocks by an empty one.
    pub fn end(&mut self) -> Result<(), Error> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        self.flush()
    }

    /// Flushes what is behind, which fails if nobody takes it any more.
    pub fn heartbeat(&mut self) -> Result<(), Error> {
        self.out.flush().map_err(Error::io(self.name))
    }

    pub fn finish(self) -> Result<(), Error> {
        self.out.flush().map_err(Error::io(self.name))
    }
}

/// A snapshot being read.
pub struct SnapshotReader {
    file: BufReader<File>,
    encryption: Encryption,
    number: u64,
    bytes: u64,
    name: String,
}

impl SnapshotReader {
    pub fn new(file: BufReader<File>, encryption: Encryption, name: String) -> Self {
        SnapshotReader {
            file,
            encryption,
            number: 0,
            bytes: 0,
            name,
        }
    }

    /// How many bytes of blocks were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn damaged(&self, what: &str) -> Error {
        Error::damaged(&self.name, format!("block {}", self.number), what)
    }

    /// The next block of a run; `None` at its end.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let cut = |_| {
            Error::damaged(
                &self.name,
                format!("block {}", self.number),
                "the file ends here",
            )
        };
        let (mut len, mut tag): ([u8; 4], Tag) = Default::default();
        self.file.read_exact(&mut len).map_err(cut)?;
        self.file.read_exact(&mut tag).map_err(cut)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > BLOCK {
            return Err(self.damaged("it is too long"));
        }
        let mut block = vec![0; len];
        self.file.read_exact(&mut block).map_err(cut)?;
        if !self.encryption.decrypt(
            Purpose::Snapshot,
            nonce(self.number),
            &number(self.number),
            &mut block,
            &tag,
        ) {
            return Err(self.damaged("its checksum is wrong"));
        }
        self.number += 1;
        self.bytes += (4 + tag.len() + len) as u64;
        Ok((!block.is_empty()).then_some(block))
    }
}

fn nonce(number: u64) -> Nonce {
    Nonce {
        epoch: 0,
        major: number,
        minor: 0,
    }
}

fn number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// What a snapshot is of, and its file behind the header.
///
/// # Errors
/// [`Error::Snapshot`] if it is no snapshot.
pub fn open(path: &Path) -> Result<(SnapshotInfo, BufReader<File>), Error> {
    let name = path.display().to_string();
    let no = |what: &str| Error::Snapshot(format!("{name} is no snapshot: {what}"));
    let mut file = BufReader::new(File::open(path).map_err(Error::io(&name))?);
    let mut head = [0; 12];
    file.read_exact(&mut head)
        .map_err(|_| no("it is too short"))?;
    let len = u32::from_le_bytes(head[8..].try_into().unwrap()) as usize;
    if &head[..8] != MAGIC || len > BLOCK {
        return Err(no("it begins otherwise"));
    }
    let (mut header, mut hash) = (vec![0; len], [0; 32]);
    file.read_exact(&mut header)
        .map_err(|_| no("it is too short"))?;
    file.read_exact(&mut hash)
        .map_err(|_| no("it is too short"))?;
    if blake3::hash(&header) != hash {
        return Err(no("its header is damaged"));
    }
    let info: SnapshotInfo =
        serde_cbor::from_slice(&header).map_err(|error| no(&error.to_string()))?;
    match is_readable(info.format) {
        true => Ok((info, file)),
        false => {
            let format = info.format;
            Err(Error::Format(format!("the snapshot's format is {format}")))
        }
    }
}

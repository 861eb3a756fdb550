//! Snapshots: the ledger as of one batch, in a file; and ledgers made from them.
//!
//! A file is a header (CBOR), then blocks of at most a mebibyte, each sealed and numbered, then an
//! empty block. Blocks hold batches first, slots after. An *incremental* snapshot has what came
//! after another one. A ledger is restored beside the path it will have and renamed when it is
//! whole, so restoring may end anywhere, and is done again from the start.

use crate::batches::Batch;
use crate::disk::Directory;
use crate::error::Error;
use crate::ledger::{Core, GeometricLedger, keys};
use crate::options::Options;
use crate::record::{LONGEST_UPDATE, TOTALS, Totals, put_update, take_update};
use crate::seal::{Place, Purpose, Seal, Secret, Tag};
use crate::shard::Found;
use crate::slot::Slot;
use crate::superblock::{FORMAT, Superblock};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MAGIC: &[u8; 8] = b"GLSNAP1\n";
const BLOCK: usize = 1 << 20;
/// Bytes of a batch in a block.
const BATCH: usize = 24 + TOTALS;

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
    salt: [u8; 32],
    data_keys: Vec<(u32, Vec<u8>)>,
}

impl GeometricLedger {
    /// Writes a full snapshot into the ledger's own directory, as `snapshots/<sequence>`.
    ///
    /// # Errors
    /// As [`GeometricLedger::snapshot_to`].
    pub fn snapshot(&self) -> Result<(), Error> {
        let directory = self.directory.as_ref();
        let no_directory = || Error::Snapshot("the ledger is in no directory; name a file".into());
        let path = directory.ok_or_else(no_directory)?.join("snapshots");
        fs::create_dir_all(&path).map_err(Error::io(path.display().to_string()))?;
        let sequence = self.core.visible.load(Ordering::Acquire);
        self.snapshot_to(path.join(format!("{sequence:020}")), None)?;
        Ok(())
    }

    /// Writes a snapshot to a file while others write batches: all there is, or what came after the
    /// snapshot of sequence `since`.
    ///
    /// # Errors
    /// [`Error::History`] if `since` is too long ago to tell what was deleted; then a full one is
    /// needed. [`Error::Damaged`] if an account cannot be read. [`Error::Snapshot`] if another one is
    /// being written to the same path. No file is left then.
    pub fn snapshot_to(
        &self,
        path: impl AsRef<Path>,
        since: Option<u64>,
    ) -> Result<SnapshotInfo, Error> {
        let path = path.as_ref();
        let _alone = Alone::at(path)?;
        let partial = beside(path, "partial");
        put_in_place(&partial, path, self.snapshot_file(&partial, since))
    }

    fn snapshot_file(&self, path: &Path, since: Option<u64>) -> Result<SnapshotInfo, Error> {
        let name = path.display().to_string();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io(&name))?;
        let mut file = BufWriter::new(file);
        let info = self.write_snapshot(&mut file, &name, since.unwrap_or(0))?;
        file.get_ref().sync_all().map_err(Error::io(&name))?;
        Ok(info)
    }

    /// Writes a snapshot to `out`, which errors call `name`.
    pub(crate) fn write_snapshot(
        &self,
        out: &mut dyn Write,
        name: &str,
        base: u64,
    ) -> Result<SnapshotInfo, Error> {
        let core = &self.core;
        let view = self.view();
        let oldest = core.oldest.load(Ordering::Acquire);
        if base != 0 && !(oldest..=view.sequence()).contains(&base) {
            return Err(Error::History {
                asked: base,
                oldest,
                newest: view.sequence(),
            });
        }
        let size = merkle_tree::TreeSize::new(view.sequence())
            .map_err(|error| Error::Tree(error.to_string()))?;
        let info = {
            let checkpointer = core.checkpointer.lock().unwrap();
            SnapshotInfo {
                format: FORMAT,
                ledger: checkpointer.block.id,
                base,
                sequence: view.sequence(),
                root: *core.batches.root_at(size)?.as_bytes(),
                salt: Secret::random()?.0,
                data_keys: checkpointer.block.data_keys.clone(),
            }
        };
        let mut blocks = Blocks::create(out, name, &info, core.seal.salted(&info.salt))?;
        for sequence in base + 1..=view.sequence() {
            let batch = core.batches.get(sequence)?;
            let missing = || Error::damaged("batches", sequence, "the row is missing");
            blocks.push(|out| push_batch(out, &batch.ok_or_else(missing)?))?;
        }
        blocks.end()?;
        for slot in view.slots() {
            let slot = slot?;
            if slot.sequence() > base {
                blocks.push(|out| {
                    out.extend(slot.sequence().to_le_bytes());
                    let mut bytes = [0; LONGEST_UPDATE];
                    let len = put_update(&mut bytes, &slot.key(), slot.kind(), slot.words());
                    out.extend(&bytes[..len]);
                    Ok(())
                })?;
            }
        }
        blocks.end()?;
        blocks.finish()?;
        Ok(info)
    }

    /// Makes a ledger at `path`, where there is nothing yet, from a full snapshot and those that
    /// were taken after it, in order. It has all accounts, batches and proofs, and no history of
    /// accounts. An encrypted snapshot needs its ledger's key in `options`, which the new one gets.
    ///
    /// # Errors
    /// [`Error::Snapshot`] or [`Error::Damaged`] if the files do not make a ledger. Nothing is at
    /// `path` then.
    pub fn restore(
        path: impl AsRef<Path>,
        snapshots: &[PathBuf],
        options: Options,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = || path.display().to_string();
        let _alone = Alone::at(path)?;
        if path.exists() {
            return Err(Error::Snapshot(format!(
                "there is something at {} already",
                name()
            )));
        }
        let partial = beside(path, "restoring");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io(partial.display().to_string()))?;
        }
        let directory = Directory::open(&partial)?;
        let ledger = options.clone().open_on(Arc::new(directory))?;
        let mut last: Option<SnapshotInfo> = None;
        for file in snapshots {
            let info = ledger
                .core
                .load(file, last.as_ref(), options.key.as_ref())?;
            last = Some(info);
        }
        let last = last.ok_or_else(|| Error::Snapshot("no snapshot was given".into()))?;
        if ledger.core.batches.root().1.as_bytes() != &last.root {
            return Err(Error::Snapshot(
                "the batches do not lead to the snapshot's root".into(),
            ));
        }
        ledger.core.oldest.store(last.sequence, Ordering::Release);
        ledger.core.checkpointer.lock().unwrap().block.oldest = last.sequence;
        ledger.core.visible.store(last.sequence, Ordering::Release);
        ledger.audit()?;
        ledger.close()?;
        fs::rename(&partial, path).map_err(Error::io(name()))?;
        sync_parent(path)?;
        options.open(path)
    }

    /// What a snapshot is of.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if it is no snapshot.
    pub fn snapshot_info(path: impl AsRef<Path>) -> Result<SnapshotInfo, Error> {
        Ok(open(path.as_ref())?.0)
    }
}

impl Core {
    /// Adds what a snapshot has to a ledger that has what it is based on.
    fn load(
        &self,
        path: &Path,
        last: Option<&SnapshotInfo>,
        key: Option<&Secret>,
    ) -> Result<SnapshotInfo, Error> {
        let (info, file) = open(path)?;
        let name = path.display();
        match last {
            None if info.base != 0 => {
                let what = format!(
                    "{name} adds to the snapshot of batch {}; give that one first",
                    info.base
                );
                return Err(Error::Snapshot(what));
            }
            Some(last) if last.ledger != info.ledger || last.sequence != info.base => {
                return Err(Error::Snapshot(format!(
                    "{name} does not add to the one before"
                )));
            }
            _ => {}
        }
        let source = Superblock {
            data_keys: info.data_keys.clone(),
            ..self.checkpointer.lock().unwrap().block.clone()
        };
        let seal = keys(&source, key)?.0.salted(&info.salt);
        let mut blocks = Reading {
            file,
            seal,
            number: 0,
            name: name.to_string(),
        };
        let mut writer = self.writer.lock().unwrap();
        let epoch = writer.epoch;
        while let Some(block) = blocks.next()? {
            let mut rest = &block[..];
            while !rest.is_empty() {
                let batch = take_batch(&mut rest)
                    .ok_or_else(|| blocks.damaged("a batch cannot be read"))?;
                if batch.sequence != writer.sequence + 1 {
                    return Err(blocks.damaged("a batch is missing"));
                }
                self.batches.push(&batch, epoch)?;
                (writer.sequence, writer.time, writer.totals) =
                    (batch.sequence, batch.time, batch.totals);
            }
        }
        let mut item = 0;
        while let Some(block) = blocks.next()? {
            let mut rest = &block[..];
            while !rest.is_empty() {
                let slot = take_slot(&mut rest, epoch, item);
                let slot = slot.ok_or_else(|| blocks.damaged("an account cannot be read"))?;
                item += 1;
                let hash = self.hash_of(&slot.key(), slot.kind());
                let shard = self.shard(hash);
                let words = slot.seal(&self.seal);
                let mut found = Found::default();
                match shard.find(hash, &slot.key(), &self.seal, &mut found)?.0 {
                    true => shard.put(found.number, &words),
                    false => {
                        shard.reserve(1)?;
                        shard.add(&mut shard.lock(), hash.tag(), &words)?;
                    }
                }
            }
        }
        if writer.sequence != info.sequence {
            return Err(blocks.damaged("batches are missing"));
        }
        Ok(info)
    }
}

fn push_batch(out: &mut Vec<u8>, batch: &Batch) -> Result<(), Error> {
    out.extend(batch.sequence.to_le_bytes());
    out.extend(batch.time.to_le_bytes());
    out.extend(batch.updates.to_le_bytes());
    out.extend(batch.totals.encode(&batch.digest));
    Ok(())
}

fn take_batch(bytes: &mut &[u8]) -> Option<Batch> {
    let (head, rest) = bytes.split_at_checked(BATCH)?;
    *bytes = rest;
    let mut numbers = [0; 3];
    crate::slot::read_words(head, &mut numbers);
    let (totals, digest) = Totals::decode(&head[24..])?;
    Some(Batch {
        sequence: numbers[0],
        time: numbers[1] as i64,
        digest,
        updates: numbers[2],
        totals,
        position: 0,
    })
}

fn take_slot(bytes: &mut &[u8], epoch: u32, item: u32) -> Option<Slot> {
    let (sequence, mut rest) = bytes.split_first_chunk::<8>()?;
    let (key, kind, words) = take_update(&mut rest)?;
    *bytes = rest;
    let mut slot = Slot::new(&key, &words, kind);
    slot.commit(u64::from_le_bytes(*sequence), 0, epoch, item);
    Some(slot)
}

/// The right to write something at a path, which one process and thread has at a time: a lock on a
/// file beside it, which goes with the right.
pub(crate) struct Alone {
    lock: PathBuf,
    _file: File,
}

impl Alone {
    pub fn at(path: &Path) -> Result<Self, Error> {
        let lock = beside(path, "lock");
        let io = || Error::io(lock.display().to_string());
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&lock)
                .map_err(io())?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let what = format!("something else is being written to {}", path.display());
                    return Err(Error::Snapshot(what));
                }
                Err(error) => return Err(io()(error.into())),
            }
            // Who had it before may have removed the file after it was opened here.
            let ours = file.metadata().map_err(io())?.ino();
            if fs::metadata(&lock).is_ok_and(|there| there.ino() == ours) {
                return Ok(Alone { lock, _file: file });
            }
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.lock);
    }
}

/// A snapshot being written.
struct Blocks<'a> {
    out: &'a mut dyn Write,
    seal: Seal,
    number: u64,
    block: Vec<u8>,
    name: &'a str,
}

impl<'a> Blocks<'a> {
    fn create(
        out: &'a mut dyn Write,
        name: &'a str,
        info: &SnapshotInfo,
        seal: Seal,
    ) -> Result<Self, Error> {
        let header =
            serde_cbor::to_vec(info).map_err(|error| Error::Snapshot(error.to_string()))?;
        let mut blocks = Blocks {
            out,
            seal,
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

    fn push(&mut self, entry: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
        entry(&mut self.block)?;
        match self.block.len() >= BLOCK - 256 {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut block = std::mem::take(&mut self.block);
        let tag = self.seal.seal(
            Purpose::Snapshot,
            place(self.number),
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
    fn end(&mut self) -> Result<(), Error> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        self.flush()
    }

    fn finish(self) -> Result<(), Error> {
        self.out.flush().map_err(Error::io(self.name))
    }
}

/// A snapshot being read.
struct Reading {
    file: BufReader<File>,
    seal: Seal,
    number: u64,
    name: String,
}

impl Reading {
    fn damaged(&self, what: &str) -> Error {
        Error::damaged(&self.name, format!("block {}", self.number), what)
    }

    /// The next block of a run; `None` at its end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
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
        if !self.seal.open(
            Purpose::Snapshot,
            place(self.number),
            &number(self.number),
            &mut block,
            &tag,
        ) {
            return Err(self.damaged("its checksum is wrong"));
        }
        self.number += 1;
        Ok((!block.is_empty()).then_some(block))
    }
}

fn open(path: &Path) -> Result<(SnapshotInfo, BufReader<File>), Error> {
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
    match info.format {
        FORMAT => Ok((info, file)),
        format => Err(Error::Format(format!("the snapshot's format is {format}"))),
    }
}

fn place(number: u64) -> Place {
    Place {
        epoch: 0,
        major: number,
        minor: 0,
    }
}

fn number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// Gives a file that was written the name it is to have; removes it, if it could not be written.
pub(crate) fn put_in_place<T>(
    partial: &Path,
    path: &Path,
    written: Result<T, Error>,
) -> Result<T, Error> {
    let placed = written.and_then(|written| {
        fs::rename(partial, path).map_err(Error::io(path.display().to_string()))?;
        sync_parent(path)?;
        Ok(written)
    });
    placed.inspect_err(|_| drop(fs::remove_file(partial)))
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io(parent.display().to_string()))
}

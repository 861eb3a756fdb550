//! Snapshots: the ledger as of one batch, in a file; and ledgers made from them.
//!
//! A file holds batches first, slots after; batches that were pruned are left out, and the frontier that is left
//! of them is in its header. An *incremental* snapshot has what came after another one. A ledger is restored
//! beside the path it will have and renamed when it is whole, so restoring may end anywhere, and is done
//! again from the start.

use crate::engine::state::Core;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::options::Options;
use crate::storage::batch::Batch;
use crate::storage::changes::{LONGEST_UPDATE, put_update, take_update};
use crate::storage::disk::Directory;
use crate::storage::encryption::Secret;
use crate::storage::frontier_file;
use crate::storage::record::{TOTALS, Totals};
use crate::storage::shard::Found;
use crate::storage::slot::Slot;
use crate::storage::snapshot_file::{self, SnapshotInfo, SnapshotReader, SnapshotWriter};
use crate::storage::superblock::{FORMAT, Superblock};
use merkle_tree::Frontier;
use rustix::fs::FlockOperation;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Slots that are read before whoever writes the snapshot elsewhere is asked whether it goes on.
const HEARTBEAT: usize = 16_384;
/// Bytes of a batch in a block.
const BATCH: usize = 24 + TOTALS;

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
        let _alone = PathLock::at(path)?;
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
        let held = core.batches.hold();
        let frontier = match base {
            0 => held.frontier.clone(),
            _ => Frontier::default(),
        };
        let info = {
            let superblock = core.superblock.lock().unwrap();
            SnapshotInfo {
                format: FORMAT,
                ledger: superblock.block.id,
                base,
                sequence: view.sequence(),
                root: *core.batches.root_at(size)?.as_bytes(),
                pruned: frontier.size().get(),
                frontier: frontier_file::hashes(&frontier),
                salt: Secret::random()?.0,
                data_keys: superblock.block.data_keys.clone(),
            }
        };
        let mut blocks =
            SnapshotWriter::create(out, name, &info, core.encryption.salted(&info.salt))?;
        for sequence in base.max(info.pruned) + 1..=view.sequence() {
            let batch = core.batches.get(sequence)?;
            let missing = || Error::damaged("batches", sequence, "the row is missing");
            blocks.push(|out| push_batch(out, &batch.ok_or_else(missing)?))?;
        }
        drop(held);
        blocks.end()?;
        for (number, slot) in view.slots().enumerate() {
            if number % HEARTBEAT == 0 {
                blocks.heartbeat()?;
            }
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
        Self::restore_with(path, snapshots, options, |_, _| true)
    }

    /// As [`GeometricLedger::restore`]. `progress` is told how many of the files' bytes are read; false stops
    /// it.
    ///
    /// # Errors
    /// As [`GeometricLedger::restore`]; [`Error::Interrupted`] if it was told to stop.
    pub fn restore_with(
        path: impl AsRef<Path>,
        snapshots: &[PathBuf],
        options: Options,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = || path.display().to_string();
        let _alone = PathLock::at(path)?;
        if path.exists() {
            return Err(Error::Snapshot(format!(
                "there is something at {} already",
                name()
            )));
        }
        let partial = beside(path, "restoring");
        let remove = || match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(partial.display().to_string())(error))
            }
            _ => Ok(()),
        };
        remove()?;
        restore_at(&partial, snapshots, &options, &mut progress).inspect_err(|_| {
            // What cannot be removed now is removed the next time.
            let _ = remove();
        })?;
        fs::rename(&partial, path).map_err(Error::io(name()))?;
        sync_parent(path)?;
        options.open(path)
    }

    /// What a snapshot is of.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if it is no snapshot.
    pub fn snapshot_info(path: impl AsRef<Path>) -> Result<SnapshotInfo, Error> {
        Ok(snapshot_file::open(path.as_ref())?.0)
    }
}

/// Makes a ledger in a directory that is not there yet.
fn restore_at(
    path: &Path,
    snapshots: &[PathBuf],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<(), Error> {
    let bytes = |file: &PathBuf| fs::metadata(file).map_or(0, |file| file.len());
    let total = snapshots.iter().map(bytes).sum();
    // Nothing of what has come so far is to be acted upon: no pending transfer ends, for example.
    let restoring = Options {
        following: true,
        ..options.clone()
    };
    let ledger = restoring.open_on(Arc::new(Directory::open(path)?))?;
    let (mut last, mut done) = (None, 0);
    for file in snapshots {
        let mut read = |bytes: u64| match progress(done + bytes, total) {
            true => Ok(()),
            false => Err(Error::Interrupted),
        };
        let key = options.key.as_ref();
        last = Some(ledger.core.load(file, last.as_ref(), key, &mut read)?);
        done += bytes(file);
    }
    let last = last.ok_or_else(|| Error::Snapshot("no snapshot was given".into()))?;
    if ledger.core.batches.root().1.as_bytes() != &last.root {
        return Err(Error::Snapshot(
            "the batches do not lead to the snapshot's root".into(),
        ));
    }
    ledger.core.oldest.store(last.sequence, Ordering::Release);
    ledger.core.superblock.lock().unwrap().block.oldest = last.sequence;
    ledger.core.visible.store(last.sequence, Ordering::Release);
    ledger.audit()?;
    ledger.close()
}

impl Core {
    /// Adds what a snapshot has to a ledger that has what it is based on.
    fn load(
        &self,
        path: &Path,
        last: Option<&SnapshotInfo>,
        key: Option<&Secret>,
        read: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<SnapshotInfo, Error> {
        let (info, file) = snapshot_file::open(path)?;
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
            ..self.superblock.lock().unwrap().block.clone()
        };
        let encryption = source.keys(key)?.0.salted(&info.salt);
        let mut blocks = SnapshotReader::new(file, encryption, name.to_string());
        let mut writer = self.writer.lock().unwrap();
        let epoch = writer.epoch;
        if last.is_none() && info.pruned > 0 {
            let frontier = frontier_file::of_hashes(info.pruned, &info.frontier);
            let frontier = frontier.ok_or_else(|| blocks.damaged("its frontier is none"))?;
            self.batches.begin_at(&frontier)?;
            writer.sequence = info.pruned;
        }
        while let Some(block) = blocks.next()? {
            read(blocks.bytes())?;
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
            read(blocks.bytes())?;
            let mut rest = &block[..];
            while !rest.is_empty() {
                let slot = take_slot(&mut rest, epoch, item);
                let slot = slot.ok_or_else(|| blocks.damaged("an account cannot be read"))?;
                item += 1;
                let hash = self.hash_of(&slot.key(), slot.kind());
                let shard = self.shard(hash);
                let words = slot.encode(&self.encryption);
                let mut found = Found::default();
                match shard
                    .find(hash, &slot.key(), &self.encryption, &mut found)?
                    .0
                {
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
    crate::storage::slot::read_words(head, &mut numbers);
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
pub(crate) struct PathLock {
    lock: PathBuf,
    _file: File,
}

impl PathLock {
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
                return Ok(PathLock { lock, _file: file });
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.lock);
    }
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

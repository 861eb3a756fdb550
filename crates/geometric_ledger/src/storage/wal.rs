//! The write-ahead log: records one after another, in segment files that each begin where the one
//! before ends. A position is a number of bytes since the log began, and never comes again.
//!
//! The last record of a segment says that the next segment exists, and how long it is; the superblock
//! says so of the segment that holds the last checkpoint's position. So a segment that is gone is
//! noticed, although nothing that was in it can be read.
//!
//! Records are appended by one thread at a time. Any number may wait for them to be on disk: one of
//! them syncs for all. The next segment is made ready before it is needed, its blocks written, so
//! that a sync has no file system metadata to write.

use crate::error::Error;
use crate::storage::disk::Disk;
use crate::storage::encryption::Encryption;
use crate::storage::group_sync::GroupSync;
use crate::storage::record::{CHUNK, HEADER, Header, RecordKind};
use crate::storage::segments::Segments;
use crate::workers;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub struct Wal {
    pub segments: Segments,
    /// Where the next record goes, and up to where records are on disk.
    appended: AtomicU64,
    durable: AtomicU64,
    syncing: GroupSync,
    stopped: AtomicBool,
    reason: Mutex<String>,
    /// Records that could not be written since the log was opened.
    failures: AtomicU64,
    /// Where the last record ends that has no sequence of its own, and is missed by nobody.
    unnumbered: AtomicU64,
    pub synced_bytes: AtomicU64,
    pub syncs: AtomicU64,
}

/// What comes next in a log.
pub enum Next {
    Record(Header, Vec<u8>),
    /// Nothing that was ever acknowledged.
    End,
}

impl Wal {
    /// Opens the log of a ledger, or begins one. Where it ends is not known before it was read.
    pub fn open(disk: Arc<dyn Disk>, segment_size: u64) -> Result<Self, Error> {
        Ok(Wal {
            segments: Segments::open(disk, segment_size)?,
            appended: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            syncing: GroupSync::default(),
            stopped: AtomicBool::new(false),
            reason: Mutex::default(),
            failures: AtomicU64::new(0),
            unnumbered: AtomicU64::new(0),
            synced_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        })
    }

    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Ends the log at `position`, where the next record goes. It is known to be on disk up to
    /// `durable`.
    pub fn end_at(&self, position: u64, durable: u64) {
        self.appended.store(position, Ordering::Release);
        self.durable.store(durable, Ordering::Release);
    }

    /// Where the oldest record that is kept may begin.
    pub fn oldest(&self) -> u64 {
        let starts = self.segments.starts();
        starts.first().copied().unwrap_or_else(|| self.appended())
    }

    /// Makes the segment after the present one ready.
    pub fn prepare_next(&self) -> Result<(), Error> {
        self.segments.prepare_next(|| self.segment_end())
    }

    /// Where the segment ends that the next record goes to.
    pub fn segment_end(&self) -> u64 {
        let position = self.appended();
        self.segments
            .at(position)
            .map_or(position, |segment| segment.end())
    }

    /// As much as there is of `longest` bytes at a position.
    pub fn read_some(&self, position: u64, longest: usize) -> io::Result<Vec<u8>> {
        let segment = self.segments.at(position).ok_or(io::ErrorKind::NotFound)?;
        let mut buffer = vec![0; longest.min((segment.end() - position) as usize)];
        segment
            .file
            .read_at(&mut buffer, position - segment.start)?;
        Ok(buffer)
    }

    /// The record at a position, or at the start of the segment after it, if it continues the log:
    /// a batch has the sequence after `sequence`, and no epoch is before `epoch`.
    pub fn continues(
        &self,
        position: u64,
        sequence: u64,
        epoch: u32,
        encryption: &Encryption,
    ) -> Result<Next, Error> {
        let following = self
            .segments
            .at(position)
            .map_or(position, |segment| segment.end());
        for at in [position, following] {
            if let Some((header, body)) = self.record_at(at, encryption)? {
                let expected = sequence + u64::from(header.kind == RecordKind::Batch);
                if header.sequence == expected && header.epoch >= epoch {
                    if header.kind == RecordKind::Continue {
                        self.segments.require(self.after(&header), header.updates)?;
                    }
                    return Ok(Next::Record(header, body));
                }
            }
        }
        Ok(Next::End)
    }

    /// As [`Wal::continues`], and sees to it that the log may end where it does.
    ///
    /// # Errors
    /// [`Error::Damaged`] if there is no record, though one that was acknowledged must have been.
    pub fn next(
        &self,
        position: u64,
        sequence: u64,
        epoch: u32,
        encryption: &Encryption,
    ) -> Result<Next, Error> {
        let next = self.continues(position, sequence, epoch, encryption)?;
        if matches!(next, Next::Record(..)) {
            return Ok(next);
        }
        match self.acknowledged_after(position, epoch)? {
            Some(later) => Err(Error::damaged(
                "the write-ahead log",
                format!("position {position}"),
                format!("there is no whole record, though the one at {later} says there was"),
            )),
            None => Ok(Next::End),
        }
    }

    /// Where the log goes on after a record.
    pub fn after(&self, header: &Header) -> u64 {
        match header.kind {
            RecordKind::Continue => self
                .segments
                .end_of(header.position)
                .unwrap_or(header.end()),
            _ => header.end(),
        }
    }

    /// The start and the length of the segment that the next record goes to.
    pub fn present(&self) -> Option<(u64, u64)> {
        let segment = self.segments.at(self.appended())?;
        Some((segment.start, segment.len))
    }

    /// The whole, intact record at a position.
    pub fn record_at(
        &self,
        position: u64,
        encryption: &Encryption,
    ) -> Result<Option<(Header, Vec<u8>)>, Error> {
        let Some(segment) = self.segments.at(position) else {
            return Ok(None);
        };
        let offset = position - segment.start;
        let mut head = [0; HEADER];
        if offset + HEADER as u64 > segment.len {
            return Ok(None);
        }
        segment
            .file
            .read_at(&mut head, offset)
            .map_err(Error::io(&segment.name))?;
        let Some(header) = Header::decode(&head) else {
            return Ok(None);
        };
        if header.position != position || header.body > segment.len || header.end() > segment.end()
        {
            return Ok(None);
        }
        let mut body = vec![0; header.stored() as usize];
        let at = offset + HEADER as u64;
        segment
            .file
            .read_at(&mut body, at)
            .map_err(Error::io(&segment.name))?;
        Ok(header.open(encryption, &mut body).then_some((header, body)))
    }

    /// The header of the record at a position, or at the start of the segment after it. Its body may not be
    /// whole.
    pub fn header_at(&self, position: u64) -> Result<Option<Header>, Error> {
        let Some(segment) = self.segments.at(position) else {
            return Ok(None);
        };
        for at in [position, segment.end()] {
            let Some(segment) = self.segments.at(at) else {
                continue;
            };
            let mut head = [0; HEADER];
            let offset = at - segment.start;
            if offset + HEADER as u64 > segment.len {
                continue;
            }
            let read = segment.file.read_at(&mut head, offset);
            read.map_err(Error::io(&segment.name))?;
            let header = Header::decode(&head).filter(|header| header.position == at);
            if header.is_some() {
                return Ok(header);
            }
        }
        Ok(None)
    }

    /// As much as there is of `longest` bytes at position `at`, of the body of the encrypted record at
    /// `record`; `None` if they are not what was written there.
    pub fn read_encrypted(
        &self,
        record: u64,
        at: u64,
        longest: usize,
        encryption: &Encryption,
    ) -> io::Result<Option<Vec<u8>>> {
        let segment = self.segments.at(record).ok_or(io::ErrorKind::NotFound)?;
        let read = |range: Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            let from = record - segment.start + range.start;
            segment.file.read_at(&mut bytes, from).map(|()| bytes)
        };
        if record + HEADER as u64 > segment.end() {
            return Ok(None);
        }
        let header = Header::decode(&read(0..HEADER as u64)?);
        let there = |header: &Header| {
            header.position == record && header.encrypted && header.body <= segment.len
        };
        let Some(header) = header.filter(there).filter(|it| it.end() <= segment.end()) else {
            return Ok(None);
        };
        let offset = at.checked_sub(record + HEADER as u64);
        let Some((chunks, tags)) = offset.and_then(|offset| header.chunks(offset, longest)) else {
            return Ok(None);
        };
        let start = record + chunks.start;
        let first = (chunks.start - HEADER as u64) / CHUNK as u64;
        let (mut bytes, tags) = (read(chunks)?, read(tags)?);
        if !header.open_chunks(encryption, first, &mut bytes, &tags) {
            return Ok(None);
        }
        bytes.drain(..(at - start) as usize);
        Ok(Some(bytes))
    }

    /// The position of a record after `position` that says that the log was durable beyond it.
    fn acknowledged_after(&self, position: u64, epoch: u32) -> Result<Option<u64>, Error> {
        let segments = self.segments.all();
        for segment in segments.iter().filter(|segment| segment.end() > position) {
            let mut bytes = vec![0; segment.len as usize];
            segment
                .file
                .read_at(&mut bytes, 0)
                .map_err(Error::io(&segment.name))?;
            let first = position.saturating_sub(segment.start) as usize;
            for offset in (first..bytes.len().saturating_sub(HEADER)).step_by(8) {
                let Some(header) = Header::decode(&bytes[offset..]) else {
                    continue;
                };
                let at = segment.start + offset as u64;
                if header.position == at && header.epoch >= epoch && header.durable > position {
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    /// Where a record of so many bytes will begin. Only the appending thread may ask.
    pub fn next_position(&self, len: u64) -> Result<u64, Error> {
        self.check()?;
        let position = self.appended();
        // There is always room left for the record that leads to the next segment.
        let len = len + HEADER as u64;
        let following = match self.segments.at(position) {
            Some(segment) if position + len <= segment.end() => return Ok(position),
            Some(segment) => segment.end(),
            None => position,
        };
        self.segments.prepare(following, len)?;
        Ok(following)
    }

    /// Appends a record where [`Wal::next_position`] said. A body that is encrypted is its stored form then.
    pub fn append(
        &self,
        header: &mut Header,
        encryption: &Encryption,
        body: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if header.position != self.appended() {
            self.continue_in_next_segment(header, encryption)?;
        }
        self.write(header, encryption, body)?;
        self.appended.store(header.end(), Ordering::Release);
        if header.kind == RecordKind::Reclaim {
            self.unnumbered.store(header.end(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Ends the present segment, because the next record goes to the one after it.
    fn continue_in_next_segment(
        &self,
        next: &Header,
        encryption: &Encryption,
    ) -> Result<(), Error> {
        // Recovery would go on in the next segment though what comes before were lost.
        self.sync_to(self.unnumbered.load(Ordering::Relaxed))?;
        let position = self.appended();
        let segment = self.segments.at(next.position);
        if let (Some(segment), true) = (segment, self.segments.at(position).is_some()) {
            let mut header = Header {
                kind: RecordKind::Continue,
                items: 0,
                body: 0,
                updates: segment.len,
                position,
                sequence: next.sequence - u64::from(next.kind == RecordKind::Batch),
                ..*next
            };
            self.write(&mut header, encryption, &mut Vec::new())?;
        }
        self.appended.store(next.position, Ordering::Release);
        Ok(())
    }

    fn write(
        &self,
        header: &mut Header,
        encryption: &Encryption,
        body: &mut Vec<u8>,
    ) -> Result<(), Error> {
        header.durable = self.durable();
        // No two ciphertexts may be made with one nonce, and what failed may be on disk in part.
        let failures = self.failures.load(Ordering::Relaxed);
        header.attempt = u16::try_from(failures)
            .map_err(|_| Error::Stopped("writing to the log failed too often".into()))?;
        let segment = self
            .segments
            .at(header.position)
            .ok_or_else(|| Error::Stopped("no segment".into()))?;
        let offset = header.position - segment.start;
        let write = |body: &[u8]| segment.file.write_at(body, offset + HEADER as u64);
        let written = if encryption.encrypts() {
            header.encrypt(encryption, body);
            write(body)
        } else {
            // A checksum changes nothing of what it is over.
            let items = header.items as usize;
            let (check, written) = workers::both(items, || header.check(body), || write(body));
            header.tag = check;
            written
        };
        written
            .and_then(|()| segment.file.write_at(&header.encode(), offset))
            .map_err(|error| {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Error::io(format!("{} cannot be written", segment.name))(error)
            })
    }

    /// Waits until everything before `position` is on disk, and sees to it if nobody else does.
    pub fn sync_to(&self, position: u64) -> Result<(), Error> {
        self.syncing.wait(
            || self.durable() >= position,
            || self.check(),
            || self.sync(),
        )
    }

    /// Brings to disk what is appended. One thread at a time.
    fn sync(&self) -> Result<(), Error> {
        let (from, to) = (self.durable(), self.appended());
        let mut segments = self.segments.all();
        segments.retain(|it| it.end() > from && it.start < to);
        for segment in segments {
            if let Err(error) = segment.file.sync() {
                self.stop(&format!("{} could not be synced: {error}", segment.name));
                self.check()?;
            }
        }
        self.synced_bytes.fetch_add(to - from, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.durable.store(to, Ordering::Release);
        Ok(())
    }

    /// Ends all use of the log: what is in it is not known any more.
    pub fn stop(&self, reason: &str) {
        let mut first = self.reason.lock().unwrap();
        if first.is_empty() {
            *first = reason.to_owned();
            tracing::error!(reason, "the ledger stopped");
        }
        self.stopped.store(true, Ordering::Release);
    }

    pub fn check(&self) -> Result<(), Error> {
        match self.stopped.load(Ordering::Acquire) {
            true => Err(Error::Stopped(self.reason.lock().unwrap().clone())),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Directory;
    use crate::storage::record::record_len;

    fn open(directory: &tempfile::TempDir) -> Wal {
        let disk = Arc::new(Directory::open(directory.path()).unwrap());
        Wal::open(disk, 1 << 16).unwrap()
    }

    fn append(wal: &Wal, kind: RecordKind, len: usize) -> u64 {
        let mut body = vec![7; len];
        let mut header = Header {
            kind,
            epoch: 1,
            attempt: 0,
            items: 0,
            encrypted: false,
            body: len as u64,
            updates: 0,
            position: wal.next_position(record_len(len as u64, false)).unwrap(),
            sequence: 1,
            durable: 0,
            time: 0,
            tag: [0; 16],
        };
        wal.append(&mut header, &Encryption::plain(), &mut body)
            .unwrap();
        header.end()
    }

    #[test]
    fn what_no_sequence_counts_is_durable_before_the_next_segment_begins() {
        let directory = tempfile::tempdir().unwrap();
        let wal = open(&directory);
        append(&wal, RecordKind::Batch, 60_000);
        let end = append(&wal, RecordKind::Reclaim, 1_000);
        append(&wal, RecordKind::Batch, 1_000);
        assert_eq!(wal.durable(), 0);
        append(&wal, RecordKind::Batch, 60_000);
        assert!(wal.durable() >= end);
        let durable = wal.durable();
        append(&wal, RecordKind::Batch, 60_000);
        assert_eq!(wal.durable(), durable, "only where it must be");
    }

    #[test]
    fn segments_are_let_go_and_taken_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let wal = open(&directory);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    append(&wal, RecordKind::Batch, 60_000);
                }
                done.store(true, Ordering::Relaxed);
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    wal.prepare_next().unwrap();
                }
            });
            for round in 0.. {
                wal.segments.trim(wal.appended(), round % 3).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        wal.segments.trim(wal.appended(), 0).unwrap();
        let disk = Directory::watch(directory.path());
        let names = disk.list().unwrap();
        assert!(
            names.iter().all(|name| !name.starts_with("spare-")),
            "{names:?}"
        );
    }
}

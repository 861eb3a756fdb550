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

use crate::disk::{Disk, DiskFile, existing};
use crate::error::Error;
use crate::record::{CHUNK, HEADER, Header, RecordKind};
use crate::seal::Seal;
use crate::workers;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

pub struct Wal {
    disk: Arc<dyn Disk>,
    segment_size: u64,
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// Where the next record goes, and up to where records are on disk.
    appended: AtomicU64,
    durable: AtomicU64,
    syncing: Mutex<()>,
    making: Mutex<()>,
    stopped: AtomicBool,
    reason: Mutex<String>,
    /// Records that could not be written since the log was opened.
    failures: AtomicU64,
    /// Where the last record ends that has no sequence of its own, and is missed by nobody.
    unnumbered: AtomicU64,
    pub synced_bytes: AtomicU64,
    pub syncs: AtomicU64,
}

pub struct Segment {
    start: u64,
    len: u64,
    name: String,
    file: Arc<dyn DiskFile>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// What names of segments begin with, and of those that were let go.
const SEGMENT: &str = "wal-";
const SPARE: &str = "spare-";

fn name(start: u64) -> String {
    format!("{SEGMENT}{start:016x}")
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
        let mut segments = BTreeMap::new();
        for file in disk.list().map_err(Error::io("the ledger's directory"))? {
            let Some(start) = file
                .strip_prefix(SEGMENT)
                .and_then(|start| u64::from_str_radix(start, 16).ok())
            else {
                continue;
            };
            // Another process, whose log this is, may just have let it go.
            let Some(handle) = existing(&*disk, &file).map_err(Error::io(&file))? else {
                continue;
            };
            let len = handle.size().map_err(Error::io(&file))?;
            let segment = Segment {
                start,
                len,
                name: file,
                file: handle,
            };
            segments.insert(start, Arc::new(segment));
        }
        Ok(Wal {
            disk,
            segment_size,
            segments: RwLock::new(segments),
            appended: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            syncing: Mutex::default(),
            making: Mutex::default(),
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

    /// Where segments begin, oldest first. A record begins at each of them.
    pub fn starts(&self) -> Vec<u64> {
        self.segments.read().unwrap().keys().copied().collect()
    }

    /// Where the oldest record that is kept may begin.
    pub fn oldest(&self) -> u64 {
        let segments = self.segments.read().unwrap();
        segments
            .keys()
            .next()
            .copied()
            .unwrap_or_else(|| self.appended())
    }

    pub fn bytes(&self) -> u64 {
        self.segments
            .read()
            .unwrap()
            .values()
            .map(|segment| segment.len)
            .sum()
    }

    /// Where the segment of a position ends.
    pub fn end_of(&self, position: u64) -> Option<u64> {
        self.segment(position).map(|segment| segment.end())
    }

    fn segment(&self, position: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap();
        let (_, segment) = segments.range(..=position).next_back()?;
        (position < segment.end()).then(|| segment.clone())
    }

    /// Where the segment ends that the next record goes to.
    pub fn segment_end(&self) -> u64 {
        let position = self.appended();
        self.segment(position)
            .map_or(position, |segment| segment.end())
    }

    /// As much as there is of `longest` bytes at a position.
    pub fn read_some(&self, position: u64, longest: usize) -> io::Result<Vec<u8>> {
        let segment = self.segment(position).ok_or(io::ErrorKind::NotFound)?;
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
        seal: &Seal,
    ) -> Result<Next, Error> {
        let following = self
            .segment(position)
            .map_or(position, |segment| segment.end());
        for at in [position, following] {
            if let Some((header, body)) = self.record_at(at, seal)? {
                let expected = sequence + u64::from(header.kind == RecordKind::Batch);
                if header.sequence == expected && header.epoch >= epoch {
                    if header.kind == RecordKind::Continue {
                        self.must_have(self.after(&header), header.updates)?;
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
        seal: &Seal,
    ) -> Result<Next, Error> {
        let next = self.continues(position, sequence, epoch, seal)?;
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
            RecordKind::Continue => self.end_of(header.position).unwrap_or(header.end()),
            _ => header.end(),
        }
    }

    /// Fails if a segment is missing, or is shorter than it was.
    pub fn must_have(&self, start: u64, len: u64) -> Result<(), Error> {
        let there = self.segments.read().unwrap().get(&start).map(|it| it.len);
        let what = match there {
            Some(there) if there >= len => return Ok(()),
            Some(there) => format!("it had {len} bytes and has {there}"),
            None => "it is missing".into(),
        };
        Err(Error::damaged(&name(start), "the segment", what))
    }

    /// The start and the length of the segment that the next record goes to.
    pub fn present(&self) -> Option<(u64, u64)> {
        let segment = self.segment(self.appended())?;
        Some((segment.start, segment.len))
    }

    /// The whole, intact record at a position.
    pub fn record_at(
        &self,
        position: u64,
        seal: &Seal,
    ) -> Result<Option<(Header, Vec<u8>)>, Error> {
        let Some(segment) = self.segment(position) else {
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
        Ok(header.open(seal, &mut body).then_some((header, body)))
    }

    /// The header of the record at a position, or at the start of the segment after it. Its body may not be
    /// whole.
    pub fn header_at(&self, position: u64) -> Result<Option<Header>, Error> {
        let Some(segment) = self.segment(position) else {
            return Ok(None);
        };
        for at in [position, segment.end()] {
            let Some(segment) = self.segment(at) else {
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
        seal: &Seal,
    ) -> io::Result<Option<Vec<u8>>> {
        let segment = self.segment(record).ok_or(io::ErrorKind::NotFound)?;
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
        if !header.open_chunks(seal, first, &mut bytes, &tags) {
            return Ok(None);
        }
        bytes.drain(..(at - start) as usize);
        Ok(Some(bytes))
    }

    /// The position of a record after `position` that says that the log was durable beyond it.
    fn acknowledged_after(&self, position: u64, epoch: u32) -> Result<Option<u64>, Error> {
        let segments: Vec<_> = self.segments.read().unwrap().values().cloned().collect();
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
    pub fn place(&self, len: u64) -> Result<u64, Error> {
        self.check()?;
        let position = self.appended();
        // There is always room left for the record that leads to the next segment.
        let len = len + HEADER as u64;
        let following = match self.segment(position) {
            Some(segment) if position + len <= segment.end() => return Ok(position),
            Some(segment) => segment.end(),
            None => position,
        };
        self.prepare(following, len)?;
        Ok(following)
    }

    /// Makes the segment at `start` ready to take a record of `len` bytes.
    fn prepare(&self, start: u64, len: u64) -> Result<(), Error> {
        let wanted = len.max(self.segment_size);
        let _one = self.making.lock().unwrap();
        let there = self.segments.read().unwrap().get(&start).cloned();
        if there.is_some_and(|segment| segment.len >= wanted) {
            return Ok(());
        }
        let name = name(start);
        let what = || format!("{name} cannot be made");
        let file = self.disk.open(&name, true).map_err(Error::io(what()))?;
        file.grow(wanted).map_err(Error::io(what()))?;
        // The length must be durable before the segment is used: it says where the next one begins.
        file.sync().map_err(Error::io(what()))?;
        self.disk.sync().map_err(Error::io(what()))?;
        let segment = Segment {
            start,
            len: wanted,
            name,
            file,
        };
        self.segments
            .write()
            .unwrap()
            .insert(start, Arc::new(segment));
        Ok(())
    }

    /// Makes the segment after the present one ready, with all its blocks written.
    pub fn prepare_next(&self) -> Result<(), Error> {
        let missing = || {
            let start = self.segment_end();
            let there = self.segments.read().unwrap().contains_key(&start);
            (!there).then_some(start)
        };
        let Some(start) = missing() else {
            return Ok(());
        };
        let failed = || Error::io("the write-ahead log's next segment");
        if self.spare().map_err(failed())?.is_none() {
            self.make_spare(start).map_err(failed())?;
        }
        let _one = self.making.lock().unwrap();
        // The appending thread may have been faster, and far ahead; a checkpoint may want no spares.
        let spare = self.spare().map_err(failed())?;
        let Some((start, (spare, file))) = missing().zip(spare) else {
            return Ok(());
        };
        let name = name(start);
        self.disk.rename(&spare, &name).map_err(failed())?;
        // What is in a segment is not durable while its name is not.
        self.disk.sync().map_err(failed())?;
        let len = self.segment_size;
        let segment = Arc::new(Segment {
            start,
            len,
            name,
            file,
        });
        self.segments.write().unwrap().insert(start, segment);
        Ok(())
    }

    /// A segment that is there to be written over, and its name.
    fn spare(&self) -> io::Result<Option<(String, Arc<dyn DiskFile>)>> {
        let names = self.disk.list()?;
        for name in names.into_iter().filter(|name| name.starts_with(SPARE)) {
            // It may have been let go.
            if let Some(file) = existing(&*self.disk, &name)?
                && file.size()? == self.segment_size
            {
                return Ok(Some((name, file)));
            }
        }
        Ok(None)
    }

    /// Makes a segment of zeros.
    fn make_spare(&self, start: u64) -> io::Result<()> {
        let making = "wal-next";
        if existing(&*self.disk, making)?.is_some() {
            self.disk.remove(making)?;
        }
        let file = self.disk.open(making, true)?;
        file.grow(self.segment_size)?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..self.segment_size).step_by(zeros.len()) {
            let len = zeros.len().min((self.segment_size - offset) as usize);
            // Little by little, so that no batch waits long behind it.
            file.write_at(&zeros[..len], offset)?;
            file.sync()?;
        }
        self.disk.rename(making, &format!("{SPARE}{start:016x}"))
    }

    /// Appends a record where [`Wal::place`] said. A body that is encrypted is its stored form then.
    pub fn append(
        &self,
        header: &mut Header,
        seal: &Seal,
        body: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if header.position != self.appended() {
            self.lead_on(header, seal)?;
        }
        self.write(header, seal, body)?;
        self.appended.store(header.end(), Ordering::Release);
        if header.kind == RecordKind::Reclaim {
            self.unnumbered.store(header.end(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Ends the present segment, because the next record goes to the one after it.
    fn lead_on(&self, next: &Header, seal: &Seal) -> Result<(), Error> {
        // Recovery would go on in the next segment though what comes before were lost.
        self.sync_to(self.unnumbered.load(Ordering::Relaxed))?;
        let position = self.appended();
        let segment = self.segment(next.position);
        if let (Some(segment), true) = (segment, self.segment(position).is_some()) {
            let mut header = Header {
                kind: RecordKind::Continue,
                items: 0,
                body: 0,
                updates: segment.len,
                position,
                sequence: next.sequence - u64::from(next.kind == RecordKind::Batch),
                ..*next
            };
            self.write(&mut header, seal, &mut Vec::new())?;
        }
        self.appended.store(next.position, Ordering::Release);
        Ok(())
    }

    fn write(&self, header: &mut Header, seal: &Seal, body: &mut Vec<u8>) -> Result<(), Error> {
        header.durable = self.durable();
        // No two ciphertexts may be made with one nonce, and what failed may be on disk in part.
        let failures = self.failures.load(Ordering::Relaxed);
        header.attempt = u16::try_from(failures)
            .map_err(|_| Error::Stopped("writing to the log failed too often".into()))?;
        let segment = self
            .segment(header.position)
            .ok_or_else(|| Error::Stopped("no segment".into()))?;
        let offset = header.position - segment.start;
        let write = |body: &[u8]| segment.file.write_at(body, offset + HEADER as u64);
        let written = if seal.encrypts() {
            header.encrypt(seal, body);
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
        while self.durable() < position {
            self.check()?;
            let _one = self.syncing.lock().unwrap();
            let (from, to) = (self.durable(), self.appended());
            if from >= position {
                break;
            }
            self.check()?;
            let segments: Vec<_> = {
                let segments = self.segments.read().unwrap();
                let touched = segments
                    .values()
                    .filter(|it| it.end() > from && it.start < to);
                touched.cloned().collect()
            };
            for segment in segments {
                if let Err(error) = segment.file.sync() {
                    self.stop(&format!("{} could not be synced: {error}", segment.name));
                    self.check()?;
                }
            }
            self.synced_bytes.fetch_add(to - from, Ordering::Relaxed);
            self.syncs.fetch_add(1, Ordering::Relaxed);
            self.durable.store(to, Ordering::Release);
        }
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

    /// Lets segments go that lie before `position` as a whole. Up to `spares` are kept to be written
    /// over: a new one would have to be written twice.
    pub fn trim(&self, position: u64, spares: usize) -> Result<(), Error> {
        let gone: Vec<_> = {
            let mut segments = self.segments.write().unwrap();
            let keep = segments.split_off(&position);
            // The segment that holds the position itself begins before it.
            let mut gone = std::mem::replace(&mut *segments, keep);
            gone.retain(|start, segment| {
                let used = segment.end() > position;
                if used {
                    segments.insert(*start, segment.clone());
                }
                !used
            });
            gone.into_values().collect()
        };
        let _one = self.making.lock().unwrap();
        let names = self
            .disk
            .list()
            .map_err(Error::io("the ledger's directory"))?;
        let mut kept = 0;
        for name in names.iter().filter(|name| name.starts_with(SPARE)) {
            let file = existing(&*self.disk, name).map_err(Error::io(name))?;
            let len = file.map(|file| file.size()).transpose();
            if kept < spares && len.map_err(Error::io(name))? == Some(self.segment_size) {
                kept += 1;
            } else {
                self.disk.remove(name).map_err(Error::io(name))?;
            }
        }
        for segment in &gone {
            let keep = kept < spares && segment.len == self.segment_size;
            let spare = segment.name.replace(SEGMENT, SPARE);
            match keep {
                true => self.disk.rename(&segment.name, &spare),
                false => self.disk.remove(&segment.name),
            }
            .map_err(Error::io(&segment.name))?;
            kept += usize::from(keep);
        }
        Ok(())
    }

    /// Forgets segments that no record was ever read from, at and after `position`.
    pub fn forget_after(&self, position: u64) -> Result<(), Error> {
        let mut segments = self.segments.write().unwrap();
        let unused: Vec<_> = segments
            .range(position..)
            .map(|(start, _)| *start)
            .collect();
        for start in unused {
            if start == position && segments[&start].len >= self.segment_size {
                continue;
            }
            let segment = segments.remove(&start).expect("it was there");
            self.disk
                .remove(&segment.name)
                .map_err(Error::io(&segment.name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Directory;
    use crate::record::record_len;

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
            position: wal.place(record_len(len as u64, false)).unwrap(),
            sequence: 1,
            durable: 0,
            time: 0,
            tag: [0; 16],
        };
        wal.append(&mut header, &Seal::plain(), &mut body).unwrap();
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
                wal.trim(wal.appended(), round % 3).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        wal.trim(wal.appended(), 0).unwrap();
        let names = wal.disk.list().unwrap();
        assert!(
            names.iter().all(|name| !name.starts_with(SPARE)),
            "{names:?}"
        );
    }
}

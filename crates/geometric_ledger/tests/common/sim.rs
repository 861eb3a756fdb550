//! A disk in memory. What is written is there for who reads it, but durable only when it was synced;
//! a crash keeps any of the sectors that were not, in whatever combination. Names are durable when
//! the directory was synced; a crash keeps the first few of the changes that were not.

use super::Random;
use geometric_ledger::disk::{Disk, DiskFile};
use memmap2::MmapMut;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write is cut short, and fails for want of space; so do all later ones that add space.
    NoSpace,
    /// The write is cut short, and fails.
    ShortWrite,
    /// The sync fails, and what it was for is not on disk. Later ones say that all is well.
    Sync,
    /// The machine goes off in the middle of a write, or before a sync has done anything.
    PowerOff,
}

#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the directory was synced.
    changes: Vec<Change>,
    files: Vec<Content>,
    /// The fault that comes after so many operations of its kind.
    fault: Option<(Fault, u64)>,
    full: bool,
    pub dead: bool,
    pub faults: u64,
    read: u64,
}

#[derive(Clone)]
enum Change {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Ranges written since the last sync.
    written: Vec<(usize, usize)>,
}

impl SimDisk {
    pub fn new() -> Self {
        SimDisk(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            files: Vec::new(),
            fault: None,
            full: false,
            dead: false,
            faults: 0,
            read: 0,
        })))
    }

    /// Lets a fault happen after so many more operations of its kind.
    pub fn plan(&self, fault: Fault, after: u64) {
        self.0.lock().unwrap().fault = Some((fault, after));
    }

    pub fn faults(&self) -> u64 {
        self.0.lock().unwrap().faults
    }

    /// Bytes that were read from files, those that were mapped left out.
    pub fn bytes_read(&self) -> u64 {
        self.0.lock().unwrap().read
    }

    /// The disk as a crash may leave it. The old one does nothing any more.
    pub fn crash(&self, random: &mut Random) -> SimDisk {
        let mut state = self.0.lock().unwrap();
        state.dead = true;
        let mut names = state.durable_names.clone();
        let kept = random.below(state.changes.len() as u64 + 1) as usize;
        state.changes[..kept]
            .iter()
            .for_each(|change| change.apply(&mut names));
        let files: Vec<Content> = state
            .files
            .iter()
            .map(|file| {
                let content = file.after_crash(random);
                Content {
                    now: content.clone(),
                    durable: content,
                    written: Vec::new(),
                }
            })
            .collect();
        let disk = SimDisk::new();
        {
            let mut after = disk.0.lock().unwrap();
            (after.names, after.durable_names, after.files) = (names.clone(), names, files);
        }
        disk
    }

    /// The disk as a process leaves it that is killed: all is there, and durable is what was. The old
    /// one does nothing any more.
    pub fn kill(&self) -> SimDisk {
        let mut state = self.0.lock().unwrap();
        state.dead = true;
        SimDisk(Arc::new(Mutex::new(State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            changes: state.changes.clone(),
            files: state.files.clone(),
            fault: None,
            full: false,
            dead: false,
            faults: 0,
            read: 0,
        })))
    }

    /// Flips a bit of a file, for who looks for damage.
    pub fn flip(&self, name: &str, bit: usize) {
        let mut state = self.0.lock().unwrap();
        let file = state.names[name];
        state.files[file].now[bit / 8] ^= 1 << (bit % 8);
    }

    /// Puts bytes in place of others, as far as the file goes.
    pub fn overwrite(&self, name: &str, offset: usize, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap();
        let file = state.names[name];
        let content = &mut state.files[file].now;
        let offset = offset % content.len().max(1);
        let len = bytes.len().min(content.len() - offset);
        content[offset..offset + len].copy_from_slice(&bytes[..len]);
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        state.files[state.names[name]].now.clone()
    }

    /// Takes a file away.
    pub fn delete(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Puts other content in the place of a file's, or a new file.
    pub fn replace(&self, name: &str, content: Vec<u8>) {
        let mut state = self.0.lock().unwrap();
        let file = state.files.len();
        state.files.push(Content {
            durable: content.clone(),
            now: content,
            written: Vec::new(),
        });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// A copy that changes nothing of this one.
    pub fn copy(&self) -> SimDisk {
        let state = self.0.lock().unwrap();
        let disk = SimDisk::new();
        {
            let mut copy = disk.0.lock().unwrap();
            copy.names = state.names.clone();
            copy.durable_names = state.names.clone();
            copy.files = state.files.clone();
        }
        disk
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Change::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Change::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Content {
    fn after_crash(&self, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        // The length goes with the data: a file that grew may have done so or not.
        if self.now.len() > content.len() && !random.chance(3) {
            content.resize(self.now.len(), 0);
        }
        let mut sectors: Vec<usize> = Vec::new();
        for (from, to) in &self.written {
            sectors.extend(from / SECTOR..to.div_ceil(SECTOR));
        }
        sectors.sort_unstable();
        sectors.dedup();
        // All, none, or some: in a crash, what was written last often went together.
        let mode = random.below(4);
        for sector in sectors {
            let kept = match mode {
                0 => true,
                1 => false,
                2 => random.chance(2),
                _ => !random.chance(16),
            };
            let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
            let to = to.min(self.now.len()).min(content.len());
            if kept && from < to {
                content[from..to].copy_from_slice(&self.now[from..to]);
            }
        }
        content
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        match self.dead {
            true => Err(io::Error::other("the machine is off")),
            false => Ok(()),
        }
    }

    /// Whether the planned fault of one of these kinds happens now.
    fn strikes(&mut self, kinds: &[Fault]) -> Option<Fault> {
        let (fault, left) = self.fault?;
        if !kinds.contains(&fault) {
            return None;
        }
        if left > 0 {
            self.fault = Some((fault, left - 1));
            return None;
        }
        self.fault = None;
        self.faults += 1;
        Some(fault)
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl Disk for SimDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        let file = match state.names.get(name) {
            Some(file) => *file,
            None if create => {
                let file = state.files.len();
                state.files.push(Content::default());
                state.names.insert(name.to_owned(), file);
                state.changes.push(Change::Set(name.to_owned(), file));
                file
            }
            None => return Err(ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        let change = Change::Rename(from.to_owned(), to.to_owned());
        change.apply(&mut state.names);
        state.changes.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        let change = Change::Remove(name.to_owned());
        change.apply(&mut state.names);
        state.changes.push(change);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.0.lock().unwrap();
        state.alive()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.alive()?;
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }
}

// SAFETY: what is mapped is memory of its own, of the length that was asked for.
unsafe impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.alive()?;
        state.read += buffer.len() as u64;
        let content = &state.files[self.file].now;
        let range = offset as usize..offset as usize + buffer.len();
        buffer.copy_from_slice(content.get(range).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.alive()?;
        let fault = state.strikes(&[Fault::NoSpace, Fault::ShortWrite, Fault::PowerOff]);
        state.dead |= fault == Some(Fault::PowerOff);
        state.full |= fault == Some(Fault::NoSpace);
        let end = offset as usize + bytes.len();
        let full = state.full;
        let content = &mut state.files[self.file];
        let failed = fault.is_some() || (full && end > content.now.len());
        let bytes = if failed {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let end = offset as usize + bytes.len();
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[offset as usize..end].copy_from_slice(bytes);
        content.written.push((offset as usize, end));
        match failed {
            true => Err(ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.alive()?;
        let fault = state.strikes(&[Fault::Sync, Fault::PowerOff]);
        if fault == Some(Fault::PowerOff) {
            state.dead = true;
            return state.alive();
        }
        let failed = fault.is_some();
        let content = &mut state.files[self.file];
        if failed {
            // As Linux does it: the pages are clean now, and gone when memory is short.
            content.written.clear();
            content.now = content.durable.clone();
            return Err(io::Error::other("input/output error"));
        }
        content.written.clear();
        content.durable = content.now.clone();
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.disk.0.lock().unwrap();
        state.alive()?;
        Ok(state.files[self.file].now.len() as u64)
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.alive()?;
        let grows = len as usize > state.files[self.file].now.len();
        let fault = if grows {
            state.strikes(&[Fault::NoSpace])
        } else {
            None
        };
        state.full |= fault.is_some();
        if state.full && grows {
            return Err(ErrorKind::StorageFull.into());
        }
        let content = &mut state.files[self.file];
        if grows {
            content.now.resize(len as usize, 0);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; len as usize];
        self.write_at(&zeros, offset)
    }

    unsafe fn map(&self, offset: u64, len: usize) -> io::Result<MmapMut> {
        let state = self.disk.0.lock().unwrap();
        state.alive()?;
        let content = &state.files[self.file].now;
        let mut map = MmapMut::map_anon(len)?;
        let there = content.get(offset as usize..).unwrap_or_default();
        let there = &there[..there.len().min(len)];
        map[..there.len()].copy_from_slice(there);
        Ok(map)
    }
}

//! The files of the write-ahead log: where each begins and ends, how they are made ready, and how they
//! are let go and written over.

use crate::error::Error;
use crate::storage::disk::{Disk, DiskFile, existing};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, RwLock};

pub struct Segment {
    pub start: u64,
    pub len: u64,
    pub name: String,
    pub file: Arc<dyn DiskFile>,
}

impl Segment {
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// What names of segments begin with, and of those that were let go.
const SEGMENT: &str = "wal-";
const SPARE: &str = "spare-";

fn name(start: u64) -> String {
    format!("{SEGMENT}{start:016x}")
}

pub struct Segments {
    disk: Arc<dyn Disk>,
    /// Bytes of a segment, unless a record needs more.
    size: u64,
    all: RwLock<BTreeMap<u64, Arc<Segment>>>,
    making: Mutex<()>,
}

impl Segments {
    /// The segments that are there.
    pub fn open(disk: Arc<dyn Disk>, size: u64) -> Result<Self, Error> {
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
        Ok(Segments {
            disk,
            size,
            all: RwLock::new(segments),
            making: Mutex::default(),
        })
    }

    /// Where segments begin, oldest first. A record begins at each of them.
    pub fn starts(&self) -> Vec<u64> {
        self.all.read().unwrap().keys().copied().collect()
    }

    /// All of them, in order.
    pub fn all(&self) -> Vec<Arc<Segment>> {
        self.all.read().unwrap().values().cloned().collect()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.all
            .read()
            .unwrap()
            .values()
            .map(|segment| segment.len)
            .sum()
    }

    /// Where the segment of a position ends.
    pub fn end_of(&self, position: u64) -> Option<u64> {
        self.at(position).map(|segment| segment.end())
    }

    /// The segment that a position is in.
    pub fn at(&self, position: u64) -> Option<Arc<Segment>> {
        let segments = self.all.read().unwrap();
        let (_, segment) = segments.range(..=position).next_back()?;
        (position < segment.end()).then(|| segment.clone())
    }

    /// Fails if a segment is missing, or is shorter than it was.
    pub fn require(&self, start: u64, len: u64) -> Result<(), Error> {
        let there = self.all.read().unwrap().get(&start).map(|it| it.len);
        let what = match there {
            Some(there) if there >= len => return Ok(()),
            Some(there) => format!("it had {len} bytes and has {there}"),
            None => "it is missing".into(),
        };
        Err(Error::damaged(&name(start), "the segment", what))
    }

    /// Makes the segment at `start` ready to take a record of `len` bytes.
    pub fn prepare(&self, start: u64, len: u64) -> Result<(), Error> {
        let wanted = len.max(self.size);
        let _one = self.making.lock().unwrap();
        let there = self.all.read().unwrap().get(&start).cloned();
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
        self.all.write().unwrap().insert(start, Arc::new(segment));
        Ok(())
    }

    /// Makes the segment after the present one ready, with all its blocks written. `start` says where it
    /// begins, at any time.
    pub fn prepare_next(&self, start: impl Fn() -> u64) -> Result<(), Error> {
        let missing = || {
            let start = start();
            let there = self.all.read().unwrap().contains_key(&start);
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
        let len = self.size;
        let segment = Arc::new(Segment {
            start,
            len,
            name,
            file,
        });
        self.all.write().unwrap().insert(start, segment);
        Ok(())
    }

    /// A segment that is there to be written over, and its name.
    fn spare(&self) -> io::Result<Option<(String, Arc<dyn DiskFile>)>> {
        let names = self.disk.list()?;
        for name in names.into_iter().filter(|name| name.starts_with(SPARE)) {
            // It may have been let go.
            if let Some(file) = existing(&*self.disk, &name)?
                && file.size()? == self.size
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
        file.grow(self.size)?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..self.size).step_by(zeros.len()) {
            let len = zeros.len().min((self.size - offset) as usize);
            // Little by little, so that no batch waits long behind it.
            file.write_at(&zeros[..len], offset)?;
            file.sync()?;
        }
        self.disk.rename(making, &format!("{SPARE}{start:016x}"))
    }

    /// Lets segments go that lie before `position` as a whole. Up to `spares` are kept to be written
    /// over: a new one would have to be written twice.
    pub fn trim(&self, position: u64, spares: usize) -> Result<(), Error> {
        let gone: Vec<_> = {
            let mut segments = self.all.write().unwrap();
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
            if kept < spares && len.map_err(Error::io(name))? == Some(self.size) {
                kept += 1;
            } else {
                self.disk.remove(name).map_err(Error::io(name))?;
            }
        }
        for segment in &gone {
            let keep = kept < spares && segment.len == self.size;
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
    pub fn remove_after(&self, position: u64) -> Result<(), Error> {
        let mut segments = self.all.write().unwrap();
        let unused: Vec<_> = segments
            .range(position..)
            .map(|(start, _)| *start)
            .collect();
        for start in unused {
            if start == position && segments[&start].len >= self.size {
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

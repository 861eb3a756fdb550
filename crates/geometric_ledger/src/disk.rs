//! Where a ledger's files live: a directory, behind a trait small enough to be simulated.
//!
//! Everything the ledger writes goes through [`DiskFile::write_at`] and [`DiskFile::sync`]; memory
//! that is mapped is private, and never reaches a file by itself. So a simulated disk sees all that
//! a crash can tear, reorder or lose.

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, FlockOperation};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of files.
pub trait Disk: Send + Sync {
    /// Opens a file, creating it empty if it is not there and `create`.
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, in place of any that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes creations, removals and renamings durable.
    fn sync(&self) -> io::Result<()>;
}

/// One file. All calls may come from several threads at once.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer`, or says `UnexpectedEof`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
    fn size(&self) -> io::Result<u64>;
    /// Makes the file at least `len` bytes long, the space being reserved and read as zeros.
    fn grow(&self, len: u64) -> io::Result<()>;
    /// Gives back the space of a range, which then reads as zeros.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Maps a range privately: what is written to the memory stays in it. The range may reach
    /// beyond the end of the file, but is touched only where the file has grown to.
    fn map(&self, offset: u64, len: usize) -> io::Result<MmapMut>;
}

/// A directory of the file system, locked against a second writer.
pub struct Directory {
    path: PathBuf,
    read_only: bool,
    _lock: Option<File>,
}

impl Directory {
    /// Opens a directory for one writer, creating it (mode 0700) if it is not there.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it open for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path)?;
        Self::locked(path, false)
    }

    /// Opens a directory for reading only; any number may, while nobody writes.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it open for writing, `NotFound` if it is not there.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        Self::locked(path, true)
    }

    /// Opens a directory for reading only, though another process may be writing to it.
    pub(crate) fn watch(path: &Path) -> Self {
        Directory {
            path: path.to_owned(),
            read_only: true,
            _lock: None,
        }
    }

    fn locked(path: &Path, read_only: bool) -> io::Result<Self> {
        let lock = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .create(!read_only)
            .truncate(false)
            .mode(0o600)
            .open(path.join("LOCK"))?;
        let operation = match read_only {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        rustix::fs::flock(&lock, operation)?;
        Ok(Directory {
            path: path.to_owned(),
            read_only,
            _lock: Some(lock),
        })
    }
}

impl Disk for Directory {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(!self.read_only)
            .create(create && !self.read_only)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let old = self.size()?;
        if len <= old {
            return Ok(());
        }
        match rustix::fs::fallocate(self, FallocateFlags::empty(), old, len - old) {
            // Some file systems cannot reserve space: theirs is found to be missing when written.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(len),
            result => Ok(result?),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(self, flags, offset, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn map(&self, offset: u64, len: usize) -> io::Result<MmapMut> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len).no_reserve_swap();
        // SAFETY: the directory is locked, so no other process of ours changes the file under the
        // mapping; this one writes to it only bytes that the mapping already holds.
        unsafe { options.map_copy(self) }
    }
}

/// The file, if it is there.
pub(crate) fn existing(disk: &dyn Disk, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(name, false) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

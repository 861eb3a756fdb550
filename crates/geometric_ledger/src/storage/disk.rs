//! Where a ledger's files live: a directory, behind a trait small enough to be simulated.
//!
//! Everything the ledger writes goes through [`DiskFile::write_at`] and [`DiskFile::sync`]; memory
//! that is mapped is private, and never reaches a file by itself. So a simulated disk sees all that
//! a crash can tear, reorder or lose.

use crate::error::Error;
use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, FlockOperation};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
    /// Bytes of the file system that are left for files, and all of them, if that is known.
    fn space(&self) -> Option<(u64, u64)> {
        None
    }
}

/// One file. All calls may come from several threads at once.
///
/// # Safety
/// What [`DiskFile::map`] returns is memory of exactly the length that was asked for, from an address
/// that is a multiple of 4,096 on, which nobody else writes to. The ledger checks the length and the
/// address, and relies on the rest.
///
/// So an implementation has to be `unsafe`, which this one is not:
///
/// ```compile_fail,E0200
/// # use geometric_ledger::disk::DiskFile;
/// # use std::io::Result;
/// # struct Memory;
/// impl DiskFile for Memory {
/// #   fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> { Ok(()) }
/// #   fn write_at(&self, _: &[u8], _: u64) -> Result<()> { Ok(()) }
/// #   fn sync(&self) -> Result<()> { Ok(()) }
/// #   fn size(&self) -> Result<u64> { Ok(0) }
/// #   fn grow(&self, _: u64) -> Result<()> { Ok(()) }
/// #   fn punch(&self, _: u64, _: u64) -> Result<()> { Ok(()) }
///     unsafe fn map(&self, _: u64, _: usize) -> Result<memmap2::MmapMut> {
///         memmap2::MmapMut::map_anon(1)
///     }
/// }
/// ```
pub unsafe trait DiskFile: Send + Sync {
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
    /// Maps a range privately: what is written to the memory stays in it, and memory that is let go reads
    /// as the file. The range may reach beyond the end of the file, but is touched only where the file
    /// has grown to.
    ///
    /// # Safety
    /// While the memory is in use, the file does not become shorter, and nothing is written to the
    /// range but through this trait, of bytes that the memory holds already or that are accessed only
    /// as atomics.
    unsafe fn map(&self, offset: u64, len: usize) -> io::Result<MmapMut>;
}

/// A directory of the file system, locked against a second writer by its file `ledger`.
pub struct Directory {
    path: PathBuf,
    read_only: bool,
    _lock: Option<File>,
}

/// How often a lock is tried for: a follower holds it for a moment, to see whether somebody else does.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_millis(5);

impl Directory {
    /// Opens a directory for one writer, creating it (mode 0700) if it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open, [`Error::Damaged`] if there are files of a
    /// ledger without the file `ledger`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = || Error::io(path.display().to_string());
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io())?;
        if !path.join(LEDGER).try_exists().map_err(io())? {
            refuse_orphaned_files(&Self::watch(path).list().map_err(io())?)?;
        }
        let lock = Self::lock_file(path, true)
            .map_err(io())?
            .ok_or(Error::Locked)?;
        Ok(Directory {
            path: path.to_owned(),
            read_only: false,
            _lock: Some(lock),
        })
    }

    /// Opens a directory for reading only; any number may, while nobody writes.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open for writing, [`Error::Format`] if there is no
    /// ledger, [`Error::Damaged`] if there are files of a ledger without the file `ledger`.
    pub fn open_read_only(path: &Path) -> Result<Self, Error> {
        let io = || Error::io(path.display().to_string());
        if !path.join(LEDGER).try_exists().map_err(io())? {
            refuse_orphaned_files(&Self::watch(path).list().map_err(io())?)?;
            let what = format!("{} is no ledger: it has no file `{LEDGER}`", path.display());
            return Err(Error::Format(what));
        }
        let lock = Self::lock_file(path, false)
            .map_err(io())?
            .ok_or(Error::Locked)?;
        Ok(Directory {
            path: path.to_owned(),
            read_only: true,
            _lock: Some(lock),
        })
    }

    /// Opens a directory for reading only, though another process may be writing to it.
    pub(crate) fn watch(path: &Path) -> Self {
        Directory {
            path: path.to_owned(),
            read_only: true,
            _lock: None,
        }
    }

    /// Whether nobody has the directory open for writing, this moment.
    pub(crate) fn is_free(path: &Path) -> io::Result<bool> {
        let file = File::open(path.join(LEDGER))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// `None` if somebody else has the lock.
    fn lock_file(path: &Path, write: bool) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LEDGER))?;
        let operation = match write {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        for _ in 0..TRIES {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(TRY_AGAIN),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

/// The file that has the superblock, and the lock.
const LEDGER: &str = "ledger";

/// Fails if there are files of a ledger: one whose superblock is gone must not be taken for a new one.
pub(crate) fn refuse_orphaned_files(names: &[String]) -> Result<(), Error> {
    let parts = [
        "shard-",
        "receipts.",
        "transfers-",
        "entries-",
        "statements-",
        "pending.",
        "wal-",
        "tree-",
        "frontier-",
    ];
    let ours = |name: &&String| {
        parts.iter().any(|part| name.starts_with(part))
            || ["batches", "journal"].contains(&name.as_str())
    };
    match names.iter().find(ours) {
        None => Ok(()),
        Some(name) => {
            let what = format!("it is missing or empty, but there is {name}; restore a snapshot");
            Err(Error::damaged(LEDGER, "the file", what))
        }
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
        Ok(Arc::new(OpenFile(file)))
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

    fn space(&self) -> Option<(u64, u64)> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        Some((
            found.f_bavail * found.f_frsize,
            found.f_blocks * found.f_frsize,
        ))
    }
}

/// A file of the file system.
pub(crate) struct OpenFile(pub File);

// SAFETY: a mapping has the length that was asked for, begins with a page, and is private.
unsafe impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let old = self.size()?;
        if len <= old {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), old, len - old) {
            // Some file systems cannot reserve space: theirs is found to be missing when written.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(len),
            result => Ok(result?),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, flags, offset, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    unsafe fn map(&self, offset: u64, len: usize) -> io::Result<MmapMut> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len).no_reserve_swap();
        // SAFETY: the caller sees to it that the file changes only as the mapping allows.
        unsafe { options.map_copy(&self.0) }
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

/// A file that is missing, to be read only.
pub(crate) struct EmptyFile;

// SAFETY: there is nothing to map.
unsafe impl DiskFile for EmptyFile {
    fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<()> {
        match buffer.is_empty() {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn grow(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    unsafe fn map(&self, _: u64, _: usize) -> io::Result<MmapMut> {
        Err(ErrorKind::NotFound.into())
    }
}

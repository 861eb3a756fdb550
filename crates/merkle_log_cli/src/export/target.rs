//! Where a tree goes.

use super::Stop;
use super::directory::Directory;
use super::object_store::Store;
use bytes::Bytes;
use tlog::TilePath;

/// A tile or an entry bundle.
pub struct File {
    pub path: TilePath,
    pub bytes: Vec<u8>,
}

pub enum Target {
    Directory(Directory),
    Store(Store),
}

/// The path of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint";

impl Target {
    pub async fn open(target: &str) -> Result<Target, Stop> {
        match target.contains("://") {
            true => Ok(Target::Store(Store::open(target)?)),
            false => Ok(Target::Directory(Directory::open(target.as_ref())?)),
        }
    }

    /// Whether tiles that are there are replaced, whatever they are. In a directory they are anyway: a crash of the
    /// machine may have left torn ones beyond the checkpoint.
    pub fn overwrite(&mut self, overwrite: bool) {
        if let Target::Store(store) = self {
            store.overwrite = overwrite;
        }
    }

    /// The checkpoint that is published.
    pub async fn checkpoint(&mut self) -> Result<Option<Bytes>, Stop> {
        match self {
            Target::Directory(directory) => directory.read(CHECKPOINT),
            Target::Store(store) => store.checkpoint().await,
        }
    }

    pub async fn read(&self, path: &TilePath) -> Result<Option<Bytes>, Stop> {
        match self {
            Target::Directory(directory) => directory.read(&path.to_string()),
            Target::Store(store) => store.read(&path.to_string()).await,
        }
    }

    /// Each file is there whole, or not at all.
    pub async fn write(&self, files: Vec<File>) -> Result<(), Stop> {
        match self {
            Target::Directory(directory) => directory.write(files).await,
            Target::Store(store) => store.write(files).await,
        }
    }

    /// Stores the checkpoint in place of the one that was read, after all else.
    pub async fn publish(&mut self, note: &str) -> Result<(), Stop> {
        match self {
            Target::Directory(directory) => directory.publish(note),
            Target::Store(store) => store.publish(note).await,
        }
    }

    /// The partial tiles of a full one that are there.
    pub async fn partial(&self, full: &TilePath) -> Result<Vec<TilePath>, Stop> {
        let directory = format!("{full}.p");
        let names = match self {
            Target::Directory(directories) => directories.list(&directory),
            Target::Store(store) => store.list(&directory).await,
        };
        let width = |name: String| name.parse().ok().filter(|width| (1..256).contains(width));
        let widths = names?.into_iter().filter_map(width);
        Ok(widths
            .map(|width| TilePath::new(full.level(), full.index(), width))
            .collect::<Result<_, _>>()?)
    }

    /// After this, what was written is there whatever happens.
    pub fn sync(&self) -> Result<(), Stop> {
        match self {
            Target::Directory(directory) => directory.sync(),
            Target::Store(_) => Ok(()),
        }
    }

    /// Removes the partial tiles that a full one has replaced.
    pub async fn remove_partial(&self, full: &TilePath) -> Result<(), Stop> {
        let partial = format!("{full}.p");
        match self {
            Target::Directory(directory) => directory.remove(&partial),
            Target::Store(store) => store.remove(&partial).await,
        }
    }
}

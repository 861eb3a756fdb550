//! A tree in an object store: S3, Google Cloud Storage, Azure, and what speaks one of their protocols. Credentials
//! and endpoints come from the environment, by the names that these services use.
//!
//! There is no lock. A tile of hashes is stored if there is none, and otherwise must be the same; a checkpoint is
//! stored only in place of the one that was read. So of two exporters of one log each is right, and the slower
//! one is told.

use super::target::{CHECKPOINT, File};
use super::{Stop, said};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use tlog::TileLevel;

/// Requests that wait for an answer at once.
const AT_ONCE: usize = 64;

pub struct Store {
    store: Box<dyn ObjectStore>,
    prefix: Path,
    /// Of the checkpoint that was read.
    version: Option<UpdateVersion>,
    /// Tiles that are there are replaced, whatever they are.
    pub overwrite: bool,
}

/// A store and the prefix in it that a URL names.
pub fn located(url: &str) -> Result<(Box<dyn ObjectStore>, Path), Stop> {
    let known = ["AWS_", "GOOGLE_", "AZURE_"];
    let options =
        std::env::vars().filter(|(name, _)| known.iter().any(|prefix| name.starts_with(prefix)));
    let options = options.map(|(name, value)| (name.to_ascii_lowercase(), value));
    let url = url::Url::parse(url)?;
    if !matches!(url.scheme(), "s3" | "gs" | "az") {
        return Err(said("a target is a directory, or a URL with s3, gs or az"));
    }
    // Reqwest asks for a process-wide provider; a second call finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(object_store::parse_url_opts(&url, options)?)
}

/// Where a file of a tree is below a prefix.
pub fn below(prefix: &Path, path: &str) -> Path {
    let path = Path::from(path);
    prefix.parts().chain(path.parts()).collect()
}

impl Store {
    pub fn open(url: &str) -> Result<Store, Stop> {
        let (store, prefix) = located(url)?;
        Ok(Store {
            store,
            prefix,
            version: None,
            overwrite: false,
        })
    }

    fn at(&self, path: &str) -> Path {
        below(&self.prefix, path)
    }

    pub async fn checkpoint(&mut self) -> Result<Option<Bytes>, Stop> {
        let found = match self.store.get(&self.at(CHECKPOINT)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => {
                self.version = None;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.version = Some(UpdateVersion {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        });
        Ok(Some(found.bytes().await?))
    }

    pub async fn read(&self, path: &str) -> Result<Option<Bytes>, Stop> {
        match self.store.get(&self.at(path)).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn write(&self, files: Vec<File>) -> Result<(), Stop> {
        let written = stream::iter(files)
            .map(|file| self.write_one(file))
            .buffer_unordered(AT_ONCE);
        written.try_collect().await
    }

    async fn write_one(&self, file: File) -> Result<(), Stop> {
        let path = file.path.to_string();
        let bytes = Bytes::from(file.bytes);
        let mode = match file.path.level() {
            // What is shown of an entry may change: it may be redacted.
            TileLevel::Hashes(_) if !self.overwrite => PutMode::Create,
            TileLevel::Entries | TileLevel::Hashes(_) => PutMode::Overwrite,
        };
        let immutable = "public, max-age=31536000, immutable";
        match self
            .put(
                &path,
                bytes.clone(),
                mode,
                "application/octet-stream",
                immutable,
            )
            .await
        {
            Err(Error::AlreadyExists { .. }) => match self.read(&path).await? {
                Some(stored) if stored == bytes => Ok(()),
                _ => Err(Stop::Bad(format!(
                    "{path} is there already, and is not what follows from the entries"
                ))),
            },
            stored => Ok(stored?),
        }
    }

    pub async fn publish(&mut self, note: &str) -> Result<(), Stop> {
        let mode = self.version.take().map_or(PutMode::Create, PutMode::Update);
        let note = Bytes::copy_from_slice(note.as_bytes());
        match self
            .put(
                CHECKPOINT,
                note,
                mode,
                "text/plain; charset=utf-8",
                "public, max-age=5",
            )
            .await
        {
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Err(said(
                "another export has published a checkpoint there in the meantime\nHint: Run this again.",
            )),
            stored => Ok(stored?),
        }
    }

    async fn put(
        &self,
        path: &str,
        bytes: Bytes,
        mode: PutMode,
        kind: &'static str,
        cached: &'static str,
    ) -> Result<(), Error> {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, kind.into());
        attributes.insert(Attribute::CacheControl, cached.into());
        let options = PutOptions {
            mode,
            attributes,
            ..PutOptions::default()
        };
        self.store
            .put_opts(&self.at(path), PutPayload::from(bytes), options)
            .await?;
        Ok(())
    }

    /// The names of the objects below a prefix.
    pub async fn list(&self, directory: &str) -> Result<Vec<String>, Stop> {
        let directory = self.at(directory);
        let objects = self
            .store
            .list(Some(&directory))
            .map_ok(|object| object.location.filename().map(str::to_owned));
        let names: Vec<_> = objects.try_collect().await?;
        Ok(names.into_iter().flatten().collect())
    }

    pub async fn remove(&self, directory: &str) -> Result<(), Stop> {
        let directory = self.at(directory);
        let paths = self
            .store
            .list(Some(&directory))
            .map_ok(|object| object.location)
            .boxed();
        self.store
            .delete_stream(paths)
            .try_for_each(async |_| Ok(()))
            .await?;
        Ok(())
    }
}

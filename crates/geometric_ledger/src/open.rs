//! How a ledger is opened: in a directory, on a disk, or to change its key.

use crate::checks::Checks;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::options::Options;
use crate::service::server::Service;
use crate::storage::disk::{Directory, Disk};
use crate::storage::encryption::{Secret, unwrap, wrap};
use std::path::Path;
use std::sync::Arc;

impl GeometricLedger {
    /// Opens the ledger in a directory with the default [`Options`], creating it if it is not there.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn new(path: impl AsRef<Path>) -> Result<Self, Error> {
        Options::default().open(path)
    }

    /// Opens the ledger in a directory with other options.
    pub fn builder() -> Options {
        Options::default()
    }

    /// Encrypts the ledger's data keys under another user's key, and takes a new data key for all that
    /// is written from the next opening on. Takes a moment, whatever the size.
    ///
    /// # Errors
    /// [`Error::Key`] if the ledger is not encrypted or `old` is not its key.
    pub fn rotate_key(path: impl AsRef<Path>, old: &Secret, new: &Secret) -> Result<(), Error> {
        let ledger = Options::default().key(old.clone()).open(path)?;
        let mut superblock = ledger.core.superblock.lock().unwrap();
        let block = &mut superblock.block;
        let mut data_keys = Vec::new();
        for (epoch, wrapped) in &block.data_keys {
            data_keys.push((*epoch, wrap(&unwrap(wrapped, old)?, new)?));
        }
        data_keys.push((block.epoch + 1, wrap(&Secret::random()?, new)?));
        block.data_keys = data_keys;
        superblock.write()
    }
}

impl Options {
    /// Opens the ledger in a directory, creating it if it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open, [`Error::Damaged`] if its files are not
    /// what was written, [`Error::Key`] if it is encrypted with another key.
    pub fn open(self, path: impl AsRef<Path>) -> Result<GeometricLedger, Error> {
        let path = path.as_ref();
        let directory = match self.read_only {
            true => Directory::open_read_only(path),
            false => Directory::open(path),
        }?;
        let serve = self.serve && !self.read_only;
        let mut ledger = self.open_on(Arc::new(directory))?;
        ledger.directory = Some(path.to_owned());
        if serve {
            let handle = ledger.handle();
            match Service::start(path, move || handle.handle()) {
                Ok(service) => ledger.accompany(service),
                // A file system without sockets is no reason not to open the ledger.
                Err(error) => {
                    tracing::warn!(%error, "nobody can look at this ledger while it is open");
                }
            }
        }
        Ok(ledger)
    }

    /// Opens the ledger on any [`Disk`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_on(self, disk: Arc<dyn Disk>) -> Result<GeometricLedger, Error> {
        let writable = !self.read_only;
        let mut ledger = GeometricLedger::open(disk, self)?;
        if writable {
            let checks = Checks::start(ledger.handle())?;
            ledger.accompany(checks);
        }
        Ok(ledger)
    }
}

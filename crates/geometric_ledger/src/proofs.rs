//! The tree over all batches, for those who hold a root and want to be shown.

use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::storage::batch::{Batch, BatchProof};
use merkle_tree::{Hash, TreeSize};
use std::sync::atomic::Ordering;

impl GeometricLedger {
    /// How many batches there are, and the root over them (RFC 6962 §2.1).
    ///
    /// # Errors
    /// If the tree's files cannot be read.
    pub fn root(&self) -> Result<(TreeSize, Hash), Error> {
        let size = self.size()?;
        Ok((size, self.core.batches.root_at(size)?))
    }

    /// A committed batch.
    ///
    /// # Errors
    /// [`Error::Pruned`] if it is not kept any more; also if its row cannot be read.
    pub fn batch(&self, sequence: u64) -> Result<Option<Batch>, Error> {
        let found = self.core.batches.get(sequence)?;
        let pruned = self.core.batches.pruned();
        match found {
            None if (1..=pruned).contains(&sequence) => Err(Error::Pruned {
                asked: sequence,
                first: pruned + 1,
            }),
            found => Ok(found),
        }
    }

    /// That a batch is among all there are now.
    ///
    /// # Errors
    /// [`Error::Tree`] if there is no such batch, [`Error::Pruned`] if it is not kept any more.
    pub fn prove_batch(&self, sequence: u64) -> Result<BatchProof, Error> {
        self.core.batches.prove(sequence, self.size()?)
    }

    /// That a batch is among the first `size`.
    ///
    /// # Errors
    /// [`Error::Tree`] if there are fewer batches, or it is not among them; [`Error::Pruned`] if it is not
    /// kept any more.
    pub fn prove_batch_in(&self, sequence: u64, size: TreeSize) -> Result<BatchProof, Error> {
        self.core.batches.prove(sequence, self.within(size)?)
    }

    /// The root over the first `size` batches.
    ///
    /// # Errors
    /// [`Error::Tree`] if there are fewer, [`Error::Pruned`] if more than `size` were pruned.
    pub fn root_at(&self, size: TreeSize) -> Result<Hash, Error> {
        self.core.batches.root_at(self.within(size)?)
    }

    /// That the first `new` batches begin with the first `old` (RFC 6962 §2.1.2): checked by
    /// [`merkle_tree::verify_consistency`].
    ///
    /// # Errors
    /// [`Error::Tree`] if there are fewer, or `old` is greater than `new`; [`Error::Pruned`] if more than `old`
    /// were pruned.
    pub fn prove_consistency(&self, old: TreeSize, new: TreeSize) -> Result<Vec<Hash>, Error> {
        self.core.batches.prove_consistency(old, self.within(new)?)
    }

    fn within(&self, asked: TreeSize) -> Result<TreeSize, Error> {
        match self.size()? {
            size if asked > size => Err(Error::Tree(format!(
                "there are {size} batches, not {asked}"
            ))),
            _ => Ok(asked),
        }
    }

    fn size(&self) -> Result<TreeSize, Error> {
        let visible = self.core.visible.load(Ordering::Acquire);
        TreeSize::new(visible).map_err(|error| Error::Tree(error.to_string()))
    }
}

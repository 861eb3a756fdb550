//! What a client remembers of a log, and how it moves on.

use crate::{Error, TreeHead};
use merkle_tree::{TreeSize, verify_consistency};
use serde::{Deserialize, Serialize};
use serde_with::{base64::Base64, serde_as};

/// That one head of a log is a later state of another (RFC 6962 §2.1.2).
#[serde_as]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consistency {
    pub old: TreeHead,
    pub new: TreeHead,
    #[serde_as(as = "Vec<Base64>")]
    pub path: Vec<[u8; 32]>,
}

impl Consistency {
    /// # Errors
    /// If the heads are of two logs, or the new one does not continue the old.
    pub fn verify(&self) -> Result<(), Error> {
        if self.old.log != self.new.log {
            return Err(Error::Log {
                expected: self.old.log.clone(),
                found: self.new.log.clone(),
            });
        }
        let path: Vec<_> = self.path.iter().map(|hash| (*hash).into()).collect();
        Ok(verify_consistency(
            TreeSize::new(self.old.tree_size)?,
            TreeSize::new(self.new.tree_size)?,
            &self.old.root.into(),
            &self.new.root.into(),
            &path,
        )?)
    }
}

/// The latest head of a log that a client accepted. Keep it between runs: what a client forgets, a server
/// can rewrite. Give it to others, and hold theirs against it: that is how a server that shows two logs
/// is found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    head: TreeHead,
}

impl LogView {
    /// Trusts the first head that is seen, or one that came by another way.
    pub fn new(head: TreeHead) -> LogView {
        LogView { head }
    }

    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Moves on to a newer head, whose proof must begin at the one known.
    ///
    /// # Errors
    /// If the log was rewritten, went back, or is another. The view stays as it was.
    pub fn advance(&mut self, proof: &Consistency) -> Result<(), Error> {
        self.accept(&proof.old)?;
        proof.verify()?;
        self.head = proof.new.clone();
        Ok(())
    }

    /// That a head is the one known.
    ///
    /// # Errors
    /// If it is of another log, or another state of it; what that means is in the error.
    pub fn accept(&self, head: &TreeHead) -> Result<(), Error> {
        let (known, found) = (self.head.tree_size, head.tree_size);
        if head.log != self.head.log {
            Err(Error::Log {
                expected: self.head.log.clone(),
                found: head.log.clone(),
            })
        } else if found > known {
            Err(Error::Unconnected { known, found })
        } else if found < known {
            Err(Error::WentBack { known, found })
        } else if head.root != self.head.root {
            Err(Error::SplitView { size: found })
        } else {
            Ok(())
        }
    }
}

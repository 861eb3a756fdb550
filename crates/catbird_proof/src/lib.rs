//! What a client of a messaging server can check by itself, without the server's database.
//!
//! The server logs every message and every change of a key package in RFC 6962 logs. For one of them it
//! hands out a [`Proof`]: the leaf data that was hashed, and the path from it to a [`TreeHead`]. A
//! [`LogView`] is what a client remembers of a log; it accepts a newer head only with the proof that
//! nothing before it was rewritten, so all who compare heads see one log or find out.
//!
//! ```
//! use catbird_proof::{Consistency, KeyPackage, LogView, Proof};
//!
//! /// Whether to encrypt to a key package that the server gave out.
//! fn trust(view: &mut LogView, proof: &Proof, since: &Consistency, package: KeyPackage) -> Result<(), catbird_proof::Error> {
//!     view.advance(since)?;              // the log only grew since this client last looked,
//!     view.accept(&proof.head)?;         // the proof is about that log,
//!     proof.verify_key_package(&package) // and the package is in it.
//!         .map(drop)
//! }
//! ```

mod proof;
mod view;

pub use proof::{KeyPackage, KeyPackageEntry, Message, Proof, TreeHead};
pub use view::{Consistency, LogView};

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the proof does not hold: {0}")]
    Proof(#[from] merkle_tree::VerifyError),
    #[error("{0}")]
    OutOfRange(#[from] merkle_tree::OutOfRange),
    #[error("the entry is not one of the log's: {0}")]
    Leaf(#[from] leaf_format::Error),
    #[error("the entry is about a {found}, not about a {expected}")]
    Subject {
        expected: &'static str,
        found: String,
    },
    #[error("the entry's {column} is another than was given")]
    Differs { column: &'static str },
    #[error("the head is of log {found}, not of {expected}")]
    Log { expected: String, found: String },
    #[error(
        "a head of {size} entries has another root than the one known: the server shows different logs to different clients"
    )]
    SplitView { size: u64 },
    #[error(
        "the head has {found} entries, fewer than the {known} that are known: the log went back"
    )]
    WentBack { known: u64, found: u64 },
    #[error(
        "the head of {found} entries is not known to follow the one of {known}: ask for the proof"
    )]
    Unconnected { known: u64, found: u64 },
}

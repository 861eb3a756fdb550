//! A client of transparency logs (C2SP tlog-tiles), such as those that merkle_log exports.
//!
//! It keeps the last checkpoint that it has seen in a file, and believes a checkpoint only if the log grew
//! from the kept one to it: a log that is rewritten and signed anew is refused, whoever holds its key.
//!
//! ```
//! use merkle_log_client::{Client, Directory};
//! # let directory = tempfile::tempdir()?;
//! # let (exported, kept) = (directory.path(), directory.path().join("kept"));
//! # let key = tlog::SigningKey::from_seed(tlog::KeyName::new("example.com/log")?, tlog::SignatureType::Ed25519, &[1; 32])?;
//! # let mut note = tlog::SignedNote::new("example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")?;
//! # tlog::Signer::name(&key);
//! # note.sign(&key, 0)?;
//! # std::fs::write(exported.join("checkpoint"), note.to_string())?;
//! # let verifier_key = key.verifier_key();
//!
//! let policy = tlog::Policy::of_log(verifier_key);
//! let client = Client::new(Directory::new(exported), policy, kept); // or Client::http("https://…", …)
//! let latest = client.latest()?;
//! println!("{} entries", latest.verified.checkpoint.size());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod asynchronous;
mod client;
mod error;
mod growth;
#[cfg(feature = "http")]
mod http;
mod kept;
mod retry;
#[cfg(feature = "http")]
mod submit;
mod tiles;
mod transport;

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncClient;
#[cfg(all(feature = "tokio", feature = "http"))]
pub use asynchronous::AsyncWitnessClient;
pub use client::{Client, Entry, Latest, Progress};
pub use error::Error;
pub use growth::{Growth, compare};
#[cfg(feature = "http")]
pub use http::Http;
pub use kept::{Kept, Lock};
pub use retry::Retry;
#[cfg(feature = "http")]
pub use submit::{Offered, SubmitError, WitnessClient};
pub use tiles::Tiles;
pub use transport::{Directory, Transport, TransportError};

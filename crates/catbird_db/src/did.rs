//! Who someone is.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A decentralized identifier (W3C DID 1.0 §3.1) of at most 512 bytes: `did:plc:…`, `did:web:…`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(try_from = "String", into = "String")]
#[sqlx(transparent)]
pub struct Did(String);

/// Of a DID, in bytes: an index entry must hold it.
const MAX_LENGTH: usize = 512;

impl Did {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Did {
    type Err = Error;

    fn from_str(text: &str) -> Result<Did, Error> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Did {
    type Error = Error;

    /// # Errors
    /// [`Error::Invalid`].
    fn try_from(text: String) -> Result<Did, Error> {
        let mut parts = text.splitn(3, ':');
        let (scheme, method, id) = (parts.next(), parts.next(), parts.next());
        let in_method = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let in_id = |b: u8| b.is_ascii_alphanumeric() || b"._:%-".contains(&b);
        let valid = text.len() <= MAX_LENGTH
            && scheme == Some("did")
            && method.is_some_and(|method| !method.is_empty() && method.bytes().all(in_method))
            && id.is_some_and(|id| {
                !id.is_empty() && id.bytes().all(in_id) && !id.ends_with([':', '%'])
            });
        if valid {
            Ok(Did(text))
        } else {
            Err(Error::invalid("DID", format!("{text:?} is none")))
        }
    }
}

impl From<Did> for String {
    fn from(did: Did) -> String {
        did.0
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

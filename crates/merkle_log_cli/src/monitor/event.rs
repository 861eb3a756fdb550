//! What can be wrong with a log, and what is told of it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It has signed two histories.
    Fork,
    /// It shows fewer entries than before.
    WentBack,
    /// Its checkpoint is not signed by its key, or falsely.
    BadSignature,
    /// Too few witnesses have cosigned.
    QuorumLost,
    /// Its tiles are not what follows from its entries, or do not lead to its root.
    TileMismatch,
    /// Its entries are not those whose hashes are in its tiles.
    EntryMismatch,
    /// Its database has rows that are not what was logged.
    Finding,
    /// Its entries could not be compared with its rows for longer than allowed.
    Unverified,
    /// No check could be completed for longer than allowed.
    Unreachable,
    /// It has not grown for longer than allowed.
    Stale,
}

impl Trouble {
    pub const ALL: [Trouble; 10] = [
        Trouble::Fork,
        Trouble::WentBack,
        Trouble::BadSignature,
        Trouble::QuorumLost,
        Trouble::TileMismatch,
        Trouble::EntryMismatch,
        Trouble::Finding,
        Trouble::Unverified,
        Trouble::Unreachable,
        Trouble::Stale,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::Fork => "fork",
            Trouble::WentBack => "went_back",
            Trouble::BadSignature => "bad_signature",
            Trouble::QuorumLost => "quorum_lost",
            Trouble::TileMismatch => "tile_mismatch",
            Trouble::EntryMismatch => "entry_mismatch",
            Trouble::Finding => "finding",
            Trouble::Unverified => "unverified",
            Trouble::Unreachable => "unreachable",
            Trouble::Stale => "stale",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// While this stays the same, it is the same thing that is wrong, and is not told again.
    pub same: String,
    pub detail: String,
    /// Shown by signatures and hashes, rather than supposed.
    pub proven: bool,
    /// The file that convicts the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// What is told, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The log's name and a number. Whoever is told twice, because it was not known that the first time was heard, knows
    /// it by this.
    pub id: String,
    pub time: String,
    pub log: String,
    pub origin: String,
    /// The kind of what is wrong, or `recovered`.
    pub event: String,
    /// What is right again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Trouble>,
    pub proven: bool,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

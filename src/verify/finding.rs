//! What `verify_log` finds: kinds, each with its meaning, and findings.
//!
//! `finding_kinds()` shows this list, and docs/findings.md is checked against it.

use merkle_tree::Hash;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($variant:ident $name:literal $of:ident $meaning:literal)*) => {
        /// What is wrong, as `verify_log` names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Kind {
            $(#[doc = $meaning] $variant,)*
        }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Kind::$variant => $name,)*
                }
            }

            pub fn from_name(name: &str) -> Option<Kind> {
                Kind::ALL.iter().copied().find(|k| k.as_str() == name)
            }

            /// Whose fault it is.
            pub fn of(self) -> Of {
                match self {
                    $(Kind::$variant => Of::$of,)*
                }
            }

            pub fn meaning(self) -> &'static str {
                match self {
                    $(Kind::$variant => $meaning,)*
                }
            }
        }
    };
}

/// Where the fault lies that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A row of a source.
    Source,
    /// A table of the extension.
    Extension,
    /// Nowhere: something was done on purpose, and is on record.
    Nobody,
}

impl Of {
    pub fn as_str(self) -> &'static str {
        match self {
            Of::Source => "source",
            Of::Extension => "extension",
            Of::Nobody => "nobody",
        }
    }
}

kinds! {
    Modified "modified" Source
        "A row is not what was logged."
    Deleted "deleted" Source
        "A row was logged and does not exist, or its table does not."
    Unlogged "unlogged" Source
        "A row that should have an entry has none: it was slipped in behind the watermark, or came past the triggers."
    SchemaChanged "schema_changed" Source
        "The columns of a table changed so much that its entries cannot be computed again."
    Redacted "redacted" Nobody
        "An entry was redacted; the detail says why."
    Detached "detached" Nobody
        "A row went with a partition that left its table, which is on record."
    Retired "retired" Nobody
        "Rows were retired, which is on record, and some are gone from their table; the detail says how many were."
    SourceRemoved "source_removed" Nobody
        "A source was removed from the log; the detail says what cannot be said about its entries any more."
    Renamed "renamed" Nobody
        "A name stands for another column, label or attribute than when entries were logged, so that rows read otherwise than they did; the versions of the columns say since when."
    OrderChanged "order_changed" Nobody
        "The order column of a source gets its values in another way than it did when the source was added: rows may come late."
    Unredacted "unredacted" Extension
        "The key of an entry was redacted, and what the entry was made from is still stored."
    EntryAltered "entry_altered" Extension
        "An entry was changed in merkle_log: its leaf hash, key, order value or source."
    EntryMissing "entry_missing" Extension
        "An entry does not exist, or cannot be found by the key of its row."
    LoggedTwice "logged_twice" Extension
        "A row of a source with a watermark has two entries."
    LeafDataAltered "leaf_data_altered" Extension
        "The stored leaf data or salt of an entry is not what was hashed, or was erased without a redaction."
    MetadataAltered "metadata_altered" Extension
        "Of a batch, a key, an order value, a salt, a statement or the time of its tree head was changed, added or removed."
    IndexMismatch "index_mismatch" Extension
        "merkle_order_index, merkle_hash_index or the hash of a key leads to another entry than it should, or to none."
    TileMismatch "tile_mismatch" Extension
        "A stored tile is not that of the entries, or of the tiles below it."
    HeadMismatch "head_mismatch" Extension
        "A stored tree head is not that of the entries."
    CheckpointMismatch "checkpoint_mismatch" Extension
        "A checkpoint is not that of the tree head of its size, or is not signed; or one that is known to have been signed is not contained in the log."
    ConfigurationAltered "configuration_altered" Extension
        "A log, a source, or a version of its columns is not configured as the administration log says."
    LateEntryAltered "late_entry_altered" Extension
        "merkle_late_entry does not have the entries that the administration log says came late."
    SealAltered "seal_altered" Extension
        "A sealed range or its index is not what the entry says that seals it, or not that of its entries, so that proofs of which entries a key has would be false."
    WatermarkAltered "watermark_altered" Extension
        "The watermark of a source is not at its last entry, so that rows would be logged twice or not at all."
    Unrecorded "unrecorded" Extension
        "The configuration is not on record: the database was just updated from a version without an administration log, or that log was damaged."
    Unreadable "unreadable" Extension
        "A table of the extension holds something that no version of it writes, and what depends on it could not be checked."
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub kind: Kind,
    /// The kind that it had before something else that was found told better, where it could be another.
    pub found_as: Option<Kind>,
    /// It may be so for a while, and is no fault before it has been so for long.
    pub is_tentative: bool,
    /// What is wrong now, where neither the place nor the hash of a row tells: another value is another finding.
    pub is_now: Option<Vec<u8>>,
    pub source_table: Option<String>,
    pub source_key: Option<String>,
    pub leaf_index: Option<i64>,
    pub expected: Option<Vec<u8>>,
    pub actual: Option<Vec<u8>>,
    pub detail: String,
}

impl Finding {
    pub fn of_log(kind: Kind, leaf_index: Option<i64>, detail: String) -> Finding {
        Finding {
            kind,
            found_as: None,
            is_tentative: false,
            is_now: None,
            source_table: None,
            source_key: None,
            leaf_index,
            expected: None,
            actual: None,
            detail,
        }
    }

    /// What is said of a row that is not what its entry says, or is not there.
    pub fn of_row(kind: Kind) -> &'static str {
        match kind {
            Kind::Deleted => "the row was logged and does not exist",
            _ => "the row is not what was logged",
        }
    }

    pub fn hashes(mut self, expected: Option<&Hash>, actual: Option<&Hash>) -> Finding {
        self.expected = expected.map(|h| h.as_bytes().to_vec());
        self.actual = actual.map(|h| h.as_bytes().to_vec());
        self
    }
}

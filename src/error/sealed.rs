//! Why it cannot be proven which entries a key has.

use super::literal;
use pgrx::PgSqlErrorCode;

#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    #[error("no range of log \"{log}\" is sealed")]
    Nothing { log: String },
    #[error(
        "the entries {from} to {to} of log \"{log}\" are not all in sealed ranges: {first} is not"
    )]
    NotSealed {
        log: String,
        from: i64,
        to: i64,
        first: i64,
    },
    #[error(
        "keys of table \"{table}\" can be written in several ways, so that a proof about one text would not be about a key"
    )]
    Spellings { table: String },
    #[error(
        "the row with key {key} of table \"{table}\" was called otherwise before a label was renamed, so that one proof would not be about the row"
    )]
    Renamed { table: String, key: String },
    #[error("the proof would have {what} in log \"{log}\", and has {most} at most")]
    TooMany {
        log: String,
        what: String,
        most: usize,
    },
    #[error(
        "in the sealed range that begins at entry {from} of log \"{log}\", another key cannot be told from this one"
    )]
    Alike { log: String, from: i64 },
}

impl SealedError {
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            SealedError::Nothing { .. } | SealedError::NotSealed { .. } => {
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            SealedError::Spellings { .. } | SealedError::Renamed { .. } => {
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED
            }
            SealedError::TooMany { .. } => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            SealedError::Alike { .. } => PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        }
    }

    pub fn hint(&self) -> String {
        match self {
            SealedError::Nothing { log } => {
                format!("Whoever manages the log seals what it has: SELECT * FROM seal_range({}).", literal(log))
            }
            SealedError::NotSealed { log, .. } => format!(
                "SELECT * FROM sealed_ranges({0}) lists what is sealed. Of entries that were not pruned, SELECT * FROM seal_range({0}) seals the rest.",
                literal(log)
            ),
            SealedError::Spellings { .. } => {
                "Such are keys of type numeric, float, interval, jsonb or character(n), of a nondeterministic collation, and of columns whose type was changed. What the log has of the row, history_of shows."
                    .to_owned()
            }
            SealedError::Renamed { .. } => "What the log has of the row, history_of shows.".to_owned(),
            SealedError::TooMany { .. } => {
                "Ask for a part: absence_proof(log, table, key, from_leaf_index, to_leaf_index) is about the sealed ranges between two leaf indexes."
                    .to_owned()
            }
            SealedError::Alike { .. } => {
                "The hashes of two keys agree by chance. Whoever may read the log's entries can look through them: log_entries."
                    .to_owned()
            }
        }
    }
}

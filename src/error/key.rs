//! What can be wrong with the values that a caller gives for a row's key.

use super::identifier;
use pgrx::PgSqlErrorCode;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key of table \"{table}\" has {} ({}), and {given} were given", columns_in_words(.columns.len()), .columns.join(", "))]
    Count {
        table: String,
        columns: Vec<String>,
        given: usize,
    },
    #[error("the value for key column \"{column}\" of table \"{table}\" must not be null")]
    Null { table: String, column: String },
    #[error(
        "key column \"{column}\" of table \"{table}\" has type {type_name}, which does not compare to {given}"
    )]
    Type {
        table: String,
        column: String,
        type_name: String,
        given: String,
    },
    #[error(
        "no row of table \"{table}\" can have {value} in key column \"{column}\", which has type {type_name}"
    )]
    NoValue {
        table: String,
        column: String,
        type_name: String,
        value: String,
    },
    #[error(
        "the keys of many rows are an array for each column of the key, not a value of type {given}"
    )]
    NoArray { given: String },
    #[error("the arrays of the columns of the keys have {} elements", .lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(" and "))]
    Lengths { lengths: Vec<usize> },
}

fn columns_in_words(columns: usize) -> String {
    match columns {
        1 => "1 column".to_owned(),
        n => format!("{n} columns"),
    }
}

impl KeyError {
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        match self {
            KeyError::Count { .. } => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            KeyError::Null { .. } => PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            KeyError::Type { .. } => PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            KeyError::NoValue { .. } => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            KeyError::NoArray { .. } => PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            KeyError::Lengths { .. } => PgSqlErrorCode::ERRCODE_ARRAY_ELEMENT_ERROR,
        }
    }

    pub fn hint(&self) -> String {
        match self {
            KeyError::Count { columns, .. } => {
                let columns: Vec<String> = columns.iter().map(|c| identifier(c)).collect();
                format!(
                    "Give one value a column, in this order: {}.",
                    columns.join(", ")
                )
            }
            KeyError::Null { .. } => {
                "The columns of a key are not null: a row is found by a value for each of them."
                    .to_owned()
            }
            KeyError::Type { type_name, .. } => {
                format!("Give a value of type {type_name}, or its text: $1::{type_name}, $1::text.")
            }
            KeyError::NoValue { type_name, .. } => format!("Give a value of type {type_name}."),
            KeyError::NoArray { .. } => {
                "Give ARRAY[...] or array_agg(...), and say of which type a literal or a parameter is: '{1,2}'::bigint[], $1::bigint[]."
                    .to_owned()
            }
            KeyError::Lengths { .. } => {
                "The first elements are the first key, the second elements the second key, as in unnest."
                    .to_owned()
            }
        }
    }
}

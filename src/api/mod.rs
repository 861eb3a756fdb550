//! The SQL functions, one file a group: parse, call, return.

pub mod absence;
pub mod administration;
pub mod as_of;
pub mod batch;
pub mod bundles;
pub mod by_key;
pub mod checkpoints;
pub mod ddl;
pub mod entries;
pub mod find;
pub mod findings;
pub mod history;
pub mod logs;
pub mod many_rows;
pub mod ops;
pub mod proofs;
pub mod retire;
pub mod retired;
pub mod schedule;
pub mod sources;
pub mod triggers;
pub mod verify;
pub mod worker;

use crate::capture::given_key::{GivenKey, MAX_KEY};
use crate::error::Error;

/// Bytes of the longest name that an object of the server can have.
const MAX_NAME: usize = 63;
/// Columns of the widest table.
const MAX_COLUMNS: usize = 1600;
/// Characters of a text that errors repeat.
const SHOWN: usize = 100;

/// An argument that has a value for every call.
fn required<T>(name: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Null { name })
}

/// A log's name. One that is longer than a name can be is no log's, and is not repeated.
fn log_name<'a>(name: &'static str, value: Option<&'a str>) -> Result<&'a str, Error> {
    let value = required(name, value)?;
    match value.len() <= MAX_NAME {
        true => Ok(value),
        false => Err(Error::NoSuchLog(shortened(value))),
    }
}

/// A row's key as one text.
fn given_key(key: Option<&str>) -> Result<GivenKey<'_>, Error> {
    let key = required("key", key)?;
    match key.len() <= MAX_KEY {
        true => Ok(GivenKey::Text(key)),
        false => Err(Error::Argument {
            name: "key",
            must: "the key of a row, which no index holds at this length",
            value: format!("{} bytes", key.len()),
        }),
    }
}

/// Names of columns, without NULLs in the array.
fn column_names(
    name: &'static str,
    values: Option<pgrx::Array<&str>>,
) -> Result<Option<Vec<String>>, Error> {
    let Some(values) = values else {
        return Ok(None);
    };
    if values.len() > MAX_COLUMNS {
        return Err(Error::Argument {
            name,
            must: "a list of no more columns than a table can have",
            value: format!("{} names", values.len()),
        });
    }
    let values = without_nulls(name, values)?;
    let names = values
        .iter()
        .map(|value| Ok(shortened(required(name, value)?)));
    names.collect::<Result<_, _>>().map(Some)
}

/// An array argument, if it has no NULL in it.
fn without_nulls<'a, T>(
    name: &'static str,
    array: pgrx::Array<'a, T>,
) -> Result<pgrx::Array<'a, T>, Error> {
    match array.contains_nulls() {
        true => Err(Error::Null { name }),
        false => Ok(array),
    }
}

/// A text to show, as far as anybody reads it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

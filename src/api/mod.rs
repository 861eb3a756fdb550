//! The SQL functions, one file a group: parse, call, return.

pub mod administration;
pub mod batch;
pub mod history;
pub mod logs;
pub mod ops;
pub mod proofs;
pub mod retired;
pub mod sources;
pub mod triggers;
pub mod verify;
pub mod worker;

use crate::error::Error;

/// An argument that has a value for every call.
fn required<T>(name: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Null { name })
}

/// An array argument without NULLs in it.
fn elements(
    name: &'static str,
    values: Option<Vec<Option<String>>>,
) -> Result<Option<Vec<String>>, Error> {
    let all = |values: Vec<_>| values.into_iter().map(|v| required(name, v)).collect();
    values.map(all).transpose()
}

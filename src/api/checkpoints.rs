//! Checkpoints: signing, serving, and what is known of them outside.

use super::{log_name, required, without_nulls};
use crate::checkpoint;
use crate::error::Error;
use crate::session::Session;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Bytes of the longest note: a hundred signatures, the largest of 2,420 bytes in base64, with long names.
const MAX_NOTE: usize = 512 << 10;
/// Keys that are given at once.
const MAX_KEYS: usize = 1000;

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn checkpoint(log: Option<&str>) -> Result<String, ErrorReport> {
    Session::enter(|session| checkpoint::newest(session, log_name("log", log)?))
}

#[pg_extern(stable, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn checkpoint_key(log: Option<&str>) -> Result<String, ErrorReport> {
    Session::enter(|session| checkpoint::verifier_key(session, log_name("log", log)?))
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn accept_checkpoint(note: Option<&str>) -> Result<String, ErrorReport> {
    Session::write(None, |session| {
        let standing = checkpoint::accept(session, given_note(note)?)?;
        Ok(standing.as_str().to_owned())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn add_cosignature(
    log: Option<&str>,
    note: Option<&str>,
    witness_keys: Option<pgrx::Array<&str>>,
) -> Result<i32, ErrorReport> {
    Session::write(log, |session| {
        let (log, note) = (log_name("log", log)?, given_note(note)?);
        let given = without_nulls("witness_keys", required("witness_keys", witness_keys)?)?;
        if given.len() > MAX_KEYS {
            return Err(Error::Argument {
                name: "witness_keys",
                must: "a list of at most 1,000 verifier keys",
                value: format!("{} keys", given.len()),
            });
        }
        let keys: Vec<String> = given.iter().flatten().map(str::to_owned).collect();
        checkpoint::cosign(session, log, note, &keys)
    })
}

fn given_note(note: Option<&str>) -> Result<&str, Error> {
    let note = required("note", note)?;
    // psql writes a line end behind a value, so a file of its output has one more than the note.
    let note = match note.strip_suffix('\n') {
        Some(shorter) if shorter.ends_with('\n') => shorter,
        _ => note,
    };
    match note.len() <= MAX_NOTE {
        true => Ok(note),
        false => Err(Error::Argument {
            name: "note",
            must: "a signed note, which is never this long",
            value: format!("{} bytes", note.len()),
        }),
    }
}

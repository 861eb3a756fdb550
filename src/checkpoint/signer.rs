//! A checkpoint that is asked for is signed by a process of its own, so that it is committed before the caller has it: a
//! caller may roll back, or lose its connection, and has read the note all the same.

use crate::error::{CheckpointError, Error, Refusal};
use crate::pg::{own_transaction, worker};
use crate::session::Session;
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

const TITLE: &str = "merkle_log signer";

#[derive(Serialize, Deserialize)]
enum Answer {
    Note(String),
    Refused(Refusal),
}

/// The newest checkpoint, signed and committed.
pub fn sign(log: &str) -> Result<String, Error> {
    let failed = |why: fn(String) -> CheckpointError| Error::Checkpoint(why(log.to_owned()));
    let answer = own_transaction::ask(TITLE, c"merkle_log_signer_main", log.as_bytes())
        .map_err(|_| failed(|log| CheckpointError::NoProcess { log }))?;
    let answer = answer.ok_or_else(|| failed(|log| CheckpointError::NoAnswer { log }))?;
    match serde_json::from_slice(&answer).expect("written by this library") {
        Answer::Note(note) => Ok(note),
        Answer::Refused(refusal) => Err(Error::OfWorker(refusal)),
    }
}

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn merkle_log_signer_main(argument: pg_sys::Datum) {
    own_transaction::serve(argument, |log| {
        let log = std::str::from_utf8(log).expect("a text of the server's");
        let answer = match signed(log) {
            Ok(note) => Answer::Note(note),
            Err(refusal) => Answer::Refused(refusal),
        };
        serde_json::to_vec(&answer).expect("texts and numbers are JSON")
    });
}

fn signed(log: &str) -> Result<String, Refusal> {
    let signed = worker::transaction(|| {
        let signed = Session::enter(|session| super::sign(session, log));
        signed.unwrap_or_else(|report| Error::raise_report(report))
    });
    signed.map_err(Refusal::from)
}

//! The key that signs: read from the file that `merkle_log.signing_key_file` names, once a process, and again after the
//! configuration was reloaded.

use crate::error::{CheckpointError, Error};
use crate::pg::wal;
use crate::settings;
use once_cell::unsync::OnceCell;
use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use tlog::{KeyName, SignatureType, SigningKey};

/// Bytes of the longest file.
const LONGEST: u64 = 4096;

/// A key, or that none was read yet, under a configuration: its file, and when it was loaded.
struct Kept {
    path: String,
    loaded: i64,
    key: OnceCell<Rc<SigningKey>>,
}

thread_local! {
    static KEPT: RefCell<Option<Rc<Kept>>> = const { RefCell::new(None) };
}

/// The key of a log, which follows from that of the file.
pub fn of_log(origin: &str) -> Result<SigningKey, Error> {
    let name = KeyName::new(origin).map_err(|e| origin_error(origin, &e))?;
    let of_log = key()?.of_log(name);
    of_log.map_err(|e| origin_error(origin, &e))
}

/// As [`of_log`]; `None` where no file is configured.
pub fn configured(origin: &str) -> Result<Option<SigningKey>, Error> {
    match settings::signing_key_file() {
        Some(_) => of_log(origin).map(Some),
        None => Ok(None),
    }
}

pub fn origin_error(origin: &str, problem: &tlog::Error) -> Error {
    Error::Checkpoint(CheckpointError::Origin {
        origin: origin.to_owned(),
        problem: problem.to_string(),
    })
}

fn key() -> Result<Rc<SigningKey>, Error> {
    let path = settings::signing_key_file().ok_or(Error::Checkpoint(CheckpointError::NoKey))?;
    let loaded = wal::reload_time();
    let kept = KEPT.with_borrow_mut(|kept| {
        let current = kept.take().filter(|k| k.path == path && k.loaded == loaded);
        let current = current.unwrap_or_else(|| {
            let key = OnceCell::new();
            Rc::new(Kept { path, loaded, key })
        });
        kept.insert(current).clone()
    });
    let key = kept.key.get_or_try_init(|| read(&kept.path).map(Rc::new));
    key.cloned().map_err(|problem| {
        Error::Checkpoint(CheckpointError::KeyFile {
            path: kept.path.clone(),
            problem,
        })
    })
}

/// Reads a key file. What is wrong is said without any of its content.
fn read(path: &str) -> Result<SigningKey, String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {}", e.kind());
    // Opening what is no file may wait for ever.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is no file".to_owned());
    }
    let mut file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.uid() != wal::server_user() {
        return Err("belongs to another user than the server runs as".to_owned());
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("can be reached by others: its mode is {mode:04o}"));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    let limited = file.by_ref().take(LONGEST);
    { limited }.read_to_string(&mut text).map_err(cannot)?;
    let key = text.strip_suffix('\n').unwrap_or(&text);
    let key = SigningKey::from_text(key).map_err(|e| format!("does not hold a key: {e}"))?;
    match key.verifier_key().signature_type() {
        SignatureType::Ed25519 => Ok(key),
        _ => Err("holds a key for cosignatures, not for a log".to_owned()),
    }
}

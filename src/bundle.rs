//! Proof bundles (docs/proof-format.md): entries of a log with their proofs and the newest checkpoint that has them.

use crate::capture::given_key::GivenKey;
use crate::capture::row_key;
use crate::capture::shape::Shape;
use crate::catalog::logs::{ADMINISTRATION, Log};
use crate::catalog::sources::{self, OF_LOG, Source};
use crate::error::{CheckpointError, Error};
use crate::pg::spi::Snapshot;
use crate::prove;
use crate::session::Session;
use crate::store::checkpoints::{self, Stored};
use crate::store::entries::{self, Entry};
use crate::store::leaves;
use leaf_format::{Columns, Leaf};
use merkle_tree::{Hash, LeafIndex, leaf_hash};
use pgrx::pg_sys;
use tlog::{BundleEntry, BundleLeaf, Label, ProofBundle, SignedNote};

/// Entries that one bundle has at most.
const MOST: usize = 10_000;

/// A bundle of the entries with these indexes, under the newest checkpoint: one entry has a path, several have one proof.
///
/// # Errors
/// If a checkpoint that has all of them was not signed yet, or they are too many.
pub fn of_entries(session: &Session, log: &Log, indexes: Vec<i64>) -> Result<ProofBundle, Error> {
    let newest = checkpoints::latest(session, Snapshot::Statement, log);
    under(session, log, newest, indexes)
}

/// The same under the checkpoint of a size.
///
/// # Errors
/// If there is none, or it does not have all of the entries.
pub fn of_entries_at(
    session: &Session,
    log: &Log,
    size: i64,
    indexes: Vec<i64>,
) -> Result<ProofBundle, Error> {
    let found = checkpoints::at(session, Snapshot::Statement, log, size);
    let found = found.ok_or_else(|| {
        Error::Checkpoint(CheckpointError::NoCheckpoint {
            log: log.name.clone(),
            size: size.to_string(),
        })
    })?;
    under(session, log, Some(found), indexes)
}

fn under(
    session: &Session,
    log: &Log,
    signed: Option<Stored>,
    mut indexes: Vec<i64>,
) -> Result<ProofBundle, Error> {
    indexes.sort_unstable();
    indexes.dedup();
    check_number(indexes.len())?;
    let last = indexes.last().copied().unwrap_or_default();
    let signed = signed.filter(|signed| last < signed.tree_size);
    let signed = signed.ok_or_else(|| {
        Error::Checkpoint(CheckpointError::NotYetSigned {
            log: log.name.clone(),
            index: last,
        })
    })?;
    let size = signed.tree_size;
    let checkpoint: SignedNote = signed
        .note
        .parse()
        .map_err(|e: tlog::Error| Error::Damaged {
            log: log.name.clone(),
            problem: format!("the checkpoint of size {size}: {e}"),
        })?;
    if let [index] = *indexes {
        let proof = prove::entry(session, Snapshot::Statement, log, index, Some(size))?;
        let leaves = [(index, proof.leaf)];
        let mut entries = without_paths(session, log, &leaves, size)?;
        entries.iter_mut().for_each(|e| e.path = proof.path.clone());
        return Ok(ProofBundle {
            checkpoint,
            entries,
            multiproof: None,
            hub: None,
        });
    }
    let proven = prove::together(session, log, indexes, Some(size))?;
    let leaves = proven.indexes.into_iter().zip(proven.proof.leaves);
    let leaves: Vec<(i64, Hash)> = leaves.collect();
    Ok(ProofBundle {
        checkpoint,
        entries: without_paths(session, log, &leaves, size)?,
        multiproof: Some(proven.proof.nodes),
        hub: None,
    })
}

/// The entries with these indexes and leaf hashes as a bundle has them, still without their paths.
pub fn without_paths(
    session: &Session,
    log: &Log,
    leaves: &[(i64, Hash)],
    size: i64,
) -> Result<Vec<BundleEntry>, Error> {
    let sources = sources::all(session, log);
    let entries = leaves.iter().map(|leaf| {
        pgrx::check_for_interrupts!();
        entry(session, log, &sources, *leaf, size)
    });
    entries.collect()
}

/// That a bundle can have so many entries.
pub fn check_number(entries: usize) -> Result<(), Error> {
    match (1..=MOST).contains(&entries) {
        true => Ok(()),
        false => Err(Error::Argument {
            name: "leaf_index",
            must: "one leaf index, or up to 10,000",
            value: format!("{entries} of them"),
        }),
    }
}

/// A bundle of the latest entry of the row with this key.
pub fn of_row(
    session: &Session,
    log: &Log,
    relation: pg_sys::Oid,
    key: GivenKey,
) -> Result<ProofBundle, Error> {
    let proof = prove::row(session, Snapshot::Statement, &log.name, relation, key, None)?;
    of_entries(session, log, vec![proof.index])
}

fn entry(
    session: &Session,
    log: &Log,
    sources: &[Source],
    (index, leaf): (i64, Hash),
    size: i64,
) -> Result<BundleEntry, Error> {
    let stored = entries::at(session, Snapshot::Statement, log, index, size)?;
    let source = sources.iter().find(|s| s.id == stored.source_id);
    let may_read = match source {
        Some(source) => session.caller_may_read(source)?,
        None => may_read_own(session, log, &stored),
    };
    let data = match may_read {
        true => shown(session, log, source, index, leaf),
        false => None,
    };
    let label = source
        .filter(|_| may_read)
        .and_then(|source| label(session, log, source, &stored, data.as_deref()));
    let at = u64::try_from(index).ok();
    let at = at.and_then(|at| LeafIndex::new(at).ok());
    Ok(BundleEntry {
        index: at.ok_or_else(|| Error::Damaged {
            log: log.name.clone(),
            problem: format!("{index} is no leaf index"),
        })?,
        leaf: data.map_or(BundleLeaf::Hash(leaf), BundleLeaf::Data),
        path: Vec::new(),
        label,
    })
}

fn may_read_own(session: &Session, log: &Log, entry: &Entry) -> bool {
    match log.id {
        ADMINISTRATION => session.check_caller_is_owner().is_ok(),
        _ => entry.source_id == OF_LOG && session.check_caller_reads_own(log, &entry.key).is_ok(),
    }
}

/// The leaf data that a bundle shows: those that the log keeps, or those of the row as it is now, where they are what
/// was logged. Those of a salted source are not shown: whoever has them could prove to third parties what is in the
/// row, for as long as they keep the bundle, whatever is redacted.
fn shown(
    session: &Session,
    log: &Log,
    source: Option<&Source>,
    index: i64,
    leaf: Hash,
) -> Option<Vec<u8>> {
    if source.is_some_and(|s| s.salted) {
        return None;
    }
    let kept = leaves::kept(session, log, index, index + 1);
    let data = match kept.into_values().next() {
        Some(kept) => Some(kept),
        None => source.and_then(|_| prove::leaf_data(session, log, index).ok()),
    };
    data.filter(|data| leaf_hash(data) == leaf)
}

/// What the row is, for people, unless the leaf data call it or its columns something else by now.
fn label(
    session: &Session,
    log: &Log,
    source: &Source,
    entry: &Entry,
    data: Option<&[u8]>,
) -> Option<Label> {
    let shape = Shape::load(session, log, source).ok()?;
    let parts = row_key::parts(&shape, &entry.key).ok()?;
    let names = shape.key.iter().map(|column| column.name.clone());
    let label = Label {
        source: source.name.clone(),
        key: names.zip(parts).collect(),
    };
    let agrees = |leaf: Leaf| {
        let has_columns = match &leaf.columns {
            Columns::Map(columns) => label.key.iter().all(|(name, _)| columns.contains_key(name)),
            _ => true,
        };
        leaf.source == label.source && has_columns
    };
    let leaf = data.and_then(|data| Leaf::decode(data).ok());
    leaf.is_none_or(agrees).then_some(label)
}

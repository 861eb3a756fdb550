//! Proof bundles (docs/proof-format.md): entries of a log with their proofs and the newest checkpoint that has them.

use crate::capture::given_key::GivenKey;
use crate::capture::row_key;
use crate::capture::shape::Shape;
use crate::catalog::logs::{ADMINISTRATION, Log};
use crate::catalog::sources::{self, OF_LOG, Source};
use crate::error::{CheckpointError, Error};
use crate::pg::spi::Snapshot;
use crate::prove::{self, Inclusion};
use crate::session::Session;
use crate::store::checkpoints::{self, Stored};
use crate::store::entries::{self, Entry};
use crate::store::leaves;
use leaf_format::{Columns, Leaf};
use merkle_tree::{LeafIndex, leaf_hash};
use pgrx::pg_sys;
use tlog::{BundleEntry, BundleLeaf, Label, ProofBundle, SignedNote};

/// Entries that one bundle has at most.
pub const MOST: usize = 10_000;

/// A bundle of the entries with these indexes, under the newest checkpoint.
///
/// # Errors
/// If a checkpoint that has all of them was not signed yet.
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
    let sources = sources::all(session, log);
    let bundled = indexes.iter().map(|index| {
        pgrx::check_for_interrupts!();
        let proof = prove::entry(session, Snapshot::Statement, log, *index, Some(size))?;
        entry(session, log, &sources, proof, size)
    });
    Ok(ProofBundle {
        checkpoint,
        entries: bundled.collect::<Result<_, Error>>()?,
        hub: None,
    })
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
    proof: Inclusion,
    size: i64,
) -> Result<BundleEntry, Error> {
    let stored = entries::at(session, Snapshot::Statement, log, proof.index, size)?;
    let source = sources.iter().find(|s| s.id == stored.source_id);
    let may_read = match source {
        Some(source) => session.caller_may_read(source)?,
        None => may_read_own(session, log, &stored),
    };
    let data = match may_read {
        true => shown(session, log, source, &proof),
        false => None,
    };
    let label = source
        .filter(|_| may_read)
        .and_then(|source| label(session, log, source, &stored, data.as_deref()));
    let index = u64::try_from(proof.index).ok();
    let index = index.and_then(|index| LeafIndex::new(index).ok());
    Ok(BundleEntry {
        index: index.ok_or_else(|| Error::Damaged {
            log: log.name.clone(),
            problem: format!("{} is no leaf index", proof.index),
        })?,
        leaf: data.map_or(BundleLeaf::Hash(proof.leaf), BundleLeaf::Data),
        path: proof.path,
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
    proof: &Inclusion,
) -> Option<Vec<u8>> {
    if source.is_some_and(|s| s.salted) {
        return None;
    }
    let kept = leaves::kept(session, log, proof.index, proof.index + 1);
    let data = match kept.into_values().next() {
        Some(kept) => Some(kept),
        None => source.and_then(|_| prove::leaf_data(session, log, proof.index).ok()),
    };
    data.filter(|data| leaf_hash(data) == proof.leaf)
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

//! `merkle_log.key_hash`: entries by a hash of their key ([`KeyEquality::hash`]).
//!
//! A hash has a fixed size, so a key of any length that the source's own table allows can be logged.
//! Entries in the order of their keys have none: they are found through `merkle_order_index`.

use crate::capture::key_equality::KeyEquality;
use crate::capture::row_key;
use crate::capture::shape::Shape;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, OF_LOG};
use crate::pg::relcache::{self, Changed};
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::shared;
use crate::store::entries::Entry;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Entries whose hashes are computed anew at once.
const CHUNK: i64 = 10_000;

#[derive(Clone)]
struct Known {
    relation: pg_sys::Oid,
    equality: Rc<KeyEquality>,
    /// The source bound to its table, if its key has labels that may get other names.
    labelled: Option<Rc<Shape>>,
    /// What hashes depend on, as the source has it on record.
    record: Rc<str>,
}

/// By extension and source.
type Sources = HashMap<(u64, i32), Known>;

thread_local! {
    static KNOWN: RefCell<Sources> = RefCell::new(HashMap::new());
    /// Tables that have changed since they were looked at; `None`: any may have.
    static STALE: RefCell<Vec<Option<pg_sys::Oid>>> = const { RefCell::new(Vec::new()) };
}

fn forget(changed: Changed) {
    let relation = match changed {
        Changed::Relation(relation) => Some(relation),
        Changed::Type(_) | Changed::Any => None,
    };
    STALE.with_borrow_mut(|stale| stale.push(relation));
}

/// When two texts are one key of a source of `log`. Where its table is gone, texts are compared.
pub fn equality(session: &Session, log: &Log, source_id: i32) -> Rc<KeyEquality> {
    match source_id {
        OF_LOG => Rc::default(),
        _ => known(session, log, source_id).equality,
    }
}

/// A source whose key has labels that may get other names, bound to its table.
pub fn labelled(session: &Session, log: &Log, source_id: i32) -> Option<Rc<Shape>> {
    match source_id {
        OF_LOG => None,
        _ => known(session, log, source_id).labelled,
    }
}

fn known(session: &Session, log: &Log, source_id: i32) -> Known {
    relcache::listen(forget);
    let stale = STALE.take();
    if !stale.is_empty() {
        KNOWN.with_borrow_mut(|known| {
            known.retain(|_, k| !stale.contains(&None) && !stale.contains(&Some(k.relation)))
        });
    }
    let at = (shared::owner(session), source_id);
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&at).cloned()) {
        return known;
    }
    let source = sources::by_id(session, source_id);
    let shape = source.as_ref().map(|s| Shape::load(session, log, s));
    let shape = shape.and_then(Result::ok);
    let equality = shape.as_ref().map(KeyEquality::of);
    let equality = equality.unwrap_or_default();
    let known = Known {
        relation: source.map_or(pg_sys::InvalidOid, |s| s.relation),
        record: record(session, &equality).into(),
        equality: Rc::new(equality),
        labelled: shape.filter(row_key::has_labels).map(Rc::new),
    };
    KNOWN.with_borrow_mut(|all| all.insert(at, known.clone()));
    known
}

fn record(session: &Session, equality: &KeyEquality) -> String {
    if !equality.is_by_server() {
        return equality.record("", "");
    }
    let (cluster, collations): (String, Option<String>) = session
        .fresh_one(
            "SELECT s.system_identifier::pg_catalog.text,
                    (SELECT pg_catalog.string_agg(pg_catalog.pg_collation_actual_version(c), ' ')
                       FROM pg_catalog.unnest($1) c)
               FROM pg_catalog.pg_control_system() s",
            &[equality.collations().into()],
            |row| (row.required(0), row.get(1)),
        )
        .unwrap_or_default();
    equality.record(&cluster, &collations.unwrap_or_default())
}

/// Computes the hashes of those sources anew whose keys are compared in another way than when the hashes
/// were computed: another type or collation of a key column, another cluster, another version of a
/// collation. The caller holds the log's lock.
pub fn refresh(session: &Session, log: &Log) {
    let on_record: Vec<(i32, Option<String>)> = session.fresh(
        "SELECT s.source_id, s.key_equality FROM @extschema@.verification_sources s WHERE s.log_id = $1",
        &[log.id.into()],
        |row| (row.required(0), row.get(1)),
    );
    for (source_id, recorded) in on_record {
        let Known {
            equality, record, ..
        } = known(session, log, source_id);
        if recorded.as_deref() == Some(&*record) {
            continue;
        }
        // Rows of a dump that an earlier version made have no hashes at all.
        if recorded.is_none() {
            hash_again(session, log, OF_LOG, &KeyEquality::default());
        }
        hash_again(session, log, source_id, &equality);
        hash_redacted_again(session, source_id, &equality);
        session.execute(
            "UPDATE @extschema@.verification_sources SET key_equality = $2 WHERE source_id = $1",
            &[source_id.into(), (&*record).into()],
        );
    }
}

fn hash_again(session: &Session, log: &Log, source_id: i32, equality: &KeyEquality) {
    let mut after = -1i64;
    loop {
        pgrx::check_for_interrupts!();
        let entries: Vec<(i64, i64)> = session.fresh(
            "SELECT m.leaf_index, m.source_key FROM @extschema@.merkle_log m
              WHERE m.log_id = $1 AND m.source_id = $2 AND m.order_value IS NOT NULL AND m.leaf_index > $3
              ORDER BY m.leaf_index LIMIT $4",
            &[log.id.into(), source_id.into(), after.into(), CHUNK.into()],
            |row| (row.required(0), equality.hash(source_id, row.required(1))),
        );
        let Some((last, _)) = entries.last() else {
            return;
        };
        after = *last;
        let (indexes, hashes): (Vec<i64>, Vec<i64>) = entries.into_iter().unzip();
        session.execute(
            "UPDATE @extschema@.merkle_log m SET key_hash = h.hash
               FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) h (leaf_index, hash)
              WHERE m.log_id = $1 AND m.leaf_index = h.leaf_index AND m.key_hash IS DISTINCT FROM h.hash",
            &[log.id.into(), indexes.into(), hashes.into()],
        );
    }
}

fn hash_redacted_again(session: &Session, source_id: i32, equality: &KeyEquality) {
    let keys: Vec<(i64, i64)> = session.fresh(
        "SELECT r.leaf_index, r.source_key FROM @extschema@.merkle_redacted_key r WHERE r.source_id = $1",
        &[source_id.into()],
        |row| (row.required(0), equality.hash(source_id, row.required(1))),
    );
    let (indexes, hashes): (Vec<i64>, Vec<i64>) = keys.into_iter().unzip();
    session.execute(
        "UPDATE @extschema@.merkle_redacted_key r SET key_hash = h.hash
           FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) h (leaf_index, hash)
          WHERE r.source_id = $1 AND r.leaf_index = h.leaf_index",
        &[source_id.into(), indexes.into(), hashes.into()],
    );
}

/// True if the stored hash of a key is not that of the key, and is not to be computed anew anyway.
pub fn is_misplaced(session: &Session, log: &Log, source_id: i32, key: &str, hash: i64) -> bool {
    let equality = settled(session, log, source_id);
    equality.is_some_and(|e| e.hash(source_id, key) != hash)
}

/// Those of `entries` whose hash is not that of their key. Sources whose hashes are to be computed anew are
/// not judged.
pub fn misplaced<'e>(session: &Session, log: &Log, entries: &'e [Entry]) -> Vec<&'e Entry> {
    let mut sources: HashMap<i32, Option<Rc<KeyEquality>>> = HashMap::new();
    let mut is_misplaced = |entry: &&Entry| {
        let equality = sources
            .entry(entry.source_id)
            .or_insert_with(|| settled(session, log, entry.source_id));
        equality.as_ref().is_some_and(|equality| {
            let hash = entry.order.as_ref();
            hash.map(|_| equality.hash(entry.source_id, &entry.key)) != entry.key_hash
        })
    };
    entries.iter().filter(|e| is_misplaced(e)).collect()
}

/// True if the next batch will compute the hashes of a source's entries anew, since its keys are compared otherwise now.
pub fn is_outdated(session: &Session, log: &Log, source_id: i32) -> bool {
    let Known { record, .. } = known(session, log, source_id);
    let recorded = session.read_one(
        "SELECT s.key_equality FROM @extschema@.verification_sources s WHERE s.source_id = $1",
        &[source_id.into()],
        |row| row.get::<String>(0),
    );
    recorded
        .flatten()
        .is_some_and(|recorded| recorded != *record)
}

/// How the keys of a source were compared when the hashes were computed, unless that has changed since.
fn settled(session: &Session, log: &Log, source_id: i32) -> Option<Rc<KeyEquality>> {
    if source_id == OF_LOG {
        return Some(Rc::default());
    }
    let Known {
        equality, record, ..
    } = known(session, log, source_id);
    let recorded = session.read_one(
        "SELECT s.key_equality FROM @extschema@.verification_sources s WHERE s.source_id = $1",
        &[source_id.into()],
        |row| row.get::<String>(0),
    );
    (recorded.flatten().as_deref() == Some(&*record)).then_some(equality)
}

/// The entries of a source whose keys are equal to one of `keys`: place of the key, leaf index.
pub fn find(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    source_id: i32,
    keys: &[String],
) -> Vec<(usize, i64)> {
    let equality = equality(session, log, source_id);
    let mut places: HashMap<i64, Vec<usize>> = HashMap::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        let hash = equality.hash(source_id, key);
        places.entry(hash).or_default().push(place);
    }
    let hashes: Vec<i64> = places.keys().copied().collect();
    let found: Vec<(i64, i64, String)> = session.query(
        snapshot,
        "SELECT m.key_hash, m.leaf_index, m.source_key FROM @extschema@.merkle_log m
          WHERE m.key_hash = ANY ($1) AND m.key_hash IS NOT NULL AND m.source_id = $2 AND m.log_id = $3",
        &[hashes.into(), source_id.into(), log.id.into()],
        |row| (row.required(0), row.required(1), row.required(2)),
    );
    let places = &places;
    let pairs = found.iter().flat_map(|(hash, index, text)| {
        let of_hash = places.get(hash).into_iter().flatten();
        let same = of_hash.filter(|place| equality.same(&keys[**place], text));
        same.map(|place| (*place, *index))
    });
    pairs.collect()
}

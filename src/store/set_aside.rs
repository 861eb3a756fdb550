//! `merkle_set_aside`: rows that could not be read or encoded, and why. A batch leaves them out and goes on;
//! `reconcile` tries them again.

use crate::catalog::logs::Log;
use crate::session::Session;
use crate::store::key_index;

/// A row that cannot be logged.
pub struct Row {
    pub source_id: i32,
    pub key: String,
    pub problem: String,
}

pub fn record(session: &Session, log: &Log, rows: &[Row]) {
    for row in rows {
        let equality = key_index::equality(session, log, row.source_id);
        session.execute(
            "INSERT INTO @extschema@.merkle_set_aside (source_id, key_hash, source_key, problem)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (source_id, key_hash) DO UPDATE SET problem = EXCLUDED.problem",
            &[
                row.source_id.into(),
                equality.hash(row.source_id, &row.key).into(),
                row.key.as_str().into(),
                row.problem.as_str().into(),
            ],
        );
    }
}

/// Forgets the rows of a source but those with `keys`: the others were logged, or are gone.
pub fn keep_only(session: &Session, log: &Log, source_id: i32, keys: &[String]) {
    let equality = key_index::equality(session, log, source_id);
    let hashes: Vec<i64> = keys.iter().map(|k| equality.hash(source_id, k)).collect();
    session.execute(
        "DELETE FROM @extschema@.merkle_set_aside WHERE source_id = $1 AND key_hash <> ALL ($2)",
        &[source_id.into(), hashes.into()],
    );
}

/// The rows that are set aside in a log under a hash that is not their key's: source and key. Sources whose hashes
/// are to be computed anew are not judged.
pub fn misplaced(session: &Session, log: &Log) -> Vec<(i32, String)> {
    let rows: Vec<(i32, i64, String)> = session.read(
        "SELECT a.source_id, a.key_hash, a.source_key FROM @extschema@.merkle_set_aside a
           JOIN @extschema@.verification_sources s USING (source_id) WHERE s.log_id = $1",
        &[log.id.into()],
        |row| (row.required(0), row.required(1), row.required(2)),
    );
    let misplaced = |(source_id, hash, key): (i32, i64, String)| {
        key_index::is_misplaced(session, log, source_id, &key, hash).then_some((source_id, key))
    };
    rows.into_iter().filter_map(misplaced).collect()
}

/// How many rows of a log are set aside, and why one of them is.
pub fn summary(session: &Session, log_id: i32) -> Option<(i64, String)> {
    session.fresh_one(
        "SELECT pg_catalog.count(*), pg_catalog.min(pg_catalog.format('row %s of %s: %s', pg_catalog.left(a.source_key, 100), s.source_table, a.problem))
           FROM @extschema@.merkle_set_aside a JOIN @extschema@.verification_sources s USING (source_id)
          WHERE s.log_id = $1 AND s.removed_at IS NULL HAVING pg_catalog.count(*) > 0",
        &[log_id.into()],
        |row| (row.required(0), row.required(1)),
    )
}

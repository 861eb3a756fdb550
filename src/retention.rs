//! Retention: old entries go, what the tree needs of them stays.
//!
//! Entries are dropped a tile of 256 at a time, and only those that a tree head covers. The hash of
//! each tile is stored in the level above, so every later entry stays provable; a tile that a recorded
//! tree head cuts keeps its 256 leaf hashes as a tile of level 0, so every recorded head keeps its
//! consistency proofs.

use crate::administration::{self, Act};
use crate::batch;
use crate::catalog::logs::{self, Log};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::{hash_index, heads, redacted, sealed};

const TILE: i64 = 256;

/// Drops the entries before `before`, rounded down to a tile; returns how many.
pub fn prune(session: &Session, name: &str, before: i64) -> Result<i64, Error> {
    batch::check_writable(Some(name))?;
    let log = logs::lock_and_wait(session, name)?;
    let size = heads::latest(session, Snapshot::Fresh, &log)?.tree_size;
    let upto = before.min(size) / TILE * TILE;
    if upto <= log.pruned_to {
        return Ok(0);
    }
    keep_tiles(session, &log, upto);
    heads::cut(session, &log, upto);
    remember_order(session, &log, upto);
    for (table, covered) in [
        ("merkle_log", "t.leaf_index < $2"),
        ("merkle_leaf_data", "t.leaf_index < $2"),
        ("merkle_statement", "t.from_leaf_index + t.entries <= $2"),
    ] {
        let sql = format!("DELETE FROM @extschema@.{table} t WHERE t.log_id = $1 AND {covered}");
        session.execute(&sql, &[log.id.into(), upto.into()]);
    }
    session.execute(
        "DELETE FROM @extschema@.merkle_order_index t USING @extschema@.verification_sources s
          WHERE s.source_id = t.source_id AND s.log_id = $1 AND t.leaf_index < $2",
        &[log.id.into(), upto.into()],
    );
    hash_index::delete(session, &log, Some(upto));
    sealed::delete(session, &log, Some(upto));
    session.execute(
        "UPDATE @extschema@.verification_logs SET pruned_to = $2 WHERE log_id = $1",
        &[log.id.into(), upto.into()],
    );
    session.logs_changed()?;
    let (log_id, entries) = (log.id, upto - log.pruned_to);
    let redacted = redacted::digest(session, Snapshot::Fresh, &log, upto);
    let act = Act::Pruned {
        log_id,
        entries,
        redacted,
    };
    administration::record(session, act);
    Ok(entries)
}

/// Keeps the leaf hashes of tiles that a head cuts.
fn keep_tiles(session: &Session, log: &Log, upto: i64) {
    session.execute(
        "INSERT INTO @extschema@.merkle_tile (log_id, level, tile_index, hashes)
         SELECT $1, 0, c.tile, pg_catalog.string_agg(m.leaf_hash, ''::pg_catalog.bytea ORDER BY m.leaf_index)
           FROM (SELECT DISTINCT h.tree_size / 256 AS tile FROM @extschema@.merkle_tree_head h
                  WHERE h.log_id = $1 AND h.tree_size > $2 AND h.tree_size < $3 AND h.tree_size % 256 <> 0) c
           JOIN @extschema@.merkle_log m
             ON m.log_id = $1 AND m.leaf_index >= c.tile * 256 AND m.leaf_index < (c.tile + 1) * 256
          GROUP BY c.tile",
        &[log.id.into(), log.pruned_to.into(), upto.into()],
    );
}

/// Remembers how far the dropped entries of each source went: of a row up to there nobody can say any
/// more whether it was logged.
fn remember_order(session: &Session, log: &Log, upto: i64) {
    let comparable = match log.domain.map(|d| d.name()) {
        Some("time") => "o.order_value::pg_catalog.timestamptz",
        Some("number") => "o.order_value::pg_catalog.numeric",
        Some("uuid") => "o.order_value::pg_catalog.uuid",
        _ => "o.order_value",
    };
    // Of rows that were logged ahead of the watermark, those behind it say nothing.
    let watermark = comparable.replace("o.order_value", "s.watermark[1]");
    session.execute(
        &format!(
            "UPDATE @extschema@.verification_sources s
                SET pruned_order = COALESCE(
                    (SELECT o.order_value
                       FROM (SELECT COALESCE(m.order_value, m.source_key) AS order_value FROM @extschema@.merkle_log m
                              WHERE m.log_id = $1 AND m.leaf_index < $2 AND m.source_id = s.source_id
                             UNION ALL SELECT s.pruned_order WHERE s.pruned_order IS NOT NULL) o
                      WHERE pg_catalog.lower(o.order_value) NOT IN ('infinity', '-infinity', 'nan')
                        AND (s.watermark IS NULL OR {comparable} <= {watermark})
                      ORDER BY {comparable} DESC LIMIT 1), s.pruned_order)
              WHERE s.log_id = $1"
        ),
        &[log.id.into(), upto.into()],
    );
}

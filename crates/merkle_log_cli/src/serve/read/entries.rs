//! Entries in leaf order: their hashes for everyone, their rows for those who may see them.

use crate::serve::answers::Bytes;
use crate::serve::pool::Session;
use crate::serve::problems::Problem;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Entry {
    pub index: i64,
    pub leaf_hash: Bytes,
    /// Left out where rows are not shown, as the key and the leaf data are
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Left out also where the log does not keep them
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_data: Option<Bytes>,
}

/// Some entries, and where the next ones begin.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Entries {
    pub entries: Vec<Entry>,
    /// Left out at the end of what was asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// Entries of one answer, and bytes of leaf data after which there are no more.
pub const MOST: i64 = 1000;
const MOST_BYTES: usize = 2 << 20;

const HASHES: &str = "
    SELECT leaf_index, leaf_hash, NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.bytea
      FROM @extschema@.log_entries($1, $2, $3)";
const ROWS: &str = "
    SELECT leaf_index, leaf_hash, source_table, source_key, leaf_data FROM @extschema@.log_entries($1, $2, $3)";

/// The entries `from .. to`, or the first of them.
pub async fn entries(
    session: &Session,
    log: &str,
    from: i64,
    to: Option<i64>,
    rows: bool,
) -> Result<Entries, Problem> {
    let to = match to {
        // The extension says what is wrong with it.
        Some(to) => to,
        None => super::logs::size(session, log).await?.size,
    };
    let end = match from <= to {
        true => to.min(from.saturating_add(MOST)),
        false => to,
    };
    let mut found = Vec::new();
    let mut bytes = 0;
    let sql = if rows { ROWS } else { HASHES };
    session
        .rows_while(sql, &[&log, &from, &end], |row| {
            let leaf_data: Option<Vec<u8>> = row.try_get(4)?;
            bytes += leaf_data.as_ref().map_or(0, Vec::len);
            found.push(Entry {
                index: row.try_get(0)?,
                leaf_hash: Bytes(row.try_get(1)?),
                table: row.try_get(2)?,
                key: row.try_get(3)?,
                leaf_data: leaf_data.map(Bytes),
            });
            Ok(bytes < MOST_BYTES)
        })
        .await?;
    let next = found.last().map_or(from, |entry| entry.index + 1);
    Ok(Entries {
        entries: found,
        next: (next < to).then_some(next),
    })
}

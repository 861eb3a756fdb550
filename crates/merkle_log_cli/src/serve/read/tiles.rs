//! Tiles of a log (C2SP tlog-tiles), as `merkle-log export` writes them.

use crate::serve::pool::Session;
use crate::serve::problems::{Kind, Problem};
use merkle_tree::{HASH_SIZE, TILE_WIDTH};
use tlog::{TileLevel, TilePath, entry_bundle};

/// The content of a tile. A bundle has the leaf data only if rows may be shown.
pub async fn tile(
    session: &Session,
    log: &str,
    path: &TilePath,
    rows: bool,
) -> Result<Vec<u8>, Problem> {
    // Beyond this a log of the database has nothing.
    let first =
        i64::try_from(path.index().saturating_mul(TILE_WIDTH)).map_err(|_| missing(path))?;
    match (path.level(), rows) {
        (TileLevel::Hashes(0), _) => leaf_hashes(session, log, path, first).await,
        (TileLevel::Hashes(level), _) => hashes(session, log, path, level).await,
        (TileLevel::Entries, true) => bundle(session, log, path, first).await,
        (TileLevel::Entries, false) => {
            // That the entries are there.
            leaf_hashes(session, log, path, first).await?;
            Ok(withheld(path.width()))
        }
    }
}

/// A bundle that shows nothing of its entries: each has length 0.
pub fn withheld(width: u16) -> Vec<u8> {
    vec![0; 2 * usize::from(width)]
}

async fn leaf_hashes(
    session: &Session,
    log: &str,
    path: &TilePath,
    first: i64,
) -> Result<Vec<u8>, Problem> {
    let sql =
        "SELECT pg_catalog.string_agg(l.leaf_hash, ''::pg_catalog.bytea ORDER BY l.leaf_index)
                 FROM @extschema@.merkle_log_leaves l
                WHERE l.log_name = $1 AND l.leaf_index >= $2 AND l.leaf_index < $3";
    let end = first.saturating_add(path.width().into());
    let hashes: Option<Vec<u8>> = session.value(sql, &[&log, &first, &end]).await?;
    whole(session, log, path, hashes).await
}

async fn hashes(
    session: &Session,
    log: &str,
    path: &TilePath,
    level: u8,
) -> Result<Vec<u8>, Problem> {
    let sql = "SELECT t.hashes FROM @extschema@.merkle_log_tiles t
                WHERE t.log_name = $1 AND t.level = $2 AND t.tile_index = $3";
    let index = i64::try_from(path.index()).map_err(|_| missing(path))?;
    let row = session.row(sql, &[&log, &i16::from(level), &index]).await?;
    let hashes: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
    whole(session, log, path, hashes).await
}

/// The hashes of a tile, if they are all there.
async fn whole(
    session: &Session,
    log: &str,
    path: &TilePath,
    hashes: Option<Vec<u8>>,
) -> Result<Vec<u8>, Problem> {
    let length = usize::from(path.width()) * HASH_SIZE;
    let mut hashes = hashes.unwrap_or_default();
    if hashes.len() >= length {
        hashes.truncate(length);
        return Ok(hashes);
    }
    match pruned(session, log, path).await? {
        true => Err(Problem::new(
            Kind::Pruned,
            format!("the entries below {path} were pruned"),
        )),
        false => Err(missing(path)),
    }
}

async fn bundle(
    session: &Session,
    log: &str,
    path: &TilePath,
    first: i64,
) -> Result<Vec<u8>, Problem> {
    let width = i64::from(path.width());
    let end = first.checked_add(width).ok_or_else(|| missing(path))?;
    let size = super::logs::size(session, log).await?.size;
    if end > size {
        return Err(missing(path));
    }
    let sql = "SELECT leaf_data FROM @extschema@.log_entries($1, $2, $3)";
    let mut bundle = Vec::new();
    let mut entries = 0;
    session
        .rows_while(sql, &[&log, &first, &end], |row| {
            let data: Option<&[u8]> = row.try_get(0)?;
            entries += 1;
            let appended = entry_bundle::append(&mut bundle, data.unwrap_or_default());
            appended.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
            Ok(true)
        })
        .await?;
    match entries == width {
        true => Ok(bundle),
        false => Err(missing(path)),
    }
}

/// True if entries below the tile were pruned; an error if there is no such log.
async fn pruned(session: &Session, log: &str, path: &TilePath) -> Result<bool, Problem> {
    let size = super::logs::size(session, log).await?.size;
    if !matches!(path.level(), TileLevel::Entries | TileLevel::Hashes(0)) {
        return Ok(false);
    }
    // A pruned log has nothing at its first indexes.
    let sql = "SELECT l.leaf_index FROM @extschema@.merkle_log_leaves l
                WHERE l.log_name = $1 ORDER BY l.leaf_index LIMIT 1";
    let first = session.row(sql, &[&log]).await?;
    let first: i64 = first.map_or(Ok(size), |row| row.try_get(0))?;
    Ok(path.index() < (first as u64).div_ceil(TILE_WIDTH))
}

pub fn missing(path: &TilePath) -> Problem {
    Problem::new(Kind::NotFound, format!("the log has no {path}"))
}

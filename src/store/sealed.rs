//! Sealed ranges: the entries of a log up to a leaf index, from where the range before ends (`merkle_sealed_range`), and the
//! index of their keys (`merkle_sealed_key`), whose root an entry of the log has.
//!
//! The index is that of `merkle_tree::sealed`. It is stored in runs of 256 keys, which are tiles of its tree.

use super::leaves;
use super::tree::{TreeReader, tree_error, tree_size};
use crate::capture::row_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, OF_LOG};
use crate::error::Error;
use crate::pg::alloc;
use crate::pg::memory::Scratch;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use crate::store::entries::{self, Entry};
use leaf_format::{Kind, Value};
use merkle_tree::{
    HASH_SIZE, Hash, HashReader, KeyHash, SealedKey, Secret, TILE_WIDTH, TileId, sealed_leaves,
    tile_hash,
};
use std::collections::HashMap;
use std::ops::Range;
use tlog::Seal;

/// Entries of a range at most, so that its index is made, and checked, in little memory and at one go.
pub const MOST: i64 = 1 << 16;
/// Entries that are read at once.
const CHUNK: i64 = 4096;
/// Keys of a run: a tile.
const RUN: usize = TILE_WIDTH as usize;

/// A range that was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub range: Range<i64>,
    /// The entry that says so.
    pub leaf_index: i64,
    pub keys: i64,
    /// The root of the log's tree at the end of the range.
    pub root: Vec<u8>,
    pub index_root: Vec<u8>,
    /// What blinds the leaves of the index.
    pub secret: Vec<u8>,
}

const COLUMNS: &str =
    "r.from_leaf_index, r.to_leaf_index, r.leaf_index, r.keys, r.root_hash, r.index_root, r.secret";

fn from_row(row: &Row) -> Sealed {
    Sealed {
        range: row.required(0)..row.required(1),
        leaf_index: row.required(2),
        keys: row.required(3),
        root: row.required(4),
        index_root: row.required(5),
        secret: row.required(6),
    }
}

impl Sealed {
    /// What the entry that seals the range is to say.
    ///
    /// # Errors
    /// If the row holds numbers or hashes that no range has.
    pub fn seal(&self, log: &Log) -> Result<Seal, Error> {
        let number = |n: i64| tree_size(log, n).map(|n| n.get());
        Ok(Seal {
            entries: number(self.range.start)?..number(self.range.end)?,
            root: self.hash(log, &self.root)?,
            keys: tree_size(log, self.keys)?,
            index_root: self.hash(log, &self.index_root)?,
        })
    }

    pub fn secret(&self, log: &Log) -> Result<Secret, Error> {
        Ok(Secret(*self.hash(log, &self.secret)?.as_bytes()))
    }

    fn hash(&self, log: &Log, bytes: &[u8]) -> Result<Hash, Error> {
        Hash::try_from(bytes).map_err(|e| self.damaged(log, &e.to_string()))
    }

    pub fn damaged(&self, log: &Log, problem: &str) -> Error {
        Error::Damaged {
            log: log.name.clone(),
            problem: format!(
                "the sealed range of the entries {} to {}: {problem}",
                self.range.start, self.range.end
            ),
        }
    }
}

/// The key of the entry that seals the range that begins at a leaf index.
pub fn entry_key(from: i64) -> String {
    format!("{SEAL}{from}")
}

const SEAL: &str = "seal ";

/// True if an entry seals a range.
pub fn is_seal(entry: &Entry) -> bool {
    entry.source_id == OF_LOG && entry.key.starts_with(SEAL)
}

/// The leaf data of the entry that seals a range.
pub fn leaf_data(session: &Session, log: &Log, seal: &Seal) -> Result<Vec<u8>, Error> {
    let hash = |hash: &Hash| Value::Bytes(hash.as_bytes().to_vec().into());
    let columns = [
        ("index", Value::Text(Seal::INDEX.into())),
        ("from", Value::Int(seal.entries.start.into())),
        ("to", Value::Int(seal.entries.end.into())),
        ("root_hash", hash(&seal.root)),
        ("keys", Value::Int(seal.keys.get().into())),
        ("index_root", hash(&seal.index_root)),
    ];
    leaves::of_log(session, log, &log.name, Kind::Seal, columns.into())
}

/// The sealed ranges of a log, in order.
pub fn ranges(session: &Session, snapshot: Snapshot, log: &Log) -> Vec<Sealed> {
    let sql = format!(
        "SELECT {COLUMNS} FROM @extschema@.merkle_sealed_range r WHERE r.log_id = $1 ORDER BY r.from_leaf_index"
    );
    session.query(snapshot, &sql, &[log.id.into()], from_row)
}

/// The first range that begins at a leaf index or later, as the calling statement sees it.
pub fn next(session: &Session, log: &Log, from: i64) -> Option<Sealed> {
    let sql = format!(
        "SELECT {COLUMNS} FROM @extschema@.merkle_sealed_range r
          WHERE r.log_id = $1 AND r.from_leaf_index >= $2 ORDER BY r.from_leaf_index LIMIT 1"
    );
    session.read_one(&sql, &[log.id.into(), from.into()], from_row)
}

/// The range that begins at a leaf index, as the calling statement sees it.
pub fn beginning_at(session: &Session, log: &Log, from: i64) -> Option<Sealed> {
    let found = next(session, log, from);
    found.filter(|sealed| sealed.range.start == from)
}

/// Where the last sealed range ends; 0 if none is sealed.
pub fn end(session: &Session, snapshot: Snapshot, log: &Log) -> i64 {
    let end = session.query(
        snapshot,
        "SELECT r.to_leaf_index FROM @extschema@.merkle_sealed_range r WHERE r.log_id = $1 ORDER BY r.from_leaf_index DESC LIMIT 1",
        &[log.id.into()],
        |row| row.required(0),
    );
    end.into_iter().next().unwrap_or(0)
}

/// True if a range begins before the one before it ends.
pub fn overlaps(session: &Session, log: &Log, sealed: &Sealed) -> bool {
    let before = session.read_one(
        "SELECT r.to_leaf_index FROM @extschema@.merkle_sealed_range r
          WHERE r.log_id = $1 AND r.from_leaf_index < $2 ORDER BY r.from_leaf_index DESC LIMIT 1",
        &[log.id.into(), sealed.range.start.into()],
        |row| row.required::<i64>(0),
    );
    before.is_some_and(|end| end > sealed.range.start)
}

/// Where a range begins that has an index and is not sealed, if there is one.
pub fn orphan(session: &Session, log: &Log) -> Option<i64> {
    session.read_one(
        "SELECT k.from_leaf_index FROM @extschema@.merkle_sealed_key k
          WHERE k.log_id = $1 AND NOT EXISTS (SELECT FROM @extschema@.merkle_sealed_range r
                WHERE r.log_id = $1 AND r.from_leaf_index = k.from_leaf_index)
          ORDER BY k.from_leaf_index LIMIT 1",
        &[log.id.into()],
        |row| row.required(0),
    )
}

/// The root of a log's tree of `size` entries.
pub fn root_at(session: &Session, snapshot: Snapshot, log: &Log, size: i64) -> Result<Hash, Error> {
    let mut reader = TreeReader::new(session, log, snapshot);
    merkle_tree::root(&mut reader, tree_size(log, size)?).map_err(|e| tree_error(log, e))
}

/// What the entries `range` say: their keys, hashed with `salt`, in order. Also whether any of them is not the seal of a range.
pub fn keys_of(
    session: &Session,
    log: &Log,
    range: &Range<i64>,
    salt: &Hash,
) -> Result<(Vec<SealedKey>, bool), Error> {
    let known = sources::all(session, log);
    let known: HashMap<i32, (&str, usize)> = known
        .iter()
        .map(|s| (s.id, (s.name.as_str(), s.key_columns.len())))
        .collect();
    let mut hashes: Vec<(KeyHash, u64)> = Vec::new();
    alloc::reserve_exact(&mut hashes, (range.end - range.start) as usize);
    let mut has_content = false;
    let mut next = range.start;
    while next < range.end {
        pgrx::check_for_interrupts!();
        let end = range.end.min(next + CHUNK);
        let read = entries::between(session, log, next, end)?;
        if read.len() as i64 != end - next {
            return Err(Error::Damaged {
                log: log.name.clone(),
                problem: format!("entries between {next} and {} are missing", end - 1),
            });
        }
        let mut scratch = Scratch::new();
        for entry in &read {
            has_content |= !is_seal(entry);
            let source = known.get(&entry.source_id).copied();
            let hash = scratch.reuse(|| key_hash(salt, source, &entry.key));
            hashes.push((hash, entry.leaf_index as u64));
        }
        next = end;
    }
    hashes.sort_unstable();
    let keys = hashes.chunk_by(|a, b| a.0 == b.0).map(|of_key| SealedKey {
        hash: of_key[0].0,
        entries: of_key.iter().map(|(_, index)| *index).collect(),
    });
    Ok((keys.collect(), has_content))
}

/// The hash of the key of an entry, of the source with this name and number of key columns. What the log says of itself
/// has no source.
fn key_hash(salt: &Hash, source: Option<(&str, usize)>, key: &str) -> KeyHash {
    let (name, columns) = source.unwrap_or(("", 1));
    // A key that is none of its source is hashed as it is.
    let parts = row_key::split(name, columns, key).unwrap_or_else(|_| vec![key.to_owned()]);
    KeyHash::new(salt, name, parts.iter().map(String::as_str))
}

/// The tree of an index whose keys are all in memory.
pub fn index_root(keys: &[SealedKey], secret: &Secret) -> Hash {
    tile_hash(&run_roots(keys, secret))
}

fn run_roots(keys: &[SealedKey], secret: &Secret) -> Vec<Hash> {
    let run_root = |run: &[SealedKey]| tile_hash(&sealed_leaves(run, secret));
    keys.chunks(RUN).map(run_root).collect()
}

/// Stores a range and its index.
pub fn insert(session: &Session, log: &Log, sealed: &Sealed) {
    session.execute(
        "INSERT INTO @extschema@.merkle_sealed_range
             (log_id, from_leaf_index, to_leaf_index, leaf_index, keys, root_hash, index_root, secret)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            log.id.into(),
            sealed.range.start.into(),
            sealed.range.end.into(),
            sealed.leaf_index.into(),
            sealed.keys.into(),
            sealed.root.clone().into(),
            sealed.index_root.clone().into(),
            sealed.secret.clone().into(),
        ],
    );
}

/// Stores the index of the range that begins at `from`, and returns its root.
pub fn insert_index(
    session: &Session,
    log: &Log,
    from: i64,
    keys: &[SealedKey],
    secret: &Secret,
) -> Hash {
    let roots = run_roots(keys, secret);
    let mut scratch = Scratch::new();
    for (number, (run, root)) in keys.chunks(RUN).zip(&roots).enumerate() {
        pgrx::check_for_interrupts!();
        scratch.scope(|| {
            session.execute(
                "INSERT INTO @extschema@.merkle_sealed_key (log_id, from_leaf_index, run, first_key, root_hash, keys)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[
                    log.id.into(),
                    from.into(),
                    (number as i32).into(),
                    run[0].hash.as_bytes().to_vec().into(),
                    root.as_bytes().to_vec().into(),
                    to_bytes(run).into(),
                ],
            )
        });
    }
    tile_hash(&roots)
}

/// Deletes the ranges that entries before `before` seal, or all.
pub fn delete(session: &Session, log: &Log, before: Option<i64>) {
    let before = before.unwrap_or(i64::MAX);
    session.execute(
        "DELETE FROM @extschema@.merkle_sealed_key k USING @extschema@.merkle_sealed_range r
          WHERE r.log_id = $1 AND r.leaf_index < $2 AND k.log_id = r.log_id AND k.from_leaf_index = r.from_leaf_index",
        &[log.id.into(), before.into()],
    );
    session.execute(
        "DELETE FROM @extschema@.merkle_sealed_range r WHERE r.log_id = $1 AND r.leaf_index < $2",
        &[log.id.into(), before.into()],
    );
}

/// A run as it is stored: of each key its hash, how many entries it has, and their leaf indexes.
fn to_bytes(run: &[SealedKey]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(run.len() * (HASH_SIZE + 12));
    for key in run {
        bytes.extend_from_slice(key.hash.as_bytes());
        bytes.extend_from_slice(&(key.entries.len() as u32).to_be_bytes());
        for entry in &key.entries {
            bytes.extend_from_slice(&entry.to_be_bytes());
        }
    }
    bytes
}

fn from_bytes(mut bytes: &[u8]) -> Option<Vec<SealedKey>> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let hash: &[u8; HASH_SIZE] = bytes.split_off(..HASH_SIZE)?.try_into().ok()?;
        let count = u32::from_be_bytes(bytes.split_off(..4)?.try_into().ok()?);
        let (entries, []) = bytes.split_off(..count as usize * 8)?.as_chunks::<8>() else {
            return None;
        };
        keys.push(SealedKey {
            hash: KeyHash::from(*hash),
            entries: entries.iter().map(|e| u64::from_be_bytes(*e)).collect(),
        });
    }
    Some(keys)
}

/// What is stored of the index of a range, read a run at a time.
pub struct Index<'a> {
    session: &'a Session,
    log: &'a Log,
    sealed: &'a Sealed,
    secret: Secret,
    /// The run that was read last.
    run: Option<(i64, Vec<SealedKey>)>,
    /// The leaf hashes of a run: a proof asks for several parts of a tile.
    leaves: Option<(u64, Vec<Hash>)>,
    /// The roots of all runs.
    roots: Option<Vec<Hash>>,
}

impl<'a> Index<'a> {
    pub fn open(session: &'a Session, log: &'a Log, sealed: &'a Sealed) -> Result<Self, Error> {
        Ok(Index {
            session,
            log,
            sealed,
            secret: sealed.secret(log)?,
            run: None,
            leaves: None,
            roots: None,
        })
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// How many keys stand before `key`, the last of them, and the first that does not.
    #[allow(clippy::type_complexity)]
    pub fn around(
        &mut self,
        key: &KeyHash,
    ) -> Result<(u64, Option<SealedKey>, Option<SealedKey>), Error> {
        let run: Option<i32> = self.session.read_one(
            "SELECT k.run FROM @extschema@.merkle_sealed_key k
              WHERE k.log_id = $1 AND k.from_leaf_index = $2 AND k.first_key <= $3 ORDER BY k.run DESC LIMIT 1",
            &[
                self.log.id.into(),
                self.sealed.range.start.into(),
                key.as_bytes().to_vec().into(),
            ],
            |row| row.required(0),
        );
        let Some(run) = run.map(i64::from) else {
            let first = self.run(0)?.first().cloned();
            return Ok((0, None, first));
        };
        let first = u64::try_from(run).map(|run| run * TILE_WIDTH);
        let first = first.map_err(|_| self.sealed.damaged(self.log, "its index was altered"))?;
        let keys = self.run(run)?;
        let place = keys.partition_point(|k| k.hash < *key);
        let before = place
            .checked_sub(1)
            .and_then(|place| keys.get(place))
            .cloned();
        let (found, is_last) = (keys.get(place).cloned(), place == keys.len());
        // A run begins with its first key, so the one before that is in the run before.
        let before = match before {
            None if run > 0 => self.run(run - 1)?.last().cloned(),
            before => before,
        };
        let position = first + place as u64;
        let found = match found {
            None if is_last && (position as i64) < self.sealed.keys => {
                self.run(run + 1)?.first().cloned()
            }
            found => found,
        };
        Ok((position, before, found))
    }

    /// The keys of a run as they are stored; `None` if they are not there, or are no keys.
    fn stored(&self, number: i64) -> Option<Vec<SealedKey>> {
        let keys = self.session.read_one(
            "SELECT k.keys FROM @extschema@.merkle_sealed_key k
              WHERE k.log_id = $1 AND k.from_leaf_index = $2 AND k.run = $3",
            &[
                self.log.id.into(),
                self.sealed.range.start.into(),
                (number as i32).into(),
            ],
            |row| from_bytes(row.required(0)),
        );
        keys.flatten().filter(|keys| keys.len() <= RUN)
    }

    /// The keys of a run.
    ///
    /// # Errors
    /// If they are not there.
    fn run(&mut self, number: i64) -> Result<&[SealedKey], Error> {
        if self.run.as_ref().is_none_or(|(held, _)| *held != number) {
            let keys = self.stored(number);
            let problem = "its index cannot be read";
            let keys = keys.ok_or_else(|| self.sealed.damaged(self.log, problem))?;
            self.run = Some((number, keys));
        }
        Ok(self.run.as_ref().map_or(&[], |(_, keys)| keys))
    }

    /// The leaf hashes of a run.
    fn leaves(&mut self, number: u64) -> Result<&[Hash], Error> {
        if self.leaves.as_ref().is_none_or(|(held, _)| *held != number) {
            let secret = self.secret;
            let leaves = sealed_leaves(self.run(number as i64)?, &secret);
            self.leaves = Some((number, leaves));
        }
        Ok(self.leaves.as_ref().map_or(&[], |(_, leaves)| leaves))
    }

    fn roots(&mut self) -> Result<&[Hash], Error> {
        if self.roots.is_none() {
            let roots = self.session.read(
                "SELECT k.root_hash FROM @extschema@.merkle_sealed_key k
                  WHERE k.log_id = $1 AND k.from_leaf_index = $2 ORDER BY k.run",
                &[self.log.id.into(), self.sealed.range.start.into()],
                |row| Hash::try_from(row.required::<&[u8]>(0)),
            );
            let roots: Result<Vec<Hash>, _> = roots.into_iter().collect();
            self.roots = Some(roots.map_err(|e| self.sealed.damaged(self.log, &e.to_string()))?);
        }
        Ok(self.roots.as_deref().unwrap_or_default())
    }
}

impl HashReader for Index<'_> {
    type Error = Error;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        let hashes = match tile.level {
            0 => self.leaves(tile.index)?.to_vec(),
            1 => {
                let from = (tile.index * TILE_WIDTH) as usize;
                self.roots()?.iter().skip(from).copied().collect()
            }
            // No index has more keys than a tile of level 1 has leaves below it.
            _ => vec![tile_hash(self.roots()?)],
        };
        let wanted = hashes.into_iter().skip(first.into()).take(count.into());
        Ok(wanted.collect())
    }
}

const ALTERED: &str = "its index in merkle_sealed_key was altered";

/// What the stored index of a range is not: the keys, in order, with the roots of its runs.
pub fn mismatch(
    session: &Session,
    log: &Log,
    sealed: &Sealed,
    keys: Option<&[SealedKey]>,
) -> Result<Option<&'static str>, Error> {
    let index = Index::open(session, log, sealed)?;
    let stored: Vec<(i32, Vec<u8>, Vec<u8>)> = session.read(
        "SELECT k.run, k.first_key, k.root_hash FROM @extschema@.merkle_sealed_key k
          WHERE k.log_id = $1 AND k.from_leaf_index = $2 ORDER BY k.run",
        &[log.id.into(), sealed.range.start.into()],
        |row| (row.required(0), row.required(1), row.required(2)),
    );
    let mut roots = Vec::with_capacity(stored.len());
    let mut count = 0;
    for (place, (number, first_key, root)) in stored.iter().enumerate() {
        pgrx::check_for_interrupts!();
        let Some(run) = index.stored((*number).into()) else {
            return Ok(Some(ALTERED));
        };
        let computed = tile_hash(&sealed_leaves(&run, index.secret()));
        let expected = keys.map(|keys| keys.chunks(RUN).nth(place).unwrap_or_default());
        let begins = run
            .first()
            .is_some_and(|key| key.hash.as_bytes().as_slice() == first_key);
        if usize::try_from(*number) != Ok(place)
            || !begins
            || computed.as_bytes().as_slice() != root
            || expected.is_some_and(|expected| expected != run)
        {
            return Ok(Some(ALTERED));
        }
        count += run.len() as i64;
        roots.push(computed);
    }
    let root = tile_hash(&roots);
    let is_all = keys.is_none_or(|keys| keys.len() as i64 == count);
    match root.as_bytes().as_slice() == sealed.index_root && count == sealed.keys && is_all {
        true => Ok(None),
        false => Ok(Some(
            "its index in merkle_sealed_key is not the one that was sealed",
        )),
    }
}

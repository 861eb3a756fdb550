//! Entries of a log in leaf order, with what the caller may be shown of them, a page at a time; or a bundle of tlog-tiles
//! at a time, for who wants nothing but hashes and leaf data, of which there may be many millions.

use super::entries::{self, Entry};
use super::{heads, leaves};
use crate::catalog::logs::{ADMINISTRATION, Log};
use crate::catalog::sources::{self, OF_LOG};
use crate::error::Error;
use crate::pg::index::{Direction, Key};
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use leaf_format::capped;
use merkle_tree::{HASH_SIZE, TILE_WIDTH};
use std::borrow::Cow;
use std::collections::HashMap;
use tlog::entry_bundle;

/// Entries that are read at once, and bytes of leaf data, of which there is always one entry's.
const PAGE: i64 = 1024;
const PAGE_BYTES: i64 = 4 << 20;

/// An entry as the caller is shown it.
pub struct Listed {
    pub leaf_index: i64,
    /// `None`: of a source that the caller may not read, as the key and the leaf data are.
    pub source_table: Option<String>,
    pub key: Option<String>,
    pub leaf_hash: Vec<u8>,
    /// What was hashed, where the log keeps it.
    pub leaf_data: Option<Vec<u8>>,
}

/// Entries between two multiples of 256.
pub struct Bundle {
    pub first: i64,
    /// One after the other.
    pub leaf_hashes: Vec<u8>,
    /// Each behind its length as two bytes, which is 0 where there is nothing to be shown.
    pub leaf_data: Vec<u8>,
}

pub struct Stream {
    log: Log,
    /// By id, the names of the sources that the caller may read.
    readable: HashMap<i32, String>,
    next: i64,
    end: i64,
}

impl Stream {
    /// The entries `from .. to`, or to the end of the log, as the calling statement sees it.
    pub fn start(session: &Session, log: Log, from: i64, to: Option<i64>) -> Result<Stream, Error> {
        let size = heads::latest(session, Snapshot::Statement, &log)?.tree_size;
        let end = to.unwrap_or(size);
        if !(0..=size).contains(&from) {
            let log = log.name;
            return Err(Error::IndexOutOfRange {
                log,
                index: from,
                size,
            });
        }
        if !(0..=size).contains(&end) {
            let (log, wanted) = (log.name, end);
            return Err(Error::SizeOutOfRange { log, wanted, size });
        }
        if from < end {
            entries::check_not_pruned(&log, from)?;
        }
        let mut readable = HashMap::new();
        for source in sources::all(session, &log) {
            if session.caller_may_read(&source)? {
                readable.insert(source.id, source.name);
            }
        }
        let reads_own = match log.id {
            ADMINISTRATION => session.check_caller_is_owner().is_ok(),
            _ => session.caller_may_read_log(&log)?,
        };
        if reads_own {
            readable.insert(OF_LOG, String::new());
        }
        Ok(Stream {
            log,
            readable,
            next: from,
            end,
        })
    }

    /// The next entries; none when all have been read.
    pub fn page(&mut self, session: &Session) -> Result<Vec<Listed>, Error> {
        pgrx::check_for_interrupts!();
        let to = self.end.min(self.next + PAGE);
        if self.next >= to {
            return Ok(Vec::new());
        }
        let to = leaves::within(session, &self.log, self.next, to, PAGE_BYTES);
        let entries = entries::between(session, &self.log, self.next, to)?;
        let mut data = leaves::kept(session, &self.log, self.next, to);
        self.next = to;
        let listed = |entry: Entry| {
            let source = self.readable.get(&entry.source_id);
            let kept = data.remove(&entry.leaf_index);
            Listed {
                leaf_index: entry.leaf_index,
                source_table: source.filter(|name| !name.is_empty()).cloned(),
                key: source.map(|_| entry.key),
                leaf_hash: entry.leaf_hash,
                leaf_data: kept.filter(|_| source.is_some()),
            }
        };
        Ok(entries.into_iter().map(listed).collect())
    }

    /// The next bundle, of entries without a gap; `None` when all have been read.
    pub fn bundle(&mut self, session: &Session) -> Result<Option<Bundle>, Error> {
        while self.next < self.end {
            pgrx::check_for_interrupts!();
            let tile_end = (self.next / TILE_WIDTH as i64 + 1) * TILE_WIDTH as i64;
            let to = self.end.min(tile_end);
            let (first, may_show, leaf_hashes) = self.hashes(session, to)?;
            self.next = match may_show.len() {
                0 => to,
                count => first + count as i64,
            };
            if !may_show.is_empty() {
                return Ok(Some(Bundle {
                    leaf_data: self.leaf_data(session, first, &may_show)?,
                    first,
                    leaf_hashes,
                }));
            }
        }
        Ok(None)
    }

    /// Of the next entries before `to`: the first one's index, of each whether its leaf data may be shown, and the leaf
    /// hashes.
    fn hashes(&self, session: &Session, to: i64) -> Result<(i64, Vec<bool>, Vec<u8>), Error> {
        let mut first = self.next;
        let mut may_show = Vec::with_capacity(TILE_WIDTH as usize);
        let mut hashes = Vec::with_capacity(TILE_WIDTH as usize * HASH_SIZE);
        let mut is_whole = true;
        let keys = [
            Key::int4(1, self.log.id),
            Key::at_least(2, self.next),
            Key::at_most(2, to - 1),
        ];
        entries::open(session)?.scan(Snapshot::Statement, &keys, Direction::Forward, |row| {
            let index: i64 = row.required(2);
            if may_show.is_empty() {
                first = index;
            }
            let follows = index == first + may_show.len() as i64;
            if follows {
                let hash: &[u8] = row.required(5);
                is_whole &= hash.len() == HASH_SIZE;
                hashes.extend_from_slice(hash);
                may_show.push(self.readable.contains_key(&row.required::<i32>(1)));
            }
            follows
        });
        match is_whole {
            true => Ok((first, may_show, hashes)),
            false => Err(self.damaged(first, "a leaf hash does not have 32 bytes")),
        }
    }

    fn leaf_data(
        &self,
        session: &Session,
        first: i64,
        may_show: &[bool],
    ) -> Result<Vec<u8>, Error> {
        const NOTHING: [u8; 2] = [0; 2];
        let keys = [
            Key::int4(1, self.log.id),
            Key::at_least(2, first),
            Key::at_most(2, first + may_show.len() as i64 - 1),
        ];
        let mut bytes = Vec::with_capacity(TILE_WIDTH as usize * HASH_SIZE);
        let mut done = 0;
        let (mut problem, mut scratch) = (None, Scratch::new());
        let mut kept = session.index(c"merkle_leaf_data", c"merkle_leaf_data_pkey")?;
        kept.scan(Snapshot::Statement, &keys, Direction::Forward, |row| {
            let place = (row.required::<i64>(1) - first) as usize;
            while done < place {
                bytes.extend_from_slice(&NOTHING);
                done += 1;
            }
            // What is long is read into the server's memory.
            problem = scratch.reuse(|| {
                let stored: Option<&[u8]> = may_show[place].then(|| row.get(3)).flatten();
                let stored = stored.unwrap_or_default();
                let hashed = capped(stored).unwrap_or(Cow::Borrowed(stored));
                entry_bundle::append(&mut bytes, &hashed).err()
            });
            done += 1;
            problem.is_none()
        });
        if let Some(problem) = problem {
            return Err(self.damaged(first + done as i64 - 1, &problem.to_string()));
        }
        bytes.resize(bytes.len() + NOTHING.len() * (may_show.len() - done), 0);
        Ok(bytes)
    }

    fn damaged(&self, index: i64, problem: &str) -> Error {
        Error::Damaged {
            log: self.log.name.clone(),
            problem: format!("entry {index}: {problem}"),
        }
    }
}

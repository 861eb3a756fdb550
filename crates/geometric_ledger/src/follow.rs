//! A second ledger that takes over every batch of a first, by reading the first one's write-ahead
//! log: on the same file system, or a copy of the log's files that something else keeps up to date.
//!
//! The follower makes each batch again as its own, and checks that digest, totals and so the leaf are
//! the same. Its files are its own. It takes only what the first one's log says is durable there, so
//! it is never ahead of what a crash leaves of the first. When no process has the first one open any
//! more, all whole records of its log are what opening it would recover, and the follower takes them as
//! well: so it has whatever a killed process had acknowledged. Choosing a new first one is for people, or
//! for what people run for this; there is no consensus here.

use crate::account::Account;
use crate::engine::items::Rule;
use crate::engine::state::now;
use crate::engine::telemetry;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::options::Options;
use crate::storage::changes::take_update;
use crate::storage::disk::{Directory, Disk};
use crate::storage::encryption::{Encryption, Secret};
use crate::storage::record::{Header, RecordKind, TOTALS, Totals};
use crate::storage::superblock::Superblock;
use crate::storage::wal::{Next, Wal};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A ledger that follows another, and is read meanwhile.
pub struct Follower {
    ledger: GeometricLedger,
    source: PathBuf,
    key: Option<Secret>,
    /// Where the next record is looked for, once it is known.
    position: Option<u64>,
    /// The source is a copy, which says nothing of whether the ledger is open where it is written.
    copy: bool,
}

/// A follower that has become a ledger of its own.
#[non_exhaustive]
pub struct Promotion {
    pub ledger: GeometricLedger,
    /// The last batch that was taken over.
    pub sequence: u64,
    /// Why it is not known that this was all that the source had acknowledged, if it is not.
    pub missing: Option<Error>,
}

/// How far a follower is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// The follower's last batch, and the source's.
    pub sequence: u64,
    pub source: u64,
    /// The source has more than that, which nobody counted.
    pub is_more: bool,
    /// How long ago the source made the first batch that the follower does not have; zero if it has all.
    pub age: Duration,
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = self.source - self.sequence;
        write!(f, "at batch {}, ", self.sequence)?;
        match (behind, self.is_more) {
            (0, _) => write!(f, "which is the source's last"),
            (_, more) => {
                let least = if more { "at least " } else { "" };
                let age = self.age.as_secs_f64();
                write!(f, "{least}{behind} behind the source, {age:.1} s")
            }
        }
    }
}

/// Records of the source that are looked at to see how far a follower is behind.
const LOOKED_AT: usize = 100_000;
/// Records that are read before those that are known to be durable are applied.
const AHEAD: usize = 64;

impl Follower {
    /// Opens the ledger at `path`, creating it if it is not there, to follow the one at `source`. To
    /// begin with a snapshot of the source, restore it at `path` first.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(
        path: impl AsRef<Path>,
        source: impl AsRef<Path>,
        options: Options,
    ) -> Result<Self, Error> {
        let key = options.key.clone();
        let following = Options {
            following: true,
            ..options
        };
        let ledger = following.open(path)?;
        Ok(Follower {
            ledger,
            source: source.as_ref().to_owned(),
            key,
            position: None,
            copy: false,
        })
    }

    /// Says that the source is a copy of a ledger's files that something else renews, and not the
    /// directory that the ledger is open in. What the log does not say is durable is then taken by
    /// [`Follower::promote`] only.
    pub fn of_copy(mut self) -> Self {
        self.copy = true;
        self
    }

    /// The ledger, which refuses to be written to.
    pub fn ledger(&self) -> &GeometricLedger {
        &self.ledger
    }

    /// Takes over all batches that are durable in the source. Returns how many.
    ///
    /// # Errors
    /// [`Error::Follow`] if the source's log does not go back to the follower's last batch, or the
    /// two have different pasts.
    pub fn catch_up(&mut self) -> Result<u64, Error> {
        let last = !self.copy && self.is_source_free()?;
        self.take(last, u64::MAX)
    }

    /// As [`Follower::catch_up`], and ends after about so many batches.
    ///
    /// # Errors
    /// As [`Follower::catch_up`].
    pub fn catch_up_some(&mut self, batches: u64) -> Result<u64, Error> {
        let last = !self.copy && self.is_source_free()?;
        self.take(last, batches)
    }

    /// How far the follower is behind what the source has written.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub fn lag(&self) -> Result<Lag, Error> {
        let wal = Wal::open(Arc::new(Directory::watch(&self.source)), 1 << 16)?;
        let sequence = self.ledger.view().sequence();
        let mut lag = Lag {
            sequence,
            source: sequence,
            is_more: false,
            age: Duration::ZERO,
        };
        let mut position = self.position;
        for _ in 0..LOOKED_AT {
            let Some(at) = position else { break };
            let Some(header) = wal.header_at(at)? else {
                break;
            };
            if header.kind == RecordKind::Batch && header.sequence > lag.source {
                if lag.source == sequence {
                    let age = now().saturating_sub(header.time).max(0);
                    lag.age = Duration::from_micros(age as u64);
                }
                lag.source = header.sequence;
            }
            position = Some(wal.after(&header));
            lag.is_more = true;
        }
        lag.is_more &= matches!(position.map(|at| wal.header_at(at)), Some(Ok(Some(_))));
        telemetry::lagging(lag.source - lag.sequence, lag.age);
        Ok(lag)
    }

    /// Closes the follower's ledger.
    ///
    /// # Errors
    /// As [`GeometricLedger::close`].
    pub fn close(self) -> Result<(), Error> {
        self.ledger.close()
    }

    fn is_source_free(&self) -> Result<bool, Error> {
        Directory::is_free(&self.source).map_err(Error::io("the source"))
    }

    /// Takes over all batches that are durable in the source; with `all`, because nobody has the source
    /// open, also those that no later record vouches for. Ends after about `most` batches.
    fn take(&mut self, all: bool, most: u64) -> Result<u64, Error> {
        let disk: Arc<dyn Disk> = Arc::new(Directory::watch(&self.source));
        let file = disk
            .open("ledger", false)
            .map_err(Error::io("the source"))?;
        let Some(block) = Superblock::read(&file)?.newest else {
            return match file.size().map_err(Error::io("the source"))? {
                0 => Ok(0),
                _ => Err(Error::damaged(
                    "the source's superblock",
                    "both copies",
                    "no copy is whole",
                )),
            };
        };
        let (encryption, _) = block.keys(self.key.as_ref())?;
        let wal = Wal::open(disk, 1 << 16)?;
        let mut position = match self.position {
            Some(position) if position >= wal.oldest() => position,
            // The first time, or when the source has let go of what comes next.
            _ => self.find(&wal, &encryption, &block)?,
        };
        // What a checkpoint has brought to the files was durable in the log before.
        let (mut waiting, mut durable, mut applied) = (VecDeque::new(), block.position, 0);
        let mut more = true;
        while more {
            while waiting.len() < AHEAD && more {
                match next(&wal, position, &encryption)? {
                    Some((header, body)) => {
                        position = header.end();
                        durable = durable.max(header.durable);
                        waiting.push_back((header, body));
                    }
                    None => more = false,
                }
            }
            // Somebody may have opened the source again meanwhile, in a new epoch.
            while let Some((header, _)) = waiting.front()
                && (header.end() <= durable || all && header.epoch <= block.epoch)
            {
                let (header, body) = waiting.pop_front().expect("there is a front");
                applied += u64::from(self.apply(&header, &body)?);
                self.position = Some(header.end());
            }
            more &= waiting.len() < AHEAD && applied < most;
        }
        Ok(applied)
    }

    /// Where the record after the follower's last batch begins in the source's log.
    fn find(&self, wal: &Wal, encryption: &Encryption, block: &Superblock) -> Result<u64, Error> {
        let ours = self.ledger.view().sequence();
        let mut from = None;
        for start in wal.segments.starts() {
            match wal.record_at(start, encryption)? {
                Some((header, _)) if from.is_none() || header.sequence <= ours => {
                    from = Some(start)
                }
                _ => {}
            }
        }
        let mut position = match from {
            Some(position) => position,
            // The source is new, and nothing was written to it yet.
            None if (ours, block.sequence) == (0, 0) => return Ok(wal.oldest()),
            None => return Err(Error::Follow("the source's log has no record".into())),
        };
        let mut first = true;
        while let Some((header, body)) = next(wal, position, encryption)? {
            let batch = header.kind == RecordKind::Batch;
            if batch && header.sequence == ours {
                self.compare(&header, &body)?;
            }
            if batch && header.sequence > ours {
                if first && header.sequence > ours + 1 {
                    let what = format!(
                        "the source's log begins with batch {}, and batch {} is needed; restore a snapshot",
                        header.sequence,
                        ours + 1
                    );
                    return Err(Error::Follow(what));
                }
                break;
            }
            first &= !batch;
            position = header.end();
        }
        Ok(position)
    }

    /// Whether the source's batch is ours.
    fn compare(&self, header: &Header, body: &[u8]) -> Result<(), Error> {
        let ours = self.ledger.batch(header.sequence)?;
        let theirs = Totals::decode(body);
        match (ours, theirs) {
            (Some(ours), Some((totals, digest)))
                if (ours.totals, ours.digest, ours.time) == (totals, digest, header.time) =>
            {
                Ok(())
            }
            _ => Err(Error::Follow(format!(
                "batch {} is another one here than in the source",
                header.sequence
            ))),
        }
    }

    fn apply(&self, header: &Header, body: &[u8]) -> Result<bool, Error> {
        if header.kind != RecordKind::Batch {
            return Ok(false);
        }
        let damaged = || {
            Error::damaged(
                "the source's log",
                header.position,
                "a record cannot be read",
            )
        };
        let (totals, digest) = Totals::decode(body).ok_or_else(damaged)?;
        let end = TOTALS + header.updates as usize;
        let mut updates = body.get(TOTALS..end).ok_or_else(damaged)?;
        let mut items = Vec::with_capacity(header.items as usize);
        while !updates.is_empty() {
            let (key, kind, words) = take_update(&mut updates).ok_or_else(damaged)?;
            items.push((key, Account::from_words(&words), kind));
        }
        let core = &self.ledger.core;
        let writer = core.write_always()?;
        if header.sequence != writer.sequence + 1 {
            let what = format!("batch {} came after {}", header.sequence, writer.sequence);
            return Err(Error::Follow(what));
        }
        let rule = Rule::Follow(totals, header.time, digest);
        let order = core.order(&items[..]);
        let (batch, end) = core.append(writer, &items[..], &order, rule)?;
        core.wait(batch.sequence, end)?;
        Ok(true)
    }

    /// Makes the follower a ledger of its own, to be written to, after a last look at the source: a copy
    /// is believed to be the last one. What the source had and the follower could not take is said.
    ///
    /// # Errors
    /// [`Error::Follow`] if a process still has the source open for writing. The follower goes on then
    /// when it is opened again.
    pub fn promote(mut self) -> Result<Promotion, Error> {
        if matches!(self.is_source_free(), Ok(false)) {
            let what =
                "the source is still open for writing; stop it before its follower is promoted";
            return Err(Error::Follow(what.into()));
        }
        let taken = self.take(true, u64::MAX);
        let missing = taken.and_then(|_| self.nothing_left()).err();
        self.ledger.core.following.store(false, Ordering::Release);
        let sequence = self.ledger.view().sequence();
        Ok(Promotion {
            ledger: self.ledger,
            sequence,
            missing,
        })
    }

    /// Fails if the source has acknowledged more than the follower has.
    fn nothing_left(&self) -> Result<(), Error> {
        let disk: Arc<dyn Disk> = Arc::new(Directory::watch(&self.source));
        let file = disk
            .open("ledger", false)
            .map_err(Error::io("the source"))?;
        let Some(block) = Superblock::read(&file)?.newest else {
            return Ok(());
        };
        let ours = self.ledger.view().sequence();
        if block.sequence > ours {
            let what = format!("batches {} to {} of the source", ours + 1, block.sequence);
            return Err(Error::Follow(format!("{what} are missing here")));
        }
        let wal = Wal::open(disk, 1 << 16)?;
        wal.segments.require(block.segment.0, block.segment.1)?;
        let (encryption, _) = block.keys(self.key.as_ref())?;
        let Some(position) = self.position else {
            return Ok(());
        };
        // Damage is told from the end of the log as in recovery.
        match wal.next(position, ours, 0, &encryption)? {
            Next::End => Ok(()),
            Next::Record(header, _) => {
                let what = format!(
                    "the source has batch {}, which is missing here",
                    header.sequence
                );
                Err(Error::Follow(what))
            }
        }
    }
}

/// The record at a position, or at the start of the segment after it.
fn next(
    wal: &Wal,
    position: u64,
    encryption: &Encryption,
) -> Result<Option<(Header, Vec<u8>)>, Error> {
    match wal.record_at(position, encryption)? {
        Some(record) => Ok(Some(record)),
        None => wal
            .segments
            .end_of(position)
            .map_or(Ok(None), |following| wal.record_at(following, encryption)),
    }
}

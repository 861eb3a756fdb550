//! One round of an export: from the published tree to the log's newest checkpoint.

use super::source::{Bundle, Bundles, Log, checkpoint_of};
use super::target::{File, Target};
use super::{Exported, Stop, said};
use futures_util::TryStreamExt;
use indicatif::ProgressBar;
use merkle_tree::{
    Error, Frontier, Hash, HashReader, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize, leaf_hashes,
    tile_hash,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use tlog::{Checkpoint, TileLevel, TilePath, entry_bundle, tile_from_bytes, tile_to_bytes};
use tokio::sync::mpsc;

/// Entries that one statement asks for: so few that the server keeps its answer in memory.
const A_STATEMENT: u64 = 64 * TILE_WIDTH;
/// Bytes of bundles after which they are written, so that memory stays bounded whatever the entries' length.
const A_WRITE: usize = 8 << 20;

pub struct Export<'e> {
    log: &'e Log<'e>,
    target: &'e mut Target,
    published: Option<Checkpoint>,
    /// Whether all files are written anew.
    again: bool,
    /// Whether there is anything to publish.
    is_new: bool,
    /// Where the entries begin that this round writes.
    start: u64,
    frontier: Frontier,
    /// The incomplete tile of each level, where it is not what is published.
    incomplete: BTreeMap<u8, (u64, Vec<Hash>)>,
    written: u64,
    withheld: u64,
}

/// A bundle whose entries have the hashes that the log says.
struct Checked {
    bundle: Bundle,
    /// The root over its entries.
    root: Hash,
    /// How many of them are there as hashes only.
    withheld: u64,
}

impl<'e> Export<'e> {
    pub async fn begin(
        log: &'e Log<'e>,
        target: &'e mut Target,
        again: bool,
    ) -> Result<Export<'e>, Stop> {
        let note = target.checkpoint().await?;
        let published = note.as_ref().map(checkpoint_of).transpose()?;
        let mut start = 0;
        let mut frontier = Frontier::default();
        if let Some(published) = &published {
            let size = published.size();
            check_same_history(log, published).await?;
            log.check_not_pruned(size.get())?;
            if !again {
                if load(target, size).await?.root() != *published.root() {
                    return Err(said(
                        "the tiles of the target do not lead to its checkpoint: it is damaged\n\
                         Hint: Run this with --again to write all files anew.",
                    ));
                }
                start = size.get() / TILE_WIDTH * TILE_WIDTH;
                frontier = load(target, TreeSize::new(start)?).await?;
            }
        }
        Ok(Export {
            is_new: again || note.is_none_or(|note| *note != *log.note.as_bytes()),
            log,
            target,
            published,
            again,
            start,
            frontier,
            incomplete: BTreeMap::new(),
            written: 0,
            withheld: 0,
        })
    }

    fn size(&self) -> u64 {
        self.log.checkpoint.size().get()
    }

    fn published_size(&self) -> u64 {
        self.published
            .as_ref()
            .map_or(0, |published| published.size().get())
    }

    /// How many entries are to be written.
    pub fn remaining(&self) -> u64 {
        match self.is_new {
            true => self.size() - self.start,
            false => 0,
        }
    }

    pub async fn copy_entries(&mut self, bar: &ProgressBar) -> Result<(), Stop> {
        if self.remaining() == 0 {
            return Ok(());
        }
        if self.start < self.log.pruned_to {
            self.push_pruned().await?;
        }
        let range = self.start.max(self.log.pruned_to)..self.size();
        // The next bundles are read while these are hashed and written.
        let (sender, mut receiver) = mpsc::channel(1);
        let read = read(self.log, range, sender);
        let write = async move {
            while let Some(bundles) = receiver.recv().await {
                self.write(bundles, bar).await?;
            }
            Ok(())
        };
        // Whichever fails, nothing is written any more when this returns.
        let (read, written): (_, Result<(), Stop>) = tokio::join!(read, write);
        written.and(read)
    }

    /// What was pruned before it was exported is there as the roots of its tiles.
    async fn push_pruned(&mut self) -> Result<(), Stop> {
        let roots = self.log.roots_of_pruned().await?;
        let mut roots = pin!(roots);
        let tiles = self.log.pruned_to / TILE_WIDTH;
        while self.frontier.size().get() / TILE_WIDTH < tiles {
            let Some(hashes) = roots.try_next().await? else {
                return Err(said("the hashes of pruned entries are not all there"));
            };
            let missing = tiles - self.frontier.size().get() / TILE_WIDTH;
            for hash in hashes.into_iter().take(missing as usize) {
                self.frontier.push_tile(hash)?;
            }
            let files = self.complete_tiles()?;
            self.target.write(files).await?;
        }
        self.meets_published()
    }

    async fn write(&mut self, bundles: Vec<Bundle>, bar: &ProgressBar) -> Result<(), Stop> {
        let checked = tokio::task::spawn_blocking(move || check_in_parallel(bundles)).await??;
        let mut files = Vec::with_capacity(2 * checked.len());
        for Checked {
            bundle,
            root,
            withheld,
        } in checked
        {
            let index = self.frontier.size().get() / TILE_WIDTH;
            let width = bundle.hashes.len();
            self.append(&bundle.hashes, root)?;
            self.written += width as u64;
            self.withheld += withheld;
            bar.inc(width as u64);
            let path = TilePath::new(TileLevel::Entries, index, width as u16)?;
            files.extend(self.published_beginnings(&path, &bundle.bytes).await?);
            files.push(File {
                path,
                bytes: bundle.bytes,
            });
            let path = TilePath::new(TileLevel::Hashes(0), index, width as u16)?;
            files.push(File {
                path,
                bytes: tile_to_bytes(&bundle.hashes),
            });
        }
        files.extend(self.complete_tiles()?);
        self.target.write(files).await
    }

    /// Where all files are written anew, the partial bundles of earlier sizes, which a later one begins with.
    async fn published_beginnings(
        &self,
        bundle: &TilePath,
        bytes: &[u8],
    ) -> Result<Vec<File>, Stop> {
        if !self.again || !bundle.is_partial() {
            return Ok(Vec::new());
        }
        let full = TilePath::new(bundle.level(), bundle.index(), TILE_WIDTH as u16)?;
        let entries = entry_bundle::entries(bytes, bundle.width())?;
        let mut files = Vec::new();
        for path in self.target.partial(&full).await? {
            let mut bytes = Vec::new();
            for entry in entries.iter().take(usize::from(path.width())) {
                entry_bundle::append(&mut bytes, entry)?;
            }
            files.extend((path.width() < bundle.width()).then_some(File { path, bytes }));
        }
        Ok(files)
    }

    fn append(&mut self, hashes: &[Hash], root: Hash) -> Result<(), Stop> {
        let first = self.frontier.size().get();
        let ends_inside = (first + 1..first + TILE_WIDTH).contains(&self.published_size());
        if hashes.len() as u64 == TILE_WIDTH && !ends_inside {
            self.frontier.push_tile(root)?;
            return self.meets_published();
        }
        for hash in hashes {
            self.frontier.push(*hash)?;
            self.meets_published()?;
        }
        Ok(())
    }

    /// That the tree is the published one, where it has its size.
    fn meets_published(&self) -> Result<(), Stop> {
        match &self.published {
            Some(published)
                if published.size() == self.frontier.size()
                    && *published.root() != self.frontier.root() =>
            {
                Err(rewritten(published))
            }
            _ => Ok(()),
        }
    }

    /// The tiles above level 0 that no later entry changes.
    fn complete_tiles(&mut self) -> Result<Vec<File>, Stop> {
        let mut files = Vec::new();
        for (TileId { level, index }, hashes) in self.frontier.take_tiles() {
            self.incomplete.remove(&level);
            match hashes.len() as u64 == TILE_WIDTH {
                true => files.push(tile(level, index, &hashes)?),
                false => drop(self.incomplete.insert(level, (index, hashes))),
            }
        }
        Ok(files)
    }

    pub async fn publish(mut self) -> Result<Exported, Stop> {
        if self.is_new {
            if self.frontier.root() != *self.log.checkpoint.root() {
                return Err(Stop::Bad(
                    "the entries of the database do not lead to the root that its checkpoint says"
                        .to_owned(),
                ));
            }
            let last = std::mem::take(&mut self.incomplete).into_iter();
            let last = last.map(|(level, (index, hashes))| tile(level, index, &hashes));
            self.target.write(last.collect::<Result<_, _>>()?).await?;
            self.target.sync()?;
            // Who has the old checkpoint finds the full tiles.
            self.remove_partial().await?;
            self.target.publish(&self.log.note).await?;
        }
        Ok(Exported {
            checkpoint: self.log.checkpoint.clone(),
            before: self.published_size(),
            written: self.written,
            withheld: self.withheld,
            published: self.is_new,
            not_rewritten: match self.again {
                true => self.log.pruned_to.min(self.published_size()),
                false => 0,
            },
        })
    }

    /// Removes the partial tiles of the published tree that are complete now; where all files are written anew, all that
    /// are complete now: an export that was killed may have left some of a size that was never published.
    async fn remove_partial(&self) -> Result<(), Stop> {
        if self.again {
            return self.remove_all_partial().await;
        }
        let Some(published) = &self.published else {
            return Ok(());
        };
        let mut partial = Vec::new();
        for (level, height) in levels() {
            let nodes = published.size().get() >> height;
            let index = nodes / TILE_WIDTH;
            if !nodes.is_multiple_of(TILE_WIDTH) && (self.size() >> height) / TILE_WIDTH > index {
                partial.push(TilePath::new(level, index, TILE_WIDTH as u16)?);
            }
        }
        for full in partial {
            self.target.remove_partial(&full).await?;
        }
        Ok(())
    }
}

impl Export<'_> {
    async fn remove_all_partial(&self) -> Result<(), Stop> {
        for (level, height) in levels() {
            for index in 0..(self.size() >> height) / TILE_WIDTH {
                let full = TilePath::new(level, index, TILE_WIDTH as u16)?;
                self.target.remove_partial(&full).await?;
            }
        }
        Ok(())
    }
}

/// The levels of tiles, each with how far entries are shifted to their nodes there.
fn levels() -> impl Iterator<Item = (TileLevel, u32)> {
    let of_hashes =
        (0..=7u8).map(|level| (TileLevel::Hashes(level), u32::from(level) * TILE_HEIGHT));
    std::iter::once((TileLevel::Entries, 0)).chain(of_hashes)
}

fn tile(level: u8, index: u64, hashes: &[Hash]) -> Result<File, Stop> {
    Ok(File {
        path: TilePath::new(TileLevel::Hashes(level), index, hashes.len() as u16)?,
        bytes: tile_to_bytes(hashes),
    })
}

fn rewritten(published: &Checkpoint) -> Stop {
    Stop::Bad(format!(
        "the log in the database is not a continuation of the published one: the first {} entries differ",
        published.size()
    ))
}

/// That the published tree is of this log, and is what the database says it was.
async fn check_same_history(log: &Log<'_>, published: &Checkpoint) -> Result<(), Stop> {
    if published.origin() != log.checkpoint.origin() {
        return Err(said(format!(
            "the target holds another log: {:?}, and this is {:?}",
            published.origin(),
            log.checkpoint.origin()
        )));
    }
    log.check_reaches(published.size().get())?;
    match log.root(published.size().get()).await? == *published.root() {
        true => Ok(()),
        false => Err(rewritten(published)),
    }
}

/// Reads the entries of a range, some bundles at a time. While the answer to one statement is read, the next is asked
/// for already.
async fn read(
    log: &Log<'_>,
    range: Range<u64>,
    sender: mpsc::Sender<Vec<Bundle>>,
) -> Result<(), Stop> {
    let mut expected = range.start;
    let cut = |from: u64| from..range.end.min((from / A_STATEMENT + 1) * A_STATEMENT);
    let mut part = cut(range.start);
    let mut answer = log.bundles(part.clone()).await?;
    loop {
        let next = cut(part.end);
        let ask = async {
            match next.is_empty() {
                true => Ok(None),
                false => log.bundles(next.clone()).await.map(Some),
            }
        };
        let take = take(answer, &mut expected, part.end, &sender);
        let (is_heard, asked) = tokio::try_join!(take, ask)?;
        match asked {
            Some(next_answer) if is_heard => (answer, part) = (next_answer, next),
            _ => return Ok(()),
        }
    }
}

/// Hands an answer on, which must have all entries from the expected one up to `end`. Whether anyone still listens:
/// who does not has failed, and says so.
async fn take(
    mut answer: Bundles,
    expected: &mut u64,
    end: u64,
    sender: &mpsc::Sender<Vec<Bundle>>,
) -> Result<bool, Stop> {
    let (mut bundles, mut bytes) = (Vec::new(), 0);
    while let Some(bundle) = answer.try_next().await? {
        let width = bundle.hashes.len() as u64;
        let tile_end = (*expected / TILE_WIDTH + 1) * TILE_WIDTH;
        if bundle.first != *expected || *expected + width != tile_end.min(end) {
            return Err(missing(match bundle.first == *expected {
                true => *expected + width,
                false => *expected,
            }));
        }
        *expected += width;
        bytes += bundle.bytes.len();
        bundles.push(bundle);
        if bytes >= A_WRITE || *expected == end {
            bytes = 0;
            if sender.send(std::mem::take(&mut bundles)).await.is_err() {
                return Ok(false);
            }
        }
    }
    match *expected == end {
        true => Ok(true),
        false => Err(missing(*expected)),
    }
}

fn missing(index: u64) -> Stop {
    Stop::Bad(format!("entry {index} is missing in the database"))
}

/// Hashes the entries of bundles, by as many threads as there are processors.
fn check_in_parallel(bundles: Vec<Bundle>) -> Result<Vec<Checked>, Stop> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = bundles.len().div_ceil(threads).max(1);
    let mut bundles = bundles.into_iter();
    let parts: Vec<Vec<Bundle>> = std::iter::from_fn(|| {
        let part: Vec<_> = bundles.by_ref().take(share).collect();
        (!part.is_empty()).then_some(part)
    })
    .collect();
    std::thread::scope(|scope| {
        let check =
            |part: Vec<Bundle>| part.into_iter().map(checked).collect::<Result<Vec<_>, _>>();
        let started: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || check(part)))
            .collect();
        let mut all = Vec::new();
        for thread in started {
            let part = thread.join();
            all.extend(part.unwrap_or_else(|_| Err(said("a thread panicked")))?);
        }
        Ok(all)
    })
}

/// The bundle, if its entries have the hashes that the log says.
fn checked(bundle: Bundle) -> Result<Checked, Stop> {
    let entries = entry_bundle::entries(&bundle.bytes, bundle.hashes.len() as u16)?;
    let withheld = entries.iter().filter(|entry| entry.is_empty()).count() as u64;
    let hashes = leaf_hashes(entries.iter().copied());
    let found = hashes.iter().zip(&bundle.hashes).zip(&entries);
    let wrong = found
        .map(|((hash, said), entry)| hash != said && !entry.is_empty())
        .position(|wrong| wrong);
    match wrong {
        Some(place) => Err(Stop::Bad(format!(
            "the leaf data that the database has of entry {} are not what was logged",
            bundle.first + place as u64
        ))),
        None => Ok(Checked {
            root: tile_hash(&bundle.hashes),
            withheld,
            bundle,
        }),
    }
}

/// Hashes that were read before the tree is computed from them.
struct Read(BTreeMap<TileId, Vec<Hash>>);

impl HashReader for Read {
    type Error = std::convert::Infallible;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Self::Error> {
        let hashes = self.0.get(&tile).map_or(&[][..], Vec::as_slice);
        Ok(hashes
            .iter()
            .skip(usize::from(first))
            .take(usize::from(count))
            .copied()
            .collect())
    }
}

/// The right edge of the tree that the target has.
async fn load(target: &Target, size: TreeSize) -> Result<Frontier, Stop> {
    let mut read = Read(BTreeMap::new());
    for partial in edge(size) {
        let full = TilePath::new(partial.level(), partial.index(), TILE_WIDTH as u16)?;
        for path in [partial, full] {
            if let (Some(bytes), Some(tile)) = (target.read(&path).await?, path.tile()) {
                read.0.insert(tile, tile_from_bytes(&bytes, path.width())?);
                break;
            }
        }
    }
    Frontier::load(&mut read, size).map_err(|error| match error {
        Error::ShortRead { tile, .. } => said(format!(
            "tile {} of level {} is missing in the target: it is damaged\n\
             Hint: Run this with --again to write all files anew.",
            tile.index, tile.level
        )),
        error => said(error.to_string()),
    })
}

/// The incomplete tiles of a tree.
fn edge(size: TreeSize) -> Vec<TilePath> {
    let levels = (0..=7u8).filter_map(|level| {
        let nodes = size.get() >> (u32::from(level) * TILE_HEIGHT);
        TilePath::new(
            TileLevel::Hashes(level),
            nodes / TILE_WIDTH,
            (nodes % TILE_WIDTH) as u16,
        )
        .ok()
    });
    levels.collect()
}

//! Reading every row of a batch and every hash above them, to see whether they are as they were written.

use crate::error::Error;
use crate::storage::batches::{Batches, Inner, level_name};
use crate::storage::frontier_file;
use merkle_tree::{Frontier, Hash, HashReader, TILE_WIDTH, TileId};

/// How far rows and hashes were read.
pub struct RowScrub {
    end: u64,
    at: u64,
    frontier: Frontier,
    /// A row cannot be read, so what the rows lead to is not known.
    broken: bool,
    ended: bool,
}

/// What is wrong, by file and row or hash.
type Wrong = Vec<(String, u64, &'static str)>;

impl RowScrub {
    /// Begins to read every row there is now, and every hash above them.
    pub fn new(batches: &Batches) -> Self {
        let inner = batches.lock();
        RowScrub {
            end: inner.size(),
            at: 0,
            frontier: Frontier::default(),
            broken: false,
            ended: false,
        }
    }

    /// Reads the next rows, and says what is wrong with them, and with the hashes above them; `None` at the
    /// end.
    pub fn next(&mut self, batches: &Batches, rows: u64) -> Result<Option<Wrong>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut inner = batches.lock();
        inner.write()?;
        let mut wrong = Vec::new();
        if self.at < inner.first() {
            self.begin_behind_pruned(&mut inner, &mut wrong)?;
        }
        let end = (self.at + rows).min(self.end).max(self.at);
        for index in self.at..end {
            match inner.row(index) {
                Ok((batch, leaf)) if batch.leaf_hash() == leaf => {
                    let pushed = self.frontier.push(leaf);
                    pushed.map_err(|error| Error::Tree(error.to_string()))?;
                }
                Ok(_) => wrong.push(("batches".into(), index, "the leaf hash is another one")),
                Err(Error::Damaged { .. }) => {
                    wrong.push(("batches".into(), index, "the row's checksum is wrong"));
                }
                Err(error) => return Err(error),
            }
        }
        self.broken |= !wrong.is_empty();
        (self.at, self.ended) = (end, end >= self.end);
        if !self.broken {
            self.compare(&mut inner, &mut wrong)?;
        }
        Ok(Some(wrong))
    }

    /// Goes on with the first row that was not pruned, meanwhile or before, from the frontier that is left of
    /// the others.
    fn begin_behind_pruned(&mut self, inner: &mut Inner, wrong: &mut Wrong) -> Result<(), Error> {
        if !inner.frontier_is_whole()? {
            let what = "the file of the frontier is missing or not what was written";
            wrong.push((frontier_file::name(inner.first()), 0, what));
        }
        (self.at, self.frontier) = (inner.first(), inner.pruned().clone());
        compare_tiles(inner, frontier_file::tiles(&self.frontier), wrong)
    }

    /// Compares the hashes that the rows lead to with those that are stored.
    fn compare(&mut self, inner: &mut Inner, wrong: &mut Wrong) -> Result<(), Error> {
        compare_tiles(inner, self.frontier.take_tiles(), wrong)?;
        // With wrong hashes, what was committed cannot be asked for.
        if !self.ended || !wrong.is_empty() {
            return Ok(());
        }
        match inner.root_at(self.frontier.size()) {
            Ok(root) if root == self.frontier.root() => {}
            Ok(_) | Err(Error::Damaged { .. }) => {
                let what = "they do not lead to the root that was committed";
                wrong.push(("batches".into(), 0, what));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn compare_tiles(
    inner: &mut Inner,
    tiles: Vec<(TileId, Vec<Hash>)>,
    wrong: &mut Wrong,
) -> Result<(), Error> {
    for (tile, hashes) in tiles {
        let place = tile.index * TILE_WIDTH;
        match inner.read(tile, 0, hashes.len() as u16) {
            Ok(found) if found == hashes => {}
            Ok(_) => wrong.push((level_name(tile.level.into()), place, "a hash is wrong")),
            Err(Error::Damaged { file, .. }) => wrong.push((file, place, "hashes are missing")),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

//! The changes of a transaction whose queue rows were not written in the order of its changes.
//!
//! Each row has its changes in order, and so have most runs of rows: what a transaction writes early at one time
//! is in order. So the runs are merged, of each of which one row is in memory. How many changes were
//! logged is put down with the transaction's last row, and rows are deleted when all of theirs are.

use super::change_order::Rank;
use super::queue::{Change, Piece};
use crate::catalog::logs::Log;
use crate::error::Error;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::vec;

/// Changes that are handed out at once.
const PIECE: usize = 250;

/// Where a change belongs: its rank, and how many were captured before it.
type Key = (Rank, u32);

/// A queue row.
struct Page {
    place: String,
    changes: i32,
    /// It was written before the transaction's end.
    early: bool,
}

/// Rows whose changes are in order, the later ones after those of the rows before.
struct Run {
    pages: VecDeque<Page>,
    /// Those of the first page that were not handed out.
    changes: vec::IntoIter<Change>,
    last: Key,
}

/// A transaction that is handed out in the order of its changes.
pub struct Reorder {
    log: String,
    id: i64,
    runs: Vec<Run>,
    next: BinaryHeap<Reverse<(Key, usize)>>,
    /// The row with which it is put down how many changes are logged, of the rows that are there.
    place: String,
    taken: i32,
    /// Changes that were logged by earlier batches.
    skip: i32,
    /// The rows that were written last, which stay until all is logged.
    last_rows: Vec<String>,
}

impl Reorder {
    /// Of a transaction at `id`, of which `taken` changes were logged as the row at `place` says: the first of those that
    /// it wrote last.
    pub fn new(log: &Log, id: i64, place: &str, taken: i32) -> Reorder {
        Reorder {
            log: log.name.clone(),
            id,
            runs: Vec::new(),
            next: BinaryHeap::new(),
            place: place.to_owned(),
            taken: 0,
            skip: taken,
            last_rows: Vec::new(),
        }
    }

    /// Takes note of a row of the transaction; they come in the order in which they were written.
    pub fn add(&mut self, place: String, changes: &[Change], early: bool) -> Result<(), Error> {
        if !early {
            self.last_rows.push(place.clone());
        }
        let keys = changes.iter().map(|c| key(&self.log, self.id, c));
        let keys = keys.collect::<Result<Vec<Key>, Error>>()?;
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return Ok(());
        };
        let page = Page {
            place,
            changes: changes.len() as i32,
            early,
        };
        match self.runs.last_mut().filter(|run| run.last < *first) {
            Some(run) => {
                run.pages.push_back(page);
                run.last = *last;
            }
            None => {
                self.next.push(Reverse((*first, self.runs.len())));
                self.runs.push(Run {
                    pages: VecDeque::from([page]),
                    changes: Vec::new().into_iter(),
                    last: *last,
                });
            }
        }
        Ok(())
    }

    /// The next changes; `None` at the end. `read` gives the changes of the row at a place.
    pub fn next(
        &mut self,
        mut read: impl FnMut(&str) -> Result<Vec<Change>, Error>,
    ) -> Result<Option<Piece>, Error> {
        let mut piece = Piece {
            id: self.id,
            places: Vec::new(),
            changes: Vec::new(),
            at: self.place.clone(),
            taken: self.taken.max(self.skip),
            rest: None,
        };
        while piece.changes.len() < PIECE
            && let Some(Reverse((_, at))) = self.next.pop()
        {
            let run = &mut self.runs[at];
            if run.changes.as_slice().is_empty() {
                run.changes = read(&run.pages[0].place)?.into_iter();
            }
            let change = run.changes.next();
            self.taken += 1;
            match self.skip {
                0 => piece.changes.extend(change),
                _ => self.skip -= 1,
            }
            if run.changes.as_slice().is_empty()
                && let Some(done) = run.pages.pop_front()
                && done.early
            {
                self.taken -= done.changes;
                piece.places.push(done.place);
            }
            if let Some(following) = run.first(&mut read)? {
                self.next
                    .push(Reverse((key(&self.log, self.id, following)?, at)));
            }
        }
        if self.next.is_empty() {
            piece.places.append(&mut self.last_rows);
        } else {
            piece.rest = Some(self.taken);
        }
        let empty = piece.changes.is_empty() && piece.places.is_empty();
        Ok((!empty).then_some(piece))
    }
}

impl Run {
    /// The change that comes next in this run.
    fn first(
        &mut self,
        mut read: impl FnMut(&str) -> Result<Vec<Change>, Error>,
    ) -> Result<Option<&Change>, Error> {
        if self.changes.as_slice().is_empty()
            && let Some(page) = self.pages.front()
        {
            self.changes = read(&page.place)?.into_iter();
        }
        Ok(self.changes.as_slice().first())
    }
}

fn key(log: &str, id: i64, change: &Change) -> Result<Key, Error> {
    let place = change.place.map(|(number, rank)| (rank, number));
    place.ok_or_else(|| Error::Damaged {
        log: log.to_owned(),
        problem: format!("queue row {id} does not say where its changes belong"),
    })
}

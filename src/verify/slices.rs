//! A verification in slices: a pass over a log, each slice of which is a transaction with a snapshot of its own.
//!
//! What one slice says, it has read under one snapshot: entries, their rows and what is above them; or rows of a
//! source and their entries. So whatever is written between two slices is no finding. From slice to slice goes what
//! can never change rightly: the tree of the entries that were read, what their order values were, the digests of
//! batches that were read in part, and what was found. The last entries are held against the last tree head and the
//! watermarks in one slice.

use super::batches::Batches;
use super::finding::Finding;
use super::orders::OrderNotes;
use super::parts::Part;
use super::rows::{Notes, Rows};
use super::stages::Stage;
use super::{CHUNK, Kind, Record, Verification, last_head, recorded, stored_frontier};
use crate::capture::fence::{self, Blocked};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::session::Session;
use crate::store::{entries, tree::tree_size};
use merkle_tree::{Frontier, Hash, TILE_WIDTH};
use serde::{Deserialize, Serialize};
use std::time::Instant;

const TILE: i64 = TILE_WIDTH as i64;
/// A pass that has read as many entries more than there were when it began, and twice as many, stops following a
/// log that grows faster than it is read.
const CHASE: i64 = 1 << 20;

/// What only a pass in slices has.
pub(super) struct Pass {
    /// Entries when it began.
    goal: i64,
    /// A step came to nothing, so of what it should have read nothing is known.
    pub unread: bool,
    /// The source whose rows were read from the beginning a second time.
    begun_again: Option<i32>,
    /// What was read of the order of sources that are not open in this slice.
    orders: OrderNotes,
    /// Watermarks that were altered, and what they should be.
    watermarks: Vec<(i32, Option<Vec<String>>)>,
    /// Entries of which it was found what is wrong with them, other than with their rows.
    explained: Vec<i64>,
}

/// The tree of the entries that were read.
#[derive(Serialize, Deserialize)]
enum Tree {
    /// A gap makes it unknowable.
    Unknown,
    /// The tiles that are stored lead to this root.
    Stored(Vec<u8>),
    /// They do not: the hashes of its incomplete tiles, by level.
    Computed(Vec<Vec<Vec<u8>>>),
}

/// What goes from one slice to the next.
#[derive(Serialize, Deserialize)]
pub struct Crossing {
    stage: Stage,
    next: i64,
    goal: i64,
    pruned_to: i64,
    tree: Tree,
    batches: Batches,
    orders: OrderNotes,
    notes: Notes,
    watermarks: Vec<(i32, Option<Vec<String>>)>,
    explained: Vec<i64>,
    unread: bool,
    begun_again: Option<i32>,
}

/// How far a pass is.
pub struct Position {
    pub stage: &'static str,
    /// Entries that were read, and that there are.
    pub next: i64,
    pub size: i64,
    /// Nothing is left to be read.
    pub is_done: bool,
    /// A step came to nothing.
    pub unread: bool,
}

impl Verification {
    /// Goes on with a pass over a log, or begins one. `record`: the administration log, replayed.
    pub fn slice(
        session: &Session,
        log: Log,
        record: Record,
        crossing: Option<Crossing>,
    ) -> Result<Verification, Error> {
        let log = recorded(&record, log);
        let (head, found) = last_head(session, &log)?;
        let size = head.tree_size;
        let next = crossing.as_ref().map_or(0, |c| c.next).max(log.pruned_to);
        let part = Part {
            next,
            end: size.max(next),
            from: 0,
            to: i64::MAX,
            whole: true,
            log: log.name.clone(),
        };
        let rows = Rows::of(session, &log, &record, next == 0);
        let mut this = Verification::with(log, record, head, &part, rows, None);
        this.found = found;
        let mut pass = Pass {
            goal: size,
            unread: false,
            begun_again: None,
            orders: OrderNotes::default(),
            watermarks: Vec::new(),
            explained: Vec::new(),
        };
        this.stage = Stage::Configuration;
        match crossing {
            None => this.frontier = stored_frontier(session, &this.log, next).ok(),
            Some(crossing) => {
                this.frontier = this.crossed(session, &crossing, next);
                this.stage = crossing.stage;
                this.batches = crossing.batches;
                if this.log.pruned_to != crossing.pruned_to {
                    this.batches.forget_parts();
                }
                this.rows.absorb(crossing.notes);
                pass.orders = crossing.orders;
                pass.goal = crossing.goal;
                pass.unread = crossing.unread;
                pass.begun_again = crossing.begun_again;
                pass.watermarks = crossing.watermarks;
                pass.explained = crossing.explained;
            }
        }
        this.progress.total(size as u64);
        this.pass = Some(pass);
        Ok(this)
    }

    /// The tree before `next`, as the slice before has left it.
    fn crossed(&mut self, session: &Session, crossing: &Crossing, next: i64) -> Option<Frontier> {
        let stored = stored_frontier(session, &self.log, next).ok();
        // Entries between were pruned meanwhile, which leaves the tiles above them.
        if next != crossing.next {
            return stored;
        }
        match &crossing.tree {
            Tree::Unknown => None,
            Tree::Computed(edges) => from_edges(&self.log, next, edges),
            Tree::Stored(root) => {
                let is = stored.as_ref().map(|f| f.root().as_bytes().to_vec());
                if is.as_ref() == Some(root) {
                    return stored;
                }
                self.found.push(Finding {
                    expected: Some(root.clone()),
                    actual: is,
                    ..Finding::of_log(
                        Kind::TileMismatch,
                        Some(next),
                        format!("the tiles before entry {next} are not those of the entries"),
                    )
                });
                None
            }
        }
    }

    /// True if entries are left, which a pass reads only as far as it can follow the log.
    pub(super) fn has_entries_left(&self) -> bool {
        let follows = |pass: &Pass| self.next < pass.goal + pass.goal.max(CHASE);
        self.next < self.end && self.pass.as_ref().is_none_or(follows)
    }

    /// True if the last entries were read.
    pub(super) fn is_at_the_end(&self) -> bool {
        self.next >= self.end
    }

    /// Entries, or rows, that one step reads at most.
    pub fn take_at_most(&mut self, rows: i64) {
        self.span = (rows / TILE * TILE).clamp(TILE, CHUNK);
    }

    /// Rows and entries that were read in this slice.
    pub fn rows_read(&self) -> u64 {
        self.checked.entries + self.checked.scanned + self.checked.marks
    }

    pub fn position(&self) -> Position {
        Position {
            stage: self.stage.name(),
            next: self.next.min(self.end),
            size: self.end,
            is_done: matches!(self.stage, Stage::Done),
            unread: self.pass.as_ref().is_some_and(|pass| pass.unread),
        }
    }

    /// Opens the sources that the next step reads.
    ///
    /// # Errors
    /// `Blocked`, if someone keeps the table of one locked; nothing has been read then.
    pub fn prepare(&mut self, session: &Session) -> Result<(), Error> {
        match self.stage {
            Stage::Entries if self.has_entries_left() => {
                let upto = self.end.min(self.next + self.span);
                let mut ids = entries::sources_of(session, &self.log, self.next, upto);
                if upto == self.end {
                    ids = self.rows.ids();
                }
                self.open(session, &ids)
            }
            Stage::Entries | Stage::Edges => self.open(session, &self.rows.ids()),
            Stage::Marks { source, .. } => {
                let ids = self.rows.ids().into_iter().find(|id| *id >= source);
                self.open(session, &Vec::from_iter(ids))
            }
            Stage::Unlogged { source, .. } => {
                for id in self.rows.ids().into_iter().filter(|id| *id >= source) {
                    self.open(session, &[id])?;
                    if self.rows.shape(id).is_some() {
                        break;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, session: &Session, ids: &[i32]) -> Result<(), Error> {
        let is_closed = |id: &i32| !self.rows.is_open(*id);
        let ids: Vec<i32> = ids.iter().copied().filter(is_closed).collect();
        let held = fence::hold_tables(session, &self.rows.relations(&ids), Instant::now());
        held.map_err(|Blocked(by)| Error::Blocked {
            log: self.log.name.clone(),
            by,
        })?;
        let opened = self
            .rows
            .open(session, &self.log, &self.record, |s| ids.contains(&s.id));
        if let Some(pass) = &mut self.pass {
            let notes = pass.orders.take(&opened);
            self.orders.absorb(notes, &self.rows.shapes());
            for (id, watermark) in &pass.watermarks {
                if opened.contains(id) {
                    self.rows.set_watermark(*id, watermark.clone());
                }
            }
        }
        Ok(())
    }

    /// Goes on with a watermark as it should be.
    pub(super) fn correct_watermark(&mut self, source_id: i32, watermark: Option<Vec<String>>) {
        if let Some(pass) = &mut self.pass {
            pass.watermarks.push((source_id, watermark.clone()));
        }
        self.rows.set_watermark(source_id, watermark);
    }

    /// True if what waits for an explanation is asked for, which slices before may have found.
    pub fn explains(&self) -> bool {
        matches!(self.stage, Stage::Unlogged { .. })
    }

    /// True if the slice can end here: the last entries are held against the tree head of the same snapshot, and
    /// only whole tiles can be gone on behind.
    pub fn may_suspend(&self) -> bool {
        !matches!(self.stage, Stage::Entries | Stage::Edges) || !self.is_at_the_end()
    }

    /// After a step that came to nothing: rows of a source are read once more from the beginning, since the row
    /// that a slice before has left off at may be none any more.
    pub(super) fn begin_source_again(&mut self, stage: &Stage) -> bool {
        let (Some(pass), Stage::Unlogged { source, after, .. }) = (&mut self.pass, stage) else {
            return false;
        };
        if after.is_none() || pass.begun_again == Some(*source) {
            return false;
        }
        pass.begun_again = Some(*source);
        self.stage = Stage::of_source(*source);
        true
    }

    /// Lets findings of slices before wait for an explanation.
    pub fn wait_for_explanation(&mut self, findings: Vec<Finding>) {
        let explained = self.pass.as_ref().map(|pass| pass.explained.clone());
        let explained = explained.unwrap_or_default();
        let is_left = |f: &Finding| f.leaf_index.is_none_or(|at| !explained.contains(&at));
        for finding in findings.into_iter().filter(is_left) {
            let hash = finding.expected.as_deref().map(Hash::try_from);
            if let Some(Ok(hash)) = hash {
                self.pending_count += 1;
                self.pending.entry(hash).or_default().push(finding);
            }
        }
    }

    /// Remembers what was explained, for the slices behind this one.
    pub(super) fn note_explained(&mut self, findings: &[Finding]) {
        if let Some(pass) = &mut self.pass {
            pass.explained
                .extend(findings.iter().filter_map(|f| f.leaf_index));
        }
    }

    /// What waits for an explanation, as it is to be told meanwhile.
    pub fn take_pending(&mut self) -> Vec<Finding> {
        self.pending_count = 0;
        self.pending.drain().flat_map(|(_, found)| found).collect()
    }

    /// Ends the slice: what the next one goes on with.
    pub fn suspend(self, session: &Session) -> Crossing {
        let stored = stored_frontier(session, &self.log, self.next).ok();
        let tree = match &self.frontier {
            None => Tree::Unknown,
            Some(tree) if stored.is_some_and(|stored| stored.root() == tree.root()) => {
                Tree::Stored(tree.root().as_bytes().to_vec())
            }
            Some(tree) => Tree::Computed(to_edges(tree)),
        };
        let mut batches = self.batches;
        batches.forget_settled(self.next);
        let pass = self.pass.expect("only a pass is suspended");
        let mut orders = pass.orders;
        orders.append(self.orders.notes());
        Crossing {
            stage: self.stage,
            next: self.next,
            goal: pass.goal,
            pruned_to: self.log.pruned_to,
            tree,
            batches,
            orders,
            notes: self.rows.notes().without_covered(),
            watermarks: pass.watermarks,
            explained: pass.explained,
            unread: pass.unread,
            begun_again: pass.begun_again,
        }
    }
}

fn to_edges(tree: &Frontier) -> Vec<Vec<Vec<u8>>> {
    let bytes = |hash: &Hash| hash.as_bytes().to_vec();
    let edges = tree.edges().iter();
    edges
        .map(|hashes| hashes.iter().map(bytes).collect())
        .collect()
}

fn from_edges(log: &Log, size: i64, edges: &[Vec<Vec<u8>>]) -> Option<Frontier> {
    let hashes = |edge: &Vec<Vec<u8>>| {
        let hashes = edge.iter().map(|h| Hash::try_from(h.as_slice()).ok());
        hashes.collect::<Option<Vec<Hash>>>()
    };
    let edges = edges.iter().map(hashes).collect::<Option<_>>()?;
    Frontier::from_edges(tree_size(log, size).ok()?, edges).ok()
}

impl Crossing {
    /// What is no crossing begins a pass anew.
    pub fn from_text(text: &str) -> Option<Crossing> {
        serde_json::from_str(text).ok()
    }

    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and lists are JSON")
    }
}

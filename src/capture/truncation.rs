//! When captured tables were truncated.
//!
//! A TRUNCATE fires its AFTER triggers one by one, and those of users may write to any of its tables before
//! the trigger that captures the TRUNCATE has its turn. So the place of the TRUNCATE is noted by the conditions
//! (WHEN) of the capturing triggers: the server evaluates the conditions of all triggers when all tables have been
//! emptied, and before it fires any of them. Whatever was made before has an earlier command by then, and
//! whatever comes after has that one or a later one.
//!
//! The triggers of a table and of its partitions stand in any order. A partition may be emptied if its table
//! is by the same statement: if both conditions were evaluated at one command, and the trigger of the table
//! fires, before or after that of the partition.
//!
//! Anyone may call what the conditions call. What is called by other code than a condition is called in a trigger, one
//! level deeper, or before the TRUNCATE, whose own notes then take its place.

use crate::error::Error;
use crate::pg::trigger;
use crate::pg::xact::{self, Borders};
use pgrx::pg_sys::SubTransactionId;
use std::cell::{Cell, RefCell};

/// A table of a source that is being truncated.
struct Note {
    source_id: i32,
    /// The source's table itself, not a partition of it.
    whole: bool,
    /// How many triggers were running.
    depth: i32,
    /// The first command that could write to the table afterwards.
    command: u32,
    /// The trigger of the source's table has fired.
    captured: bool,
    subtransaction: SubTransactionId,
}

/// A partition was emptied, and the trigger of its table is still to fire.
struct Owed {
    source_id: i32,
    error: Error,
    subtransaction: SubTransactionId,
}

#[derive(Default)]
struct Notes {
    notes: Vec<Note>,
    owed: Vec<Owed>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

static BORDERS: Borders = Borders {
    before_commit: settle,
    ended: forget,
    rolled_back,
    merged,
};

/// Notes that the table of a source, or a partition of it, has just been emptied.
pub fn note(source_id: i32, whole: bool) {
    if !WATCHED.replace(true) {
        xact::watch(&BORDERS);
    }
    let note = Note {
        source_id,
        whole,
        depth: trigger::depth(),
        command: xact::command(),
        captured: false,
        subtransaction: xact::subtransaction(),
    };
    NOTES.with_borrow_mut(|Notes { notes, .. }| {
        let of_now = |n: &Note| n.depth == note.depth && n.command == note.command;
        notes.retain(|n| n.depth < note.depth || of_now(n));
        let same = |n: &Note| of_now(n) && (n.source_id, n.whole) == (source_id, whole);
        if !notes.iter().any(same) {
            notes.push(note);
        }
    });
}

impl Notes {
    /// The note that the TRUNCATE for which a trigger is running now made of a source.
    fn find(&mut self, source_id: i32, whole: bool) -> Option<&mut Note> {
        let depth = trigger::depth() - 1;
        let mut notes = self.notes.iter_mut();
        notes.find(|n| n.depth == depth && (n.source_id, n.whole) == (source_id, whole))
    }
}

/// The place among the transaction's commands of the TRUNCATE that the trigger of a source's table fires for. `None`
/// if the trigger has no condition.
pub fn of_source(source_id: i32) -> Option<u32> {
    NOTES.with_borrow_mut(|notes| {
        let note = notes.find(source_id, true)?;
        note.captured = true;
        let command = note.command;
        notes.owed.retain(|owed| owed.source_id != source_id);
        Some(command)
    })
}

/// Lets a partition be truncated together with its table; `alone` is the error where it is not.
pub fn of_partition(source_id: i32, alone: Error) -> Result<(), Error> {
    NOTES.with_borrow_mut(|notes| {
        let command = notes.find(source_id, false).map(|n| n.command);
        let table = notes.find(source_id, true).map(|n| (n.command, n.captured));
        match (command, table) {
            (Some(here), Some((there, captured))) if here == there => {
                if !captured {
                    notes.owed.push(Owed {
                        source_id,
                        error: alone,
                        subtransaction: xact::subtransaction(),
                    });
                }
                Ok(())
            }
            _ => Err(alone),
        }
    })
}

fn settle() {
    if let Some(owed) = NOTES.with_borrow_mut(|notes| notes.owed.pop()) {
        owed.error.raise();
    }
}

fn forget() {
    NOTES.with(|notes| {
        if let Ok(mut notes) = notes.try_borrow_mut() {
            *notes = Notes::default();
        }
    });
}

fn rolled_back(subtransaction: SubTransactionId) {
    NOTES.with_borrow_mut(|Notes { notes, owed }| {
        notes.retain(|n| n.subtransaction != subtransaction);
        owed.retain(|o| o.subtransaction != subtransaction);
    });
}

fn merged(subtransaction: SubTransactionId, parent: SubTransactionId) {
    NOTES.with_borrow_mut(|Notes { notes, owed }| {
        let of_notes = notes.iter_mut().map(|n| &mut n.subtransaction);
        let of_owed = owed.iter_mut().map(|o| &mut o.subtransaction);
        for by in of_notes.chain(of_owed).filter(|by| **by == subtransaction) {
            *by = parent;
        }
    });
}

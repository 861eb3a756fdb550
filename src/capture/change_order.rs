//! The order in which the changes of one transaction were made.
//!
//! Triggers do not fire in that order: a statement inside a statement (of a user's trigger, of a function in
//! RETURNING, of a foreign key) ends, and fires its triggers, before the statement that it is in. What the
//! server knows for certain is written in each tuple: the command that made it and the command that ended it.
//!
//! Within a transaction the changes that end a version of one row have commands that only grow: a command sees,
//! and so can end, only what earlier commands made, and a nested command is a later one. That a version was
//! made says less: the statement around a DELETE may have begun before it and insert the row after it, or have
//! inserted the row that it deletes. So a version that was ended stands directly before its end, which is told
//! by the tuple; and one that was not is the last of its row, so it stands after every end that was captured
//! before it, since what a statement does inside another is captured first.

use crate::pg::trigger::TupleId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What a change did to tuples, and the command that did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// All rows were taken away, before anything else that the command does.
    Truncate { command: u32 },
    /// A row version was made that had none before it.
    Made { command: u32, tuple: TupleId },
    /// A row version was ended, with or without another in its stead. `tuple` is `None` where another
    /// transaction made it.
    Ended {
        command: u32,
        tuple: Option<TupleId>,
    },
}

impl Place {
    /// The version that was made, where there was none before it.
    pub fn made(&self) -> Option<TupleId> {
        match *self {
            Place::Made { tuple, .. } => Some(tuple),
            _ => None,
        }
    }

    /// The version that was ended, where this transaction had made it.
    pub fn ended(&self) -> Option<TupleId> {
        match *self {
            Place::Ended { tuple, .. } => tuple,
            _ => None,
        }
    }

    pub fn command(&self) -> u32 {
        match *self {
            Place::Truncate { command }
            | Place::Made { command, .. }
            | Place::Ended { command, .. } => command,
        }
    }
}

/// Sorts as the changes of each row were made; changes with the same rank are of different rows.
pub type Rank = (u32, u8);

const TRUNCATED: u8 = 0;
const BEFORE_END: u8 = 1;
const END: u8 = 2;
const LAST: u8 = 3;

/// The ranks of changes that are given in the order in which they were captured. To be sorted by in a way that
/// keeps the order of those with the same rank.
pub fn ranks<'a>(places: impl Iterator<Item = &'a Place> + Clone) -> Vec<Rank> {
    let mut ends: HashMap<TupleId, u32> = HashMap::new();
    for place in places.clone() {
        if let Some(tuple) = place.ended() {
            ends.insert(tuple, place.command());
        }
    }
    let mut latest_end = 0;
    let rank = |place: &Place| match *place {
        Place::Truncate { command } => (command, TRUNCATED),
        Place::Ended { command, .. } => {
            latest_end = latest_end.max(command);
            (command, END)
        }
        Place::Made { command, tuple } => match ends.get(&tuple) {
            Some(end) => (*end, BEFORE_END),
            None => (command.max(latest_end), LAST),
        },
    };
    places.map(rank).collect()
}

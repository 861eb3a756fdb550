//! The order in which the changes of one transaction were made.
//!
//! Triggers do not fire in that order: a statement inside a statement (of a user's trigger, of a function in
//! RETURNING, of a foreign key) ends, and fires its triggers, before the statement that it is in. What the
//! server knows for certain is the command that made a row version and the command that ended it.
//!
//! Within a transaction the changes that end a version of one row have commands that only grow: a command sees,
//! and so can end, only what earlier commands made, and a nested command is a later one. That a version was
//! made says less: the statement around a DELETE may have begun before it and insert the row after it, or have
//! inserted the row that it deletes. So a version that was ended before its making was captured stands directly
//! before its end, which the tuple tells. One that had not been ended by then was the last of its row, so it
//! stands after every end that was captured before it; a command that ends it later begins later than all of
//! those, because the ones that were still running could not see the version.

/// What a change did, and the command that did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All rows were taken away by an earlier command; `command` is the first that can make one after that.
    Truncate { command: u32 },
    /// A row version was made that had none before it. `ended`: the command that had ended it by the time the
    /// change was captured.
    Made { command: u32, ended: Option<u32> },
    /// A row version was ended, with or without another in its stead.
    Ended { command: u32 },
}

/// Sorts as the changes of each row were made; changes with the same rank are of different rows.
pub type Rank = (u32, u8);

const TRUNCATED: u8 = 0;
const BEFORE_END: u8 = 1;
const END: u8 = 2;
const LAST: u8 = 3;

/// Gives the changes of a transaction their ranks as they are captured.
#[derive(Debug, Default)]
pub struct Order {
    /// The latest command that ended a version, also if that was rolled back: what is done later has a later command.
    latest_end: u32,
}

impl Order {
    pub fn rank(&mut self, place: Place) -> Rank {
        match place {
            Place::Truncate { command } => (command, TRUNCATED),
            Place::Ended { command } => {
                self.latest_end = self.latest_end.max(command);
                (command, END)
            }
            Place::Made {
                ended: Some(end), ..
            } => (end, BEFORE_END),
            Place::Made {
                command,
                ended: None,
            } => (command.max(self.latest_end), LAST),
        }
    }
}

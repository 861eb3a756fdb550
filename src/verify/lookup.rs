//! Whether rows of one source are what was logged, for those who do something with them.

use super::configuration::Record;
use super::rows::{Row, Rows};
use crate::capture::shape::Shape;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::session::Session;
use crate::store::entries::Entry;

/// What a row is, compared with its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is there and is what was logged, and the log has its content.
    AsLogged,
    /// What was logged of it was destroyed on purpose.
    Redacted,
    /// Something else, in words.
    Other(&'static str),
}

/// One source that can be read.
pub struct Lookup {
    source_id: i32,
    rows: Rows,
}

impl Lookup {
    /// # Errors
    /// If the table cannot be read.
    pub fn open(session: &Session, log: &Log, source_id: i32) -> Result<Lookup, Error> {
        let record = Record::none();
        let mut rows = Rows::of(session, log, &record, false);
        rows.open(session, log, &record, |s| s.id == source_id);
        if rows.shape(source_id).is_none() {
            let found = rows.summary().into_iter().next();
            return Err(Error::SourceUnreadable {
                log: log.name.clone(),
                table: rows.name_of(source_id).unwrap_or_default(),
                problem: found.map_or_else(String::new, |f| f.detail),
            });
        }
        Ok(Lookup { source_id, rows })
    }

    pub fn shape(&self) -> &Shape {
        let shape = self.rows.shape(self.source_id);
        shape.expect("looked for when it was opened")
    }

    /// What the rows of entries of the source are, as the calling statement sees them.
    pub fn contents(
        &mut self,
        session: &Session,
        log: &Log,
        entries: &[Entry],
    ) -> Result<Vec<Content>, Error> {
        let found = self.rows.look_up(session, log, &Record::none(), entries)?;
        let annexes = self.rows.take_annexes();
        let is_kept = |entry: &Entry| {
            let kept = annexes
                .get(&entry.leaf_index)
                .and_then(|a| a.leaf_data.as_ref());
            kept.is_some_and(|kept| !kept.is_digest())
        };
        let content = |(entry, row): (&Entry, Row)| match row {
            Row::Is(hash) if hash.as_bytes().as_slice() != entry.leaf_hash => {
                Content::Other("the row is not what was logged")
            }
            Row::Is(_) if !is_kept(entry) => {
                Content::Other("the log does not keep the row's content")
            }
            Row::Is(_) => Content::AsLogged,
            Row::Redacted(_) => Content::Redacted,
            Row::Gone => Content::Other("the row does not exist"),
            Row::Detached(_) => Content::Other("the row went with a partition that left"),
            Row::Kept(_) | Row::Erased(_) | Row::Unredacted | Row::Impossible(_) => {
                Content::Other("what the log keeps of the row was altered")
            }
            Row::Retired | Row::Unknown => {
                Content::Other("the row cannot be compared with its entry")
            }
        };
        Ok(entries.iter().zip(found).map(content).collect())
    }
}

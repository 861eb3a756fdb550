//! Watermark capture: the rows of an append-only table after the last logged one.

use super::ceiling::{self, Ceiling};
use super::scan::{Leaf, Scan};
use super::shape::Shape;
use super::statement::{self, Rows};
use super::table::Attribute;
use super::table_query::TableQuery;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::datum;
use crate::pg::spi::{Cursor, Snapshot};
use crate::session::Session;
use crate::store::entries;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Rows fetched at once from one source: what a batch holds in memory of each.
const FETCH: i64 = 1000;

/// Of each source, the rows after the watermark, up to the ceiling; `None` where there are none.
/// The ceilings come first: a row that a later snapshot shows above one is left to the next batch.
pub fn all_ahead(shapes: &[Shape], ceilings: &[Ceiling]) -> Vec<Option<Span>> {
    let span = |(shape, ceiling): (&Shape, &Ceiling)| {
        Some(Span {
            source_id: shape.source.id,
            upto: bound(shape, ceiling)?,
            after: shape.source.watermark.clone(),
            some_logged: false,
            careful: false,
        })
    };
    shapes.iter().zip(ceilings).map(span).collect()
}

/// As `all_ahead`, of one source.
pub fn ahead(session: &Session, log: &Log, shape: &Shape) -> Option<Span> {
    let ceiling = ceiling::of(session, log, shape);
    all_ahead(std::slice::from_ref(shape), &[ceiling])
        .pop()
        .flatten()
}

/// The order value up to which the source has new rows, in its text form.
fn bound(shape: &Shape, ceiling: &Ceiling) -> Option<String> {
    if ceiling::is_reached(shape, ceiling) {
        return None;
    }
    let statement = statement::highest(shape, ceiling.text());
    let highest = TableQuery::on(shape).first(Snapshot::Fresh, &statement, |row| {
        // SAFETY: the only column is the order column, which is not null.
        row.datum(0)
            .map(|d| unsafe { datum::output(shape.order().base_type, d) })
    });
    highest.flatten()
}

/// The position after which there are `rows` rows at or behind the watermark; `None` if there are fewer.
pub fn back(shape: &Shape, rows: i64) -> Option<Vec<String>> {
    let watermark = shape.source.watermark.as_ref()?;
    let statement = statement::back_from(shape, watermark, rows);
    TableQuery::on(shape).first(Snapshot::Fresh, &statement, |row| {
        let text = |(place, column): (usize, &Attribute)| {
            // SAFETY: the columns are the sort columns, which are not null.
            row.datum(place)
                .map(|d| unsafe { datum::output(column.base_type, d) })
        };
        shape.sort.iter().enumerate().filter_map(text).collect()
    })
}

/// A source's rows in order, a few at a time.
pub struct Stream<'a> {
    shape: &'a Shape,
    scan: Scan,
    cursor: Cursor,
    fetched: VecDeque<Leaf>,
    done: bool,
    /// The row that was taken last.
    taken: Option<Leaf>,
    /// Where a later batch goes on while the rows that were taken last cannot be logged; within, `None` if none before
    /// them could.
    held: Option<Option<Vec<String>>>,
    /// Whom to ask whether a row has an entry already, where that can be.
    looked_up: Option<(&'a Session, &'a Log)>,
}

/// How far a source is to be read, in texts: from after a position, to an order value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Span {
    pub source_id: i32,
    pub after: Option<Vec<String>>,
    pub upto: String,
    /// Rows of it may have an entry already: each is looked up.
    pub some_logged: bool,
    /// Some row of it cannot be read.
    pub careful: bool,
}

impl<'a> Stream<'a> {
    /// The rows of a span, `limit` at most.
    pub fn ahead(
        session: &'a Session,
        log: &'a Log,
        shape: &'a Shape,
        span: &Span,
        limit: i64,
        snapshot: Snapshot,
    ) -> Result<Stream<'a>, Error> {
        let scan = Scan::to_log(log, shape)?;
        let upto = Rows::Ahead { upto: &span.upto };
        let after = span.after.as_deref();
        let statement = statement::rows(shape, scan.attributes(), after, upto, limit);
        let mut stream = Stream::open(shape, scan, snapshot, &statement);
        stream.scan.careful = span.careful;
        stream.looked_up = span.some_logged.then_some((session, log));
        Ok(stream)
    }

    /// The rows at or behind the watermark and after `after`, and those above the ceiling.
    pub fn behind(
        log: &Log,
        shape: &'a Shape,
        after: Option<&[String]>,
        ceiling: Option<&str>,
        careful: bool,
    ) -> Result<Stream<'a>, Error> {
        let mut scan = Scan::to_log(log, shape)?;
        scan.careful = careful;
        let which = Rows::behind(&shape.source, ceiling);
        let statement = statement::rows(shape, scan.attributes(), after, which, i64::MAX);
        Ok(Stream::open(shape, scan, Snapshot::Fresh, &statement))
    }

    fn open(
        shape: &'a Shape,
        scan: Scan,
        snapshot: Snapshot,
        statement: &statement::Statement,
    ) -> Stream<'a> {
        Stream {
            shape,
            cursor: scan.open(snapshot, statement),
            scan,
            fetched: VecDeque::new(),
            done: false,
            taken: None,
            held: None,
            looked_up: None,
        }
    }

    pub fn source_id(&self) -> i32 {
        self.shape.source.id
    }

    /// The next row, without taking it.
    pub fn peek(&mut self) -> Result<Option<&Leaf>, Error> {
        if self.fetched.is_empty() && !self.done {
            self.fetched = self.chunk()?.into();
        }
        Ok(self.fetched.front())
    }

    /// Takes the next row.
    pub fn advance(&mut self) -> Result<(), Error> {
        self.peek()?;
        let Some(next) = self.fetched.pop_front() else {
            return Ok(());
        };
        match (&next.problem, &self.held) {
            (None, _) => self.held = None,
            (Some(_), None) => self.held = Some(self.watermark()?),
            (Some(_), Some(_)) => {}
        }
        self.taken = Some(next);
        Ok(())
    }

    /// The row that was taken last.
    pub fn taken(&self) -> Option<&Leaf> {
        self.taken.as_ref()
    }

    /// Where a later batch goes on, if a row was taken that can be logged: at the last of them. Those behind it are
    /// tried again.
    pub fn watermark(&self) -> Result<Option<Vec<String>>, Error> {
        if let Some(held) = &self.held {
            return Ok(held.clone());
        }
        let position = |leaf: &Leaf| leaf.position(self.shape);
        self.taken.as_ref().map(position).transpose()
    }

    /// The next rows as they come from the table; none at the end.
    pub fn chunk(&mut self) -> Result<Vec<Leaf>, Error> {
        let mut rows = self.scan.fetch(&mut self.cursor, FETCH)?;
        self.done = rows.is_empty();
        if let Some((session, log)) = self.looked_up {
            let logged = entries::logged(session, Snapshot::Fresh, log, self.source_id(), &rows)?;
            for row in &mut rows {
                row.logged = logged.contains(&row.key);
            }
        }
        Ok(rows)
    }
}

//! Watermark capture: the rows of an append-only table after the last logged one.

use super::scan::{Leaf, Scan};
use super::shape::Shape;
use super::statement::{self, Rows};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::{self, Cursor, Snapshot};
use crate::pg::{datum, role};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Rows fetched at once from one source: what a batch holds in memory of each.
const FETCH: i64 = 1000;

/// The rows after the watermark; `None` if there are none.
pub fn ahead(log: &Log, shape: &Shape) -> Option<Span> {
    let upto = bound(log, shape)?;
    Some(Span {
        source_id: shape.source.id,
        after: shape.source.watermark.clone(),
        upto,
    })
}

/// The order value up to which the source has new rows, in its text form.
fn bound(log: &Log, shape: &Shape) -> Option<String> {
    let statement = statement::highest(shape, log.settle);
    role::as_table_owner(shape.table.owner, || {
        spi::query_one(Snapshot::Fresh, &statement.sql, &statement.args, |row| {
            // SAFETY: the only column is the order column, which is not null.
            row.datum(0)
                .map(|d| unsafe { datum::output(shape.order().base_type, d) })
        })
    })
    .flatten()
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
}

/// How far a source is to be read, in texts: from after a position, to an order value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Span {
    pub source_id: i32,
    pub after: Option<Vec<String>>,
    pub upto: String,
}

impl<'a> Stream<'a> {
    /// The rows of a span, `limit` at most.
    pub fn ahead(
        log: &Log,
        shape: &'a Shape,
        span: &Span,
        limit: i64,
        snapshot: Snapshot,
    ) -> Result<Stream<'a>, Error> {
        let scan = Scan::to_log(log, shape)?;
        let upto = Rows::Ahead { upto: &span.upto };
        let after = span.after.as_deref();
        let statement = statement::rows(shape, scan.attributes(), after, upto, limit);
        Ok(Stream::open(shape, scan, snapshot, &statement))
    }

    /// The rows at or behind the watermark.
    pub fn behind(log: &Log, shape: &'a Shape) -> Result<Stream<'a>, Error> {
        let scan = Scan::to_log(log, shape)?;
        let which = Rows::behind(&shape.source);
        let statement = statement::rows(shape, scan.attributes(), None, which, i64::MAX);
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
        self.taken = self.fetched.pop_front().or(self.taken.take());
        Ok(())
    }

    /// The row that was taken last.
    pub fn taken(&self) -> Option<&Leaf> {
        self.taken.as_ref()
    }

    /// Where a later batch goes on, if a row was taken.
    pub fn watermark(&self) -> Result<Option<Vec<String>>, Error> {
        let position = |leaf: &Leaf| leaf.position(self.shape);
        self.taken.as_ref().map(position).transpose()
    }

    /// The next rows as they come from the table; none at the end.
    pub fn chunk(&mut self) -> Result<Vec<Leaf>, Error> {
        let rows = self.scan.fetch(&mut self.cursor, FETCH)?;
        self.done = rows.is_empty();
        Ok(rows)
    }
}

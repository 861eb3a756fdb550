//! Watermark capture: the rows of an append-only table after the last logged one.

use super::scan::{Leaf, Scan};
use super::shape::Shape;
use super::statement::{self, Rows};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::{self, Cursor, Snapshot};
use crate::pg::{datum, role};
use std::collections::VecDeque;

/// Rows fetched at once from one source: what a batch holds in memory of each.
const FETCH: i64 = 1000;

/// The order value up to which the source has new rows, in its text form; `None` if it has none.
pub fn bound(log: &Log, shape: &Shape) -> Option<String> {
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
pub struct Stream {
    pub source_id: i32,
    scan: Scan,
    cursor: Cursor,
    fetched: VecDeque<Leaf>,
    done: bool,
}

impl Stream {
    /// The rows after the watermark, up to `upto`.
    pub fn ahead(log: &Log, shape: &Shape, upto: &str) -> Result<Stream, Error> {
        let scan = Scan::to_log(log, shape)?;
        let statement = statement::rows(
            shape,
            scan.attributes(),
            shape.source.watermark.as_deref(),
            Rows::Ahead { upto },
            log.batch_size.into(),
        );
        Ok(Stream::open(shape, scan, &statement))
    }

    /// The rows at or behind the watermark.
    pub fn behind(log: &Log, shape: &Shape) -> Result<Stream, Error> {
        let scan = Scan::to_log(log, shape)?;
        let which = Rows::behind(&shape.source);
        let statement = statement::rows(shape, scan.attributes(), None, which, i64::MAX);
        Ok(Stream::open(shape, scan, &statement))
    }

    fn open(shape: &Shape, scan: Scan, statement: &statement::Statement) -> Stream {
        Stream {
            source_id: shape.source.id,
            cursor: scan.open(statement),
            scan,
            fetched: VecDeque::new(),
            done: false,
        }
    }

    /// The next row, without taking it.
    pub fn peek(&mut self) -> Result<Option<&Leaf>, Error> {
        if self.fetched.is_empty() && !self.done {
            self.fetched = self.chunk()?.into();
        }
        Ok(self.fetched.front())
    }

    pub fn next(&mut self) -> Result<Option<Leaf>, Error> {
        self.peek()?;
        Ok(self.fetched.pop_front())
    }

    /// The next rows as they come from the table; none at the end.
    pub fn chunk(&mut self) -> Result<Vec<Leaf>, Error> {
        let rows = self.scan.fetch(&mut self.cursor, FETCH)?;
        self.done = rows.is_empty();
        Ok(rows)
    }
}

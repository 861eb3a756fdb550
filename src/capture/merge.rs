//! The rows of all sources of a log as one stream, by (order value, source, key).

use super::order::OrderValue;
use super::scan::Leaf;
use super::shape::Shape;
use super::watermark::{Span, Stream};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub struct Merge<'a> {
    streams: Vec<Stream<'a>>,
    /// The first row of each stream that has one.
    next: BinaryHeap<Reverse<(OrderValue, i32, usize)>>,
}

impl<'a> Merge<'a> {
    /// The rows that each source has in its span, at most `limit` in all.
    pub fn open(
        session: &'a Session,
        log: &'a Log,
        sources: &'a [(Shape, Span)],
        limit: i64,
        snapshot: Snapshot,
    ) -> Result<Merge<'a>, Error> {
        let open = |(shape, span): &'a (Shape, Span)| {
            Stream::ahead(session, log, shape, span, limit, snapshot)
        };
        let mut merge = Merge {
            streams: sources.iter().map(open).collect::<Result<_, _>>()?,
            next: BinaryHeap::new(),
        };
        (0..merge.streams.len()).try_for_each(|place| merge.line_up(place))?;
        Ok(merge)
    }

    /// The next row, and its source.
    pub fn next(&mut self) -> Result<Option<(i32, &Leaf)>, Error> {
        // Only now is the row before it done with.
        let Some(Reverse((_, source_id, place))) = self.next.pop() else {
            return Ok(None);
        };
        self.streams[place].advance()?;
        self.line_up(place)?;
        Ok(self.streams[place].taken().map(|leaf| (source_id, leaf)))
    }

    fn line_up(&mut self, place: usize) -> Result<(), Error> {
        let stream = &mut self.streams[place];
        let source_id = stream.source_id();
        if let Some(leaf) = stream.peek()? {
            self.next
                .push(Reverse((leaf.order.clone(), source_id, place)));
        }
        Ok(())
    }

    /// Where each source that gave a row goes on.
    pub fn watermarks(&self) -> Result<Vec<(i32, Vec<String>)>, Error> {
        let watermark = |stream: &Stream| {
            let position = stream.watermark()?;
            Ok(position.map(|position| (stream.source_id(), position)))
        };
        let all = self.streams.iter().map(watermark);
        all.filter_map(Result::transpose).collect()
    }
}

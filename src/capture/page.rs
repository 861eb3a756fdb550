//! What a row of the queue holds: changes of one transaction, in the order in which they were made.
//!
//! A byte with the number of the format, and the rest as postcard has it: small integers in a byte, texts and
//! bytes with their lengths before them. What many changes share is written once a page.

use super::change_order::Rank;
use super::gather::Origin;
use super::partitions::Seen;
use crate::catalog::versions::Column;
use crate::pg::alloc;
use leaf_format::Kind;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

const FORMAT: u8 = 1;
/// Bytes of changes in a page: its row fits a page of the table, and is not moved out of line.
const ROOM: usize = 7900;
/// What a change costs beside its texts and bytes, at most.
const OVERHEAD: usize = 16;
const PLACE: usize = 12;
const KINDS: [Kind; 4] = [Kind::Insert, Kind::Update, Kind::Delete, Kind::Truncate];

/// The table that a change is of, as it was described when the change was captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedAs<'a> {
    pub source_id: i32,
    /// The version of its columns, or where none on record fitted, the columns.
    pub version: Option<i32>,
    pub columns: Option<Cow<'a, [Column]>>,
    /// What the columns' numbers refer to (`shape::identity`).
    pub bound_to: Option<Cow<'a, str>>,
    /// Leaf data is kept, not only its hash.
    pub keep: bool,
    /// The partition that it is, where that was not on record: it may be gone before a batch sees it.
    pub partition: Option<Cow<'a, Seen>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PageOrigin<'a> {
    pub user: &'a str,
    pub role: &'a str,
    pub application: &'a str,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PageChange<'a> {
    /// Places in `Page::tables` and `Page::origins`.
    pub table: u32,
    pub origin: u32,
    kind: u8,
    pub key: &'a str,
    /// Leaf data where they are kept, and of a TRUNCATE; otherwise their hash.
    #[serde(with = "serde_bytes")]
    pub leaf: &'a [u8],
    #[serde(with = "serde_bytes")]
    salt: &'a [u8],
    /// Only where the transaction's pages may have to be put in order: how many changes were captured before it, and
    /// its rank.
    pub place: Option<(u32, Rank)>,
}

impl<'a> PageChange<'a> {
    pub fn kind(&self) -> Option<Kind> {
        KINDS.get(usize::from(self.kind)).copied()
    }

    pub fn salt(&self) -> Option<&'a [u8]> {
        (!self.salt.is_empty()).then_some(self.salt)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Page<'a> {
    #[serde(borrow)]
    pub tables: Vec<CapturedAs<'a>>,
    #[serde(borrow)]
    pub origins: Vec<PageOrigin<'a>>,
    #[serde(borrow)]
    pub changes: Vec<PageChange<'a>>,
}

impl<'a> Page<'a> {
    /// `None` for bytes that are no page.
    pub fn read(bytes: &'a [u8]) -> Option<Page<'a>> {
        let page: Page = postcard::from_bytes(bytes.strip_prefix(&[FORMAT])?).ok()?;
        let whole = page.changes.iter().all(|change| {
            (change.table as usize) < page.tables.len()
                && (change.origin as usize) < page.origins.len()
                && change.kind().is_some()
        });
        whole.then_some(page)
    }
}

/// A change to be written, and what it shares with others.
pub struct Item<'a> {
    pub table: &'a CapturedAs<'a>,
    pub origin: &'a Origin,
    pub kind: Kind,
    pub key: &'a str,
    pub leaf: &'a [u8],
    pub salt: &'a [u8],
    pub place: Option<(u32, Rank)>,
}

/// A page that is being filled.
#[derive(Default)]
pub struct Filling<'a> {
    tables: Vec<&'a CapturedAs<'a>>,
    origins: Vec<&'a Origin>,
    changes: Vec<PageChange<'a>>,
    bytes: usize,
}

impl<'a> Filling<'a> {
    pub fn changes(&self) -> i32 {
        self.changes.len() as i32
    }

    /// When the first of the statements began; microseconds since 1970-01-01 00:00 UTC.
    pub fn oldest(&self) -> Option<i64> {
        self.origins.iter().map(|o| o.at).min()
    }

    pub fn has_room_for(&self, item: &Item) -> bool {
        self.changes.is_empty() || self.bytes + size(item) <= ROOM
    }

    pub fn add(&mut self, item: Item<'a>) {
        self.bytes += size(&item);
        let (table, new) = find(&mut self.tables, item.table);
        if new {
            let columns = item.table.columns.iter().flat_map(|c| c.iter());
            self.bytes += OVERHEAD + columns.map(Column::size).sum::<usize>();
            self.bytes += item.table.partition.as_ref().map_or(0, |p| p.size());
        }
        let (origin, new) = find(&mut self.origins, item.origin);
        if new {
            self.bytes += OVERHEAD + item.origin.user.len() + item.origin.role.len();
            self.bytes += item.origin.application.len();
        }
        let kind = KINDS.iter().position(|k| *k == item.kind);
        self.changes.push(PageChange {
            table,
            origin,
            kind: kind.map_or(u8::MAX, |k| k as u8),
            key: item.key,
            leaf: item.leaf,
            salt: item.salt,
            place: item.place,
        });
    }

    /// The page's bytes; it is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        let page = Page {
            tables: self.tables.drain(..).cloned().collect(),
            origins: self
                .origins
                .drain(..)
                .map(|o| PageOrigin {
                    user: &o.user,
                    role: &o.role,
                    application: &o.application,
                    at: o.at,
                })
                .collect(),
            changes: std::mem::take(&mut self.changes),
        };
        let mut bytes = Vec::new();
        alloc::reserve_exact(&mut bytes, self.bytes + OVERHEAD);
        self.bytes = 0;
        bytes.push(FORMAT);
        postcard::to_extend(&page, bytes).expect("memory takes any number of bytes")
    }
}

fn size(item: &Item) -> usize {
    let place = item.place.map_or(0, |_| PLACE);
    item.key.len() + item.leaf.len() + item.salt.len() + OVERHEAD + place
}

/// Where `item` stands in `list`, and whether it is new there.
fn find<'a, T>(list: &mut Vec<&'a T>, item: &'a T) -> (u32, bool) {
    // What was added last is asked for most often.
    if let Some(at) = list.iter().rposition(|known| std::ptr::eq(*known, item)) {
        return (at as u32, false);
    }
    list.push(item);
    (list.len() as u32 - 1, true)
}

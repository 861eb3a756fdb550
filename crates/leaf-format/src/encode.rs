//! Whole entries: header, column names and values in their one order.

use crate::value::key_order;
use crate::{Error, Value, skip};
use serde::Serialize;
use serde_cbor::ser::IoWrite;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::ops::Range;

/// The longest leaf data, in bytes: the length prefix of a C2SP entry bundle has 16 bits.
pub const MAX_LEAF_DATA: usize = 65_535;

const FORMAT: u8 = 1;
/// Head of a byte string of 32 bytes.
const DIGEST: [u8; 2] = [0x58, 32];
/// Heads of an array of four, and of five, elements.
const PLAIN: u8 = 0x84;
const WITH_CONTEXT: u8 = 0x85;

/// What an entry says happened to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Insert,
    Update,
    Delete,
    Truncate,
    /// The row brought its own hash.
    Hash,
    /// An earlier entry's salt and leaf data were destroyed.
    Redact,
    /// Something was done to a log or a source.
    Administration,
    /// The keys of a range of earlier entries are committed in an index.
    Seal,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Insert => "insert",
            Kind::Update => "update",
            Kind::Delete => "delete",
            Kind::Truncate => "truncate",
            Kind::Hash => "hash",
            Kind::Redact => "redact",
            Kind::Administration => "administration",
            Kind::Seal => "seal",
        }
    }
}

impl TryFrom<&str> for Kind {
    type Error = Error;

    fn try_from(name: &str) -> Result<Kind, Error> {
        [
            Kind::Insert,
            Kind::Update,
            Kind::Delete,
            Kind::Truncate,
            Kind::Hash,
            Kind::Redact,
            Kind::Administration,
            Kind::Seal,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .ok_or_else(|| Error::Kind(name.to_owned()))
    }
}

/// Who made a change, as a trigger sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The transaction's 64-bit id.
    pub transaction: u64,
    /// The session's user.
    pub user: &'a str,
    /// The role whose privileges counted; `None` in entries of versions that did not record it.
    pub role: Option<&'a str>,
    /// The session's application_name.
    pub application: &'a str,
    /// When the statement began: microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
    /// JSON that the application has set for its transaction.
    pub said: Option<&'a str>,
    /// The statement, or its beginning.
    pub statement: Option<&'a str>,
    /// Bytes of the whole statement, where `statement` is only its beginning.
    pub statement_bytes: Option<u64>,
}

impl Origin<'_> {
    fn fields(&self) -> usize {
        let optional = [
            self.role.is_some(),
            self.said.is_some(),
            self.statement.is_some(),
            self.statement_bytes.is_some(),
        ];
        4 + optional.into_iter().filter(|there| *there).count()
    }
}

/// What an entry says beside its row: the optional fifth element of its leaf data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    pub origin: Option<Origin<'a>>,
    /// Random bytes, without which the row cannot be guessed from the leaf hash.
    pub salt: Option<&'a [u8]>,
}

impl Context<'_> {
    fn is_empty(&self) -> bool {
        self.origin.is_none() && self.salt.is_none()
    }

    /// The keys in their one order: at, app, xid, role, salt, user, context, statement, statement_bytes.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let of_origin = self.origin.as_ref().map_or(0, Origin::fields);
        write_map_header(out, of_origin + usize::from(self.salt.is_some()));
        if let Some(origin) = &self.origin {
            write(out, "at")?;
            write(out, &origin.at)?;
            write(out, "app")?;
            write(out, origin.application)?;
            write(out, "xid")?;
            write(out, &origin.transaction)?;
            write_text(out, "role", origin.role)?;
        }
        if let Some(salt) = self.salt {
            write(out, "salt")?;
            write(out, &Value::Bytes(salt.into()))?;
        }
        if let Some(origin) = &self.origin {
            write(out, "user")?;
            write(out, origin.user)?;
            write_text(out, "context", origin.said)?;
            write_text(out, "statement", origin.statement)?;
            if let Some(bytes) = &origin.statement_bytes {
                write(out, "statement_bytes")?;
                write(out, bytes)?;
            }
        }
        Ok(())
    }
}

/// Encodes rows of one source, kind and set of columns.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// All that comes before the map of columns.
    header: Vec<u8>,
    /// In map order: where the column's value is among those given, and its encoded name.
    columns: Vec<(usize, Vec<u8>)>,
}

impl Encoder {
    /// # Errors
    /// If a column name is there twice.
    pub fn new<S: AsRef<str>>(source: &str, kind: Kind, columns: &[S]) -> Result<Encoder, Error> {
        let mut sorted: Vec<(usize, &str)> =
            columns.iter().map(AsRef::as_ref).enumerate().collect();
        sorted.sort_by(|(_, a), (_, b)| key_order(a, b));
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].1 == pair[1].1) {
            return Err(Error::DuplicateColumn(pair[0].1.to_owned()));
        }
        let mut header = vec![PLAIN, FORMAT];
        write(&mut header, source)?;
        write(&mut header, kind.as_str())?;
        let columns = sorted
            .into_iter()
            .map(|(place, name)| {
                let mut key = Vec::with_capacity(name.len() + 2);
                write(&mut key, name).map(|()| (place, key))
            })
            .collect::<Result<_, _>>()?;
        Ok(Encoder { header, columns })
    }

    /// Writes the leaf data of a row to `leaf_data`, which is cleared first; `values` are in the
    /// order in which the columns were named.
    ///
    /// # Errors
    /// If there are not as many values as columns, or one has no encoding.
    pub fn encode(
        &self,
        values: &[Value],
        context: &Context,
        leaf_data: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.write(
            values,
            context,
            MAX_LEAF_DATA,
            Rest::Hashed(None),
            leaf_data,
        )?;
        if let Cow::Owned(shorter) = capped(leaf_data)? {
            *leaf_data = shorter;
        }
        Ok(())
    }

    /// As `encode`, with all columns in full, however long that makes it: the long form of the leaf data, of
    /// which [`capped`] makes the leaf data.
    ///
    /// # Errors
    /// As `encode`; [`Error::TooLong`] where it would have more than `limit` bytes, or there is no memory for it.
    pub fn encode_in_full(
        &self,
        values: &[Value],
        context: &Context,
        limit: usize,
        leaf_data: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let whole = self.write(values, context, limit, Rest::Dropped(false), leaf_data)?;
        match whole && leaf_data.len() <= limit {
            true => Ok(()),
            false => Err(Error::TooLong { limit }),
        }
    }

    /// False if the map of columns ends beyond `limit`, and is there as its digest, or not at all.
    fn write(
        &self,
        values: &[Value],
        context: &Context,
        limit: usize,
        rest: Rest,
        leaf_data: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        if values.len() != self.columns.len() {
            return Err(Error::ColumnCount {
                wanted: self.columns.len(),
                got: values.len(),
            });
        }
        leaf_data.clear();
        leaf_data.extend_from_slice(&self.header);
        let mut map = Map::new(leaf_data, limit, rest);
        let present = values.iter().filter(|v| **v != Value::Null).count();
        map.write_head(present);
        for (place, key) in &self.columns {
            if values[*place] != Value::Null {
                map.feed(key);
                write(&mut map, &values[*place])?;
            }
        }
        let whole = match map.rest {
            Rest::Hashed(None) | Rest::Dropped(false) => true,
            Rest::Hashed(Some(digest)) => {
                leaf_data.extend_from_slice(&DIGEST);
                leaf_data.extend_from_slice(&digest.finalize());
                false
            }
            Rest::Dropped(true) => return Ok(false),
        };
        if !context.is_empty() {
            leaf_data[0] = WITH_CONTEXT;
            context.write(leaf_data)?;
        }
        Ok(whole)
    }
}

/// The leaf data of an entry whose columns are there in full: the same bytes, or where these are too many, the
/// digest of the columns in their place.
///
/// # Errors
/// If the bytes are not leaf data, nor their long form.
pub fn capped(in_full: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    if in_full.len() <= MAX_LEAF_DATA {
        return Ok(in_full.into());
    }
    let (columns, context) = columns(in_full)?;
    let mut leaf_data = in_full[..columns.start].to_vec();
    leaf_data.extend_from_slice(&DIGEST);
    leaf_data.extend_from_slice(&Sha256::digest(&in_full[columns]));
    leaf_data.extend_from_slice(&in_full[context..]);
    match leaf_data.len() <= MAX_LEAF_DATA {
        true => Ok(leaf_data.into()),
        false => Err(Error::NotLeafData("the context is too long".to_owned())),
    }
}

/// True of leaf data that has only the digest of its columns. Its first bytes will do, as many as hold source and
/// kind.
pub fn is_digest(leaf_data: &[u8]) -> bool {
    start_of_columns(leaf_data).is_some_and(|at| leaf_data[at..].starts_with(&DIGEST))
}

/// The bytes of the context of leaf data; `None` where they have none, or are not leaf data.
pub(crate) fn context_of(leaf_data: &[u8]) -> Option<&[u8]> {
    let (_, context) = columns(leaf_data).ok()?;
    leaf_data.get(context..).filter(|bytes| !bytes.is_empty())
}

/// Where the columns are, and where the context begins, or the end.
fn columns(leaf_data: &[u8]) -> Result<(Range<usize>, usize), Error> {
    let not = || Error::NotLeafData("source, kind and columns cannot be told apart".to_owned());
    let start = start_of_columns(leaf_data).ok_or_else(not)?;
    let end = skip::item(leaf_data, start).ok_or_else(not)?;
    Ok((start..end, end))
}

/// Where the fourth element begins.
fn start_of_columns(leaf_data: &[u8]) -> Option<usize> {
    match leaf_data {
        [PLAIN | WITH_CONTEXT, FORMAT, ..] => {}
        _ => return None,
    }
    let source = 2;
    let kind = skip::item(leaf_data, source)?;
    let columns = skip::item(leaf_data, kind)?;
    (columns < leaf_data.len()).then_some(columns)
}

/// What becomes of a map that is too long for leaf data.
enum Rest {
    /// All of it is hashed as it comes, and not kept.
    Hashed(Option<Sha256>),
    /// Nothing of it is wanted; true once that is so.
    Dropped(bool),
}

/// Takes the encoded map, whatever its length, in bounded memory.
struct Map<'a> {
    leaf_data: &'a mut Vec<u8>,
    start: usize,
    /// The length of leaf data that is too long.
    limit: usize,
    rest: Rest,
}

impl<'a> Map<'a> {
    /// What is written goes to the end of `leaf_data`.
    fn new(leaf_data: &'a mut Vec<u8>, limit: usize, rest: Rest) -> Map<'a> {
        let start = leaf_data.len();
        Map {
            leaf_data,
            start,
            limit,
            rest,
        }
    }

    fn write_head(&mut self, length: usize) {
        write_map_header(self.leaf_data, length);
    }

    fn feed(&mut self, bytes: &[u8]) {
        match &mut self.rest {
            Rest::Hashed(Some(digest)) => digest.update(bytes),
            Rest::Dropped(true) => {}
            _ if has_room(self.leaf_data, self.limit, bytes.len()) => {
                self.leaf_data.extend_from_slice(bytes);
            }
            rest => {
                let before = &self.leaf_data[self.start..];
                *rest = match rest {
                    Rest::Hashed(_) => {
                        let digest = Sha256::new_with_prefix(before).chain_update(bytes);
                        Rest::Hashed(Some(digest))
                    }
                    Rest::Dropped(_) => Rest::Dropped(true),
                };
                self.leaf_data.truncate(self.start);
            }
        }
    }
}

fn has_room(leaf_data: &mut Vec<u8>, limit: usize, more: usize) -> bool {
    leaf_data.len() + more <= limit && leaf_data.try_reserve(more).is_ok()
}

impl std::io::Write for Map<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write<W: std::io::Write, T: Serialize + ?Sized>(out: &mut W, value: &T) -> Result<(), Error> {
    value
        .serialize(&mut serde_cbor::Serializer::new(IoWrite::new(out)))
        .map_err(|error| Error::Value(error.to_string()))
}

/// A field of a map, unless it has no value.
fn write_text(out: &mut Vec<u8>, name: &str, text: Option<&str>) -> Result<(), Error> {
    let Some(text) = text else {
        return Ok(());
    };
    write(out, name)?;
    write(out, text)
}

/// A map's head: major type 5 with the shortest length. (A table has at most 1,600 columns.)
fn write_map_header(out: &mut Vec<u8>, length: usize) {
    match length {
        0..=23 => out.push(0xa0 | length as u8),
        24..=255 => out.extend_from_slice(&[0xb8, length as u8]),
        256..=65_535 => {
            out.push(0xb9);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0xba);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

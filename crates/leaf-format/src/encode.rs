//! Whole entries: header, column names and values in their one order.

use crate::value::key_order;
use crate::{Error, Value};
use serde::Serialize;
use serde_cbor::ser::IoWrite;
use sha2::{Digest, Sha256};

/// The longest leaf data, in bytes: the length prefix of a C2SP entry bundle has 16 bits.
pub const MAX_LEAF_DATA: usize = 65_535;

const FORMAT: u8 = 1;
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
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .ok_or_else(|| Error::Kind(name.to_owned()))
    }
}

/// Who made a change, as a trigger sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The transaction's 64-bit id.
    pub transaction: u64,
    /// The session's user.
    pub user: &'a str,
    /// The session's application_name.
    pub application: &'a str,
    /// When the statement began: microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
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

    /// The keys in their one order: at, app, xid, salt, user.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let fields = 4 * usize::from(self.origin.is_some()) + usize::from(self.salt.is_some());
        write_map_header(out, fields);
        if let Some(origin) = &self.origin {
            write(out, "at")?;
            write(out, &origin.at)?;
            write(out, "app")?;
            write(out, origin.application)?;
            write(out, "xid")?;
            write(out, &origin.transaction)?;
        }
        if let Some(salt) = self.salt {
            write(out, "salt")?;
            write(out, &Value::Bytes(salt.into()))?;
        }
        if let Some(origin) = &self.origin {
            write(out, "user")?;
            write(out, origin.user)?;
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
        if values.len() != self.columns.len() {
            return Err(Error::ColumnCount {
                wanted: self.columns.len(),
                got: values.len(),
            });
        }
        leaf_data.clear();
        leaf_data.extend_from_slice(&self.header);
        let start = leaf_data.len();
        let mut map = Map::new(leaf_data);
        let present = values.iter().filter(|v| **v != Value::Null).count();
        map.write_head(present);
        for (place, key) in &self.columns {
            if values[*place] != Value::Null {
                map.feed(key);
                write(&mut map, &values[*place])?;
            }
        }
        let digest = map.finish();
        let end_of_map = leaf_data.len();
        if !context.is_empty() {
            leaf_data[0] = WITH_CONTEXT;
            context.write(leaf_data)?;
        }
        let digest = digest.or_else(|| {
            let too_long = leaf_data.len() > MAX_LEAF_DATA;
            too_long.then(|| Sha256::digest(&leaf_data[start..end_of_map]).into())
        });
        if let Some(digest) = digest {
            let replaced = [0x58, 32].into_iter().chain(digest);
            leaf_data.splice(start..end_of_map, replaced);
        }
        Ok(())
    }
}

/// Takes the encoded map, whatever its length, in bounded memory: one that is too long for leaf data is
/// hashed as it comes and not kept.
struct Map<'a> {
    leaf_data: &'a mut Vec<u8>,
    start: usize,
    /// Of all of the map so far, once it is too long.
    digest: Option<Sha256>,
}

impl<'a> Map<'a> {
    /// What is written goes to the end of `leaf_data`.
    fn new(leaf_data: &'a mut Vec<u8>) -> Map<'a> {
        let start = leaf_data.len();
        Map {
            leaf_data,
            start,
            digest: None,
        }
    }

    fn write_head(&mut self, length: usize) {
        write_map_header(self.leaf_data, length);
    }

    fn feed(&mut self, bytes: &[u8]) {
        match &mut self.digest {
            Some(digest) => digest.update(bytes),
            None if self.leaf_data.len() + bytes.len() <= MAX_LEAF_DATA => {
                self.leaf_data.extend_from_slice(bytes);
            }
            None => {
                let before = &self.leaf_data[self.start..];
                self.digest = Some(Sha256::new_with_prefix(before).chain_update(bytes));
                self.leaf_data.truncate(self.start);
            }
        }
    }

    /// The map's SHA-256, if it was too long to be kept.
    fn finish(self) -> Option<[u8; 32]> {
        self.digest.map(|digest| digest.finalize().into())
    }
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

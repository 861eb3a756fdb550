//! Pages, and where the next one begins.

use crate::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The most that a page has, of anything.
pub const MAX_PAGE: u16 = 200;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins; `None` if there is none now. Passed on, `None` asks for the first page.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Of up to `limit + 1` rows, the last of which only says that there are more.
    pub(crate) fn of(mut items: Vec<T>, limit: u16, place: impl Fn(&T) -> Cursor) -> Page<T> {
        let more = items.len() > usize::from(limit);
        items.truncate(limit.into());
        let next = if more { items.last().map(place) } else { None };
        Page { items, next }
    }
}

/// `limit`, and one row more to know whether there is another page.
pub(crate) fn rows(limit: u16) -> Result<i64> {
    match limit {
        1..=MAX_PAGE => Ok(i64::from(limit) + 1),
        _ => Err(Error::invalid(
            "limit",
            format!("{limit} is not from 1 to {MAX_PAGE}"),
        )),
    }
}

/// A place in a list that is ordered by time and, where times are equal, by id. Opaque outside, and
/// stable: what is added to the list moves no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// Microseconds since 1970-01-01 00:00 UTC.
    at: i64,
    id: Uuid,
}

/// Of the bytes that a cursor's text stands for.
const VERSION: u8 = 1;

impl Cursor {
    pub(crate) fn new(at: DateTime<Utc>, id: Uuid) -> Cursor {
        let at = at.timestamp_micros();
        Cursor { at, id }
    }

    pub(crate) const START: Cursor = Cursor {
        at: -62_135_596_800_000_000, // 0001-01-01
        id: Uuid::nil(),
    };
    pub(crate) const END: Cursor = Cursor {
        at: 253_402_300_799_999_999, // 9999-12-31
        id: Uuid::max(),
    };

    pub(crate) fn at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.at).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [VERSION; 25];
        bytes[1..9].copy_from_slice(&self.at.to_be_bytes());
        bytes[9..].copy_from_slice(self.id.as_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// # Errors
    /// [`Error::Invalid`], for anything that no cursor was written as.
    fn from_str(text: &str) -> Result<Cursor> {
        let invalid = || Error::invalid("cursor", "it is none of this server's");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return Err(invalid());
        };
        let (at, id) = rest.split_first_chunk().ok_or_else(invalid)?;
        let cursor = Cursor {
            at: i64::from_be_bytes(*at),
            id: Uuid::from_slice(id).map_err(|_| invalid())?,
        };
        if (Cursor::START..=Cursor::END).contains(&cursor) {
            Ok(cursor)
        } else {
            Err(invalid())
        }
    }
}

impl TryFrom<String> for Cursor {
    type Error = Error;
    fn try_from(text: String) -> Result<Cursor> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> String {
        cursor.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(at in Cursor::START.at..=Cursor::END.at, id in any::<u128>()) {
            let cursor = Cursor { at, id: Uuid::from_u128(id) };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
            prop_assert_eq!(Cursor::new(cursor.at(), cursor.id), cursor);
        }

        #[test]
        fn any_other_text_is_refused(text in ".*", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for text in [text, URL_SAFE_NO_PAD.encode(bytes)] {
                if let Ok(cursor) = text.parse::<Cursor>() {
                    prop_assert_eq!(cursor.to_string(), text);
                }
            }
        }
    }
}

//! A row's key as callers give it: one text, as entries have it, or a value for each of the key's columns, of any type
//! that the server compares to the column's.
//!
//! A value becomes a text, which the column's type reads. Only functions of the server's own take part: the type that a
//! value has is either the column's (a built-in type or an enum, `Table::check_key`), or one of the built-in types
//! below. What is equal to no value of the column's type is refused, not rounded to one.

use super::row_key;
use super::table::Attribute;
use crate::error::{Error, KeyError};
use crate::pg::argument::{self, Argument};
use crate::pg::{datum, settings};
use pgrx::pg_sys;

/// Bytes of the longest key. An index entry has at most 2,704 bytes, compressed to a 255th at best, and a
/// value's text form has at most four bytes for one of these.
pub const MAX_KEY: usize = 4 << 20;
/// Characters of a value that an error shows.
const SHOWN: usize = 100;

#[derive(Clone, Copy)]
pub enum GivenKey<'a> {
    /// As entries have it: of a composite key the text of a `text[]`.
    Text(&'a str),
    /// One a column of the key.
    Values(&'a [Option<Argument<'a>>]),
}

/// Many keys, given as an array for each column of the key.
pub struct GivenKeys<'a> {
    columns: Vec<Vec<Option<Argument<'a>>>>,
    count: usize,
}

impl<'a> GivenKeys<'a> {
    /// # Errors
    /// If an argument is no array, or the arrays are not of one length.
    pub fn new(arguments: &[Option<Argument<'a>>]) -> Result<GivenKeys<'a>, Error> {
        let mut columns = Vec::new();
        for argument in arguments {
            let argument = argument.ok_or(Error::Null { name: "keys" })?;
            let elements = argument.elements().ok_or_else(|| KeyError::NoArray {
                given: argument.type_name(),
            });
            columns.push(elements.map_err(Error::GivenKey)?);
        }
        let lengths: Vec<usize> = columns.iter().map(Vec::len).collect();
        match lengths.iter().all(|length| *length == lengths[0]) {
            true => Ok(GivenKeys {
                count: lengths.first().copied().unwrap_or_default(),
                columns,
            }),
            false => Err(Error::GivenKey(KeyError::Lengths { lengths })),
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// A value for each column; `number` is less than the count.
    pub fn key(&self, number: usize) -> Vec<Option<Argument<'a>>> {
        self.columns.iter().map(|column| column[number]).collect()
    }
}

/// Types whose values the server compares to each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Text,
    Integer,
    /// Numbers with a fraction.
    Fraction,
    Time,
    Address,
    Bits,
}

fn family(type_oid: pg_sys::Oid) -> Option<Family> {
    Some(match type_oid {
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::NAMEOID => Family::Text,
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::OIDOID => Family::Integer,
        pg_sys::NUMERICOID | pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => Family::Fraction,
        pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Family::Time,
        pg_sys::INETOID | pg_sys::CIDROID => Family::Address,
        pg_sys::BITOID | pg_sys::VARBITOID => Family::Bits,
        _ => return None,
    })
}

/// Why a value is none of a column's.
enum Unfit {
    Type,
    NoValue(String),
}

impl GivenKey<'_> {
    /// A text for each column of the key of `table`.
    pub fn parts(&self, table: &str, columns: &[Attribute]) -> Result<Vec<String>, Error> {
        let values = match self {
            GivenKey::Text(text) => return row_key::split(table, columns.len(), text),
            GivenKey::Values(values) => values,
        };
        if values.len() != columns.len() {
            return Err(Error::GivenKey(KeyError::Count {
                table: table.to_owned(),
                columns: columns.iter().map(|c| c.name.clone()).collect(),
                given: values.len(),
            }));
        }
        let part = |(column, value): (&Attribute, &Option<Argument>)| {
            let (table, name) = (table.to_owned(), column.name.clone());
            let type_name = || argument::type_name(column.base_type);
            let Some(value) = value else {
                let column = name;
                return Err(KeyError::Null { table, column });
            };
            let part = part(column.base_type, value).and_then(|part| match part.len() <= MAX_KEY {
                true => Ok(part),
                false => Err(Unfit::NoValue(format!("a value of {} bytes", part.len()))),
            });
            part.map_err(|unfit| match unfit {
                Unfit::Type => KeyError::Type {
                    table,
                    column: name,
                    type_name: type_name(),
                    given: value.type_name(),
                },
                Unfit::NoValue(value) => KeyError::NoValue {
                    table,
                    column: name,
                    type_name: type_name(),
                    value: value.chars().take(SHOWN).collect(),
                },
            })
        };
        let parts = columns.iter().zip(*values).map(part);
        parts.collect::<Result<_, _>>().map_err(Error::GivenKey)
    }
}

/// A value as a text that the type `to` reads.
fn part(to: pg_sys::Oid, value: &Argument) -> Result<String, Unfit> {
    let text = || settings::pinned_for_values(|| value.text());
    let from = value.type_oid;
    if from == to {
        return Ok(text());
    }
    match (family(from).ok_or(Unfit::Type)?, family(to)) {
        // What is written as a literal or sent as a text is meant to be of the column's type, whichever that is.
        (Family::Text, Some(Family::Text)) if from == pg_sys::BPCHAROID => {
            Ok(text().trim_end_matches(' ').to_owned())
        }
        (Family::Text, _) => Ok(text()),
        (Family::Integer, Some(Family::Integer)) => integer(to, text()),
        (Family::Integer, Some(Family::Fraction)) => Ok(text()),
        (Family::Fraction, Some(Family::Fraction)) => Ok(text()),
        (Family::Fraction, Some(Family::Integer)) => integer(to, text()),
        (Family::Time, Some(Family::Time)) => {
            value.time_as(to).ok_or_else(|| Unfit::NoValue(text()))
        }
        (Family::Address, Some(Family::Address)) | (Family::Bits, Some(Family::Bits)) => Ok(text()),
        _ => Err(Unfit::Type),
    }
}

/// A number as text that is one of the integers of type `to`.
fn integer(to: pg_sys::Oid, number: String) -> Result<String, Unfit> {
    let range = match to {
        pg_sys::INT2OID => i16::MIN.into()..=i16::MAX.into(),
        pg_sys::INT4OID => i32::MIN.into()..=i32::MAX.into(),
        pg_sys::OIDOID => 0..=u32::MAX.into(),
        _ => i64::MIN..=i64::MAX,
    };
    // 42.00, and as floats are written, 1e+06.
    let value = datum::input(pg_sys::NUMERICOID, &number);
    let plain = datum::text_of(&value);
    let digits = match plain.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b == b'0') => whole,
        _ => &plain,
    };
    match digits.parse::<i64>() {
        Ok(whole) if range.contains(&whole) => Ok(whole.to_string()),
        _ => Err(Unfit::NoValue(number)),
    }
}

//! Leaf data as JSON, as `to_jsonb` writes the row, so that `jsonb_populate_record` makes the row of it again.

use super::value_text;
use crate::catalog::versions::{Column, Version};
use crate::encode::Decoder;
use crate::pg::spi::Snapshot;
use crate::pg::{datum, jsonb};
use crate::session::Session;
use leaf_format::Cbor;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Bytes that a `jsonb` value can hold in a string, or in all elements of an array or an object.
pub const LONGEST: usize = (1 << 28) - 1;
/// Bytes at most that `jsonb` adds to what an element itself takes, its length and alignment included.
const OVERHEAD: usize = 16;

/// The columns of a version by name, with their types as far as these still exist.
pub struct Types(HashMap<String, Option<Decoder>>);

impl Types {
    pub fn of(session: &Session, version: &Version) -> Types {
        let known = |number: u32| datum::base_type_if_known(number);
        let named = |name: &str| {
            let sql = "SELECT pg_catalog.to_regtype($1)::pg_catalog.oid";
            let number = session.query(Snapshot::Fresh, sql, &[name.into()], |row| row.get(0));
            number.into_iter().next().flatten()
        };
        let decoder = |column: &Column| {
            let type_oid = column
                .type_oid
                .and_then(known)
                .or_else(|| named(&column.type_name));
            let definition = column.definition.as_ref();
            let decoder = type_oid.map(|type_oid| Decoder::of_type(type_oid, definition));
            (column.name.clone(), decoder)
        };
        Types(version.columns.iter().map(decoder).collect())
    }

    /// `None` if the type is not known.
    pub fn of_column(&self, name: &str) -> Option<&Decoder> {
        self.0.get(name)?.as_ref()
    }
}

/// A field: name, value and type.
type Field<'a> = (&'a str, &'a Cbor, Option<&'a Decoder>);

/// Why a value is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unshown {
    TooLong,
    /// JSON that `jsonb` cannot hold.
    NotJsonb,
}

/// A row as JSON, of no more than `longest` bytes as `jsonb`: the longest values are null where it would be more, and so
/// is what `jsonb` cannot hold. The columns of these are named.
pub fn row<'a>(
    columns: impl Iterator<Item = (&'a String, &'a Cbor)>,
    types: &'a Types,
    longest: usize,
) -> (String, Vec<(&'a str, Unshown)>) {
    let field =
        |(name, value): (&'a String, &'a Cbor)| (name.as_str(), value, types.of_column(name));
    let fields: Vec<Field> = columns.map(field).collect();
    let too_long = too_long(&fields, longest);
    let mut unshown: Vec<_> = too_long.iter().map(|n| (*n, Unshown::TooLong)).collect();
    let mut json = String::from("{");
    for (place, (name, value, of)) in fields.into_iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        write_text(&mut json, name);
        json.push(':');
        let start = json.len();
        if too_long.contains(&name) {
            json.push_str("null");
            continue;
        }
        write(&mut json, value, of);
        if of.is_some_and(has_json) && !jsonb::can_hold(&json[start..]) {
            json.truncate(start);
            json.push_str("null");
            unshown.push((name, Unshown::NotJsonb));
        }
    }
    json.push('}');
    (json, unshown)
}

/// True if JSON that somebody else has written is in values of the type.
fn has_json(of: &Decoder) -> bool {
    match of {
        Decoder::Json | Decoder::Jsonb => true,
        Decoder::Array(array) => has_json(array.element()),
        Decoder::Composite(composite) => composite.fields().any(|(_, of)| has_json(of)),
        _ => false,
    }
}

/// The text of a value, as `->>` would give it of the row as JSON.
pub fn text(value: &Cbor, of: Option<&Decoder>) -> String {
    match (value, of) {
        (Cbor::Text(text), _) => text.clone(),
        (value, Some(of)) if value_text::is_text(of) => value_text::as_in_json(value, of),
        (Cbor::Bytes(_) | Cbor::Float(_) | Cbor::Tag(37, _), _) => value_text::plain(value),
        (value, of) => {
            let mut json = String::new();
            write(&mut json, value, of);
            json
        }
    }
}

/// The columns with the longest values, as many as must go.
fn too_long<'a>(fields: &[Field<'a>], longest: usize) -> Vec<&'a str> {
    let mut sizes: Vec<(usize, &str)> = fields
        .iter()
        .map(|(name, value, of)| (size(value, *of), *name))
        .collect();
    let names: usize = fields.iter().map(|(name, ..)| name.len() + OVERHEAD).sum();
    let mut left: usize = sizes.iter().map(|(size, _)| size).sum::<usize>() + names;
    let mut left_out = Vec::new();
    if left > longest {
        sizes.sort_unstable();
    }
    while left > longest
        && let Some((size, name)) = sizes.pop()
    {
        left -= size;
        left_out.push(name);
    }
    left_out
}

/// Bytes at most that a value takes as `jsonb`, or as JSON if that is more.
fn size(value: &Cbor, of: Option<&Decoder>) -> usize {
    let count = |text: &str, is: fn(&u8) -> bool| match text.len() <= LONGEST {
        true => text.bytes().filter(is).count(),
        false => 0,
    };
    let content = match value {
        // Behind each of these there may be an element.
        Cbor::Text(text) if is_json(of) => {
            text.len() + OVERHEAD * count(text, |b| matches!(b, b',' | b'[' | b'{' | b':'))
        }
        // Control characters take up to six bytes, and these two take two.
        Cbor::Text(text) => {
            let escaped = count(text, |b| *b < b' ' || matches!(b, b'"' | b'\\'));
            text.len() + 5 * escaped
        }
        Cbor::Bytes(bytes) => 2 * bytes.len(),
        Cbor::Tag(_, inner) => size(inner, of),
        Cbor::Array(elements) => {
            let of = match of {
                Some(Decoder::Array(array)) => Some(array.element()),
                _ => None,
            };
            elements.iter().map(|element| size(element, of)).sum()
        }
        Cbor::Map(map) => map.iter().map(|(k, v)| size(k, None) + size(v, None)).sum(),
        // A number, or a time as text.
        _ => 3 * OVERHEAD,
    };
    content + OVERHEAD
}

fn is_json(of: Option<&Decoder>) -> bool {
    matches!(of, Some(Decoder::Json | Decoder::Jsonb))
}

fn write_object<'a>(json: &mut String, fields: impl Iterator<Item = Field<'a>>) {
    json.push('{');
    for (place, (name, value, of)) in fields.enumerate() {
        if place > 0 {
            json.push(',');
        }
        write_text(json, name);
        json.push(':');
        write(json, value, of);
    }
    json.push('}');
}

/// Writes a value as `to_jsonb` writes one of its type; where the type is not known, by the kind of value.
fn write(json: &mut String, value: &Cbor, of: Option<&Decoder>) {
    match (value, of) {
        (Cbor::Null, _) => json.push_str("null"),
        (Cbor::Text(text), of) if is_json(of) => json.push_str(text),
        (Cbor::Array(elements), Some(Decoder::Array(array))) => {
            write_array(json, elements.iter(), Some(array.element()));
        }
        (Cbor::Tag(40, parts), Some(Decoder::Array(array))) => {
            write_dimensions(json, parts, array.element());
        }
        (Cbor::Map(map), of) => write_composite(json, map, of),
        (value, Some(of)) if value_text::is_text(of) => {
            write_text(json, &value_text::as_in_json(value, of));
        }
        (Cbor::Float(f), Some(Decoder::Float4)) if f.is_finite() => {
            json.push_str(&(*f as f32).to_string());
        }
        (value, _) => write_plain(json, value),
    }
}

fn write_plain(json: &mut String, value: &Cbor) {
    // Writing to a String does not fail.
    let _ = match value {
        Cbor::Bool(b) => write!(json, "{b}"),
        Cbor::Integer(n) => write!(json, "{n}"),
        Cbor::Float(f) if f.is_finite() => write!(json, "{f}"),
        Cbor::Tag(4, _) => write!(json, "{}", value_text::plain(value)),
        Cbor::Array(elements) => {
            write_array(json, elements.iter(), None);
            Ok(())
        }
        value => {
            write_text(json, &value_text::plain(value));
            Ok(())
        }
    };
}

fn write_array<'a>(
    json: &mut String,
    elements: impl Iterator<Item = &'a Cbor>,
    of: Option<&Decoder>,
) {
    json.push('[');
    for (place, element) in elements.enumerate() {
        if place > 0 {
            json.push(',');
        }
        write(json, element, of);
    }
    json.push(']');
}

/// An array of several dimensions, or with other bounds than JSON has: sizes, elements, lower bounds.
fn write_dimensions(json: &mut String, parts: &Cbor, of: &Decoder) {
    let (sizes, elements) = match parts {
        Cbor::Array(of_array) => match of_array.as_slice() {
            [Cbor::Array(sizes), Cbor::Array(elements), ..] => (sizes, elements),
            _ => return write_plain(json, parts),
        },
        _ => return write_plain(json, parts),
    };
    let size = |size: &Cbor| match size {
        Cbor::Integer(n) => usize::try_from(*n).unwrap_or(0),
        _ => 0,
    };
    let sizes: Vec<usize> = sizes.iter().map(size).collect();
    write_dimension(json, &sizes, elements, of);
}

fn write_dimension(json: &mut String, sizes: &[usize], elements: &[Cbor], of: &Decoder) {
    let inner = match sizes {
        [] | [_] => return write_array(json, elements.iter(), Some(of)),
        [size, ..] => elements.len() / (*size).max(1),
    };
    json.push('[');
    for (place, elements) in elements.chunks(inner.max(1)).enumerate() {
        if place > 0 {
            json.push(',');
        }
        write_dimension(json, &sizes[1..], elements, of);
    }
    json.push(']');
}

fn write_composite(json: &mut String, map: &BTreeMap<Cbor, Cbor>, of: Option<&Decoder>) {
    let type_of = |name: &str| match of {
        Some(Decoder::Composite(composite)) => {
            let mut fields = composite.fields();
            fields.find(|(field, _)| field == name).map(|(_, of)| of)
        }
        _ => None,
    };
    let fields = map.iter().filter_map(|(name, value)| match name {
        Cbor::Text(name) => Some((name.as_str(), value, type_of(name))),
        _ => None,
    });
    write_object(json, fields);
}

/// `jsonb` has no U+0000, and neither has any text of the server's.
fn write_text(json: &mut String, text: &str) {
    let is_plain = |b: u8| b >= b' ' && b != b'"' && b != b'\\';
    if text.bytes().all(is_plain) {
        json.push('"');
        json.push_str(text);
        json.push('"');
        return;
    }
    json.push_str(&serde_json::Value::from(text).to_string());
}

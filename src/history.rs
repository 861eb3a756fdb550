//! The versions of a row, from the leaf data that the log keeps.

use crate::capture::given_key::GivenKey;
use crate::capture::row_key::Finder;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::{self, Column};
use crate::encode::time::{self, MICROS_PER_DAY};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::{alloc, datum};
use crate::session::Session;
use crate::store::entries;
use crate::store::leaves::{self, Annex};
use leaf_format::{Cbor, Columns, Leaf};
use pgrx::pg_sys;
use std::fmt::Write;

/// One version of a row, or what became of it.
pub struct Version {
    pub leaf_index: i64,
    /// `insert`, `update`, `delete`, `truncate`, or `redacted`.
    pub operation: String,
    /// The row as JSON; `None` where the log does not keep it.
    pub row: Option<String>,
    pub origin: Option<Origin>,
}

pub struct Origin {
    pub transaction: u64,
    pub user: String,
    pub application: String,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
}

/// The versions of a row that are on record, oldest first, loaded one by one.
pub struct Versions {
    log: Log,
    /// The sources that the table has been, each with its versions of the columns.
    sources: Vec<(Source, Vec<versions::Version>)>,
    /// Leaf indexes of the row's entries, each with the place of its source.
    entries: std::vec::IntoIter<(i64, usize)>,
}

impl Versions {
    /// Finds the entries of a row.
    ///
    /// # Errors
    /// If the caller may not read a source that the table is or was, or if nothing was kept of the row.
    pub fn find(
        session: &Session,
        log: Log,
        relation: pg_sys::Oid,
        key: GivenKey,
    ) -> Result<Versions, Error> {
        let of_table: Vec<_> = sources::all(session, &log)
            .into_iter()
            .filter(|s| s.relation == relation)
            .collect();
        let latest = of_table.last().ok_or_else(|| Error::NoSuchSource {
            log: log.name.clone(),
            table: sources::relation_name(session, relation),
        })?;
        let no_history = Error::NoHistory {
            log: log.name.clone(),
            table: latest.name.clone(),
        };
        for source in &of_table {
            session.check_caller_reads(&log, source)?;
        }
        let finder = Finder::of(session, &log, relation)?;
        let key = finder.key(session, key)?;
        let mut entries = Vec::new();
        for (place, source) in of_table.iter().enumerate() {
            if !finder.sources.contains(&source.id) {
                continue;
            }
            let of_source = entries::of_row(session, Snapshot::Statement, &log, source.id, &key)?;
            alloc::reserve(&mut entries, of_source.len());
            entries.extend(of_source.into_iter().map(|index| (index, place)));
        }
        entries.sort_unstable();
        let anything_kept = entries.is_empty()
            || entries.iter().any(|(index, place)| {
                pgrx::check_for_interrupts!();
                let annex = leaves::annex(session, &log, *index);
                annex.leaf_data.is_some() || of_table[*place].salted && annex.salt.is_none()
            });
        if !anything_kept {
            return Err(no_history);
        }
        let with_versions = |source: Source| {
            let versions = versions::load(session, source.id);
            (source, versions)
        };
        Ok(Versions {
            log,
            sources: of_table.into_iter().map(with_versions).collect(),
            entries: entries.into_iter(),
        })
    }

    /// The next version; `None` when all have been loaded.
    pub fn next(&mut self, session: &Session) -> Option<Version> {
        pgrx::check_for_interrupts!();
        let (index, place) = self.entries.next()?;
        let (source, versions) = &self.sources[place];
        let version = versions.iter().rev().find(|v| v.from_leaf_index <= index);
        let columns = version.map_or(&[][..], |v| &v.columns);
        let annex = leaves::annex(session, &self.log, index);
        let leaf = annex.leaf_data.as_ref();
        let leaf =
            leaf.and_then(|_| leaves::in_full(session, Snapshot::Statement, &self.log, index));
        Some(version_of(index, leaf, &annex, columns, source.salted))
    }
}

fn version_of(
    leaf_index: i64,
    leaf: Option<Leaf>,
    annex: &Annex,
    columns: &[Column],
    salted: bool,
) -> Version {
    let origin = annex.statement.as_ref().map(|s| Origin {
        transaction: s.transaction,
        user: s.user.clone(),
        application: s.application.clone(),
        at: s.at,
    });
    let on_statement = || {
        annex
            .statement
            .as_ref()
            .map_or("insert", |s| &s.kind)
            .to_owned()
    };
    match leaf {
        // What was hashed says it with authority; the statement's row only repeats it.
        Some(leaf) => Version {
            leaf_index,
            operation: leaf.kind.as_str().to_owned(),
            row: match leaf.columns {
                Columns::Map(map) if leaf.kind != leaf_format::Kind::Truncate => {
                    Some(object(map.iter().map(|(name, value)| {
                        let column = columns.iter().find(|c| c.name == *name);
                        (
                            name.as_str(),
                            value,
                            column.map_or("", |c| c.type_name.as_str()),
                        )
                    })))
                }
                _ => None,
            },
            origin: leaf.origin.map(|o| Origin {
                transaction: o.transaction,
                user: o.user,
                application: o.application,
                at: o.at,
            }),
        },
        None => Version {
            leaf_index,
            operation: match salted && annex.salt.is_none() {
                true => "redacted".to_owned(),
                false => on_statement(),
            },
            row: None,
            origin,
        },
    }
}

fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a Cbor, &'a str)>) -> String {
    let mut json = String::from("{");
    for (place, (name, value, type_name)) in fields.enumerate() {
        if place > 0 {
            json.push(',');
        }
        json.push_str(&quoted(name));
        json.push(':');
        write(&mut json, value, type_name);
    }
    json.push('}');
    json
}

fn quoted(text: &str) -> String {
    // jsonb has no U+0000, and neither has any text of the server's.
    serde_json::Value::from(text).to_string()
}

/// Writes a value as `to_jsonb` would write one of its type, as far as the leaf format tells.
fn write(json: &mut String, value: &Cbor, type_name: &str) {
    // Writing to a String does not fail.
    let _ = match value {
        Cbor::Null => write!(json, "null"),
        Cbor::Bool(b) => write!(json, "{b}"),
        Cbor::Integer(n) => match moment(*n, type_name) {
            Some(text) => write!(json, "{}", quoted(&text)),
            None => write!(json, "{n}"),
        },
        Cbor::Float(f) if f.is_finite() => write!(json, "{f}"),
        Cbor::Float(f) => write!(json, "{}", quoted(special(*f))),
        Cbor::Text(text) if matches!(type_name, "json" | "jsonb") => write!(json, "{text}"),
        Cbor::Text(text) => write!(json, "{}", quoted(text)),
        Cbor::Bytes(bytes) => write!(json, "\"\\\\x{}\"", hex(bytes)),
        Cbor::Tag(37, uuid) => match uuid.as_ref() {
            Cbor::Bytes(b) if b.len() == 16 => {
                let h = hex(b);
                write!(
                    json,
                    "\"{}-{}-{}-{}-{}\"",
                    &h[..8],
                    &h[8..12],
                    &h[12..16],
                    &h[16..20],
                    &h[20..]
                )
            }
            other => return write(json, other, ""),
        },
        Cbor::Tag(4, parts) => match parts.as_ref() {
            Cbor::Array(parts) if parts.len() == 2 => {
                write!(json, "{}", decimal(&parts[0], &parts[1]))
            }
            other => return write(json, other, ""),
        },
        Cbor::Tag(_, inner) => return write(json, inner, type_name),
        Cbor::Array(elements) => {
            let of = type_name.strip_suffix("[]").unwrap_or("");
            json.push('[');
            for (place, element) in elements.iter().enumerate() {
                if place > 0 {
                    json.push(',');
                }
                write(json, element, of);
            }
            write!(json, "]")
        }
        Cbor::Map(map) => {
            let fields = map.iter().filter_map(|(name, value)| match name {
                Cbor::Text(name) => Some((name.as_str(), value, "")),
                _ => None,
            });
            write!(json, "{}", object(fields))
        }
        _ => write!(json, "null"),
    };
}

fn special(f: f64) -> &'static str {
    match f {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A count of microseconds or days as the time that it stands for, in the form that JSON has it.
fn moment(n: i128, type_name: &str) -> Option<String> {
    let n = i64::try_from(n).ok()?;
    let (type_oid, value) = match type_name {
        "date" => {
            let days =
                i32::try_from(time::server_micros(n.checked_mul(MICROS_PER_DAY)?) / MICROS_PER_DAY);
            (pg_sys::DATEOID, pg_sys::Datum::from(days.ok()?))
        }
        t if t.starts_with("timestamp") && t.ends_with("with time zone") => (
            pg_sys::TIMESTAMPTZOID,
            pg_sys::Datum::from(time::server_micros(n)),
        ),
        t if t.starts_with("timestamp") => (
            pg_sys::TIMESTAMPOID,
            pg_sys::Datum::from(time::server_micros(n)),
        ),
        t if t.starts_with("time") && t.ends_with("without time zone") => {
            (pg_sys::TIMEOID, pg_sys::Datum::from(n))
        }
        _ => return None,
    };
    // SAFETY: each value has the representation of its type; these types are passed by value.
    let text = unsafe { datum::output(type_oid, value) };
    Some(text.replacen(' ', "T", 1))
}

/// `mantissa · 10^exponent`, written out.
fn decimal(exponent: &Cbor, mantissa: &Cbor) -> String {
    let Cbor::Integer(exponent) = exponent else {
        return "null".to_owned();
    };
    let digits = match mantissa {
        Cbor::Integer(n) => n.to_string(),
        Cbor::Tag(tag @ (2 | 3), magnitude) => match magnitude.as_ref() {
            Cbor::Bytes(bytes) => {
                let n = num_bigint::BigUint::from_bytes_be(bytes);
                match tag {
                    2 => n.to_string(),
                    _ => format!("-{}", n + 1u8),
                }
            }
            _ => return "null".to_owned(),
        },
        _ => return "null".to_owned(),
    };
    format!("{digits}e{exponent}")
}

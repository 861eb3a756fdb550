//! What the encoding of a type's values depends on in the catalogs, beside the type itself.
//!
//! Labels of enums and attributes of composite types may get other names while the values stay as they are
//! stored: a value holds the number of its label, and attributes stand in an order. So a version of a source's
//! columns records names with numbers, and rows are encoded with the names of their version. Domains and ranges
//! cannot be put over another type, and collations have no part in any encoding.

use crate::pg::spi::{Snapshot, query};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

/// `None` stands for a type that the server defines once and for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Definition {
    /// The labels in their order.
    Enum(Vec<Label>),
    /// The attributes in the order of their numbers.
    Composite(Vec<Attribute>),
    /// Of arrays their elements, of ranges and multiranges their bounds.
    Of(Box<Definition>),
    /// Values are stored as numbers of catalog entries and written as their names, whatever these are then.
    Names,
    /// Types are nested more deeply here than values can be taken apart again.
    TooDeep,
}

/// How deeply types may be nested: decoders of JSON and CBOR go no deeper than 128 levels, and a definition takes
/// three for each.
pub const DEPTH: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The number that values hold.
    pub number: u32,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    pub number: i16,
    pub name: String,
    pub definition: Option<Definition>,
}

/// The types whose values are names of something else.
pub const NAMES: [pg_sys::Oid; 12] = [
    pg_sys::REGPROCOID,
    pg_sys::REGPROCEDUREOID,
    pg_sys::REGOPEROID,
    pg_sys::REGOPERATOROID,
    pg_sys::REGCLASSOID,
    pg_sys::REGCOLLATIONOID,
    pg_sys::REGTYPEOID,
    pg_sys::REGROLEOID,
    pg_sys::REGNAMESPACEOID,
    pg_sys::REGCONFIGOID,
    pg_sys::REGDICTIONARYOID,
    pg_sys::ACLITEMOID,
];

impl Definition {
    /// As the catalogs have it now.
    pub fn of_type(type_oid: pg_sys::Oid) -> Option<Definition> {
        Definition::at_depth(type_oid, 0)
    }

    fn at_depth(type_oid: pg_sys::Oid, depth: usize) -> Option<Definition> {
        if depth > DEPTH {
            return Some(Definition::TooDeep);
        }
        let type_oid = crate::pg::datum::base_type(type_oid);
        if NAMES.contains(&type_oid) {
            return Some(Definition::Names);
        }
        let parts = query(
            Snapshot::Fresh,
            "SELECT t.typtype::pg_catalog.text, t.typrelid,
                    COALESCE(r.rngsubtype, CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc THEN t.typelem END)
               FROM pg_catalog.pg_type t
               LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid OR r.rngmultitypid = t.oid
              WHERE t.oid = $1",
            &[type_oid.into()],
            |row| (row.required::<String>(0), row.required(1), row.get(2)),
        );
        let (kind, relation, inner): (String, pg_sys::Oid, Option<pg_sys::Oid>) =
            parts.into_iter().next()?;
        match (kind.as_str(), inner) {
            ("e", _) => Some(Definition::Enum(labels(type_oid))),
            ("c", _) => Some(Definition::Composite(attributes(relation, depth + 1))),
            (_, Some(inner)) => {
                Definition::at_depth(inner, depth + 1).map(|d| Definition::Of(Box::new(d)))
            }
            _ => None,
        }
    }

    /// True if types are nested too deeply in it.
    pub fn is_too_deep(&self) -> bool {
        match self {
            Definition::TooDeep => true,
            Definition::Of(inner) => inner.is_too_deep(),
            Definition::Composite(attributes) => attributes
                .iter()
                .filter_map(|a| a.definition.as_ref())
                .any(Definition::is_too_deep),
            Definition::Enum(_) | Definition::Names => false,
        }
    }

    /// The definition of what values of this type are made of, where they are made of one kind of thing.
    pub fn inner(definition: Option<&Definition>) -> Option<&Definition> {
        match definition {
            Some(Definition::Of(inner)) => Some(inner),
            _ => None,
        }
    }

    /// What of this one's names cannot be told apart any more from the definition that the type has now; in
    /// words. Empty where every value of then can be encoded as it was.
    pub fn lost(&self, now: Option<&Definition>) -> Vec<String> {
        match (self, now) {
            (Definition::Names, _) => {
                vec!["its values are names, which change with what they name".to_owned()]
            }
            (Definition::Of(then), now) => then.lost(Definition::inner(now)),
            (Definition::Enum(then), Some(Definition::Enum(now))) => then
                .iter()
                .filter(|label| now.iter().all(|l| l.number != label.number))
                .map(|label| format!("label {} is not known any more", label.name))
                .collect(),
            (Definition::Composite(then), Some(Definition::Composite(now))) => then
                .iter()
                .flat_map(|attribute| {
                    match (
                        now.iter().find(|a| a.number == attribute.number),
                        &attribute.definition,
                    ) {
                        (None, _) => vec![format!("attribute {} is gone", attribute.name)],
                        (Some(now), Some(then)) => then.lost(now.definition.as_ref()),
                        (Some(_), None) => Vec::new(),
                    }
                })
                .collect(),
            (Definition::Enum(_) | Definition::Composite(_) | Definition::TooDeep, _) => {
                vec!["its type is another one now".to_owned()]
            }
        }
    }

    /// The name that a label has there, if it is an enum's and has another one.
    pub fn renamed(&self, label: &str, there: &Definition) -> Option<&str> {
        let (Definition::Enum(here), Definition::Enum(there)) = (self, there) else {
            return None;
        };
        let number = there.iter().find(|l| l.name == label)?.number;
        let here = here.iter().find(|l| l.number == number)?;
        (here.name != label).then_some(here.name.as_str())
    }

    /// The names that stand for another label or attribute in `now`.
    pub fn reused(&self, now: Option<&Definition>) -> Vec<String> {
        match (self, now) {
            (Definition::Of(then), now) => then.reused(Definition::inner(now)),
            (Definition::Enum(then), Some(Definition::Enum(now))) => {
                let is_another = |then: &&Label| {
                    let same = now.iter().find(|l| l.name == then.name);
                    same.is_some_and(|now| now.number != then.number)
                };
                let reused = then.iter().filter(is_another);
                reused
                    .map(|label| format!("label {}", label.name))
                    .collect()
            }
            (Definition::Composite(then), Some(Definition::Composite(now))) => {
                let reused = |then: &Attribute| {
                    let same = now.iter().find(|a| a.name == then.name);
                    let itself = now.iter().find(|a| a.number == then.number);
                    let is_another = same.is_some_and(|now| now.number != then.number);
                    let mut names = match is_another && itself.is_some() {
                        true => vec![format!("attribute {}", then.name)],
                        false => Vec::new(),
                    };
                    if let (Some(now), Some(then)) = (itself, &then.definition) {
                        names.extend(then.reused(now.definition.as_ref()));
                    }
                    names
                };
                then.iter().flat_map(reused).collect()
            }
            _ => Vec::new(),
        }
    }

    /// True if all labels of an enum are known in `now`, by the same names.
    pub fn keeps_labels(&self, now: Option<&Definition>) -> bool {
        match (self, now) {
            (Definition::Enum(then), Some(Definition::Enum(now))) => {
                then.iter().all(|label| now.contains(label))
            }
            (then, now) => Some(then) == now,
        }
    }

    /// In words, what `next` has made of it; empty if nothing that shows in a value.
    pub fn changes(&self, next: &Definition) -> Vec<String> {
        match (self, next) {
            (Definition::Of(last), Definition::Of(next)) => last.changes(next),
            (Definition::Enum(last), Definition::Enum(next)) => {
                let last = last
                    .iter()
                    .map(|l| (i64::from(l.number), l.name.as_str(), None));
                let next = next
                    .iter()
                    .map(|l| (i64::from(l.number), l.name.as_str(), None));
                changes(
                    "label",
                    &last.collect::<Vec<_>>(),
                    &next.collect::<Vec<_>>(),
                )
            }
            (Definition::Composite(last), Definition::Composite(next)) => {
                let last = last
                    .iter()
                    .map(|a| (i64::from(a.number), a.name.as_str(), a.definition.as_ref()));
                let next = next
                    .iter()
                    .map(|a| (i64::from(a.number), a.name.as_str(), a.definition.as_ref()));
                changes(
                    "attribute",
                    &last.collect::<Vec<_>>(),
                    &next.collect::<Vec<_>>(),
                )
            }
            _ if self == next => Vec::new(),
            _ => vec!["its type is another one".to_owned()],
        }
    }

    /// Gives the numbers that labels and attributes have in another database, whose definition is `now`. What
    /// cannot be told apart there has none.
    pub fn rebind(&mut self, now: Option<&Definition>) {
        match (self, now) {
            (Definition::Of(then), now) => then.rebind(Definition::inner(now)),
            (Definition::Enum(then), Some(Definition::Enum(now))) => {
                let names =
                    |labels: &[Label]| labels.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
                let places = crate::capture::binding::bind(&names(then), &names(now), false);
                for (label, place) in then.iter_mut().zip(places) {
                    label.number = place.map_or(0, |place| now[place].number);
                }
            }
            (Definition::Composite(then), Some(Definition::Composite(now))) => {
                let names =
                    |all: &[Attribute]| all.iter().map(|a| a.name.clone()).collect::<Vec<_>>();
                let places = crate::capture::binding::bind(&names(then), &names(now), true);
                for (attribute, place) in then.iter_mut().zip(places) {
                    attribute.number = place.map_or(0, |place| now[place].number);
                    let now = place.and_then(|place| now[place].definition.as_ref());
                    if let Some(definition) = &mut attribute.definition {
                        definition.rebind(now);
                    }
                }
            }
            (_, _) => {}
        }
    }

    /// The relations whose attributes it names.
    pub fn relations(type_oid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
        query(
            Snapshot::Fresh,
            "WITH RECURSIVE used (type_oid) AS (
                SELECT $1::pg_catalog.oid
                UNION
                SELECT n.type_oid FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type_oid,
                       LATERAL (SELECT t.typelem UNION ALL SELECT t.typbasetype
                                UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid
                                UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0) n (type_oid)
                 WHERE n.type_oid <> 0)
             SELECT t.typrelid FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type_oid WHERE t.typrelid <> 0",
            &[type_oid.into()],
            |row| row.required(0),
        )
    }
}

/// Named things with their numbers, and what is to be known of each.
type Named<'a> = (i64, &'a str, Option<&'a Definition>);

fn changes(what: &str, last: &[Named], next: &[Named]) -> Vec<String> {
    let mut words = Vec::new();
    for (number, name, definition) in last {
        match next.iter().find(|(n, ..)| n == number) {
            None => words.push(format!("{what} {name} is gone")),
            Some((_, now, _)) if now != name => words.push(format!("{what} {name} is now {now}")),
            Some((_, _, now)) => {
                if let (Some(last), Some(next)) = (definition, now) {
                    words.extend(last.changes(next));
                }
            }
        }
    }
    for (number, name, _) in next {
        if last.iter().all(|(n, ..)| n != number) {
            words.push(format!("{what} {name} is new"));
        }
    }
    words
}

fn labels(type_oid: pg_sys::Oid) -> Vec<Label> {
    query(
        Snapshot::Fresh,
        "SELECT e.oid, e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e WHERE e.enumtypid = $1 ORDER BY e.enumsortorder",
        &[type_oid.into()],
        |row| Label {
            number: row.required::<pg_sys::Oid>(0).to_u32(),
            name: row.required(1),
        },
    )
}

fn attributes(relation: pg_sys::Oid, depth: usize) -> Vec<Attribute> {
    let found = query(
        Snapshot::Fresh,
        "SELECT a.attnum, a.attname::pg_catalog.text, a.atttypid FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        &[relation.into()],
        |row| (row.required(0), row.required(1), row.required(2)),
    );
    let attribute = |(number, name, type_oid)| Attribute {
        number,
        name,
        definition: Definition::at_depth(type_oid, depth),
    };
    found.into_iter().map(attribute).collect()
}

//! A source table as the server's catalogs describe it now, and whether it can be a source.

use crate::catalog::sources::Source;
use crate::encode::Decoder;
use crate::encode::definition::{self, Definition};
use crate::error::Error;
use crate::pg::datum;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use pgrx::pg_sys;

/// A column of the table as it is now.
#[derive(Clone, Debug)]
pub struct Attribute {
    pub attnum: i16,
    pub name: String,
    pub quoted: String,
    /// The type under any domains.
    pub base_type: pg_sys::Oid,
    pub type_name: String,
    /// The type as declared, a domain maybe, and its modifier.
    pub type_oid: pg_sys::Oid,
    pub type_modifier: i32,
    /// What the encoding of its values depends on beside the type.
    pub definition: Option<Definition>,
    pub not_null: bool,
    /// The column's collation, qualified and quoted; `None` for a type without one.
    pub collation: Option<String>,
    pub collation_oid: pg_sys::Oid,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub oid: pg_sys::Oid,
    /// `schema.table`, quoted where needed.
    pub name: String,
    pub owner: pg_sys::Oid,
    /// The columns whose values are stored, in the table's order.
    pub attributes: Vec<Attribute>,
    /// The names of those whose values are computed when they are read. They are no part of a stored row, triggers see
    /// them as NULL, and ALTER TABLE may change what they show without changing a row: so they are not logged.
    virtual_columns: Vec<String>,
    pub partitioned: bool,
    /// Why it cannot be a source, if it cannot.
    unfit: Option<&'static str>,
    forced_row_security: bool,
    /// The owner may read every column of it.
    owner_reads: bool,
    /// The relations whose writers may be writing rows of this table: itself, its partitions, and
    /// the tables it is a partition of (a row's default values are computed before the lock on the
    /// partition it goes to is taken).
    pub written_through: Vec<pg_sys::Oid>,
}

impl Table {
    /// `None` if there is no such table.
    pub fn load(session: &Session, oid: pg_sys::Oid) -> Option<Table> {
        let table = session.fresh_one(
            "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
                    c.relowner, c.relkind::pg_catalog.text, c.relpersistence::pg_catalog.text,
                    c.relrowsecurity AND c.relforcerowsecurity AND NOT (r.rolsuper OR r.rolbypassrls),
                    c.oid::pg_catalog.int8 < 16384,
                    EXISTS (SELECT FROM pg_catalog.pg_depend d
                             WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                               AND d.objid = c.oid AND d.deptype = 'e' AND d.refobjid = $2),
                    pg_catalog.has_schema_privilege(c.relowner, n.oid, 'USAGE')
                        AND pg_catalog.has_table_privilege(c.relowner, c.oid, 'SELECT'),
                    c.relispartition
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
              WHERE c.oid = $1",
            &[oid.into(), session.extension().into()],
            |row| {
                let (kind, persistence): (String, String) = (row.required(2), row.required(3));
                Table {
                    oid,
                    name: row.required(0),
                    owner: row.required(1),
                    partitioned: kind == "p",
                    unfit: unfit(&kind, &persistence, row.required(5), row.required(6)),
                    forced_row_security: row.required(4),
                    owner_reads: row.required(7),
                    attributes: Vec::new(),
                    virtual_columns: Vec::new(),
                    // More, where it has partitions or is one.
                    written_through: match kind == "p" || row.required(8) {
                        true => Vec::new(),
                        false => vec![oid],
                    },
                }
            },
        )?;
        let written_through = match table.written_through.is_empty() {
            true => written_through(session, oid),
            false => table.written_through.clone(),
        };
        let (attributes, virtual_columns) = attributes(session, oid);
        Some(Table {
            attributes,
            virtual_columns,
            written_through,
            ..table
        })
    }

    pub fn attribute(&self, attnum: i16) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.attnum == attnum)
    }

    pub fn attribute_named(&self, name: &str) -> Result<&Attribute, Error> {
        let found = self.attributes.iter().find(|a| a.name == name);
        found.ok_or_else(|| {
            let (table, column) = (self.name.clone(), name.to_owned());
            match self.virtual_columns.iter().any(|v| v == name) {
                true => Error::VirtualColumn { table, column },
                false => Error::NoSuchColumn { table, column },
            }
        })
    }

    /// That every row of it can be read and kept track of.
    pub fn check_fit(&self, log: &str) -> Result<(), Error> {
        if let Some(what) = self.unfit {
            return Err(Error::NotATable {
                table: self.name.clone(),
                what,
            });
        }
        if self.forced_row_security {
            return Err(Error::ForcedRowSecurity {
                log: log.to_owned(),
                table: self.name.clone(),
            });
        }
        if !self.owner_reads {
            return Err(Error::OwnerMayNotRead {
                log: log.to_owned(),
                table: self.name.clone(),
            });
        }
        Ok(())
    }

    /// That every change of its rows is a change of its own: triggers on a table also see those of
    /// rows of tables that inherit from it.
    pub fn check_no_heirs(&self, session: &Session) -> Result<(), Error> {
        let heir = session.fresh_one(
            "SELECT true FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1 LIMIT 1",
            &[self.oid.into()],
            |row| row.required::<bool>(0),
        );
        match heir {
            Some(_) if !self.partitioned => Err(Error::NotATable {
                table: self.name.clone(),
                what: "a table that others inherit from, whose rows its triggers would capture too",
            }),
            _ => Ok(()),
        }
    }

    /// That the order column has a usable type, no nulls, and an index to read it by.
    pub fn check_order(
        &self,
        session: &Session,
        log: &str,
        order: &Attribute,
    ) -> Result<(), Error> {
        if super::order::Domain::of_type(order.base_type).is_none() {
            return Err(Error::OrderType {
                log: log.to_owned(),
                table: self.name.clone(),
                column: order.name.clone(),
                type_name: order.type_name.clone(),
            });
        }
        if !order.not_null {
            return Err(Error::OrderNullable {
                table: self.name.clone(),
                column: order.name.clone(),
            });
        }
        let indexed = session.fresh_one(
            "SELECT true FROM pg_catalog.pg_index i
               JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
               JOIN pg_catalog.pg_am m ON m.oid = x.relam
              WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL
                AND i.indkey[0] = $2 AND m.amname = 'btree' LIMIT 1",
            &[self.oid.into(), order.attnum.into()],
            |row| row.required::<bool>(0),
        );
        match indexed {
            Some(_) => Ok(()),
            None => Err(Error::OrderIndex {
                table: self.name.clone(),
                quoted_table: self.name.clone(),
                column: order.name.clone(),
                quoted_column: order.quoted.clone(),
            }),
        }
    }

    /// The keys of the table: attribute numbers of its primary key, then of its other unique
    /// indexes over not-null columns. A temporal key is none: its index compares ranges by whether they overlap,
    /// and finds no row by the values of its columns.
    pub fn keys(&self, session: &Session) -> Vec<Vec<i16>> {
        session
            .fresh(
                "SELECT (SELECT pg_catalog.array_agg(k.attnum ORDER BY k.place)
                           FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, place)
                          WHERE k.place <= i.indnkeyatts)
                   FROM pg_catalog.pg_index i
                  WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
                    AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT i.indisexclusion
                  ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid",
                &[self.oid.into()],
                |row| row.required::<Vec<i16>>(0),
            )
            .into_iter()
            .filter(|key| {
                key.iter()
                    .all(|n| self.attribute(*n).is_some_and(|a| a.not_null))
            })
            .collect()
    }

    /// The columns of a temporal key, one WITHOUT OVERLAPS (since version 18), by name; the primary key's if that is one.
    pub fn temporal_key(&self, session: &Session) -> Option<String> {
        session
            .fresh_one(
                "SELECT (SELECT pg_catalog.string_agg(a.attname::pg_catalog.text, ', ' ORDER BY k.place)
                           FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, place)
                           JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                          WHERE k.place <= i.indnkeyatts)
                   FROM pg_catalog.pg_index i
                  WHERE i.indrelid = $1 AND i.indisunique AND i.indisexclusion
                  ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1",
                &[self.oid.into()],
                |row| row.get(0),
            )
            .flatten()
    }

    /// That `columns` are a key, in any order, of types whose order is built into the server.
    pub fn check_key(&self, session: &Session, columns: &[&Attribute]) -> Result<(), Error> {
        let mut wanted: Vec<i16> = columns.iter().map(|a| a.attnum).collect();
        wanted.sort_unstable();
        let is_key = self.keys(session).into_iter().any(|mut key| {
            key.sort_unstable();
            key == wanted
        });
        if !is_key {
            let names: Vec<&str> = columns.iter().map(|a| a.name.as_str()).collect();
            let (table, columns) = (self.name.clone(), names.join(", "));
            return Err(match self.temporal_key(session) {
                Some(temporal) if temporal == columns => Error::TemporalKey { table, columns },
                _ => Error::NotAKey { table, columns },
            });
        }
        if let Some(named) = columns
            .iter()
            .find(|a| definition::NAMES.contains(&a.base_type))
        {
            return Err(Error::KeyNames {
                table: self.name.clone(),
                column: named.name.clone(),
                type_name: named.type_name.clone(),
            });
        }
        match columns
            .iter()
            .find(|a| !has_builtin_order(session, a.base_type))
        {
            None => Ok(()),
            Some(a) => Err(Error::KeyType {
                table: self.name.clone(),
                column: a.name.clone(),
                type_name: a.type_name.clone(),
            }),
        }
    }
}

/// The name that a source's table has now, qualified, for calls to be pasted; its number if it is gone.
pub fn name_now(session: &Session, source: &Source) -> String {
    let named = session.fresh_one(
        "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[source.relation.into()],
        |row| row.required::<String>(0),
    );
    named.unwrap_or_else(|| source.relation.to_u32().to_string())
}

/// True if the table, or a partition of it, was emptied or rewritten after the calling statement's snapshot was taken:
/// that one does not see the rows that were there, nor those that came instead.
pub fn is_replaced(session: &Session, relation: pg_sys::Oid) -> bool {
    // The function looks at the table as it is now.
    let found = session.query(
        Snapshot::Statement,
        "SELECT true FROM pg_catalog.pg_class c
          WHERE (c.oid = $1 OR c.oid IN (SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t))
            AND c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid) LIMIT 1",
        &[relation.into()],
        |row| row.required::<bool>(0),
    );
    !found.is_empty()
}

fn unfit(kind: &str, persistence: &str, system: bool, own: bool) -> Option<&'static str> {
    match (kind, persistence) {
        _ if own => Some("a table of the extension itself"),
        _ if system => Some("a system catalog"),
        ("v", _) => Some("a view"),
        ("m", _) => Some("a materialized view"),
        ("f", _) => Some("a foreign table"),
        ("r" | "p", "t") => Some("a temporary table"),
        ("r" | "p", "u") => Some("an unlogged table, which a crash empties"),
        ("r" | "p", _) => None,
        _ => Some("not a table"),
    }
}

/// Key columns are compared by the server while the rows are read, so no one else's operators
/// may be among them.
fn has_builtin_order(session: &Session, type_oid: pg_sys::Oid) -> bool {
    // The types of most keys.
    if matches!(
        type_oid,
        pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::TEXTOID
            | pg_sys::UUIDOID
            | pg_sys::DATEOID
            | pg_sys::TIMESTAMPOID
            | pg_sys::TIMESTAMPTZOID
    ) {
        return true;
    }
    session
        .fresh_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_type t
                             WHERE t.oid = $1 AND (t.oid::pg_catalog.int8 < 16384 OR t.typtype = 'e'))
                AND EXISTS (SELECT FROM pg_catalog.pg_opclass o
                              JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod
                              JOIN pg_catalog.pg_type t ON t.oid = $1
                             WHERE m.amname = 'btree' AND o.opcdefault
                               AND (o.opcintype = t.oid
                                 OR t.typtype = 'e' AND o.opcintype = 'pg_catalog.anyenum'::pg_catalog.regtype
                                 OR EXISTS (SELECT FROM pg_catalog.pg_cast c
                                             WHERE c.castsource = t.oid AND c.casttarget = o.opcintype
                                               AND c.castmethod = 'b' AND c.castcontext = 'i')))",
            &[type_oid.into()],
            |row| row.required(0),
        )
        .unwrap_or(false)
}

/// The columns that are stored, and the names of those that are virtual (since version 18).
fn attributes(session: &Session, oid: pg_sys::Oid) -> (Vec<Attribute>, Vec<String>) {
    let mut virtual_columns = Vec::new();
    // NOT NULL NOT VALID (since version 18) says nothing of the rows that were there before.
    let found = session.fresh(
        "SELECT a.attnum, a.attname::pg_catalog.text, pg_catalog.quote_ident(a.attname), a.atttypid,
                pg_catalog.format_type(a.atttypid, a.atttypmod),
                a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                                              WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND NOT k.convalidated
                                                AND a.attnum = ANY (k.conkey)),
                (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(l.collname)
                   FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
                  WHERE l.oid = a.attcollation), a.attcollation, a.atttypmod, a.attgenerated = 'v'
           FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
          ORDER BY a.attnum",
        &[oid.into()],
        |row| {
            let attribute = Attribute {
                attnum: row.required(0),
                name: row.required(1),
                quoted: row.required(2),
                base_type: datum::base_type(row.required(3)),
                type_name: row.required(4),
                type_oid: row.required(3),
                type_modifier: row.required(8),
                definition: None,
                not_null: row.required(5),
                collation: row.get(6),
                collation_oid: row.required(7),
            };
            match row.required(9) {
                false => Some(attribute),
                true => {
                    virtual_columns.push(attribute.name);
                    None
                }
            }
        },
    );
    let mut attributes: Vec<Attribute> = found.into_iter().flatten().collect();
    for attribute in attributes.iter_mut().filter(|a| !is_plain(a.base_type)) {
        attribute.definition = Definition::of_type(attribute.base_type);
    }
    (attributes, virtual_columns)
}

/// True for types that most columns have and that depend on nothing else.
fn is_plain(base_type: pg_sys::Oid) -> bool {
    Decoder::of_plain_type(base_type).is_some()
}

fn written_through(session: &Session, oid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    session.fresh(
        "SELECT $1 UNION SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t
         UNION SELECT a.relid::pg_catalog.oid FROM pg_catalog.pg_partition_ancestors($1::pg_catalog.regclass) a",
        &[oid.into()],
        |row| row.required(0),
    )
}

//! Where the values of an order column come from, and whether the fence is complete for them.
//!
//! Where a value is drawn inside the INSERT, the fence misses no row; where its writer brings it, rows may commit behind
//! the watermark, and whoever adds the source must say that this is accepted. DDL can change both later
//! (`state::State::OrderIncomplete`).

use super::order::Domain;
use super::table::{Attribute, Table};
use crate::error::{Error, identifier, literal};
use crate::session::Session;
use pgrx::pg_sys;

/// Bytes of a default, as the catalog stores it, that may be one of those which are looked for.
const LONGEST_DEFAULT: usize = 10_000;

/// Whose way to fill the column lets rows commit behind the watermark.
pub enum Incomplete {
    Table,
    /// Rows that are inserted into this partition itself get their values in another way.
    Partition {
        relation: pg_sys::Oid,
        name: String,
    },
}

/// `None` if each value is drawn inside the INSERT, and is greater than those that were drawn before; an error if
/// a sequence hands out values in another order than it draws them.
pub fn incomplete(
    session: &Session,
    table: &Table,
    order: &Attribute,
) -> Result<Option<Incomplete>, Error> {
    let is_drawn = check_sequences(session, table, order)?
        || is_clock(session, table, order)
        || is_time_ordered_uuid(session, table, order);
    if !is_drawn {
        return Ok(Some(Incomplete::Table));
    }
    Ok(other_default(session, table, order))
}

/// The default of a column as SQL. One that is stored in more bytes than any that is looked for, and maybe nested deeper
/// than the server can write it, as it is stored.
fn default_of(attrdef: &str) -> String {
    format!(
        "CASE WHEN pg_catalog.length({attrdef}.adbin::pg_catalog.text) > {LONGEST_DEFAULT} THEN {attrdef}.adbin::pg_catalog.text
              ELSE pg_catalog.pg_get_expr({attrdef}.adbin, {attrdef}.adrelid) END"
    )
}

/// True if the column is filled by the clock. A coarser value may be rounded up, and is shared by many rows; one without
/// a time zone repeats an hour each year.
fn is_clock(session: &Session, table: &Table, order: &Attribute) -> bool {
    is_fine(order) && has_default(session, table, order, "clock_timestamp()")
}

/// True if the column is filled by `uuidv7()` (since version 18), whose values begin with the time at which they are made.
/// The function without an argument only: `uuidv7(interval)` takes another time.
pub fn is_time_ordered_uuid(session: &Session, table: &Table, order: &Attribute) -> bool {
    cfg!(since_pg18)
        && order.type_oid == pg_sys::UUIDOID
        && has_default(session, table, order, "uuidv7()")
}

/// True if the column's default is this call of a function of the server's: one of another schema would be shown with
/// its schema.
fn has_default(session: &Session, table: &Table, column: &Attribute, call: &str) -> bool {
    let found = session.fresh_one(
        &format!(
            "SELECT true FROM pg_catalog.pg_attrdef d
              WHERE d.adrelid = $1 AND d.adnum = $2 AND {} = $3",
            default_of("d")
        ),
        &[table.oid.into(), column.attnum.into(), call.into()],
        |row| row.required::<bool>(0),
    );
    found.is_some()
}

/// A time with a zone, in microseconds.
fn is_fine(order: &Attribute) -> bool {
    order.type_oid == pg_sys::TIMESTAMPTZOID && matches!(order.type_modifier, -1 | 6)
}

/// The first partition with a default of its own that is not the table's. A partition without a default takes only
/// values that the writer brings.
fn other_default(session: &Session, table: &Table, order: &Attribute) -> Option<Incomplete> {
    let sql = format!(
        "SELECT c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
           FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t
           JOIN pg_catalog.pg_class c ON c.oid = t.relid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $3
           JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           LEFT JOIN pg_catalog.pg_attrdef r ON r.adrelid = $1 AND r.adnum = $2
          WHERE {} IS DISTINCT FROM {}
          ORDER BY c.oid LIMIT 1",
        default_of("d"),
        default_of("r")
    );
    session.fresh_one(
        &sql,
        &[
            table.oid.into(),
            order.attnum.into(),
            order.name.as_str().into(),
        ],
        |row| Incomplete::Partition {
            relation: row.required(0),
            name: row.required(1),
        },
    )
}

/// True if the column is an identity column, or its default is a sequence's next value; an error if
/// the sequence hands out values in another order than it draws them.
pub fn check_sequences(session: &Session, table: &Table, order: &Attribute) -> Result<bool, Error> {
    let sql = format!(
        "SELECT q.seqrelid::pg_catalog.regclass::pg_catalog.text, q.seqcache, q.seqincrement, q.seqcycle,
                a.attidentity <> '' OR {} ~ '^nextval\\(''.*''::regclass\\)$'
           FROM pg_catalog.pg_attribute a
           LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           JOIN pg_catalog.pg_depend p
             ON p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.deptype = 'i'
                AND p.refclassid = p.classid AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum
             OR p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
           JOIN pg_catalog.pg_sequence q
             ON q.seqrelid = CASE p.deptype WHEN 'i' THEN p.objid ELSE p.refobjid END
          WHERE a.attrelid = $1 AND a.attnum = $2",
        default_of("d")
    );
    let sequences = session.fresh(&sql, &[table.oid.into(), order.attnum.into()], |row| {
        let numbers: (i64, i64, bool) = (row.required(1), row.required(2), row.required(3));
        (row.required::<String>(0), numbers, row.required::<bool>(4))
    });
    for (sequence, (cache, increment, cycle), _) in &sequences {
        let (problem, fix) = match (cache, increment, cycle) {
            (2.., _, _) => (
                format!("hands out {cache} values to each session at once (CACHE {cache})"),
                "CACHE 1",
            ),
            (_, ..0, _) => ("counts down".to_owned(), "INCREMENT 1"),
            (_, _, true) => ("starts over at its end".to_owned(), "NO CYCLE"),
            _ => continue,
        };
        return Err(Error::Sequence {
            table: table.name.clone(),
            column: order.name.clone(),
            sequence: sequence.clone(),
            problem,
            fix,
        });
    }
    Ok(sequences.iter().any(|(_, _, assigns)| *assigns))
}

/// The statements that let values be drawn inside the INSERT again; `None` where the column's type has no such way.
pub fn mend(
    session: &Session,
    table: &Table,
    order: &Attribute,
    of: &Incomplete,
) -> Option<String> {
    let column = identifier(&order.name);
    let alter = |table: &str, what: String| format!("ALTER TABLE {table} {what}");
    if let Incomplete::Partition { name, .. } = of {
        return Some(alter(name, format!("ALTER COLUMN {column} DROP DEFAULT")));
    }
    match Domain::of_type(order.base_type)? {
        Domain::Time => {
            let retype = match is_fine(order) {
                true => String::new(),
                false => format!("ALTER COLUMN {column} TYPE timestamptz, "),
            };
            let default = format!("{retype}ALTER COLUMN {column} SET DEFAULT clock_timestamp()");
            Some(alter(&table.name, default))
        }
        Domain::Number => mend_number(session, table, order, &column),
        Domain::Uuid if cfg!(since_pg18) && order.type_oid == pg_sys::UUIDOID => Some(alter(
            &table.name,
            format!("ALTER COLUMN {column} SET DEFAULT uuidv7()"),
        )),
        Domain::Uuid | Domain::Arrival => None,
    }
}

/// Lets a sequence fill the column, from behind the values that are there: the table's own if it still has one.
fn mend_number(
    session: &Session,
    table: &Table,
    order: &Attribute,
    column: &str,
) -> Option<String> {
    let name = &table.name;
    let owned = session.fresh_one(
        "SELECT pg_catalog.pg_get_serial_sequence($1, $2)",
        &[name.as_str().into(), order.name.as_str().into()],
        |row| row.get::<String>(0),
    );
    if let Some(sequence) = owned.flatten() {
        let quoted = literal(&sequence);
        return Some(format!(
            "ALTER TABLE {name} ALTER COLUMN {column} SET DEFAULT nextval({quoted}); \
             SELECT setval({quoted}, GREATEST((SELECT max({column}) FROM {name}), last_value)) FROM {sequence}"
        ));
    }
    let can_be_identity = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID];
    can_be_identity.contains(&order.type_oid).then(|| {
        format!(
            "ALTER TABLE {name} ALTER COLUMN {column} DROP DEFAULT, \
             ALTER COLUMN {column} ADD GENERATED BY DEFAULT AS IDENTITY; \
             SELECT setval(pg_get_serial_sequence({}, {}), GREATEST(max({column}), 1)) FROM {name}",
            literal(name),
            literal(&order.name)
        )
    })
}

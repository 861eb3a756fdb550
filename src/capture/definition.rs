//! How a source's table is defined, on record: its name, owner, privileges, triggers, rules, row security and columns.
//!
//! What DDL does to a source decides what its rows are, who may change them, and whether changes are captured. A batch
//! compares the table with what is stored, and puts a difference on record in the administration log; commands that the
//! event triggers have noted (`ddl`) say there who ran what. Everything is kept as texts, which a dump and restore does not change.

use super::ddl::{self, Noted};
use super::ready;
use crate::administration::{self, Act};
use crate::catalog::sources::Source;
use crate::pg::subtransaction;
use crate::session::Session;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Characters of one text that are kept; of a longer one its beginning, and a hash of it.
const LONGEST: usize = 2000;
/// Texts of one kind that are kept; of more the first, and a hash of the others.
const MOST: usize = 2000;

/// The lists of texts of a definition, by their columns.
const LISTS: [&str; 5] = ["privileges", "triggers", "rules", "row_security", "columns"];

#[derive(Clone, Debug, Default, PartialEq)]
struct Definition {
    /// Both `None` where there is no table.
    table_name: Option<String>,
    owner: Option<String>,
    /// As `LISTS` names them.
    lists: [Vec<String>; LISTS.len()],
}

/// What the server makes a text of, as the catalogs store it.
#[derive(Clone, Copy)]
enum Shown {
    /// As SQL.
    Sql,
    /// As a hash of the tree that is stored: an owner may nest an expression deeper than the server can write it, or write
    /// one that is longer than a text can be.
    Hash,
}

impl Shown {
    fn expression(self, tree: &str, relation: &str) -> String {
        match self {
            Shown::Sql => format!("pg_catalog.pg_get_expr({tree}, {relation})"),
            Shown::Hash => Shown::hash(&format!("{tree}::pg_catalog.text")),
        }
    }

    fn trigger(self) -> String {
        match self {
            Shown::Sql => "pg_catalog.pg_get_triggerdef(t.oid)".to_owned(),
            Shown::Hash => format!(
                "pg_catalog.concat_ws(' ', 'TRIGGER', pg_catalog.quote_ident(t.tgname), t.tgtype, t.tgfoid::pg_catalog.regprocedure, t.tgattr,
                                      {}, {})",
                Shown::hash("pg_catalog.encode(t.tgargs, 'hex')"),
                Shown::hash("t.tgqual::pg_catalog.text")
            ),
        }
    }

    fn rule(self) -> String {
        match self {
            Shown::Sql => "pg_catalog.pg_get_ruledef(r.oid)".to_owned(),
            Shown::Hash => format!(
                "pg_catalog.concat_ws(' ', 'RULE', pg_catalog.quote_ident(r.rulename), 'ON', r.ev_type, r.is_instead, {}, {})",
                Shown::hash("r.ev_qual::pg_catalog.text"),
                Shown::hash("r.ev_action::pg_catalog.text")
            ),
        }
    }

    fn hash(text: &str) -> String {
        format!(
            "'SHA-256 ' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({text}, 'UTF8')), 'hex')"
        )
    }

    /// The lines of a query with the columns `line` and `place`, in the order of `order`: of one that is long its beginning,
    /// and a hash of it. The order is the same in every database. OFFSET keeps each line from being made for every time
    /// that it is named.
    fn lines(query: &str, order: &str) -> String {
        format!(
            "ARRAY(SELECT CASE WHEN pg_catalog.length(l.line) <= {LONGEST} THEN l.line
                               ELSE pg_catalog.left(l.line, {LONGEST}) || '… (' || {hash} || ')' END
                     FROM ({query} OFFSET 0) l ORDER BY {order})",
            hash = Shown::hash("l.line")
        )
    }

    /// The definition of table $1. Texts are sorted, but for the columns, which stand as in the table.
    fn definition(self) -> String {
        const SORTED: &str = "l.line COLLATE pg_catalog.\"C\"";
        let enabled = |column: &str| {
            format!(
                "CASE {column} WHEN 'O' THEN '' WHEN 'D' THEN ' DISABLED' WHEN 'A' THEN ' ENABLED ALWAYS' ELSE ' ENABLED REPLICA' END"
            )
        };
        let privileges = "
            SELECT g::pg_catalog.text AS line FROM pg_catalog.unnest(COALESCE(c.relacl, pg_catalog.acldefault('r', c.relowner))) g
             UNION ALL
            SELECT pg_catalog.format('%I: %s', t.attname, g)
              FROM pg_catalog.pg_attribute t CROSS JOIN LATERAL pg_catalog.unnest(t.attacl) g
             WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped";
        let triggers = format!(
            "SELECT {} || {} AS line FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal",
            self.trigger(),
            enabled("t.tgenabled")
        );
        let rules = format!(
            "SELECT {} || {} AS line FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'",
            self.rule(),
            enabled("r.ev_enabled")
        );
        let row_security = format!(
            "SELECT 'enabled' AS line WHERE c.relrowsecurity
              UNION ALL
             SELECT 'forced' WHERE c.relforcerowsecurity
              UNION ALL
             SELECT pg_catalog.concat_ws(' ', pg_catalog.quote_ident(p.polname), CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                        'FOR', p.polcmd,
                        'TO', (SELECT pg_catalog.string_agg(u.name, ', ' ORDER BY u.name COLLATE pg_catalog.\"C\")
                                 FROM (SELECT CASE r.role WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.role)) END
                                         FROM pg_catalog.unnest(p.polroles) r (role)) u (name)),
                        'USING (' || {} || ')', 'WITH CHECK (' || {} || ')')
               FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid",
            self.expression("p.polqual", "p.polrelid"),
            self.expression("p.polwithcheck", "p.polrelid")
        );
        // A default has no columns in it. With the table the server would look through the names of all columns for each.
        let default = self.expression("d.adbin", "0");
        let generated = self.expression("d.adbin", "d.adrelid");
        let columns = format!(
            "SELECT pg_catalog.concat_ws(' ', pg_catalog.quote_ident(t.attname), pg_catalog.format_type(t.atttypid, t.atttypmod),
                        CASE WHEN t.attnotnull THEN 'NOT NULL' ||
                             CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k
                                                WHERE k.conrelid = c.oid AND k.contype = 'n' AND NOT k.convalidated
                                                  AND t.attnum = ANY (k.conkey)) THEN ' NOT VALID' ELSE '' END END,
                        CASE t.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
                        CASE WHEN t.attgenerated <> '' THEN 'GENERATED ALWAYS AS (' || {generated} || ')' ||
                                      CASE t.attgenerated WHEN 'v' THEN ' VIRTUAL' ELSE '' END
                             ELSE 'DEFAULT ' || {default} END) AS line,
                    t.attnum AS place
               FROM pg_catalog.pg_attribute t
               LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = t.attrelid AND d.adnum = t.attnum
              WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped"
        );
        let sorted = |query: &str| Shown::lines(query, SORTED);
        format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text,
                    {}, {}, {}, {}, {}
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.oid = $1",
            sorted(privileges),
            sorted(&triggers),
            sorted(&rules),
            sorted(&row_security),
            Shown::lines(&columns, "l.place"),
        )
    }
}

impl Definition {
    fn now(session: &Session, source: &Source) -> Definition {
        let read = |shown: Shown| {
            let sql = shown.definition();
            let found = session.fresh_one(&sql, &[source.relation.into()], |row| Definition {
                table_name: row.get(0),
                owner: row.get(1),
                lists: std::array::from_fn(|place| bounded(row.get(place + 2).unwrap_or_default())),
            });
            found.unwrap_or_default()
        };
        // What an owner has made of his table stops no batch.
        subtransaction::look(|| read(Shown::Sql)).unwrap_or_else(|_| read(Shown::Hash))
    }

    fn stored(session: &Session, source: &Source) -> Option<Definition> {
        let sql = format!(
            "SELECT d.table_name, d.owner, {} FROM @extschema@.verification_source_definitions d WHERE d.source_id = $1",
            LISTS.map(|list| format!("d.{list}")).join(", ")
        );
        session.fresh_one(&sql, &[source.id.into()], |row| Definition {
            table_name: row.get(0),
            owner: row.get(1),
            lists: std::array::from_fn(|place| row.get(place + 2).unwrap_or_default()),
        })
    }

    fn store(&self, session: &Session, source: &Source) {
        let sql = format!(
            "INSERT INTO @extschema@.verification_source_definitions AS d (source_id, table_name, owner, {})
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (source_id) DO UPDATE SET table_name = EXCLUDED.table_name, owner = EXCLUDED.owner, {}",
            LISTS.join(", "),
            LISTS
                .map(|list| format!("{list} = EXCLUDED.{list}"))
                .join(", ")
        );
        let lists = self.lists.iter().map(|list| list.clone().into());
        let args: Vec<_> = [
            source.id.into(),
            self.table_name.as_deref().into(),
            self.owner.as_deref().into(),
        ]
        .into_iter()
        .chain(lists)
        .collect();
        session.execute(&sql, &args);
    }

    /// In what it differs from what was, for people.
    fn difference(&self, was: &Definition) -> Map<String, Json> {
        let mut difference = Map::new();
        for (name, was, is) in [
            ("table_name", &was.table_name, &self.table_name),
            ("owner", &was.owner, &self.owner),
        ] {
            if was != is {
                difference.insert(name.to_owned(), json!({ "was": was, "is": is }));
            }
        }
        for (name, (was, is)) in LISTS.iter().zip(was.lists.iter().zip(&self.lists)) {
            if was != is {
                let (old, new) = (BTreeSet::from_iter(was), BTreeSet::from_iter(is));
                let gone: Vec<_> = old.difference(&new).collect();
                let come: Vec<_> = new.difference(&old).collect();
                difference.insert((*name).to_owned(), json!({ "was": gone, "is": come }));
            }
        }
        difference
    }
}

/// The texts, where they are many with a hash in place of what is left out: a definition has a row of its own in the
/// administration log, whatever an owner makes of his table.
fn bounded(mut texts: Vec<String>) -> Vec<String> {
    if texts.len() > MOST {
        let others = texts.split_off(MOST).join("\n");
        let hex: String = Sha256::digest(others)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        texts.push(format!("… (SHA-256 {hex})"));
    }
    texts
}

/// Stores how the table of a source that is being added is defined: the act of adding it shows that.
pub fn describe(session: &Session, source: &Source) {
    Definition::now(session, source).store(session, source);
}

/// Puts on record in what the table of a source differs from what was stored, with the commands that were noted.
pub fn notice(session: &Session, source: &Source) {
    let since = ready::now();
    let commands = ddl::take(session, source.id);
    let now = Definition::now(session, source);
    let was = Definition::stored(session, source);
    let source_id = source.id;
    match &was {
        Some(was) if *was == now && commands.is_empty() => {}
        Some(was) => {
            now.store(session, source);
            let mut detail = now.difference(was);
            if !commands.is_empty() {
                let commands = commands.iter().map(Noted::to_json).collect();
                detail.insert("commands".to_owned(), Json::Array(commands));
            }
            let detail = Json::Object(detail);
            administration::record(session, Act::TableAltered { source_id, detail });
        }
        // A version that did not look at it has added the source.
        None => {
            now.store(session, source);
            administration::record(session, Act::TableDescribed { source_id });
        }
    }
    ready::keep_described(since, source);
}

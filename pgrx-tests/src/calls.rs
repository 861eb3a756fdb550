//! The functions and views of the extension as its catalog lists them, and calls of each of them: a function
//! that is new is called too, or the test says that it does not know what to call it with.

use crate::column;
use postgres::Client;

/// A function of the extension.
pub struct Function {
    pub name: String,
    /// Names and types of its arguments.
    pub arguments: Vec<(String, String)>,
}

const MEMBERS: &str = "pg_depend d JOIN pg_extension e
    ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'merkle_log'";

/// All functions of the extension.
pub fn functions(client: &mut Client) -> Vec<Function> {
    let rows = client
        .query(
            &format!(
                "SELECT p.proname::text, p.pronargs::int, COALESCE(p.proargnames, '{{}}'),
                        ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY u (t, n) ORDER BY n)
                   FROM {MEMBERS} JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
                  ORDER BY p.proname, p.oid"
            ),
            &[],
        )
        .unwrap();
    rows.iter()
        .map(|row| {
            let (count, names, types): (i32, Vec<String>, Vec<String>) =
                (row.get(1), row.get(2), row.get(3));
            let names = names.into_iter().take(count as usize);
            Function {
                name: row.get(0),
                arguments: names.zip(types).collect(),
            }
        })
        .collect()
}

/// All views of the extension.
pub fn views(client: &mut Client) -> Vec<String> {
    column(
        client,
        &format!(
            "SELECT c.oid::regclass::text FROM {MEMBERS}
               JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass AND c.relkind = 'v' ORDER BY 1"
        ),
    )
}

/// All tables of the extension.
pub fn tables(client: &mut Client) -> Vec<String> {
    column(
        client,
        &format!(
            "SELECT c.oid::regclass::text FROM {MEMBERS}
               JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass AND c.relkind = 'r' ORDER BY 1"
        ),
    )
}

impl Function {
    /// A call with these arguments, SQL expressions.
    pub fn call(&self, arguments: &[String]) -> String {
        let named = self.arguments.iter().zip(arguments);
        let list: Vec<String> = named
            .map(
                |((name, type_name), value)| match (name.as_str(), type_name.as_str()) {
                    (_, "\"any\"") => format!("({value})"),
                    ("key" | "verifier_key", "text[]") | ("leaf_index", "bigint[]") => {
                        format!("VARIADIC ({value})::{type_name}")
                    }
                    _ => format!("({value})::{type_name}"),
                },
            )
            .collect();
        format!("SELECT {}({})", self.name, list.join(", "))
    }
}

/// What a statement said, on every way in which it can say something: rows, error, notices.
pub fn everything_said(
    client: &mut Client,
    notices: &std::sync::Mutex<Vec<String>>,
    sql: &str,
) -> (Option<String>, Vec<String>) {
    notices.lock().unwrap().clear();
    let (state, mut said) = match client.simple_query(sql) {
        Ok(messages) => {
            let rows = messages.iter().filter_map(|m| match m {
                postgres::SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .filter_map(|i| row.get(i))
                        .collect::<Vec<_>>()
                        .join(" "),
                ),
                _ => None,
            });
            (None, rows.collect())
        }
        Err(error) => match error.as_db_error() {
            Some(db) => {
                let parts = [
                    Some(db.message()),
                    db.detail(),
                    db.hint(),
                    db.where_(),
                    db.constraint(),
                ];
                let parts = parts.into_iter().flatten().map(str::to_owned).collect();
                (Some(db.code().code().to_owned()), parts)
            }
            None => (Some("connection".to_owned()), vec![format!("{error:?}")]),
        },
    };
    said.append(&mut notices.lock().unwrap());
    (state, said)
}

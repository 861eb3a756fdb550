//! A call of one of the extension's SQL functions, as it is shown and as it is made.

use crate::connection::failed;
use crate::database::Database;
use crate::output::{Failure, printable, say};
use serde_json::{Value as Json, json};
use std::fmt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Texts(Vec<String>),
}

/// A named argument, given as text and made one of its type by the server.
#[derive(Clone, Debug)]
pub struct Argument {
    pub name: &'static str,
    pub sql_type: &'static str,
    pub value: Value,
}

impl Argument {
    pub fn text(name: &'static str, sql_type: &'static str, value: impl ToString) -> Argument {
        Argument {
            name,
            sql_type,
            value: Value::Text(value.to_string()),
        }
    }

    /// The parameter of this number in a statement.
    pub fn parameter(&self, number: usize) -> String {
        match self.value {
            Value::Text(_) => format!("${number}::pg_catalog.text::{}", self.sql_type),
            Value::Texts(_) => format!("${number}::pg_catalog.text[]::{}", self.sql_type),
        }
    }

    pub fn to_sql(&self) -> &(dyn ToSql + Sync) {
        match &self.value {
            Value::Text(text) => text,
            Value::Texts(texts) => texts,
        }
    }

    fn json(&self) -> Json {
        match &self.value {
            Value::Text(text) => json!(text),
            Value::Texts(texts) => json!(texts),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Call {
    pub function: &'static str,
    pub arguments: Vec<Argument>,
}

impl Call {
    pub fn new(function: &'static str, arguments: impl IntoIterator<Item = Argument>) -> Call {
        Call {
            function,
            arguments: arguments.into_iter().collect(),
        }
    }

    pub async fn make(&self, database: &Database) -> Result<(), Failure> {
        self.ask(database).await.map(|_| ()).map_err(failed)
    }

    /// Makes the call, and returns what the function does.
    pub async fn ask(&self, database: &Database) -> Result<Vec<Row>, tokio_postgres::Error> {
        let arguments = self.arguments.iter().zip(1..);
        let arguments = arguments.map(|(argument, number)| {
            format!("{} => {}", argument.name, argument.parameter(number))
        });
        let arguments = arguments.collect::<Vec<_>>().join(", ");
        let values: Vec<_> = self.arguments.iter().map(Argument::to_sql).collect();
        let sql = format!("SELECT @extschema@.{}({arguments})", self.function);
        let statement = database.prepare(&sql).await?;
        database.client().query(&statement, &values).await
    }

    /// Says what was done, or would be.
    pub fn report(&self, json: bool) -> Result<(), Failure> {
        if !json {
            return say!("{}", printable(&self.to_string()));
        }
        let arguments = self
            .arguments
            .iter()
            .map(|argument| (argument.name.to_owned(), argument.json()));
        let arguments: serde_json::Map<_, _> = arguments.collect();
        say!(
            "{}",
            json!({"function": self.function, "arguments": arguments})
        )
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &String| format!("'{}'", text.replace('\'', "''"));
        let arguments = self.arguments.iter().map(|argument| {
            let value = match &argument.value {
                Value::Text(text) => quoted(text),
                Value::Texts(texts) => format!(
                    "ARRAY[{}]",
                    texts.iter().map(quoted).collect::<Vec<_>>().join(", ")
                ),
            };
            format!("{} => {value}", argument.name)
        });
        write!(
            f,
            "{}({})",
            self.function,
            arguments.collect::<Vec<_>>().join(", ")
        )
    }
}

//! A database that has the extension: its functions, in whichever schema they are.

use crate::connection::{self, failed};
use crate::output::Failure;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Row, RowStream, Statement};

pub struct Database {
    client: Client,
    /// As an identifier in a statement.
    schema: String,
}

pub type Parameters<'p> = &'p [&'p (dyn ToSql + Sync)];

impl Database {
    pub async fn connect(options: &connection::Connection) -> Result<Database, Failure> {
        let client = connection::connect(options).await?;
        let found = client
            .query_opt(
                "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
                   JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'merkle_log'",
                &[],
            )
            .await
            .map_err(failed)?;
        let Some(row) = found else {
            return Err(Failure::Said(
                "the database does not have the extension merkle_log\n\
                 Hint: Is it the right database? Otherwise run CREATE EXTENSION merkle_log in it."
                    .to_owned(),
            ));
        };
        // The planner takes our views for so expensive that compiling their expressions would take longest of all.
        client
            .batch_execute("SET jit = off")
            .await
            .map_err(failed)?;
        Ok(Database {
            schema: row.get(0),
            client,
        })
    }

    /// Whether the server has gone away.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub async fn rows(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Failure> {
        self.client
            .query(&self.named(sql), parameters)
            .await
            .map_err(failed)
    }

    /// The one value of a statement's one row.
    pub async fn one<T: FromSqlOwned>(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<T, Failure> {
        let row = self
            .client
            .query_one(&self.named(sql), parameters)
            .await
            .map_err(failed)?;
        row.try_get(0).map_err(failed)
    }

    pub async fn stream(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<RowStream, Failure> {
        let parameters = parameters.iter().copied();
        self.client
            .query_raw(&self.named(sql), parameters)
            .await
            .map_err(failed)
    }

    pub async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.client
            .batch_execute(&self.named(sql))
            .await
            .map_err(failed)
    }

    /// A statement that is run many times.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        self.client.prepare(&self.named(sql)).await
    }

    /// The extension's schema, as an identifier in a statement.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    fn named(&self, sql: &str) -> String {
        sql.replace("@extschema@", &self.schema)
    }
}

/// Runs a command that talks to a database.
pub fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command)
}

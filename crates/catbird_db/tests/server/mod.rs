//! A database of its own for each test, on the server of TEST_DATABASE_URL.
#![allow(dead_code, reason = "each test program uses a part")]

use catbird_db::{Config, Database, Did, MessageType, NewMessage, PastEpochs, Result, Sent};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::ops::Deref;
use std::str::FromStr;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A migrated database, dropped at the end of the test.
pub struct TestDatabase {
    pub db: Database,
    pub config: Config,
    server: PgConnectOptions,
    pub name: String,
}

impl TestDatabase {
    pub async fn new() -> TestDatabase {
        TestDatabase::with(|_| {}).await
    }

    /// With another configuration than the default.
    pub async fn with(configure: impl FnOnce(&mut Config)) -> TestDatabase {
        let url = std::env::var("TEST_DATABASE_URL").expect(
            "TEST_DATABASE_URL names a server to create databases on: use `make test-catbird`",
        );
        let server = PgConnectOptions::from_str(&url).unwrap();
        let name = format!("catbird_test_{}", Uuid::new_v4().simple());
        administer(&server, format!("CREATE DATABASE {name}")).await;
        let mut config = Config::new(server.clone().database(&name).to_url_lossy());
        Database::connect(&config)
            .await
            .unwrap()
            .migrate()
            .await
            .unwrap();
        config.max_connections = 20;
        configure(&mut config);
        let db = Database::connect(&config).await.unwrap();
        TestDatabase {
            db,
            config,
            server,
            name,
        }
    }

    /// Runs a statement past the crate.
    pub async fn sql(&self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        sql.execute(&mut *self.db.connection().await.unwrap())
            .await
            .unwrap();
    }

    pub async fn number(&self, sql: &str) -> i64 {
        let sql = sqlx::query_scalar(AssertSqlSafe(sql));
        sql.fetch_one(&mut *self.db.connection().await.unwrap())
            .await
            .unwrap()
    }

    /// How many deadlocks the server found. Sessions tell when they end, so all others of this database are ended.
    pub async fn deadlocks(&self) -> i64 {
        let mut own = PgConnection::connect_with(&self.server.clone().database(&self.name))
            .await
            .unwrap();
        let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
        while 0 < sqlx::query_scalar::<_, i64>(others)
            .fetch_one(&mut own)
            .await
            .unwrap()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let found = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        sqlx::query_scalar(found).fetch_one(&mut own).await.unwrap()
    }

    /// Waits until so many sessions wait for a lock.
    pub async fn until_waiting(&self, sessions: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.number(waiting).await != sessions {
            assert!(
                Instant::now() < deadline,
                "not {sessions} sessions wait for a lock"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A conversation at epoch 0.
    pub async fn conversation(&self, members: &[&str]) -> Uuid {
        let id = Uuid::now_v7();
        let others: Vec<Did> = members[1..].iter().map(|name| did(name)).collect();
        let creator = did(members[0]);
        let created = self
            .db
            .create_conversation_with_members(id, &creator, None, &others);
        created.await.unwrap();
        id
    }

    /// An application message of a given epoch.
    pub async fn send(&self, convo_id: Uuid, sender: &str, epoch: i64) -> Result<Sent> {
        let sender = did(sender);
        let message = NewMessage {
            epoch,
            ..message(convo_id, &sender)
        };
        self.db.create_message(&message, PastEpochs::Refuse).await
    }
}

impl Deref for TestDatabase {
    type Target = Database;
    fn deref(&self) -> &Database {
        &self.db
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let drop = async move {
            administer(&server, format!("DROP DATABASE {name} WITH (FORCE)")).await;
        };
        let run = || tokio::runtime::Runtime::new().unwrap().block_on(drop);
        std::thread::spawn(run).join().unwrap();
    }
}

async fn administer(server: &PgConnectOptions, sql: String) {
    let mut connection = PgConnection::connect_with(server).await.unwrap();
    let sql = sqlx::raw_sql(AssertSqlSafe(sql));
    sql.execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// An application message of epoch 0.
pub fn message(convo_id: Uuid, sender: &Did) -> NewMessage<'_> {
    NewMessage {
        convo_id,
        id: Uuid::new_v4(),
        sender,
        message_type: MessageType::App,
        epoch: 0,
        ciphertext: b"sealed",
    }
}

pub fn did(name: &str) -> Did {
    format!("did:plc:{name}").parse().unwrap()
}

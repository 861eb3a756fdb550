//! catbird_db against pgbench sending the same statements to the same server, in turns:
//! `make bench-catbird`. A figure is the median of ROUNDS (5) rounds of SECONDS_EACH (5); ONLY names a part:
//! messages, claims, pages, transparency.

use catbird_db::transparency::{self, Options};
use catbird_db::*;
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::collections::HashSet;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};
use uuid::Uuid;

type Failure = Box<dyn std::error::Error>;

const CIPHERTEXT: [u8; 512] = [0xab; 512];
const PACKAGES: usize = 100_000;
const CLAIMERS: usize = 16;
const SUITE: u16 = 1;

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect(name))
}

fn did(name: impl std::fmt::Display) -> Did {
    format!("did:plc:{name}").parse().unwrap()
}

/// A literal without colons, after which pgbench would look for variables.
fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace(':', "\\x3a"))
}

/// The round whose ratio is the median one: our rate and theirs.
fn median(mut rounds: Vec<(f64, f64)>) -> (f64, f64) {
    rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    rounds[rounds.len() / 2]
}

struct Bench {
    db: Database,
    database: String,
    rounds: u64,
    seconds: u64,
}

impl Bench {
    async fn new() -> Result<Bench, Failure> {
        let url = std::env::var("TEST_DATABASE_URL").map_err(|_| "use `make bench-catbird`")?;
        let database = "catbird_bench".to_owned();
        let server = Database::connect(&Config::new(url.clone())).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}")))
            .execute(&mut *server.connection().await.unwrap())
            .await?;
        let url = PgConnectOptions::from_str(&url)?
            .database(&database)
            .to_url_lossy();
        let mut config = Config::new(url);
        config.max_connections = CLAIMERS as u32;
        config.statement_timeout = Duration::from_secs(600);
        let db = Database::connect(&config).await?;
        db.migrate().await?;
        Ok(Bench {
            db,
            database,
            rounds: setting("ROUNDS", 5),
            seconds: setting("SECONDS_EACH", 5),
        })
    }

    async fn sql(&self, sql: &str) -> Result<(), Failure> {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *self.db.connection().await.unwrap())
            .await?;
        Ok(())
    }

    /// Transactions a second of a script, by as many clients, for as long as `extent` says (`-T` or `-t`).
    fn pgbench(&self, script: &str, clients: usize, extent: String) -> Result<f64, Failure> {
        let file = std::env::temp_dir().join(format!("catbird_bench_{}.sql", std::process::id()));
        std::fs::write(&file, script)?;
        let mut pgbench = Command::new("pgbench");
        pgbench.args([
            "-n",
            "-M",
            "prepared",
            "-j",
            "2",
            "-c",
            &clients.to_string(),
            &extent,
            "-f",
        ]);
        let output = pgbench.arg(&file).arg(&self.database).output()?;
        std::fs::remove_file(&file)?;
        let report = String::from_utf8(output.stdout)?;
        let line = report.lines().find_map(|line| line.strip_prefix("tps = "));
        let tps = line.and_then(|line| line.split(' ').next()?.parse().ok());
        tps.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned().into())
    }

    /// Calls a second of an operation, by as many clients, each a task of its own as in a server.
    async fn ours<F: Future<Output = catbird_db::Result<()>> + Send>(
        &self,
        clients: usize,
        call: impl Fn(Database, usize) -> F + Clone + Send + 'static,
    ) -> Result<f64, Failure> {
        let (started, until) = (Instant::now(), Duration::from_secs(self.seconds));
        let client = |n| {
            let (db, call) = (self.db.clone(), call.clone());
            tokio::spawn(async move {
                let mut calls = 0u64;
                while started.elapsed() < until {
                    call(db.clone(), n).await?;
                    calls += 1;
                }
                Ok::<u64, Error>(calls)
            })
        };
        let mut calls = 0;
        for client in (0..clients).map(client).collect::<Vec<_>>() {
            calls += client.await??;
        }
        Ok(calls as f64 / started.elapsed().as_secs_f64())
    }

    async fn conversation(&self, members: usize) -> Result<Uuid, Failure> {
        let id = Uuid::now_v7();
        let others: Vec<Did> = (1..members).map(did).collect();
        self.db
            .create_conversation_with_members(id, &did(0), None, &others)
            .await?;
        Ok(id)
    }

    /// create_message in conversations of so many members, one a client; both sides' rate.
    async fn messages(&self, clients: usize, members: usize) -> Result<(f64, f64), Failure> {
        let mut convos = Vec::new();
        for _ in 0..clients {
            convos.push(self.conversation(members).await?);
        }
        let ids: Vec<String> = convos.iter().map(|id| format!("'{id}'::uuid")).collect();
        let script = format!(
            "SELECT outcome, sent_at, current_epoch FROM store_message((ARRAY[{}])[:client_id + 1], gen_random_uuid(),
                 {}, 'app', 0, '\\x{}', 0);",
            ids.join(", "),
            quoted("did:plc:0"),
            "ab".repeat(CIPHERTEXT.len())
        );
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            let convos = convos.clone();
            let send = move |db, n: usize| send(db, convos[n]);
            let theirs = || self.pgbench(&script, clients, format!("-T{}", self.seconds));
            // Who goes second finds larger tables, so they take turns at that, too.
            rounds.push(match round % 2 {
                0 => (self.ours(clients, send).await?, theirs()?),
                _ => {
                    let theirs = theirs()?;
                    (self.ours(clients, send).await?, theirs)
                }
            });
            self.sql("VACUUM (ANALYZE) conversations, members").await?;
        }
        Ok(median(rounds))
    }

    async fn store_packages(&self, owner: &str) -> Result<(), Failure> {
        self.sql(&format!(
            "TRUNCATE key_packages, last_resort_claims;
             INSERT INTO key_packages (did, cipher_suite, key_data, expires_at)
             SELECT 'did:plc:{owner}', {SUITE}, decode(repeat(md5(n::text), 20), 'hex'), now() + interval '1 day'
               FROM generate_series(1, {PACKAGES}) n"
        ))
        .await?;
        self.sql("VACUUM ANALYZE key_packages").await
    }

    /// All packages of one owner claimed by 16 clients, and by pgbench's; both sides' rate.
    async fn claims(&self) -> Result<(f64, f64), Failure> {
        let bob = did("bob");
        let mut rounds = Vec::new();
        for _ in 0..self.rounds.min(3) {
            self.store_packages("bob").await?;
            let started = Instant::now();
            let claimer = |_| tokio::spawn(claim_all(self.db.clone(), bob.clone()));
            let mut claimed = Vec::new();
            for claimer in (0..CLAIMERS).map(claimer).collect::<Vec<_>>() {
                claimed.extend(claimer.await??);
            }
            let ours = PACKAGES as f64 / started.elapsed().as_secs_f64();
            assert_eq!(claimed.len(), PACKAGES);
            let distinct: HashSet<i64> = claimed.into_iter().collect();
            assert_eq!(distinct.len(), PACKAGES, "a package was given out twice");

            self.store_packages("bob").await?;
            let script = claim_statement()?;
            rounds.push((
                ours,
                self.pgbench(&script, CLAIMERS, format!("-t{}", PACKAGES / CLAIMERS))?,
            ));
        }
        Ok(median(rounds))
    }

    /// Milliseconds of pages of 50 at random places among a million messages: median and 99th percentile.
    async fn pages(&self, clients: usize) -> Result<(f64, f64), Failure> {
        let convo = self.conversation(10).await?;
        self.sql(&format!(
            "INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
             SELECT '{convo}', gen_random_uuid(), 'did:plc:0', 'app', 0, '\\x{}', c.clock + n * interval '1 millisecond'
               FROM generate_series(1, 1000000) n, conversations c WHERE c.id = '{convo}'",
            "ab".repeat(CIPHERTEXT.len())
        ))
        .await?;
        self.sql("VACUUM ANALYZE messages").await?;
        // Places to begin at, as a reader would have them from earlier pages.
        let mut places = vec![None];
        for _ in 0..200 {
            let page = self
                .db
                .list_messages(convo, &did(1), places.last().copied().flatten(), MAX_PAGE)
                .await?;
            places.push(page.next);
        }
        let (started, until) = (Instant::now(), Duration::from_secs(self.seconds));
        let reader = async || {
            let mut times = Vec::new();
            while started.elapsed() < until {
                let place = places[rand::random_range(0..places.len())];
                let from = Instant::now();
                let page = self.db.list_messages(convo, &did(1), place, 50).await?;
                times.push(from.elapsed().as_secs_f64() * 1e3);
                assert_eq!(page.items.len(), 50);
            }
            Ok::<_, Error>(times)
        };
        let times = join_all((0..clients).map(|_| reader())).await;
        let mut times = times
            .into_iter()
            .collect::<catbird_db::Result<Vec<_>>>()?
            .concat();
        times.sort_by(f64::total_cmp);
        Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
    }
}

async fn send(db: Database, convo_id: Uuid) -> catbird_db::Result<()> {
    let message = NewMessage {
        convo_id,
        id: Uuid::new_v4(),
        sender: &did(0),
        message_type: MessageType::App,
        epoch: 0,
        ciphertext: &CIPHERTEXT,
    };
    db.create_message(&message, PastEpochs::Refuse)
        .await
        .map(drop)
}

/// Claims until there is nothing left; what it was given.
async fn claim_all(db: Database, owner: Did) -> catbird_db::Result<Vec<i64>> {
    let mut claimed = Vec::new();
    loop {
        match db.claim_key_package(&owner, SUITE, Uuid::new_v4()).await {
            Ok(package) => claimed.push(package.id),
            Err(Error::NotFound { .. }) if db.count_key_packages(&owner, SUITE).await? == 0 => {
                return Ok(claimed);
            }
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The transaction that claim_key_package sends, from what sqlx has on record, with values in place.
fn claim_statement() -> Result<String, Failure> {
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx"))? {
        let record: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file?.path())?)?;
        let query = record["query"].as_str().unwrap_or_default();
        if query.contains("FROM claim_key_package(") {
            let query = query
                .replace("$1", &quoted("did:plc:bob"))
                .replace("$2", &SUITE.to_string())
                .replace("$3", "gen_random_uuid()");
            let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
            // As the crate sends it, which takes the package back when a call is cancelled.
            return Ok(format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED;\n{query};\nCOMMIT;"
            ));
        }
    }
    Err("no statement on record".into())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let bench = Bench::new().await?;
    let only = std::env::var("ONLY").ok();
    let asked = |part: &str| only.as_deref().is_none_or(|only| only == part);
    println!("| what | catbird_db | pgbench, same statement | ratio | bar |");
    println!("| --- | --- | --- | --- | --- |");
    if asked("messages") {
        for (clients, members, bar) in [(1, 10, "≥ 0.8"), (8, 10, "≥ 0.8"), (1, 1_000, "")] {
            let (ours, theirs) = bench.messages(clients, members).await?;
            println!(
                "| create_message, {members} members, {clients} client(s) | {ours:.0}/s | {theirs:.0}/s | {:.2} | {bar} |",
                ours / theirs
            );
        }
    }
    if asked("claims") {
        let (ours, theirs) = bench.claims().await?;
        println!(
            "| claim_key_package, 16 clients, {PACKAGES} packages of one owner, no duplicate | {ours:.0}/s | {theirs:.0}/s | {:.2} | ≥ 0.8 |",
            ours / theirs
        );
    }
    if asked("pages") {
        for clients in [1, 8] {
            let (median, p99) = bench.pages(clients).await?;
            println!(
                "| page of 50 of a million, {clients} client(s): median, p99 | {median:.2} ms, {p99:.2} ms | | | stated |"
            );
        }
    }
    if asked("transparency") {
        let (plain, _) = bench.messages(1, 10).await?;
        bench.sql("CREATE EXTENSION merkle_log").await?;
        let mut transaction = bench.db.begin_transaction().await?;
        transparency::register(&mut transaction, Options::default()).await?;
        transaction.commit().await?;
        let (logged, _) = bench.messages(1, 10).await?;
        println!(
            "| create_message with transparency, against without | {logged:.0}/s | {plain:.0}/s | {:.2} | |",
            logged / plain
        );
    }
    Ok(())
}

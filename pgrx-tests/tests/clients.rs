//! Drivers of other languages, each with its own ways of sending parameters. `scripts/setup.sh test` installs them.

use server_tests::*;
use std::path::PathBuf;
use std::process::Command;

fn served() -> Cluster {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE orders (id bigint PRIMARY KEY); CREATE TABLE codes (code text PRIMARY KEY); CREATE TABLE ids (id uuid PRIMARY KEY);
         CREATE TABLE days (day date PRIMARY KEY); CREATE TABLE moments (at timestamptz PRIMARY KEY);
         CREATE TABLE lines (order_id bigint, line int, PRIMARY KEY (order_id, line));
         CREATE TABLE named (id int, name varchar(10), PRIMARY KEY (id, name))",
    );
    for (table, rows) in [
        ("orders", "(1), (2)"),
        ("codes", "('a'), ('b')"),
        (
            "ids",
            "('00000000-0000-0000-0000-000000000001'), ('00000000-0000-0000-0000-000000000002')",
        ),
        ("days", "('2024-01-01'), ('2024-01-02')"),
        ("moments", "('2024-01-01 12:00Z'), ('2024-01-02 12:00Z')"),
        ("lines", "(7, 1), (7, 3)"),
        ("named", "(7, 'a'), (7, 'b')"),
    ] {
        run(
            &mut c,
            &format!(
                "SELECT create_log('{table}'); SELECT add_source('{table}', '{table}', capture => 'trigger')"
            ),
        );
        run(&mut c, &format!("INSERT INTO {table} VALUES {rows}"));
        drain(&mut c, table);
    }
    cluster
}

/// Runs a client that was installed for the tests.
fn client(interpreter: &str, script: &str, arguments: &[String]) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let installed = root.join("../target/clients");
    let interpreter = match interpreter {
        "python" => installed.join("python/bin/python"),
        other => PathBuf::from(other),
    };
    let output = Command::new(&interpreter)
        .arg(root.join("clients").join(script))
        .args(arguments)
        .env("NODE_PATH", installed.join("node/node_modules"))
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}: run scripts/setup.sh test", interpreter.display()));
    assert!(
        output.status.success(),
        "{script}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn place(cluster: &Cluster) -> (String, String) {
    let mut c = cluster.client("postgres");
    let port = one::<String>(&mut c, "SELECT current_setting('port')");
    (cluster.socket().display().to_string(), port)
}

#[test]
fn psycopg_gives_keys_in_its_own_types() {
    let cluster = served();
    let (host, port) = place(&cluster);
    let conninfo = format!("host={host} port={port} user=postgres dbname=postgres");
    client("python", "psycopg_client.py", &[conninfo]);
}

#[test]
fn asyncpg_gives_keys_in_its_own_types() {
    let cluster = served();
    let (host, port) = place(&cluster);
    client("python", "asyncpg_client.py", &[host, port]);
}

#[test]
fn node_postgres_gives_keys_in_its_own_types() {
    let cluster = served();
    let (host, port) = place(&cluster);
    client("node", "node_postgres_client.js", &[host, port]);
}

#[test]
fn sqlx_gives_keys_in_its_own_types() {
    let cluster = served();
    let (host, port) = place(&cluster);
    let options = sqlx::postgres::PgConnectOptions::new()
        .socket(host)
        .port(port.parse().unwrap())
        .username("postgres")
        .database("postgres");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::ConnectOptions;
        let mut connection = options.connect().await.unwrap();
        const OF_ONE: &str =
            "SELECT leaf_index FROM inclusion_proof_of($1, $1::text::regclass, $2)";
        macro_rules! index {
            ($table:literal, $key:expr) => {{
                // A statement that sqlx keeps has the types of its first call.
                let asked = sqlx::query_scalar::<_, i64>(OF_ONE).persistent(false);
                let asked = asked.bind($table).bind($key);
                asked.fetch_one(&mut connection).await.unwrap()
            }};
        }
        assert_eq!(index!("orders", 2i64), 1);
        assert_eq!(index!("orders", 2i32), 1);
        assert_eq!(index!("orders", 2i16), 1);
        assert_eq!(index!("orders", "2"), 1);
        assert_eq!(index!("codes", "b"), 1);
        assert_eq!(index!("ids", sqlx::types::Uuid::from_u128(2)), 1);
        let day = sqlx::types::chrono::NaiveDate::from_ymd_opt(2024, 1, 2).unwrap();
        assert_eq!(index!("days", day), 1);
        let noon = day.and_hms_opt(12, 0, 0).unwrap().and_utc();
        assert_eq!(index!("moments", noon), 1);
        for table in ["lines", "named"] {
            let sql = "SELECT leaf_index FROM inclusion_proof_of($1, $1::text::regclass, $2, $3)";
            let asked = sqlx::query_scalar::<_, i64>(sql).persistent(false);
            let asked = asked.bind(table).bind(7i64);
            let asked = match table {
                "lines" => asked.bind(3i64).fetch_one(&mut connection).await,
                _ => asked.bind("b").fetch_one(&mut connection).await,
            };
            assert_eq!(asked.unwrap(), 1, "{table}");
        }
    });
}

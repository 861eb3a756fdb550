//! Random kills during load: nothing lost, nothing twice.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is killed.
enum Kill {
    /// The whole server, with SIGKILL.
    Server,
    /// A worker, with SIGKILL, after which the server restarts itself.
    Worker,
    /// Some process of a kind, which is asked to end.
    Backend(&'static str),
}

/// Mostly processes that are asked to end, since each crash costs a recovery; in random order.
fn kills(count: usize, rng: &mut StdRng) -> Vec<Kill> {
    let kinds = [
        "merkle_log worker",
        "merkle_log worker",
        "client backend",
        "merkle_log launcher",
    ];
    let mut kills: Vec<Kill> = (0..count)
        .map(|n| match n % 20 {
            0 => Kill::Server,
            10 => Kill::Worker,
            _ => Kill::Backend(kinds[n % kinds.len()]),
        })
        .collect();
    kills.shuffle(rng);
    kills
}

/// A connection, as soon as the server takes one.
fn connect(cluster: &Cluster) -> Client {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(client) = cluster.try_client("postgres") {
            return client;
        }
        assert!(Instant::now() < deadline, "{}", cluster.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What each acknowledged transaction did, as "operation key", in order.
type Done = Arc<Mutex<Vec<String>>>;

/// Writes to both tables until told to stop, through crashes; every key is this writer's own.
fn write(cluster: &Cluster, n: u64, seed: u64, stop: &AtomicBool, inserts: &Done, changes: &Done) {
    let mut rng = StdRng::seed_from_u64(seed + n);
    let mut next = n * 1_000_000_000;
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(c) = client.as_mut() else {
            client = cluster.try_client("postgres");
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        // The kills are the test, not the volume: what is written has to be verified in the end.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..6)));
        next += 10;
        let (first, second) = (next, next + 1);
        // Committed as one statement, so that an answer says that all of it is durable.
        let sql = format!(
            "WITH o AS (INSERT INTO orders (note) SELECT 'x' FROM generate_series(1, {}) RETURNING id),
                  c AS (INSERT INTO captured VALUES ({first}, 'a'), ({second}, 'b'))
             SELECT array_agg(id::text) FROM o",
            rng.random_range(1..20)
        );
        let done: Result<(), postgres::Error> = (|| {
            let ids: Vec<String> = c.query_one(&sql, &[])?.get(0);
            inserts.lock().unwrap().extend(ids);
            changes
                .lock()
                .unwrap()
                .extend([format!("insert {first}"), format!("insert {second}")]);
            if rng.random_bool(0.5) {
                c.execute(
                    &format!("UPDATE captured SET note = 'c' WHERE id = {first}"),
                    &[],
                )?;
                changes.lock().unwrap().push(format!("update {first}"));
                c.execute(&format!("DELETE FROM captured WHERE id = {second}"), &[])?;
                changes.lock().unwrap().push(format!("delete {second}"));
            }
            Ok(())
        })();
        if let Err(e) = done {
            assert!(went_away(&e), "{e:?}");
            client = None;
        }
    }
}

#[test]
fn random_kills_lose_nothing_and_repeat_nothing() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Arc::new(Cluster::preloaded());
    run(
        &mut cluster.client("postgres"),
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         CREATE TABLE captured (id bigint PRIMARY KEY, note text);
         SELECT create_log('audit', batch_size => 2000, run_interval => '20 ms', reconcile_interval => '2 s');
         SELECT add_source('audit', 'orders', order_column => 'id');
         SELECT create_log('arrival', batch_size => 500, run_interval => '20 ms', reconcile_interval => '2 s');
         SELECT add_source('arrival', 'captured', capture => 'trigger')",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let (inserts, changes): (Done, Done) = Default::default();
    let writers: Vec<_> = (1..=3)
        .map(|n| {
            let (cluster, stop) = (cluster.clone(), stop.clone());
            let (inserts, changes) = (inserts.clone(), changes.clone());
            std::thread::spawn(move || write(&cluster, n, seed, &stop, &inserts, &changes))
        })
        .collect();
    let mut heads: Vec<(String, i64, Vec<u8>)> = Vec::new();
    let mut crashes = 0;
    let kills = kills(size(60, 1_000), &mut rng);
    for (n, kill) in kills.iter().enumerate() {
        std::thread::sleep(Duration::from_millis(rng.random_range(20..150)));
        assert!(writers.iter().all(|w| !w.is_finished()), "a writer failed");
        let mut client = connect(&cluster);
        let heads_now = client.query(
            "SELECT log_name, tree_size, root_hash FROM merkle_log_status WHERE tree_size > 0",
            &[],
        );
        if let Ok(rows) = heads_now {
            heads.extend(rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))));
        }
        match kill {
            Kill::Server => {
                drop(client);
                cluster.kill_9();
                cluster.restart();
                crashes += 1;
            }
            Kill::Worker => {
                let pid: Option<i32> = client
                    .query_one("SELECT max(worker_pid) FROM merkle_log_status", &[])
                    .ok()
                    .and_then(|r| r.get(0));
                if let Some(pid) = pid {
                    signal("KILL", &[&pid.to_string()]);
                    crashes += 1;
                }
            }
            Kill::Backend(kind) => {
                let _ = client.execute(
                    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE backend_type = $1 AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) p",
                    &[kind],
                );
            }
        }
        if n % 50 == 49 {
            println!(
                "{} kills, {crashes} crashes, {} rows",
                n + 1,
                inserts.lock().unwrap().len()
            );
        }
    }
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|w| w.join().unwrap());
    let mut client = connect(&cluster);
    // The worker, not this test, brings the lag back to zero.
    until(
        &mut client,
        "SELECT sum(lag_rows) = 0 FROM merkle_log_status",
    );

    let sorted = |mut v: Vec<String>| {
        v.sort();
        v
    };
    let logged: Vec<String> = column(
        &mut client,
        "SELECT source_key FROM merkle_log m JOIN verification_sources USING (source_id) WHERE source_table = 'public.orders'",
    );
    let rows: Vec<String> = column(&mut client, "SELECT id::text FROM orders");
    assert_eq!(
        sorted(logged),
        sorted(rows.clone()),
        "each committed row once"
    );
    let rows: std::collections::HashSet<String> = rows.into_iter().collect();
    assert!(
        inserts.lock().unwrap().iter().all(|id| rows.contains(id)),
        "what was acknowledged is there"
    );

    let captured: Vec<String> = column(
        &mut client,
        "SELECT t.kind || ' ' || m.source_key FROM merkle_statement t, generate_series(t.from_leaf_index, t.from_leaf_index + t.entries - 1) i
           JOIN merkle_log m ON m.leaf_index = i WHERE m.log_id = t.log_id ORDER BY i",
    );
    let unique: std::collections::HashSet<&String> = captured.iter().collect();
    assert_eq!(unique.len(), captured.len(), "no change twice");
    assert!(
        changes.lock().unwrap().iter().all(|c| unique.contains(c)),
        "no acknowledged change lost"
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT merkle_size('arrival')"),
        captured.len() as i64,
        "nothing came past the triggers"
    );
    for log in ["audit", "arrival"] {
        assert_eq!(findings(&mut client, log), Vec::<String>::new());
        let size: i64 = one(&mut client, &format!("SELECT merkle_size('{log}')"));
        let root: Vec<u8> = one(&mut client, &format!("SELECT merkle_root('{log}')"));
        for (_, old, old_root) in heads.iter().filter(|(name, ..)| name == log) {
            assert!(
                oracle::consistent(
                    &mut client,
                    log,
                    (*old, old_root.clone()),
                    (size, root.clone())
                ),
                "{log} at {old}"
            );
        }
    }
    assert!(
        heads.len() > kills.len() / 4 && crashes >= kills.len() / 20,
        "{} heads, {crashes} crashes",
        heads.len()
    );
}

//! Hours of full load in minutes: the lag stays bounded, memory flat, and everything verifies.
//!
//! `make soak MINUTES=60` runs it for an hour; `make test-long` for ten minutes, `make test` for 45 seconds.

use server_tests::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn lag_and_memory_stay_bounded_under_full_load() {
    let minutes: f64 = std::env::var("MINUTES")
        .ok()
        .and_then(|m| m.parse().ok())
        .unwrap_or(size(0.75, 10.0));
    let cluster = Cluster::with(
        "shared_preload_libraries = 'merkle_log'\nshared_buffers = '512MB'\nmax_wal_size = '4GB'\nautovacuum_naptime = '10s'",
    );
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, at timestamptz DEFAULT now());
         CREATE TABLE captured (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, n int DEFAULT 0);
         SELECT create_log('audit', run_interval => '100 ms', reconcile_interval => '0'); SELECT add_source('audit', 'orders', order_column => 'id');
         SELECT create_log('arrival', run_interval => '100 ms', reconcile_interval => '0'); SELECT add_source('arrival', 'captured', capture => 'trigger')",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let mut pids = Vec::new();
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let (mut client, stop) = (cluster.client("postgres"), stop.clone());
            pids.push(one::<i32>(&mut client, "SELECT pg_backend_pid()"));
            std::thread::spawn(move || {
                let mut rows = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    match n % 2 {
                        0 => run(&mut client, "INSERT INTO orders (note) SELECT 'note' FROM generate_series(1, 20)"),
                        _ => run(&mut client, "INSERT INTO captured (note) VALUES ('a'), ('b'), ('c'), ('d'), ('e');
                                               UPDATE captured SET n = n + 1 WHERE id = (SELECT max(id) FROM captured)"),
                    }
                    rows += 1;
                }
                rows
            })
        })
        .collect();
    until(
        &mut a,
        "SELECT worker_pid IS NOT NULL FROM merkle_log_status LIMIT 1",
    );
    let worker: i32 = one(&mut a, "SELECT worker_pid FROM merkle_log_status LIMIT 1");
    pids.push(worker);
    let started = Instant::now();
    let length = Duration::from_secs_f64(minutes * 60.0);
    let (mut warm, mut worst_lag, mut peak) = (None, 0f64, 0);
    while started.elapsed() < length {
        std::thread::sleep(Duration::from_secs(1));
        assert!(writers.iter().all(|w| !w.is_finished()), "a writer failed");
        let lag: f64 = one(&mut a, "SELECT max(lag_seconds) FROM merkle_log_status");
        let memory: u64 = pids.iter().map(|pid| private_memory(*pid)).max().unwrap();
        if started.elapsed() > length / 4 {
            warm.get_or_insert(memory);
            worst_lag = worst_lag.max(lag);
            peak = peak.max(memory);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let statements: u64 = writers.into_iter().map(|w| w.join().unwrap()).sum();
    assert_eq!(
        one::<i32>(&mut a, "SELECT worker_pid FROM merkle_log_status LIMIT 1"),
        worker,
        "one worker all the time"
    );
    let warm = warm.unwrap();
    println!(
        "{statements} statements, worst lag {worst_lag:.1} s, memory {warm} kB after a quarter, {peak} kB at most"
    );
    assert!(worst_lag < 30.0, "lag of {worst_lag} s");
    assert!(
        peak < warm + 16 * 1024,
        "memory grew from {warm} to {peak} kB"
    );
    until(&mut a, "SELECT sum(lag_rows) = 0 FROM merkle_log_status");
    for (log, table, rows) in [
        ("audit", "orders", "count(*)"),
        ("arrival", "captured", "count(*) + sum(n)"),
    ] {
        assert_eq!(findings(&mut a, log), Vec::<String>::new());
        let expected: i64 = one(&mut a, &format!("SELECT ({rows})::bigint FROM {table}"));
        assert_eq!(
            one::<i64>(&mut a, &format!("SELECT merkle_size('{log}')")),
            expected,
            "{log}"
        );
    }
    let queue: i64 = one(&mut a, "SELECT pg_relation_size('merkle_pending')");
    println!("the queue's table has {queue} bytes");
}

//! A process that gets no more memory says so, and ends nothing but its statement.

use server_tests::*;

/// kB of address space that a process has.
fn address_space(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmSize:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Calls that any role can make, with arguments as large as they can be, and what reads much of a log.
const CALLS: &[&str] = &[
    "SELECT verify_inclusion('\\x00', 0, 1, array_fill('\\x00'::bytea, ARRAY[1000000]), '\\x00')",
    "SELECT verify_inclusion(sha256(''), 0, 1, array_fill(sha256(''), ARRAY[1000000]), sha256(''))",
    "SELECT verify_consistency(1, 2, sha256(''), sha256(''), array_fill(sha256(''), ARRAY[1000000]))",
    "SELECT verify_inclusion(convert_to(repeat('x', 100000000), 'UTF8'), 0, 1, '{}', sha256(''))",
    "SELECT count(*) FROM inclusion_proofs('audit', array_fill(1::bigint, ARRAY[2000]))",
    "SELECT inclusion_proofs('audit', array_fill(1::bigint, ARRAY[5000000])) LIMIT 1",
    "SELECT count(*) FROM inclusion_proofs('audit', array_fill(NULL::bigint, ARRAY[1000000]))",
    "SELECT verify_multiproof(array_fill(sha256(''), ARRAY[100000]), ARRAY(SELECT generate_series(0, 99999)::bigint), 200000, array_fill(sha256(''), ARRAY[1000000]), sha256(''))",
    "SELECT verify_multiproof(array_fill(sha256(''), ARRAY[1000000]), ARRAY(SELECT generate_series(0, 999999)::bigint), 2000000, '{}', sha256(''))",
    "SELECT multiproof('audit', ARRAY(SELECT generate_series(0, 19999)::bigint))",
    "SELECT multiproof('audit', ARRAY(SELECT generate_series(0, 19999, 3)::bigint))",
    "SELECT multiproof('audit', array_fill(7::bigint, ARRAY[5000000]))",
    "SELECT count(*) FROM inclusion_proofs_of_rows('audit', 'orders', ARRAY(SELECT generate_series(1, 20000)))",
    "SELECT inclusion_proofs_of_rows('audit', 'orders', array_fill(0::bigint, ARRAY[3000000])) LIMIT 1",
    "SELECT multiproof_of_rows('captured', 'captured', ARRAY(SELECT generate_series(1, 1000)))",
    "SELECT merkle_root(repeat('x', 100000000))",
    "SELECT inclusion_proof('audit', 'orders', repeat('x', 100000000))",
    "SELECT inclusion_proof('audit', 'orders', repeat('1', 4000000))",
    "SELECT history('captured', 'captured', repeat('x', 100000000))",
    "SELECT history('captured', 'captured', '1')",
    "SELECT create_log(repeat('x', 100000000))",
    "SELECT redact('captured', 0, repeat('x', 100000000))",
    "SELECT add_source('audit', 'orders', key_columns => array_fill('id'::text, ARRAY[300000]))",
    "SELECT add_source('audit', 'orders', order_column => repeat('x', 100000000))",
    "SELECT count(*) FROM tree_heads('audit')",
    "SELECT count(*) FROM verify_log('audit')",
    "SELECT count(*) FROM verify_log('captured')",
    "SELECT leaf_data('captured', 0)",
    "SELECT * FROM merkle_log_status",
    "SELECT * FROM merkle_log_coverage",
    "SELECT merkle_log_metrics()",
    "INSERT INTO captured SELECT i, repeat('x', 100000000), NULL FROM generate_series(1001, 1003) i",
    "INSERT INTO captured SELECT 1004, NULL, array_fill(true, ARRAY[5000000])",
    "INSERT INTO captured SELECT i, 'x', NULL FROM generate_series(2001, 12000) i",
    "SELECT entries FROM process_next_batch('captured')",
    "SELECT count(*) FROM reconcile('audit')",
];

#[test]
fn a_process_without_memory_ends_its_statement_and_not_the_server() {
    let cluster =
        Cluster::with("work_mem = '1MB'\nmax_parallel_maintenance_workers = 0\njit = off");
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         CREATE TABLE captured (id int PRIMARY KEY, note text, flags boolean[]);
         SELECT create_log('audit', batch_size => 500), create_log('captured');
         SELECT add_source('audit', 'orders', order_column => 'id');
         SELECT add_source('captured', 'captured', capture => 'trigger', store_leaf_data => true, salted => true);
         INSERT INTO orders (note) SELECT 'n' FROM generate_series(1, 20000); INSERT INTO captured SELECT i, 'x' FROM generate_series(1, 1000) i",
    );
    for log in ["audit", "captured"] {
        drain(&mut admin, log);
    }
    let started: String = one(&mut admin, "SELECT pg_postmaster_start_time()::text");
    let mut bystander = cluster.client("postgres");
    let (mut refused, mut answered) = (0, 0);
    // From hardly any room to enough for most.
    for room in [1_000, 8_000, 64_000] {
        for call in CALLS {
            let mut client = cluster.client("postgres");
            // What the session keeps anyway is there before memory gets short.
            run(
                &mut client,
                "SELECT merkle_size('audit'), merkle_root('captured')",
            );
            let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
            let limit = (address_space(pid) + room) * 1024;
            cluster.limit(pid, &format!("--as={limit}"));
            let outcome = client.simple_query(&format!("BEGIN; {call}; ROLLBACK"));
            match outcome {
                Ok(_) => answered += 1,
                Err(error) => {
                    let db = error.as_db_error().unwrap_or_else(|| {
                        panic!("{call} with {room} kB: {error:?}\n{}", cluster.log())
                    });
                    // Of memory, or of the arguments.
                    let state = db.code().code();
                    assert_ne!(state, "XX000", "{call} with {room} kB: {}", db.message());
                    refused += usize::from(state == "53200");
                    run(&mut client, "ROLLBACK");
                }
            }
            assert_eq!(
                one::<i32>(&mut bystander, "SELECT 1"),
                1,
                "{call} with {room} kB"
            );
        }
    }
    println!("{answered} calls answered, {refused} out of memory");
    assert!(
        answered > 10 && refused > 10,
        "{answered} answered, {refused} refused"
    );
    let still: String = one(&mut bystander, "SELECT pg_postmaster_start_time()::text");
    assert_eq!(started, still);
    assert_eq!(findings(&mut bystander, "audit"), Vec::<String>::new());
    assert_eq!(findings(&mut bystander, "captured"), Vec::<String>::new());
}

/// Peak of a process' own memory during a statement, in kB, beyond what it had before.
fn growth(cluster: &Cluster, sql: &str) -> u64 {
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "SELECT merkle_size('audit'), merkle_root('audit', 300)",
    );
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    let before = private_memory(pid);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                peak = peak.max(private_memory(pid));
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            peak
        });
        run(&mut client, sql);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        watch.join().unwrap() - before
    })
}

/// In the select list rows are made as they are asked for; in FROM the server keeps them all, on disk.
#[test]
fn long_answers_are_made_in_flat_memory() {
    let cluster = Cluster::with("work_mem = '1MB'");
    let mut admin = cluster.client("postgres");
    run(
        &mut admin,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         SELECT create_log('audit'); SELECT add_source('audit', 'orders', order_column => 'id');
         INSERT INTO orders SELECT FROM generate_series(1, 1000); SELECT entries FROM process_next_batch('audit');
         INSERT INTO merkle_tree_head (log_id, tree_size, root_hash)
             SELECT 1, n, sha256('') FROM generate_series(1, 400000) n ON CONFLICT DO NOTHING;
         DELETE FROM merkle_tree_head WHERE tree_size > 1000 AND tree_size % 2 = 0; ANALYZE",
    );
    for (sql, bound) in [
        ("SELECT tree_heads('audit') LIMIT 1", 8_000),
        (
            "SELECT count(*) FROM (SELECT tree_heads('audit')) t",
            12_000,
        ),
        ("SELECT count(*) FROM tree_heads('audit')", 12_000),
    ] {
        let grown = growth(&cluster, sql);
        println!("{sql}: {grown} kB");
        assert!(grown < bound, "{sql}: {grown} kB");
    }
    run(
        &mut admin,
        "DELETE FROM merkle_tree_head WHERE tree_size > 1000",
    );
    // The array itself has 16 MB, and is copied as it is handed on.
    for sql in [
        "SELECT inclusion_proofs('audit', array_fill(7::bigint, ARRAY[2000000])) LIMIT 1",
        "SELECT count(*) FROM (SELECT inclusion_proofs('audit', array_fill(7::bigint, ARRAY[20000]))) p",
        "SELECT count(*) FROM inclusion_proofs('audit', array_fill(7::bigint, ARRAY[20000]))",
    ] {
        let grown = growth(&cluster, sql);
        println!("{sql}: {grown} kB");
        assert!(grown < 80_000, "{sql}: {grown} kB");
    }
}

//! At ten million messages the queries read what they return, through their index.

mod server;

use catbird_db::*;
use chrono::{TimeDelta, Utc};
use server::{TestDatabase, did};
use sqlx::{AssertSqlSafe, Row};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Conversations and messages of each: twelve months of ten million.
const CONVERSATIONS: i64 = 1_000;
const EACH: i64 = 10_000;

/// Rows of a plan, and the indexes it reads.
struct Plan(String);

impl Plan {
    /// As the server plans it for these values, and for any: after a few runs it may take the latter.
    async fn both(db: &TestDatabase, query: &str, values: &[&str]) -> [Plan; 2] {
        let mut connection = db.connection().await.unwrap();
        let mut run = async |sql: String| {
            let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *connection);
            let lines = rows.await.unwrap().into_iter().map(|row| row.get(0));
            lines.collect::<Vec<String>>().join("\n")
        };
        run(format!("PREPARE q AS {query}")).await;
        let explain = format!(
            "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE q({})",
            values.join(", ")
        );
        run("SET plan_cache_mode = force_custom_plan".into()).await;
        let custom = Plan(run(explain.clone()).await);
        run("SET plan_cache_mode = force_generic_plan".into()).await;
        let generic = Plan(run(explain).await);
        run("RESET plan_cache_mode; DEALLOCATE q".into()).await;
        [custom, generic]
    }

    /// Pages touched, all in all: the top node's.
    fn pages(&self) -> i64 {
        let line = self
            .0
            .lines()
            .find(|line| line.trim().starts_with("Buffers: shared"))
            .unwrap();
        let counts = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        counts
            .filter(|(kind, _)| ["hit", "read"].contains(kind))
            .map(|(_, n)| n.parse::<i64>().unwrap())
            .sum()
    }

    fn must(&self, index: &str, most_pages: i64) {
        // Of a partition of the future, which is empty, a scan is all there is.
        let empty = |line: &str| line.contains("rows=0 ") || line.contains("never executed");
        let scans = |line: &&str| line.contains("Seq Scan") && !empty(line);
        assert!(self.0.lines().find(scans).is_none(), "{}", self.0);
        assert!(self.0.contains(index), "{index} is not used:\n{}", self.0);
        assert!(
            self.pages() <= most_pages,
            "{} pages:\n{}",
            self.pages(),
            self.0
        );
    }
}

/// A query as the crate sends it, from what sqlx has on record.
fn query(beginning: &str) -> String {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx");
    let mut found = std::fs::read_dir(directory).unwrap().filter_map(|file| {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        let query = record["query"].as_str().unwrap().to_owned();
        let flat = query.split_whitespace().collect::<Vec<_>>().join(" ");
        flat.contains(beginning).then_some(query)
    });
    let query = found
        .next()
        .unwrap_or_else(|| panic!("no query has {beginning}"));
    assert!(found.next().is_none(), "{beginning} is of several queries");
    query
}

#[tokio::test]
async fn keyset_queries_use_their_index_at_ten_million_messages() {
    let convo = "'00000000-0000-0000-0000-000000000001'";
    let (alice, bob) = ("'did:plc:alice'", "'did:plc:bob'");
    let middle = "(now() - interval '100 days')";
    let id = "'80000000-0000-0000-0000-000000000000'";
    let end = "'9999-12-31 00:00:00Z'";
    let mut queries = Vec::new();
    // A page of fifty has fifty-one rows, each on a page of its own, and the way down each month's index.
    for reader in [alice, bob] {
        for from in [middle, end] {
            let back = "SELECT * FROM messages WHERE convo_id = $1 AND sent_at <= s.until";
            let values = vec![convo, reader, from, id, "51"];
            queries.push((query(back), values, "messages_20", 200));
        }
        let since = "ORDER BY sent_at, id LIMIT";
        let values = vec![convo, reader, middle, id, "51"];
        queries.push((query(since), values.clone(), "messages_20", 200));
        let headers = "SELECT id, sender, message_type, epoch, sent_at FROM messages";
        queries.push((query(headers), values, "Index Only Scan", 100));
    }
    // Counting reads the conversation's part of the index, and no message.
    let count = "count(*) AS \"count!\" FROM members";
    queries.push((query(count), vec![convo, alice], "Index Only Scan", 400));
    let unread = "UPDATE members SET unread_count = ( SELECT count(*) FILTER";
    let values = vec![convo, alice, "(now() - interval '1 day')", id, "10000"];
    queries.push((query(unread), values, "_pkey", 200));

    let db = TestDatabase::with(|config| {
        config.statement_timeout = std::time::Duration::from_secs(1_800);
    })
    .await;
    db.sql("SELECT create_message_partitions(now() - interval '11 months', 11)")
        .await;
    // Indexes are made after the rows, as a restore does it; they are the migrations' own.
    db.sql(&format!(
        "CREATE TEMP TABLE kept AS
             SELECT pg_get_indexdef(i.indexrelid) AS definition, i.indexrelid::regclass::text AS name
               FROM pg_index i WHERE i.indrelid = 'messages'::regclass AND NOT i.indisprimary;
         CREATE TEMP TABLE primary_key AS
             SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE conrelid = 'messages'::regclass AND contype = 'p';
         DO $$ DECLARE name text; BEGIN
             FOR name IN SELECT k.name FROM kept k LOOP EXECUTE format('DROP INDEX %s', name); END LOOP;
             FOR name IN SELECT conname FROM primary_key LOOP EXECUTE format('ALTER TABLE messages DROP CONSTRAINT %I', name); END LOOP;
         END $$;
         SET session_replication_role = replica;  -- no foreign key is checked ten million times
         INSERT INTO conversations (id, creator, created_at, updated_at, clock)
         SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'did:plc:alice', now() - interval '1 year', now(), now()
           FROM generate_series(1, {CONVERSATIONS}) n;
         INSERT INTO members (convo_id, member_did, joined_at, joined_epoch)
         SELECT c.id, 'did:plc:' || name, c.created_at, 0 FROM conversations c, unnest(ARRAY['alice', 'bob']) name;
         -- Bob left the first conversation after a month, and has been back for a week.
         UPDATE members SET left_at = joined_at + interval '1 month', left_epoch = 0
          WHERE convo_id = '00000000-0000-0000-0000-000000000001' AND member_did = 'did:plc:bob';
         INSERT INTO members (convo_id, member_did, joined_at, joined_epoch)
         VALUES ('00000000-0000-0000-0000-000000000001', 'did:plc:bob', now() - interval '1 week', 0);
         INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         SELECT c.id, gen_random_uuid(), 'did:plc:alice', 'app', 0, 'x', now() - n * interval '330 days' / {EACH}
           FROM generate_series(1, {EACH}) n, conversations c;
         INSERT INTO message_ids (convo_id, id, sent_at)
         SELECT convo_id, id, sent_at FROM messages WHERE convo_id = '00000000-0000-0000-0000-000000000001';
         SET session_replication_role = origin;
         SET maintenance_work_mem = '1GB';
         DO $$ DECLARE made record; BEGIN
             FOR made IN SELECT * FROM primary_key LOOP EXECUTE format('ALTER TABLE messages ADD CONSTRAINT %I %s', made.conname, made.definition); END LOOP;
             FOR made IN SELECT * FROM kept LOOP EXECUTE made.definition; END LOOP;
         END $$"
    ))
    .await;
    db.sql("VACUUM (ANALYZE) messages, members, conversations, message_ids")
        .await;
    assert_eq!(
        db.number("SELECT count(*) FROM messages").await,
        CONVERSATIONS * EACH
    );

    let some = sqlx::query_scalar("SELECT format('%L', id) FROM message_ids LIMIT 1");
    let some: String = some
        .fetch_one(&mut *db.connection().await.unwrap())
        .await
        .unwrap();
    let one = "FROM message_ids i JOIN messages m ON";
    queries.push((query(one), vec![convo, &some, alice], "_pkey", 60));
    for (query, values, index, most_pages) in queries {
        for plan in Plan::both(&db, &query, &values).await {
            plan.must(index, most_pages);
        }
    }
}

#[tokio::test]
async fn what_was_given_out_or_kept_for_retries_costs_no_query() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    db.sql(&format!(
        "INSERT INTO key_packages (did, cipher_suite, key_data, expires_at, consumed_at, created_at)
         SELECT 'did:plc:alice', 1, decode(md5(n::text), 'hex'), now() + interval '1 day', now(), now() - interval '1 hour'
           FROM generate_series(1, 100000) n;
         INSERT INTO key_packages (did, cipher_suite, key_data, expires_at, last_resort)
         VALUES ('did:plc:alice', 1, 'a', now() + interval '1 day', false),
                ('did:plc:alice', 1, 'b', now() + interval '1 day', true);
         INSERT INTO message_ids (convo_id, id, sent_at)
         SELECT '{convo}', gen_random_uuid(), now() - interval '3 years' + n * interval '15 minutes'
           FROM generate_series(1, 100000) n"
    ))
    .await;
    db.sql("VACUUM (ANALYZE) key_packages, message_ids").await;
    let (alice, suite, claim) = (
        "'did:plc:alice'",
        "1",
        "'00000000-0000-0000-0000-000000000001'",
    );
    let shown = query("AS available LIMIT 1");
    let counted = query("SELECT count(*) AS \"count!\" FROM key_packages");
    let claimed = query("FROM claim_key_package(");
    for (query, values, index, most_pages) in [
        (shown, vec![alice, suite], "key_packages_available", 40),
        (counted, vec![alice, suite], "key_packages_available", 40),
        // Of a function the plan has only the pages that it touched, those of catalogs and of the update
        // included. The table has some two thousand.
        (claimed, vec![alice, suite, claim], "claim_key_package", 700),
    ] {
        for plan in Plan::both(&db, &query, &values).await {
            plan.must(index, most_pages);
        }
    }
    // The yearly deletion of the documentation.
    let old = "SELECT count(*) FROM message_ids WHERE sent_at < $1";
    for plan in Plan::both(&db, old, &["(now() - interval '1060 days')"]).await {
        plan.must("message_ids_sent_at", 300);
    }
}

/// Each index costs those who write. One that keeps something unique is needed for that.
#[tokio::test]
async fn every_index_is_read_by_a_query_of_the_crate() {
    let test = TestDatabase::new().await;
    test.sql(&format!(
        "ALTER DATABASE {} SET enable_seqscan = off",
        test.name
    ))
    .await;
    let db = Database::connect(&test.config).await.unwrap();
    let alice = did("alice");
    let convo = test.conversation(&["alice", "bob"]).await;
    test.sql(
        "INSERT INTO conversations (id, creator, created_at, updated_at, clock)
         SELECT gen_random_uuid(), 'did:plc:' || n, now(), now(), now() FROM generate_series(1, 5000) n;
         INSERT INTO members (convo_id, member_did, joined_at, joined_epoch)
         SELECT id, creator, created_at, 0 FROM conversations WHERE creator <> 'did:plc:alice';
         ANALYZE",
    )
    .await;
    let package = NewKeyPackage {
        did: &alice,
        cipher_suite: 1,
        key_data: b"package",
        expires_at: Utc::now() + TimeDelta::days(1),
        last_resort: true,
    };
    db.store_key_package(&package).await.unwrap();
    db.get_key_package(&alice, 1).await.unwrap();
    db.claim_key_package(&alice, 1, Uuid::new_v4())
        .await
        .unwrap();
    db.delete_expired_key_packages(Utc::now(), 10)
        .await
        .unwrap();
    let cid = blobs::cid_of(b"picture").unwrap();
    db.store_blob(&cid, b"picture", &alice, Some(convo))
        .await
        .unwrap();
    db.list_blobs(convo, None, 10).await.unwrap();
    db.blob_storage_size(&alice).await.unwrap();
    db.list_conversations(&alice, None, 10).await.unwrap();
    let mut own = db.connection().await.unwrap();
    // The yearly deletion of the documentation.
    let old = sqlx::query("DELETE FROM message_ids WHERE sent_at < now() - interval '1 year'");
    old.execute(&mut *own).await.unwrap();
    drop(own);
    drop(db);
    // Statistics of a session arrive when it has been idle for a while, or ends.
    let unread = "SELECT coalesce(string_agg(s.indexrelname, ', '), '') FROM pg_stat_user_indexes s JOIN pg_index i USING (indexrelid)
                   WHERE NOT i.indisunique AND s.idx_scan = 0";
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut own = test.connection().await.unwrap();
        let found = sqlx::query_scalar(unread).fetch_one(&mut *own);
        let unread: String = found.await.unwrap();
        if unread.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "no query reads {unread}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

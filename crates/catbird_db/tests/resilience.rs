//! What happens when the database is busy, slow, contended, elsewhere or gone.

mod server;

use catbird_db::*;
use server::{TestDatabase, did};
use std::time::{Duration, Instant};
use uuid::Uuid;

#[tokio::test]
async fn an_exhausted_pool_is_an_error_in_time() {
    let db = TestDatabase::with(|config| {
        config.max_connections = 2;
        config.acquire_timeout = Duration::from_secs(2);
    })
    .await;
    let held = [
        db.begin_transaction().await.unwrap(),
        db.begin_transaction().await.unwrap(),
    ];
    let started = Instant::now();
    let error = db.get_conversation(Uuid::nil()).await.unwrap_err();
    assert!(matches!(error, Error::PoolExhausted), "{error}");
    assert_eq!(error.kind(), ErrorKind::Retryable);
    assert!(started.elapsed() < Duration::from_secs(30));
    drop(held);
    let error = db.get_conversation(Uuid::nil()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_lock_and_a_statement_that_take_too_long_are_errors_in_time() {
    let db = TestDatabase::with(|config| {
        config.lock_timeout = Duration::from_secs(1);
        config.statement_timeout = Duration::from_secs(3);
    })
    .await;
    let convo = db.conversation(&["alice"]).await;
    let mut holder = db.begin_transaction().await.unwrap();
    members::add(&mut holder, convo, &did("bob")).await.unwrap();
    let error = db.send(convo, "alice", 0).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    holder.rollback().await.unwrap();
    db.send(convo, "alice", 0).await.unwrap();
    let slow = sqlx::query("SELECT pg_sleep(30)")
        .execute(&mut *db.connection().await.unwrap())
        .await;
    let error = Error::from(slow.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
}

#[tokio::test]
async fn a_transaction_that_is_forgotten_gives_its_locks_back() {
    let db = TestDatabase::with(|config| config.statement_timeout = Duration::from_secs(1)).await;
    let convo = db.conversation(&["alice"]).await;
    let mut forgotten = db.begin_transaction().await.unwrap();
    members::add(&mut forgotten, convo, &did("bob"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    db.send(convo, "alice", 0).await.unwrap();
    let error = members::add(&mut forgotten, convo, &did("carol"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
}

/// Lets every n-th statement on a table fail as if the server had rolled it back for another's sake.
async fn fail_first(db: &TestDatabase, times: u32, code: &str) {
    db.sql(&format!(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'in the way' USING ERRCODE = '{code}'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION fail()"
    ))
    .await;
}

#[tokio::test]
async fn what_the_server_rolled_back_for_another_is_tried_again_a_few_times() {
    for code in ["40001", "40P01"] {
        let db = TestDatabase::new().await;
        let convo = db.conversation(&["alice", "bob"]).await;
        fail_first(&db, 3, code).await;
        db.send(convo, "alice", 0).await.unwrap();
        let bob = db
            .get_membership(convo, &did("bob"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(bob.unread_count, 1);
        assert_eq!(db.number("SELECT last_value FROM tries").await, 4);
    }
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    fail_first(&db, 1_000_000, "40P01").await;
    let error = db.send(convo, "alice", 0).await.unwrap_err();
    assert!(matches!(error, Error::Contended(_)) && error.kind() == ErrorKind::Retryable);
    assert_eq!(db.number("SELECT last_value FROM tries").await, 5);
}

#[tokio::test]
async fn what_may_have_been_committed_is_not_tried_again() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    fail_first(&db, 1_000_000, "08006").await;
    let error = db.send(convo, "alice", 0).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert_eq!(db.number("SELECT last_value FROM tries").await, 1);
}

#[tokio::test]
async fn a_connection_that_was_cut_off_is_not_lent_again() {
    let db = TestDatabase::with(|config| {
        config.max_connections = 1;
        config.min_connections = 1;
    })
    .await;
    let convo = db.conversation(&["alice"]).await;
    let other = TestDatabase::new().await;
    for _ in 0..3 {
        db.send(convo, "alice", 0).await.unwrap();
        let cut = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'",
            db.name
        );
        // Those that were cut off before may still be on their way out.
        assert!(other.number(&cut).await >= 1);
        let error = db.send(convo, "alice", 0).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
    }
    db.send(convo, "alice", 0).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_no_lock_and_no_trace() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    for round in 0..10 {
        let mut transaction = db.begin_transaction().await.unwrap();
        members::add(&mut transaction, convo, &did("bob"))
            .await
            .unwrap();
        match round % 2 {
            0 => drop(transaction),
            _ => transaction.rollback().await.unwrap(),
        }
        db.send(convo, "alice", 0).await.unwrap();
        assert!(!db.is_member(convo, &did("bob")).await.unwrap());
    }
}

#[tokio::test]
async fn an_operation_that_is_cancelled_leaves_the_next_ones_alone() {
    let db = TestDatabase::with(|config| {
        config.max_connections = 3;
        config.min_connections = 1;
    })
    .await;
    let convo = db.conversation(&["alice"]).await;
    let mut holder = db.begin_transaction().await.unwrap();
    members::add(&mut holder, convo, &did("bob")).await.unwrap();
    let moment = Duration::from_millis(200);
    let waiting = db.send(convo, "alice", 0);
    assert!(tokio::time::timeout(moment, waiting).await.is_err());
    let mut own = db.connection().await.unwrap();
    let waiting = sqlx::query("SELECT pg_sleep(20)").execute(&mut *own);
    assert!(tokio::time::timeout(moment, waiting).await.is_err());
    drop(own);
    let started = Instant::now();
    for _ in 0..20 {
        db.get_conversation(convo).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(15));
    holder.commit().await.unwrap();
    db.send(convo, "alice", 0).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_failed_is_not_said_to_be_committed() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let mut transaction = db.begin_transaction().await.unwrap();
    members::add(&mut transaction, convo, &did("bob"))
        .await
        .unwrap();
    sqlx::query("SELECT 1 / 0")
        .execute(&mut *transaction)
        .await
        .unwrap_err();
    transaction.commit().await.unwrap_err();
    assert!(!db.is_member(convo, &did("bob")).await.unwrap());
}

#[tokio::test]
async fn a_pool_that_cannot_be_is_refused() {
    let configurations: [fn(&mut Config); 4] = [
        |config| config.max_connections = 0,
        |config| config.min_connections = config.max_connections + 1,
        |config| config.acquire_timeout = Duration::ZERO,
        |config| config.idle_timeout = Duration::ZERO,
    ];
    for configure in configurations {
        let mut config = Config::new("postgres://nobody@127.0.0.1:1/none");
        configure(&mut config);
        let error = Database::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn two_transactions_that_lock_each_other_out_are_told_apart_from_faults() {
    let db = TestDatabase::new().await;
    let (first, second) = (
        db.conversation(&["alice"]).await,
        db.conversation(&["alice"]).await,
    );
    let both = tokio::sync::Barrier::new(2);
    let crosswise = async |one: Uuid, other: Uuid| {
        let mut transaction = db.begin_transaction().await?;
        members::add(&mut transaction, one, &did("bob")).await?;
        both.wait().await;
        members::add(&mut transaction, other, &did("bob")).await?;
        transaction.commit().await?;
        Ok::<(), Error>(())
    };
    let results = tokio::join!(crosswise(first, second), crosswise(second, first));
    let error = match results {
        (Ok(()), Err(error)) | (Err(error), Ok(())) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error, Error::Contended(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_in_time() {
    let mut config = Config::new("postgres://nobody@127.0.0.1:1/none");
    config.acquire_timeout = Duration::from_secs(2);
    let error = Database::connect(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
    let error = Database::connect(&Config::new("no url")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn pages_come_from_the_replica_and_what_decides_from_the_primary() {
    let primary = TestDatabase::new().await;
    // Another database stands for a replica that has seen nothing yet: what it answers is told apart.
    let behind = TestDatabase::new().await;
    let mut config = primary.config.clone();
    config.read_url = Some(behind.config.url.clone());
    let db = Database::connect(&config).await.unwrap();
    let convo = primary.conversation(&["alice"]).await;
    let sent = primary.send(convo, "alice", 0).await.unwrap();
    let alice = did("alice");
    assert_eq!(db.count_messages(convo, &alice).await.unwrap(), 0);
    assert!(
        db.list_messages(convo, &alice, None, 5)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(db.get_current_epoch(convo).await.unwrap(), 0);
    assert!(db.is_member(convo, &alice).await.unwrap());
    assert_eq!(
        primary
            .list_messages(convo, &alice, None, 5)
            .await
            .unwrap()
            .items[0]
            .sent_at,
        sent.sent_at
    );
    assert!(db.health_check().await.unwrap().replica_lag.is_none());
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_not_migrated() {
    let db = TestDatabase::new().await;
    db.migrate().await.unwrap();
    db.sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'newer', true, '', 0)").await;
    let error = db.migrate().await.unwrap_err();
    assert!(matches!(error, Error::Migration(_)), "{error}");
}

#[tokio::test]
async fn text_from_outside_is_a_value_and_never_a_statement() {
    let db = TestDatabase::new().await;
    let alice = did("alice");
    let title = "'; DROP TABLE members; --";
    let made = db
        .create_conversation(Uuid::now_v7(), &alice, Some(title))
        .await
        .unwrap();
    assert_eq!(made.title.as_deref(), Some(title));
    // sqlx takes a statement put together at run time as `AssertSqlSafe` only.
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("AssertSqlSafe"));
    }
    let nul = db.create_conversation(Uuid::now_v7(), &alice, Some("a\0b"));
    assert_eq!(nul.await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn what_else_a_failover_broke_is_tried_out_before_it_is_lent() {
    let db = TestDatabase::with(|config| {
        config.max_connections = 10;
        config.min_connections = 9;
    })
    .await;
    let convo = db.conversation(&["alice"]).await;
    let held = futures::future::try_join_all((0..9).map(|_| db.begin_transaction()));
    for transaction in held.await.unwrap() {
        transaction.rollback().await.unwrap();
    }
    let other = TestDatabase::new().await;
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'",
        db.name
    );
    assert!(other.number(&cut).await >= 9);
    let mut failed = 0;
    for _ in 0..15 {
        failed += i32::from(db.send(convo, "alice", 0).await.is_err());
    }
    // The first call finds it out.
    assert_eq!(failed, 1);
}

#[tokio::test]
async fn a_month_without_partition_and_a_server_that_only_reads_are_for_later() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    db.sql("DO $$ BEGIN EXECUTE format('DROP TABLE %I', message_partition(message_month(now()))); END $$")
        .await;
    let error = db.send(convo, "alice", 0).await.unwrap_err();
    assert!(matches!(error, Error::NoPartition(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Retryable);
    assert!(!error.to_string().contains("relation"), "{error}");
    let mut transaction = db.begin_transaction().await.unwrap();
    let created = retention::create_partitions(&mut transaction, chrono::Utc::now(), 1).await;
    assert_eq!(created.unwrap(), 1);
    transaction.commit().await.unwrap();
    db.send(convo, "alice", 0).await.unwrap();

    db.sql(&format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        db.name
    ))
    .await;
    let standby = Database::connect(&db.config).await.unwrap();
    let alice = did("alice");
    let refused = standby.create_conversation(Uuid::now_v7(), &alice, None);
    let error = refused.await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn the_isolation_and_dates_of_a_database_change_nothing() {
    let db = TestDatabase::new().await;
    db.sql(&format!(
        "ALTER DATABASE {0} SET default_transaction_isolation = 'serializable';
         ALTER DATABASE {0} SET datestyle = 'SQL, DMY';
         ALTER DATABASE {0} SET timezone = 'Asia/Kolkata'",
        db.name
    ))
    .await;
    let own = Database::connect(&db.config).await.unwrap();
    let settings =
        "SELECT current_setting('transaction_isolation') || ', ' || current_setting('datestyle')";
    let mut transaction = own.begin_transaction().await.unwrap();
    for connection in [&mut *transaction, &mut *own.connection().await.unwrap()] {
        let found: String = sqlx::query_scalar(settings)
            .fetch_one(connection)
            .await
            .unwrap();
        assert!(found.starts_with("read committed, ISO"), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_that_waits_leaves_the_server_and_takes_no_effect() {
    let db = TestDatabase::with(|config| {
        config.lock_timeout = Duration::from_secs(300);
        config.statement_timeout = Duration::from_secs(300);
    })
    .await;
    let (alice, bob) = (did("alice"), did("bob"));
    let convo = db.conversation(&["alice", "bob"]).await;
    let cid = blobs::cid_of(b"picture").unwrap();
    let stored = db.store_blob(&cid, b"picture", &alice, Some(convo)).await;
    stored.unwrap();
    let mut holder = db.begin_transaction().await.unwrap();
    let lock = sqlx::raw_sql("SELECT FROM conversations FOR UPDATE; SELECT FROM blobs FOR UPDATE");
    lock.execute(&mut *holder).await.unwrap();
    {
        let cancelled = futures::future::join5(
            db.send(convo, "alice", 0),
            db.update_unread_count(convo, &bob, 7),
            db.delete_blob(&cid, &alice, Some(convo)),
            db.delete_conversation(convo),
            db.remove_member(convo, &bob),
        );
        tokio::select! {
            _ = cancelled => panic!("nothing waited"),
            () = db.until_waiting(5) => {}
        }
    }
    db.until_waiting(0).await;
    holder.commit().await.unwrap();
    let member = db.get_membership(convo, &bob).await.unwrap().unwrap();
    assert_eq!((member.left_at, member.unread_count), (None, 0));
    assert_eq!(db.list_blobs(convo, None, 5).await.unwrap().len(), 1);
    assert_eq!(db.count_messages(convo, &alice).await.unwrap(), 0);
}

#[tokio::test]
async fn a_transaction_that_was_held_too_long_is_for_later_however_the_server_says_so() {
    let db = TestDatabase::with(|config| config.statement_timeout = Duration::from_secs(1)).await;
    let convo = db.conversation(&["alice"]).await;
    let held = futures::future::try_join_all((0..8).map(|_| db.begin_transaction()));
    let held = held.await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    while db.number(open).await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for mut transaction in held {
        let error = conversations::get(&mut transaction, convo)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable, "{error:?}");
    }
}

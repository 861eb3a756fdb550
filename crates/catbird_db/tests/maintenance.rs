//! Months are archived, dropped and made beside live traffic.

mod server;

use catbird_db::*;
use chrono::{DateTime, Months, Utc};
use futures::future::{join_all, try_join_all};
use server::{TestDatabase, did};
use sqlx::AssertSqlSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

fn months_ago(months: u32) -> DateTime<Utc> {
    Utc::now().checked_sub_months(Months::new(months)).unwrap()
}

/// So many months of the past outside the archive, as time makes them, with messages in every conversation.
async fn hot_months(db: &TestDatabase, months: u32) {
    db.sql(&format!(
        "ALTER TABLE messages DETACH PARTITION messages_archive;
         DO $$ BEGIN
             EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_archive FOR VALUES FROM (MINVALUE) TO (%L)',
                            message_month('{0}'));
         END $$;
         SELECT create_message_partitions('{0}', {months});
         INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         SELECT c.id, gen_random_uuid(), c.creator, 'app', 0, 'x', message_month('{0}') + n * interval '1 day'
           FROM conversations c, generate_series(1, 30 * {months} - 30) n;
         INSERT INTO message_ids (convo_id, id, sent_at) SELECT convo_id, id, sent_at FROM messages ON CONFLICT DO NOTHING",
        months_ago(months)
    ))
    .await;
}

/// Makes a conversation, says something in it and deletes it.
async fn pass_by(db: &TestDatabase) -> Result<()> {
    let convo = db.conversation(&["alice", "bob"]).await;
    db.send(convo, "alice", 0).await?;
    db.delete_conversation(convo).await
}

/// What a client of a conversation does, until it is told to stop; how long its slowest call took.
async fn traffic(db: &TestDatabase, convo: Uuid, done: &AtomicBool) -> Result<Duration> {
    let (alice, bob) = (did("alice"), did("bob"));
    let mut slowest = Duration::ZERO;
    let mut turn = 0;
    while !done.load(Ordering::Relaxed) {
        let started = Instant::now();
        match turn % 9 {
            0 => drop(db.add_member(convo, &did("visitor")).await?),
            1 => drop(db.list_messages(convo, &alice, None, 50).await?),
            2 => drop(db.count_messages(convo, &bob).await?),
            3 => drop(db.reset_unread_count(convo, &bob, None).await?),
            4 => drop(db.remove_member(convo, &did("visitor")).await?),
            5 => pass_by(db).await?,
            // The newest message and the oldest, of the month that is under maintenance.
            6 => {
                for message in db.list_messages(convo, &alice, None, 1).await?.items {
                    db.delete_message(convo, message.id).await?;
                }
            }
            7 => {
                for message in db.list_messages_since(convo, &alice, None, 1).await?.items {
                    db.delete_message(convo, message.id).await?;
                }
            }
            _ => drop(db.send(convo, "alice", 0).await?),
        }
        slowest = slowest.max(started.elapsed());
        turn += 1;
    }
    Ok(slowest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_is_archived_and_dropped_under_twelve_clients_without_a_deadlock() {
    const MONTHS: u32 = 13;
    let db = TestDatabase::new().await;
    let mut convos = Vec::new();
    for _ in 0..6 {
        convos.push(db.conversation(&["alice", "bob"]).await);
    }
    db.sql("UPDATE members SET joined_at = joined_at - interval '2 years'")
        .await;
    hot_months(&db, MONTHS).await;
    let done = AtomicBool::new(false);
    let maintenance = async {
        let mut slowest = Duration::ZERO;
        for month in (2..=MONTHS).rev().map(months_ago) {
            let started = Instant::now();
            retention::archive(&db, month, None).await?;
            slowest = slowest.max(started.elapsed());
        }
        for month in (2..=MONTHS).rev().map(months_ago) {
            let started = Instant::now();
            retention::drop_month(&db, month).await?;
            slowest = slowest.max(started.elapsed());
        }
        done.store(true, Ordering::Relaxed);
        Ok::<Duration, Error>(slowest)
    };
    let clients = try_join_all((0..12).map(|n| traffic(&db, convos[n % 6], &done)));
    let (maintenance, clients) = tokio::join!(maintenance, clients);
    let slowest = clients.unwrap().into_iter().max().unwrap();
    println!(
        "slowest month: {:?}; slowest call: {slowest:?}",
        maintenance.unwrap()
    );
    // A few hundred milliseconds where nothing else runs; a lock that is waited for takes the lock timeout.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let partitions =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages_archive'::regclass";
    assert_eq!(db.number(partitions).await, 0);
    assert_eq!(db.deadlocks().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_maintenance_waits_for_a_long_reader_everyone_else_goes_on() {
    let db = TestDatabase::with(|config| {
        config.max_connections = 10;
        config.lock_timeout = Duration::from_secs(120); // maintenance outlasts the others
    })
    .await;
    let convo = db.conversation(&["alice", "bob"]).await;
    db.sql("UPDATE members SET joined_at = joined_at - interval '2 years'")
        .await;
    hot_months(&db, 3).await;
    let mut impatient = db.config.clone();
    impatient.lock_timeout = Duration::from_millis(500);
    let impatient = Database::connect(&impatient).await.unwrap();
    for archived in [true, false] {
        // Such as a backup.
        let mut reader = db.begin_transaction().await.unwrap();
        let read = sqlx::query("SELECT count(*) FROM messages");
        read.execute(&mut *reader).await.unwrap();
        let maintenance = async {
            if archived {
                retention::archive(&db, months_ago(3), None).await
            } else {
                retention::drop_month(&db, months_ago(2)).await.map(drop)
            }
        };
        let others = async {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                              AND query LIKE 'SELECT %_messages(%' AND state = 'active' AND wait_event IS NOT NULL";
            while db.number(waiting).await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for _ in 0..10 {
                let alice = did("alice");
                let message = NewMessage {
                    convo_id: convo,
                    id: Uuid::new_v4(),
                    sender: &alice,
                    message_type: MessageType::App,
                    epoch: 0,
                    ciphertext: b"sealed",
                };
                impatient
                    .create_message(&message, PastEpochs::Refuse)
                    .await
                    .unwrap();
                impatient.count_messages(convo, &alice).await.unwrap();
                // Often enough for the server to plan for all values.
                impatient.delete_message(convo, message.id).await.unwrap();
                let other = db.conversation(&["alice"]).await;
                db.send(other, "alice", 0).await.unwrap();
                impatient.delete_conversation(other).await.unwrap();
            }
            // Also of the month itself.
            let oldest = db.list_messages_since(convo, &did("alice"), None, 1).await;
            for message in oldest.unwrap().items {
                impatient.delete_message(convo, message.id).await.unwrap();
            }
            assert!(db.number(waiting).await > 0, "maintenance waits no longer");
            reader.rollback().await.unwrap();
        };
        let (maintained, ()) = tokio::join!(maintenance, others);
        maintained.unwrap();
    }
    assert_eq!(db.deadlocks().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_of_several_servers_at_once_comes_to_the_same() {
    let db = TestDatabase::new().await;
    db.conversation(&["alice"]).await;
    hot_months(&db, 4).await;
    let months: Vec<_> = (2..=4).rev().map(months_ago).collect();
    let server = async || {
        for month in &months {
            loop {
                match retention::archive(&db, *month, None).await {
                    Err(error) if error.kind() == ErrorKind::Retryable => {}
                    archived => break archived?,
                }
            }
        }
        let mut transaction = db.begin_transaction().await?;
        let created = retention::create_partitions(&mut transaction, Utc::now(), 14).await?;
        transaction.commit().await?;
        Ok::<i32, Error>(created)
    };
    let created = try_join_all((0..4).map(|_| server())).await.unwrap();
    assert_eq!(created.iter().sum::<i32>(), 2);
    let drops = join_all((0..3).map(|_| retention::drop_month(&db, months[0]))).await;
    let dropped = drops.iter().filter(|dropped| dropped.is_ok()).count();
    assert_eq!(dropped, 1);
    for error in drops.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert_eq!(db.deadlocks().await, 0);
}

#[tokio::test]
async fn months_are_the_same_in_every_date_style_and_time_zone() {
    let db = TestDatabase::new().await;
    let bounds =
        "SELECT string_agg(relname || pg_get_expr(relpartbound, oid), E'\n' ORDER BY relname)
                    FROM pg_class WHERE relname LIKE 'messages\\_2%' AND relispartition";
    let mut found: Vec<String> = Vec::new();
    for (style, zone) in [
        ("ISO", "UTC"),
        ("SQL, DMY", "Asia/Kolkata"),
        ("German", "Israel"),
        ("Postgres, MDY", "America/St_Johns"),
    ] {
        let mut connection = db.connection().await.unwrap();
        let mut transaction = sqlx::Connection::begin(&mut *connection).await.unwrap();
        let (before, after) = ("2020-03-01 00:00Z", "2100-12-15 23:59Z");
        let make = format!(
            "SET LOCAL datestyle = '{style}'; SET LOCAL timezone = '{zone}';
             SELECT create_message_partitions('{after}', 3);
             SELECT create_message_partitions('{before}', 3);
             SELECT archive_messages(messages_archived_to());
             SELECT drop_messages('{before}');
             SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC';"
        );
        sqlx::raw_sql(AssertSqlSafe(make))
            .execute(&mut *transaction)
            .await
            .unwrap();
        let made: String = sqlx::query_scalar(AssertSqlSafe(bounds))
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        found.push(format!("{made}\n{:?}", {
            let ends = "SELECT messages_archived_to()::text || messages_until()::text";
            sqlx::query_scalar::<_, String>(ends)
                .fetch_one(&mut *transaction)
                .await
                .unwrap()
        }));
        transaction.rollback().await.unwrap();
    }
    assert!(found[0].lines().count() > 15, "{}", found[0]);
    for other in &found[1..] {
        assert_eq!(*other, found[0]);
    }
}

#[tokio::test]
async fn a_month_that_is_being_dropped_takes_no_more_messages() {
    let db = TestDatabase::with(|config| config.lock_timeout = Duration::from_secs(1)).await;
    let convo = db.conversation(&["alice"]).await;
    hot_months(&db, 3).await;
    let mut reader = db.begin_transaction().await.unwrap();
    let read = sqlx::query("SELECT FROM messages LIMIT 1");
    read.execute(&mut *reader).await.unwrap();
    let error = retention::drop_month(&db, months_ago(3)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    // An import, say, between what drop_month looks at and what it drops.
    let import = format!(
        "INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         VALUES ('{convo}', gen_random_uuid(), 'did:plc:alice', 'app', 0, 'x', message_month('{}'))",
        months_ago(3)
    );
    let mut own = db.connection().await.unwrap();
    let import = sqlx::query(AssertSqlSafe(import)).execute(&mut *own);
    let refused = import.await.unwrap_err();
    assert_eq!(
        refused.as_database_error().unwrap().code().unwrap(),
        "55000"
    );
    reader.rollback().await.unwrap();
    retention::drop_month(&db, months_ago(3)).await.unwrap();
}

#[tokio::test]
async fn the_months_that_are_ready_end_at_the_first_that_is_missing() {
    let db = TestDatabase::new().await;
    let ready = async || db.health_check().await.unwrap().partitions_until;
    let until = ready().await;
    db.sql("SELECT create_message_partitions(now() + interval '24 months', 1)")
        .await;
    assert_eq!(ready().await, until);
    db.sql("SELECT create_message_partitions(now(), 24)").await;
    assert!(ready().await > until + chrono::TimeDelta::days(365));
    db.sql("DO $$ BEGIN EXECUTE format('DROP TABLE %I', message_partition(message_month(now()))); END $$")
        .await;
    assert!(ready().await <= Utc::now());
}

#[tokio::test]
async fn months_are_made_where_there_is_no_archive() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    db.sql("ALTER TABLE messages DETACH PARTITION messages_archive; DROP TABLE messages_archive")
        .await;
    let mut connection = db.connection().await.unwrap();
    let made = retention::create_partitions(&mut connection, Utc::now(), 14).await;
    assert_eq!(made.unwrap(), 2);
    db.send(convo, "alice", 0).await.unwrap();
}

#[tokio::test]
async fn times_at_the_ends_of_the_calendar_are_refused() {
    let db = TestDatabase::new().await;
    for time in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        let mut connection = db.connection().await.unwrap();
        let made = retention::create_partitions(&mut connection, time, 1).await;
        for error in [
            retention::archive(&db, time, None).await.unwrap_err(),
            retention::drop_month(&db, time).await.unwrap_err(),
            made.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
        let deleted = db.delete_expired_key_packages(time, 10).await;
        assert_eq!(deleted.unwrap(), 0);
    }
}

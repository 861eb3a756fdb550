//! Messages and key packages that an outsider can check, on a server with the extension.

mod server;

use catbird_db::proof::{self, LogView};
use catbird_db::transparency::{Log, Options};
use catbird_db::*;
use chrono::{DateTime, TimeDelta, Utc};
use server::{TestDatabase, did, message};
use uuid::Uuid;

async fn transparent(options: Options) -> TestDatabase {
    let db = TestDatabase::new().await;
    db.sql("CREATE EXTENSION merkle_log").await;
    register(&db, options).await;
    db
}

async fn register(db: &TestDatabase, options: Options) {
    let mut transaction = db.begin_transaction().await.unwrap();
    transparency::register(&mut transaction, options)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

async fn prove(db: &TestDatabase, message: &Message, size: Option<u64>) -> Result<proof::Proof> {
    let mut connection = db.connection().await.unwrap();
    transparency::prove_message(&mut connection, message.convo_id, message.id, size).await
}

async fn prove_package(db: &TestDatabase, package: &KeyPackage) -> Result<proof::Proof> {
    let mut connection = db.connection().await.unwrap();
    transparency::prove_key_package(&mut connection, &package.did, package.id, None).await
}

async fn head(db: &TestDatabase, log: Log) -> proof::TreeHead {
    transparency::tree_head(&mut db.connection().await.unwrap(), log)
        .await
        .unwrap()
}

async fn findings(db: &TestDatabase) -> i64 {
    db.number("SELECT (SELECT count(*) FROM verify_log('catbird_messages') WHERE kind NOT IN ('redacted', 'detached')) + (SELECT count(*) FROM verify_log('catbird_key_packages'))").await
}

#[tokio::test]
async fn every_message_before_and_after_registration_is_proven_to_an_outsider() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    db.send(convo, "alice", 0).await.unwrap();
    db.sql("CREATE EXTENSION merkle_log").await;
    register(&db, Options::default()).await;
    register(&db, Options::default()).await; // again changes nothing
    for _ in 0..20 {
        db.send(convo, "bob", 0).await.unwrap();
    }
    assert_eq!(transparency::log_now(&db, Log::Messages).await.unwrap(), 21);
    let messages = db
        .list_messages(convo, &did("alice"), None, 50)
        .await
        .unwrap()
        .items;
    assert_eq!(messages.len(), 21);
    let head = head(&db, Log::Messages).await;
    for message in &messages {
        let proof = prove(&db, message, None).await.unwrap();
        assert_eq!(proof.head, head);
        proof.verify_message(&message.into()).unwrap();
        let forged = proof::Message {
            ciphertext: b"forged",
            ..message.into()
        };
        assert!(proof.verify_message(&forged).is_err());
    }
    assert_eq!(findings(&db).await, 0);
}

#[tokio::test]
async fn what_is_not_logged_yet_is_said_to_be_so() {
    let db = transparent(Options::default()).await;
    let convo = db.conversation(&["alice"]).await;
    db.send(convo, "alice", 0).await.unwrap();
    transparency::log_now(&db, Log::Messages).await.unwrap();
    db.send(convo, "alice", 0).await.unwrap();
    let messages = db
        .list_messages_since(convo, &did("alice"), None, 9)
        .await
        .unwrap()
        .items;
    let error = prove(&db, &messages[1], None).await.unwrap_err();
    assert!(matches!(error, Error::NotYetLogged { .. }), "{error}");
    transparency::log_now(&db, Log::Messages).await.unwrap();
    prove(&db, &messages[1], None).await.unwrap();
    let error = prove(&db, &messages[1], Some(1)).await.unwrap_err();
    assert!(matches!(error, Error::NotYetLogged { .. }), "{error}");
    let unknown = Message {
        id: Uuid::nil(),
        ..messages[0].clone()
    };
    assert_eq!(
        prove(&db, &unknown, None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_client_follows_one_log_and_catches_a_rewritten_one() {
    let db = transparent(Options::default()).await;
    let convo = db.conversation(&["alice"]).await;
    let mut view: Option<LogView> = None;
    for _ in 0..4 {
        for _ in 0..3 {
            db.send(convo, "alice", 0).await.unwrap();
        }
        transparency::log_now(&db, Log::Messages).await.unwrap();
        match &mut view {
            None => view = Some(LogView::new(head(&db, Log::Messages).await)),
            Some(view) => {
                let mut connection = db.connection().await.unwrap();
                let known = view.head().tree_size;
                let since =
                    transparency::prove_consistency(&mut connection, Log::Messages, known, None);
                view.advance(&since.await.unwrap()).unwrap();
            }
        }
    }
    let view = view.unwrap();
    assert_eq!(view.head().tree_size, 12);
    let message = &db
        .list_messages(convo, &did("alice"), None, 1)
        .await
        .unwrap()
        .items[0];
    view.accept(&prove(&db, message, None).await.unwrap().head)
        .unwrap();

    // The operator makes the log anew without the first message, and serves that.
    db.sql("SELECT drop_log('catbird_messages', confirm => true); SELECT drop_log('catbird_key_packages', confirm => true);
            DELETE FROM messages WHERE sent_at = (SELECT min(sent_at) FROM messages)").await;
    register(&db, Options::default()).await;
    db.send(convo, "alice", 0).await.unwrap();
    transparency::log_now(&db, Log::Messages).await.unwrap();
    let proof = prove(&db, message, None).await.unwrap();
    proof.verify_message(&message.into()).unwrap();
    assert_eq!(
        view.accept(&proof.head),
        Err(proof::Error::SplitView { size: 12 })
    );
}

#[tokio::test]
async fn a_key_package_is_in_the_log_when_stored_and_when_given_out() {
    let db = transparent(Options::default()).await;
    let bob = did("bob");
    let package = NewKeyPackage {
        did: &bob,
        cipher_suite: 1,
        key_data: b"bob's package",
        expires_at: Utc::now() + TimeDelta::days(1),
        last_resort: false,
    };
    let stored = db.store_key_package(&package).await.unwrap();
    transparency::log_now(&db, Log::KeyPackages).await.unwrap();
    let given = proof::KeyPackage::from(&stored);
    let entry = prove_package(&db, &stored)
        .await
        .unwrap()
        .verify_key_package(&given)
        .unwrap();
    assert_eq!(entry.expires_at, stored.expires_at.timestamp_micros());
    assert_eq!(entry.consumed_at, None);

    let claimed = db.claim_key_package(&bob, 1, Uuid::new_v4()).await.unwrap();
    transparency::log_now(&db, Log::KeyPackages).await.unwrap();
    let proof = prove_package(&db, &claimed).await.unwrap();
    let entry = proof.verify_key_package(&given).unwrap();
    assert_eq!(
        entry.consumed_at,
        claimed.consumed_at.map(|at| at.timestamp_micros())
    );
    for forged in [
        proof::KeyPackage {
            key_data: b"mallory's package",
            ..given
        },
        proof::KeyPackage {
            did: "did:plc:mallory",
            ..given
        },
        proof::KeyPackage {
            cipher_suite: 2,
            ..given
        },
    ] {
        assert!(proof.verify_key_package(&forged).is_err());
    }
    // Swapped in the database behind the log's back: what is served no longer fits the log.
    db.sql("ALTER TABLE key_packages DISABLE TRIGGER USER; UPDATE key_packages SET key_data = 'mallory''s'; ALTER TABLE key_packages ENABLE TRIGGER USER").await;
    let served = db
        .store_key_package(&NewKeyPackage {
            key_data: b"mallory's",
            ..package
        })
        .await
        .unwrap();
    let served = proof::KeyPackage {
        key_data: &served.key_data,
        ..given
    };
    assert!(
        prove_package(&db, &claimed)
            .await
            .unwrap()
            .verify_key_package(&served)
            .is_err()
    );
    assert!(findings(&db).await > 0);
}

#[tokio::test]
async fn a_logged_message_is_neither_changed_nor_deleted() {
    let db = transparent(Options::default()).await;
    let convo = db.conversation(&["alice"]).await;
    db.send(convo, "alice", 0).await.unwrap();
    let message = db
        .list_messages(convo, &did("alice"), None, 1)
        .await
        .unwrap()
        .items
        .remove(0);
    for refused in [
        db.delete_message(convo, message.id).await,
        db.delete_conversation(convo).await,
    ] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Error::AppendOnly(_)) && error.kind() == ErrorKind::Conflict,
            "{error}"
        );
    }
    // What may go: members, and a conversation without messages.
    db.remove_member(convo, &did("alice")).await.unwrap();
    let empty = db.conversation(&["alice"]).await;
    db.delete_conversation(empty).await.unwrap();
}

#[tokio::test]
async fn a_salted_entry_is_redacted_and_the_others_are_proven_as_before() {
    let db = transparent(Options { salted: true }).await;
    let convo = db.conversation(&["alice"]).await;
    for _ in 0..3 {
        db.send(convo, "alice", 0).await.unwrap();
    }
    transparency::log_now(&db, Log::Messages).await.unwrap();
    let messages = db
        .list_messages_since(convo, &did("alice"), None, 9)
        .await
        .unwrap()
        .items;
    prove(&db, &messages[1], None)
        .await
        .unwrap()
        .verify_message(&(&messages[1]).into())
        .unwrap();
    db.sql("SELECT redact('catbird_messages', 1, 'by order')")
        .await;
    let error = prove(&db, &messages[1], None).await.unwrap_err();
    assert!(matches!(error, Error::Erased { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for message in [&messages[0], &messages[2]] {
        prove(&db, message, None)
            .await
            .unwrap()
            .verify_message(&message.into())
            .unwrap();
    }
    assert_eq!(findings(&db).await, 0);
}

#[tokio::test]
async fn without_the_extension_everything_else_works() {
    let db = TestDatabase::new().await;
    assert!(!db.health_check().await.unwrap().transparent);
    let mut connection = db.connection().await.unwrap();
    let error = transparency::register(&mut connection, Options::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotRegistered));
    let error = transparency::log_now(&db, Log::Messages).await.unwrap_err();
    assert!(matches!(error, Error::NotRegistered) && error.hint().is_some());
    db.sql("CREATE SCHEMA elsewhere; CREATE EXTENSION merkle_log SCHEMA elsewhere")
        .await;
    let error = transparency::registered(&mut connection).await.unwrap_err();
    assert!(error.to_string().contains("search path"), "{error}");
}

#[tokio::test]
async fn an_ordinary_role_with_the_grants_on_file_can_do_all_of_it() {
    let db = TestDatabase::new().await;
    db.sql("CREATE EXTENSION merkle_log").await;
    let role = format!("catbird_{}", Uuid::new_v4().simple());
    let grants = include_str!("../transparency-grants.sql").replace(":\"role\"", &role);
    db.sql(&format!("CREATE ROLE {role} LOGIN; {grants}")).await;
    // A server of the role's own: tables, functions and type are its, nothing of the extension is.
    db.sql(&format!(
        "DO $$ DECLARE object record; BEGIN
             FOR object IN SELECT format('TABLE %s', c.oid::regclass) AS name FROM pg_class c
                            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
                              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
                     UNION ALL SELECT 'TYPE message_type'
                     UNION ALL SELECT format('FUNCTION %s', p.oid::regprocedure) FROM pg_proc p
                            WHERE p.pronamespace = 'public'::regnamespace
                              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
             LOOP EXECUTE format('ALTER %s OWNER TO {role}', object.name); END LOOP;
         END $$;
         GRANT CREATE ON SCHEMA public TO {role}"
    ))
    .await;
    let mut config = db.config.clone();
    config.url = config
        .url
        .replace("postgres@", &format!("{role}@"))
        .replace("user=postgres", &format!("user={role}"));
    let own = Database::connect(&config).await.unwrap();
    let who: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&mut *own.connection().await.unwrap())
        .await
        .unwrap();
    assert_eq!(who, role);
    let mut transaction = own.begin_transaction().await.unwrap();
    transparency::register(&mut transaction, Options::default())
        .await
        .unwrap();
    transaction.commit().await.unwrap();

    let convo = db.conversation(&["alice"]).await;
    let mut transaction = own.begin_transaction().await.unwrap();
    let long_ago = Utc::now() - TimeDelta::days(90);
    assert!(
        retention::create_partitions(&mut transaction, long_ago, 16)
            .await
            .unwrap()
            > 3
    );
    transaction.commit().await.unwrap();
    let month = past_month(&db, 2, 300).await;
    let alice = did("alice");
    let message = message(convo, &alice);
    own.create_message(&message, PastEpochs::Refuse)
        .await
        .unwrap();
    assert_eq!(
        transparency::log_now(&own, Log::Messages).await.unwrap(),
        301
    );
    let mut connection = own.connection().await.unwrap();
    transparency::prove_message(&mut connection, convo, message.id, None)
        .await
        .unwrap()
        .verify()
        .unwrap();
    transparency::prove_consistency(&mut connection, Log::Messages, 1, None)
        .await
        .unwrap()
        .verify()
        .unwrap();
    drop(connection);
    assert_eq!(
        retention::drop_month(&own, month).await.unwrap().kept_from,
        Some(300)
    );
    db.sql(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

/// A month that is over, with messages in every conversation.
async fn past_month(db: &TestDatabase, months_ago: u32, messages: i64) -> DateTime<Utc> {
    let month = Utc::now()
        .checked_sub_months(chrono::Months::new(months_ago))
        .unwrap();
    let mut transaction = db.begin_transaction().await.unwrap();
    retention::create_partitions(&mut transaction, month, 1)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    db.sql(&format!(
        "WITH imported AS (
             INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
             SELECT c.id, gen_random_uuid(), c.creator, 'app', 0, 'x', message_month('{month}') + n * interval '1 minute'
               FROM conversations c, generate_series(1, {messages}) n
             RETURNING convo_id, id, sent_at)
         INSERT INTO message_ids (convo_id, id, sent_at) SELECT convo_id, id, sent_at FROM imported"
    ))
    .await;
    month
}

#[tokio::test]
async fn a_month_is_dropped_after_all_its_messages_are_logged() {
    for logged in [false, true] {
        let db = if logged {
            transparent(Options::default()).await
        } else {
            TestDatabase::new().await
        };
        let convo = db.conversation(&["alice"]).await;
        let month = past_month(&db, 3, 600).await;
        let later = past_month(&db, 2, 50).await;
        db.send(convo, "alice", 0).await.unwrap();
        let dropped = retention::drop_month(&db, month).await.unwrap();
        assert_eq!(dropped.messages, 600);
        assert_eq!(db.number("SELECT count(*) FROM messages").await, 51);
        assert_eq!(
            dropped.head.map(|head| head.tree_size),
            logged.then_some(651)
        );
        if logged {
            // What is left is proven, and of the rest of a tile the log knows that it was dropped.
            assert_eq!(dropped.kept_from, Some(600));
            assert_eq!(findings(&db).await, 0);
            let detached =
                "SELECT count(*) FROM verify_log('catbird_messages') WHERE kind = 'detached'";
            assert_eq!(db.number(detached).await, 600 - 512);
            assert_eq!(
                db.number("SELECT min(leaf_index) FROM merkle_log WHERE log_id > 0")
                    .await,
                512
            );
            let message = &db
                .list_messages(convo, &did("alice"), None, 1)
                .await
                .unwrap()
                .items[0];
            prove(&db, message, None)
                .await
                .unwrap()
                .verify_message(&message.into())
                .unwrap();
        }
        let error = retention::drop_month(&db, Utc::now()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        retention::drop_month(&db, later).await.unwrap();
        let error = retention::drop_month(&db, later).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

#[tokio::test]
async fn whatever_months_are_kept_a_dropped_one_reads_as_dropped_and_a_deletion_does_not() {
    let db = transparent(Options::default()).await;
    let convo = db.conversation(&["alice"]).await;
    // An older month is kept, and entries of both are logged in turns, as backfilled rows are.
    let (older, newer) = (past_month(&db, 3, 50).await, past_month(&db, 2, 50).await);
    for month in [older, newer, older] {
        db.sql(&format!(
            "INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
             SELECT convo_id, gen_random_uuid(), sender, message_type, epoch, ciphertext, sent_at
               FROM messages WHERE message_month(sent_at) = message_month('{month}')"
        ))
        .await;
        transparency::log_now(&db, Log::Messages).await.unwrap();
    }
    db.send(convo, "alice", 0).await.unwrap();
    let last = Utc::now();
    let dropped = retention::drop_month(&db, newer).await.unwrap();
    assert_eq!((dropped.messages, dropped.kept_from), (100, Some(0)));
    assert_eq!(findings(&db).await, 0);
    let detached = "SELECT count(*) FROM verify_log('catbird_messages') WHERE kind = 'detached'";
    assert_eq!(db.number(detached).await, 100);
    // The month is made again, and empty: still nothing is said to be deleted.
    let mut transaction = db.begin_transaction().await.unwrap();
    retention::create_partitions(&mut transaction, last, 15)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    db.send(convo, "alice", 0).await.unwrap();
    transparency::log_now(&db, Log::Messages).await.unwrap();
    assert_eq!(findings(&db).await, 0);
    db.sql(&format!(
        "SET session_replication_role = replica;
         DO $$ BEGIN
             EXECUTE format('ALTER TABLE %I DISABLE TRIGGER ALL', message_partition('{older}'));
             EXECUTE format('DELETE FROM %1$I WHERE id IN (SELECT id FROM %1$I LIMIT 3)', message_partition('{older}'));
         END $$;
         RESET session_replication_role"
    ))
    .await;
    assert_eq!(findings(&db).await, 3);
}

#[tokio::test]
async fn a_month_is_dropped_with_what_was_redacted_of_it() {
    let db = transparent(Options { salted: true }).await;
    let convo = db.conversation(&["alice"]).await;
    let month = past_month(&db, 2, 600).await;
    transparency::log_now(&db, Log::Messages).await.unwrap();
    db.sql("SELECT redact('catbird_messages', 3, 'by order')")
        .await;
    db.send(convo, "alice", 0).await.unwrap();
    let gone: Uuid = sqlx::query_scalar("SELECT id FROM messages ORDER BY sent_at LIMIT 1")
        .fetch_one(&mut *db.connection().await.unwrap())
        .await
        .unwrap();
    let dropped = retention::drop_month(&db, month).await.unwrap();
    // After the month's 600 came what says that one is redacted, then Alice's message.
    assert_eq!((dropped.messages, dropped.kept_from), (600, Some(601)));
    assert_eq!(dropped.head.unwrap().tree_size, 602);
    let message = &db
        .list_messages(convo, &did("alice"), None, 1)
        .await
        .unwrap()
        .items[0];
    let proof = prove(&db, message, None).await.unwrap();
    proof.verify_message(&message.into()).unwrap();
    let mut connection = db.connection().await.unwrap();
    let error = transparency::prove_message(&mut connection, convo, gone, None).await;
    assert!(matches!(error, Err(Error::Erased { .. })), "{error:?}");
}

#[tokio::test]
async fn a_month_with_messages_past_the_log_is_not_dropped_before_they_are_logged() {
    let db = transparent(Options::default()).await;
    db.conversation(&["alice"]).await;
    let month = past_month(&db, 2, 5).await;
    transparency::log_now(&db, Log::Messages).await.unwrap();
    db.sql(&format!(
        "ALTER TABLE messages DISABLE TRIGGER ALL;
         DO $$ BEGIN
             EXECUTE format('ALTER TABLE %I DISABLE TRIGGER ALL', message_partition('{month}'));
         END $$;
         INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         SELECT convo_id, gen_random_uuid(), sender, message_type, epoch, ciphertext, sent_at FROM messages"
    ))
    .await;
    let error = retention::drop_month(&db, month).await.unwrap_err();
    assert!(
        matches!(error, Error::Unlogged { messages: 5, .. }),
        "{error}"
    );
    assert_eq!(db.number("SELECT count(*) FROM messages").await, 10);
    db.sql("SELECT repair_capture('catbird_messages', 'messages')")
        .await;
    let dropped = retention::drop_month(&db, month).await.unwrap();
    assert_eq!(
        (dropped.messages, dropped.head.unwrap().tree_size),
        (10, 10)
    );
}

#[tokio::test]
async fn a_month_that_could_not_be_dropped_is_whole() {
    let db =
        TestDatabase::with(|config| config.lock_timeout = std::time::Duration::from_secs(1)).await;
    db.sql("CREATE EXTENSION merkle_log").await;
    register(&db, Options::default()).await;
    db.conversation(&["alice"]).await;
    let month = past_month(&db, 2, 600).await;
    let mut reader = db.begin_transaction().await.unwrap();
    let read = sqlx::query("SELECT FROM messages LIMIT 1").execute(&mut *reader);
    read.await.unwrap();
    let error = retention::drop_month(&db, month).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    assert_eq!(db.number("SELECT count(*) FROM messages").await, 600);
    assert_eq!(findings(&db).await, 0);
    assert_eq!(
        db.number("SELECT pruned_to FROM merkle_log_status WHERE log_name = 'catbird_messages'")
            .await,
        0
    );
    reader.rollback().await.unwrap();
    retention::drop_month(&db, month).await.unwrap();
}

/// As time goes by: the archive begins later than a month that was made in it.
async fn make_hot(db: &TestDatabase, month: DateTime<Utc>) {
    db.sql("ALTER TABLE messages DETACH PARTITION messages_archive")
        .await;
    db.sql(&format!(
        "DO $$ DECLARE start timestamptz := message_month('{month}'); BEGIN
             EXECUTE format('ALTER TABLE messages_archive DETACH PARTITION %I', message_partition(start));
             EXECUTE format('ALTER TABLE messages ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', message_partition(start), start, next_message_month(start));
             EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_archive FOR VALUES FROM (MINVALUE) TO (%L)', start);
         END $$"
    ))
    .await;
}

#[tokio::test]
async fn an_archived_month_is_read_and_proven_as_before() {
    let db = transparent(Options::default()).await;
    let convo = db.conversation(&["alice"]).await;
    db.sql("UPDATE members SET joined_at = joined_at - interval '1 year'")
        .await;
    let old = past_month(&db, 2, 5).await;
    db.send(convo, "alice", 0).await.unwrap();
    transparency::log_now(&db, Log::Messages).await.unwrap();
    let before = db
        .list_messages(convo, &did("alice"), None, 50)
        .await
        .unwrap();
    assert_eq!(before.items.len(), 6);
    // Months before the first are made in the archive; the present one is not over.
    let error = retention::archive(&db, Utc::now(), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let archived = "SELECT count(*) FROM messages_archive";
    assert_eq!(db.number(archived).await, 5);
    make_hot(&db, old).await;
    assert_eq!(db.number(archived).await, 0);
    // Again changes nothing.
    for _ in 0..2 {
        retention::archive(&db, old, None).await.unwrap();
        assert_eq!(db.number(archived).await, 5);
    }
    assert_eq!(
        db.list_messages(convo, &did("alice"), None, 50)
            .await
            .unwrap(),
        before
    );
    for message in &before.items {
        let proof = prove(&db, message, None).await.unwrap();
        proof.verify_message(&message.into()).unwrap();
    }
    assert_eq!(findings(&db).await, 0);
    assert_eq!(
        db.number("SELECT count(*) FROM merkle_log_coverage").await,
        0
    );
}

#[tokio::test]
async fn months_are_archived_in_order_also_past_one_that_was_dropped() {
    let db = TestDatabase::new().await;
    db.conversation(&["alice"]).await;
    let months = [
        past_month(&db, 4, 5).await,
        past_month(&db, 3, 5).await,
        past_month(&db, 2, 5).await,
    ];
    for month in months.iter().rev() {
        make_hot(&db, *month).await;
    }
    let error = retention::archive(&db, months[1], None).await.unwrap_err();
    assert!(matches!(error, Error::ArchiveOrder { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let next = months[0].format("%Y-%m").to_string();
    assert!(error.to_string().starts_with(&next), "{error}");
    retention::archive(&db, months[0], None).await.unwrap();
    retention::drop_month(&db, months[1]).await.unwrap();
    retention::archive(&db, months[2], None).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM messages_archive").await, 10);
    // A month before the archive's end is made in it.
    past_month(&db, 3, 5).await;
    assert_eq!(db.number("SELECT count(*) FROM messages_archive").await, 15);
}

#[tokio::test]
async fn servers_that_start_together_register_and_make_partitions_once() {
    let db = TestDatabase::new().await;
    db.sql("CREATE EXTENSION merkle_log").await;
    let start = async || {
        let mut transaction = db.begin_transaction().await?;
        transparency::register(&mut transaction, Options::default()).await?;
        transaction.commit().await?;
        let mut transaction = db.begin_transaction().await?;
        let made = retention::create_partitions(&mut transaction, Utc::now(), 15).await?;
        transaction.commit().await?;
        Ok::<_, Error>(made)
    };
    let (a, b, c) = tokio::try_join!(start(), start(), start()).unwrap();
    assert_eq!(a + b + c, 3);
    assert_eq!(
        db.number("SELECT count(*) FROM merkle_log_coverage").await,
        0
    );
    // One of the logs gone, registration makes it again.
    db.sql("SELECT drop_log('catbird_key_packages', confirm => true)")
        .await;
    assert_eq!(start().await.unwrap(), 0);
    assert!(db.health_check().await.unwrap().transparent);
    assert_eq!(db.number("SELECT count(*) FROM merkle_log_status").await, 3);
}

#[tokio::test]
async fn partitions_are_made_ahead_and_a_month_without_one_is_refused() {
    let db = transparent(Options::default()).await;
    let ahead = db.health_check().await.unwrap().partitions_until;
    assert!(ahead > Utc::now() + TimeDelta::days(300));
    let mut transaction = db.begin_transaction().await.unwrap();
    assert_eq!(
        retention::create_partitions(&mut transaction, Utc::now(), 14)
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        retention::create_partitions(&mut transaction, Utc::now(), 14)
            .await
            .unwrap(),
        0
    );
    transaction.commit().await.unwrap();
    assert!(db.health_check().await.unwrap().partitions_until > ahead);
    assert_eq!(
        db.number("SELECT count(*) FROM merkle_log_coverage").await,
        0
    );
}

#[tokio::test]
async fn sizes_that_a_log_never_had_and_logs_that_are_not_there_are_told_apart_from_faults() {
    let db = TestDatabase::new().await;
    let alice = did("alice");
    for installed in [false, true] {
        if installed {
            db.sql("CREATE EXTENSION merkle_log").await;
        }
        let mut connection = db.connection().await.unwrap();
        let log = Log::KeyPackages;
        for error in [
            transparency::tree_head(&mut connection, log)
                .await
                .unwrap_err(),
            transparency::prove_consistency(&mut connection, log, 0, None)
                .await
                .unwrap_err(),
            transparency::prove_key_package(&mut connection, &alice, 1, None)
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(error, Error::NotRegistered), "{error:?}");
        }
    }
    register(&db, Options::default()).await;
    let convo = db.conversation(&["alice"]).await;
    for _ in 0..3 {
        db.send(convo, "alice", 0).await.unwrap();
    }
    transparency::log_now(&db, Log::Messages).await.unwrap();
    let mut connection = db.connection().await.unwrap();
    for (old, new) in [
        (4, None),
        (1_000_000, None),
        (3, Some(2)),
        (1, Some(4)),
        (5, Some(6)),
        (u64::MAX, None),
    ] {
        let proof = transparency::prove_consistency(&mut connection, Log::Messages, old, new).await;
        let error = proof.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{old} {new:?}: {error}");
    }
    for (old, new) in [(0, None), (3, None), (2, Some(2))] {
        let proof = transparency::prove_consistency(&mut connection, Log::Messages, old, new).await;
        proof.unwrap();
    }
}

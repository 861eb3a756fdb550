//! catbird_db on servers that crash, follow and log in the background.

use catbird_db::transparency::{self, Options};
use catbird_db::*;
use server_tests::{Cluster, findings, until};
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use uuid::Uuid;

fn url(cluster: &Cluster) -> String {
    format!(
        "postgres:///postgres?host={}&user=postgres",
        cluster.socket().display()
    )
}

fn did(name: &str) -> Did {
    format!("did:plc:{name}").parse().unwrap()
}

fn message<'a>(convo_id: Uuid, id: Uuid, sender: &'a Did) -> NewMessage<'a> {
    NewMessage {
        convo_id,
        id,
        sender,
        message_type: MessageType::App,
        epoch: 0,
        ciphertext: b"sealed",
    }
}

async fn send(db: &Database, convo: Uuid, sender: &Did) -> Result<Sent> {
    let message = message(convo, Uuid::new_v4(), sender);
    db.create_message(&message, PastEpochs::Refuse).await
}

async fn connect(config: &Config) -> (Database, Uuid) {
    let db = Database::connect(config).await.unwrap();
    db.migrate().await.unwrap();
    let convo = Uuid::new_v4();
    let made = db
        .create_conversation_with_members(convo, &did("alice"), None, &[did("bob")])
        .await;
    made.unwrap();
    (db, convo)
}

/// Asks until there is an answer that will do; fails after 30 s.
async fn eventually<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "still no answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_message_whose_answer_a_crash_took_is_sent_again_and_stored_once() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let mut config = Config::new(url(&cluster));
    config.acquire_timeout = Duration::from_secs(5);
    let (db, convo) = runtime.block_on(connect(&config));
    let alice = did("alice");
    for _ in 0..3 {
        // Sends until the server is killed; the last one may or may not have been stored.
        let sender = runtime.spawn({
            let (db, alice) = (db.clone(), alice.clone());
            async move {
                let mut acknowledged = Vec::new();
                loop {
                    let id = Uuid::new_v4();
                    match db
                        .create_message(&message(convo, id, &alice), PastEpochs::Refuse)
                        .await
                    {
                        Ok(_) => acknowledged.push(id),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
                            return (acknowledged, id);
                        }
                    }
                }
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        cluster.kill_9();
        let (acknowledged, unknown) = runtime.block_on(sender).unwrap();
        assert!(!acknowledged.is_empty());
        cluster.restart();
        runtime.block_on(async {
            let again = || async {
                let sent = db
                    .create_message(&message(convo, unknown, &alice), PastEpochs::Refuse)
                    .await;
                sent.map_err(|error| assert_eq!(error.kind(), ErrorKind::Retryable))
                    .ok()
            };
            eventually(again).await;
            assert!(again().await.unwrap().duplicate);
            for id in acknowledged.iter().chain([&unknown]) {
                db.get_message(convo, *id, &alice).await.unwrap();
            }
        });
    }
    let mut client = cluster.client("postgres");
    let agree = "SELECT (SELECT count(*) FROM messages) = (SELECT count(*) FROM message_ids)
                    AND (SELECT count(*) FROM messages) = (SELECT unread_count FROM members WHERE member_did = 'did:plc:bob')";
    until(&mut client, agree);
}

#[test]
fn pages_come_from_a_standby_which_takes_over_when_it_is_promoted() {
    let primary = Cluster::start();
    let standby = Cluster::standby_of(&primary);
    let runtime = Runtime::new().unwrap();
    let mut config = Config::new(url(&primary));
    config.read_url = Some(url(&standby));
    let (db, convo) = runtime.block_on(connect(&config));
    let (alice, bob) = (did("alice"), did("bob"));
    standby.catches_up_with(&primary);
    runtime.block_on(async {
        for n in 1..=20 {
            send(&db, convo, &alice).await.unwrap();
            eventually(|| async {
                (db.count_messages(convo, &bob).await.unwrap() == n).then_some(())
            })
            .await;
        }
        assert!(db.health_check().await.is_ok());
    });
    // The primary is gone: what was replicated is still read, and nothing is written.
    primary.stop();
    runtime.block_on(async {
        assert_eq!(
            db.list_messages(convo, &bob, None, 50)
                .await
                .unwrap()
                .items
                .len(),
            20
        );
        let sent = send(&db, convo, &alice).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::Retryable);
    });
    standby.promote();
    runtime.block_on(async {
        let db = Database::connect(&Config::new(url(&standby)))
            .await
            .unwrap();
        let sent = send(&db, convo, &alice).await;
        let page = db.list_messages(convo, &bob, None, 1).await.unwrap();
        assert_eq!(page.items[0].sent_at, sent.unwrap().sent_at);
    });
}

#[test]
fn the_background_worker_logs_what_is_sent_and_a_receiver_proves_it() {
    let cluster =
        Cluster::with("shared_preload_libraries = 'merkle_log'\nmerkle_log.databases = 'postgres'");
    let runtime = Runtime::new().unwrap();
    let (db, convo) = runtime.block_on(connect(&Config::new(url(&cluster))));
    let alice = did("alice");
    let proven = runtime.block_on(async {
        let mut transaction = db.begin_transaction().await.unwrap();
        transparency::register(&mut transaction, Options::default())
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        for _ in 0..50 {
            send(&db, convo, &alice).await.unwrap();
        }
        let messages = db
            .list_messages(convo, &did("bob"), None, 50)
            .await
            .unwrap()
            .items;
        let mut proven = 0;
        for message in messages {
            let proof = eventually(|| async {
                let mut connection = db.connection().await.unwrap();
                match transparency::prove_message(&mut connection, convo, message.id, None).await {
                    Err(Error::NotYetLogged { .. }) => None,
                    proof => Some(proof.unwrap()),
                }
            });
            proof.await.verify_message(&(&message).into()).unwrap();
            proven += 1;
        }
        proven
    });
    assert_eq!(proven, 50);
    let mut client = cluster.client("postgres");
    assert!(findings(&mut client, "catbird_messages").is_empty());
}

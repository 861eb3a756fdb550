//! One order, seen by everyone; each message once.

mod server;

use catbird_db::*;
use futures::future::{join_all, try_join_all};
use server::{TestDatabase, did, message};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

async fn forward(db: &Database, convo: Uuid, reader: &Did, limit: u16) -> Vec<Uuid> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = db
            .list_messages_since(convo, reader, after, limit)
            .await
            .unwrap();
        seen.extend(page.items.iter().map(|message| message.id));
        after = page.next;
        if after.is_none() {
            return seen;
        }
    }
}

#[tokio::test]
async fn messages_that_share_a_time_are_paged_through_once_each() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    // As an import from another server brings them: a hundred in the same microsecond, thrice.
    db.sql(
        "INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         SELECT c.id, gen_random_uuid(), 'did:plc:alice', 'app', 0, 'x', c.clock + (n % 3) * interval '1 second'
           FROM conversations c, generate_series(1, 300) n WHERE c.clock + interval '3 seconds' < date_trunc('month', c.clock) + interval '1 month'",
    )
    .await;
    let stored = db.number("SELECT count(*) FROM messages").await as usize;
    assert_eq!(stored, 300);
    let alice = did("alice");
    for limit in [1, 7, 100, 200] {
        let seen = forward(&db, convo, &alice, limit).await;
        assert_eq!(seen.len(), stored);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), stored);
        let (mut back, mut before) = (Vec::new(), None);
        loop {
            let page = db
                .list_messages(convo, &alice, before, limit)
                .await
                .unwrap();
            back.extend(page.items.iter().map(|message| message.id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        back.reverse();
        assert_eq!(back, seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_follows_busy_writers_misses_nothing() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let bob = did("bob");
    let done = AtomicBool::new(false);
    let writers = async {
        let writer = || async {
            for _ in 0..50 {
                db.send(convo, "alice", 0).await?;
            }
            Ok::<(), Error>(())
        };
        try_join_all((0..8).map(|_| writer())).await.unwrap();
        done.store(true, Ordering::Relaxed);
    };
    // Goes on from the last message it saw, and never looks back.
    let reader = async {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let last = done.load(Ordering::Relaxed);
            let page = db
                .list_messages_since(convo, &bob, after, 200)
                .await
                .unwrap();
            after = page.items.last().map(Message::cursor).or(after);
            seen.extend(page.items.into_iter().map(|message| message.sent_at));
            if last && page.next.is_none() {
                break seen;
            }
        }
    };
    let ((), seen) = tokio::join!(writers, reader);
    assert_eq!(seen.len(), 400);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_where_they_are_while_messages_come() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    for _ in 0..30 {
        db.send(convo, "alice", 0).await.unwrap();
    }
    let before_all = forward(&db, convo, &alice, 200).await;
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = db.list_messages(convo, &alice, before, 4).await.unwrap();
        seen.extend(page.items.iter().map(|message| message.id));
        join_all((0..3).map(|_| db.send(convo, "alice", 0))).await;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    seen.reverse();
    assert_eq!(seen, before_all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_sent_again_is_stored_once() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let alice = did("alice");
    for _ in 0..20 {
        let message = message(convo, &alice);
        let send = || db.create_message(&message, PastEpochs::Refuse);
        let sent = try_join_all((0..8).map(|_| send())).await.unwrap();
        assert_eq!(sent.iter().filter(|sent| !sent.duplicate).count(), 1);
        assert!(sent.iter().all(|s| s.sent_at == sent[0].sent_at));
        let other = NewMessage {
            ciphertext: b"other",
            ..message
        };
        let error = db
            .create_message(&other, PastEpochs::Refuse)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::MessageIdTaken { .. }));
    }
    assert_eq!(db.number("SELECT count(*) FROM messages").await, 20);
    let bob = db
        .get_membership(convo, &did("bob"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bob.unread_count, 20);
}

#[tokio::test]
async fn a_deleted_message_does_not_come_back_by_a_late_retry() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    let message = message(convo, &alice);
    db.create_message(&message, PastEpochs::Refuse)
        .await
        .unwrap();
    db.delete_message(convo, message.id).await.unwrap();
    assert!(
        db.create_message(&message, PastEpochs::Refuse)
            .await
            .unwrap()
            .duplicate
    );
    let error = db.delete_message(convo, Uuid::nil()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for _ in 0..2 {
        db.delete_message(convo, message.id).await.unwrap();
        let error = db.get_message(convo, message.id, &alice).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_message_of_a_past_epoch_is_refused_or_kept_as_the_caller_says() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let (alice, bob) = (did("alice"), did("bob"));
    let message = |sender, message_type, epoch| NewMessage {
        message_type,
        epoch,
        ..message(convo, sender)
    };
    for epoch in 0..3 {
        let removed = if epoch == 1 {
            vec![bob.clone()]
        } else {
            vec![]
        };
        let commit = Commit {
            message: message(&alice, MessageType::Commit, epoch),
            added: &[],
            removed: &removed,
            welcome: None,
        };
        db.update_epoch(&commit).await.unwrap();
    }
    // At epoch 3 now. Bob was in at 0 and 1.
    let send = async |sender, epoch, policy| {
        let sent = db
            .create_message(&message(sender, MessageType::App, epoch), policy)
            .await;
        sent.map_err(|error| match error {
            Error::EpochConflict { current: 3, .. } => "epoch",
            Error::NotAMember { .. } => "member",
            _ => panic!("{error}"),
        })
    };
    assert!(send(&alice, 3, PastEpochs::Refuse).await.is_ok());
    assert_eq!(
        send(&alice, 2, PastEpochs::Refuse).await.unwrap_err(),
        "epoch"
    );
    assert_eq!(
        send(&alice, 4, PastEpochs::Keep(5)).await.unwrap_err(),
        "epoch"
    );
    assert!(send(&alice, 2, PastEpochs::Keep(1)).await.is_ok());
    assert_eq!(
        send(&alice, 1, PastEpochs::Keep(1)).await.unwrap_err(),
        "epoch"
    );
    assert!(send(&bob, 1, PastEpochs::Keep(2)).await.is_ok());
    assert_eq!(
        send(&bob, 2, PastEpochs::Keep(2)).await.unwrap_err(),
        "member"
    );
    // What is about the group itself is of its present epoch, or nothing.
    let proposal = message(&alice, MessageType::Proposal, 2);
    let error = db
        .create_message(&proposal, PastEpochs::Keep(2))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::EpochConflict { .. }));
    let commit = message(&alice, MessageType::Commit, 3);
    let error = db
        .create_message(&commit, PastEpochs::Refuse)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn sizes_are_bounded() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    for (length, fits) in [
        (0, false),
        (1, true),
        (1 << 20, true),
        ((1 << 20) + 1, false),
    ] {
        let message = NewMessage {
            ciphertext: &vec![7; length],
            ..message(convo, &alice)
        };
        match db.create_message(&message, PastEpochs::Refuse).await {
            Ok(_) => {
                assert!(fits);
                let found = db.get_message(convo, message.id, &alice).await.unwrap();
                assert_eq!(found.ciphertext.len(), length);
            }
            Err(error) => assert!(!fits && error.kind() == ErrorKind::Invalid, "{error}"),
        }
    }
    for limit in [0, MAX_PAGE + 1] {
        let error = db
            .list_messages(convo, &alice, None, limit)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert!("did:plc:".to_owned().parse::<Did>().is_err());
    assert!(
        format!("did:plc:{}", "x".repeat(600))
            .parse::<Did>()
            .is_err()
    );
    for text in [
        "",
        "did:",
        "did:PLC:x",
        "did:plc:a b",
        "did:plc:x:",
        "plc:x",
        "did:plc:x'--",
    ] {
        assert!(text.parse::<Did>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn who_was_never_in_learns_neither_ids_nor_epochs() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let (alice, bob, stranger) = (did("alice"), did("bob"), did("stranger"));
    let (kept, deleted) = (message(convo, &alice), message(convo, &alice));
    for message in [&kept, &deleted] {
        db.create_message(message, PastEpochs::Refuse)
            .await
            .unwrap();
    }
    db.delete_message(convo, deleted.id).await.unwrap();
    for message in [&kept, &deleted] {
        for epoch in [0, 7] {
            let theirs = NewMessage {
                sender: &stranger,
                epoch,
                ..*message
            };
            let error = db
                .create_message(&theirs, PastEpochs::Refuse)
                .await
                .unwrap_err();
            assert!(matches!(error, Error::NotAMember { .. }), "{error}");
        }
        let theirs = NewMessage {
            sender: &bob,
            ..*message
        };
        let error = db
            .create_message(&theirs, PastEpochs::Refuse)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::MessageIdTaken { .. }), "{error}");
    }
    // The sender's own retry is answered also when they have left since.
    db.remove_member(convo, &alice).await.unwrap();
    for message in [&kept, &deleted] {
        let sent = db
            .create_message(message, PastEpochs::Refuse)
            .await
            .unwrap();
        assert!(sent.duplicate);
    }
}

#[tokio::test]
async fn a_loop_over_pages_ends_with_the_last_one() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    for _ in 0..5 {
        db.send(convo, "alice", 0).await.unwrap();
    }
    // As the documentation writes it.
    let mut seen = 0;
    let mut page = db.list_messages(convo, &alice, None, 2).await.unwrap();
    loop {
        seen += page.items.len();
        let Some(next) = page.next else { break };
        page = db
            .list_messages(convo, &alice, Some(next), 2)
            .await
            .unwrap();
    }
    assert_eq!(seen, 5);
}

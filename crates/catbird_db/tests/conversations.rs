//! Conversations and their epochs.

mod server;

use catbird_db::*;
use futures::future::join_all;
use server::{TestDatabase, did, message};
use uuid::Uuid;

fn commit<'a>(convo_id: Uuid, sender: &'a Did, epoch: i64) -> Commit<'a> {
    Commit {
        message: NewMessage {
            message_type: MessageType::Commit,
            epoch,
            ..message(convo_id, sender)
        },
        added: &[],
        removed: &[],
        welcome: None,
    }
}

#[tokio::test]
async fn a_conversation_is_made_once_and_found_by_its_members() {
    let db = TestDatabase::new().await;
    let (alice, bob) = (did("alice"), did("bob"));
    let id = Uuid::now_v7();
    let members = [bob.clone(), bob.clone(), alice.clone()];
    let made = db.create_conversation_with_members(id, &alice, Some("Birds"), &members);
    let made = made.await.unwrap();
    assert_eq!((made.epoch, made.title.as_deref()), (0, Some("Birds")));
    assert_eq!(
        db.create_conversation(id, &alice, None).await.unwrap(),
        made
    );
    assert_eq!(db.get_conversation(id).await.unwrap(), made);
    assert_eq!(db.list_members(id, None, 10).await.unwrap().len(), 2);
    let error = db.create_conversation(id, &bob, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = db.get_conversation(Uuid::nil()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for (title, fits) in [
        ("", false),
        (&"é".repeat(256), true),
        (&"é".repeat(257), false),
    ] {
        let made = db.create_conversation(Uuid::now_v7(), &bob, Some(title));
        let kind = made.await.map_err(|error| error.kind());
        assert_eq!(kind.err(), (!fits).then_some(ErrorKind::Invalid));
    }
}

#[tokio::test]
async fn a_list_of_conversations_pages_through_the_active_ones() {
    let db = TestDatabase::new().await;
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(db.conversation(&["alice", "bob"]).await);
    }
    db.remove_member(made[3], &did("bob")).await.unwrap();
    made.remove(3);
    made.reverse();
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = db.list_conversations(&did("bob"), before, 2).await.unwrap();
        seen.extend(page.items.iter().map(|listed| listed.conversation.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);
    for limit in [0, MAX_PAGE + 1] {
        let error = db.list_conversations(&did("bob"), None, limit).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_commits_exactly_one_wins_and_the_others_learn_the_epoch() {
    let db = TestDatabase::new().await;
    let names: Vec<String> = (0..8).map(|n| format!("member{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let convo = db.conversation(&names).await;
    let dids: Vec<Did> = names.iter().map(|name| did(name)).collect();
    for epoch in 0..20 {
        let commits: Vec<_> = dids.iter().map(|did| commit(convo, did, epoch)).collect();
        let results = join_all(commits.iter().map(|commit| db.update_epoch(commit))).await;
        let won: Vec<_> = results
            .iter()
            .filter_map(|result| result.as_ref().ok())
            .collect();
        assert_eq!(won.len(), 1);
        assert_eq!(won[0].epoch, epoch + 1);
        for lost in results.iter().filter_map(|result| result.as_ref().err()) {
            assert!(
                matches!(lost, Error::EpochConflict { current, .. } if *current == epoch + 1),
                "{lost}"
            );
        }
        assert_eq!(db.get_current_epoch(convo).await.unwrap(), epoch + 1);
    }
    assert_eq!(db.number("SELECT count(*) FROM messages").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_sent_twice_at_once_wins_both_times() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    for epoch in 0..20 {
        let commit = commit(convo, &alice, epoch);
        let results = join_all((0..4).map(|_| db.update_epoch(&commit))).await;
        let sent: Vec<Sent> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(sent.iter().filter(|sent| !sent.duplicate).count(), 1);
        assert!(
            sent.iter()
                .all(|s| s.sent_at == sent[0].sent_at && s.epoch == epoch + 1)
        );
    }
}

#[tokio::test]
async fn an_epoch_moves_by_one_whoever_moves_it() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    for epoch in [-1, 1, 7] {
        let error = db
            .update_epoch(&commit(convo, &alice, epoch))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::EpochConflict { current: 0, .. }),
            "{error}"
        );
    }
    db.update_epoch(&commit(convo, &alice, 0)).await.unwrap();
    for epoch in [0, 3] {
        let error = sqlx::query("UPDATE conversations SET epoch = $1").bind(epoch as i64);
        let error = Error::from(
            error
                .execute(&mut *db.connection().await.unwrap())
                .await
                .unwrap_err(),
        );
        // No client of the crate comes here: it is a fault of whoever writes past it.
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    }
    // A second commit of an epoch is refused by an index, too.
    let second = sqlx::query(
        "INSERT INTO message_ids SELECT convo_id, gen_random_uuid(), sent_at, 0 FROM message_ids",
    );
    let error = second
        .execute(&mut *db.connection().await.unwrap())
        .await
        .unwrap_err();
    assert!(error.as_database_error().unwrap().is_unique_violation());
}

#[tokio::test]
async fn a_commit_brings_its_members_and_welcome_or_nothing() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let (alice, bob, carol) = (did("alice"), did("bob"), did("carol"));
    let welcome = Welcome {
        id: Uuid::new_v4(),
        ciphertext: b"welcome",
    };
    let change = Commit {
        added: std::slice::from_ref(&carol),
        removed: std::slice::from_ref(&bob),
        welcome: Some(welcome),
        ..commit(convo, &alice, 0)
    };
    // The welcome's id is taken by the commit itself, so it cannot be stored: nothing is.
    let mut broken = change;
    broken.welcome = Some(Welcome {
        id: change.message.id,
        ..welcome
    });
    assert!(matches!(
        db.update_epoch(&broken).await,
        Err(Error::MessageIdTaken { .. })
    ));
    assert_eq!(db.get_current_epoch(convo).await.unwrap(), 0);
    assert!(!db.is_member(convo, &carol).await.unwrap());
    assert!(db.is_member(convo, &bob).await.unwrap());
    assert_eq!(db.number("SELECT count(*) FROM message_ids").await, 0);

    db.update_epoch(&change).await.unwrap();
    assert!(db.is_member(convo, &carol).await.unwrap());
    assert!(!db.is_member(convo, &bob).await.unwrap());
    let types =
        |page: Page<Message>| -> Vec<_> { page.items.iter().map(|m| m.message_type).collect() };
    let seen = types(
        db.list_messages_since(convo, &carol, None, 10)
            .await
            .unwrap(),
    );
    assert_eq!(seen, [MessageType::Welcome]);
    let seen = types(db.list_messages_since(convo, &bob, None, 10).await.unwrap());
    assert_eq!(seen, [MessageType::Commit]);
    // They may send from the new epoch on, and until the old one.
    assert!(db.send(convo, "carol", 1).await.is_ok());
    assert!(matches!(
        db.send(convo, "bob", 1).await,
        Err(Error::NotAMember { .. })
    ));
}

#[tokio::test]
async fn deleting_a_conversation_takes_everything_in_it() {
    let db = TestDatabase::new().await;
    let (convo, other) = (
        db.conversation(&["alice", "bob"]).await,
        db.conversation(&["alice"]).await,
    );
    for convo in [convo, other] {
        db.send(convo, "alice", 0).await.unwrap();
        let data = convo.as_bytes();
        let cid = blobs::cid_of(data).unwrap();
        db.store_blob(&cid, data, &did("alice"), Some(convo))
            .await
            .unwrap();
    }
    db.delete_conversation(convo).await.unwrap();
    for table in [
        "conversations",
        "members",
        "messages",
        "message_ids",
        "blobs",
        "blob_references",
    ] {
        assert_eq!(
            db.number(&format!("SELECT count(*) FROM {table}")).await,
            1,
            "{table}"
        );
    }
    let error = db.delete_conversation(convo).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_commit_takes_out_whoever_is_still_in() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob", "carol"]).await;
    let (alice, bob, carol) = (did("alice"), did("bob"), did("carol"));
    // Bob leaves, and then the group commits to it; Carol is listed twice.
    let left = db.remove_member(convo, &bob).await.unwrap();
    let removed = [bob.clone(), carol.clone(), carol.clone()];
    let change = Commit {
        removed: &removed,
        ..commit(convo, &alice, 0)
    };
    assert_eq!(db.update_epoch(&change).await.unwrap().epoch, 1);
    assert_eq!(db.get_membership(convo, &bob).await.unwrap(), Some(left));
    assert!(!db.is_member(convo, &carol).await.unwrap());
    assert!(db.is_member(convo, &alice).await.unwrap());
}

#[tokio::test]
async fn a_retry_is_answered_as_the_first_try_was_however_late() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    let before = message(convo, &alice);
    let first = db
        .create_message(&before, PastEpochs::Refuse)
        .await
        .unwrap();
    let commits: Vec<Commit> = (0..3).map(|epoch| commit(convo, &alice, epoch)).collect();
    let mut answers = Vec::new();
    for commit in &commits {
        answers.push(db.update_epoch(commit).await.unwrap());
    }
    let as_first = |sent: Sent| Sent {
        duplicate: false,
        ..sent
    };
    for deleted in [false, true] {
        if deleted {
            for id in commits
                .iter()
                .map(|commit| commit.message.id)
                .chain([before.id])
            {
                db.delete_message(convo, id).await.unwrap();
            }
        }
        let again = db
            .create_message(&before, PastEpochs::Refuse)
            .await
            .unwrap();
        assert!(again.duplicate);
        assert_eq!(as_first(again), first);
        for (commit, answer) in commits.iter().zip(&answers) {
            let again = db.update_epoch(commit).await.unwrap();
            assert!(again.duplicate);
            assert_eq!(as_first(again), *answer);
        }
    }
    let added = db.add_member(convo, &did("bob")).await.unwrap();
    assert_eq!(db.add_member(convo, &did("bob")).await.unwrap(), added);
}

#[tokio::test]
async fn a_commit_or_welcome_is_not_taken_for_a_message_that_was_deleted() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let (alice, bob) = (did("alice"), did("bob"));
    let deleted = message(convo, &alice);
    db.create_message(&deleted, PastEpochs::Refuse)
        .await
        .unwrap();
    db.delete_message(convo, deleted.id).await.unwrap();
    let added = [bob.clone()];
    let fresh = commit(convo, &alice, 0);
    let as_commit = Commit {
        message: NewMessage {
            id: deleted.id,
            ..fresh.message
        },
        added: &added,
        ..fresh
    };
    let as_welcome = Commit {
        added: &added,
        welcome: Some(Welcome {
            id: deleted.id,
            ciphertext: b"welcome",
        }),
        ..fresh
    };
    for commit in [as_commit, as_welcome] {
        let error = db.update_epoch(&commit).await.unwrap_err();
        assert!(matches!(error, Error::MessageIdTaken { id, .. } if id == deleted.id));
        assert_eq!(db.get_current_epoch(convo).await.unwrap(), 0);
        assert!(!db.is_member(convo, &bob).await.unwrap());
    }
    // Nor a commit of another epoch for the one that was, nor any message for a commit.
    db.update_epoch(&fresh).await.unwrap();
    db.delete_message(convo, fresh.message.id).await.unwrap();
    assert!(db.update_epoch(&fresh).await.unwrap().duplicate);
    let next = Commit {
        message: NewMessage {
            epoch: 1,
            ..fresh.message
        },
        ..fresh
    };
    let app = NewMessage {
        message_type: MessageType::App,
        ..next.message
    };
    for error in [
        db.update_epoch(&next).await.unwrap_err(),
        db.create_message(&app, PastEpochs::Refuse)
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, Error::MessageIdTaken { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_made_again_while_it_is_deleted() {
    let db = TestDatabase::new().await;
    let id = Uuid::new_v4();
    let alice = did("alice");
    let creates = async || {
        for _ in 0..100 {
            db.create_conversation(id, &alice, None).await?;
        }
        Ok::<(), Error>(())
    };
    let deletes = async || {
        for _ in 0..100 {
            match db.delete_conversation(id).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    tokio::try_join!(
        creates(),
        creates(),
        creates(),
        deletes(),
        deletes(),
        deletes()
    )
    .unwrap();
}

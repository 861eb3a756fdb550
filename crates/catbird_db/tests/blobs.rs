//! Blobs are what their names say.

mod server;

use catbird_db::*;
use futures::future::join_all;
use server::{TestDatabase, did, message};
use uuid::Uuid;

#[tokio::test]
async fn a_blob_is_stored_under_its_own_name_only() {
    let db = TestDatabase::new().await;
    let alice = did("alice");
    let cid = blobs::cid_of(b"picture").unwrap();
    let stored = db.store_blob(&cid, b"picture", &alice, None).await.unwrap();
    assert_eq!(
        db.store_blob(&cid, b"picture", &alice, None).await.unwrap(),
        stored
    );
    assert_eq!(db.get_blob(&cid).await.unwrap().data, b"picture");
    let too_long = vec![0; blobs::MAX_BLOB + 1];
    for (cid, data) in [
        (&cid[..], &b"another"[..]),
        ("bafk", b"picture"),
        ("", b"picture"),
        (&cid, b""),
        (&cid, &too_long),
    ] {
        let error = db.store_blob(cid, data, &alice, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    // The same digest under another codec is another name.
    let text = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    assert!(db.store_blob(text, b"picture", &alice, None).await.is_err());
}

#[test]
fn a_name_is_the_one_that_others_compute() {
    // Python: base32 of 01 55 12 20 and hashlib.sha256 of the data.
    let cid = blobs::cid_of(b"hello world").unwrap();
    assert_eq!(
        cid,
        "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    );
}

#[tokio::test]
async fn nobody_deletes_or_counts_the_copy_of_another() {
    let db = TestDatabase::new().await;
    let (alice, bob) = (did("alice"), did("bob"));
    let cid = blobs::cid_of(b"shared").unwrap();
    for uploader in [&alice, &bob] {
        db.store_blob(&cid, b"shared", uploader, None)
            .await
            .unwrap();
        assert_eq!(db.blob_storage_size(uploader).await.unwrap(), 6);
    }
    db.delete_blob(&cid, &alice, None).await.unwrap();
    assert_eq!(
        db.delete_blob(&cid, &alice, None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(db.get_blob(&cid).await.unwrap().data, b"shared");
    assert_eq!(
        (
            db.blob_storage_size(&alice).await.unwrap(),
            db.blob_storage_size(&bob).await.unwrap()
        ),
        (0, 6)
    );
}

#[tokio::test]
async fn the_blobs_of_a_conversation_come_from_its_members_and_in_pages() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let alice = did("alice");
    for n in 0..7u8 {
        let cid = blobs::cid_of(&[n]).unwrap();
        db.store_blob(&cid, &[n], &alice, Some(convo))
            .await
            .unwrap();
    }
    db.sql("UPDATE blob_references SET created_at = date_trunc('hour', created_at)")
        .await; // all at once
    let (mut seen, mut last): (Vec<BlobInfo>, Option<BlobInfo>) = (Vec::new(), None);
    loop {
        let page = db.list_blobs(convo, last.as_ref(), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        last = page.last().cloned();
        seen.extend(page);
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.windows(2).all(|pair| pair[0].cid > pair[1].cid));
    let cid = blobs::cid_of(b"x").unwrap();
    let error = db
        .store_blob(&cid, b"x", &did("stranger"), Some(convo))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_blob_is_kept_in_each_conversation_that_it_was_stored_for() {
    let db = TestDatabase::new().await;
    let (alice, bob) = (did("alice"), did("bob"));
    let first = db.conversation(&["alice", "bob"]).await;
    let second = db.conversation(&["alice"]).await;
    let cid = blobs::cid_of(b"picture").unwrap();
    let places = [Some(first), Some(second), None];
    for convo in places {
        let stored = db
            .store_blob(&cid, b"picture", &alice, convo)
            .await
            .unwrap();
        assert_eq!(stored.convo_id, convo);
        let again = db
            .store_blob(&cid, b"picture", &alice, convo)
            .await
            .unwrap();
        assert_eq!(again, stored);
    }
    for convo in [first, second] {
        assert_eq!(db.list_blobs(convo, None, 5).await.unwrap().len(), 1);
    }
    // Whoever is in another conversation only is told so, though the content is there.
    let stranger = db.store_blob(&cid, b"picture", &bob, Some(second)).await;
    assert_eq!(stranger.unwrap_err().kind(), ErrorKind::Denied);
    db.store_blob(&cid, b"picture", &bob, Some(first))
        .await
        .unwrap();
    assert_eq!(db.number("SELECT count(*) FROM blobs").await, 1);
    assert_eq!(db.blob_storage_size(&alice).await.unwrap(), 7);

    db.delete_conversation(first).await.unwrap();
    assert_eq!(db.list_blobs(second, None, 5).await.unwrap().len(), 1);
    db.delete_blob(&cid, &alice, None).await.unwrap();
    assert_eq!(db.get_blob(&cid).await.unwrap().data, b"picture");
    db.delete_blob(&cid, &alice, Some(second)).await.unwrap();
    assert_eq!(
        db.get_blob(&cid).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(db.number("SELECT count(*) FROM blobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_there_exactly_as_long_as_someone_keeps_it() {
    let db = TestDatabase::new().await;
    let alice = did("alice");
    let cids: Vec<String> = (0..3u8).map(|n| blobs::cid_of(&[n]).unwrap()).collect();
    for _ in 0..15 {
        // Stored and deleted in several conversations at once, which are deleted at last, at once.
        let mut convos = Vec::new();
        for _ in 0..4 {
            convos.push(db.conversation(&["alice"]).await);
        }
        let (db, alice, cids) = (&db, &alice, &cids);
        let busy = convos.iter().map(|convo| async move {
            for (n, cid) in cids.iter().enumerate() {
                db.store_blob(cid, &[n as u8], alice, Some(*convo)).await?;
                db.delete_blob(cid, alice, Some(*convo)).await?;
                db.store_blob(cid, &[n as u8], alice, Some(*convo)).await?;
            }
            db.delete_conversation(*convo).await
        });
        let late = convos.iter().map(|convo| async move {
            match db.store_blob(&cids[0], &[0], alice, Some(*convo)).await {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::Denied => Ok(()),
                Err(error) => Err(error),
            }
        });
        let (busy, late) = tokio::join!(join_all(busy), join_all(late));
        for result in busy.into_iter().chain(late) {
            result.unwrap();
        }
        assert_eq!(db.number("SELECT count(*) FROM blobs").await, 0);
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(db.number(deadlocks).await, 0);
}

#[tokio::test]
async fn blobs_and_retries_of_the_version_before_are_there_after_migrating() {
    let test = TestDatabase::new().await;
    let (convo, id) = (Uuid::new_v4(), Uuid::new_v4());
    let cid = blobs::cid_of(b"picture").unwrap();
    // Back to the schema of version 0.3, and data as it wrote them.
    let mut before = sqlx::migrate!();
    before
        .migrations
        .to_mut()
        .retain(|migration| migration.version <= 5);
    test.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await;
    before
        .run(&mut *test.connection().await.unwrap())
        .await
        .unwrap();
    test.sql(&format!(
        "INSERT INTO conversations (id, creator, created_at, updated_at, clock) VALUES ('{convo}', 'did:plc:alice', now(), now(), now());
         INSERT INTO members (convo_id, member_did, joined_at, joined_epoch) VALUES ('{convo}', 'did:plc:alice', now(), 0);
         INSERT INTO blobs (cid, uploader, convo_id, data, size)
         VALUES ('{cid}', 'did:plc:alice', '{convo}', 'picture', 7), ('{cid}', 'did:plc:bob', NULL, 'picture', 7)"
    ))
    .await;
    let stored = format!(
        "SELECT FROM store_message('{convo}', '{id}', 'did:plc:alice', 'commit', 0, 'sealed', 0)"
    );
    test.sql(&stored).await;
    test.migrate().await.unwrap();

    let (alice, bob) = (did("alice"), did("bob"));
    assert_eq!(test.list_blobs(convo, None, 5).await.unwrap().len(), 1);
    for (uploader, convo) in [(&alice, Some(convo)), (&bob, None)] {
        assert_eq!(test.get_blob(&cid).await.unwrap().data, b"picture");
        test.delete_blob(&cid, uploader, convo).await.unwrap();
    }
    assert_eq!(test.number("SELECT count(*) FROM blobs").await, 0);
    let message = NewMessage {
        id,
        message_type: MessageType::Commit,
        ..message(convo, &alice)
    };
    let commit = Commit {
        message,
        added: &[],
        removed: &[],
        welcome: None,
    };
    let again = test.update_epoch(&commit).await.unwrap();
    assert_eq!((again.epoch, again.duplicate), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_deleted_beside_their_conversation_without_a_deadlock() {
    let db = TestDatabase::new().await;
    let uploaders = [did("alice"), did("bob")];
    let cids: Vec<String> = (0..6u8).map(|n| blobs::cid_of(&[n]).unwrap()).collect();
    for _ in 0..15 {
        let convo = db.conversation(&["alice", "bob"]).await;
        for (n, cid) in cids.iter().enumerate() {
            for uploader in &uploaders {
                let data = [n as u8];
                let stored = db.store_blob(cid, &data, uploader, Some(convo));
                stored.await.unwrap();
            }
        }
        let (db, cids) = (&db, &cids);
        let deletes = uploaders.iter().map(|uploader| async move {
            for cid in cids.iter().rev() {
                match db.delete_blob(cid, uploader, Some(convo)).await {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let (conversation, _) = tokio::join!(db.delete_conversation(convo), join_all(deletes));
        conversation.unwrap();
        assert_eq!(db.number("SELECT count(*) FROM blobs").await, 0);
    }
    assert_eq!(db.deadlocks().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_deletes_a_blob_first_may_go_on_to_the_conversation() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let (alice, bob) = (did("alice"), did("bob"));
    let cid = blobs::cid_of(b"picture").unwrap();
    for uploader in [&alice, &bob] {
        let stored = db.store_blob(&cid, b"picture", uploader, Some(convo)).await;
        stored.unwrap();
    }
    let mut first = db.begin_transaction().await.unwrap();
    let deleted = blobs::delete(&mut first, &cid, &alice, Some(convo)).await;
    deleted.unwrap();
    let second = async {
        let mut transaction = db.begin_transaction().await?;
        messages::create(&mut transaction, &message(convo, &bob), PastEpochs::Refuse).await?;
        blobs::delete(&mut transaction, &cid, &bob, Some(convo)).await?;
        transaction.commit().await
    };
    let first = async {
        db.until_waiting(1).await; // the second one
        messages::create(&mut first, &message(convo, &alice), PastEpochs::Refuse).await?;
        first.commit().await
    };
    let (first, second) = tokio::join!(first, second);
    first.unwrap();
    second.unwrap();
    assert_eq!(db.deadlocks().await, 0);
}

#[tokio::test]
async fn a_name_is_one_in_whatever_base_and_what_is_none_names_nothing() {
    let db = TestDatabase::new().await;
    let alice = did("alice");
    let cid = blobs::cid_of(b"hello world").unwrap();
    // Python: base 58 of the same bytes.
    let other = "zb2rhj7crUKTQYRGCRATFaQ6YFLTde2YzdqbbhAASkL9uRDXn";
    let stored = db.store_blob(other, b"hello world", &alice, None).await;
    assert_eq!(stored.unwrap().cid, cid);
    assert_eq!(db.get_blob(other).await.unwrap().data, b"hello world");
    db.delete_blob(other, &alice, None).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM blobs").await, 0);

    for name in ["b\0", "\0", "", &format!("{cid}\0")] {
        let got = db.get_blob(name).await.unwrap_err();
        let deleted = db.delete_blob(name, &alice, None).await.unwrap_err();
        let before = BlobInfo {
            cid: name.to_owned(),
            uploader: alice.clone(),
            convo_id: None,
            size: 1,
            created_at: chrono::Utc::now(),
        };
        let listed = db.list_blobs(Uuid::nil(), Some(&before), 5).await;
        let kinds = [got.kind(), deleted.kind(), listed.unwrap_err().kind()];
        let expected = [ErrorKind::NotFound, ErrorKind::NotFound, ErrorKind::Invalid];
        assert_eq!(kinds, expected, "{name:?}");
    }
}

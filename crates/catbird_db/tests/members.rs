//! Who is in, who was, and what they have not read.

mod server;

use catbird_db::*;
use futures::future::{join_all, try_join_all};
use server::{TestDatabase, did};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[tokio::test]
async fn who_leaves_and_comes_back_sees_what_was_sent_while_they_were_in() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let bob = did("bob");
    let mut sent = Vec::new();
    for round in 0..6 {
        match round {
            2 | 4 => drop(db.remove_member(convo, &bob).await.unwrap()),
            3 | 5 => drop(db.add_member(convo, &bob).await.unwrap()),
            _ => {}
        }
        for _ in 0..3 {
            sent.push((round, db.send(convo, "alice", 0).await.unwrap().sent_at));
        }
    }
    let in_rounds = [0, 1, 3, 5];
    let expected: Vec<_> = sent
        .iter()
        .filter(|(round, _)| in_rounds.contains(round))
        .collect();
    let expected: Vec<_> = expected.into_iter().map(|(_, at)| *at).collect();
    assert_eq!(
        db.count_messages(convo, &bob).await.unwrap(),
        expected.len() as i64
    );

    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = db.list_messages_since(convo, &bob, after, 2).await.unwrap();
        seen.extend(page.items.iter().map(|message| message.sent_at));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected);
    let (mut seen, mut headers, mut before) = (Vec::new(), Vec::new(), None);
    loop {
        let page = db.list_messages(convo, &bob, before, 2).await.unwrap();
        let same = db
            .list_message_headers(convo, &bob, before, 2)
            .await
            .unwrap();
        headers.extend(same.items.iter().map(|header| header.sent_at));
        assert_eq!(page.next, same.next);
        seen.extend(page.items.iter().map(|message| message.sent_at));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(headers, seen);
    seen.reverse();
    assert_eq!(seen, expected);
    let all = db
        .list_messages_since(convo, &did("alice"), None, 50)
        .await
        .unwrap()
        .items;
    for message in all {
        let found = db.get_message(convo, message.id, &bob).await;
        assert_eq!(found.is_ok(), expected.contains(&message.sent_at));
    }
    assert_eq!(db.count_messages(convo, &did("stranger")).await.unwrap(), 0);
}

#[tokio::test]
async fn adding_and_removing_say_what_was_so() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice"]).await;
    let bob = did("bob");
    assert_eq!(db.get_membership(convo, &bob).await.unwrap(), None);
    let added = db.add_member(convo, &bob).await.unwrap();
    assert_eq!(db.add_member(convo, &bob).await.unwrap(), added);
    let removed = db.remove_member(convo, &bob).await.unwrap();
    assert!(removed.left_at > Some(removed.joined_at));
    assert_eq!(db.remove_member(convo, &bob).await.unwrap(), removed);
    assert_eq!(db.get_membership(convo, &bob).await.unwrap(), Some(removed));
    let error = db.remove_member(convo, &did("stranger")).await.unwrap_err();
    assert!(matches!(error, Error::NotInConversation { .. }));
    let back = db.add_member(convo, &bob).await.unwrap();
    assert!(back.joined_at > added.joined_at);
    let error = db.add_member(uuid::Uuid::nil(), &bob).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let listed = db
        .list_members(convo, Some(&did("alice")), 5)
        .await
        .unwrap();
    assert_eq!(listed, [back]);
}

#[tokio::test]
async fn a_sender_must_be_in_at_the_epoch_of_the_message() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let refused = |result: Result<Sent>| matches!(result, Err(Error::NotAMember { .. }));
    assert!(refused(db.send(convo, "stranger", 0).await));
    db.remove_member(convo, &did("bob")).await.unwrap();
    assert!(refused(db.send(convo, "bob", 0).await));
    assert_eq!(db.number("SELECT count(*) FROM message_ids").await, 0);
    db.add_member(convo, &did("bob")).await.unwrap();
    db.send(convo, "bob", 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_unread_message_is_lost_or_counted_twice_under_load() {
    let db = TestDatabase::new().await;
    let names: Vec<String> = (0..10).map(|n| format!("member{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let convo = db.conversation(&names).await;
    let other = db.conversation(&names).await;
    // Everyone writes in both conversations, in either order, while one comes and goes.
    let done = AtomicBool::new(false);
    let writers = names.iter().enumerate().map(|(n, name)| {
        let (db, first, second) = (&db, [convo, other][n % 2], [other, convo][n % 2]);
        async move {
            for _ in 0..20 {
                db.send(first, name, 0).await?;
                db.send(second, name, 0).await?;
            }
            Ok::<(), Error>(())
        }
    });
    let restless = async {
        while !done.load(Ordering::Relaxed) {
            db.add_member(convo, &did("visitor")).await.unwrap();
            db.remove_member(convo, &did("visitor")).await.unwrap();
        }
    };
    let writers = async {
        try_join_all(writers).await.unwrap();
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(writers, restless);
    for convo in [convo, other] {
        for member in db.list_members(convo, None, 20).await.unwrap() {
            assert_eq!(member.unread_count, 9 * 20, "{}", member.did);
        }
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(db.number(deadlocks).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_never_falls_below_zero_and_loses_no_update() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let bob = did("bob");
    assert_eq!(db.update_unread_count(convo, &bob, -5).await.unwrap(), 0);
    let updates = (0..50).map(|_| db.update_unread_count(convo, &bob, 3));
    try_join_all(updates).await.unwrap();
    assert_eq!(db.update_unread_count(convo, &bob, -100).await.unwrap(), 50);
    assert_eq!(
        db.update_unread_count(convo, &bob, i32::MIN).await.unwrap(),
        0
    );
    assert_eq!(
        db.update_unread_count(convo, &bob, i32::MAX).await.unwrap(),
        i32::MAX
    );
    assert_eq!(
        db.update_unread_count(convo, &bob, i32::MAX).await.unwrap(),
        i32::MAX
    );
    let error = db
        .update_unread_count(convo, &did("stranger"), 1)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotInConversation { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_to_a_place_leaves_what_came_after_it_unread_however_it_came() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let bob = did("bob");
    for round in 0..20 {
        // Alice writes while Bob reads; wherever they meet, counter and messages agree afterwards.
        let writing = join_all((0..8).map(|_| db.send(convo, "alice", 0)));
        let reading = async {
            let page = db.list_messages(convo, &bob, None, 1).await.unwrap();
            let read_to = page.items.first().map(Message::cursor);
            match read_to {
                Some(_) => drop(db.reset_unread_count(convo, &bob, read_to).await.unwrap()),
                None => assert_eq!(round, 0),
            }
            read_to
        };
        let (sent, read_to) = tokio::join!(writing, reading);
        assert!(sent.iter().all(Result::is_ok));
        let after = db
            .list_messages_since(convo, &bob, read_to, 200)
            .await
            .unwrap()
            .items
            .len();
        let member = db.get_membership(convo, &bob).await.unwrap().unwrap();
        assert_eq!(member.unread_count as usize, after);
    }
    assert_eq!(db.reset_unread_count(convo, &bob, None).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_thousand_members_counts_for_each_and_moves_no_index_entry() {
    let db = TestDatabase::new().await;
    // Room for all versions, since what other tests have open may keep the old ones alive.
    db.sql("ALTER TABLE members SET (fillfactor = 10, autovacuum_enabled = off)")
        .await;
    let names: Vec<String> = (0..1_000).map(|n| format!("member{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let convo = db.conversation(&names).await;
    for _ in 0..6 {
        db.send(convo, names[0], 0).await.unwrap();
    }
    let total = db.number("SELECT sum(unread_count) FROM members").await;
    assert_eq!(total, 6 * 999);
    let sender = db
        .get_membership(convo, &did(names[0]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(sender.unread_count, 0);
    // Statistics of a session arrive when it has been idle for a while.
    let updated = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'members'";
    let deadline = Instant::now() + Duration::from_secs(30);
    while db.number(updated).await < 6 * 999 {
        assert!(Instant::now() < deadline, "no statistics");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let moved =
        "SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'members'";
    assert_eq!(db.number(moved).await, 0);
}

#[tokio::test]
async fn a_counter_that_is_full_keeps_nobody_from_sending() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let bob = did("bob");
    let full = db.update_unread_count(convo, &bob, i32::MAX).await.unwrap();
    assert_eq!(full, i32::MAX);
    for _ in 0..2 {
        db.send(convo, "alice", 0).await.unwrap();
    }
    let member = db.get_membership(convo, &bob).await.unwrap().unwrap();
    assert_eq!(member.unread_count, i32::MAX);
    assert_eq!(
        db.update_unread_count(convo, &bob, -1).await.unwrap(),
        i32::MAX - 1
    );
}

#[tokio::test]
async fn a_deleted_message_is_unread_no_longer() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob", "carol", "dave"]).await;
    let (alice, bob, carol, dave) = (did("alice"), did("bob"), did("carol"), did("dave"));
    let unread = async || {
        let mut counts = Vec::new();
        for did in [&alice, &bob, &carol, &dave] {
            let member = db.get_membership(convo, did).await.unwrap().unwrap();
            counts.push(member.unread_count);
        }
        counts
    };
    let mut sent = Vec::new();
    for sender in ["alice", "alice", "bob", "alice"] {
        db.send(convo, sender, 0).await.unwrap();
        let page = db.list_messages(convo, &alice, None, 1).await.unwrap();
        sent.extend(page.items);
    }
    // Carol has read the first message, Dave all of them.
    db.reset_unread_count(convo, &carol, Some(sent[0].cursor()))
        .await
        .unwrap();
    db.reset_unread_count(convo, &dave, None).await.unwrap();
    assert_eq!(unread().await, [1, 3, 3, 0]);
    let steps = [
        (0, [1, 2, 3, 0]),
        (2, [0, 2, 2, 0]),
        (1, [0, 1, 1, 0]),
        (3, [0, 0, 0, 0]),
    ];
    for (deleted, expected) in steps {
        for _ in 0..2 {
            db.delete_message(convo, sent[deleted].id).await.unwrap();
            assert_eq!(unread().await, expected, "{deleted}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_a_counter_first_may_go_on_to_the_conversation() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let bob = did("bob");
    let reader = async || {
        for n in 0..30 {
            let mut transaction = db.begin_transaction().await?;
            members::update_unread_count(&mut transaction, convo, &bob, 1).await?;
            members::add(&mut transaction, convo, &did(&format!("visitor{n}"))).await?;
            transaction.commit().await?;
        }
        Ok::<(), Error>(())
    };
    let writer = async || {
        for _ in 0..60 {
            db.send(convo, "alice", 0).await?;
        }
        Ok::<(), Error>(())
    };
    tokio::try_join!(reader(), reader(), writer(), writer()).unwrap();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(db.number(deadlocks).await, 0);
}

#[tokio::test]
async fn a_counter_is_set_from_no_more_messages_than_everyone_can_wait_for() {
    let db = TestDatabase::new().await;
    let convo = db.conversation(&["alice", "bob"]).await;
    let bob = did("bob");
    db.sql(&format!(
        "INSERT INTO messages (convo_id, id, sender, message_type, epoch, ciphertext, sent_at)
         SELECT '{convo}', gen_random_uuid(), 'did:plc:alice', 'app', 0, 'x', now() + n * interval '1 microsecond'
           FROM generate_series(1, 10100) n;
         INSERT INTO message_ids (convo_id, id, sent_at) SELECT convo_id, id, sent_at FROM messages"
    ))
    .await;
    let page = db.list_messages_since(convo, &bob, None, 1).await.unwrap();
    let first = page.items[0].clone();
    let unread = db
        .reset_unread_count(convo, &bob, Some(first.cursor()))
        .await;
    assert_eq!(i64::from(unread.unwrap()), members::MAX_COUNTED);
    // Nor does who deletes it look further.
    db.update_unread_count(convo, &bob, 1_000).await.unwrap();
    db.delete_message(convo, first.id).await.unwrap();
    let member = db.get_membership(convo, &bob).await.unwrap().unwrap();
    assert_eq!(member.unread_count, 11_000);
}

//! Each key package for one joiner.

mod server;

use catbird_db::*;
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use server::{TestDatabase, did};
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

const SUITE: u16 = 1;

async fn store(db: &Database, owner: &Did, data: &[u8], last_resort: bool) -> KeyPackage {
    let package = NewKeyPackage {
        did: owner,
        cipher_suite: SUITE,
        key_data: data,
        expires_at: Utc::now() + TimeDelta::days(1),
        last_resort,
    };
    db.store_key_package(&package).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_joiners_are_given_the_same_package() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    for n in 0..200u32 {
        store(&db, &bob, &n.to_be_bytes(), false).await;
    }
    let claimer = || async {
        let mut claimed = Vec::new();
        loop {
            match db.claim_key_package(&bob, SUITE, Uuid::new_v4()).await {
                Ok(package) => claimed.push(package.id),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                    // Others may still hold what they are being given; nothing else is left.
                    if db.count_key_packages(&bob, SUITE).await.unwrap() == 0 {
                        return claimed;
                    }
                }
            }
        }
    };
    let claimed = join_all((0..16).map(|_| claimer())).await.concat();
    assert_eq!(claimed.len(), 200);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 200);
}

#[tokio::test]
async fn packages_are_given_oldest_first_and_the_last_resort_when_none_is_left() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let spare = store(&db, &bob, b"spare", true).await;
    let first = store(&db, &bob, b"first", false).await;
    let second = store(&db, &bob, b"second", false).await;
    assert_eq!(db.get_key_package(&bob, SUITE).await.unwrap(), first);
    for expected in [&first, &second, &spare, &spare] {
        let claimed = db
            .claim_key_package(&bob, SUITE, Uuid::new_v4())
            .await
            .unwrap();
        assert_eq!(claimed.id, expected.id);
        assert_eq!(claimed.consumed_at.is_some(), !expected.last_resort);
    }
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 0);
    for (owner, suite) in [(did("carol"), SUITE), (bob, 2)] {
        let error = db
            .claim_key_package(&owner, suite, Uuid::new_v4())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn an_expired_package_is_never_given_and_goes_away() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let old = store(&db, &bob, b"old", false).await;
    store(&db, &bob, b"old spare", true).await;
    let new = store(&db, &bob, b"new", false).await;
    db.sql("UPDATE key_packages SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour' WHERE key_data IN ('old', 'old spare')").await;
    assert!(matches!(
        db.consume_key_package(&bob, old.id, Uuid::new_v4()).await,
        Err(Error::NotAvailable { .. })
    ));
    assert_eq!(
        db.claim_key_package(&bob, SUITE, Uuid::new_v4())
            .await
            .unwrap()
            .id,
        new.id
    );
    assert_eq!(
        db.claim_key_package(&bob, SUITE, Uuid::new_v4())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    let later = Utc::now() + TimeDelta::days(365);
    let deleted = [
        db.delete_expired_key_packages(later, 1).await.unwrap(),
        db.delete_expired_key_packages(later, 10).await.unwrap(),
    ];
    assert_eq!(deleted, [1, 1]);
    let expired = NewKeyPackage {
        did: &bob,
        cipher_suite: SUITE,
        key_data: b"x",
        expires_at: Utc::now(),
        last_resort: false,
    };
    assert_eq!(
        db.store_key_package(&expired).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_stored_again_is_there_once() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let long = vec![7; key_packages::MAX_KEY_DATA]; // longer than an index entry can be
    let stored = join_all((0..8).map(|_| store(&db, &bob, &long, false))).await;
    assert!(stored.iter().all(|package| package.id == stored[0].id));
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 1);
    let claimed = db
        .claim_key_package(&bob, SUITE, Uuid::new_v4())
        .await
        .unwrap();
    assert_eq!(store(&db, &bob, &long, false).await, claimed);
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 0);
}

#[tokio::test]
async fn a_package_whose_claim_is_rolled_back_is_given_to_the_next() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let package = store(&db, &bob, b"package", false).await;
    let mut transaction = db.begin_transaction().await.unwrap();
    let claimed = key_packages::claim(&mut transaction, &bob, SUITE, Uuid::new_v4())
        .await
        .unwrap();
    assert_eq!(claimed.id, package.id);
    // Meanwhile nobody waits, and nobody gets it.
    assert_eq!(
        db.claim_key_package(&bob, SUITE, Uuid::new_v4())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    transaction.rollback().await.unwrap();
    assert_eq!(
        db.consume_key_package(&bob, package.id, Uuid::new_v4())
            .await
            .unwrap()
            .id,
        package.id
    );
    assert!(matches!(
        db.consume_key_package(&bob, package.id, Uuid::new_v4())
            .await,
        Err(Error::NotAvailable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_made_again_is_given_the_same_package() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let mut stored = Vec::new();
    for n in 0..5u8 {
        stored.push(store(&db, &bob, &[n], false).await.id);
    }
    let claim = Uuid::new_v4();
    let at_once = (0..8).map(|_| db.claim_key_package(&bob, SUITE, claim));
    let given: Vec<_> = join_all(at_once)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(given.iter().all(|package| *package == given[0]));
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 4);
    // As with a package that the server chose.
    let (id, claim) = (stored[4], Uuid::new_v4());
    let consumed = db.consume_key_package(&bob, id, claim).await.unwrap();
    assert_eq!(
        db.consume_key_package(&bob, id, claim).await.unwrap(),
        consumed
    );
    assert_eq!(
        db.claim_key_package(&bob, SUITE, claim).await.unwrap(),
        consumed
    );
    let error = db
        .consume_key_package(&bob, stored[3], claim)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotAvailable { .. }), "{error}");
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_cancelled_takes_no_package_away() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    for n in 0..20u8 {
        store(&db, &bob, &[n], false).await;
    }
    // Each claim is slow in the server, and its caller gone before it ends.
    db.sql(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
         CREATE TRIGGER slowly BEFORE UPDATE ON key_packages FOR EACH ROW EXECUTE FUNCTION slowly()",
    )
    .await;
    for _ in 0..3 {
        let claim = db.claim_key_package(&bob, SUITE, Uuid::new_v4());
        let cancelled = tokio::time::timeout(Duration::from_millis(300), claim).await;
        assert!(cancelled.is_err());
    }
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
    while db.number(busy).await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 20);
}

#[tokio::test]
async fn the_package_that_is_shown_is_the_one_that_a_claim_gets() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    for (data, last_resort) in [(b"a", true), (b"b", false), (b"c", true)] {
        store(&db, &bob, data, last_resort).await;
    }
    for expected in [b"b", b"c", b"c"] {
        let shown = db.get_key_package(&bob, SUITE).await.unwrap();
        let claimed = db
            .claim_key_package(&bob, SUITE, Uuid::new_v4())
            .await
            .unwrap();
        assert_eq!(shown.key_data, expected);
        assert_eq!(claimed.id, shown.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_stored_again_while_its_expired_copy_is_deleted() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    for _ in 0..20 {
        store(&db, &bob, b"package", false).await;
        db.sql("UPDATE key_packages SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'")
            .await;
        let later = Utc::now() + TimeDelta::days(1);
        let stores = join_all((0..8).map(|_| store(&db, &bob, b"package", false)));
        let deletes = join_all((0..8).map(|_| db.delete_expired_key_packages(later, 10)));
        let (_, deleted) = tokio::join!(stores, deletes);
        assert!(deleted.iter().all(Result::is_ok));
        db.delete_expired_key_packages(later, 10).await.unwrap();
    }
    let package = NewKeyPackage {
        did: &bob,
        cipher_suite: 0,
        key_data: b"x",
        expires_at: Utc::now() + TimeDelta::days(1),
        last_resort: false,
    };
    let error = db.store_key_package(&package).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_claim_that_was_given_a_last_resort_is_given_that_again() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let claim = Uuid::new_v4();
    let spare = store(&db, &bob, b"spare", true).await;
    let given = db.claim_key_package(&bob, SUITE, claim).await.unwrap();
    assert_eq!(given, spare);
    let package = store(&db, &bob, b"package", false).await;
    store(&db, &bob, b"newer spare", true).await;
    assert_eq!(
        db.claim_key_package(&bob, SUITE, claim).await.unwrap(),
        given
    );
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 1);
    let another = db.consume_key_package(&bob, package.id, claim).await;
    assert!(matches!(another, Err(Error::NotAvailable { .. })));
    let others = db.claim_key_package(&bob, SUITE, Uuid::new_v4()).await;
    assert_eq!(others.unwrap().id, package.id);
    // Claims go with the package.
    db.sql("UPDATE key_packages SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour' WHERE key_data = 'spare'")
        .await;
    let deleted = db.delete_expired_key_packages(Utc::now(), 10).await;
    assert_eq!(deleted.unwrap(), 1);
    assert_eq!(
        db.number("SELECT count(*) FROM last_resort_claims").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_a_claim_waits_is_not_given() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let package = NewKeyPackage {
        did: &bob,
        cipher_suite: SUITE,
        key_data: b"short-lived",
        expires_at: Utc::now() + TimeDelta::seconds(6),
        last_resort: false,
    };
    let package = db.store_key_package(&package).await.unwrap();
    // The same claim is under way elsewhere, and is given up after the package has expired.
    let (claim, another) = (Uuid::new_v4(), Uuid::new_v4());
    let mut held = db.begin_transaction().await.unwrap();
    let first = key_packages::claim(&mut held, &bob, SUITE, claim).await;
    assert_eq!(first.unwrap().id, package.id);
    let give_up = async {
        db.until_waiting(2).await;
        let left = "SELECT count(*) FROM key_packages WHERE expires_at > clock_timestamp()";
        while db.number(left).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        held.rollback().await.unwrap();
    };
    let (claimed, consumed, ()) = tokio::join!(
        db.claim_key_package(&bob, SUITE, claim),
        db.consume_key_package(&bob, package.id, another),
        give_up
    );
    assert_eq!(claimed.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(matches!(consumed, Err(Error::NotAvailable { .. })));
}

#[tokio::test]
async fn packages_are_given_though_the_clock_went_back() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let mut stored = Vec::new();
    for data in [b"a", b"b"] {
        stored.push(store(&db, &bob, data, false).await.id);
    }
    db.sql("UPDATE key_packages SET created_at = created_at + interval '1 hour'")
        .await;
    let claimed = db.claim_key_package(&bob, SUITE, Uuid::new_v4()).await;
    assert_eq!(claimed.unwrap().id, stored[0]);
    let consumed = db
        .consume_key_package(&bob, stored[1], Uuid::new_v4())
        .await;
    assert_eq!(consumed.unwrap().id, stored[1]);
}

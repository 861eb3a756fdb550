//! Each key package for one joiner.

mod server;

use catbird_db::*;
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use server::{TestDatabase, did};
use std::collections::BTreeSet;

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
            match db.claim_key_package(&bob, SUITE).await {
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
        let claimed = db.claim_key_package(&bob, SUITE).await.unwrap();
        assert_eq!(claimed.id, expected.id);
        assert_eq!(claimed.consumed_at.is_some(), !expected.last_resort);
    }
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 0);
    for (owner, suite) in [(did("carol"), SUITE), (bob, 2)] {
        let error = db.claim_key_package(&owner, suite).await.unwrap_err();
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
        db.consume_key_package(&bob, old.id).await,
        Err(Error::NotAvailable { .. })
    ));
    assert_eq!(db.claim_key_package(&bob, SUITE).await.unwrap().id, new.id);
    assert_eq!(
        db.claim_key_package(&bob, SUITE).await.unwrap_err().kind(),
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
    let claimed = db.claim_key_package(&bob, SUITE).await.unwrap();
    assert_eq!(store(&db, &bob, &long, false).await, claimed);
    assert_eq!(db.count_key_packages(&bob, SUITE).await.unwrap(), 0);
}

#[tokio::test]
async fn a_package_whose_claim_is_rolled_back_is_given_to_the_next() {
    let db = TestDatabase::new().await;
    let bob = did("bob");
    let package = store(&db, &bob, b"package", false).await;
    let mut transaction = db.begin_transaction().await.unwrap();
    let claimed = key_packages::claim(&mut transaction, &bob, SUITE)
        .await
        .unwrap();
    assert_eq!(claimed.id, package.id);
    // Meanwhile nobody waits, and nobody gets it.
    assert_eq!(
        db.claim_key_package(&bob, SUITE).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    transaction.rollback().await.unwrap();
    assert_eq!(
        db.consume_key_package(&bob, package.id).await.unwrap().id,
        package.id
    );
    assert!(matches!(
        db.consume_key_package(&bob, package.id).await,
        Err(Error::NotAvailable { .. })
    ));
}

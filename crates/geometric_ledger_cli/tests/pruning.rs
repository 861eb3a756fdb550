//! Old batches are pruned by whoever opens a ledger for writing and says so; everybody else is told.

mod common;

use common::{hex, key, refuses, says};
use geometric_ledger::{Account, Durability, Error, GeometricLedger, Options, Reader};

#[test]
fn old_batches_are_pruned_where_it_is_asked_for_and_whoever_asks_for_them_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let options = Options::new().durability(Durability::None);
    let ledger = options.open(at.join("ledger")).unwrap();
    for number in 0..600 {
        let account = Account::with_balance(i128::from(number));
        ledger.update_batch(&[(key(number % 7), account)]).unwrap();
    }
    ledger
        .update_batch(&[(key(9), Account::default())])
        .unwrap();
    ledger.close().unwrap();
    assert!(!says(&["inspect", "ledger"], at).contains("pruned"));
    let old = says(&["proof", "ledger", "--from", "512", "--to", "600"], at);
    let one = hex(&key(1));
    let put = ["put", "ledger", &one, "--balance", "5"];
    says(&[&put[..], &["--keep-batches", "50"]].concat(), at);
    // History needs them still.
    assert!(!says(&["inspect", "ledger"], at).contains("pruned"));
    let prune = ["--keep-batches", "50", "--history-bytes", "0"];
    says(&[&put[..], &prune].concat(), at);

    let inspected = says(&["inspect", "ledger"], at);
    assert!(
        inspected.contains("pruned       batches 1 to 512"),
        "{inspected}"
    );
    assert!(says(&["stats", "ledger"], at).contains("pruned       512"));
    assert!(says(&["stats", "ledger", "--json"], at).contains("\"first_batch\":513"));
    for asked in [&["5"][..], &["512"], &["--from", "100"]] {
        let refused = refuses(&[&["proof", "ledger"], asked].concat(), at);
        assert!(
            refused.contains("was pruned") && refused.contains("513"),
            "{refused}"
        );
    }
    assert_eq!(
        says(&["proof", "ledger", "--from", "512", "--to", "600"], at),
        old
    );
    let proof = says(&["proof", "ledger", "600"], at);
    std::fs::write(at.join("proof.json"), &proof).unwrap();
    let root = proof.rsplit_once("\"root\": \"").unwrap().1[..64].to_owned();
    assert!(says(&["check-proof", "proof.json", "--root", &root], at).contains("batch 600 is in"));
    let history = says(&["history", "ledger", &hex(&key(9))], at);
    assert!(history.starts_with("batch 601 "), "{history}");
    assert!(says(&["verify", "ledger"], at).contains("603 batches lead to the root"));

    says(&["snapshot", "ledger", "snapshot"], at);
    says(&["restore", "restored", "snapshot"], at);
    let restored = says(&["inspect", "restored"], at);
    assert!(
        restored.contains("pruned       batches 1 to 512"),
        "{restored}"
    );
    let root = |text: &str| text.split("root ").nth(1).unwrap().trim()[..64].to_owned();
    assert_eq!(root(&restored), root(&inspected));

    // Beside a writer as well.
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    let mut reader = Reader::open(at.join("ledger"), Options::new()).unwrap();
    let refused = reader.batches(1, 10).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Pruned {
                asked: 1,
                first: 513
            }
        ),
        "{refused}"
    );
    assert_eq!(reader.batches(513, 600).unwrap().len(), 88);
    assert_eq!(reader.describe().unwrap().pruned, 512);
    drop(reader);
    ledger.close().unwrap();
}

//! Ledgers of the format before: read as they are, converted when they are written to.

mod common;

use common::{key, small};
use geometric_ledger::*;
use serde_cbor::Value;
use std::fs;
use std::path::Path;

const COPY: usize = 64 << 10;

/// Changes both copies of a superblock.
fn edit(path: &Path, change: impl Fn(&mut std::collections::BTreeMap<Value, Value>)) {
    let file = path.join("ledger");
    let mut bytes = fs::read(&file).unwrap();
    for copy in bytes.chunks_mut(COPY) {
        let len = u32::from_le_bytes(copy[32..36].try_into().unwrap()) as usize;
        let content = serde_cbor::from_slice(&copy[36..36 + len]).unwrap();
        let Value::Map(mut fields) = content else {
            panic!("it is a map");
        };
        change(&mut fields);
        let content = serde_cbor::to_vec(&Value::Map(fields)).unwrap();
        copy[32..36].copy_from_slice(&(content.len() as u32).to_le_bytes());
        copy[36..36 + content.len()].copy_from_slice(&content);
        let hash = blake3::hash(&copy[32..36 + content.len()]);
        copy[..32].copy_from_slice(hash.as_bytes());
    }
    fs::write(file, bytes).unwrap();
}

fn set(fields: &mut std::collections::BTreeMap<Value, Value>, name: &str, value: Value) {
    fields.insert(Value::Text(name.into()), value);
}

/// A ledger as format 2 had it: without shards of recorded transfers.
fn format_2(path: &Path) {
    let ledger = small().open(path).unwrap();
    ledger
        .update_batch(&[(key(1), Account::with_balance(10))])
        .unwrap();
    ledger
        .update_batch(&[(key(2), Account::with_balance(20))])
        .unwrap();
    ledger.close().unwrap();
    edit(path, |fields| {
        set(fields, "format", Value::Integer(2));
        fields.remove(&Value::Text("account_shards".into()));
        let shards = fields.get_mut(&Value::Text("shards".into()));
        let Some(Value::Array(shards)) = shards else {
            panic!("there are shards");
        };
        shards.truncate(4 + 1);
    });
    let kinds = ["transfers-", "entries-", "statements-", "pending."];
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if kinds.iter().any(|kind| name.starts_with(kind)) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn files(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[test]
fn a_ledger_of_the_format_before_is_read_and_converted_when_it_is_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    format_2(&path);
    let before = files(&path);
    let ledger = small().read_only().open(&path).unwrap();
    assert_eq!(ledger.get(&key(2)).unwrap().unwrap().balance, 20);
    assert_eq!(ledger.transfer(&[1; 16]).unwrap(), None);
    assert_eq!(ledger.verify().unwrap(), []);
    drop(ledger);
    assert_eq!(files(&path), before, "reading changes nothing");

    let ledger = small().open(&path).unwrap();
    assert_eq!(ledger.info().format, 4);
    let pay = NewTransfer::new([1; 16], key(1), key(2), 10);
    assert!(ledger.create_transfers(&[pay]).unwrap()[0].is_ok());
    assert_eq!(ledger.verify().unwrap(), []);
    ledger.close().unwrap();
    let ledger = small().open(&path).unwrap();
    assert_eq!(ledger.get(&key(2)).unwrap().unwrap().balance, 30);
    assert!(ledger.transfer(&[1; 16]).unwrap().is_some());
    assert_eq!(ledger.root().unwrap().0.get(), 3);
}

#[test]
fn a_ledger_of_format_3_is_read_and_converted_and_has_all_its_batches() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let ledger = small().open(&path).unwrap();
    for number in 0..300 {
        let account = (key(number), Account::with_balance(1));
        ledger.update_batch(&[account]).unwrap();
    }
    let root = ledger.root().unwrap();
    ledger.close().unwrap();
    edit(&path, |fields| {
        set(fields, "format", Value::Integer(3));
        fields.remove(&Value::Text("pruned".into()));
    });
    let ledger = small().read_only().open(&path).unwrap();
    assert_eq!((ledger.info().format, ledger.root().unwrap()), (4, root));
    drop(ledger);
    let ledger = small().open(&path).unwrap();
    assert_eq!(ledger.root().unwrap(), root);
    assert_eq!(ledger.stats().first_batch, 1);
    ledger.prove_batch(1).unwrap().verify().unwrap();
    assert_eq!(ledger.verify().unwrap(), []);
}

#[test]
fn a_ledger_of_another_format_is_refused_with_a_word_of_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    for format in [1, 5] {
        small().open(&path).unwrap().close().unwrap();
        edit(&path, |fields| {
            set(fields, "format", Value::Integer(format))
        });
        let refused = small().open(&path).err().unwrap();
        let said = refused.to_string();
        assert!(matches!(refused, Error::Format(_)), "{said}");
        assert!(
            said.contains(&format!("format {format}")) && said.contains("export"),
            "{said}"
        );
        fs::remove_dir_all(&path).unwrap();
    }
}

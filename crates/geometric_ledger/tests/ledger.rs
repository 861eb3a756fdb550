//! What a user of the library can rely on.

mod common;

use common::sim::SimDisk;
use common::{Random, key, small};
use geometric_ledger::*;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn put(from: u64, to: u64, balance: i128) -> Vec<(Key, Account)> {
    (from..to)
        .map(|number| (key(number), Account::with_balance(balance)))
        .collect()
}

#[test]
fn what_was_put_is_there_after_closing_and_opening() {
    let directory = tempfile::tempdir().unwrap();
    let count = 20_000;
    let ledger = small().open(directory.path()).unwrap();
    for from in (0..count).step_by(1_000) {
        let batch: Vec<_> = (from..from + 1_000)
            .map(|number| (key(number), Account::with_balance(number.into())))
            .collect();
        assert_eq!(
            ledger.update_batch(&batch).unwrap().sequence,
            from / 1_000 + 1
        );
    }
    let check = |ledger: &GeometricLedger| {
        let keys: Vec<_> = (0..count + 10).map(key).collect();
        let many = ledger.get_many(&keys).unwrap();
        for number in 0..count {
            let expected = Some(Account::with_balance(number.into()));
            assert_eq!(ledger.get(&key(number)).unwrap(), expected, "{number}");
            assert_eq!(many[number as usize], expected);
        }
        assert_eq!(ledger.get(&key(count)).unwrap(), None);
        assert_eq!(ledger.audit().unwrap().accounts, count);
        assert_eq!(ledger.verify().unwrap(), []);
    };
    check(&ledger);
    let root = ledger.root().unwrap();
    ledger.close().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    assert!(ledger.recovery().clean);
    check(&ledger);
    assert_eq!(ledger.root().unwrap(), root);
    ledger.close().unwrap();
    let ledger = small().huge_pages().open(directory.path()).unwrap();
    check(&ledger);
}

#[test]
fn files_are_their_owners_alone_and_one_process_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let ledger = small().open(&path).unwrap();
    ledger.update_batch(&put(0, 10, 1)).unwrap();
    ledger.snapshot().unwrap();
    assert!(matches!(small().open(&path), Err(Error::Locked)));
    assert!(matches!(
        small().read_only().open(&path),
        Err(Error::Locked)
    ));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let mut files = 0;
    for entry in path.read_dir().unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        if metadata.is_file() {
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            files += 1;
        }
    }
    assert!(files > 8, "{files}");
}

#[test]
fn a_ledger_that_was_not_closed_can_be_read_without_writing() {
    let random = &mut Random(1);
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    for from in 0..60 {
        ledger
            .update_batch(&put(from * 10, from * 10 + 50, from.into()))
            .unwrap();
    }
    let root = ledger.root().unwrap();
    let crashed = disk.crash(random);
    drop(ledger);
    let before = crashed.copy();
    {
        let reading = small()
            .read_only()
            .open_on(Arc::new(crashed.clone()))
            .unwrap();
        assert!(reading.recovery().batches > 0);
        assert_eq!(reading.root().unwrap(), root);
        assert_eq!(reading.audit().unwrap().accounts, 640);
        reading.prove_batch(1).unwrap().verify().unwrap();
        assert!(matches!(
            reading.update_batch(&put(0, 1, 1)),
            Err(Error::ReadOnly)
        ));
    }
    for name in before.names() {
        assert!(
            before.content(&name) == crashed.content(&name),
            "{name} was written to"
        );
    }
}

#[test]
fn the_last_of_several_updates_of_a_key_counts() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    let batch = [
        Update::Put(key(1), Account::with_balance(1)),
        Update::Put(key(2), Account::with_balance(2)),
        Update::Put(key(1), Account::with_balance(3)),
        Update::Delete(key(2)),
        Update::Delete(key(3)),
    ];
    let batch = ledger.apply(&batch).unwrap();
    assert_eq!(batch.updates, 1);
    assert_eq!(ledger.get(&key(1)).unwrap(), Some(Account::with_balance(3)));
    assert_eq!(ledger.get(&key(2)).unwrap(), None);
    assert_eq!(ledger.apply(&[]).unwrap().sequence, 2);
}

#[test]
fn minted_and_burned_are_what_balances_rose_and_fell_by() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    ledger
        .update_batch(&[
            (key(1), Account::with_balance(100)),
            (
                key(2),
                Account {
                    flags: Flags::OVERDRAFT,
                    ..Account::with_balance(-30)
                },
            ),
        ])
        .unwrap();
    ledger
        .update_batch(&[(key(1), Account::with_balance(40))])
        .unwrap();
    ledger.apply(&[Update::Delete(key(2))]).unwrap();
    let audit = ledger.audit().unwrap();
    assert_eq!((audit.totals.minted, audit.totals.burned), (130, 90));
    assert_eq!((audit.accounts, audit.balances), (1, 40));
}

#[test]
fn a_transfer_that_cannot_be_done_is_named_and_nothing_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    let account = |balance, flags| Account {
        balance,
        flags,
        ..Account::default()
    };
    ledger
        .update_batch(&[
            (key(1), account(100, Flags::NONE)),
            (key(2), account(0, Flags::NONE)),
            (key(3), account(0, Flags::OVERDRAFT)),
            (key(4), account(50, Flags::FROZEN)),
            (key(5), account(Account::MAX_BALANCE - 200, Flags::NONE)),
        ])
        .unwrap();
    let transfer = |debit, credit, amount| Transfer {
        debit: key(debit),
        credit: key(credit),
        amount,
    };
    let refusals = [
        (transfer(1, 9, 1), Refusal::UnknownAccount(key(9))),
        (transfer(4, 1, 1), Refusal::Frozen(key(4))),
        (transfer(1, 4, 1), Refusal::Frozen(key(4))),
        (transfer(1, 2, 0), Refusal::ZeroAmount),
        (transfer(1, 5, 201), Refusal::Overflow(key(5))),
        (transfer(1, 2, u128::MAX), Refusal::Overflow(key(2))),
        (
            transfer(2, 1, 11),
            Refusal::InsufficientFunds {
                key: key(2),
                balance: 10,
                amount: 11,
            },
        ),
    ];
    for (number, (bad, reason)) in refusals.into_iter().enumerate() {
        // What the items before it did counts for it, and is not done.
        let debit = if bad.amount == 201 { 3 } else { 1 };
        let good = [transfer(1, 2, 10), transfer(3, 1, 300)];
        let result = ledger.transfer_batch(
            &[number as u8; 16],
            &[
                good[0],
                good[1],
                Transfer {
                    debit: if bad.debit == key(1) {
                        key(debit)
                    } else {
                        bad.debit
                    },
                    ..bad
                },
            ],
        );
        match result {
            Err(Error::Item {
                item: 2,
                reason: found,
            }) => assert_eq!(found, reason),
            other => panic!("{other:?} instead of {reason:?}"),
        }
        assert_eq!(ledger.get(&key(1)).unwrap().unwrap().balance, 100);
    }
    let receipt = ledger
        .transfer_batch(&[99; 16], &[transfer(3, 1, 300), transfer(1, 1, 5)])
        .unwrap();
    assert!(!receipt.repeated);
    assert_eq!(ledger.get(&key(3)).unwrap().unwrap().balance, -300);
    assert_eq!(
        ledger.get(&key(1)).unwrap().unwrap(),
        Account {
            balance: 400,
            nonce: 1,
            ..Account::default()
        }
    );
    let other = ledger.transfer_batch(&[99; 16], &[transfer(3, 1, 301)]);
    assert!(matches!(
        other,
        Err(Error::Item {
            reason: Refusal::OtherBatch,
            ..
        })
    ));
    let audit = ledger.audit().unwrap();
    assert_eq!(audit.totals.burned, 0, "a transfer burns nothing");
}

#[test]
fn the_past_is_there_as_long_as_it_was_promised() {
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk)).unwrap();
    let mut states = vec![BTreeMap::new()];
    let random = &mut Random(3);
    let held = |sequence| ledger.view_at(sequence).unwrap();
    let mut view = None;
    for sequence in 1..=400u64 {
        let mut state: BTreeMap<_, _> = states.last().cloned().unwrap_or_default();
        let updates: Vec<_> = (0..20)
            .map(|_| {
                let key = key(random.below(100));
                match random.chance(4) {
                    true => Update::Delete(key),
                    false => Update::Put(key, Account::with_balance(random.below(1_000).into())),
                }
            })
            .collect();
        for update in &updates {
            match update {
                Update::Put(key, account) => state.insert(*key, *account),
                Update::Delete(key) => state.remove(key),
            };
        }
        ledger.apply(&updates).unwrap();
        states.push(state);
        if sequence == 150 {
            view = Some(held(sequence));
        }
        if sequence % 50 == 0 {
            ledger.checkpoint().unwrap();
        }
    }
    let history = ledger.history();
    assert!(
        (1..=150).contains(history.start()),
        "the view kept what it needs: {history:?}"
    );
    for sequence in history.clone() {
        for number in 0..100 {
            let expected = states[sequence as usize].get(&key(number)).copied();
            assert_eq!(ledger.get_at(&key(number), sequence).unwrap(), expected);
        }
    }
    let view = view.unwrap();
    let seen: BTreeMap<_, _> = view.iter().map(Result::unwrap).collect();
    assert_eq!(seen, states[150]);
    let range = view.range(key(10)..=key(60), 7).unwrap();
    let expected: Vec<_> = states[150]
        .range(key(10)..=key(60))
        .take(7)
        .map(|(key, account)| (*key, *account))
        .collect();
    assert_eq!(range, expected);
    drop(view);
    ledger.compact().unwrap();
    assert!(*ledger.history().start() > 150);
    let gone = ledger.get_at(&key(1), 150).unwrap_err();
    assert!(
        matches!(
            gone,
            Error::History {
                asked: 150,
                newest: 400,
                ..
            }
        ),
        "{gone}"
    );
}

#[test]
fn the_space_of_deleted_accounts_is_used_again() {
    let disk = SimDisk::new();
    let ledger = small().history_bytes(0).open_on(Arc::new(disk)).unwrap();
    for _ in 0..3 {
        ledger.update_batch(&put(0, 5_000, 1)).unwrap();
        let deletions: Vec<_> = (0..4_900)
            .map(|number| Update::Delete(key(number)))
            .collect();
        ledger.apply(&deletions).unwrap();
        ledger.compact().unwrap();
        let slots: u64 = ledger.stats().shards.iter().map(|shard| shard.slots).sum();
        assert_eq!(slots, 100);
        assert_eq!(ledger.verify().unwrap(), []);
        assert_eq!(
            ledger.get(&key(4_950)).unwrap(),
            Some(Account::with_balance(1))
        );
    }
}

#[test]
fn segments_of_the_log_are_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let options = || small().segment_bytes(1 << 16).history_bytes(0);
    let ledger = options().open(directory.path()).unwrap();
    let segments = || {
        let files = std::fs::read_dir(directory.path()).unwrap();
        files
            .filter_map(|file| {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                // It may have been renamed or removed meanwhile.
                let inode = file.metadata().ok()?.ino();
                (name.starts_with("wal-") || name.starts_with("spare-")).then_some((inode, name))
            })
            .collect::<BTreeMap<_, _>>()
    };
    let (mut names, mut reused) = (BTreeMap::<u64, BTreeSet<String>>::new(), 0);
    let mut rounds = 0;
    while reused < 10 {
        rounds += 1;
        assert!(rounds < 20_000, "segments are not written over");
        ledger.update_batch(&put(0, 100, rounds)).unwrap();
        if rounds % 20 == 0 {
            ledger.checkpoint().unwrap();
            let files = segments();
            assert!(files.len() < 40, "{files:?}");
            for (inode, name) in files {
                if name.starts_with("wal-0") {
                    names.entry(inode).or_default().insert(name);
                }
            }
            reused = names.values().filter(|names| names.len() > 1).count();
        }
    }
    let root = ledger.root().unwrap();
    ledger.close().unwrap();
    let spares = segments();
    let spares = spares.values().filter(|name| name.starts_with("spare-"));
    assert!(spares.count() <= 1);
    let ledger = options().open(directory.path()).unwrap();
    assert_eq!(ledger.root().unwrap(), root);
    assert_eq!(ledger.get(&key(99)).unwrap().unwrap().balance, rounds);
    assert_eq!(ledger.verify().unwrap(), []);
}

/// Runs what may hang.
fn finishes(what: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        what();
        done.send(()).unwrap();
    });
    let waited = finished.recv_timeout(std::time::Duration::from_secs(120));
    assert!(waited.is_ok(), "somebody still waits");
}

#[test]
fn batches_larger_than_checkpoints_do_not_wait_for_ever() {
    finishes(|| {
        let options = small().segment_bytes(1 << 20).history_bytes(0);
        let ledger = options.open_on(Arc::new(SimDisk::new())).unwrap();
        let write = &|first| {
            for round in 0..200 {
                let batch = put(first, first + 2_000, round);
                ledger.update_batch(&batch).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200).for_each(|_| ledger.checkpoint().unwrap()));
            for writer in 0..4 {
                scope.spawn(move || write(writer * 2_000));
            }
        });
        ledger.close().unwrap();
    });
}

/// While a thread of a pool waits it may be given other work of the pool's: another batch.
#[test]
fn batches_may_come_from_the_threads_of_a_pool_and_from_others_at_once() {
    finishes(|| {
        let ledger = small().open_on(Arc::new(SimDisk::new())).unwrap();
        let write = &|batch: u64| {
            let batch = put(batch * 3_000, (batch + 1) * 3_000, 1);
            ledger.update_batch(&batch).unwrap();
        };
        rayon::scope(|pool| {
            for batch in 0..64 {
                pool.spawn(move |_| write(batch));
            }
            std::thread::scope(|scope| {
                scope.spawn(|| (64..80).for_each(write));
            });
        });
        assert_eq!(ledger.stats().accounts, 240_000);
        ledger.close().unwrap();
    });
}

#[test]
fn a_flipped_bit_is_reported_with_its_place_and_never_served() {
    let random = &mut Random(5);
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    for from in (0..2_000).step_by(100) {
        ledger
            .update_batch(&put(from, from + 100, from.into()))
            .unwrap();
    }
    let stats = ledger.stats();
    ledger.close().unwrap();
    for round in 0..400 {
        let disk = disk.copy();
        let shard = random.below(4) as usize;
        let slot = random.below(stats.shards[shard].slots);
        let name = format!(
            "shard-{shard:02x}.{}",
            if round % 2 == 0 { "slots" } else { "index" }
        );
        match round % 2 {
            // The first is the stamp.
            0 => disk.flip(&name, ((slot + 1) * 1_024 + random.below(1_024)) as usize),
            _ => {
                // A line of the index that is in use: seven of eight in the groups there are.
                let buckets = stats.shards[shard].buckets;
                let bucket = random.below(buckets);
                let line = bucket / 7 * 8 + bucket % 7;
                disk.flip(&name, (line * 512 + random.below(512)) as usize);
            }
        }
        let ledger = small().open_on(Arc::new(disk)).unwrap();
        let findings = ledger.verify().unwrap();
        assert!(
            findings
                .iter()
                .all(|finding| finding.file.starts_with(&format!("shard-{shard:02x}."))),
            "{findings:?}"
        );
        if round % 2 == 0 {
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].location, Some(Location::Slot(slot)));
        } else {
            assert!(
                findings
                    .iter()
                    .any(|finding| matches!(finding.location, Some(Location::Line(_)))),
                "{findings:?}"
            );
        }
        let mut errors = 0;
        for number in 0..2_000 {
            match ledger.get(&key(number)) {
                Ok(account) => assert_eq!(
                    account,
                    Some(Account::with_balance((number / 100 * 100).into()))
                ),
                Err(Error::DamagedAccount {
                    shard: found,
                    slot: place,
                    ..
                }) => {
                    assert_eq!((usize::from(found), place), (shard, slot));
                    errors += 1;
                }
                Err(Error::Damaged { file, .. }) => {
                    assert_eq!(file, name);
                    errors += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(errors >= usize::from(round % 2 == 0));
        assert!(round % 2 == 1 || ledger.audit().is_err());
    }
}

#[test]
fn a_damaged_record_of_an_acknowledged_batch_is_not_taken_for_the_end() {
    let random = &mut Random(6);
    let disk = SimDisk::new();
    let ledger = small()
        .segment_bytes(1 << 20)
        .checkpoint_bytes(1 << 30)
        .open_on(Arc::new(disk.clone()))
        .unwrap();
    for from in 0..30 {
        ledger
            .update_batch(&put(from, from + 20, from.into()))
            .unwrap();
    }
    let used = ledger.stats().since_checkpoint_bytes;
    let crashed = disk.crash(random);
    drop(ledger);
    let mut found = 0;
    for _ in 0..100 {
        let disk = crashed.copy();
        // Anywhere but in the last record, which nothing later vouches for.
        disk.flip(
            "wal-0000000000000000",
            random.below((used - used / 20) * 8) as usize,
        );
        match small().open_on(Arc::new(disk)) {
            Err(Error::Damaged { file, .. }) => {
                assert_eq!(file, "the write-ahead log");
                found += 1;
            }
            Err(error) => panic!("{error}"),
            // The padding between records means nothing.
            Ok(ledger) => assert_eq!(ledger.view().sequence(), 30),
        }
    }
    assert!(found > 90, "{found}");
}

#[test]
fn an_encrypted_ledger_shows_nothing_and_opens_with_its_key_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let (first, second) = (Secret::new([1; 32]), Secret::new([2; 32]));
    let needle = [0xA5; 32];
    let account = Account {
        data: [0x5A; 24],
        ..Account::with_balance(1)
    };
    let ledger = small().key(first.clone()).open(&path).unwrap();
    ledger.update_batch(&[(needle, account)]).unwrap();
    ledger
        .update_batch(&[(
            needle,
            Account {
                nonce: 1,
                ..account
            },
        )])
        .unwrap();
    assert_eq!(ledger.get_at(&needle, 1).unwrap(), Some(account));
    ledger.snapshot().unwrap();
    ledger.close().unwrap();
    let mut searched = 0;
    let mut directories = vec![path.clone()];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir().unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                directories.push(entry);
                continue;
            }
            let bytes = std::fs::read(&entry).unwrap();
            searched += bytes.len();
            for secret in [&needle[..8], &account.data[..8]] {
                assert!(
                    !bytes.windows(8).any(|window| window == secret),
                    "{entry:?}"
                );
            }
        }
    }
    assert!(searched > 100_000);
    assert!(matches!(small().open(&path), Err(Error::Key(_))));
    assert!(matches!(
        small().key(second.clone()).open(&path),
        Err(Error::Key(_))
    ));
    GeometricLedger::rotate_key(&path, &first, &second).unwrap();
    assert!(matches!(small().key(first).open(&path), Err(Error::Key(_))));
    let ledger = small().key(second).open(&path).unwrap();
    assert_eq!(ledger.get(&needle).unwrap().unwrap().nonce, 1);
    ledger.update_batch(&put(0, 100, 1)).unwrap();
    assert_eq!(ledger.verify().unwrap(), []);
}

#[test]
fn snapshots_make_the_ledger_that_was() {
    for options in [small(), small().key(Secret::new([9; 32]))] {
        let options = options.history_bytes(1 << 20);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let ledger = options.clone().open(at("ledger")).unwrap();
        let random = &mut Random(8);
        let mut files = Vec::new();
        let mut since = None;
        for file in 0..3 {
            for _ in 0..40 {
                let updates: Vec<_> = (0..50)
                    .map(|_| match random.chance(5) {
                        true => Update::Delete(key(random.below(1_000))),
                        false => Update::Put(
                            key(random.below(1_000)),
                            Account::with_balance(random.below(99).into()),
                        ),
                    })
                    .collect();
                ledger.apply(&updates).unwrap();
            }
            files.push(at(&format!("snapshot-{file}")));
            let info = ledger.snapshot_to(&files[file], since).unwrap();
            since = Some(info.sequence);
        }
        let restored = GeometricLedger::restore(at("restored"), &files, options.clone()).unwrap();
        let all = |ledger: &GeometricLedger| {
            ledger
                .view()
                .iter()
                .map(Result::unwrap)
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(all(&restored), all(&ledger));
        assert_eq!(restored.root().unwrap(), ledger.root().unwrap());
        assert_eq!(restored.audit().unwrap(), ledger.audit().unwrap());
        assert_eq!(
            restored.prove_batch(17).unwrap(),
            ledger.prove_batch(17).unwrap()
        );
        restored.update_batch(&put(0, 10, 5)).unwrap();
        assert_eq!(restored.verify().unwrap(), []);

        // An increment without its base, or a damaged file, makes nothing.
        let again = |files: &[std::path::PathBuf]| {
            GeometricLedger::restore(at("again"), files, options.clone())
        };
        assert!(matches!(again(&files[1..]), Err(Error::Snapshot(_))));
        assert!(matches!(
            again(&[files[0].clone(), files[2].clone()]),
            Err(Error::Snapshot(_))
        ));
        let bytes = std::fs::read(&files[0]).unwrap();
        for _ in 0..40 {
            let mut damaged = bytes.clone();
            let bit = random.below(bytes.len() as u64 * 8) as usize;
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(at("damaged"), damaged).unwrap();
            assert!(again(&[at("damaged")]).is_err(), "bit {bit}");
            std::fs::write(at("damaged"), &bytes[..bit / 8]).unwrap();
            assert!(again(&[at("damaged")]).is_err(), "cut at {}", bit / 8);
        }
        assert!(!at("again").exists());
        assert!(again(&files).is_ok());
    }
}

#[test]
fn keys_chosen_to_collide_are_spread_like_any_others() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    // Differing in a few low bits, in high bits only, multiples of powers of two.
    let keys: Vec<Key> = (0..30_000u64)
        .map(|number| {
            let mut key = [0; 32];
            match number % 3 {
                0 => key[31] = number as u8,
                1 => key[..8].copy_from_slice(&(number << 40).to_le_bytes()),
                _ => key[8..16].copy_from_slice(&(number * 65_536).to_be_bytes()),
            }
            key[16..24].copy_from_slice(&number.to_be_bytes());
            key
        })
        .collect();
    let batch: Vec<_> = keys
        .iter()
        .map(|key| (*key, Account::with_balance(1)))
        .collect();
    ledger.update_batch(&batch).unwrap();
    for shard in ledger.stats().shards {
        assert!((7_000..8_000).contains(&shard.slots), "{shard:?}");
    }
}

/// Readers and writers at once: each account's balance only rises, all accounts of a group are
/// written together, so a view must see them equal, and nothing is seen that is later taken back.
#[test]
fn readers_see_committed_batches_in_order_and_whole() {
    const GROUPS: u64 = 8;
    const MEMBERS: u64 = 40;
    let directory = tempfile::tempdir().unwrap();
    let options = small()
        .segment_bytes(1 << 20)
        .checkpoint_bytes(1 << 20)
        .history_bytes(1 << 20);
    let ledger = options.open(directory.path()).unwrap();
    let group = |group: u64, balance: u64| -> Vec<_> {
        (0..MEMBERS)
            .map(|member| {
                (
                    key(group * MEMBERS + member),
                    Account::with_balance(balance.into()),
                )
            })
            .collect()
    };
    for number in 0..GROUPS {
        ledger.update_batch(&group(number, 0)).unwrap();
    }
    let stop = AtomicBool::new(false);
    let acknowledged: Vec<_> = (0..GROUPS).map(|_| AtomicU64::new(0)).collect();
    let begun: Vec<_> = (0..GROUPS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (ledger, stop, acknowledged, begun, group) =
                (&ledger, &stop, &acknowledged, &begun, &group);
            scope.spawn(move || {
                for round in 1..=300 {
                    for number in (writer..GROUPS).step_by(2) {
                        begun[number as usize].store(round, Ordering::SeqCst);
                        ledger.update_batch(&group(number, round)).unwrap();
                        acknowledged[number as usize].store(round, Ordering::SeqCst);
                    }
                }
                stop.store(true, Ordering::SeqCst);
            });
        }
        for reader in 0..2 {
            let (ledger, stop, acknowledged, begun) = (&ledger, &stop, &acknowledged, &begun);
            scope.spawn(move || {
                let random = &mut Random(reader);
                let mut last = BTreeMap::new();
                while !stop.load(Ordering::SeqCst) {
                    let number = random.below(GROUPS);
                    let account = number * MEMBERS + random.below(MEMBERS);
                    let at_least = acknowledged[number as usize].load(Ordering::SeqCst);
                    let balance = ledger.get(&key(account)).unwrap().unwrap().balance as u64;
                    let at_most = begun[number as usize].load(Ordering::SeqCst);
                    assert!(
                        (at_least..=at_most).contains(&balance),
                        "{at_least} {balance} {at_most}"
                    );
                    let before = last.insert(account, balance).unwrap_or(0);
                    assert!(
                        balance >= before,
                        "account {account} went back from {before} to {balance}"
                    );
                    if random.chance(20) {
                        let view = ledger.view();
                        let keys: Vec<_> = (0..MEMBERS)
                            .map(|member| key(number * MEMBERS + member))
                            .collect();
                        let balances = view.get_many(&keys).unwrap();
                        assert!(
                            balances.iter().all(|account| account == &balances[0]),
                            "half a batch"
                        );
                    }
                }
            });
        }
    });
    assert_eq!(ledger.verify().unwrap(), []);
}

/// What a batch has changed is undone from the log for readers until the batch is durable: with
/// encryption as without, and without reading all of the batch.
#[test]
fn accounts_that_are_there_are_found_while_large_batches_change_them() {
    for options in [Options::new(), Options::new().key(Secret::new([3; 32]))] {
        let directory = tempfile::tempdir().unwrap();
        let ledger = options.shards(4).open(directory.path()).unwrap();
        ledger.update_batch(&put(0, 4_000, 1)).unwrap();
        let stop = AtomicBool::new(false);
        let gets = std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..60 {
                    ledger.update_batch(&put(0, 4_000, round)).unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            });
            let reader = scope.spawn(|| {
                let (random, mut gets) = (&mut Random(4), 0u64);
                while !stop.load(Ordering::Relaxed) {
                    let account = ledger.get(&key(random.below(4_000))).unwrap();
                    assert!(account.is_some(), "an account that was always there is not");
                    gets += 1;
                }
                gets
            });
            reader.join().unwrap()
        });
        assert!(gets > 100, "{gets}");
    }
}

#[test]
fn a_view_reads_of_an_encrypted_log_only_what_it_needs() {
    let disk = SimDisk::new();
    let options = small()
        .segment_bytes(8 << 20)
        .history_bytes(64 << 20)
        .key(Secret::new([3; 32]));
    let ledger = options.open_on(Arc::new(disk.clone())).unwrap();
    ledger.update_batch(&put(0, 20_000, 1)).unwrap();
    let view = ledger.view();
    ledger.update_batch(&put(0, 20_000, 2)).unwrap();
    let before = disk.bytes_read();
    for number in 0..200 {
        let account = view.get(&key(number * 100)).unwrap();
        assert_eq!(account, Some(Account::with_balance(1)));
    }
    let read = disk.bytes_read() - before;
    assert!(read < 200 * 10_000, "{read} bytes for 200 accounts");
}

/// An error on the way to an account is never told as its absence.
#[test]
fn an_account_that_cannot_be_read_is_an_error_of_every_read() {
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    ledger.update_batch(&put(0, 100, 1)).unwrap();
    ledger.close().unwrap();
    for shard in 0..4 {
        disk.replace(&format!("shard-{shard:02x}.slots"), {
            let name = format!("shard-{shard:02x}.slots");
            let mut content = disk.content(&name);
            content[128..].fill(0x55);
            content
        });
    }
    let ledger = small().open_on(Arc::new(disk)).unwrap();
    assert!(ledger.get(&key(1)).is_err());
    assert!(ledger.get_many(&[key(1)]).is_err());
    assert!(ledger.view().get(&key(1)).is_err());
    assert!(ledger.view().iter().any(|account| account.is_err()));
    let pay = Transfer {
        debit: key(1),
        credit: key(2),
        amount: 1,
    };
    let refused = ledger.transfer_batch(&[1; 16], &[pay]).unwrap_err();
    assert!(matches!(refused, Error::DamagedAccount { .. }), "{refused}");
}

/// Receipts and accounts are apart: no account's key is a receipt's, whatever it is derived from.
#[test]
fn an_account_and_a_receipt_with_one_key_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ledger = small().open(at("ledger")).unwrap();
    ledger.update_batch(&put(0, 10, 100)).unwrap();
    let pay = Transfer {
        debit: key(1),
        credit: key(2),
        amount: 1,
    };
    let idempotency_key = *b"the retry's key!";
    let derived = blake3::derive_key("geometric_ledger 2026-11-21 receipt", &idempotency_key);
    let mut padded = [0; 32];
    padded[..16].copy_from_slice(&idempotency_key);
    let squatters = [derived, padded];
    for squatter in squatters {
        let million = Account::with_balance(1_000_000);
        ledger.update_batch(&[(squatter, million)]).unwrap();
    }
    let first = ledger.transfer_batch(&idempotency_key, &[pay]).unwrap();
    for squatter in squatters {
        assert_eq!(ledger.get(&squatter).unwrap().unwrap().balance, 1_000_000);
        ledger
            .update_batch(&[(squatter, Account::with_balance(1))])
            .unwrap();
    }
    let again = ledger.transfer_batch(&idempotency_key, &[pay]).unwrap();
    assert!(again.repeated);
    assert_eq!(again.sequence, first.sequence);
    assert_eq!(ledger.get(&key(2)).unwrap().unwrap().balance, 101);
    // An account may also pay in a batch whose receipt has its key.
    let pay = Transfer {
        debit: padded,
        credit: key(2),
        amount: 1,
    };
    ledger.transfer_batch(b"the retry's key?", &[pay]).unwrap();
    assert_eq!(ledger.audit().unwrap().accounts, 12);
    assert_eq!(ledger.verify().unwrap(), []);
    ledger.snapshot_to(at("snapshot"), None).unwrap();
    let restored = GeometricLedger::restore(at("restored"), &[at("snapshot")], small()).unwrap();
    assert_eq!(restored.audit().unwrap(), ledger.audit().unwrap());
    assert!(
        restored
            .transfer_batch(b"the retry's key?", &[pay])
            .unwrap()
            .repeated
    );
}

#[test]
fn of_snapshots_to_one_path_at_once_each_succeeds_whole_or_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ledger = small().open(at("ledger")).unwrap();
    ledger.update_batch(&put(0, 5_000, 3)).unwrap();
    for round in 0..10 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| ledger.snapshot_to(at("snapshot"), None)))
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(results.iter().any(Result::is_ok));
        for result in results {
            assert!(
                matches!(result, Ok(_) | Err(Error::Snapshot(_))),
                "{result:?}"
            );
        }
        let path = at(&format!("restored-{round}"));
        let restored = GeometricLedger::restore(&path, &[at("snapshot")], small()).unwrap();
        assert_eq!(restored.audit().unwrap().accounts, 5_000);
    }
    let left = std::fs::read_dir(directory.path()).unwrap();
    let names: Vec<_> = left.map(|it| it.unwrap().file_name()).collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().contains('.')),
        "{names:?}"
    );
}

#[test]
fn receipts_that_are_too_old_go_in_step_with_those_that_come_whatever_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let options = small()
        .receipts(500)
        .segment_bytes(1 << 20)
        .checkpoint_bytes(1 << 20)
        .durability(Durability::None);
    let ledger = options.clone().open(at("ledger")).unwrap();
    ledger.update_batch(&put(0, 100, 1_000_000)).unwrap();
    let held = ledger.view();
    let pay = |number: u64| {
        let mut idempotency_key = [0; 16];
        idempotency_key[..8].copy_from_slice(&number.to_le_bytes());
        let transfer = Transfer {
            debit: key(number % 100),
            credit: key((number + 1) % 100),
            amount: 1,
        };
        ledger
            .transfer_batch(&idempotency_key, &[transfer])
            .unwrap()
    };
    let mut most = 0;
    for number in 0..10_000 {
        assert!(!pay(number).repeated);
        most = most.max(ledger.stats().receipts);
        if number % 1_000 == 999 {
            for kept in number - 499..=number {
                assert!(pay(kept).repeated, "{kept} of {number}");
            }
        }
        if number == 5_000 {
            ledger.snapshot_to(at("snapshot"), None).unwrap();
        }
    }
    assert!(most < 500 + 500, "{most} receipts were there at once");
    assert_eq!(
        held.get(&key(1)).unwrap(),
        Some(Account::with_balance(1_000_000))
    );
    assert_eq!(ledger.verify().unwrap(), []);
    // A snapshot that was taken while they moved has all that count.
    let restored =
        GeometricLedger::restore(at("restored"), &[at("snapshot")], options.clone()).unwrap();
    assert!(restored.stats().receipts >= 500);
    drop((held, ledger));
    let ledger = options.open(at("ledger")).unwrap();
    assert_eq!(ledger.verify().unwrap(), []);
    assert_eq!(ledger.audit().unwrap().balances, 100_000_000);
}

#[test]
fn a_second_writer_is_kept_out_whatever_file_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    ledger.update_batch(&put(0, 10, 1)).unwrap();
    let _ = std::fs::remove_file(directory.path().join("LOCK"));
    assert!(matches!(small().open(directory.path()), Err(Error::Locked)));
    std::fs::remove_file(directory.path().join("ledger")).unwrap();
    let refused = small().open(directory.path()).err();
    assert!(
        matches!(refused, Some(Error::Damaged { .. })),
        "{refused:?}"
    );
}

#[test]
fn the_rules_of_accounts_hold_whichever_call_writes() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    let frozen = Account {
        flags: Flags::FROZEN,
        ..Account::with_balance(5)
    };
    ledger.update_batch(&[(key(1), frozen)]).unwrap();
    let refused = |result: Result<Batch, Error>| match result {
        Err(Error::Item { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let put = |number, account| ledger.update_batch(&[(key(number), account)]);
    let poor = Account::with_balance(-50);
    let zero = Account {
        balance: 0,
        ..frozen
    };
    assert_eq!(refused(put(1, zero)), Refusal::Frozen(key(1)));
    assert_eq!(
        refused(put(1, Account::with_balance(6))),
        Refusal::Frozen(key(1))
    );
    let deletion = ledger.apply(&[Update::Delete(key(1))]);
    assert_eq!(refused(deletion), Refusal::Frozen(key(1)));
    let overdrawn = Refusal::Overdrawn {
        key: key(2),
        balance: -50,
    };
    assert_eq!(refused(put(2, poor)), overdrawn);
    let most = Account::MAX_BALANCE;
    let too_much = Account::with_balance(most + 1);
    assert_eq!(refused(put(3, too_much)), Refusal::Overflow(key(3)));
    // Nothing was done. Releasing the account by its flags alone is allowed, and what follows.
    assert_eq!(ledger.get(&key(1)).unwrap(), Some(frozen));
    put(
        1,
        Account {
            flags: Flags::NONE,
            ..frozen
        },
    )
    .unwrap();
    put(1, Account::with_balance(7)).unwrap();
    // What is imported is set as it is.
    put(
        1,
        Account {
            flags: Flags::FROZEN,
            ..Account::with_balance(7)
        },
    )
    .unwrap();
    ledger
        .import(&[Update::Put(key(1), frozen), Update::Put(key(2), poor)])
        .unwrap();
    assert_eq!(ledger.get(&key(2)).unwrap(), Some(poor));
    let too_much = ledger.import(&[Update::Put(key(3), too_much)]);
    assert_eq!(refused(too_much), Refusal::Overflow(key(3)));
    // Who is below zero by an import may be paid, and may not pay.
    put(4, Account::with_balance(100)).unwrap();
    let transfer = |debit, credit, amount| {
        let transfer = Transfer {
            debit: key(debit),
            credit: key(credit),
            amount,
        };
        let idempotency_key = [(debit * 16 + credit) as u8; 16];
        ledger.transfer_batch(&idempotency_key, &[transfer])
    };
    transfer(4, 2, 1).unwrap();
    assert!(transfer(2, 4, 1).is_err());
    // A currency is not another one, and a nonce does not begin again.
    put(
        5,
        Account {
            code: 978,
            ..Account::default()
        },
    )
    .unwrap();
    let mixed = transfer(4, 5, 1).err();
    let other_code = Refusal::CodeMismatch {
        debit_key: key(4),
        debit: 0,
        credit_key: key(5),
        credit: 978,
    };
    assert!(
        matches!(&mixed, Some(Error::Item { reason, .. }) if *reason == other_code),
        "{mixed:?}"
    );
    put(
        6,
        Account {
            nonce: u64::MAX,
            ..Account::with_balance(9)
        },
    )
    .unwrap();
    assert!(transfer(6, 4, 1).is_err());
    assert_eq!(ledger.audit().unwrap().accounts, 5);
}

#[test]
fn no_balance_keeps_others_from_minting() {
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk)).unwrap();
    let most = Account::MAX_BALANCE;
    ledger
        .update_batch(&[(key(1), Account::with_balance(most))])
        .unwrap();
    // More than 128 bits can count is minted and burned again.
    let rich = put(10, 60_000, most);
    let poor = put(10, 60_000, 0);
    for _ in 0..20 {
        ledger.update_batch(&rich).unwrap();
        ledger.update_batch(&poor).unwrap();
    }
    ledger
        .update_batch(&[(key(2), Account::with_balance(2_000))])
        .unwrap();
    assert_eq!(ledger.audit().unwrap().balances, most + 2_000);
}

/// The sum of all balances has to fit; what is burned makes room again.
#[test]
fn a_sum_of_balances_that_does_not_fit_is_refused_until_there_is_room() {
    let disk = SimDisk::new();
    let ledger = small()
        .segment_bytes(32 << 20)
        .checkpoint_bytes(1 << 30)
        .open_on(Arc::new(disk))
        .unwrap();
    let most = Account::MAX_BALANCE;
    let full = i128::MAX / most;
    let each = (full / 8) as u64;
    for from in 0..8 {
        ledger
            .update_batch(&put(from * each, (from + 1) * each, most))
            .unwrap();
    }
    let refused = ledger
        .update_batch(&put(9 * each, 10 * each, most))
        .unwrap_err();
    let reason = Refusal::TotalOverflow;
    assert!(
        matches!(&refused, Error::Item { reason: it, .. } if *it == reason),
        "{refused}"
    );
    ledger.update_batch(&put(0, each, 0)).unwrap();
    ledger
        .update_batch(&put(9 * each, 10 * each, most))
        .unwrap();
}

#[test]
fn memory_that_is_not_in_the_files_is_bounded_while_writing_and_while_replaying() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let options = || {
        Options::new()
            .shards(4)
            .segment_bytes(4 << 20)
            .checkpoint_bytes(256 << 20)
            .resident_bytes(1 << 20)
            .dirty_bytes(4 << 20)
            .durability(Durability::None)
    };
    let ledger = options().open(path).unwrap();
    let mut most = 0;
    let write = |round: u64| {
        let mut random = Random(round);
        let batch: Vec<_> = (0..100)
            .map(|_| {
                (
                    key(random.below(200_000)),
                    Account::with_balance(round.into()),
                )
            })
            .collect();
        ledger.update_batch(&batch).unwrap();
    };
    for from in (0..200_000).step_by(1_000) {
        ledger.update_batch(&put(from, from + 1_000, 1)).unwrap();
    }
    for round in 0..300 {
        write(round);
        most = most.max(ledger.stats().dirty_bytes);
    }
    assert!(most < 8 << 20, "{most} bytes were not in the files");
    assert_eq!(ledger.audit().unwrap().accounts, 200_000);
    drop(ledger);

    // The log of a ledger that may use more memory: a crash leaves all of it to be replayed.
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ledger = options().dirty_bytes(1 << 30).open(at("ledger")).unwrap();
    for from in (0..50_000).step_by(1_000) {
        ledger.update_batch(&put(from, from + 1_000, 1)).unwrap();
    }
    std::fs::create_dir(at("killed")).unwrap();
    for file in std::fs::read_dir(at("ledger")).unwrap() {
        let file = file.unwrap();
        // A socket is none.
        if !file.metadata().unwrap().is_file() {
            continue;
        }
        std::fs::copy(file.path(), at("killed").join(file.file_name())).unwrap();
    }
    drop(ledger);
    let options = options().dirty_bytes(1 << 20);
    let refused = options.clone().read_only().open(at("killed"));
    assert!(matches!(refused, Err(Error::TooMuchToReplay(_))));
    let ledger = options.open(at("killed")).unwrap();
    assert!(ledger.recovery().checkpoints > 3, "{:?}", ledger.recovery());
    assert_eq!(ledger.audit().unwrap().accounts, 50_000);
    assert_eq!(ledger.verify().unwrap(), []);
}

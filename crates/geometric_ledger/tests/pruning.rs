//! Old batches are pruned behind a frontier: later ones are proven as before, whatever happens meanwhile.

mod common;

use common::sim::{Fault, SimDisk};
use common::{Random, key, small};
use geometric_ledger::merkle_tree::{Frontier, Hash, TreeSize, verify_consistency};
use geometric_ledger::*;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const KEPT: u64 = 300;
/// Batches that are asked for each time, beside those at borders.
const SAMPLES: u64 = 24;

fn options() -> Options {
    small().batches(KEPT)
}

fn open(disk: &SimDisk, options: &Options) -> GeometricLedger {
    options.clone().open_on(Arc::new(disk.clone())).unwrap()
}

/// What the tree is, known from the batches alone.
#[derive(Clone, Default)]
struct Truth {
    frontier: Frontier,
    /// The root over the first `n` batches, at `n - 1`.
    roots: Vec<Hash>,
    times: Vec<i64>,
}

impl Truth {
    fn add(&mut self, batch: &Batch) {
        self.frontier.push(batch.leaf_hash()).unwrap();
        self.roots.push(self.frontier.root());
        self.times.push(batch.time);
    }

    /// Makes batches, with a checkpoint every hundred.
    fn write(&mut self, ledger: &GeometricLedger, batches: u64) {
        for _ in 0..batches {
            let number = self.roots.len() as u64;
            let account = (key(number % 50), Account::with_balance(number.into()));
            let batch = ledger.update_batch(&[account]).unwrap();
            self.add(&batch);
            if number % 100 == 99 {
                ledger.checkpoint().unwrap();
            }
        }
    }

    /// Checks everything that is and is not proven. Returns how many batches were pruned.
    fn check(&self, ledger: &GeometricLedger) -> u64 {
        let (size, root) = ledger.root().unwrap();
        let now = size.get();
        assert_eq!(root, self.roots[now as usize - 1]);
        assert_eq!(ledger.verify().unwrap(), []);
        ledger.audit().unwrap();
        let first = ledger.stats().first_batch;
        let random = &mut Random(now);
        // Those at the borders, and some.
        let borders = [
            1,
            first - 1,
            first,
            first + 1,
            first + 255,
            first + 256,
            now - 1,
            now,
        ];
        let some: Vec<_> = (0..SAMPLES).map(|_| 1 + random.below(now)).collect();
        let there = |it: &u64| (1..=now).contains(it);
        for sequence in borders.into_iter().chain(some).filter(there) {
            let other = sequence + random.below(now - sequence + 1);
            let (sequence_size, other_size) = (tree_size(sequence), tree_size(other));
            match sequence < first {
                true => {
                    let refused = ledger.batch(sequence);
                    assert!(is_pruned(refused, sequence, first));
                    assert!(is_pruned(ledger.prove_batch(sequence), sequence, first));
                    let refused = ledger.prove_batch_in(sequence, other_size);
                    assert!(is_pruned(refused, sequence, first));
                }
                false => {
                    let batch = ledger.batch(sequence).unwrap().unwrap();
                    assert_eq!(batch.time, self.times[sequence as usize - 1]);
                    for size in [size, other_size] {
                        let proof = ledger.prove_batch_in(sequence, size).unwrap();
                        proof.verify().unwrap();
                        assert_eq!(proof.root, self.roots[size.get() as usize - 1]);
                        assert_eq!(proof.leaf_data, batch.leaf_data());
                    }
                }
            }
            let path = ledger.prove_consistency(sequence_size, other_size);
            if sequence + 1 < first {
                assert!(is_pruned(path, sequence, first));
                assert!(is_pruned(ledger.root_at(sequence_size), sequence, first));
                continue;
            }
            let old = self.roots[sequence as usize - 1];
            assert_eq!(ledger.root_at(sequence_size).unwrap(), old);
            let new = self.roots[other as usize - 1];
            let path = path.unwrap();
            verify_consistency(sequence_size, other_size, &old, &new, &path).unwrap();
        }
        assert_eq!(ledger.batch(now + 1).unwrap(), None);
        assert!(
            ledger
                .prove_consistency(TreeSize::ZERO, size)
                .unwrap()
                .is_empty()
        );
        first - 1
    }
}

fn tree_size(size: u64) -> TreeSize {
    TreeSize::new(size).unwrap()
}

fn is_pruned<T>(result: Result<T, Error>, sequence: u64, first_kept: u64) -> bool {
    matches!(result, Err(Error::Pruned { asked, first }) if (asked, first) == (sequence, first_kept))
}

fn frontier_files(disk: &SimDisk) -> Vec<String> {
    let names = disk.names().into_iter();
    names.filter(|name| name.starts_with("frontier-")).collect()
}

#[test]
fn old_batches_are_pruned_and_later_ones_are_proven_as_before() {
    for options in [options(), options().key(Secret::new([3; 32]))] {
        let disk = SimDisk::new();
        let ledger = open(&disk, &options);
        let mut truth = Truth::default();
        truth.write(&ledger, KEPT + 100);
        assert_eq!(truth.check(&ledger), 0);
        truth.write(&ledger, 700);
        // Whole tiles of them, and no more than was said.
        assert_eq!(truth.check(&ledger), 768);
        assert_eq!(frontier_files(&disk), ["frontier-0000000000000300"]);
        ledger.close().unwrap();
        for options in [options.clone(), options.clone().read_only()] {
            let ledger = open(&disk, &options);
            assert!(ledger.recovery().clean);
            assert_eq!(truth.check(&ledger), 768);
        }
        let ledger = open(&disk, &options);
        truth.write(&ledger, 55);
        let killed = disk.kill();
        drop(ledger);
        let ledger = open(&killed, &options);
        truth.check(&ledger);
        truth.write(&ledger, 500);
        assert_eq!(truth.check(&ledger), 1_280);
        // Pruned is what is no more said to be kept, whoever opened it last.
        ledger.close().unwrap();
        let ledger = open(&killed, &options.clone().batches(u64::MAX));
        truth.write(&ledger, 200);
        assert_eq!(truth.check(&ledger), 1_280);
    }
}

#[test]
fn nothing_is_pruned_that_history_needs() {
    let disk = SimDisk::new();
    let options = small().batches(0).history_bytes(1 << 30);
    let ledger = open(&disk, &options);
    let mut truth = Truth::default();
    truth.write(&ledger, 600);
    assert_eq!(truth.check(&ledger), 0);
    ledger.close().unwrap();
    // A view keeps the history that it needs, and the batches.
    let ledger = open(&disk, &small().batches(0).history_bytes(0));
    let view = ledger.view_at(100).unwrap();
    truth.write(&ledger, 300);
    assert_eq!(truth.check(&ledger), 0);
    assert_eq!(view.get(&key(0)).unwrap().unwrap().balance, 50);
    drop(view);
    truth.write(&ledger, 100);
    let pruned = truth.check(&ledger);
    assert!(pruned >= 768, "{pruned}");
    assert!(pruned < *ledger.history().start());
}

/// Bytes that a file takes on the disk.
fn allocated(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

#[test]
fn the_disk_has_the_space_of_pruned_batches_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let options = options()
        .durability(Durability::None)
        .checkpoint_bytes(1 << 20);
    let ledger = options.clone().open(&path).unwrap();
    let batches = 70_000;
    for number in 0..batches {
        let account = (key(number % 50), Account::with_balance(number.into()));
        ledger.update_batch(&[account]).unwrap();
    }
    ledger.close().unwrap();
    let ledger = options.read_only().open(&path).unwrap();
    let stats = ledger.stats();
    let kept = batches - stats.first_batch + 1;
    assert!((KEPT..KEPT + 256).contains(&kept), "{kept}");
    assert_eq!(stats.batches_bytes, kept * 160);
    let rows = allocated(&path.join("batches"));
    assert!(rows <= kept * 160 + 8_192, "{rows} bytes");
    // The hashes of the first tile of 65,536 batches are needed no more.
    let hashes = allocated(&path.join("tree-1"));
    assert!(hashes <= 8_192, "{hashes} bytes");
    assert_eq!(ledger.verify().unwrap(), []);
    ledger.prove_batch(batches).unwrap().verify().unwrap();
}

#[test]
fn snapshots_of_a_pruned_ledger_make_one_that_is_pruned_with_the_same_roots() {
    for key in [None, Some(Secret::new([3; 32]))] {
        let options = match &key {
            Some(key) => options().key(key.clone()),
            None => options(),
        };
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let ledger = options.clone().open(at("ledger")).unwrap();
        let mut truth = Truth::default();
        truth.write(&ledger, 900);
        let full = ledger.snapshot_to(at("full"), None).unwrap();
        assert_eq!(full.pruned, ledger.stats().first_batch - 1);
        assert!(full.pruned > 0);
        truth.write(&ledger, 20);
        let more = ledger.snapshot_to(at("more"), Some(full.sequence)).unwrap();
        assert_eq!(more.pruned, 0);
        let files = [at("full"), at("more")];
        let restored = GeometricLedger::restore(at("restored"), &files, options.clone()).unwrap();
        assert_eq!(restored.root().unwrap(), ledger.root().unwrap());
        assert_eq!(truth.check(&restored), full.pruned);
        // It goes on as any other: is pruned further, opened again, copied again.
        let mut its_truth = truth.clone();
        its_truth.write(&restored, 600);
        assert!(its_truth.check(&restored) > full.pruned);
        restored.close().unwrap();
        let restored = options.clone().open(at("restored")).unwrap();
        its_truth.check(&restored);
        restored.snapshot_to(at("again"), None).unwrap();
        let again = GeometricLedger::restore(at("third"), &[at("again")], options).unwrap();
        its_truth.check(&again);
    }
}

#[test]
fn a_snapshot_with_another_frontier_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ledger = options().open(at("ledger")).unwrap();
    Truth::default().write(&ledger, 900);
    ledger.snapshot_to(at("file"), None).unwrap();
    let bytes = std::fs::read(at("file")).unwrap();
    let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let (header, rest) = (&bytes[12..12 + len], &bytes[12 + len + 32..]);
    let forge = |change: &dyn Fn(&mut serde_cbor::Value)| {
        let mut header: serde_cbor::Value = serde_cbor::from_slice(header).unwrap();
        change(&mut header);
        let header = serde_cbor::to_vec(&header).unwrap();
        let mut forged = bytes[..8].to_vec();
        forged.extend((header.len() as u32).to_le_bytes());
        forged.extend(&header);
        forged.extend(blake3::hash(&header).as_bytes());
        forged.extend(rest);
        std::fs::write(at("forged"), forged).unwrap();
        let refused = GeometricLedger::restore(at("restored"), &[at("forged")], options()).err();
        assert!(!at("restored").exists());
        refused.map(|error| error.to_string())
    };
    let field = |header: &mut serde_cbor::Value, name: &str, value: serde_cbor::Value| {
        let serde_cbor::Value::Map(fields) = header else {
            panic!("it is a map");
        };
        fields.insert(serde_cbor::Value::Text(name.into()), value);
    };
    let hashes =
        |bytes: usize| serde_cbor::Value::Array(vec![serde_cbor::Value::Integer(1); bytes]);
    let refused = forge(&|header| field(header, "frontier", hashes(64))).unwrap();
    assert!(refused.contains("root"), "{refused}");
    for bytes in [0, 32, 63, 96] {
        let refused = forge(&|header| field(header, "frontier", hashes(bytes))).unwrap();
        assert!(refused.contains("frontier"), "{refused}");
    }
    for pruned in [0, 256, 511, 768, i128::from(u64::MAX)] {
        let refused = forge(&|header| {
            field(header, "pruned", serde_cbor::Value::Integer(pruned));
        });
        assert!(refused.is_some(), "{pruned}");
    }
}

/// What is done to a file.
type Damage = fn(&SimDisk, &str);

#[test]
fn the_frontier_is_made_again_from_the_tree_and_the_tree_from_the_frontier() {
    let disk = SimDisk::new();
    let ledger = open(&disk, &options());
    let mut truth = Truth::default();
    truth.write(&ledger, 900);
    ledger.close().unwrap();
    let frontier = &frontier_files(&disk)[0];
    let damages: [(&str, Damage); 5] = [
        ("missing", |disk, name| disk.delete(name)),
        ("empty", |disk, name| disk.replace(name, Vec::new())),
        ("cut", |disk, name| {
            let mut content = disk.content(name);
            content.truncate(content.len() / 2);
            disk.replace(name, content);
        }),
        ("flipped", |disk, name| disk.flip(name, 8 * 40 + 3)),
        ("longer", |disk, name| {
            let mut content = disk.content(name);
            content[40] ^= 1;
            content.extend([7; 100]);
            disk.replace(name, content);
        }),
    ];
    for (how, damage) in damages {
        for name in [&**frontier, "tree-1"] {
            let damaged = disk.copy();
            damage(&damaged, name);
            let reading = open(&damaged, &options().read_only());
            assert!(reading.recovery().tree_rebuilt, "{name} is {how}");
            assert!(matches!(reading.root(), Ok((_, root)) if root == truth.frontier.root()));
            // Only reading mends nothing on the disk.
            assert_eq!(reading.verify().unwrap().is_empty(), name != frontier);
            drop(reading);
            let ledger = open(&damaged, &options());
            assert!(ledger.recovery().tree_rebuilt, "{name} is {how}");
            assert_eq!(truth.check(&ledger), 512);
            ledger.close().unwrap();
            let ledger = open(&damaged, &options());
            assert!(!ledger.recovery().tree_rebuilt, "{name} was {how}");
            assert_eq!(truth.check(&ledger), 512);
        }
        // Where both are, what was committed cannot be shown.
        let damaged = disk.copy();
        damage(&damaged, frontier);
        damage(&damaged, "tree-1");
        let refused = options().open_on(Arc::new(damaged)).err();
        let refused = refused.expect("it is refused");
        assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains("frontier-"), "{refused}");
    }
}

#[test]
fn damage_while_the_ledger_is_open_is_reported_and_proves_nothing() {
    let disk = SimDisk::new();
    let ledger = open(&disk, &options());
    let mut truth = Truth::default();
    truth.write(&ledger, 900);
    let frontier = &frontier_files(&disk)[0];
    disk.flip(frontier, 8 * 60);
    let found = ledger.verify().unwrap();
    assert!(
        found.iter().any(|finding| &finding.file == frontier),
        "{found:?}"
    );
    disk.flip(frontier, 8 * 60);
    // A hash of the frontier, in the tree.
    disk.flip("tree-1", 8 * 32);
    let found = ledger.verify().unwrap();
    assert!(
        found.iter().any(|finding| finding.file == "tree-1"),
        "{found:?}"
    );
    let proof = ledger.prove_batch(600).unwrap();
    proof.verify().unwrap();
    assert_eq!(proof.root, truth.frontier.root());
    truth.check(&ledger);
}

#[test]
fn pruning_that_is_cut_short_anywhere_loses_nothing() {
    let base = SimDisk::new();
    let ledger = open(&base, &options());
    let mut truth = Truth::default();
    truth.write(&ledger, 550);
    ledger.close().unwrap();
    let mut struck = [0, 0];
    for (number, fault) in [Fault::PowerOff, Fault::ShortWrite, Fault::Sync]
        .into_iter()
        .enumerate()
    {
        for operation in 0.. {
            let mut truth = truth.clone();
            let disk = base.copy();
            let ledger = open(&disk, &options());
            truth.write(&ledger, 40);
            disk.plan(fault, operation);
            let done = ledger.checkpoint();
            let planned = disk.faults() > 0;
            let acknowledged = truth.roots.len() as u64;
            let random = &mut Random(operation);
            for _ in 0..2 {
                let after = match fault {
                    Fault::PowerOff => disk.crash(random),
                    _ => disk.copy(),
                };
                let ledger = open(&after, &options());
                assert_eq!(
                    ledger.root().unwrap().0.get(),
                    acknowledged,
                    "{fault:?} {operation}"
                );
                truth.check(&ledger);
                let mut truth = truth.clone();
                truth.write(&ledger, 1);
                ledger.checkpoint().unwrap();
                assert_eq!(truth.check(&ledger), 256, "{fault:?} {operation}");
                assert_eq!(frontier_files(&after), ["frontier-0000000000000100"]);
            }
            drop(ledger);
            if !planned {
                done.unwrap();
                break;
            }
            struck[number.min(1)] += 1;
        }
    }
    assert!(struck[0] > 20 && struck[1] > 20, "{struck:?}");
}

#[test]
fn records_and_histories_outlive_the_batches_that_made_them() {
    let disk = SimDisk::new();
    let ledger = open(&disk, &options());
    let accounts = [1, 2, 3].map(|number| (key(number), Account::with_balance(10_000)));
    ledger.update_batch(&accounts).unwrap();
    let id = |number: u64| {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        id
    };
    let mut records = Vec::new();
    for number in 0..50 {
        let direct = NewTransfer::new(id(4 * number), key(1), key(2), 1);
        let pending = NewTransfer::new(id(4 * number + 1), key(2), key(3), 2).pending(None);
        let ends = match number % 2 {
            0 => NewTransfer::post(id(4 * number + 2), pending.id),
            _ => NewTransfer::void(id(4 * number + 2), pending.id),
        };
        for transfer in [direct, pending, ends] {
            let done = ledger.create_transfers(&[transfer]).unwrap()[0]
                .clone()
                .unwrap();
            let batch = ledger.batch(done.sequence).unwrap().unwrap();
            let record = ledger.transfer(&transfer.id).unwrap().unwrap();
            assert_eq!(record.time, Some(batch.time));
            records.push(transfer.id);
        }
    }
    let records: Vec<_> = records
        .iter()
        .map(|id| ledger.transfer(id).unwrap().unwrap())
        .collect();
    let untouched = ledger
        .update_batch(&[(key(4), Account::with_balance(4))])
        .unwrap();
    let others = |balance: i128| -> Vec<_> {
        (100..200)
            .map(|number| (key(number), Account::with_balance(balance)))
            .collect()
    };
    for round in 0..600 {
        ledger.update_batch(&others(round)).unwrap();
    }
    ledger.checkpoint().unwrap();
    assert!(ledger.stats().first_batch > untouched.sequence);
    for record in records {
        assert_eq!(ledger.transfer(&record.id).unwrap(), Some(record));
    }
    // That an account was not changed for long is no error of its history.
    let history = ledger.account_history(&key(4), 10).unwrap();
    let state = history.states[0];
    assert_eq!((state.sequence, state.time), (untouched.sequence, None));
    assert_eq!(state.account.unwrap().balance, 4);
    assert_eq!(
        ledger.account_history(&key(100), 1).unwrap().states.len(),
        1
    );
    ledger.audit().unwrap();
}

#[test]
fn verify_and_snapshots_beside_pruning_find_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let options = options().durability(Durability::None);
    let ledger = options.clone().open(at("ledger")).unwrap();
    let stop = AtomicBool::new(false);
    let mut truth = Truth::default();
    truth.write(&ledger, 1);
    std::thread::scope(|scope| {
        let (ledger, stop, at, options) = (&ledger, &stop, &at, &options);
        let verify = scope.spawn(move || {
            let mut passes = 0;
            while !stop.load(Ordering::Acquire) {
                assert_eq!(ledger.verify().unwrap(), []);
                passes += 1;
            }
            passes
        });
        let restore = scope.spawn(move || {
            let mut restored = 0;
            while !stop.load(Ordering::Acquire) {
                let info = ledger.snapshot_to(at("snapshot"), None).unwrap();
                let _ = std::fs::remove_dir_all(at("restored"));
                let copy =
                    GeometricLedger::restore(at("restored"), &[at("snapshot")], options.clone());
                let copy = copy.unwrap();
                let size = tree_size(info.sequence);
                assert_eq!(copy.root().unwrap(), (size, Hash::from(info.root)));
                copy.prove_batch(info.sequence).unwrap().verify().unwrap();
                restored += 1;
            }
            restored
        });
        truth.write(ledger, 8_000);
        stop.store(true, Ordering::Release);
        let (passes, restored) = (verify.join().unwrap(), restore.join().unwrap());
        assert!(passes > 0 && restored > 0, "{passes}, {restored}");
    });
    ledger.checkpoint().unwrap();
    assert!(truth.check(&ledger) > 7_000);
}

//! Whatever a crash or a failing disk leaves, what was acknowledged is there, and nothing by halves.

mod common;

use common::sim::{Fault, SimDisk};
use common::{Model, Random, key, small};
use geometric_ledger::*;
use proptest::prelude::*;
use std::sync::Arc;

fn open(disk: &SimDisk, options: &Options) -> GeometricLedger {
    options.clone().open_on(Arc::new(disk.clone())).unwrap()
}

/// A batch of puts and deletes among few enough keys that each is changed often.
fn batch(random: &mut Random, keys: u64, longest: u64) -> Vec<Update> {
    (0..random.below(longest) + 1)
        .map(|_| {
            let key = key(random.below(keys));
            match random.chance(5) {
                true => Update::Delete(key),
                false => Update::Put(
                    key,
                    Account {
                        balance: i128::from(random.below(1 << 40)) - (1 << 39),
                        nonce: random.below(1 << 50),
                        flags: Flags::OVERDRAFT,
                        ..Account::default()
                    },
                ),
            }
        })
        .collect()
}

/// Opens what a crash left, and finds the model's state after the last batch that survived.
fn reopen(
    disk: &SimDisk,
    options: &Options,
    model: &mut Model,
    acknowledged: u64,
) -> GeometricLedger {
    let ledger = open(disk, options);
    let sequence = ledger.view().sequence();
    assert!(
        sequence >= acknowledged,
        "{acknowledged} was acknowledged, {sequence} is left"
    );
    assert!(sequence <= model.sequence());
    model.states.truncate(sequence as usize + 1);
    model.check(&ledger);
    ledger
}

fn crash_often(seed: u64, options: &Options, durability: Durability) {
    let options = &options.clone().durability(durability);
    let synced = durability == Durability::Sync;
    let random = &mut Random(seed);
    let mut disk = SimDisk::new();
    let mut model = Model::new();
    let (keys, longest) = (1 + random.below(400), 1 + random.below(60));
    for _ in 0..3 {
        let acknowledged = if synced { model.sequence() } else { 0 };
        let ledger = reopen(&disk, options, &mut model, acknowledged);
        for _ in 0..random.below(40) {
            let updates = batch(random, keys, longest);
            model.apply(&updates);
            let batch = ledger.apply(&updates).unwrap();
            assert_eq!(batch.sequence, model.sequence());
        }
        // One more batch may be anywhere between begun and acknowledged.
        let updates = batch(random, keys, longest);
        let after = disk.clone();
        let end = |random: &mut Random| match random.chance(3) {
            true => after.kill(),
            false => after.crash(random),
        };
        if random.chance(2) {
            model.apply(&updates);
            let acknowledged = model.sequence() - 1;
            let crashed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = ledger.apply(&updates);
                });
                std::thread::sleep(std::time::Duration::from_micros(random.below(300)));
                end(random)
            });
            drop(ledger);
            disk = crashed;
            if synced {
                let ledger = reopen(&disk, options, &mut model, acknowledged);
                drop(ledger);
            }
        } else {
            disk = end(random);
            drop(ledger);
        }
    }
}

#[test]
fn nothing_acknowledged_or_seen_is_lost_by_two_thousand_crashes_and_kills() {
    for seed in 0..2_000 {
        let result = std::panic::catch_unwind(|| crash_often(seed, &small(), Durability::Sync));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn without_syncs_a_crash_leaves_what_was_there_after_some_batch() {
    for seed in 0..500 {
        let result = std::panic::catch_unwind(|| crash_often(seed, &small(), Durability::None));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn what_a_killed_process_left_is_on_disk_before_anyone_sees_it() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let disk = SimDisk::new();
        let ledger = open(&disk, &small().durability(Durability::None));
        for _ in 0..=random.below(20) {
            ledger.apply(&batch(random, 100, 30)).unwrap();
        }
        let killed = disk.kill();
        drop(ledger);
        let ledger = open(&killed, &small());
        let (seen, root) = (ledger.view().sequence(), ledger.root().unwrap());
        assert!(seen > 0);
        let crashed = killed.crash(random);
        drop(ledger);
        let ledger = open(&crashed, &small());
        assert_eq!(ledger.view().sequence(), seen, "seed {seed}");
        assert_eq!(ledger.root().unwrap(), root);
    }
}

#[test]
fn an_encrypted_ledger_survives_crashes_as_well() {
    for seed in 0..200 {
        let options = small().key(Secret::new([7; 32]));
        let result = std::panic::catch_unwind(|| crash_often(seed, &options, Durability::Sync));
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// One disk fault at any moment: the batch fails or succeeds, the ledger stops or goes on, and after
/// opening again all that was acknowledged is there.
#[test]
fn no_fault_of_the_disk_loses_what_was_acknowledged() {
    let mut struck = 0;
    for seed in 0..1_500 {
        let result = std::panic::catch_unwind(|| {
            let random = &mut Random(seed);
            let options = small();
            let disk = SimDisk::new();
            let mut model = Model::new();
            let ledger = open(&disk, &options);
            let faults = [Fault::NoSpace, Fault::ShortWrite, Fault::Sync];
            disk.plan(faults[random.below(3) as usize], random.below(60));
            let mut acknowledged = 0;
            let mut unsure = false;
            for _ in 0..40 {
                let updates = batch(random, 200, 40);
                match ledger.apply(&updates) {
                    Ok(batch) => {
                        assert!(!unsure, "a stopped ledger went on");
                        model.apply(&updates);
                        acknowledged = batch.sequence;
                        assert_eq!(acknowledged, model.sequence());
                    }
                    // It may be in the log: then it is the last one.
                    Err(Error::Stopped(_)) => {
                        if !unsure {
                            model.apply(&updates);
                            unsure = true;
                        }
                    }
                    Err(Error::Io { .. }) => assert!(!unsure),
                    Err(error) => panic!("{error}"),
                }
                // Readers never see what was not acknowledged.
                let state = &model.states[acknowledged as usize];
                let number = key(random.below(200));
                match ledger.get(&number) {
                    Ok(account) => assert_eq!(account, state.get(&number).copied()),
                    Err(Error::Stopped(_)) => assert!(unsure),
                    Err(error) => panic!("{error}"),
                }
            }
            let crashed = match random.chance(2) {
                true => disk.crash(random),
                false => disk.copy(),
            };
            drop(ledger);
            let ledger = reopen(&crashed, &options, &mut model, acknowledged);
            // And it can be written to again.
            let updates = batch(random, 200, 40);
            model.apply(&updates);
            ledger.apply(&updates).unwrap();
            model.check(&ledger);
            disk.faults()
        });
        struck += result.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(struck > 700, "only {struck} faults happened");
}

/// A write of the tree that fails is for the next one to make up for.
#[test]
fn a_tree_whose_writing_failed_is_whole_when_it_succeeds() {
    for (after, fault) in [
        (0, Fault::ShortWrite),
        (1, Fault::ShortWrite),
        (1, Fault::NoSpace),
    ] {
        let disk = SimDisk::new();
        let options = small().checkpoint_bytes(1 << 20);
        let ledger = open(&disk, &options);
        for n in 0..300 {
            ledger
                .update_batch(&[(key(n), Account::with_balance(1))])
                .unwrap();
        }
        // The rows are written first, then the one tile above them.
        disk.plan(fault, after);
        assert!(matches!(ledger.prove_batch(1), Err(Error::Io { .. })));
        assert_eq!(disk.faults(), 1);
        if matches!(fault, Fault::NoSpace) {
            continue; // which stays so
        }
        ledger.prove_batch(1).unwrap().verify().unwrap();
        let root = ledger.root().unwrap();
        ledger.close().unwrap();
        let ledger = open(&disk, &options);
        assert_eq!(ledger.root().unwrap(), root);
        for sequence in [1, 256, 300] {
            ledger.prove_batch(sequence).unwrap().verify().unwrap();
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(u16, Option<u32>)>),
    Transfer(u16, u16, u32, u8),
    Checkpoint,
    Compact,
    Reopen,
    Crash(u64),
    Look(u16, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0..300u16, proptest::option::weighted(0.8, any::<u32>())), 0..80).prop_map(Step::Apply),
        4 => (0..300u16, 0..300u16, any::<u32>(), any::<u8>()).prop_map(|(from, to, amount, key)| Step::Transfer(from, to, amount, key)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::Crash),
        4 => (0..300u16, any::<u8>()).prop_map(|(key, back)| Step::Look(key, back)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_ledger_does_what_its_model_does(steps in proptest::collection::vec(step(), 1..60)) {
        let options = small();
        let mut disk = SimDisk::new();
        let mut ledger = Some(open(&disk, &options));
        let mut model = Model::new();
        let mut roots = vec![ledger.as_ref().unwrap().root().unwrap()];
        for step in steps {
            let now = ledger.as_ref().unwrap();
            match step {
                Step::Apply(items) => {
                    let updates: Vec<_> = items
                        .into_iter()
                        .map(|(number, balance)| match balance {
                            Some(balance) => Update::Put(key(number.into()), Account::with_balance(balance.into())),
                            None => Update::Delete(key(number.into())),
                        })
                        .collect();
                    model.apply(&updates);
                    now.apply(&updates).unwrap();
                    roots.push(now.root().unwrap());
                }
                Step::Transfer(from, to, amount, number) => {
                    let (debit, credit) = (key(from.into()), key(to.into()));
                    let mut idempotency_key = [number; 16];
                    idempotency_key[..8].copy_from_slice(&model.sequence().to_le_bytes());
                    let transfer = Transfer { debit, credit, amount: amount.into() };
                    let mut state = model.now().clone();
                    let payer = state.get(&debit).copied();
                    let possible = amount > 0
                        && state.contains_key(&credit)
                        && payer.is_some_and(|payer| payer.balance >= i128::from(amount));
                    let result = now.transfer_batch(&idempotency_key, &[transfer]);
                    prop_assert_eq!(result.is_ok(), possible);
                    if possible {
                        let payer = state.get_mut(&debit).unwrap();
                        payer.balance -= i128::from(amount);
                        payer.nonce += 1;
                        state.get_mut(&credit).unwrap().balance += i128::from(amount);
                        model.states.push(state);
                        roots.push(now.root().unwrap());
                        let again = now.transfer_batch(&idempotency_key, &[transfer]).unwrap();
                        prop_assert!(again.repeated);
                        prop_assert_eq!(again.sequence, model.sequence());
                    }
                }
                Step::Checkpoint => now.checkpoint().unwrap(),
                Step::Compact => {
                    now.compact().unwrap();
                }
                Step::Reopen => {
                    ledger.take().unwrap().close().unwrap();
                    ledger = Some(open(&disk, &options));
                    prop_assert!(ledger.as_ref().unwrap().recovery().clean);
                }
                Step::Crash(seed) => {
                    let crashed = disk.crash(&mut Random(seed));
                    drop(ledger.take());
                    disk = crashed;
                    let acknowledged = model.sequence();
                    ledger = Some(reopen(&disk, &options, &mut model, acknowledged));
                }
                Step::Look(number, back) => {
                    let newest = model.sequence();
                    let sequence = newest.saturating_sub(back.into()).max(*now.history().start());
                    let expected = model.states[sequence as usize].get(&key(number.into())).copied();
                    prop_assert_eq!(now.get_at(&key(number.into()), sequence).unwrap(), expected);
                }
            }
        }
        let ledger = ledger.unwrap();
        model.check(&ledger);
        let (size, root) = ledger.root().unwrap();
        prop_assert_eq!(size.get(), model.sequence());
        for (old_size, old_root) in &roots {
            let path = ledger.prove_consistency(*old_size, size).unwrap();
            merkle_tree::verify_consistency(*old_size, size, old_root, &root, &path).unwrap();
        }
        for sequence in 1..=model.sequence() {
            let proof = ledger.prove_batch(sequence).unwrap();
            proof.verify().unwrap();
            prop_assert_eq!(proof.root, root);
        }
    }
}

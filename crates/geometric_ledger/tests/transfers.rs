//! Recorded transfers: what each promise of theirs means, and that they do what a simple model does.

mod common;

use common::sim::SimDisk;
use common::{Random, key, small};
use geometric_ledger::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn id(number: u64) -> TransferId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id
}

fn ledger() -> (SimDisk, GeometricLedger) {
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    let accounts: Vec<_> = (1..=4)
        .map(|it| (key(it), Account::with_balance(100)))
        .collect();
    ledger.update_batch(&accounts).unwrap();
    (disk, ledger)
}

fn balance(ledger: &GeometricLedger, number: u64) -> i128 {
    ledger.get(&key(number)).unwrap().unwrap().balance
}

fn pay(number: u64, from: u64, to: u64, amount: u128) -> NewTransfer {
    NewTransfer::new(id(number), key(from), key(to), amount)
}

fn refusals(results: &TransferResults) -> Vec<Option<Refusal>> {
    results.iter().map(|it| it.clone().err()).collect()
}

#[test]
fn a_transfer_is_found_by_its_id_and_in_both_statements() {
    let (_, ledger) = ledger();
    let new = pay(7, 1, 2, 30).reference([9; 24]);
    let done = ledger.create_transfers(&[new]).unwrap()[0].clone().unwrap();
    assert!(!done.repeated);
    let record = ledger.transfer(&id(7)).unwrap().unwrap();
    assert_eq!((record.debit, record.credit), (key(1), key(2)));
    assert_eq!((record.amount, record.reference), (30, [9; 24]));
    assert_eq!(record.kind, TransferKind::Direct);
    assert_eq!(record.sequence, done.sequence);
    let batch = ledger.batch(done.sequence).unwrap().unwrap();
    assert_eq!(record.time, Some(batch.time));
    for (account, change, left) in [(1, -30, 70), (2, 30, 130)] {
        let page = ledger
            .statement(&key(account), &StatementQuery::default())
            .unwrap();
        assert_eq!((page.entries.len(), page.next), (1, None));
        let entry = page.entries[0];
        assert_eq!((entry.number, entry.transfer), (1, id(7)));
        assert_eq!((entry.change, entry.balance), (change, left));
        assert_eq!(entry.time, batch.time);
    }
    assert_eq!(ledger.transfer(&id(8)).unwrap(), None);
    let before = ledger.view_at(done.sequence - 1).unwrap();
    assert_eq!(before.transfer(&id(7)).unwrap(), None);
    let page = before
        .statement(&key(1), &StatementQuery::default())
        .unwrap();
    assert_eq!(page.entries, []);
}

#[test]
fn each_transfer_has_a_result_of_its_own() {
    let (_, ledger) = ledger();
    let results = ledger
        .create_transfers(&[
            pay(1, 1, 2, 60),
            pay(2, 1, 2, 60),
            pay(3, 1, 9, 1),
            pay(4, 1, 1, 1),
            pay(5, 1, 2, 0),
            pay(6, 1, 2, 1).code(978),
            pay(7, 2, 1, 160),
        ])
        .unwrap();
    let short = Refusal::InsufficientFunds {
        key: key(1),
        balance: 40,
        amount: 60,
    };
    let other = Refusal::OtherCurrency {
        key: key(1),
        account: 0,
        transfer: 978,
    };
    assert_eq!(
        refusals(&results),
        [
            None,
            Some(short),
            Some(Refusal::UnknownAccount(key(9))),
            Some(Refusal::SameAccount(key(1))),
            Some(Refusal::ZeroAmount),
            Some(other),
            None
        ]
    );
    assert_eq!((balance(&ledger, 1), balance(&ledger, 2)), (200, 0));
    assert_eq!(ledger.transfer(&id(2)).unwrap(), None, "it left no trace");
    let size = ledger.view().sequence();
    ledger.create_transfers(&[pay(9, 2, 1, 1)]).unwrap()[0]
        .clone()
        .unwrap_err();
    assert_eq!(ledger.view().sequence(), size, "a batch of nothing is none");
}

#[test]
fn a_transfer_happens_once_however_often_it_is_sent() {
    let (disk, ledger) = ledger();
    let new = pay(1, 1, 2, 10);
    let first = ledger.create_transfers(&[new, new]).unwrap();
    let sequence = first[0].clone().unwrap().sequence;
    assert_eq!(
        first[1],
        Ok(ledger.create_transfers(&[new]).unwrap()[0].clone().unwrap())
    );
    assert!(first[1].clone().unwrap().repeated);
    let other = ledger.create_transfers(&[pay(1, 1, 2, 11)]).unwrap();
    assert_eq!(refusals(&other), [Some(Refusal::IdReused)]);
    drop(ledger);
    let ledger = small().open_on(Arc::new(disk.kill())).unwrap();
    let again = ledger.create_transfers(&[new]).unwrap()[0].clone().unwrap();
    assert_eq!((again.sequence, again.repeated), (sequence, true));
    assert_eq!(balance(&ledger, 2), 110);
}

#[test]
fn linked_transfers_are_done_all_or_none() {
    let (_, ledger) = ledger();
    let results = ledger
        .create_transfers(&[
            pay(1, 1, 2, 10).linked(),
            pay(2, 2, 3, 500).linked(),
            pay(3, 3, 1, 10),
            pay(4, 1, 2, 5).linked(),
            pay(5, 2, 3, 5),
            pay(6, 1, 2, 1).linked(),
        ])
        .unwrap();
    let found = refusals(&results);
    assert_eq!(found[0], Some(Refusal::LinkedRefused));
    assert!(matches!(
        found[1],
        Some(Refusal::InsufficientFunds { balance: 110, .. })
    ));
    assert_eq!(found[2], Some(Refusal::LinkedRefused));
    assert_eq!(found[3..5], [None, None]);
    assert_eq!(found[5], Some(Refusal::LinkedToNothing));
    let balances: Vec<_> = (1..=3).map(|it| balance(&ledger, it)).collect();
    assert_eq!(balances, [95, 100, 105]);
    // The whole chain may be repeated, and none that has a part of it.
    let again = ledger
        .create_transfers(&[pay(4, 1, 2, 5).linked(), pay(5, 2, 3, 5)])
        .unwrap();
    assert!(again.iter().all(|it| it.clone().unwrap().repeated));
    let part = ledger
        .create_transfers(&[pay(4, 1, 2, 5).linked(), pay(6, 2, 3, 5)])
        .unwrap();
    let refused = [Some(Refusal::PartlyDone), Some(Refusal::LinkedRefused)];
    assert_eq!(refusals(&part), refused);
}

#[test]
fn a_pending_amount_is_nobodys_until_it_is_posted_or_voided() {
    let (_, ledger) = ledger();
    let all = |results: TransferResults| assert_eq!(refusals(&results), vec![None; results.len()]);
    all(ledger
        .create_transfers(&[
            pay(1, 1, 2, 40).pending(None),
            pay(2, 1, 2, 50).pending(None),
        ])
        .unwrap());
    assert_eq!((balance(&ledger, 1), balance(&ledger, 2)), (10, 100));
    assert_eq!(ledger.reserved(&key(1)).unwrap(), 90);
    let audit = ledger.audit().unwrap();
    assert_eq!((audit.balances, audit.pending), (310, 90));
    all(ledger
        .create_transfers(&[
            NewTransfer::post_part(id(3), id(1), 30),
            NewTransfer::void(id(4), id(2)),
        ])
        .unwrap());
    assert_eq!((balance(&ledger, 1), balance(&ledger, 2)), (70, 130));
    assert_eq!(ledger.reserved(&key(1)).unwrap(), 0);
    let kind = |number| ledger.transfer(&id(number)).unwrap().unwrap().kind;
    let posted = PendingState::Posted { by: id(3) };
    let voided = PendingState::Voided { by: id(4) };
    assert_eq!(kind(1), TransferKind::Pending(posted));
    assert_eq!(kind(2), TransferKind::Pending(voided));
    assert_eq!(kind(3), TransferKind::Post { pending: id(1) });
    let record = ledger.transfer(&id(3)).unwrap().unwrap();
    assert_eq!(
        (record.debit, record.credit, record.amount),
        (key(1), key(2), 30)
    );
    let again = ledger
        .create_transfers(&[
            NewTransfer::post(id(5), id(1)),
            NewTransfer::void(id(6), id(3)),
            NewTransfer::void(id(7), id(99)),
            NewTransfer::void(id(4), id(2)),
        ])
        .unwrap();
    assert_eq!(
        refusals(&again),
        [
            Some(Refusal::AlreadyEnded),
            Some(Refusal::NotPending),
            Some(Refusal::UnknownTransfer(id(99))),
            None
        ]
    );
    let entries = ledger
        .statement(&key(1), &StatementQuery::default())
        .unwrap();
    let changes: Vec<_> = entries.entries.iter().map(|it| it.change).collect();
    assert_eq!(changes, [-40, -50, 10, 50]);
}

#[test]
fn pending_and_post_may_come_in_one_batch() {
    let (_, ledger) = ledger();
    let results = ledger
        .create_transfers(&[
            pay(1, 1, 2, 40).pending(None).linked(),
            NewTransfer::post(id(2), id(1)),
        ])
        .unwrap();
    assert_eq!(refusals(&results), [None, None]);
    assert_eq!((balance(&ledger, 1), balance(&ledger, 2)), (60, 140));
    assert_eq!(ledger.verify().unwrap(), []);
}

#[test]
fn what_is_pending_goes_back_when_its_time_is_over() {
    let (_, ledger) = ledger();
    let soon = Some(Duration::from_secs(2));
    let late = Some(Duration::from_secs(3_600));
    let new = [
        pay(1, 1, 2, 40).pending(soon),
        pay(2, 1, 2, 5).pending(late),
    ];
    ledger.create_transfers(&new).unwrap();
    // An account that was deleted meanwhile is made again, with what is its own.
    ledger.apply(&[Update::Delete(key(1))]).unwrap();
    let start = Instant::now();
    while ledger.reserved(&key(1)).unwrap() != 5 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it never expires"
        );
        std::thread::yield_now();
    }
    assert_eq!(balance(&ledger, 1), 40);
    let record = ledger.transfer(&id(1)).unwrap().unwrap();
    assert_eq!(record.kind, TransferKind::Pending(PendingState::Expired));
    let post = ledger
        .create_transfers(&[NewTransfer::post(id(3), id(1))])
        .unwrap();
    assert_eq!(refusals(&post), [Some(Refusal::AlreadyEnded)]);
    let record = ledger.transfer(&id(2)).unwrap().unwrap();
    let open = |it| {
        matches!(
            it,
            TransferKind::Pending(PendingState::Open { expires: Some(_) })
        )
    };
    assert!(open(record.kind));
    ledger.audit().unwrap();
}

#[test]
fn a_follower_ends_no_transfer_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let source = small().open(path("ledger")).unwrap();
    let accounts: Vec<_> = (1..=2)
        .map(|it| (key(it), Account::with_balance(100)))
        .collect();
    source.update_batch(&accounts).unwrap();
    let soon = Some(Duration::from_millis(1));
    source
        .create_transfers(&[pay(1, 1, 2, 40).pending(soon)])
        .unwrap();
    source.close().unwrap();
    let mut follower = Follower::open(path("follower"), path("ledger"), small()).unwrap();
    follower.catch_up().unwrap();
    let sequence = follower.ledger().view().sequence();
    // The source is opened later, and ends the transfer: so the follower has had the time as well.
    let source = small().open(path("ledger")).unwrap();
    let start = Instant::now();
    while source.reserved(&key(1)).unwrap() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it never expires"
        );
        std::thread::yield_now();
    }
    assert_eq!(follower.ledger().view().sequence(), sequence);
    assert_eq!(follower.ledger().reserved(&key(1)).unwrap(), 40);
    source.close().unwrap();
    follower.catch_up().unwrap();
    assert_eq!(follower.ledger().reserved(&key(1)).unwrap(), 0);
    follower.ledger().audit().unwrap();
}

#[test]
fn a_statement_is_read_page_by_page_and_by_time() {
    let (_, ledger) = ledger();
    for number in 0..50 {
        ledger.create_transfers(&[pay(number, 1, 2, 1)]).unwrap();
    }
    let all = StatementQuery {
        limit: 1_000,
        ..StatementQuery::default()
    };
    let entries = ledger.statement(&key(1), &all).unwrap().entries;
    assert_eq!(entries.len(), 50);
    assert!(entries.windows(2).all(|pair| pair[0].time <= pair[1].time));
    for newest_first in [false, true] {
        let mut paged = Vec::new();
        let mut query = StatementQuery {
            limit: 7,
            newest_first,
            ..StatementQuery::default()
        };
        loop {
            let page = ledger.statement(&key(1), &query).unwrap();
            paged.extend(page.entries);
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        if newest_first {
            paged.reverse();
        }
        assert_eq!(paged, entries);
    }
    for at in [0, 13, 49] {
        let time = entries[at].time;
        let from = StatementQuery {
            from: Some(time),
            ..all
        };
        let until = StatementQuery {
            until: Some(time),
            ..all
        };
        let expected: Vec<_> = entries
            .iter()
            .filter(|it| it.time >= time)
            .copied()
            .collect();
        assert_eq!(ledger.statement(&key(1), &from).unwrap().entries, expected);
        let expected: Vec<_> = entries
            .iter()
            .filter(|it| it.time < time)
            .copied()
            .collect();
        assert_eq!(ledger.statement(&key(1), &until).unwrap().entries, expected);
    }
}

#[test]
fn records_are_kept_as_long_as_was_promised_and_open_ones_longer() {
    let options = || small().transfers(20).history_bytes(0);
    let disk = SimDisk::new();
    let ledger = options().open_on(Arc::new(disk.clone())).unwrap();
    let accounts: Vec<_> = (1..=2)
        .map(|it| (key(it), Account::with_balance(1_000)))
        .collect();
    ledger.update_batch(&accounts).unwrap();
    ledger
        .create_transfers(&[pay(9_999, 1, 2, 5).pending(None)])
        .unwrap();
    for number in 0..200 {
        ledger.create_transfers(&[pay(number, 1, 2, 1)]).unwrap();
    }
    ledger.checkpoint().unwrap();
    assert!(ledger.compact().unwrap() > 0);
    assert_eq!(ledger.transfer(&id(0)).unwrap(), None, "it is let go");
    for number in 180..200 {
        assert!(ledger.transfer(&id(number)).unwrap().is_some(), "{number}");
    }
    let all = StatementQuery {
        limit: 1_000,
        ..StatementQuery::default()
    };
    let entries = ledger.statement(&key(1), &all).unwrap().entries;
    assert_eq!(entries.len(), 20);
    assert_eq!(entries[19].balance, 795);
    let open = ledger.transfer(&id(9_999)).unwrap().unwrap();
    assert!(matches!(
        open.kind,
        TransferKind::Pending(PendingState::Open { .. })
    ));
    let post = ledger
        .create_transfers(&[NewTransfer::post(id(500), id(9_999))])
        .unwrap();
    assert_eq!(refusals(&post), [None]);
    assert_eq!(ledger.verify().unwrap(), []);
    ledger.audit().unwrap();
}

#[test]
fn an_account_changes_only_if_it_is_what_was_expected() {
    let (_, ledger) = ledger();
    let hundred = Account::with_balance(100);
    let set = |expected, new| ledger.compare_and_set(&[(key(1), expected, new)]);
    let other = set(Some(Account::with_balance(99)), None).unwrap_err();
    assert!(matches!(other, Error::Item { item: 0, reason: Refusal::Changed(it) } if it == key(1)));
    set(Some(hundred), Some(Account::with_balance(50))).unwrap();
    set(Some(Account::with_balance(50)), None).unwrap();
    assert_eq!(ledger.get(&key(1)).unwrap(), None);
    set(None, Some(hundred)).unwrap();
    assert!(set(None, Some(hundred)).is_err());
    let twice = ledger.modify(&[key(1), key(1)], |_| Ok::<_, Error>(()));
    assert!(matches!(
        twice,
        Err(Error::Item {
            reason: Refusal::GivenTwice(_),
            ..
        })
    ));
}

#[test]
fn no_modification_is_lost_between_threads() {
    let (_, ledger) = ledger();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let changed = ledger.modify(&[key(1)], |accounts| {
                        accounts[0].as_mut().unwrap().balance += 1;
                        Ok::<_, Error>(())
                    });
                    changed.unwrap();
                }
            });
        }
    });
    assert_eq!(balance(&ledger, 1), 300);
    ledger.audit().unwrap();
}

/// What transfers do, as simply as it can be said.
#[derive(Clone, Default)]
struct Model {
    balances: BTreeMap<u64, i128>,
    statements: BTreeMap<u64, Vec<(TransferId, i128, i128)>>,
    /// Debit, credit, amount; and of pending ones whether they are open.
    records: BTreeMap<TransferId, (NewTransfer, u128, Option<bool>)>,
}

impl Model {
    fn number(key: &Key) -> u64 {
        u64::from_le_bytes(key[..8].try_into().unwrap())
    }

    fn change(&mut self, account: u64, transfer: TransferId, change: i128) {
        let balance = self.balances.get_mut(&account).unwrap();
        *balance += change;
        let entry = (transfer, change, *balance);
        self.statements.entry(account).or_default().push(entry);
    }

    /// Whether the transfer is done, or was.
    fn one(&mut self, new: &NewTransfer) -> bool {
        if let Some((known, amount, _)) = self.records.get(&new.id) {
            let step = known.step == new.step;
            return step
                && match new.step {
                    Step::Post { .. } => new.amount == 0 || new.amount == *amount,
                    Step::Void { .. } => true,
                    _ => {
                        (known.debit, known.credit, known.amount)
                            == (new.debit, new.credit, new.amount)
                    }
                };
        }
        match new.step {
            Step::Post { pending } | Step::Void { pending } => {
                let Some((old, whole, Some(true))) = self.records.get(&pending).copied() else {
                    return false;
                };
                let post = matches!(new.step, Step::Post { .. });
                let amount = if post && new.amount > 0 {
                    new.amount
                } else {
                    whole
                };
                if amount > whole {
                    return false;
                }
                let back = if post { whole - amount } else { whole };
                if post {
                    self.change(Self::number(&old.credit), new.id, amount as i128);
                }
                if back > 0 {
                    self.change(Self::number(&old.debit), new.id, back as i128);
                }
                self.records.get_mut(&pending).unwrap().2 = Some(false);
                self.records.insert(new.id, (*new, amount, None));
            }
            _ => {
                let (debit, credit) = (Self::number(&new.debit), Self::number(&new.credit));
                let there = self.balances.contains_key(&credit);
                let left = self.balances.get(&debit).map(|it| it - new.amount as i128);
                if debit == credit || !there || left.is_none_or(|left| left < 0) || new.amount == 0
                {
                    return false;
                }
                self.change(debit, new.id, -(new.amount as i128));
                let pending = matches!(new.step, Step::Pending { .. });
                if !pending {
                    self.change(credit, new.id, new.amount as i128);
                }
                let open = pending.then_some(true);
                self.records.insert(new.id, (*new, new.amount, open));
            }
        }
        true
    }

    fn batch(&mut self, transfers: &[NewTransfer]) -> Vec<bool> {
        let mut results = Vec::new();
        let mut from = 0;
        while from < transfers.len() {
            let mut to = from;
            while to < transfers.len() && transfers[to].linked {
                to += 1;
            }
            let chain = &transfers[from..(to + 1).min(transfers.len())];
            let before = self.clone();
            let known = chain
                .iter()
                .filter(|it| before.records.contains_key(&it.id))
                .count();
            let mut distinct: Vec<_> = chain.iter().map(|it| it.id).collect();
            distinct.sort();
            distinct.dedup();
            let partly = chain.len() > 1 && known != 0 && known != chain.len()
                || chain.len() > 1 && known == 0 && distinct.len() != chain.len();
            let done = to < transfers.len() && !partly && chain.iter().all(|it| self.one(it));
            if !done {
                *self = before;
            }
            results.extend(vec![done; chain.len()]);
            from += chain.len();
        }
        results
    }

    fn check(&self, ledger: &GeometricLedger) {
        for (account, balance) in &self.balances {
            let found = ledger.get(&key(*account)).unwrap().unwrap();
            assert_eq!(found.balance, *balance);
            let all = StatementQuery {
                limit: usize::MAX,
                ..StatementQuery::default()
            };
            let page = ledger.statement(&key(*account), &all).unwrap();
            let found: Vec<_> = page
                .entries
                .iter()
                .map(|it| (it.transfer, it.change, it.balance))
                .collect();
            let expected = self.statements.get(account).cloned().unwrap_or_default();
            assert_eq!(found, expected, "statement of {account}");
        }
        for (id, (new, amount, open)) in &self.records {
            let record = ledger.transfer(id).unwrap().expect("it is on record");
            assert_eq!(record.amount, *amount);
            assert_eq!(record.reference, new.reference);
            if let TransferKind::Pending(state) = record.kind {
                assert_eq!(
                    matches!(state, PendingState::Open { .. }),
                    *open == Some(true)
                );
            }
        }
        assert_eq!(ledger.verify().unwrap(), []);
        ledger.audit().unwrap();
    }
}

fn any_transfer(random: &mut Random) -> NewTransfer {
    let number = random.below(60);
    let amount = u128::from(random.below(30));
    let new = match random.below(5) {
        0 => NewTransfer::post_part(id(number), id(random.below(60)), amount),
        1 => NewTransfer::void(id(number), id(random.below(60))),
        2 => pay(number, random.below(6), random.below(6), amount).pending(None),
        _ => pay(number, random.below(6), random.below(6), amount),
    };
    match random.chance(4) {
        true => new.linked(),
        false => new,
    }
}

/// Five accounts with 50 each, in the first batch; the models before and after it.
fn fill(ledger: &GeometricLedger) -> Vec<Model> {
    let accounts: Vec<_> = (0..5)
        .map(|it| (key(it), Account::with_balance(50)))
        .collect();
    ledger.update_batch(&accounts).unwrap();
    let first = Model {
        balances: (0..5).map(|it| (it, 50)).collect(),
        ..Model::default()
    };
    vec![Model::default(), first]
}

/// Batches that each leave the model they should; the models after each batch, by sequence.
fn run(ledger: &GeometricLedger, random: &mut Random, models: &mut Vec<Model>, batches: u64) {
    for _ in 0..batches {
        let transfers: Vec<_> = (0..=random.below(6))
            .map(|_| any_transfer(random))
            .collect();
        let mut model = models.last().unwrap().clone();
        let expected = model.batch(&transfers);
        let results = ledger.create_transfers(&transfers).unwrap();
        let done: Vec<_> = results.iter().map(Result::is_ok).collect();
        assert_eq!(done, expected, "{transfers:?} {results:?}");
        if ledger.view().sequence() as usize == models.len() {
            models.push(model);
        }
    }
}

#[test]
fn a_ledger_of_transfers_does_what_its_model_does_and_survives_crashes() {
    for seed in 0..if std::env::var_os("LONG").is_some() {
        400
    } else {
        40
    } {
        let mut random = Random(seed);
        let mut options = small();
        if seed % 4 == 3 {
            options = options.key(Secret::new([seed as u8; 32]));
        }
        let mut disk = SimDisk::new();
        let mut ledger = options.clone().open_on(Arc::new(disk.clone())).unwrap();
        let mut models = fill(&ledger);
        for _ in 0..6 {
            let batches = 1 + random.below(12);
            run(&ledger, &mut random, &mut models, batches);
            match random.below(4) {
                0 => ledger.checkpoint().unwrap(),
                1 => {
                    let old =
                        models.len() as u64 - 1 - random.below(models.len().min(3) as u64 - 1);
                    let view = ledger.view_at(old).unwrap();
                    for id in models[old as usize].records.keys() {
                        assert!(view.transfer(id).unwrap().is_some(), "seed {seed}");
                    }
                }
                _ => {
                    let after = match random.chance(2) {
                        true => disk.crash(&mut random),
                        false => disk.kill(),
                    };
                    drop(ledger);
                    disk = after;
                    ledger = options.clone().open_on(Arc::new(disk.clone())).unwrap();
                    assert_eq!(
                        ledger.view().sequence() as usize,
                        models.len() - 1,
                        "seed {seed}"
                    );
                }
            }
            models.last().unwrap().check(&ledger);
        }
    }
}

#[test]
fn snapshots_and_followers_have_the_records() {
    let directory = tempfile::tempdir().unwrap();
    let options = || small().history_bytes(1 << 26);
    let path = |name: &str| directory.path().join(name);
    let ledger = options().open(path("ledger")).unwrap();
    let mut models = fill(&ledger);
    let mut random = Random(5);
    let mut follower = Follower::open(path("follower"), path("ledger"), options()).unwrap();
    run(&ledger, &mut random, &mut models, 40);
    let info = ledger.snapshot_to(path("full"), None).unwrap();
    run(&ledger, &mut random, &mut models, 20);
    ledger
        .snapshot_to(path("more"), Some(info.sequence))
        .unwrap();
    let (root, model) = (ledger.root().unwrap(), models.last().unwrap().clone());
    ledger.close().unwrap();
    follower.catch_up().unwrap();
    assert_eq!(follower.ledger().root().unwrap(), root);
    model.check(follower.ledger());
    let snapshots = [path("full"), path("more")];
    let restored = GeometricLedger::restore(path("restored"), &snapshots, options()).unwrap();
    assert_eq!(restored.root().unwrap(), root);
    model.check(&restored);
    // And they go on.
    run(&restored, &mut random, &mut models, 20);
    models.last().unwrap().check(&restored);
}

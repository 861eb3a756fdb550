//! The work whose instructions `scripts/instructions.sh` counts; one piece a run, by its name. Only what is
//! done in `counted_work`, by the thread that calls it, counts: batches are of a length that one thread works
//! on alone.

use geometric_ledger::{Account, Durability, GeometricLedger, Key, NewTransfer, Options, Transfer};
use std::hint::black_box;

const ACCOUNTS: u64 = 20_000;
const BATCH: u64 = 1_000;

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    let word = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key[..8].copy_from_slice(&word.to_le_bytes());
    key[24..].copy_from_slice(&number.to_le_bytes());
    key
}

/// The batch's item, spread over all accounts.
fn spread(round: u64, item: u64) -> u64 {
    (round * 7_919 + item * 13) % ACCOUNTS
}

#[inline(never)]
#[unsafe(no_mangle)]
fn counted_work(work: &mut dyn FnMut()) {
    work();
}

fn main() {
    let Some(piece) = std::env::args().nth(1) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new().shards(8).durability(Durability::None);
    let ledger = options
        .open(directory.path().join("ledger"))
        .expect("a ledger");
    let accounts: Vec<_> = (0..ACCOUNTS)
        .map(|number| (key(number), Account::with_balance(1 << 40)))
        .collect();
    ledger.update_batch(&accounts).expect("they are put");
    let keys: Vec<_> = (0..BATCH).map(|item| key(spread(1, item))).collect();
    for round in 0..16 {
        let mut work = work(&piece, &ledger, &keys, round);
        counted_work(&mut *work);
    }
}

fn work<'a>(
    piece: &str,
    ledger: &'a GeometricLedger,
    keys: &'a [Key],
    round: u64,
) -> Box<dyn FnMut() + 'a> {
    let transfer = move |item| Transfer {
        debit: key(spread(round, item)),
        credit: key(spread(round + 1, item)),
        amount: 1,
    };
    match piece {
        "get" => Box::new(move || {
            for key in keys {
                black_box(ledger.get(key).expect("it is read"));
            }
        }),
        "get-many" => Box::new(move || {
            black_box(ledger.get_many(keys).expect("they are read"));
        }),
        "update" => {
            let updates: Vec<_> = (0..BATCH)
                .map(|item| (key(spread(round, item)), Account::with_balance(1 << 41)))
                .collect();
            Box::new(move || {
                ledger.update_batch(&updates).expect("it is done");
            })
        }
        "transfer" => {
            let transfers: Vec<_> = (0..BATCH / 2).map(transfer).collect();
            Box::new(move || {
                let id = u128::from(round).to_le_bytes();
                ledger.transfer_batch(&id, &transfers).expect("it is done");
            })
        }
        "recorded-transfer" => {
            let transfers: Vec<_> = (0..BATCH / 8)
                .map(|item| {
                    let Transfer {
                        debit,
                        credit,
                        amount,
                    } = transfer(item);
                    let id = u128::from(round * BATCH + item).to_le_bytes();
                    NewTransfer::new(id, debit, credit, amount)
                })
                .collect();
            Box::new(move || {
                let results = ledger.create_transfers(&transfers).expect("it is done");
                assert!(results.iter().all(Result::is_ok));
            })
        }
        _ => Box::new(|| ()),
    }
}

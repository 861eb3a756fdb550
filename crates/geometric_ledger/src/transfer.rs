//! Double entry: what one account pays, another gets.

use crate::account::{Account, Flags, Key};
use crate::engine::items::Rule;
use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::{Error, Refusal};
use crate::ledger::GeometricLedger;
use crate::storage::slot::Kind;
use crate::submit::Submitted;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

/// An amount that moves from one account to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Pays. Its nonce goes up by one.
    pub debit: Key,
    /// Gets.
    pub credit: Key,
    pub amount: u128,
}

/// What became of a batch of transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The batch that did it.
    pub sequence: u64,
    /// It had been done before, under the same idempotency key.
    pub repeated: bool,
}

impl GeometricLedger {
    /// Moves amounts, all or none, one after another. Both accounts must be there and have the same
    /// [`Account::code`], and none may have [`Flags::FROZEN`]; a balance may not go below zero unless the account has [`Flags::OVERDRAFT`]. Nothing is minted or burned.
    ///
    /// The idempotency key, 16 random bytes say, makes the batch happen once however often it is
    /// sent: the same key with the same transfers is answered with the first one's receipt.
    ///
    /// # Errors
    /// [`Error::Item`] names the first transfer that cannot be done, and why; nothing was done.
    /// Otherwise as [`GeometricLedger::update_batch`].
    pub fn transfer_batch(
        &self,
        idempotency_key: &[u8; 16],
        transfers: &[Transfer],
    ) -> Result<Receipt, Error> {
        let start = Instant::now();
        let (receipt, end) = self.core.transfer(idempotency_key, transfers)?;
        self.core.wait(receipt.sequence, end)?;
        if !receipt.repeated {
            let updates = 2 * transfers.len() as u64;
            telemetry::committed(updates, start.elapsed());
        }
        Ok(receipt)
    }

    /// As [`GeometricLedger::transfer_batch`], without waiting for the disk; see
    /// [`GeometricLedger::submit_update_batch`].
    ///
    /// # Errors
    /// As [`GeometricLedger::transfer_batch`].
    pub fn submit_transfer_batch(
        &self,
        idempotency_key: &[u8; 16],
        transfers: &[Transfer],
    ) -> Result<Submitted<Receipt>, Error> {
        let (receipt, end) = self.core.transfer(idempotency_key, transfers)?;
        let updates = match receipt.repeated {
            true => 0,
            false => 2 * transfers.len() as u64,
        };
        Ok(Submitted::new(
            &self.core,
            receipt,
            updates,
            (receipt.sequence, end),
        ))
    }
}

impl Core {
    /// Returns the receipt and the position up to which the log has to be durable for it.
    fn transfer(
        &self,
        idempotency_key: &[u8; 16],
        transfers: &[Transfer],
    ) -> Result<(Receipt, u64), Error> {
        let writer = self.write()?;
        let newest = writer.sequence;
        let (key, digest) = receipt(idempotency_key, transfers);
        if let Some(slot) = self.find(&key, Kind::Receipt, newest)? {
            let end = self.wal.appended();
            drop(writer);
            if slot.words()[4..] != digest {
                return Err(refuse(0, Refusal::OtherBatch));
            }
            let receipt = Receipt {
                sequence: slot.sequence(),
                repeated: true,
            };
            return Ok((receipt, end));
        }
        let mut order = Vec::new();
        let mut accounts: HashMap<Key, Account> = HashMap::with_capacity(2 * transfers.len());
        for (item, transfer) in transfers.iter().enumerate() {
            for key in [transfer.debit, transfer.credit] {
                if let Entry::Vacant(place) = accounts.entry(key) {
                    let slot = self.find(&key, Kind::Account, newest)?;
                    let slot = slot.filter(|slot| slot.kind() == Kind::Account);
                    let unknown = || refuse(item, Refusal::UnknownAccount(key));
                    place.insert(slot.ok_or_else(unknown)?.account());
                    order.push(key);
                }
            }
            transfer
                .apply(&mut accounts)
                .map_err(|reason| refuse(item, reason))?;
        }
        let mut items: Vec<_> = order
            .iter()
            .map(|key| (*key, accounts[key], Kind::Account))
            .collect();
        let mut words = [0; crate::account::WORDS];
        words[4..].copy_from_slice(&digest);
        items.push((key, Account::from_words(&words), Kind::Receipt));
        let order = self.order(&items[..]);
        let (batch, end) = self.append(writer, &items[..], &order, Rule::Transfer)?;
        let receipt = Receipt {
            sequence: batch.sequence,
            repeated: false,
        };
        Ok((receipt, end))
    }
}

impl Transfer {
    fn apply(&self, accounts: &mut HashMap<Key, Account>) -> Result<(), Refusal> {
        let amount = i128::try_from(self.amount).map_err(|_| Refusal::Overflow(self.credit))?;
        if amount == 0 {
            return Err(Refusal::Nothing);
        }
        for key in [self.debit, self.credit] {
            if accounts[&key].flags.contains(Flags::FROZEN) {
                return Err(Refusal::Frozen(key));
            }
        }
        let (debit, credit) = (accounts[&self.debit].code, accounts[&self.credit].code);
        if debit != credit {
            return Err(Refusal::OtherCode {
                debit_key: self.debit,
                debit,
                credit_key: self.credit,
                credit,
            });
        }
        let within = |balance: &i128| balance.unsigned_abs() <= Account::MAX_BALANCE as u128;
        let payer = accounts.get_mut(&self.debit).expect("it was looked up");
        let left = payer.balance.checked_sub(amount).filter(within);
        let left = left.ok_or(Refusal::Overflow(self.debit))?;
        if left < 0 && !payer.flags.contains(Flags::OVERDRAFT) {
            return Err(Refusal::InsufficientFunds {
                key: self.debit,
                balance: payer.balance,
                amount: self.amount,
            });
        }
        payer.balance = left;
        let nonce = payer.nonce.checked_add(1);
        payer.nonce = nonce.ok_or(Refusal::Overflow(self.debit))?;
        let payee = accounts.get_mut(&self.credit).expect("it was looked up");
        let sum = payee.balance.checked_add(amount).filter(within);
        payee.balance = sum.ok_or(Refusal::Overflow(self.credit))?;
        Ok(())
    }
}

fn refuse(item: usize, reason: Refusal) -> Error {
    Error::Item { item, reason }
}

/// What the receipt of a batch is kept under, and what it says of its contents. Receipts have a shard
/// of their own, so that no account's key leads to one.
fn receipt(idempotency_key: &[u8; 16], transfers: &[Transfer]) -> (Key, [u64; 3]) {
    let mut key = [0; 32];
    key[..16].copy_from_slice(idempotency_key);
    let mut hasher = blake3::Hasher::new();
    for transfer in transfers {
        hasher.update(&transfer.debit);
        hasher.update(&transfer.credit);
        hasher.update(&transfer.amount.to_le_bytes());
    }
    let mut digest = [0; 3];
    crate::storage::slot::read_words(&hasher.finalize().as_bytes()[..24], &mut digest);
    (key, digest)
}

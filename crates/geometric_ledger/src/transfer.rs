//! Double entry: what one account pays, another gets.

use crate::account::{Account, Key, WORDS};
use crate::engine::items::Rule;
use crate::engine::parties::{Parties, account_of};
use crate::engine::rules;
use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::{Error, Refusal};
use crate::ledger::GeometricLedger;
use crate::storage::slot::{Kind, Slot, read_words};
use crate::submit::Submitted;
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
    /// [`Account::code`], and none may have [`Flags::FROZEN`](crate::Flags::FROZEN); a balance may not go below zero unless the account has [`Flags::OVERDRAFT`](crate::Flags::OVERDRAFT). Nothing is minted or burned.
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
        let (key, digest) = receipt(idempotency_key, transfers);
        let pair = |at: usize| (&transfers[at].debit, &transfers[at].credit);
        let parties = Parties::new(self, transfers.len(), pair);
        self.warm_parties(&parties);
        let writer = self.write()?;
        if let Some(slot) = self.find(&key, Kind::Receipt, writer.sequence)? {
            return self.repeat(&slot, &digest);
        }
        let found = self.find_parties(&parties)?;
        let mut accounts: Vec<_> = found.iter().map(account_of).collect();
        for (item, (transfer, pair)) in transfers.iter().zip(&parties.pairs).enumerate() {
            transfer
                .apply(&mut accounts, *pair)
                .map_err(|reason| refuse(item, reason))?;
        }
        let mut items: Vec<_> = parties
            .keys
            .iter()
            .zip(accounts)
            .map(|(key, account)| (*key, account.unwrap_or_default(), Kind::Account))
            .collect();
        items.push(receipt_item(key, &digest));
        let order = parties.order(found, &[self.hash_of(&key, Kind::Receipt)]);
        let (batch, end) = self.append(writer, &items[..], &order, Rule::Transfer)?;
        let receipt = Receipt {
            sequence: batch.sequence,
            repeated: false,
        };
        Ok((receipt, end))
    }
}

impl Core {
    /// The answer to a batch that was sent before, and has this receipt; and the position up to which the
    /// log has to be durable for it. Nobody may write meanwhile.
    pub fn repeat(&self, receipt: &Slot, digest: &[u64; 3]) -> Result<(Receipt, u64), Error> {
        if receipt.words()[4..] != digest[..] {
            return Err(refuse(0, Refusal::OtherBatch));
        }
        let repeated = Receipt {
            sequence: receipt.sequence(),
            repeated: true,
        };
        Ok((repeated, self.wal.appended()))
    }
}

impl Transfer {
    fn apply(
        &self,
        accounts: &mut [Option<Account>],
        (debit, credit): (u32, u32),
    ) -> Result<(), Refusal> {
        let (debit, credit) = (debit as usize, credit as usize);
        let mut payer = accounts[debit].ok_or(Refusal::UnknownAccount(self.debit))?;
        let payee = accounts[credit].ok_or(Refusal::UnknownAccount(self.credit))?;
        let amount = rules::amount_of(self.amount, &self.credit)?;
        rules::check_parties((&self.debit, &payer), (&self.credit, &payee))?;
        rules::pay(&self.debit, &mut payer, amount)?;
        accounts[debit] = Some(payer);
        // It may be the same account.
        let payee = accounts[credit].as_mut().expect("it is there");
        rules::get(&self.credit, payee, amount)
    }
}

fn refuse(item: usize, reason: Refusal) -> Error {
    Error::Item { item, reason }
}

/// What a receipt is kept under. Receipts have a shard of their own, so that no account's key leads to
/// one.
pub(crate) fn receipt_key(idempotency_key: &[u8; 16]) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(idempotency_key);
    key
}

/// What a receipt says of a batch's content.
pub(crate) fn receipt_digest(hasher: &blake3::Hasher) -> [u64; 3] {
    let mut digest = [0; 3];
    read_words(&hasher.finalize().as_bytes()[..24], &mut digest);
    digest
}

/// A receipt as an item of its batch.
pub(crate) fn receipt_item(key: Key, digest: &[u64; 3]) -> (Key, Account, Kind) {
    let mut words = [0; WORDS];
    words[4..].copy_from_slice(digest);
    (key, Account::from_words(&words), Kind::Receipt)
}

fn receipt(idempotency_key: &[u8; 16], transfers: &[Transfer]) -> (Key, [u64; 3]) {
    let mut hasher = blake3::Hasher::new();
    for transfer in transfers {
        hasher.update(&transfer.debit);
        hasher.update(&transfer.credit);
        hasher.update(&transfer.amount.to_le_bytes());
    }
    (receipt_key(idempotency_key), receipt_digest(&hasher))
}

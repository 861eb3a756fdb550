//! Accounts set as they are, by whoever brings them from elsewhere.

use crate::account::{Account, Key};
use crate::engine::items::{Items, Rule, Update};
use crate::engine::state::Core;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::storage::slot::Kind;
use crate::transfer::{Receipt, receipt_digest, receipt_item, receipt_key};

impl GeometricLedger {
    /// As [`GeometricLedger::import`], and happens once however often it is sent with the same
    /// idempotency key, as batches of transfers do. Idempotency keys of both are the same.
    ///
    /// # Errors
    /// [`Refusal::OtherBatch`](crate::Refusal::OtherBatch) if the key was used for something else; otherwise as
    /// [`GeometricLedger::import`].
    pub fn import_once(
        &self,
        idempotency_key: &[u8; 16],
        updates: &[Update],
    ) -> Result<Receipt, Error> {
        let (receipt, end) = self.core.import_once(idempotency_key, updates)?;
        self.core.wait(receipt.sequence, end)?;
        Ok(receipt)
    }
}

impl Core {
    fn import_once(
        &self,
        idempotency_key: &[u8; 16],
        updates: &[Update],
    ) -> Result<(Receipt, u64), Error> {
        let key = receipt_key(idempotency_key);
        let digest = digest(updates);
        let items: Vec<(Key, Account, Kind)> = (0..updates.len())
            .map(|item| {
                let (key, account, kind) = Items::get(updates, item);
                (*key, *account, kind)
            })
            .chain([receipt_item(key, &digest)])
            .collect();
        let order = self.order(&items[..]);
        let writer = self.write()?;
        if let Some(slot) = self.find(&key, Kind::Receipt, writer.sequence)? {
            return self.repeat(&slot, &digest);
        }
        let (batch, end) = self.append(writer, &items[..], &order, Rule::Import)?;
        let receipt = Receipt {
            sequence: batch.sequence,
            repeated: false,
        };
        Ok((receipt, end))
    }
}

fn digest(updates: &[Update]) -> [u64; 3] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"import");
    for item in 0..updates.len() {
        let (key, account, kind) = Items::get(updates, item);
        hasher.update(&[kind as u8]);
        hasher.update(key);
        for word in account.to_words() {
            hasher.update(&word.to_le_bytes());
        }
    }
    receipt_digest(&hasher)
}

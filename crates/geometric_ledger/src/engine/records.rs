//! Where the parts of recorded transfers are found, and statements.

use crate::account::Key;
use crate::engine::state::Core;
use crate::error::Error;
use crate::recorded::*;
use crate::storage::slot::{Kind, Slot};
use std::sync::atomic::Ordering;

/// A record, put together from the parts that every record has.
pub struct FoundRecord {
    pub part: DebitPart,
    pub credit: Key,
    pub reference: [u8; 24],
    pub sequence: u64,
}

impl Core {
    /// A part of a record as of a batch. Parts never change, so one that a later batch made was not there.
    pub fn find_part(
        &self,
        id: &TransferId,
        part: u8,
        sequence: u64,
    ) -> Result<Option<Slot>, Error> {
        let slot = self.find_newest(&part_key(id, part), Kind::Transfer)?;
        Ok(slot.filter(|slot| slot.sequence() <= sequence))
    }

    /// A record as of a batch.
    pub fn find_record(
        &self,
        id: &TransferId,
        sequence: u64,
    ) -> Result<Option<FoundRecord>, Error> {
        let Some(slot) = self.find_part(id, DEBIT, sequence)? else {
            return Ok(None);
        };
        let damaged = |what: &str| {
            let place = format!("transfer {}", crate::account::Hex(id));
            Error::damaged("transfers", place, what)
        };
        let part = DebitPart::from_words(slot.words());
        let part = part.ok_or_else(|| damaged("its kind is none that there is"))?;
        let credit = self.find_part(id, CREDIT, sequence)?;
        let credit = credit.ok_or_else(|| damaged("a part of it is missing"))?;
        let (credit, reference) = credit_of(credit.words());
        Ok(Some(FoundRecord {
            part,
            credit,
            reference,
            sequence: slot.sequence(),
        }))
    }

    /// What is known of a transfer as of a batch.
    pub fn transfer_record(
        &self,
        id: &TransferId,
        sequence: u64,
    ) -> Result<Option<TransferRecord>, Error> {
        let Some(found) = self.find_record(id, sequence)? else {
            return Ok(None);
        };
        let resolves = || -> Result<TransferId, Error> {
            let part = self.find_part(id, RESOLVES, sequence)?;
            Ok(part.map_or([0; 16], |slot| link_of(slot.words()).0))
        };
        let kind = match found.part.code {
            Code::Direct => TransferKind::Direct,
            Code::Pending => TransferKind::Pending(self.pending_state(id, sequence)?),
            Code::Post => TransferKind::Post {
                pending: resolves()?,
            },
            Code::Void => TransferKind::Void {
                pending: resolves()?,
            },
        };
        let time = self.time_of(&found, sequence)?;
        Ok(Some(TransferRecord {
            id: *id,
            debit: found.part.debit,
            credit: found.credit,
            amount: found.part.amount,
            code: found.part.currency,
            reference: found.reference,
            kind,
            sequence: found.sequence,
            time,
        }))
    }

    /// When a record was made.
    fn time_of(&self, found: &FoundRecord, sequence: u64) -> Result<Option<i64>, Error> {
        if let Some(batch) = self.batches.get(found.sequence)? {
            return Ok(Some(batch.time));
        }
        // The batch was pruned. What it changed of a balance has its time as well.
        for account in [&found.part.debit, &found.credit] {
            let count = self.statement_head(account, sequence)?.entries;
            if let Some(time) = self.time_of_entry(account, count, found.sequence)? {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }

    /// The time of the entry that a batch made in a statement of `count` entries, if it made one that is
    /// still there.
    fn time_of_entry(
        &self,
        account: &Key,
        count: u64,
        sequence: u64,
    ) -> Result<Option<i64>, Error> {
        // Entries are let go oldest first, and those of later batches have higher numbers.
        let (mut low, mut high) = (1, count + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry_slot(account, middle)? {
                Some(slot) if slot.sequence() == sequence => {
                    return Ok(Some(StatementEntry::from_words(middle, slot.words()).time));
                }
                Some(slot) if slot.sequence() > sequence => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(None)
    }

    fn pending_state(&self, id: &TransferId, sequence: u64) -> Result<PendingState, Error> {
        let end = self.find_part(id, ENDED, sequence)?;
        if let Some(state) = end.and_then(|slot| ended(slot.words())) {
            return Ok(state);
        }
        let open = self.open_transfer(id, sequence)?;
        let expires = open.map(|open| open.expires);
        let expires = expires.filter(|expires| *expires != i64::MAX);
        Ok(PendingState::Open { expires })
    }

    /// A pending transfer's amount and time, if it is open as of a batch.
    pub fn open_transfer(
        &self,
        id: &TransferId,
        sequence: u64,
    ) -> Result<Option<OpenTransfer>, Error> {
        let slot = self.find(&part_key(id, 0), Kind::Pending, sequence)?;
        let slot = slot.filter(|slot| slot.kind() == Kind::Pending);
        Ok(slot.map(|slot| OpenTransfer::from_words(slot.words())))
    }

    /// How many entries an account's statement has as of a batch, and what of it is pending.
    pub fn statement_head(&self, account: &Key, sequence: u64) -> Result<StatementHead, Error> {
        let slot = self.find(account, Kind::Statement, sequence)?;
        Ok(slot.map_or_else(StatementHead::default, |slot| {
            StatementHead::from_words(slot.words())
        }))
    }

    /// An entry of an account's statement; `None` if it was let go.
    pub fn statement_entry(
        &self,
        account: &Key,
        number: u64,
    ) -> Result<Option<StatementEntry>, Error> {
        let slot = self.entry_slot(account, number)?;
        Ok(slot.map(|slot| StatementEntry::from_words(number, slot.words())))
    }

    fn entry_slot(&self, account: &Key, number: u64) -> Result<Option<Slot>, Error> {
        let slot = self.find_newest(&entry_key(account, number), Kind::Entry)?;
        // Slots are let go in any order; those that may be are gone all at once.
        let kept = self.oldest_kept(self.visible.load(Ordering::Acquire));
        Ok(slot.filter(|slot| slot.sequence() > kept))
    }

    /// Pending transfers whose time is over.
    pub fn due_transfers(&self, time: i64) -> Result<Vec<TransferId>, Error> {
        let mut due = Vec::new();
        let shard = self.pending();
        for number in 0..shard.count() {
            // What has moved or is being changed is seen the next time.
            let Some(slot) = shard.next_slot(number, &self.encryption) else {
                continue;
            };
            if slot.kind() == Kind::Pending
                && OpenTransfer::from_words(slot.words()).expires <= time
            {
                due.push(slot.key()[..16].try_into().expect("16 bytes"));
            }
        }
        Ok(due)
    }
}

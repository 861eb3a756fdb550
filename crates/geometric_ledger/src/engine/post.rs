//! Transfers that are recorded: what each does to accounts, statements and pending amounts, one after
//! another and in memory, until all of a batch are items to be committed.
//!
//! A pending amount is nobody's balance: it was taken off the payer's and is added to the payee's, or to
//! the payer's again, when the transfer ends. So at any time the balances and the open amounts together
//! are what was minted and not burned.

use crate::account::{Account, Key, WORDS};
use crate::engine::rules::{amount_of, check_not_frozen, check_parties, get, pay};
use crate::engine::state::{Core, Writer, now};
use crate::engine::tracked::Tracked;
use crate::error::{Error, Refusal};
use crate::recorded::*;
use crate::storage::slot::Kind;
use std::ops::Range;

/// Why a transfer is not done.
enum Stop {
    Refused(Refusal),
    Failed(Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// What of a record is needed again.
#[derive(Clone, Copy, PartialEq)]
struct Known {
    part: DebitPart,
    credit: Key,
    reference: [u8; 24],
    /// The pending transfer that it posts or voids.
    resolves: TransferId,
    sequence: u64,
}

/// The transfers of a batch on their way.
pub struct Posting<'a> {
    core: &'a Core,
    /// What is read is as of this batch.
    sequence: u64,
    pub time: i64,
    accounts: Tracked<Key, Option<Account>>,
    statements: Tracked<Key, StatementHead>,
    open: Tracked<TransferId, Option<OpenTransfer>>,
    known: Tracked<TransferId, Option<Known>>,
    /// Parts of records, and entries.
    slots: Vec<(Key, [u64; WORDS], Kind)>,
}

/// A state to go back to.
#[derive(Clone, Copy)]
struct Mark {
    accounts: usize,
    statements: usize,
    open: usize,
    known: usize,
    slots: usize,
}

impl<'a> Posting<'a> {
    pub fn new(core: &'a Core, writer: &Writer) -> Self {
        Posting {
            core,
            sequence: writer.sequence,
            time: now().max(writer.time),
            accounts: Tracked::default(),
            statements: Tracked::default(),
            open: Tracked::default(),
            known: Tracked::default(),
            slots: Vec::new(),
        }
    }

    /// Does transfers one after another, those that are linked all or none.
    pub fn run(&mut self, transfers: &[NewTransfer]) -> Result<TransferResults, Error> {
        let mut results = Vec::with_capacity(transfers.len());
        let mut from = 0;
        while from < transfers.len() {
            let links = transfers[from..].iter().take_while(|it| it.linked);
            let last = from + links.count();
            let chain = from..(last + 1).min(transfers.len());
            from = chain.end;
            if last == transfers.len() {
                let failed = (last - 1, Refusal::LinkedToNothing);
                refuse_chain(&mut results, chain, failed);
                continue;
            }
            let mark = self.mark();
            if let Err(failed) = self.run_chain(transfers, chain.clone(), &mut results)? {
                self.roll_back(mark);
                refuse_chain(&mut results, chain, failed);
            }
        }
        Ok(results)
    }

    /// Does linked transfers; or says which one cannot be done, and why.
    fn run_chain(
        &mut self,
        transfers: &[NewTransfer],
        chain: Range<usize>,
        results: &mut TransferResults,
    ) -> Result<Result<(), (usize, Refusal)>, Error> {
        let mut repeated = None;
        for at in chain.clone() {
            match self.one(&transfers[at]) {
                Ok(done) => {
                    repeated = repeated.or(done.repeated.then_some(at));
                    results.push(Ok(done));
                }
                Err(Stop::Refused(refusal)) => return Ok(Err((at, refusal))),
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        let done = &results[chain.start..];
        let all = done.iter().flatten().all(|done| done.repeated);
        // Those that were done together before are all there, or none.
        Ok(match repeated {
            Some(at) if !all => Err((at, Refusal::PartlyDone)),
            _ => Ok(()),
        })
    }

    fn one(&mut self, new: &NewTransfer) -> Result<Done, Stop> {
        if let Some(known) = self.known(&new.id)? {
            return match known.is_of(new) {
                true => Ok(Done {
                    sequence: known.sequence,
                    repeated: true,
                }),
                false => Err(Refusal::IdReused.into()),
            };
        }
        match new.step {
            Step::Direct => self.direct(new),
            Step::Pending { timeout } => {
                let timeout = timeout.map(|it| i64::try_from(it.as_micros()).unwrap_or(i64::MAX));
                let expires = timeout.map_or(i64::MAX, |it| self.time.saturating_add(it));
                self.pend(new, expires)
            }
            Step::Post { pending } => self.post(new, pending),
            Step::Void { pending } => self.void(new, pending),
        }?;
        Ok(Done {
            sequence: self.sequence + 1,
            repeated: false,
        })
    }

    fn direct(&mut self, new: &NewTransfer) -> Result<(), Stop> {
        let (amount, mut debit, mut credit) = self.parties(new)?;
        pay(&new.debit, &mut debit, amount)?;
        get(&new.credit, &mut credit, amount)?;
        self.accounts.set(new.debit, Some(debit));
        self.accounts.set(new.credit, Some(credit));
        self.enter(&new.debit, &new.id, -amount, debit.balance)?;
        self.enter(&new.credit, &new.id, amount, credit.balance)?;
        self.record(new, Code::Direct);
        Ok(())
    }

    fn pend(&mut self, new: &NewTransfer, expires: i64) -> Result<(), Stop> {
        let (amount, mut debit, _) = self.parties(new)?;
        pay(&new.debit, &mut debit, amount)?;
        self.accounts.set(new.debit, Some(debit));
        self.enter(&new.debit, &new.id, -amount, debit.balance)?;
        let mut head = self.statement(&new.debit)?;
        let reserved = head.reserved.checked_add(new.amount);
        head.reserved = reserved.ok_or(Refusal::Overflow(new.debit))?;
        self.statements.set(new.debit, head);
        let open = OpenTransfer {
            amount: new.amount,
            expires,
        };
        self.open.try_load(new.id, || Ok::<_, Error>(None))?;
        self.open.set(new.id, Some(open));
        self.record(new, Code::Pending);
        Ok(())
    }

    fn post(&mut self, new: &NewTransfer, pending: TransferId) -> Result<(), Stop> {
        let (known, open) = self.pending(&pending)?;
        let credit = known.credit;
        let amount = match new.amount {
            0 => open.amount,
            amount => amount,
        };
        let rest = open
            .amount
            .checked_sub(amount)
            .ok_or(Refusal::ExceedsPending {
                pending: open.amount,
                amount,
            })?;
        let mut payee = self.account(&credit)?;
        check_not_frozen(&credit, &payee)?;
        check_currency(&credit, &payee, known.part.currency)?;
        let change = amount_of(amount, &credit)?;
        get(&credit, &mut payee, change)?;
        self.accounts.set(credit, Some(payee));
        self.enter(&credit, &new.id, change, payee.balance)?;
        self.release(&known, &new.id, open.amount, rest)?;
        self.end(new, pending, &known, amount, (Code::Post, POSTED));
        Ok(())
    }

    fn void(&mut self, new: &NewTransfer, pending: TransferId) -> Result<(), Stop> {
        let (known, open) = self.pending(&pending)?;
        self.release(&known, &new.id, open.amount, open.amount)?;
        self.end(new, pending, &known, open.amount, (Code::Void, VOIDED));
        Ok(())
    }

    /// Gives back what a pending transfer has taken, if its time is over.
    pub fn expire(&mut self, pending: TransferId) -> Result<(), Error> {
        let mark = self.mark();
        match self.try_expire(pending) {
            Ok(()) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Refused(refusal)) => {
                // The payer has too much to take it back, say: it is tried again.
                tracing::warn!(%refusal, "an expired transfer stays open");
                self.roll_back(mark);
                Ok(())
            }
        }
    }

    fn try_expire(&mut self, pending: TransferId) -> Result<(), Stop> {
        let (known, open) = self.open(&pending)?;
        if open.expires > self.time {
            return Ok(());
        }
        self.release(&known, &pending, open.amount, open.amount)?;
        self.open.set(pending, None);
        let ended = link_words(&[0; 16], EXPIRED);
        self.slots
            .push((part_key(&pending, ENDED), ended, Kind::Transfer));
        Ok(())
    }

    /// Gives `back` to the payer of a pending transfer of `amount`.
    fn release(
        &mut self,
        known: &Known,
        by: &TransferId,
        amount: u128,
        back: u128,
    ) -> Result<(), Stop> {
        let payer = known.part.debit;
        if back > 0 {
            let change = amount_of(back, &payer)?;
            // What was deleted meanwhile is made again: the amount is nobody else's.
            let mut account = self.find_account(&payer)?.unwrap_or(Account {
                code: known.part.currency,
                ..Account::default()
            });
            get(&payer, &mut account, change)?;
            self.accounts.set(payer, Some(account));
            self.enter(&payer, by, change, account.balance)?;
        }
        let mut head = self.statement(&payer)?;
        head.reserved = head.reserved.saturating_sub(amount);
        self.statements.set(payer, head);
        Ok(())
    }

    /// Records a transfer that ends a pending one.
    fn end(
        &mut self,
        new: &NewTransfer,
        pending: TransferId,
        of: &Known,
        amount: u128,
        (code, how): (Code, u64),
    ) {
        let whole = NewTransfer {
            debit: of.part.debit,
            credit: of.credit,
            code: of.part.currency,
            amount,
            ..*new
        };
        self.open.set(pending, None);
        self.record(&whole, code);
        let resolves = link_words(&pending, how);
        let ended = link_words(&new.id, how);
        self.slots
            .push((part_key(&new.id, RESOLVES), resolves, Kind::Transfer));
        self.slots
            .push((part_key(&pending, ENDED), ended, Kind::Transfer));
    }

    /// The amount and the accounts of a transfer that names both.
    fn parties(&mut self, new: &NewTransfer) -> Result<(i128, Account, Account), Stop> {
        let amount = amount_of(new.amount, &new.debit)?;
        if new.debit == new.credit {
            return Err(Refusal::SameAccount(new.debit).into());
        }
        let (debit, credit) = (self.account(&new.debit)?, self.account(&new.credit)?);
        check_parties((&new.debit, &debit), (&new.credit, &credit))?;
        check_currency(&new.debit, &debit, new.code)?;
        Ok((amount, debit, credit))
    }

    fn record(&mut self, new: &NewTransfer, code: Code) {
        let part = DebitPart {
            debit: new.debit,
            amount: new.amount,
            currency: new.code,
            code,
        };
        let credit = credit_words(&new.credit, &new.reference);
        self.slots
            .push((part_key(&new.id, DEBIT), part.to_words(), Kind::Transfer));
        self.slots
            .push((part_key(&new.id, CREDIT), credit, Kind::Transfer));
        let resolves = match new.step {
            Step::Post { pending } | Step::Void { pending } => pending,
            Step::Direct | Step::Pending { .. } => [0; 16],
        };
        let known = Known {
            part,
            credit: new.credit,
            reference: new.reference,
            resolves,
            sequence: self.sequence + 1,
        };
        self.known.set(new.id, Some(known));
    }

    /// Adds an entry to an account's statement.
    fn enter(
        &mut self,
        account: &Key,
        transfer: &TransferId,
        change: i128,
        balance: i128,
    ) -> Result<(), Stop> {
        let mut head = self.statement(account)?;
        head.entries += 1;
        self.statements.set(*account, head);
        let entry = StatementEntry {
            number: head.entries,
            transfer: *transfer,
            change,
            balance,
            time: self.time,
        };
        let key = entry_key(account, head.entries);
        self.slots.push((key, entry.to_words(), Kind::Entry));
        Ok(())
    }

    fn account(&mut self, key: &Key) -> Result<Account, Stop> {
        let account = self.find_account(key)?;
        Ok(account.ok_or(Refusal::UnknownAccount(*key))?)
    }

    fn find_account(&mut self, key: &Key) -> Result<Option<Account>, Error> {
        let (core, sequence) = (self.core, self.sequence);
        self.accounts.try_load(*key, || core.account(key, sequence))
    }

    fn statement(&mut self, account: &Key) -> Result<StatementHead, Error> {
        let (core, sequence) = (self.core, self.sequence);
        self.statements
            .try_load(*account, || core.statement_head(account, sequence))
    }

    fn known(&mut self, id: &TransferId) -> Result<Option<Known>, Error> {
        let (core, sequence) = (self.core, self.sequence);
        self.known.try_load(*id, || {
            let Some(record) = core.find_record(id, sequence)? else {
                return Ok(None);
            };
            let resolves = core.find_part(id, RESOLVES, sequence)?;
            Ok(Some(Known {
                part: record.part,
                credit: record.credit,
                reference: record.reference,
                resolves: resolves.map_or([0; 16], |slot| link_of(slot.words()).0),
                sequence: record.sequence,
            }))
        })
    }

    /// A pending transfer that may be posted or voided.
    fn pending(&mut self, id: &TransferId) -> Result<(Known, OpenTransfer), Stop> {
        let (known, open) = self.open(id)?;
        match open.expires > self.time {
            true => Ok((known, open)),
            false => Err(Refusal::Expired.into()),
        }
    }

    fn open(&mut self, id: &TransferId) -> Result<(Known, OpenTransfer), Stop> {
        let known = self.known(id)?.ok_or(Refusal::UnknownTransfer(*id))?;
        if known.part.code != Code::Pending {
            return Err(Refusal::NotPending.into());
        }
        let (core, sequence) = (self.core, self.sequence);
        let open = self
            .open
            .try_load(*id, || core.open_transfer(id, sequence))?;
        Ok((known, open.ok_or(Refusal::AlreadyEnded)?))
    }

    fn mark(&self) -> Mark {
        Mark {
            accounts: self.accounts.mark(),
            statements: self.statements.mark(),
            open: self.open.mark(),
            known: self.known.mark(),
            slots: self.slots.len(),
        }
    }

    fn roll_back(&mut self, mark: Mark) {
        self.accounts.roll_back(mark.accounts);
        self.statements.roll_back(mark.statements);
        self.open.roll_back(mark.open);
        self.known.roll_back(mark.known);
        self.slots.truncate(mark.slots);
    }

    /// What has to be committed.
    pub fn items(self) -> Vec<(Key, Account, Kind)> {
        let accounts = self.accounts.changed().map(|(key, account)| {
            let account = account.expect("no transfer deletes an account");
            (key, account, Kind::Account)
        });
        let statements = self
            .statements
            .changed()
            .map(|(key, head)| (key, carried(&head.to_words()), Kind::Statement));
        let open = self.open.changed().map(|(id, open)| match open {
            Some(open) => (part_key(&id, 0), carried(&open.to_words()), Kind::Pending),
            None => (part_key(&id, 0), carried(&[0; WORDS]), Kind::Ended),
        });
        let slots = self
            .slots
            .iter()
            .map(|(key, words, kind)| (*key, carried(words), *kind));
        accounts
            .chain(statements)
            .chain(open)
            .chain(slots)
            .collect()
    }
}

impl Known {
    /// Whether what is asked for is what was done.
    fn is_of(&self, new: &NewTransfer) -> bool {
        let DebitPart {
            debit,
            amount,
            currency,
            code,
        } = self.part;
        let named =
            (debit, self.credit, amount, currency) == (new.debit, new.credit, new.amount, new.code);
        let same = match new.step {
            Step::Direct => code == Code::Direct && named,
            Step::Pending { .. } => code == Code::Pending && named,
            Step::Post { pending } => {
                let amounts = new.amount == 0 || new.amount == amount;
                code == Code::Post && self.resolves == pending && amounts
            }
            Step::Void { pending } => code == Code::Void && self.resolves == pending,
        };
        same && self.reference == new.reference
    }
}

fn check_currency(key: &Key, account: &Account, currency: u32) -> Result<(), Refusal> {
    match account.code == currency {
        true => Ok(()),
        false => Err(Refusal::OtherCurrency {
            key: *key,
            account: account.code,
            transfer: currency,
        }),
    }
}

/// Refuses all of a chain: one for its own reason, the others because of it.
fn refuse_chain(
    results: &mut TransferResults,
    chain: Range<usize>,
    (failed, refusal): (usize, Refusal),
) {
    results.truncate(chain.start);
    for at in chain {
        results.push(Err(match at == failed {
            true => refusal.clone(),
            false => Refusal::LinkedRefused,
        }));
    }
}

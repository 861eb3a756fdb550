//! Commands that write. A ledger has one writer: while a process has it open, they are refused.

use crate::accounts::{flags, parse_data, parse_flags, parse_key};
use crate::import::Import;
use crate::key::{from_file, hex, unhex};
use crate::look::{stats, there};
use crate::output::{Failure, bar, follows, say, spinner};
use crate::stop;
use clap::Args;
use geometric_ledger::{Account, Error, Flags, GeometricLedger, Key, Options, Secret};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[group(skip)]
pub struct Change {
    /// In the smallest unit of whatever is counted
    #[arg(long, allow_negative_numbers = true)]
    balance: Option<i128>,
    #[arg(long)]
    nonce: Option<u64>,
    /// none, overdraft, frozen, or overdraft,frozen
    #[arg(long, value_parser = parse_flags)]
    flags: Option<Flags>,
    /// The application's number: only accounts of one code take part in a transfer
    #[arg(long)]
    code: Option<u32>,
    /// 48 hexadecimal digits
    #[arg(long, value_parser = parse_data)]
    data: Option<[u8; 24]>,
}

#[derive(Args)]
#[group(skip)]
pub struct Transfer {
    /// Who pays, 64 hexadecimal digits
    #[arg(value_parser = parse_key)]
    debit: Key,
    /// Who gets, 64 hexadecimal digits
    #[arg(value_parser = parse_key)]
    credit: Key,
    amount: u128,
    /// 32 hexadecimal digits. A transfer that is sent again under the same key is not done again; without
    /// it, each is a new one
    #[arg(long, value_parser = parse_idempotency_key)]
    idempotency_key: Option<[u8; 16]>,
}

fn parse_idempotency_key(text: &str) -> Result<[u8; 16], String> {
    let key = unhex(text).and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| "an idempotency key is 32 hexadecimal digits".to_owned())
}

/// A ledger to be written to, which must be there.
pub fn open(path: &Path, options: Options) -> Result<GeometricLedger, Failure> {
    there(path)?;
    let spinner = spinner("the ledger is opened");
    // Opening for reading says what is missing, where opening for writing would create it.
    let ledger = match path.join("ledger").exists() {
        true => options.open(path),
        false => options.read_only().open(path),
    };
    spinner.finish_and_clear();
    ledger.map_err(|error| match error {
        Error::Locked => Failure::new(
            "another process has the ledger open, and this command has to write to it; stop that process \
             first, or let it do this",
        ),
        error => error.into(),
    })
}

pub fn create(path: &Path, options: Options) -> Result<(), Failure> {
    let shown = path.display();
    let found = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::new(format!("{shown}: {error}"))),
    };
    if found {
        return Err(Failure::new(format!(
            "there is something at {shown} already"
        )));
    }
    let ledger = options.open(path)?;
    let info = ledger.info();
    ledger.close()?;
    let how = if info.encrypted {
        "encrypted"
    } else {
        "not encrypted"
    };
    say!(
        "ledger {} created at {shown}, {how}, with {} shards",
        hex(&info.id),
        info.shards
    )
}

pub fn put(path: &Path, options: Options, key: Key, change: &Change) -> Result<(), Failure> {
    let ledger = open(path, options)?;
    let before = ledger.get(&key)?;
    let old = before.unwrap_or_default();
    let account = Account {
        balance: change.balance.unwrap_or(old.balance),
        nonce: change.nonce.unwrap_or(old.nonce),
        flags: change.flags.unwrap_or(old.flags),
        code: change.code.unwrap_or(old.code),
        data: change.data.unwrap_or(old.data),
    };
    let batch = ledger.update_batch(&[(key, account)])?;
    ledger.close()?;
    let what = if before.is_some() {
        "changed"
    } else {
        "created"
    };
    say!(
        "account {} {what} in batch {}: balance {}, nonce {}, flags {}, code {}",
        hex(&key),
        batch.sequence,
        account.balance,
        account.nonce,
        flags(account.flags),
        account.code
    )
}

pub fn transfer(path: &Path, options: Options, transfer: &Transfer) -> Result<(), Failure> {
    let ledger = open(path, options)?;
    let key = transfer.idempotency_key.map_or_else(random_id, Ok)?;
    let moved = geometric_ledger::Transfer {
        debit: transfer.debit,
        credit: transfer.credit,
        amount: transfer.amount,
    };
    let receipt = ledger.transfer_batch(&key, &[moved])?;
    let left = ledger.get(&transfer.debit)?.unwrap_or_default().balance;
    ledger.close()?;
    match receipt.repeated {
        true => say!("this was done before, in batch {}", receipt.sequence),
        false => say!(
            "{} moved in batch {}, idempotency key {}; {left} left",
            transfer.amount,
            receipt.sequence,
            hex(&key)
        ),
    }
}

/// The name of something that will not be asked for again.
pub fn random_id() -> Result<[u8; 16], Failure> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Failure::new(error.to_string()))?;
    Ok(id)
}

pub fn compact(path: &Path, options: Options) -> Result<(), Failure> {
    let ledger = open(path, options)?;
    stop::listen()?;
    let progress = bar(0);
    let reclaimed = ledger.compact_with(follows(&progress));
    progress.finish_and_clear();
    ledger.close()?;
    let reclaimed = reclaimed?;
    say!("{reclaimed} slots reclaimed")
}

pub fn restore(path: &Path, snapshots: &[PathBuf], options: Options) -> Result<(), Failure> {
    stop::listen()?;
    let progress = bar(0);
    let ledger = GeometricLedger::restore_with(path, snapshots, options, follows(&progress))?;
    progress.finish_and_clear();
    let found = ledger.stats();
    ledger.close()?;
    stats(&found, false)
}

pub fn import(path: &Path, options: Options, import: &Import) -> Result<(), Failure> {
    if !import.create {
        there(path)?;
    }
    let hash = import.check()?;
    let ledger = match import.create && !path.exists() {
        true => options.open(path)?,
        false => open(path, options)?,
    };
    stop::listen()?;
    let imported = import.run(&ledger, hash);
    let spinner = spinner("the ledger is closed");
    ledger.close()?;
    spinner.finish_and_clear();
    imported
}

pub fn rotate_key(path: &Path, old: Option<Secret>, new: &Path) -> Result<(), Failure> {
    there(path)?;
    let old = old.ok_or_else(|| Failure::new("give the present key as well"))?;
    let new = from_file(new)?;
    GeometricLedger::rotate_key(path, &old, &new)?;
    say!("the ledger opens with the new key only")
}

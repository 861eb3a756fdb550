//! `import`: all accounts of a file into a ledger.
//!
//! The file is read twice. The first time every account in it is checked, and the file is hashed: so
//! a file with a fault changes nothing. The second time its accounts are put, in batches. The hash and
//! the number of a batch are its idempotency key: an import that was interrupted is run again, and
//! leaves out what it did before, even if those accounts were changed by others meanwhile.

use crate::accounts::{COLUMNS, Columns, from_csv, to_csv};
use crate::export::Format;
use crate::output::{Failure, bar, say};
use crate::parquet_file::ParquetReader;
use crate::stop;
use clap::Args;
use geometric_ledger::{Account, GeometricLedger, Key, Update};
use indicatif::ProgressBar;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Args)]
#[group(skip)]
pub struct Import {
    /// A .csv or .parquet file with the columns key, balance, nonce, flags, code, data; all but the first
    /// two may be missing, and are zero then
    pub file: PathBuf,
    /// Create the ledger, which must not be there
    #[arg(long)]
    pub create: bool,
    /// Accounts in one batch; the same when an import is resumed
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Import the file once more, although it was imported before
    #[arg(long)]
    again: bool,
    /// Write the accounts that are overwritten, as they were, to this .csv file, which must not be there
    #[arg(long)]
    overwritten: Option<PathBuf>,
}

/// What an import did.
#[derive(Default)]
struct Count {
    created: u64,
    same: u64,
    changed: u64,
    /// Accounts of batches that were put before.
    before: u64,
}

impl Import {
    /// Checks the whole file. Returns its hash.
    pub fn check(&self) -> Result<blake3::Hash, Failure> {
        let mut hasher = blake3::Hasher::new();
        io::copy(
            &mut File::open(&self.file).map_err(|error| self.named(error))?,
            &mut hasher,
        )?;
        self.read("checked", |_, account| {
            match account.balance.unsigned_abs() > Account::MAX_BALANCE as u128 {
                true => Err(Failure::new("a balance is above 2^107, or below -2^107")),
                false => Ok(()),
            }
        })?;
        Ok(hasher.finalize())
    }

    /// Puts the accounts of a file that was checked.
    pub fn run(&self, ledger: &GeometricLedger, hash: blake3::Hash) -> Result<(), Failure> {
        let mut overwritten = self.overwritten.as_deref().map(create_csv).transpose()?;
        let salt = match self.again {
            true => ledger.view().sequence(),
            false => 0,
        };
        let mut count = Count::default();
        let mut number = 0u64;
        let mut batch = Vec::with_capacity(self.batch as usize);
        let mut put = |batch: &mut Vec<(Key, Account)>| -> Result<(), Failure> {
            stop::check().map_err(|_| {
                Failure::new("stopped before it was done; run the same command again to go on")
            })?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(hash.as_bytes());
            hasher.update(&self.batch.to_le_bytes());
            hasher.update(&salt.to_le_bytes());
            hasher.update(&number.to_le_bytes());
            let mut key = [0; 16];
            key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            number += 1;
            put_batch(ledger, &key, batch, &mut count, overwritten.as_mut())?;
            batch.clear();
            Ok(())
        };
        self.read("imported", |key, account| {
            batch.push((key, account));
            match batch.len() == self.batch as usize {
                true => put(&mut batch),
                false => Ok(()),
            }
        })?;
        if !batch.is_empty() {
            put(&mut batch)?;
        }
        if let Some(mut overwritten) = overwritten {
            overwritten.flush()?;
        }
        count.report(ledger.view().sequence())
    }

    /// Gives each account of the file to `each`.
    fn read(
        &self,
        what: &'static str,
        mut each: impl FnMut(Key, Account) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match Format::of(&self.file)? {
            Format::Csv => {
                let file = File::open(&self.file).map_err(|error| self.named(error))?;
                let progress = bar(file.metadata()?.len()).with_message(what);
                let mut reader = csv::Reader::from_reader(progress.wrap_read(file));
                let columns = Columns::find(reader.headers()?.iter())?;
                for (line, record) in reader.records().enumerate() {
                    let line = line + 2;
                    let named = |why: String| Failure::new(format!("line {line}: {why}"));
                    let (key, account) = from_csv(&columns, &record?).map_err(named)?;
                    each(key, account)?;
                }
                progress.finish_and_clear();
            }
            Format::Parquet => {
                let reader = ParquetReader::open(&self.file)
                    .map_err(|failure| named(&self.file, failure))?;
                let progress: ProgressBar = bar(reader.rows()).with_message(what);
                for (number, account) in reader.enumerate() {
                    let (key, account) = account?;
                    each(key, account)?;
                    if number % 10_000 == 0 {
                        progress.set_position(number as u64);
                    }
                }
                progress.finish_and_clear();
            }
        }
        Ok(())
    }

    fn named(&self, error: io::Error) -> Failure {
        Failure::new(format!("{}: {error}", self.file.display()))
    }
}

fn named(path: &Path, failure: Failure) -> Failure {
    match failure {
        Failure::Said(what) => Failure::new(format!("{}: {what}", path.display())),
        failure => failure,
    }
}

/// Puts a batch, unless it was put before; counts what it overwrites.
fn put_batch(
    ledger: &GeometricLedger,
    idempotency_key: &[u8; 16],
    batch: &[(Key, Account)],
    count: &mut Count,
    overwritten: Option<&mut csv::Writer<File>>,
) -> Result<(), Failure> {
    let keys: Vec<Key> = batch.iter().map(|(key, _)| *key).collect();
    let before = ledger.get_many(&keys)?;
    let updates: Vec<_> = batch
        .iter()
        .map(|(key, account)| Update::Put(*key, *account))
        .collect();
    if ledger.import_once(idempotency_key, &updates)?.repeated {
        count.before += batch.len() as u64;
        return Ok(());
    }
    let mut changed = Vec::new();
    for ((key, account), before) in batch.iter().zip(before) {
        match before {
            None => count.created += 1,
            Some(before) if before == *account => count.same += 1,
            Some(before) => changed.push((key, before)),
        }
    }
    count.changed += changed.len() as u64;
    if let Some(overwritten) = overwritten {
        for (key, before) in changed {
            overwritten.write_record(to_csv(key, &before))?;
        }
        overwritten.flush()?;
    }
    Ok(())
}

fn create_csv(path: &Path) -> Result<csv::Writer<File>, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let mut writer = csv::Writer::from_writer(file);
    writer.write_record(COLUMNS)?;
    Ok(writer)
}

impl Count {
    fn report(&self, sequence: u64) -> Result<(), Failure> {
        let Count {
            created,
            same,
            changed,
            before,
        } = self;
        let all = created + same + changed;
        if all == 0 && *before > 0 {
            return say!(
                "this file was imported before: nothing was done; --again imports it once more"
            );
        }
        if *before > 0 {
            say!("{before} accounts were imported before, and left as they are")?;
        }
        say!(
            "{all} accounts imported: {created} created, {changed} overwritten, {same} were the same already; \
             the ledger is at batch {sequence}"
        )
    }
}

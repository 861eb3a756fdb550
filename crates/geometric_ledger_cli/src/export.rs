//! `export`: all accounts as of one batch, as a file.

use crate::accounts::{COLUMNS, to_csv};
use crate::key::hex;
use crate::output::{Failure, bar, say};
use crate::parquet_file::ParquetWriter;
use crate::stop;
use geometric_ledger::{Accounts, Head, Reader};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub enum Format {
    Csv,
    Parquet,
}

impl Format {
    /// What a file is, by its name.
    pub fn of(file: &Path) -> Result<Self, Failure> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Ok(Format::Csv),
            Some("parquet") => Ok(Format::Parquet),
            _ => Err(Failure::new("the file's name must end in .csv or .parquet")),
        }
    }
}

/// Accounts between two looks at whether to stop.
const STEP: usize = 10_000;

/// Writes every account as of now. The file is there when it is whole.
pub fn export(mut ledger: Reader, file: &Path) -> Result<(), Failure> {
    let format = Format::of(file)?;
    stop::listen()?;
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = write(&mut ledger, format, &partial).and_then(|head| {
        std::fs::rename(&partial, file)?;
        Ok(head)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    let head = written?;
    say!(
        "{} accounts as of batch {} (root {}) in {}",
        head.accounts,
        head.sequence,
        hex(&head.root),
        file.display()
    )
}

fn write(ledger: &mut Reader, format: Format, file: &Path) -> Result<Head, Failure> {
    let mut accounts = ledger.accounts()?;
    let head = accounts.head();
    let progress = bar(head.accounts);
    let out =
        File::create(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let out = BufWriter::new(out);
    let out = match format {
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(COLUMNS)?;
            each(&mut accounts, &progress, |key, account| {
                Ok(writer.write_record(to_csv(key, account))?)
            })?;
            writer
                .into_inner()
                .map_err(|error| Failure::new(error.to_string()))?
        }
        Format::Parquet => {
            let mut writer = ParquetWriter::new(out, &head)?;
            each(&mut accounts, &progress, |key, account| {
                writer.push(*key, *account)
            })?;
            writer.finish()?
        }
    };
    let mut out = out;
    out.flush()?;
    out.get_ref().sync_all()?;
    progress.finish_and_clear();
    Ok(head)
}

fn each(
    accounts: &mut Accounts<'_>,
    progress: &indicatif::ProgressBar,
    mut put: impl FnMut(&geometric_ledger::Key, &geometric_ledger::Account) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (number, item) in accounts.enumerate() {
        let (key, account) = item?;
        put(&key, &account)?;
        if number % STEP == 0 {
            stop::check()?;
            progress.set_position(number as u64);
        }
    }
    Ok(())
}

//! Accounts as CSV and as Parquet: the same columns in both, written and read with bounded memory.
//!
//! `key` and `data` are hexadecimal in CSV and bytes in Parquet; `balance` is a decimal number, in
//! Parquet of up to 38 digits; `nonce`, `flags` and `code` are unsigned.

use crate::key::{hex, unhex};
use crate::{Failure, bar};
use geometric_ledger::{Account, Flags, GeometricLedger, Key, Update};
use parquet::basic::Compression;
use parquet::data_type::{
    ByteArray, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::{Field, Row};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const COLUMNS: [&str; 6] = ["key", "balance", "nonce", "flags", "code", "data"];
const SCHEMA: &str = "message accounts {
    required fixed_len_byte_array(32) key;
    required fixed_len_byte_array(16) balance (DECIMAL(38, 0));
    required int64 nonce (INTEGER(64, false));
    required int32 flags (INTEGER(32, false));
    required int32 code (INTEGER(32, false));
    required fixed_len_byte_array(24) data;
}";
/// Accounts in one row group.
const GROUP: usize = 100_000;

enum Format {
    Csv,
    Parquet,
}

fn format(file: &Path) -> Result<Format, Failure> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(Format::Csv),
        Some("parquet") => Ok(Format::Parquet),
        _ => Err(Failure::new("the file's name must end in .csv or .parquet")),
    }
}

/// Writes every account as of now.
pub fn export(ledger: &GeometricLedger, file: &Path) -> Result<(), Failure> {
    let format = format(file)?;
    let view = ledger.view();
    let progress = bar(ledger.stats().accounts);
    let accounts = progress.wrap_iter(view.iter());
    match format {
        Format::Csv => {
            let mut writer = csv::Writer::from_path(file)?;
            writer.write_record(COLUMNS)?;
            for item in accounts {
                let (key, account) = item?;
                writer.write_record([
                    hex(&key),
                    account.balance.to_string(),
                    account.nonce.to_string(),
                    account.flags.0.to_string(),
                    account.code.to_string(),
                    hex(&account.data),
                ])?;
            }
            writer.flush()?;
        }
        Format::Parquet => {
            let schema = Arc::new(parse_message_type(SCHEMA)?);
            let properties = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .build();
            let mut writer =
                SerializedFileWriter::new(File::create(file)?, schema, Arc::new(properties))?;
            let mut group = Vec::with_capacity(GROUP);
            for item in accounts {
                group.push(item?);
                if group.len() == GROUP {
                    write_group(&mut writer, &group)?;
                    group.clear();
                }
            }
            write_group(&mut writer, &group)?;
            writer.close()?;
        }
    }
    progress.finish_and_clear();
    println!(
        "the accounts after batch {} in {}",
        view.sequence(),
        file.display()
    );
    Ok(())
}

fn write_group(
    writer: &mut SerializedFileWriter<File>,
    accounts: &[(Key, Account)],
) -> Result<(), Failure> {
    let fixed = |bytes: &[u8]| FixedLenByteArray::from(ByteArray::from(bytes.to_vec()));
    // A balance has 33 digits at the most.
    let mut group = writer.next_row_group()?;
    let mut number = 0;
    while let Some(mut column) = group.next_column()? {
        match number {
            0 | 1 | 5 => {
                let values: Vec<_> = accounts
                    .iter()
                    .map(|(key, account)| match number {
                        0 => fixed(key),
                        1 => fixed(&account.balance.to_be_bytes()),
                        _ => fixed(&account.data),
                    })
                    .collect();
                column
                    .typed::<FixedLenByteArrayType>()
                    .write_batch(&values, None, None)?;
            }
            2 => {
                let values: Vec<_> = accounts
                    .iter()
                    .map(|(_, account)| account.nonce as i64)
                    .collect();
                column
                    .typed::<Int64Type>()
                    .write_batch(&values, None, None)?;
            }
            _ => {
                let values: Vec<_> = accounts
                    .iter()
                    .map(|(_, account)| if number == 3 { account.flags.0 } else { account.code } as i32)
                    .collect();
                column
                    .typed::<Int32Type>()
                    .write_batch(&values, None, None)?;
            }
        }
        column.close()?;
        number += 1;
    }
    group.close()?;
    Ok(())
}

/// Puts every account of a file.
pub fn import(ledger: &GeometricLedger, file: &Path, batch: usize) -> Result<(), Failure> {
    let mut accounts = Vec::with_capacity(batch);
    let mut count = 0u64;
    let mut put = |account: Option<(Key, Account)>| -> Result<(), Failure> {
        let last = account.is_none();
        accounts.extend(account.map(|(key, account)| Update::Put(key, account)));
        if accounts.len() == batch || (last && !accounts.is_empty()) {
            ledger.import(&accounts)?;
            count += accounts.len() as u64;
            accounts.clear();
        }
        Ok(())
    };
    match format(file)? {
        Format::Csv => {
            let progress = bar(file.metadata()?.len());
            let reader = progress.wrap_read(File::open(file)?);
            let mut reader = csv::Reader::from_reader(reader);
            if reader.headers()?.iter().ne(COLUMNS) {
                return Err(Failure::new(format!(
                    "the columns must be {}",
                    COLUMNS.join(",")
                )));
            }
            for (line, record) in reader.records().enumerate() {
                let account = from_csv(&record?);
                let what = || Failure::new(format!("line {} is no account", line + 2));
                put(Some(account.ok_or_else(what)?))?;
            }
            progress.finish_and_clear();
        }
        Format::Parquet => {
            let reader = SerializedFileReader::new(File::open(file)?)?;
            let progress = bar(reader.metadata().file_metadata().num_rows() as u64);
            for (number, row) in reader.get_row_iter(None)?.enumerate() {
                let account = from_parquet(&row?);
                let what = || Failure::new(format!("row {} is no account", number + 1));
                put(Some(account.ok_or_else(what)?))?;
                progress.inc(1);
            }
            progress.finish_and_clear();
        }
    }
    put(None)?;
    println!(
        "{count} accounts, the ledger is at batch {}",
        ledger.view().sequence()
    );
    Ok(())
}

fn from_csv(record: &csv::StringRecord) -> Option<(Key, Account)> {
    let account = Account {
        balance: record.get(1)?.parse().ok()?,
        nonce: record.get(2)?.parse().ok()?,
        flags: Flags(record.get(3)?.parse().ok()?),
        code: record.get(4)?.parse().ok()?,
        data: unhex(record.get(5)?)?.try_into().ok()?,
    };
    Some((unhex(record.get(0)?)?.try_into().ok()?, account))
}

fn from_parquet(row: &Row) -> Option<(Key, Account)> {
    let fields: Vec<_> = row.get_column_iter().map(|(_, field)| field).collect();
    let [
        Field::Bytes(key),
        Field::Decimal(balance),
        Field::ULong(nonce),
        Field::UInt(flags),
        Field::UInt(code),
        Field::Bytes(data),
    ] = fields[..]
    else {
        return None;
    };
    let account = Account {
        balance: i128::from_be_bytes(balance.data().try_into().ok()?),
        nonce: *nonce,
        flags: Flags(*flags),
        code: *code,
        data: data.data().try_into().ok()?,
    };
    Some((key.data().try_into().ok()?, account))
}

//! Accounts in Parquet: as this program writes them, and as pandas, Polars, DuckDB and Arrow do.
//!
//! What is written is one schema. What is read may have keys and data as bytes or as hexadecimal text,
//! balances as decimals, integers or text, in any encoding and compression.

use crate::accounts::{Columns, parse_data, parse_key};
use crate::key::hex;
use crate::output::Failure;
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, Decimal128Array, LargeStringArray, RecordBatch, UInt32Array, UInt64Array,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::DataType;
use geometric_ledger::{Account, Flags, Head, Key};
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::data_type::{
    ByteArray, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

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
/// Digits of a decimal that 128 bits hold.
const DIGITS: u8 = 38;

/// Writes accounts as they come.
pub struct ParquetWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    group: Vec<(Key, Account)>,
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Begins a file that says which ledger, batch and root its accounts are of.
    pub fn new(out: W, head: &Head) -> Result<Self, Failure> {
        let entry = |name: &str, value: String| KeyValue::new(name.to_owned(), value);
        let metadata = vec![
            entry("geometric_ledger.ledger", hex(&head.ledger)),
            entry("geometric_ledger.batch", head.sequence.to_string()),
            entry("geometric_ledger.root", hex(&head.root)),
        ];
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(metadata))
            .build();
        Ok(ParquetWriter {
            writer: SerializedFileWriter::new(out, schema, Arc::new(properties))?,
            group: Vec::with_capacity(GROUP),
        })
    }

    pub fn push(&mut self, key: Key, account: Account) -> Result<(), Failure> {
        self.group.push((key, account));
        match self.group.len() == GROUP {
            true => self.flush(),
            false => Ok(()),
        }
    }

    pub fn finish(mut self) -> Result<W, Failure> {
        self.flush()?;
        Ok(self.writer.into_inner()?)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let accounts = std::mem::take(&mut self.group);
        let mut group = self.writer.next_row_group()?;
        let mut number = 0;
        while let Some(mut column) = group.next_column()? {
            match number {
                0 | 1 | 5 => {
                    let value = |(key, account): &(Key, Account)| match number {
                        0 => fixed(key),
                        1 => fixed(&account.balance.to_be_bytes()),
                        _ => fixed(&account.data),
                    };
                    let values: Vec<_> = accounts.iter().map(value).collect();
                    let column = column.typed::<FixedLenByteArrayType>();
                    column.write_batch(&values, None, None)?;
                }
                2 => {
                    let value = |(_, account): &(Key, Account)| account.nonce as i64;
                    let values: Vec<_> = accounts.iter().map(value).collect();
                    column
                        .typed::<Int64Type>()
                        .write_batch(&values, None, None)?;
                }
                _ => {
                    let value = |(_, account): &(Key, Account)| match number {
                        3 => account.flags.0 as i32,
                        _ => account.code as i32,
                    };
                    let values: Vec<_> = accounts.iter().map(value).collect();
                    column
                        .typed::<Int32Type>()
                        .write_batch(&values, None, None)?;
                }
            }
            column.close()?;
            number += 1;
        }
        group.close()?;
        self.group = accounts;
        self.group.clear();
        Ok(())
    }
}

fn fixed(bytes: &[u8]) -> FixedLenByteArray {
    FixedLenByteArray::from(ByteArray::from(bytes.to_vec()))
}

/// Reads the accounts of a file.
pub struct ParquetReader {
    rows: u64,
    columns: Columns,
    batches: ParquetRecordBatchReader,
    current: Vec<(Key, Account)>,
    /// The row that `current` ends before.
    row: u64,
}

impl ParquetReader {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        // Columns are of the types that Parquet says. What Arrow writers note beside may be what they were in
        // memory, which the reader converts to with losses.
        let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let file = File::open(path)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, plain)?;
        let names = builder
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().as_str());
        Ok(ParquetReader {
            rows: builder.metadata().file_metadata().num_rows().max(0) as u64,
            columns: Columns::find(names)?,
            batches: builder.build()?,
            current: Vec::new(),
            row: 0,
        })
    }

    /// How many accounts there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn read(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let first = self.row;
        let accounts = accounts(&self.columns, batch, first)?;
        self.row += batch.num_rows() as u64;
        self.current = accounts;
        self.current.reverse();
        Ok(())
    }
}

impl Iterator for ParquetReader {
    type Item = Result<(Key, Account), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(account) = self.current.pop() {
                return Some(Ok(account));
            }
            let batch = self.batches.next()?;
            if let Err(failure) = batch.map_err(Failure::from).and_then(|it| self.read(&it)) {
                return Some(Err(failure));
            }
        }
    }
}

fn accounts(
    columns: &Columns,
    batch: &RecordBatch,
    first: u64,
) -> Result<Vec<(Key, Account)>, Failure> {
    let column = |name: &str| columns.get(name).map(|place| batch.column(place));
    let required = |name| column(name).ok_or_else(|| Failure::new(format!("{name} is missing")));
    let keys = Bytes::of("key", required("key")?)?;
    let balances = integers(
        "balance",
        required("balance")?,
        &DataType::Decimal128(DIGITS, 0),
    )?;
    let numbers = |name, target: DataType| {
        let column = column(name).map(|column| integers(name, column, &target));
        column.transpose()
    };
    let nonces = numbers("nonce", DataType::UInt64)?;
    let flags = numbers("flags", DataType::UInt32)?;
    let codes = numbers("code", DataType::UInt32)?;
    let data = column("data")
        .map(|column| Bytes::of("data", column))
        .transpose()?;
    let at = |row: usize| -> Result<(Key, Account), String> {
        let key = keys.get(row, parse_key, "a key has 32 bytes")?;
        let data = match &data {
            Some(data) => data.get(row, parse_data, "data has 24 bytes")?,
            None => None,
        };
        if balances.is_null(row) {
            return Err("there is no balance".into());
        }
        let small = |column: &Option<ArrayRef>| {
            let column = column.as_ref().filter(|column| column.is_valid(row));
            column.map_or(0, |column| column.as_primitive::<UInt32Type>().value(row))
        };
        let nonce = nonces.as_ref().filter(|column| column.is_valid(row));
        let account = Account {
            balance: balances.as_primitive::<Decimal128Type>().value(row),
            nonce: nonce.map_or(0, |column| column.as_primitive::<UInt64Type>().value(row)),
            flags: Flags(small(&flags)),
            code: small(&codes),
            data: data.unwrap_or_default(),
        };
        Ok((key.ok_or("there is no key")?, account))
    };
    let named = |row: usize| {
        at(row).map_err(|why| Failure::new(format!("row {}: {why}", first + row as u64 + 1)))
    };
    (0..batch.num_rows()).map(named).collect()
}

/// A column of bytes, or of what is hexadecimal for them.
enum Bytes {
    Binary(ArrayRef),
    Text(ArrayRef),
}

impl Bytes {
    fn of(name: &str, column: &ArrayRef) -> Result<Self, Failure> {
        let kind = match column.data_type() {
            DataType::Dictionary(_, values) => values.as_ref(),
            kind => kind,
        };
        match kind {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Ok(Bytes::Text(cast(column, &DataType::LargeUtf8)?))
            }
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => {
                Ok(Bytes::Binary(cast(column, &DataType::LargeBinary)?))
            }
            other => Err(Failure::new(format!(
                "the column {name:?} is of {other}; it must be bytes, or hexadecimal text"
            ))),
        }
    }

    fn get<const N: usize>(
        &self,
        row: usize,
        parse: fn(&str) -> Result<[u8; N], String>,
        what: &str,
    ) -> Result<Option<[u8; N]>, String> {
        let (Bytes::Binary(column) | Bytes::Text(column)) = self;
        if column.is_null(row) {
            return Ok(None);
        }
        match self {
            Bytes::Text(column) => parse(column.as_string::<i64>().value(row)).map(Some),
            Bytes::Binary(column) => {
                let bytes = column.as_binary::<i64>().value(row);
                let found = || format!("{what}, and not {}", bytes.len());
                bytes.try_into().map(Some).map_err(|_| found())
            }
        }
    }
}

/// A column of whole numbers, or of text of them.
fn integers(name: &str, column: &ArrayRef, target: &DataType) -> Result<ArrayRef, Failure> {
    let refused = |why: &str| Failure::new(format!("the column {name:?} {why}"));
    let kind = match column.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        kind => kind,
    };
    if matches!(
        kind,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    ) {
        return parsed(column, target).map_err(|text| refused(&format!("has the value {text:?}")));
    }
    if !kind.is_integer() && !is_decimal(kind) {
        return Err(refused(&format!(
            "is of {kind}, which does not hold every whole number; make it a decimal without digits after the \
             point, as by CAST({name} AS DECIMAL(38, 0)), or an integer"
        )));
    }
    let there = cast(column, target).map_err(|_| refused("has a value that is out of range"))?;
    if is_decimal(kind) {
        // A cast rounds, and what is not whole comes back as something else.
        let back = cast(&there, kind).map_err(|_| refused("has a value that is out of range"))?;
        if back.as_ref() != cast(column, kind)?.as_ref() {
            return Err(refused("has digits after the point"));
        }
    }
    Ok(there)
}

/// Numbers out of text, which a cast would round. The error is what is no number.
fn parsed(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, String> {
    fn all<T: FromStr>(texts: &LargeStringArray) -> Result<Vec<Option<T>>, String> {
        let parse = |text: &str| text.trim().parse().map_err(|_| text.to_owned());
        texts
            .iter()
            .map(|text| text.map(parse).transpose())
            .collect()
    }
    let texts = cast(column, &DataType::LargeUtf8).map_err(|_| String::new())?;
    let texts = texts.as_string::<i64>();
    Ok(match target {
        DataType::UInt64 => Arc::new(UInt64Array::from(all(texts)?)),
        DataType::UInt32 => Arc::new(UInt32Array::from(all(texts)?)),
        _ => {
            let balances = Decimal128Array::from(all::<i128>(texts)?);
            let precise = balances.with_precision_and_scale(DIGITS, 0);
            Arc::new(precise.map_err(|error| error.to_string())?)
        }
    })
}

fn is_decimal(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    )
}

fn cast(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, Failure> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(column, target, &strict)?)
}

//! An account as text: for CSV, for JSON, and for people.

use crate::key::{hex, unhex};
use crate::output::Failure;
use geometric_ledger::{Account, Flags, Key};
use serde_json::{Value, json};

pub const COLUMNS: [&str; 6] = ["key", "balance", "nonce", "flags", "code", "data"];

/// A key as 64 hexadecimal digits.
pub fn parse_key(text: &str) -> Result<Key, String> {
    let key = unhex(text).and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| "a key is 64 hexadecimal digits".to_owned())
}

pub fn parse_data(text: &str) -> Result<[u8; 24], String> {
    let data = unhex(text).and_then(|bytes| bytes.try_into().ok());
    data.ok_or_else(|| "data is 48 hexadecimal digits".to_owned())
}

pub fn parse_flags(text: &str) -> Result<Flags, String> {
    let flag = |name: &str| match name.trim() {
        "none" | "" => Ok(Flags::NONE),
        "overdraft" => Ok(Flags::OVERDRAFT),
        "frozen" => Ok(Flags::FROZEN),
        number => number.parse().map(Flags).map_err(|_| {
            "flags are none, overdraft, frozen, both with a comma between, or a number".to_owned()
        }),
    };
    text.split(',')
        .try_fold(Flags::NONE, |all, name| Ok(all | flag(name)?))
}

pub fn flags(flags: Flags) -> String {
    let known = [(Flags::OVERDRAFT, "overdraft"), (Flags::FROZEN, "frozen")];
    let mut names: Vec<String> = Vec::new();
    let mut rest = flags.0;
    for (flag, name) in known {
        if flags.contains(flag) {
            names.push(name.into());
            rest &= !flag.0;
        }
    }
    if rest != 0 {
        names.push(rest.to_string());
    }
    match names.is_empty() {
        true => "none".into(),
        false => names.join(","),
    }
}

/// A balance has more digits than JSON's numbers keep, so it is text, as nonces are.
pub fn to_json(key: &Key, account: &Account) -> Value {
    json!({
        "key": hex(key),
        "balance": account.balance.to_string(),
        "nonce": account.nonce.to_string(),
        "flags": flags(account.flags),
        "code": account.code,
        "data": hex(&account.data),
    })
}

pub fn to_csv(key: &Key, account: &Account) -> [String; 6] {
    [
        hex(key),
        account.balance.to_string(),
        account.nonce.to_string(),
        account.flags.0.to_string(),
        account.code.to_string(),
        hex(&account.data),
    ]
}

/// Where a file has which column; those that it does not have are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns([Option<usize>; 6]);

impl Columns {
    /// Finds the columns by their names. What may be missing is zero in every account.
    pub fn find<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, Failure> {
        let mut columns = [None; 6];
        for (place, name) in names.enumerate() {
            // The index that pandas writes, unless it is told not to.
            if name.starts_with("__index_level_") {
                continue;
            }
            let number = COLUMNS.iter().position(|it| *it == name);
            let known = number.ok_or_else(|| {
                let known = COLUMNS.join(", ");
                Failure::new(format!(
                    "there is a column {name:?}; those known are {known}"
                ))
            })?;
            if columns[known].replace(place).is_some() {
                return Err(Failure::new(format!("there are two columns {name:?}")));
            }
        }
        for required in [0, 1] {
            if columns[required].is_none() {
                let name = COLUMNS[required];
                return Err(Failure::new(format!("there is no column {name:?}")));
            }
        }
        Ok(Columns(columns))
    }

    pub fn get(&self, name: &str) -> Option<usize> {
        let number = COLUMNS.iter().position(|it| *it == name)?;
        self.0[number]
    }
}

pub fn from_csv(columns: &Columns, record: &csv::StringRecord) -> Result<(Key, Account), String> {
    let field = |name| {
        let place = columns.get(name)?;
        record.get(place).filter(|text| !text.is_empty())
    };
    fn number<T: std::str::FromStr + Default>(name: &str, text: Option<&str>) -> Result<T, String> {
        let parsed = text.map_or(Ok(T::default()), str::parse);
        parsed.map_err(|_| format!("{name} is {:?}", text.unwrap_or_default()))
    }
    let account = Account {
        balance: number(
            "balance",
            Some(field("balance").ok_or("there is no balance")?),
        )?,
        nonce: number("nonce", field("nonce"))?,
        flags: parse_flags(field("flags").unwrap_or_default())?,
        code: number("code", field("code"))?,
        data: field("data").map_or(Ok([0; 24]), parse_data)?,
    };
    Ok((parse_key(field("key").ok_or("there is no key")?)?, account))
}
